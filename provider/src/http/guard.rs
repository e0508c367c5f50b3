//! What happens to every request before and after its handler: whether it is for us, from where
//! its page is, and a number.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;
use super::listen::HEAD_BYTES_MAX;

/// By which a client and the log speak of one request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a page of the allowed origin may send, and for how many seconds it need not ask again.
const ALLOWED: [(HeaderName, &str); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT"),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        // OpenAI's own client sends headers of its own with every call; the asterisk does not
        // stand for the one that carries the key (Fetch standard, 3.3.5).
        "*, authorization",
    ),
    (ACCESS_CONTROL_MAX_AGE, "600"),
];
/// What it may read besides the body.
const EXPOSED: &str =
    "location, preference-applied, retry-after, tussah-receipt, upload-offset, x-request-id";

/// The names under which a port is reached.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    names: Arc<[String]>,
}

impl Hosts {
    /// These names, and the address that is listened on: no name that somebody else pointed at
    /// this machine looks like an address.
    pub(super) fn new(names: &[String], listens: SocketAddr) -> Self {
        let mut names = names.to_vec();
        let address = listens.ip();
        if !address.is_unspecified() {
            names.push(match address.is_ipv6() {
                true => format!("[{address}]"),
                false => address.to_string(),
            });
        }
        Self {
            names: names.into(),
        }
    }

    /// The one Host of a request, if it is one of these.
    fn check<'a>(&self, uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, ApiError> {
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers.get(HOST).and_then(|host| host.to_str().ok()),
        };
        // Where there is none, or more than one, the answer is 400 by RFC 9112, section 3.2.
        if headers.get_all(HOST).iter().count() != 1 {
            let message = "a request has exactly one Host header";
            return Err(ApiError::bad("invalid_host", message));
        }
        let host = host.unwrap_or_default();
        let name = without_port(host);
        let is_ours = |ours: &String| ours.eq_ignore_ascii_case(name);
        if !self.names.iter().any(is_ours) {
            let message = "the Host header is not a name of this provider";
            let status = StatusCode::MISDIRECTED_REQUEST;
            return Err(ApiError::new(status, "host_unknown", message));
        }
        Ok(host)
    }
}

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id();
    let method = request.method().clone();
    let (mut response, allowed) = match check(&app, &request) {
        Ok(allowed) if allowed.is_some() && is_preflight(&request) => (preflight(), allowed),
        Ok(allowed) => (next.run(request).await, allowed),
        Err(error) => (error.into_response(), None),
    };
    let status = response.status();
    let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
    app.gateway.metrics().http_answers[class].add(1);
    // Neither path nor query: both may hold what is the client's own.
    tracing::debug!(id, %method, status = status.as_u16(), "answered");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    if app.config.cors_origin.is_some() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The same for the machine's own monitoring, which no page may use.
pub(super) async fn guard_health(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Response {
    let checked = match hosts.check(request.uri(), request.headers()) {
        Ok(_) if request.headers().contains_key(ORIGIN) => Err(other_origin()),
        other => other.map(drop),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The origin that is to be allowed, if a page of another one than ours asks and may.
fn check(app: &App, request: &Request) -> Result<Option<HeaderValue>, ApiError> {
    if head_bytes(request) > HEAD_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let message = format!("a request's head has at most {HEAD_BYTES_MAX} bytes");
        return Err(ApiError::new(status, "head_too_large", message));
    }
    let host = app.hosts.check(request.uri(), request.headers())?;
    // Browsers say where a page is from.
    let mut origins = request.headers().get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(None);
    };
    let allowed = app.config.cors_origin.as_deref();
    match origin.to_str() {
        Ok(_) if origins.next().is_some() => Err(other_origin()),
        Ok(text) if is_own(text, host) => Ok(None),
        Ok(text) if allowed == Some(text) => Ok(Some(origin.clone())),
        _ => Err(other_origin()),
    }
}

/// What a request's head took, roughly: its path and its fields.
fn head_bytes(request: &Request) -> usize {
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = request.headers().iter();
    fields.fold(path, |sum, (name, value)| {
        sum.saturating_add(name.as_str().len() + value.len() + 4)
    })
}

/// Whether a page of this origin came from the Host that is asked: then it is the daemon's own.
fn is_own(origin: &str, host: &str) -> bool {
    let authority = (origin.strip_prefix("http://")).or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Whether a request is from no page, or from one of the daemon's own: of the Host that is asked.
pub(super) fn is_of_own_origin(request: &Request) -> bool {
    let mut origins = request.headers().get_all(ORIGIN).iter();
    let (origin, another) = (origins.next(), origins.next());
    let Some(origin) = origin else {
        return true;
    };
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => (request.headers().get(HOST)).and_then(|host| host.to_str().ok()),
    };
    let origin = origin.to_str().ok().zip(host);
    another.is_none() && origin.is_some_and(|(origin, host)| is_own(origin, host))
}

pub(super) fn other_origin() -> ApiError {
    let message = "pages of other origins may not use this provider";
    ApiError::new(StatusCode::FORBIDDEN, "origin_refused", message)
}

fn is_preflight(request: &Request) -> bool {
    let asks = request
        .headers()
        .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    *request.method() == Method::OPTIONS && asks
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in ALLOWED {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
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
