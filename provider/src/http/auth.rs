//! Whose request it is.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use super::App;
use super::error::ApiError;
use crate::ledger::Account;

/// The account of a request: of its API key, or the anonymous one where that is allowed.
pub(super) fn account(app: &App, headers: &HeaderMap) -> Result<Account, ApiError> {
    let ledger = app.gateway.ledger();
    let Some(header) = headers.get(AUTHORIZATION) else {
        let Some(name) = &app.config.anonymous else {
            return Err(unauthorized(
                "an API key is needed: `Authorization: Bearer tsk_…`",
            ));
        };
        let anonymous = ledger.accounts()?.into_iter().find(|a| a.name == *name);
        return anonymous.ok_or_else(|| unauthorized("the anonymous account is not there"));
    };
    let key = header.to_str().ok().and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let Some(key) = key else {
        return Err(unauthorized(
            "the Authorization header is not `Bearer tsk_…`",
        ));
    };
    let account = ledger.account_of_key(key)?;
    account.ok_or_else(|| unauthorized("this API key is not known, or was revoked"))
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}
