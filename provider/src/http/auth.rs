//! Whose request it is.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use super::App;
use super::error::ApiError;
use crate::ledger::Account;

/// What stands in place of a key where none is needed: clients that are made for keys send one always.
/// No key is this word, and a mistyped or revoked key is nobody's.
const NO_KEY: &str = "anonymous";

/// The account of a request: of its API key, or the anonymous one where that is allowed.
pub(super) fn account(app: &App, headers: &HeaderMap) -> Result<Account, ApiError> {
    let ledger = app.gateway.ledger();
    let Some(header) = headers.get(AUTHORIZATION) else {
        return anonymous(app);
    };
    if headers.get_all(AUTHORIZATION).iter().count() > 1 {
        return Err(unauthorized("a request has one Authorization header"));
    }
    let key = header.to_str().ok().and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let Some(key) = key else {
        return Err(unauthorized(
            "the Authorization header is not `Bearer tsk_…`",
        ));
    };
    if key == NO_KEY && app.config.anonymous.is_some() {
        return anonymous(app);
    }
    let account = ledger.account_of_key(key)?;
    account.ok_or_else(|| unauthorized("this API key is not known, or was revoked"))
}

fn anonymous(app: &App) -> Result<Account, ApiError> {
    let Some(name) = &app.config.anonymous else {
        return Err(unauthorized(
            "an API key is needed: `Authorization: Bearer tsk_…`",
        ));
    };
    let accounts = app.gateway.ledger().accounts()?;
    let anonymous = accounts.into_iter().find(|a| a.name == *name);
    anonymous.ok_or_else(|| unauthorized("the anonymous account is not there"))
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}
