//! Contents of ended jobs on their way to clients: outputs, logs, openings.
//!
//! In: an ended job and which part of it. Out: a body, or events, whose bytes count against a
//! budget of everybody and of the account until the last of them is sent or the client is gone: a
//! client that reads slowly, over many connections, holds no more than that.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::Stream;

use super::App;
use super::budget::Held;
use super::error::ApiError;
use super::jobs::output_event;
use crate::ledger::{JobPart, JobSummary};

/// Bytes of a body that are handed on at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of output in one event.
const EVENT_BYTES: usize = 64 << 10;

/// A part of a job, in memory.
pub(super) struct Content {
    bytes: Bytes,
    held: Held,
}

impl Content {
    /// Reads it, as soon as there is room for it; `None` if the job has no such part.
    ///
    /// # Errors
    /// [`ApiError`] if there is no room, it was removed, or the ledger cannot be read.
    pub(super) async fn of(
        app: &App,
        job: &JobSummary,
        part: JobPart,
    ) -> Result<Option<Self>, ApiError> {
        if job.pruned_unix_ms.is_some() && part != JobPart::Opening {
            let message = "the job ended so long ago that its content was removed";
            return Err(ApiError::new(StatusCode::GONE, "content_removed", message));
        }
        let mut held = app.answers.hold(job.account);
        // An output can be large, and its size is known; of the rest it is when it is read, which
        // few do at a time.
        let expected = match part {
            JobPart::Output => usize::try_from(job.output_bytes).unwrap_or(usize::MAX),
            JobPart::Log | JobPart::Opening => 0,
        };
        held.grow(expected)?;
        let Some(bytes) = app.gateway.ledger().content(job.id, part).await? else {
            return Ok(None);
        };
        held.grow(bytes.len().saturating_sub(expected))?;
        Ok(Some(Self {
            bytes: bytes.into(),
            held,
        }))
    }

    /// An answer that is these bytes.
    pub(super) fn into_response(self) -> Response {
        let length = HeaderValue::from(self.bytes.len());
        let pieces = pieces(self, PIECE_BYTES, |piece, _| piece);
        let mut response = Response::new(Body::from_stream(pieces));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    }

    /// Events of an output, from byte `heard` on.
    pub(super) fn into_events(
        mut self,
        heard: usize,
    ) -> impl Stream<Item = Result<Event, Infallible>> {
        let rest = self.bytes.split_off(heard.min(self.bytes.len()));
        self.bytes = rest;
        pieces(self, EVENT_BYTES, move |piece, at| {
            output_event(&piece, heard.saturating_add(at))
        })
    }
}

/// One piece after the other, with how many bytes there were with it.
fn pieces<T>(
    content: Content,
    piece_bytes: usize,
    told: impl Fn(Bytes, usize) -> T,
) -> impl Stream<Item = Result<T, Infallible>> {
    futures_util::stream::unfold((content, 0, told), move |(content, at, told)| async move {
        let Content { mut bytes, held } = content;
        if bytes.is_empty() {
            return None;
        }
        let piece = bytes.split_to(piece_bytes.min(bytes.len()));
        let at = at + piece.len();
        let told_piece = told(piece, at);
        Some((Ok(told_piece), (Content { bytes, held }, at, told)))
    })
}
