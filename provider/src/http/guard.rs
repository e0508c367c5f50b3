//! What happens to every request before and after its handler: whether it is for us, and a number.

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;

/// By which a client and the log speak of one request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id();
    let method = request.method().clone();
    let mut response = match check(&app, request.headers(), &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let status = response.status();
    let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
    app.gateway.metrics().http_answers[class].add(1);
    // Neither path nor query: both may hold what is the client's own.
    tracing::debug!(id, %method, status = status.as_u16(), "answered");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn check(app: &App, headers: &HeaderMap, request: &Request) -> Result<(), ApiError> {
    // A name that somebody else pointed at this machine is not one of its own.
    let host = match request.uri().host() {
        Some(host) => Some(host),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let name = host.map(without_port).unwrap_or_default();
    let is_ours = |ours: &String| ours.eq_ignore_ascii_case(name);
    if headers.get_all(HOST).iter().count() > 1 || !app.config.hosts.iter().any(is_ours) {
        let message = "the Host header is not a name of this provider";
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Err(ApiError::new(status, "host_unknown", message));
    }
    // Browsers say where a page is from; none is allowed to use this.
    if headers.contains_key(ORIGIN) {
        let message = "pages of other origins may not use this provider";
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "origin_refused",
            message,
        ));
    }
    Ok(())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn request_id() -> String {
    let mut bytes = [0; 8];
    // Without random numbers an id is not unique, which harms nobody.
    let _ = getrandom::fill(&mut bytes);
    format!("req_{:016x}", u64::from_le_bytes(bytes))
}
