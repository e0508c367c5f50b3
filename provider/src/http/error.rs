//! `ApiError`: why a request was refused, in OpenAI's error body.
//!
//! `{"error": {"message", "type", "code", "param"}}`, as OpenAI's clients read it
//! (<https://platform.openai.com/docs/guides/error-codes>). What went wrong within the provider is
//! logged, and told without its particulars.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::gateway::{ClaimError, PayError, SubmitError};
use crate::ledger::LedgerError;
use crate::with_causes;

/// A refusal.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
    retry_after_s: Option<u64>,
    /// Whether another try would only fail, and cost, again.
    is_final: bool,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::PAYMENT_REQUIRED => "insufficient_quota",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Self {
            status,
            kind,
            code,
            message: message.into(),
            param: None,
            retry_after_s: None,
            is_final: false,
        }
    }

    /// Tells OpenAI's clients, which by themselves try again after every 5xx, not to.
    pub(super) fn last(mut self) -> Self {
        self.is_final = true;
        self
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// What is nobody's business but the log's.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        let error = with_causes(error);
        tracing::error!(error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the provider failed; its log says why",
        )
    }

    fn too_many(code: &'static str, message: String, retry_after: Duration) -> Self {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(seconds)
    }

    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "code": self.code,
            "param": self.param,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.to_json());
        if let Some(seconds) = self.retry_after_s {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.is_final {
            let headers = response.headers_mut();
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Credit { .. } => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "insufficient_quota",
                error.to_string(),
            ),
            LedgerError::UploadQuota { .. } => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "upload_quota_exceeded",
                error.to_string(),
            ),
            LedgerError::PlaceTaken(_) => {
                Self::new(StatusCode::CONFLICT, "place_taken", error.to_string())
            }
            LedgerError::Mismatch(_) => Self::bad("documents_differ", error.to_string()),
            other => Self::internal(&other),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Draining => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message).retry_after(5)
            }
            SubmitError::Full(full) => Self::too_many("queue_full", message, full.retry_after()),
            SubmitError::Often(often) => {
                Self::too_many("rate_limit_exceeded", message, often.retry_after)
            }
            SubmitError::InputTooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "input_too_large", message).param("input")
            }
            SubmitError::Limit(_) => Self::bad("limit_too_high", message).param("manifest"),
            SubmitError::Model(_) => {
                Self::new(StatusCode::FORBIDDEN, "model_not_offered", message).param("manifest")
            }
            SubmitError::NotVerified(_) => {
                Self::new(StatusCode::FORBIDDEN, "module_not_verified", message).param("claim")
            }
            SubmitError::Slow { left, .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "module_too_slow", message)
                    .retry_after(left.as_secs() + 1)
            }
            SubmitError::Missing { .. } => Self::new(StatusCode::CONFLICT, "blob_missing", message),
            SubmitError::PriceTooLow { .. } => {
                Self::bad("price_too_low", message).param("max_price_nanograms")
            }
            SubmitError::Request(_) => Self::bad("invalid_request", message).param("request"),
            SubmitError::Channel => Self::bad("channel_unsupported", message).param("request"),
            SubmitError::Pay(error) => error.into(),
            SubmitError::Late => Self::bad("deadline_passed", message),
            SubmitError::Ledger(error) => error.into(),
            other @ (SubmitError::Signer(_) | SubmitError::Internal(_)) => Self::internal(&other),
        }
    }
}

impl From<PayError> for ApiError {
    fn from(error: PayError) -> Self {
        let message = error.to_string();
        match error {
            PayError::NoChannel(_) => {
                Self::new(StatusCode::NOT_FOUND, "channel_not_found", message)
            }
            PayError::Refused(_) => {
                Self::new(StatusCode::PAYMENT_REQUIRED, "channel_refused", message)
            }
            PayError::Busy(_) => Self::new(StatusCode::CONFLICT, "channel_busy", message),
            PayError::Unchecked(_) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "channel_unchecked", message).retry_after(5)
            }
            PayError::Unseen { .. } => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "channel_unseen", message).retry_after(30)
            }
            PayError::Failed(_) => Self::internal(&error),
        }
    }
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Pay(error) => error.into(),
            ClaimError::Ledger(error) => error.into(),
            ClaimError::NoReceipt => Self::not_found(error.to_string()),
            other => Self::internal(&other),
        }
    }
}

/// JSON as an answer.
pub(super) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

pub(super) async fn no_such_path() -> ApiError {
    ApiError::not_found("there is no such path; GET /v1/models lists what is offered")
}

pub(super) async fn no_such_method() -> ApiError {
    let message = "this path has other methods";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}
