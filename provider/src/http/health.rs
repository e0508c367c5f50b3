//! For whoever watches this machine: whether the daemon lives, would run a job, and what it did.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::{ApiError, json_response};
use crate::gateway::Gateway;

/// It answers, so it lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether a job would be run now.
pub(super) async fn readyz(State(gateway): State<Gateway>) -> Response {
    let (waiting, running) = gateway.load();
    let reason = gateway.not_ready();
    let status = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "ready": reason.is_none(),
        "reason": reason,
        "device": gateway.device(),
        "isolation": gateway.isolation().map(|isolation| isolation.to_string()),
        "waiting": waiting,
        "running": running,
        "set_aside": gateway.set_aside(),
        "channels": gateway.paymaster().map(|books| {
            let counts = books.counts();
            json!({"watched": counts.watched, "unseen": counts.unseen})
        }),
    });
    json_response(status, &body)
}

/// Prometheus' text format.
pub(super) async fn metrics(State(gateway): State<Gateway>) -> Response {
    let (waiting, running) = gateway.load();
    let writes = gateway.ledger().writes();
    let text = gateway.metrics().to_prometheus(waiting, running, writes);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// The daemon at this moment, with its newest jobs, without content.
pub(super) async fn status(State(gateway): State<Gateway>) -> Result<Response, ApiError> {
    Ok(json_response(StatusCode::OK, &gateway.status()?.to_json()))
}
