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
use crate::ledger::{Account, AccountId};

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
    let piece = range_of(&headers)?;
    let counted = Counted::of(&app, &account, piece.length()).await?;
    let mut received = 0;
    let state = take_piece(&app, digest, piece, body, &mut received).await;
    // What never came is not counted, whatever was announced.
    counted.correct(&app, received).await?;
    Ok(match state? {
        BlobState::Whole { bytes } => answer(StatusCode::CREATED, &digest, bytes),
        BlobState::Partial { bytes } => answer(StatusCode::ACCEPTED, &digest, bytes),
    })
}

/// Bytes that were counted against an account's limit before they came.
struct Counted {
    account: AccountId,
    /// `None` where the account has no limit.
    bytes: Option<u64>,
}

impl Counted {
    async fn of(app: &App, account: &Account, bytes: u64) -> Result<Self, ApiError> {
        let bytes = account.limits.upload_bytes_max.map(|_| bytes);
        if let Some(bytes) = bytes {
            app.gateway.ledger().count_upload(account.id, bytes).await?;
        }
        Ok(Self {
            account: account.id,
            bytes,
        })
    }

    /// Gives back what did not come.
    async fn correct(self, app: &App, received: u64) -> Result<(), ApiError> {
        let missing = self.bytes.unwrap_or_default().saturating_sub(received);
        if missing > 0 {
            let ledger = app.gateway.ledger();
            ledger.uncount_upload(self.account, missing).await?;
        }
        Ok(())
    }
}

/// `received` is how many bytes came, also where this fails.
async fn take_piece(
    app: &App,
    digest: Digest,
    piece: Piece,
    body: Body,
    received: &mut u64,
) -> Result<BlobState, ApiError> {
    let uploads = app.uploads.clone();
    let upload = blocking(move || uploads.begin(digest, piece.first, piece.total)).await?;
    receive(app, upload, piece.length(), body, received).await
}

async fn receive(
    app: &App,
    mut upload: Upload,
    bytes_max: u64,
    body: Body,
    received: &mut u64,
) -> Result<BlobState, ApiError> {
    let mut stream = body.into_data_stream();
    let mut gathered = Vec::new();
    let begun = Instant::now();
    loop {
        let grace = app.config.body_time_max;
        let left = time_for(*received, app.config.upload_bytes_per_second_min, grace);
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
        let sum = received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if sum > bytes_max {
            let message = "the body is longer than its Content-Range";
            return Err(ApiError::bad("piece_too_long", message));
        }
        *received = sum;
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

/// Which bytes of a blob come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    first: u64,
    /// Behind the last.
    end: u64,
    /// Bytes of the whole.
    total: u64,
}

impl Piece {
    const fn length(self) -> u64 {
        self.end - self.first
    }
}

fn range_of(headers: &HeaderMap) -> Result<Piece, ApiError> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = headers.get(CONTENT_RANGE) else {
        let length = text(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let needed = || {
            let message = "the size is needed: Content-Length, or Content-Range for a piece";
            ApiError::new(StatusCode::LENGTH_REQUIRED, "size_missing", message)
        };
        let total = length.ok_or_else(needed)?;
        return Ok(Piece {
            first: 0,
            end: total,
            total,
        });
    };
    let parsed = range.to_str().ok().and_then(|range| {
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        (first <= last && last < total).then_some(Piece {
            first,
            end: last + 1,
            total,
        })
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
