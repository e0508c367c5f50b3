//! Payment channels, as their clients see them: how one stands, its claims, its vouchers.
//!
//! What is told of a channel is what its chain tells of it, and sums; its receipts are told to the
//! accounts whose jobs they are of. A voucher needs no account's leave: it is the client's promise,
//! and its signature says whose.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tussah_manifest::{ChannelAddress, Nanograms, Signature, TreeHash};

use super::body::{self, Fields, wrong};
use super::error::{ApiError, json_response};
use super::in_path::InPath;
use super::{App, auth, jobs};
use crate::gateway::{PlaceClaim, Standing, VoucherForm};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn address_of(text: &str) -> Result<ChannelAddress, ApiError> {
    text.parse()
        .map_err(|error: tussah_manifest::ChannelAddressError| {
            ApiError::bad("invalid_address", error.to_string())
        })
}

pub(super) async fn channel(
    State(app): State<App>,
    InPath(address): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    auth::account(&app, &headers)?;
    let address = address_of(&address)?;
    standing(&app, address).await
}

pub(super) async fn voucher(
    State(app): State<App>,
    InPath(address): InPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let address = address_of(&address)?;
    let (mut fields, _held) = body::json(&app, &account, &headers, body).await?;
    let voucher = voucher_of(&mut fields)?;
    fields.finish()?;
    take(&app, address, voucher).await?;
    standing(&app, address).await
}

/// Takes a voucher; it is on the disk when this returns.
pub(super) async fn take(
    app: &App,
    address: ChannelAddress,
    voucher: VoucherForm,
) -> Result<(), ApiError> {
    let accepted = app
        .gateway
        .ask_books(address, move |books| books.accept(&address, &voucher));
    Ok(accepted.await?)
}

/// The word for a job's receipt, which the client keeps before it promises to pay for it.
pub(super) async fn claim(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, _) = jobs::own_ended(&app, &headers, &id)?;
    let claim = app.gateway.claim(&id).await?;
    Ok(json_response(StatusCode::OK, &claim_view(&claim)))
}

fn claim_view(claim: &PlaceClaim) -> Value {
    json!({
        "object": "claim",
        "network": claim.opening.network,
        "channel": claim.address.to_string(),
        "incarnation": hex(&claim.opening.incarnation),
        "index": claim.index.to_string(),
        "receipt": claim.receipt.to_string(),
        "signature": hex(claim.signature.as_bytes()),
    })
}

async fn standing(app: &App, address: ChannelAddress) -> Result<Response, ApiError> {
    let asked = app
        .gateway
        .ask_books(address, move |books| books.standing(&address));
    let view = standing_view(&address, &asked.await?);
    Ok(json_response(StatusCode::OK, &view))
}

fn standing_view(address: &ChannelAddress, standing: &Standing) -> Value {
    let text = |amount: Nanograms| amount.get().to_string();
    json!({
        "object": "channel",
        "channel": address.to_string(),
        "network": standing.opening.network,
        "incarnation": hex(&standing.opening.incarnation),
        "open": standing.is_open,
        "takes_jobs": standing.takes_jobs,
        "deadline_unix_s": standing.deadline_unix_s,
        "next_index": standing.next_index.to_string(),
        "receipts": standing.receipts.to_string(),
        "root": standing.root.to_string(),
        "earned_nanograms": text(standing.earned),
        "promised_nanograms": text(standing.promised),
        "vouchered_nanograms": text(standing.vouchered),
        "in_flight_max_nanograms": text(standing.in_flight_max),
        "capacity_nanograms": text(standing.capacity),
    })
}

/// The fields of a voucher.
pub(super) fn voucher_of(fields: &mut Fields) -> Result<VoucherForm, ApiError> {
    let amount = fields.needed_whole("amount_nanograms")?;
    let amount =
        Nanograms::new(amount).ok_or_else(|| wrong("amount_nanograms", "no more than there is"))?;
    let receipts = fields.needed_whole("receipts")?;
    let root = fields.needed_text("root")?;
    let root: TreeHash =
        (root.parse()).map_err(|_| wrong("root", "`sha256:` and 64 hex digits"))?;
    let signature = fields.needed_text("signature")?;
    let signature =
        bytes_of(&signature).ok_or_else(|| wrong("signature", "128 lowercase hex digits"))?;
    Ok(VoucherForm {
        amount,
        receipts,
        root,
        signature: Signature::from_bytes(signature),
    })
}

fn bytes_of(text: &str) -> Option<[u8; 64]> {
    let digits = text.as_bytes();
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 128 || !digits.iter().all(is_hex) {
        return None;
    }
    let mut bytes = [0; 64];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
