//! `/openapi.json`: this interface, described for programs. Whoever reaches the port may read it.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// Written by hand beside the handlers; a test holds paths, methods and answers to it.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
