//! What work costs here: the price sheet, and quotes for single jobs.
//!
//! In: a manifest, how much input, what the client pays. Out: the most that the job can cost, and
//! whether it would be taken. A quote sets nothing aside: what makes it binding is that a job which
//! names it as `max_price_nanograms` is refused rather than cost more.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tussah_manifest::Nanograms;

use super::error::{ApiError, json_response};
use super::{App, auth, body, jobs};
use crate::gateway::PriceSheet;

fn text(amount: Nanograms) -> String {
    amount.get().to_string()
}

fn sheet(prices: &PriceSheet) -> Value {
    json!({
        "base_nanograms": text(prices.base),
        "nanograms_per_billion_fuel": text(prices.fuel),
        "nanograms_per_trillion_inference_units": text(prices.inference),
    })
}

/// The sheet, and the most that a call of each model can cost.
pub(super) async fn prices(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let ledger = app.gateway.ledger();
    let mut models = Vec::new();
    for deployment in ledger.deployments()? {
        let Some(manifest) = ledger.manifest(&deployment.manifest)? else {
            continue;
        };
        let quote = app.gateway.quote(&manifest, None);
        models.push(json!({
            "model": deployment.name,
            "manifest": deployment.manifest.to_string(),
            "price_nanograms_max": text(quote.price_max),
            "covered": quote.is_covered(),
        }));
    }
    let view = json!({
        "object": "prices",
        "prices": sheet(&app.gateway.config().prices),
        "models": models,
        "credit_left_nanograms": account.credit_left().map(text),
    });
    Ok(json_response(StatusCode::OK, &view))
}

/// What one job can cost.
pub(super) async fn quote(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let (mut fields, _held) = body::json(&app, &account, &headers, body).await?;
    let (manifest, _) = jobs::manifest_of(&app, &mut fields)?;
    let price_max = jobs::price_of(&mut fields)?;
    let input_bytes = fields.whole("input_bytes")?;
    fields.finish()?;
    if let Some(bytes) = input_bytes {
        app.gateway.check_input(&manifest, bytes)?;
    }
    let quote = app.gateway.quote(&manifest, price_max);
    let (waiting, running) = app.gateway.load();
    let left = account.credit_left();
    let view = json!({
        "object": "quote",
        "manifest": manifest.digest().to_string(),
        "price_nanograms_max": text(quote.price_max),
        "cap_nanograms": text(quote.cap),
        "covered": quote.is_covered(),
        "provider_key": app.gateway.provider_key().to_string(),
        "credit_left_nanograms": left.map(text),
        "credit_reaches": left.is_none_or(|left| quote.price_max <= left),
        "prices": sheet(&app.gateway.config().prices),
        // For as long as this daemon runs: its prices change with a start, and no job's then.
        "valid_until_unix_ms": null,
        "jobs_waiting": waiting,
        "jobs_running": running,
    });
    Ok(json_response(StatusCode::OK, &view))
}
