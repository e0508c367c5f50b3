//! One HTTP exchange, watched from outside: Ctrl-C and silence end it at any time.
//!
//! In: a URL and a few headers. Out: the answer's head, then its bytes. Redirects are followed here:
//! only from https to https unless a digest was pinned, and no token goes to a second host.
//! Certificates are checked against the operating system's list. This machine is asked directly,
//! whatever proxy the environment names.

use std::{
    io::Read,
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use ureq::{
    Agent,
    config::ConfigBuilder,
    http::{HeaderMap, Response, StatusCode, Uri, header},
    tls::{Certificate, RootCerts, TlsConfig},
    typestate::AgentScope,
};

use crate::interrupt::Interrupt;

/// How many redirects are followed; hubs need two.
const REDIRECTS_MAX: usize = 8;
/// For a connection and for the answer's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that is silent for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Between two looks at Ctrl-C.
const TICK: Duration = Duration::from_millis(100);
/// Read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for a slow disk.
const CHUNKS_WAITING_MAX: usize = 8;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// Not a URL that we open.
    #[error("cannot open {url}: {reason}")]
    Url { url: String, reason: String },
    /// A redirect that leads out of https, or to no web address at all.
    #[error("{from} leads to {to}, which is not https")]
    Insecure { from: String, to: String },
    /// Redirects without end.
    #[error("{url} leads from one address to the next, more than {REDIRECTS_MAX} times")]
    Redirects { url: String },
    /// The server says no.
    #[error("{url}: the server answered {status}")]
    Status {
        url: String,
        status: StatusCode,
        /// What `Retry-After` asks for.
        wait: Option<Duration>,
    },
    /// No connection, or it broke.
    #[error("cannot read {url}")]
    Transport {
        url: String,
        source: Box<ureq::Error>,
    },
    /// It broke within the body.
    #[error("the connection to {url} broke")]
    Broken { url: String, source: std::io::Error },
    /// Nothing came for a long time.
    #[error("{url} has sent nothing for {} seconds", SILENCE_MAX.as_secs())]
    Silent { url: String },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl HttpError {
    /// Whether another try may go better, and after how long at least.
    pub(crate) fn retry(&self) -> Option<Duration> {
        match self {
            Self::Status { status, wait, .. } => {
                let passes = status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT;
                passes.then(|| wait.unwrap_or_default())
            }
            Self::Transport { .. } | Self::Broken { .. } | Self::Silent { .. } => {
                Some(Duration::ZERO)
            }
            _ => None,
        }
    }
}

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Get {
    pub(crate) url: String,
    /// Sent to the first host alone.
    pub(crate) token: Option<String>,
    /// First byte wanted, and the validator of what is there.
    pub(crate) from: u64,
    pub(crate) if_range: Option<String>,
    /// Whether a digest will tell if somebody on the way changed the bytes.
    pub(crate) pinned: bool,
}

enum Message {
    Head(StatusCode, Box<HeaderMap>),
    Chunk(Vec<u8>),
    End,
    Failed(HttpError),
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    url: String,
    messages: Receiver<Message>,
}

impl Exchange {
    /// Sends the request and waits for the answer's head.
    ///
    /// # Errors
    /// [`HttpError`]; a status is not one of them.
    pub(crate) fn start(get: Get, interrupt: &Interrupt) -> Result<Self, HttpError> {
        let url = get.url.clone();
        Self::of(url, interrupt, move || follow(&get))
    }

    /// The same for any request: `send` blocks until the answer's head is there.
    ///
    /// # Errors
    /// As [`Exchange::start`].
    pub(crate) fn of(
        url: String,
        interrupt: &Interrupt,
        send: impl FnOnce() -> Result<Response<ureq::Body>, HttpError> + Send + 'static,
    ) -> Result<Self, HttpError> {
        let (sender, messages) = mpsc::sync_channel(CHUNKS_WAITING_MAX);
        // A thread of its own, left alone when nobody waits for it any more: a blocked socket
        // cannot be woken.
        let place = url.clone();
        std::thread::spawn(move || exchange(place, send, &sender));
        match wait(&messages, &url, interrupt)? {
            Message::Head(status, headers) => Ok(Self {
                status,
                headers: *headers,
                url,
                messages,
            }),
            Message::Failed(error) => Err(error),
            // The thread sends a head first.
            Message::Chunk(_) | Message::End => Err(HttpError::Silent { url }),
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`HttpError`]: the body is not whole.
    pub(crate) fn chunk(&mut self, interrupt: &Interrupt) -> Result<Option<Vec<u8>>, HttpError> {
        match wait(&self.messages, &self.url, interrupt)? {
            Message::Chunk(bytes) => Ok(Some(bytes)),
            Message::Failed(error) => Err(error),
            Message::End | Message::Head(..) => Ok(None),
        }
    }

    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The error that a status other than success is.
    pub(crate) fn refused(&self) -> HttpError {
        let seconds = self.header(header::RETRY_AFTER);
        HttpError::Status {
            url: self.url.clone(),
            status: self.status,
            wait: seconds
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        }
    }
}

fn wait(
    messages: &Receiver<Message>,
    url: &str,
    interrupt: &Interrupt,
) -> Result<Message, HttpError> {
    let started = Instant::now();
    loop {
        if interrupt.requested() {
            return Err(HttpError::Interrupted);
        }
        match messages.recv_timeout(TICK) {
            Ok(message) => return Ok(message),
            Err(RecvTimeoutError::Timeout) if started.elapsed() < SILENCE_MAX + HEAD_TIMEOUT => {}
            Err(_) => {
                return Err(HttpError::Silent {
                    url: url.to_owned(),
                });
            }
        }
    }
}

/// The thread: nobody listening ends it.
fn exchange(
    url: String,
    send: impl FnOnce() -> Result<Response<ureq::Body>, HttpError>,
    sender: &SyncSender<Message>,
) {
    let mut response = match send() {
        Ok(response) => response,
        Err(error) => {
            let _ = sender.send(Message::Failed(error));
            return;
        }
    };
    let headers = Box::new(response.headers().clone());
    if sender
        .send(Message::Head(response.status(), headers))
        .is_err()
    {
        return;
    }
    let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
    loop {
        let mut bytes = vec![0; CHUNK_BYTES];
        let message = match reader.read(&mut bytes) {
            Ok(0) => Message::End,
            Ok(read) => {
                bytes.truncate(read);
                Message::Chunk(bytes)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => Message::Failed(HttpError::Broken {
                url: url.clone(),
                source,
            }),
        };
        let last = !matches!(message, Message::Chunk(_));
        if sender.send(message).is_err() || last {
            return;
        }
    }
}

/// Sends the request, and again to where the answer leads.
fn follow(get: &Get) -> Result<Response<ureq::Body>, HttpError> {
    let mut url = get.url.clone();
    let first = origin(&url);
    for _ in 0..=REDIRECTS_MAX {
        check_url(&url).map_err(|reason| HttpError::Url {
            url: url.clone(),
            reason,
        })?;
        if !get.pinned && !trusted(&url) {
            return Err(HttpError::Url {
                url,
                reason: "without https anybody on the way can change the file; pin its digest \
                         with --digest or --sha256"
                    .to_owned(),
            });
        }
        let mut request = agent(&url).get(&url);
        if let Some(token) = get.token.as_ref().filter(|_| origin(&url) == first) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if get.from > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", get.from));
            if let Some(tag) = &get.if_range {
                request = request.header(header::IF_RANGE, tag);
            }
        }
        let response = request.call().map_err(|source| HttpError::Transport {
            url: url.clone(),
            source: Box::new(source),
        })?;
        let status = response.status();
        let place = response.headers().get(header::LOCATION);
        let place = place.and_then(|place| place.to_str().ok());
        match place {
            Some(place) if status.is_redirection() => {
                let next = resolve(&url, place);
                let worse = url.starts_with("https://") && !next.starts_with("https://");
                let web = next.starts_with("https://") || next.starts_with("http://");
                if !web || (worse && !get.pinned) {
                    return Err(HttpError::Insecure {
                        from: url,
                        to: next,
                    });
                }
                url = next;
            }
            _ => return Ok(response),
        }
    }
    Err(HttpError::Redirects {
        url: get.url.clone(),
    })
}

fn agent(url: &str) -> &'static Agent {
    static OTHERS: OnceLock<Agent> = OnceLock::new();
    static HERE: OnceLock<Agent> = OnceLock::new();
    match is_here(url) {
        true => HERE.get_or_init(|| direct_agent(system_roots())),
        false => OTHERS.get_or_init(|| configured(system_roots()).build().into()),
    }
}

/// Whom the operating system trusts.
pub(crate) fn system_roots() -> Vec<Certificate<'static>> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    certificates
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect()
}

/// A client for this address and those below it, which trusts these certificates. It goes through
/// the environment's proxy where that sees nothing but TLS with another machine: whatever else it
/// is given to pass on, a key among it, it could read.
pub(crate) fn agent_for(url: &str, roots: Vec<Certificate<'static>>) -> Agent {
    match url.starts_with("https://") && !is_here(url) {
        true => configured(roots).build().into(),
        false => direct_agent(roots),
    }
}

/// A client that no proxy hears of, whatever the environment says.
pub(crate) fn direct_agent(roots: Vec<Certificate<'static>>) -> Agent {
    configured(roots).proxy(None).build().into()
}

/// A client that trusts these certificates and follows no redirect.
fn configured(roots: Vec<Certificate<'static>>) -> ConfigBuilder<AgentScope> {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("tussah/", env!("CARGO_PKG_VERSION")))
        // The bytes as they are, so that ranges and sizes mean the file.
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(HEAD_TIMEOUT))
        .timeout_recv_response(Some(HEAD_TIMEOUT))
        .timeout_per_read(Some(SILENCE_MAX))
}

/// Refuses what is no web address.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    if matches!(url, "https://" | "http://") {
        return Err("the URL names no host".to_owned());
    }
    let parsed: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("https" | "http"), Some(host)) if !host.is_empty() => Ok(()),
        (_, None | Some("")) => Err("the URL names no host".to_owned()),
        _ => Err("only http and https are opened".to_owned()),
    }
}

/// Whether nobody on the way can read or change what is said.
pub(crate) fn trusted(url: &str) -> bool {
    let uri = url.parse::<Uri>();
    uri.is_ok_and(|uri| uri.scheme_str() == Some("https")) || is_here(url)
}

/// Whether it is an address of this machine's loopback.
fn is_here(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and port: who gets a token.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_owned(), uri.authority()?.to_string()))
}

/// A redirect's address, seen from the page that names it (RFC 3986, section 5).
fn resolve(base: &str, place: &str) -> String {
    let scheme_end = place.find(':').filter(|at| {
        place[..*at]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    if scheme_end.is_some_and(|at| at > 0) {
        return place.to_owned();
    }
    let (scheme, rest) = base.split_once("://").unwrap_or(("https", base));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some(other) = place.strip_prefix("//") {
        return format!("{scheme}://{other}");
    }
    if place.starts_with('/') {
        return format!("{scheme}://{host}{place}");
    }
    let path = rest[host.len()..]
        .split(['?', '#'])
        .next()
        .unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    format!("{scheme}://{host}{folder}{place}")
}

/// The last part of a URL's path.
pub(crate) fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.trim_end_matches('/').rsplit('/').next();
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_seen_from_their_page() {
        let base = "https://a.org:8080/x/y.gguf?z=1";
        for (place, expected) in [
            ("https://b.org/m", "https://b.org/m"),
            ("file:///etc/passwd", "file:///etc/passwd"),
            ("//b.org/m", "https://b.org/m"),
            ("/m?a:b", "https://a.org:8080/m?a:b"),
            ("m", "https://a.org:8080/x/m"),
        ] {
            assert_eq!(resolve(base, place), expected);
        }
        assert_eq!(resolve("https://a.org", "m"), "https://a.org/m");
    }

    #[test]
    fn only_https_and_this_machine_are_trusted() {
        for url in [
            "https://a.org/m",
            "http://127.0.0.1:80/m",
            "http://[::1]/m",
            "http://localhost",
        ] {
            assert!(trusted(url), "{url}");
        }
        for url in [
            "http://a.org/m",
            "http://127.0.0.1.a.org/m",
            "http://10.0.0.1/m",
        ] {
            assert!(!trusted(url), "{url}");
        }
        assert_eq!(file_name("https://a.org/x/m.gguf?download=true"), "m.gguf");
    }
}
