//! `InPath`: the part of a path that names something, as text.
//!
//! In: a request's path. Out: the text behind its percent signs, or a refusal with the body that
//! all refusals have. What the text names is for its handler to check.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;

pub(super) struct InPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => {
                let message = "what stands behind the path's percent signs is no UTF-8";
                Err(ApiError::bad("invalid_path", message))
            }
        }
    }
}
