//! The jobs API: submit, watch, cancel, and take home output, receipt and opening.
//!
//! A job is its account's own: to another account it is not there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tussah_manifest::{
    Channel, ChannelAddress, Claim, Digest, Document as _, MANIFEST_TEXT_BYTES_MAX, Manifest,
    Nanograms, Request,
};

use super::body::{self, Fields, missing, wrong};
use super::content::Content;
use super::error::{ApiError, json_response};
use super::in_path::InPath;
use super::{App, auth, channels};
use crate::gateway::{Ask, JobEnd, JobEvent, Listener, News, Submission, SubmitError};
use crate::ledger::{Account, JobPart, JobState, JobSummary};
use crate::wire::WhoseFault;

/// How often a stream without news says that it is still there: below the usual 60 seconds after
/// which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The longest that an answer is held back for a client that prefers to wait.
const WAIT_MAX: Duration = Duration::from_secs(600);
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Which job an answer is of.
pub(super) const RECEIPT_HEADER: HeaderName = HeaderName::from_static("tussah-receipt");

pub(super) fn receipt_header(id: &Digest) -> HeaderValue {
    // A digest is ASCII.
    HeaderValue::from_str(&id.to_string()).unwrap_or(HeaderValue::from_static(""))
}

pub(super) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(KEEP_ALIVE)
}

pub(super) async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let (mut fields, held) = body::json(&app, &account, &headers, body).await?;
    let voucher = match fields.take("voucher") {
        Some(voucher) => {
            let mut inner = Fields::within(voucher, "voucher")?;
            let voucher = channels::voucher_of(&mut inner)?;
            inner.finish()?;
            Some(voucher)
        }
        None => None,
    };
    let submission = submission(&app, account, fields)?;
    if let Some(voucher) = voucher {
        let Some(channel) = channel_of(&submission.ask) else {
            let message = "a voucher comes with a signed `request` that names its channel";
            return Err(ApiError::bad("invalid_value", message).param("voucher"));
        };
        // What is refused for what it is takes no pay: its refusal comes from there.
        if app.gateway.would_admit(&submission)? {
            channels::take(&app, channel, voucher).await?;
        }
    }
    let wait = wait_of(&headers);
    let mut ticket = app.gateway.submit(submission).await?;
    drop(held);
    let (id, known) = (ticket.id, ticket.known);
    let mut end = None;
    if let (Some(wait), News::Live(listener)) = (wait, &mut ticket.news) {
        // Who waits in vain is told how it stands.
        end = tokio::time::timeout(wait, listener.end())
            .await
            .ok()
            .flatten();
    }
    let ended = end.and_then(|end| ticket.ended(&end));
    ticket.leave();
    let (view, job) = match ended {
        Some(job) => (view(&app, &job), job),
        None => view_of(&app, &id)?,
    };
    let has_ended = job.state != JobState::Accepted;
    let status = match has_ended && (known || wait.is_some()) {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let mut response = json_response(status, &view);
    let headers = response.headers_mut();
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/jobs/{id}")) {
        headers.insert(LOCATION, place);
    }
    headers.insert(RECEIPT_HEADER, receipt_header(&id));
    Ok(response)
}

/// How long the client would wait for the end: `Prefer: wait=SECONDS` (RFC 7240, 4.3). A preference
/// that is none is no error.
fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut preferences = texts.flat_map(|text| text.split(','));
    preferences.find_map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, seconds) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        let seconds = seconds.trim().trim_matches('"').parse().ok();
        let wait = Duration::from_secs(seconds.filter(|_| is_wait)?);
        Some(wait.min(WAIT_MAX))
    })
}

/// The channel that a job is paid through.
fn channel_of(ask: &Ask) -> Option<ChannelAddress> {
    match ask {
        Ask::Signed(request) => match request.body.channel {
            Channel::Ton { address, .. } => Some(address),
            Channel::Local => None,
        },
        Ask::House { .. } => None,
    }
}

fn submission(app: &App, account: Account, mut fields: Fields) -> Result<Submission, ApiError> {
    let (manifest, deployment) = manifest_of(app, &mut fields)?;
    let input = match (fields.text("input")?, fields.text("input_base64")?) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => (BASE64.decode(text)).map_err(|_| wrong("input_base64", "base64"))?,
        (None, None) => return Err(missing("input")),
        (Some(_), Some(_)) => {
            let message = "give `input` or `input_base64`, not both";
            return Err(ApiError::bad("invalid_value", message).param("input"));
        }
    };
    let (price_max, seed) = (price_of(&mut fields)?, fields.whole("seed")?);
    let ask = match fields.text("request")? {
        None => Ask::House { price_max, seed },
        Some(_) if price_max.is_some() || seed.is_some() => {
            let message = "a signed `request` says its price and seed itself";
            return Err(ApiError::bad("invalid_value", message).param("request"));
        }
        Some(text) => {
            let bytes = BASE64
                .decode(text)
                .map_err(|_| wrong("request", "base64"))?;
            let request = Request::from_bytes(&bytes);
            let request = request.map_err(|error| {
                ApiError::bad("invalid_request", error.to_string()).param("request")
            })?;
            Ask::Signed(Box::new(request))
        }
    };
    let claim = claim_of(&mut fields)?;
    let submission = Submission {
        account,
        ask,
        manifest,
        input,
        claim,
        deployment,
        deadline_ms: fields.whole("deadline_ms")?,
        time_max_ms: fields.whole("time_max_ms")?,
        keep: true,
    };
    fields.finish()?;
    Ok(submission)
}

/// A claim that its own key signed; whether that key counts is the gateway's to say.
fn claim_of(fields: &mut Fields) -> Result<Option<Box<Claim>>, ApiError> {
    let Some(text) = fields.text("claim")? else {
        return Ok(None);
    };
    let bytes = BASE64.decode(text).map_err(|_| wrong("claim", "base64"))?;
    let claim = Claim::from_verified_bytes(&bytes);
    let claim =
        claim.map_err(|error| ApiError::bad("invalid_claim", error.to_string()).param("claim"))?;
    Ok(Some(Box::new(claim)))
}

/// By `model`, `manifest` (a digest) or `manifest_toml`: exactly one.
pub(super) fn manifest_of(
    app: &App,
    fields: &mut Fields,
) -> Result<(Manifest, Option<String>), ApiError> {
    let model = fields.text("model")?;
    let digest = fields.text("manifest")?;
    let text = fields.text("manifest_toml")?;
    match (model, digest, text) {
        (Some(name), None, None) => {
            let deployment = app.gateway.ledger().deployment(&name)?;
            let deployment = deployment.ok_or_else(|| no_model(&name))?;
            let manifest = app.gateway.ledger().manifest(&deployment.manifest)?;
            let manifest = manifest.ok_or_else(|| no_model(&name))?;
            Ok((manifest, Some(name)))
        }
        (None, Some(text), None) => {
            let digest: Digest = text
                .parse()
                .map_err(|error: tussah_manifest::DigestError| {
                    ApiError::bad("invalid_digest", error.to_string()).param("manifest")
                })?;
            Ok((stored_manifest(app, &digest)?, None))
        }
        (None, None, Some(text)) if text.len() > MANIFEST_TEXT_BYTES_MAX => {
            let message = format!("a manifest has at most {MANIFEST_TEXT_BYTES_MAX} bytes");
            Err(ApiError::bad("invalid_manifest", message).param("manifest_toml"))
        }
        (None, None, Some(text)) => {
            let manifest = Manifest::parse(&text).map_err(|error| {
                ApiError::bad("invalid_manifest", error.to_string()).param("manifest_toml")
            })?;
            Ok((manifest, None))
        }
        (None, None, None) => Err(missing("manifest")),
        _ => {
            let message = "give one of `model`, `manifest` and `manifest_toml`";
            Err(ApiError::bad("invalid_value", message).param("manifest"))
        }
    }
}

/// One that a job or a deployment has, or whose canonical bytes were uploaded.
fn stored_manifest(app: &App, digest: &Digest) -> Result<Manifest, ApiError> {
    if let Some(manifest) = app.gateway.ledger().manifest(digest)? {
        return Ok(manifest);
    }
    let path = crate::blobs::path(&app.gateway.config().blobs, digest);
    let missing = || {
        let message = format!("this provider does not have the manifest {digest}");
        ApiError::new(StatusCode::CONFLICT, "blob_missing", message).param("manifest")
    };
    let length = std::fs::metadata(&path).map_err(|_| missing())?.len();
    if length > u64::try_from(Manifest::BYTES_MAX).unwrap_or(u64::MAX) {
        return Err(
            ApiError::bad("invalid_manifest", "this blob is no manifest").param("manifest"),
        );
    }
    let bytes = std::fs::read(&path).map_err(|_| missing())?;
    if Digest::of(&bytes) != *digest {
        return Err(missing());
    }
    Manifest::from_bytes(&bytes)
        .map_err(|error| ApiError::bad("invalid_manifest", error.to_string()).param("manifest"))
}

/// A manifest that a job or a deployment has, in its canonical bytes: what a client signs for.
pub(super) async fn manifest(
    State(app): State<App>,
    InPath(digest): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    auth::account(&app, &headers)?;
    let digest: Digest = digest
        .parse()
        .map_err(|error: tussah_manifest::DigestError| {
            ApiError::bad("invalid_digest", error.to_string())
        })?;
    let manifest = app.gateway.ledger().manifest(&digest)?;
    let manifest = manifest.ok_or_else(|| {
        ApiError::not_found(format!("this provider does not have the manifest {digest}"))
    })?;
    Ok(octets(manifest.to_bytes()))
}

pub(super) fn no_model(name: &str) -> ApiError {
    let shown: String = name.chars().take(64).collect();
    let message = format!("the model `{shown}` does not exist");
    ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
}

pub(super) fn price_of(fields: &mut Fields) -> Result<Option<Nanograms>, ApiError> {
    let name = "max_price_nanograms";
    let price = fields.whole(name)?.map(Nanograms::new);
    match price {
        None => Ok(None),
        Some(Some(price)) => Ok(Some(price)),
        Some(None) => Err(wrong(name, "no more than there is")),
    }
}

/// The job of a path, if it is this client's.
pub(super) fn own(
    app: &App,
    headers: &HeaderMap,
    id: &str,
) -> Result<(Digest, JobSummary), ApiError> {
    let account = auth::account(app, headers)?;
    let id: Digest = id.parse().map_err(|error: tussah_manifest::DigestError| {
        ApiError::bad("invalid_digest", error.to_string())
    })?;
    let job = app.gateway.ledger().job(&id)?;
    let job = job.filter(|job| job.account == account.id);
    let job = job.ok_or_else(|| ApiError::not_found(format!("there is no job {id}")))?;
    Ok((id, job))
}

/// The same, once it has ended.
pub(super) fn own_ended(
    app: &App,
    headers: &HeaderMap,
    id: &str,
) -> Result<(Digest, JobSummary), ApiError> {
    let (id, job) = own(app, headers, id)?;
    if job.state == JobState::Accepted {
        let message = "the job has not ended; listen to its events";
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "job_not_ended",
            message,
        ));
    }
    Ok((id, job))
}

fn view_of(app: &App, id: &Digest) -> Result<(Value, JobSummary), ApiError> {
    let job = app.gateway.ledger().job(id)?;
    let job = job.ok_or_else(|| ApiError::not_found(format!("there is no job {id}")))?;
    Ok((view(app, &job), job))
}

pub(super) async fn status(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, job) = own(&app, &headers, &id)?;
    Ok(json_response(StatusCode::OK, &view(&app, &job)))
}

pub(super) async fn cancel(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, job) = own(&app, &headers, &id)?;
    let status = match app.gateway.cancel(&id) {
        true => StatusCode::ACCEPTED,
        // It ended before: nothing is changed, and that is no error.
        false => StatusCode::OK,
    };
    Ok(json_response(status, &view(&app, &job)))
}

pub(super) async fn output(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, job) = own_ended(&app, &headers, &id)?;
    part_response(&app, &id, &job, JobPart::Output).await
}

pub(super) async fn log(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, job) = own_ended(&app, &headers, &id)?;
    part_response(&app, &id, &job, JobPart::Log).await
}

/// The receipt: its signed bytes for `Accept: application/octet-stream`, else its JSON view.
pub(super) async fn receipt(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, job) = own_ended(&app, &headers, &id)?;
    let receipt = job.receipt.ok_or_else(no_receipt)?;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/octet-stream")) {
        return Ok(bytes_response(&id, receipt.to_bytes()));
    }
    let view = serde_json::to_value(&receipt).map_err(|error| ApiError::internal(&error))?;
    Ok(json_response(StatusCode::OK, &view))
}

pub(super) async fn opening(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, job) = own_ended(&app, &headers, &id)?;
    if job.receipt.is_none() {
        return Err(no_receipt());
    }
    part_response(&app, &id, &job, JobPart::Opening).await
}

fn no_receipt() -> ApiError {
    ApiError::not_found("the job ended without a run, and so without a receipt")
}

/// A part of an ended job; what it has none of is empty.
async fn part_response(
    app: &App,
    id: &Digest,
    job: &JobSummary,
    part: JobPart,
) -> Result<Response, ApiError> {
    let content = Content::of(app, job, part).await?;
    let mut response = match content {
        Some(content) => content.into_response(),
        None => octets(Vec::new()),
    };
    let headers = response.headers_mut();
    headers.insert(RECEIPT_HEADER, receipt_header(id));
    Ok(response)
}

fn bytes_response(id: &Digest, bytes: Vec<u8>) -> Response {
    let mut response = octets(bytes);
    let headers = response.headers_mut();
    headers.insert(RECEIPT_HEADER, receipt_header(id));
    response
}

fn octets(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A job as the API shows it: without its content.
fn view(app: &App, job: &JobSummary) -> Value {
    let receipt = job.receipt.as_ref();
    let status = job.status_name(app.gateway.is_running(&job.id));
    let error = job.fault.as_ref().map(|fault| {
        let whose = job.whose_fault.map(whose_name);
        json!({"message": fault.message, "code": fault.code, "fault": whose})
    });
    json!({
        "object": "job",
        "id": job.id.to_string(),
        "status": status,
        "ended": job.state != JobState::Accepted,
        "model": job.deployment,
        "manifest": job.manifest.to_string(),
        "accepted_unix_ms": job.accepted_unix_ms,
        "finished_unix_ms": job.finished_unix_ms,
        "price_nanograms": job.price.map(|price| price.get().to_string()),
        "fuel_used": receipt.map(|r| r.consensus.fuel_used.to_string()),
        "inference_units_used": receipt.map(|r| r.consensus.inference_units_used.to_string()),
        "output_bytes": job.output_bytes.to_string(),
        "removed_unix_ms": job.pruned_unix_ms,
        "receipt": receipt.map(|r| r.digest().to_string()),
        "error": error,
    })
}

const fn whose_name(fault: WhoseFault) -> &'static str {
    match fault {
        WhoseFault::Developer => "developer",
        WhoseFault::Client => "client",
        WhoseFault::Provider => "provider",
    }
}

/// What the job says, from its first byte, however late one asks.
pub(super) async fn events(
    State(app): State<App>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, job) = own(&app, &headers, &id)?;
    let heard = heard(&headers)?;
    let news = match app.gateway.listen(&id) {
        Some(mut listener) => {
            listener.skip_output(heard);
            News::Live(listener)
        }
        None => News::Ended(Box::new(job)),
    };
    let mut response = match news {
        News::Live(listener) => {
            let stream = futures_util::stream::unfold((app, id, listener), next_event);
            Sse::new(stream).keep_alive(keep_alive()).into_response()
        }
        News::Ended(job) => {
            // It may have ended since it was looked at.
            let job = match job.state {
                JobState::Accepted => view_of(&app, &id)?.1,
                _ => *job,
            };
            let end = event("ended", &view(&app, &job));
            let end = futures_util::stream::once(async { Ok(end) });
            match Content::of(&app, &job, JobPart::Output).await? {
                Some(output) => Sse::new(output.into_events(heard).chain(end)).into_response(),
                None => Sse::new(end).into_response(),
            }
        }
    };
    response
        .headers_mut()
        .insert(RECEIPT_HEADER, receipt_header(&id));
    Ok(response)
}

type Told = Result<Event, Infallible>;

async fn next_event(
    (app, id, mut listener): (App, Digest, Listener),
) -> Option<(Told, (App, Digest, Listener))> {
    let event = match listener.next().await? {
        JobEvent::Started => event("started", &json!({})),
        JobEvent::Output(bytes) => output_event(&bytes, listener.output_heard()),
        JobEvent::Progress(progress) => event(
            "progress",
            &json!({"done": progress.done, "total": progress.total, "note": progress.note}),
        ),
        JobEvent::Ended(end) => end_event(&app, &id, &end),
    };
    Some((Ok(event), (app, id, listener)))
}

fn end_event(app: &App, id: &Digest, end: &Arc<JobEnd>) -> Event {
    match (&**end, app.gateway.ledger().job(id)) {
        (JobEnd::Receipt { .. } | JobEnd::NotRun { .. }, Ok(Some(job))) => {
            event("ended", &view(app, &job))
        }
        (JobEnd::Postponed, _) => {
            let error = ApiError::from(SubmitError::Draining);
            event("error", &error.to_json())
        }
        _ => {
            let message = "the job's end could not be recorded; it will run again";
            let error = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "unrecorded", message);
            event("error", &error.to_json())
        }
    }
}

/// With the bytes of output so far as its id, by which a client that comes back says what it has.
pub(super) fn output_event(bytes: &[u8], heard: usize) -> Event {
    event("output", &json!({"base64": BASE64.encode(bytes)})).id(heard.to_string())
}

/// How many bytes of output the client has: `Last-Event-ID`, as browsers and SSE clients send it.
fn heard(headers: &HeaderMap) -> Result<usize, ApiError> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(0);
    };
    let number = id.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| wrong("Last-Event-ID", "the id of an `output` event"))
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
