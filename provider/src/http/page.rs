//! The owner's page: how the daemon is, what it earned, and its newest receipts.
//!
//! In: the owner's password, then a browser's cookie. Out: one HTML page with its style and its
//! script, which asks for nothing but its own paths, and what it shows as JSON. No job's content
//! is on it, no key and no account. Who has not logged in gets the empty page and 401; a page of
//! another origin gets 403, also of the one that may use the API.

mod sessions;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Extension, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tussah_manifest::{Digest, DigestError, Document as _, Nanograms};

use super::App;
use super::body::{is_json, object, too_slow};
use super::error::{ApiError, json_response};
use super::guard;
use super::in_path::InPath;
use super::listen::Peer;
use crate::gateway::now_unix_ms;
use crate::ledger::{EarningsBy, EarningsSpan, Ledger, LedgerError, PageLock};
use sessions::{Attempts, SESSION_TIME_MAX, Sessions, Token};

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Nothing but the page's own files and answers; nobody frames it. The icon is empty data, so that
/// browsers ask for none.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types";
/// What every answer below `/page` has besides.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
const COOKIE_NAME: &str = "tussah_page";
const FETCH_SITE: &str = "sec-fetch-site";
/// Bytes of a login's body, at most.
const LOGIN_BYTES_MAX: usize = 1024;
/// Logins that wait for their hash, the one that is being made included: each takes 19 MiB.
const HASHES_MAX: usize = 2;
/// Days of earnings that are shown, today included.
const DAYS: u64 = 30;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Earnings are summed at most for this part of the time.
const SUMS_SHARE: u32 = 20;
const SUMS_EVERY_MIN: Duration = Duration::from_secs(2);

/// What the page's requests share.
#[derive(Debug)]
pub(super) struct Owner {
    /// Whether clients come by this daemon's own TLS.
    has_tls: bool,
    sessions: Mutex<Sessions>,
    attempts: Mutex<Attempts>,
    hashes: Arc<Semaphore>,
    sums: tokio::sync::Mutex<Option<Sums>>,
}

/// Earnings, when they were summed, and how long that took.
#[derive(Debug)]
struct Sums {
    at: Instant,
    took: Duration,
    shown: Value,
}

impl Owner {
    pub(super) fn new(has_tls: bool) -> Self {
        Self {
            has_tls,
            sessions: Mutex::default(),
            attempts: Mutex::default(),
            hashes: Arc::new(Semaphore::new(HASHES_MAX)),
            sums: tokio::sync::Mutex::default(),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page's paths.
pub(super) fn router(app: &App) -> Router<App> {
    let data = Router::new()
        .route("/page/status", get(status))
        .route("/page/earnings", get(earnings))
        .route("/page/receipts/{id}", get(receipt))
        .route_layer(middleware::from_fn_with_state(app.clone(), owner_alone));
    Router::new()
        .route("/page/session", get(session))
        .route("/page/login", post(login))
        .route("/page/logout", post(logout))
        .merge(data)
        .route_layer(middleware::from_fn(same_origin_alone))
        .route("/", get(|| async { Redirect::to("/page") }))
        .route(
            "/page",
            get(|| async { file("text/html; charset=utf-8", HTML) }),
        )
        .route(
            "/page/page.css",
            get(|| async { file("text/css; charset=utf-8", STYLE) }),
        )
        .route(
            "/page/page.js",
            get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }),
        )
        .route_layer(middleware::from_fn(with_headers))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(CACHE_CONTROL).or_insert(no_store);
    response
}

/// Refuses other origins, whatever the API lets them do: browsers say where a request is from by
/// Origin, where it changes something, and by Sec-Fetch-Site; `none` is the address bar's.
async fn same_origin_alone(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let site = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
    let is_near = matches!(site, None | Some(b"same-origin" | b"none"));
    if is_near && guard::is_of_own_origin(&request) {
        return next.run(request).await;
    }
    guard::other_origin().into_response()
}

/// Lets through who has logged in.
async fn owner_alone(State(app): State<App>, request: Request, next: Next) -> Response {
    match is_owner(&app, request.headers()) {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            let message = "log in at /page first";
            ApiError::new(StatusCode::UNAUTHORIZED, "login_needed", message).into_response()
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

fn is_owner(app: &App, headers: &HeaderMap) -> Result<bool, LedgerError> {
    let Some(cookie) = cookie_of(headers) else {
        return Ok(false);
    };
    let Some(lock) = app.gateway.ledger().page_lock()? else {
        return Ok(false);
    };
    let mut sessions = app.owner.sessions();
    Ok(sessions.knows(cookie, &lock.digest(), Instant::now()))
}

/// Our cookie's value; the first, where there are several.
fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(COOKIE).iter();
    let texts = fields.filter_map(|field| field.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    })
}

/// The header that gives a browser this cookie, for so many seconds. No script reads it, and no
/// other site's page sends it.
fn set_cookie(app: &App, headers: &HeaderMap, value: &str, seconds: u64) -> Option<HeaderValue> {
    // Behind a proxy with TLS the browser's own word is all there is.
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    let is_secure = app.owner.has_tls || origin.is_some_and(|from| from.starts_with(b"https://"));
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!(
        "{COOKIE_NAME}={value}; Path=/page; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    HeaderValue::from_str(&text).ok()
}

/// Whether this browser is logged in, and whether anybody could.
async fn session(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    let has_password = app.gateway.ledger().page_lock()?.is_some();
    let shown = json!({"in": is_owner(&app, &headers)?, "has_password": has_password});
    Ok(json_response(StatusCode::OK, &shown))
}

async fn login(
    State(app): State<App>,
    Extension(Peer(address)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // A form of another page cannot send this type without asking first.
    is_json(&headers)?;
    let read = body::to_bytes(body, LOGIN_BYTES_MAX);
    let read = tokio::time::timeout(app.config.body_time_max, read);
    let bytes = read.await.map_err(|_| too_slow())?;
    let bytes = bytes.map_err(|_| {
        let message = format!("a login has at most {LOGIN_BYTES_MAX} bytes, and all it announces");
        ApiError::bad("invalid_body", message)
    })?;
    let mut fields = object(&bytes)?;
    let typed = fields.needed_text("password")?;
    fields.finish()?;
    let lock = app.gateway.ledger().page_lock()?.ok_or_else(|| {
        let message = "the page has no password yet: `tussah serve page` makes one";
        ApiError::new(StatusCode::FORBIDDEN, "no_page_password", message)
    })?;
    let digest = lock.digest();
    let taken = app.owner.attempts().take(address, Instant::now());
    taken.map_err(too_many_tries)?;
    if !opens(&app, lock, typed).await? {
        tracing::warn!(%address, "a wrong password for the owner's page");
        let message = "this is not the password";
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "wrong_password",
            message,
        ));
    }
    app.owner.attempts().forget(address);
    let token = Token::new().ok_or_else(|| {
        let error = LedgerError::Random("no session can be opened".to_owned());
        ApiError::internal(&error)
    })?;
    app.owner.sessions().open(&token, digest, Instant::now());
    tracing::info!(%address, "the owner logged in to the page");
    let mut response = json_response(StatusCode::OK, &json!({"in": true}));
    let seconds = SESSION_TIME_MAX.as_secs();
    if let Some(cookie) = set_cookie(&app, &headers, token.as_str(), seconds) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Asks the lock on a thread that may take its time, a few at a time.
async fn opens(app: &App, lock: PageLock, typed: String) -> Result<bool, ApiError> {
    let hashes = Arc::clone(&app.owner.hashes);
    let place = hashes
        .try_acquire_owned()
        .map_err(|_| too_many_tries(Duration::from_secs(1)))?;
    let opened = tokio::task::spawn_blocking(move || {
        let typed = zeroize::Zeroizing::new(typed);
        let opened = lock.opens(&typed);
        drop(place);
        opened
    });
    let opened = opened.await.map_err(|error| ApiError::internal(&error))?;
    Ok(opened?)
}

fn too_many_tries(wait: Duration) -> ApiError {
    let seconds = wait.as_secs().saturating_add(1);
    let message = format!("too many passwords were tried; the next one in {seconds} s");
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tries", message).retry_after(seconds)
}

async fn logout(State(app): State<App>, headers: HeaderMap) -> Response {
    if let Some(cookie) = cookie_of(&headers) {
        app.owner.sessions().close(cookie);
    }
    let mut response = json_response(StatusCode::OK, &json!({"in": false}));
    if let Some(cookie) = set_cookie(&app, &headers, "", 0) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// The document that `/status` on the loopback port answers, with the key that signs receipts.
async fn status(State(app): State<App>) -> Result<Response, ApiError> {
    let mut shown = app.gateway.status()?.to_json();
    // For the command that checks a receipt.
    shown["provider_key"] = app.gateway.provider_key().to_string().into();
    Ok(json_response(StatusCode::OK, &shown))
}

/// What the jobs of each of the last days came to. Every receipt of them is read, so that the
/// longer that takes the older an answer may be.
async fn earnings(State(app): State<App>) -> Result<Response, ApiError> {
    let mut sums = app.owner.sums.lock().await;
    let fresh = |sums: &&Sums| sums.at.elapsed() < SUMS_EVERY_MIN.max(sums.took * SUMS_SHARE);
    if let Some(sums) = sums.as_ref().filter(fresh) {
        return Ok(json_response(StatusCode::OK, &sums.shown));
    }
    let begun = Instant::now();
    let ledger = Arc::clone(app.gateway.ledger());
    let summed = tokio::task::spawn_blocking(move || sum(&ledger, now_unix_ms()));
    let shown = summed.await.map_err(|error| ApiError::internal(&error))??;
    let response = json_response(StatusCode::OK, &shown);
    *sums = Some(Sums {
        at: Instant::now(),
        took: begun.elapsed(),
        shown,
    });
    Ok(response)
}

fn sum(ledger: &Ledger, now_ms: u64) -> Result<Value, LedgerError> {
    let today_ms = now_ms - now_ms % DAY_MS;
    let span = EarningsSpan {
        from_unix_ms: today_ms.saturating_sub((DAYS - 1) * DAY_MS),
        to_unix_ms: today_ms + DAY_MS,
    };
    let amount = |amount: Nanograms| amount.get().to_string();
    let days: Vec<Value> = ledger
        .earnings(span, EarningsBy::Day)?
        .into_iter()
        .map(|(day, sums)| {
            json!({
                "day": day,
                "jobs": sums.jobs,
                "failed": sums.failed,
                "not_run": sums.not_run,
                "credit_nanograms": amount(sums.credit),
                "channel_nanograms": amount(sums.channel),
            })
        })
        .collect();
    Ok(json!({
        "object": "earnings",
        "from_unix_ms": span.from_unix_ms,
        "today_unix_ms": today_ms,
        "as_of_unix_ms": now_ms,
        "days": days,
    }))
}

/// A job's receipt, of whatever account, as a file: a receipt has nothing of a job's content.
async fn receipt(State(app): State<App>, InPath(id): InPath) -> Result<Response, ApiError> {
    let id: Digest = id
        .parse()
        .map_err(|error: DigestError| ApiError::bad("invalid_digest", error.to_string()))?;
    let job = app.gateway.ledger().job(&id)?;
    let receipt = job.and_then(|job| job.receipt);
    let receipt =
        receipt.ok_or_else(|| ApiError::not_found(format!("there is no receipt of job {id}")))?;
    let name = file_name(&id);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    Ok((headers, receipt.to_bytes()).into_response())
}

/// As the page's script names it too.
fn file_name(id: &Digest) -> String {
    let digits: String = id.to_hex().chars().take(12).collect();
    format!("receipt-{digits}.cbor")
}
