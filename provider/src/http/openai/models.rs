//! `/v1/models`: what is deployed here.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::error::{ApiError, json_response};
use crate::http::in_path::InPath;
use crate::http::jobs::no_model;
use crate::http::{App, auth};
use crate::ledger::Deployment;

pub(in crate::http) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    auth::account(&app, &headers)?;
    let deployments = app.gateway.ledger().deployments()?;
    let data: Vec<Value> = deployments.iter().map(view).collect();
    let list = json!({"object": "list", "data": data});
    Ok(json_response(StatusCode::OK, &list))
}

pub(in crate::http) async fn one(
    State(app): State<App>,
    InPath(name): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    auth::account(&app, &headers)?;
    let deployment = app.gateway.ledger().deployment(&name)?;
    let deployment = deployment.ok_or_else(|| no_model(&name))?;
    Ok(json_response(StatusCode::OK, &view(&deployment)))
}

fn view(deployment: &Deployment) -> Value {
    json!({
        "id": deployment.name,
        "object": "model",
        "created": deployment.created_unix_ms / 1000,
        "owned_by": "tussah",
        "tussah": {
            "manifest": deployment.manifest.to_string(),
            "shape": deployment.shape.name(),
        },
    })
}
