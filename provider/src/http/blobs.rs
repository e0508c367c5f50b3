//! `/v1/blobs/{digest}`: modules by digest, in as many pieces as a bad line needs.
//!
//! `HEAD` says by `upload-offset` how many bytes are here. `PUT` sends all of a blob, or with
//! `Content-Range: bytes first-last/size` the piece from there on.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde_json::json;
use tussah_manifest::Digest;

use super::error::{ApiError, json_response};
use super::in_path::InPath;
use super::{App, auth, body};
use crate::blobs::{BlobState, Upload, UploadError};

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// Bytes that are gathered before they are written.
const PIECE_BYTES: usize = 256 << 10;

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            UploadError::NotAllowed(_) => (StatusCode::FORBIDDEN, "blob_not_allowed"),
            UploadError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "blob_too_large"),
            UploadError::Quota { .. } => (StatusCode::INSUFFICIENT_STORAGE, "quota_exceeded"),
            UploadError::Offset { .. } => (StatusCode::CONFLICT, "wrong_offset"),
            UploadError::Busy => (StatusCode::CONFLICT, "upload_under_way"),
            UploadError::TooMany => (StatusCode::BAD_REQUEST, "too_many_bytes"),
            UploadError::OtherDigest { .. } => (StatusCode::BAD_REQUEST, "other_digest"),
            UploadError::Io(_) => return Self::internal(&error),
        };
        Self::new(status, code, message)
    }
}

/// A digest in a path: `blake3:` and 64 hex digits, or the digits alone; nothing else.
fn digest_of(text: &str) -> Result<Digest, ApiError> {
    let hex = text.strip_prefix("blake3:").unwrap_or(text);
    Digest::from_hex(hex).map_err(|error| ApiError::bad("invalid_digest", error.to_string()))
}

pub(super) async fn head(
    State(app): State<App>,
    InPath(digest): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    auth::account(&app, &headers)?;
    let digest = digest_of(&digest)?;
    let (status, offset) = match app.uploads.state(&digest) {
        BlobState::Whole { bytes } => (StatusCode::OK, bytes),
        BlobState::Partial { bytes: 0 } => (StatusCode::NOT_FOUND, 0),
        BlobState::Partial { bytes } => (StatusCode::NO_CONTENT, bytes),
    };
    Ok((status, [(UPLOAD_OFFSET, HeaderValue::from(offset))]).into_response())
}

pub(super) async fn put(
    State(app): State<App>,
    InPath(digest): InPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let digest = digest_of(&digest)?;
    if let BlobState::Whole { bytes } = app.uploads.state(&digest) {
        return Ok(answer(StatusCode::OK, &digest, bytes));
    }
    let (offset, total) = range_of(&headers)?;
    let uploads = app.uploads.clone();
    let upload = blocking(move || uploads.begin(digest, offset, total)).await?;
    // A blob counts as a whole when its first piece comes, whoever sends the others.
    if offset == 0 && account.limits.upload_bytes_max.is_some() {
        app.gateway.ledger().count_upload(account.id, total).await?;
    }
    let state = receive(&app, upload, body).await?;
    Ok(match state {
        BlobState::Whole { bytes } => answer(StatusCode::CREATED, &digest, bytes),
        BlobState::Partial { bytes } => answer(StatusCode::ACCEPTED, &digest, bytes),
    })
}

async fn receive(app: &App, mut upload: Upload, body: Body) -> Result<BlobState, ApiError> {
    let mut stream = body.into_data_stream();
    let mut gathered = Vec::new();
    let (begun, mut received) = (Instant::now(), 0_u64);
    loop {
        let grace = app.config.body_time_max;
        let left = time_for(received, app.config.upload_bytes_per_second_min, grace);
        let left = left.saturating_sub(begun.elapsed()).min(grace);
        let next = tokio::time::timeout(left, stream.next());
        let piece = match next.await {
            Ok(piece) => piece.transpose().map_err(|_| body::cut_off()),
            Err(_) => Err(body::too_slow()),
        };
        // What came before the line broke is kept for the next try.
        let (piece, broken) = match piece {
            Ok(piece) => (piece, None),
            Err(error) => (None, Some(error)),
        };
        let length = piece.as_ref().map_or(0, Bytes::len);
        received = received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let is_last = piece.is_none();
        gathered.extend_from_slice(&piece.unwrap_or_default());
        if gathered.len() >= PIECE_BYTES || is_last {
            let bytes = std::mem::take(&mut gathered);
            upload = blocking(move || {
                let mut upload = upload;
                upload.write(&bytes)?;
                Ok(upload)
            })
            .await?;
        }
        if let Some(error) = broken {
            return Err(error);
        }
        if is_last {
            return blocking(move || upload.finish()).await;
        }
    }
}

/// How long so many bytes may have taken.
fn time_for(received: u64, bytes_per_second_min: u32, grace: Duration) -> Duration {
    let per_second = u64::from(bytes_per_second_min.max(1));
    grace.saturating_add(Duration::from_secs(received / per_second))
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, ApiError> {
    let result = tokio::task::spawn_blocking(run).await;
    Ok(result.map_err(|error| ApiError::internal(&error))??)
}

fn answer(status: StatusCode, digest: &Digest, bytes: u64) -> Response {
    let mut response = json_response(
        status,
        &json!({"object": "blob", "digest": digest.to_string(), "bytes": bytes.to_string()}),
    );
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(bytes));
    response
}

/// Where the piece starts, and the size of the whole.
fn range_of(headers: &HeaderMap) -> Result<(u64, u64), ApiError> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = headers.get(CONTENT_RANGE) else {
        let length = text(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let needed = || {
            let message = "the size is needed: Content-Length, or Content-Range for a piece";
            ApiError::new(StatusCode::LENGTH_REQUIRED, "size_missing", message)
        };
        return Ok((0, length.ok_or_else(needed)?));
    };
    let parsed = range.to_str().ok().and_then(|range| {
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        (first <= last && last < total).then_some((first, total))
    });
    parsed.ok_or_else(|| {
        let message = "Content-Range has to be `bytes first-last/size`";
        ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_has_time_for_its_bytes_and_some_more() {
        let grace = Duration::from_secs(60);
        for (received, rate, seconds) in [
            (0, 4096, 60),
            (4095, 4096, 60),
            (4096, 4096, 61),
            (40_960_000, 4096, 10_060),
            // No rate is one byte a second.
            (10, 0, 70),
        ] {
            let time = time_for(received, rate, grace);
            assert_eq!(time.as_secs(), seconds, "{received} at {rate}");
        }
        assert!(time_for(u64::MAX, 0, Duration::MAX) == Duration::MAX);
    }
}
