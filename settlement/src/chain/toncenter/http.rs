//! One question to a toncenter server: sent at a fair pace, repeated where that may help.
//!
//! In: a method of the JSON-RPC interface and its parameters. Out: the answer's `result`, or why
//! there is none. Answers are bounded, redirects are not followed, certificates are checked
//! against the operating system's list, and no error carries the API key.

use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use serde_json::{Value, json};
use tycho_types::models::StdAddr;

use super::ToncenterConfig;
use super::answer::Reply;
use crate::chain::clock::Clock;
use crate::voucher::NetworkId;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The first wait before a request is repeated; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait of our own choice.
const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// A server that asks for more patience than this is given up.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// What is kept of a server's words.
const REASON_CHARS_MAX: usize = 400;

/// Why a server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToncenterError {
    /// Not an address that we ask.
    #[error("cannot ask `{url}`: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// TLS or the client could not be set up, or the key is no header.
    #[error("cannot set up connections: {reason}")]
    Setup {
        /// What failed.
        reason: String,
    },
    /// No connection, no answer in time, or an answer that broke off.
    #[error("{host} did not answer `{method}`")]
    Transport {
        /// The server.
        host: String,
        /// What was asked.
        method: &'static str,
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server says no.
    #[error("{host} refused `{method}` with {code}: {reason}")]
    Refused {
        /// The server.
        host: String,
        /// What was asked.
        method: &'static str,
        /// Its code: an HTTP status, or one of its own.
        code: i64,
        /// Its words, cut.
        reason: String,
        /// How long it asks to be left alone.
        wait: Option<Duration>,
    },
    /// The server ran the message, and the account did not accept it.
    #[error("the account did not accept the message")]
    NotAccepted {
        /// How the account's code ended; nothing where none ran.
        exit_code: Option<i32>,
    },
    /// An answer without end.
    #[error("the answer to `{method}` is larger than {bytes_max} bytes")]
    TooLarge {
        /// What was asked.
        method: &'static str,
        /// How much is read.
        bytes_max: usize,
    },
    /// An answer that is none.
    #[error("the answer to `{method}` is wrong: `{field}` is not {expected}")]
    Answer {
        /// What was asked.
        method: &'static str,
        /// Where in the answer.
        field: String,
        /// What should be there.
        expected: &'static str,
    },
    /// Another network than the one that was asked for.
    #[error("this server is on network {}, not on {}", found.0, expected.0)]
    OtherNetwork {
        /// What it must be.
        expected: NetworkId,
        /// What it says.
        found: NetworkId,
    },
    /// Transactions that are not one account's, or some are missing.
    #[error("the transactions of {account} do not lead to each other at {lt}")]
    Broken {
        /// The account.
        account: StdAddr,
        /// Logical time of the first that is not where it should be.
        lt: u64,
    },
    /// More transactions than are read at once.
    #[error("{account} has more than {transactions_max} transactions after the given one")]
    TooMany {
        /// The account.
        account: StdAddr,
        /// How many are read.
        transactions_max: usize,
    },
}

impl ToncenterError {
    /// Whether the same question may be answered later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { code, .. } => matches!(code, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// Where a URL leads, as the client that asks reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The server's name or address, in lower case, without a port.
    pub host: String,
    /// Whether what is sent there is secret on its way.
    pub is_secure: bool,
}

impl Destination {
    /// Where `url` leads; nothing if it is no URL, or names no server.
    pub fn of(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        Some(Self {
            host: url.host_str()?.to_ascii_lowercase(),
            is_secure: url.scheme() == "https",
        })
    }

    /// Whether the server is on this machine, where plain http is no danger.
    pub fn is_local(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

/// Whether the server is on this machine.
pub(super) fn is_local(url: &str) -> bool {
    Destination::of(url).is_some_and(|destination| destination.is_local())
}

/// A URL without what it may hide: a user's name and password, a key.
fn shown(url: &str) -> String {
    let before = url.split(['?', '#']).next().unwrap_or_default();
    match before.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => before.to_owned(),
    }
}

/// A server, and when it may be asked next.
#[derive(Debug)]
pub(super) struct Http<C> {
    client: Client,
    url: Url,
    host: String,
    key: Option<HeaderValue>,
    config: ToncenterConfig,
    clock: C,
    /// No request starts before. Written by whoever takes a place, and where a server asks for
    /// patience.
    next: Mutex<Duration>,
}

impl<C: Clock> Http<C> {
    pub(super) fn new(config: ToncenterConfig, clock: C) -> Result<Self, ToncenterError> {
        let wrong = |reason| ToncenterError::Url {
            url: shown(&config.url),
            reason,
        };
        let url = format!("{}/jsonRPC", config.url.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|_| wrong("it is no URL"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("a key is given apart from the URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it has a user's name in it"));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_local(&config.url) => {}
            "http" => return Err(wrong("only a server on this machine is asked without TLS")),
            _ => return Err(wrong("it is neither https nor http")),
        }
        let host = url.host_str().ok_or_else(|| wrong("it names no server"))?;
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let key = config.api_key.as_ref().map(|key| {
            let mut key = HeaderValue::from_str(key)?;
            key.set_sensitive(true);
            Ok(key)
        });
        let key = key
            .transpose()
            .map_err(
                |_: reqwest::header::InvalidHeaderValue| ToncenterError::Setup {
                    reason: "the API key has characters that none has".to_owned(),
                },
            )?;
        Ok(Self {
            client: client(&config)?,
            url,
            host,
            key,
            config,
            clock,
            next: Mutex::default(),
        })
    }

    /// Asks, and again where that may help.
    pub(super) async fn call(
        &self,
        method: &'static str,
        params: &Value,
    ) -> Result<Reply, ToncenterError> {
        self.call_counted(method, params).await.0
    }

    /// The same, and how often the question may have reached the server.
    pub(super) async fn call_counted(
        &self,
        method: &'static str,
        params: &Value,
    ) -> (Result<Reply, ToncenterError>, u32) {
        let request = json!({ "id": "1", "jsonrpc": "2.0", "method": method, "params": params });
        let request = request.to_string();
        let mut tries = 0;
        loop {
            self.take_turn().await;
            tries += 1;
            let error = match self.ask(method, request.clone()).await {
                Ok(result) => return (Ok(Reply::new(method, result)), tries),
                Err(error) => error,
            };
            if !error.is_transient() || tries > self.config.retries {
                return (Err(error), tries);
            }
            let asked = match &error {
                ToncenterError::Refused { wait, .. } => wait.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            if asked > RETRY_AFTER_MAX {
                return (Err(error), tries);
            }
            self.back_off(tries, asked).await;
        }
    }

    /// Waits for a place of our own in the row of requests.
    async fn take_turn(&self) {
        let now = self.clock.now();
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = now.max(*next);
            *next = turn + self.config.pause;
            turn
        };
        if turn > now {
            self.clock.sleep(turn - now).await;
        }
    }

    /// Waits at least as long as the server asks, and holds back everybody else so long.
    async fn back_off(&self, tries: u32, asked: Duration) {
        let doubled = BACKOFF.saturating_mul(1 << tries.saturating_sub(1).min(16));
        let doubled = doubled.min(BACKOFF_MAX);
        // Half of it for certain, the rest by chance, so that clients do not return together.
        let share = u32::try_from(self.clock.any_number() % 1_001).unwrap_or_default();
        let wait = (doubled / 2 + (doubled / 2) * share / 1_000).max(asked);
        if !asked.is_zero() {
            let free = self.clock.now() + asked;
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(free);
        }
        self.clock.sleep(wait).await;
    }

    async fn ask(&self, method: &'static str, body: String) -> Result<Value, ToncenterError> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body);
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key.clone());
        }
        let response = request.send().await;
        let mut response = response.map_err(|error| self.transport(method, error))?;
        let status = i64::from(response.status().as_u16());
        let wait = retry_after(&response);
        let bytes = self.read(method, &mut response).await?;
        let refused = |code, reason: &str| ToncenterError::Refused {
            host: self.host.clone(),
            method,
            code,
            reason: cut(reason),
            wait,
        };
        let is_success = response.status().is_success();
        let Ok(mut answer) = serde_json::from_slice::<Value>(&bytes) else {
            if !is_success {
                // A gateway's own words.
                return Err(refused(status, "the answer is no JSON"));
            }
            return Err(ToncenterError::Answer {
                method,
                field: "the answer".to_owned(),
                expected: "JSON",
            });
        };
        if is_success && answer.get("ok") == Some(&Value::Bool(true)) {
            if let Some(result) = answer.get_mut("result") {
                return Ok(result.take());
            }
            return Err(ToncenterError::Answer {
                method,
                field: "result".to_owned(),
                expected: "there",
            });
        }
        let code = answer.get("code").and_then(Value::as_i64).unwrap_or(status);
        let reason = match answer.get("error") {
            Some(Value::String(reason)) => reason.as_str(),
            Some(other) => other.get("message").and_then(Value::as_str).unwrap_or(""),
            None => "",
        };
        match not_accepted(reason) {
            Some(exit_code) if method == "sendBoc" => {
                Err(ToncenterError::NotAccepted { exit_code })
            }
            _ => Err(refused(code, reason)),
        }
    }

    async fn read(
        &self,
        method: &'static str,
        response: &mut Response,
    ) -> Result<Vec<u8>, ToncenterError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| self.transport(method, error))? else {
                return Ok(bytes);
            };
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(ToncenterError::TooLarge {
                    method,
                    bytes_max: ANSWER_BYTES_MAX,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    fn transport(&self, method: &'static str, error: reqwest::Error) -> ToncenterError {
        ToncenterError::Transport {
            host: self.host.clone(),
            method,
            source: error.without_url().into(),
        }
    }
}

fn client(config: &ToncenterConfig) -> Result<Client, ToncenterError> {
    let setup = |error: &dyn Error| ToncenterError::Setup {
        reason: error.to_string(),
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(config.timeout)
        .user_agent(concat!("tussah/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| setup(&error))
}

/// Seconds; the other form, a date, is left to our own patience.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A server's words, fit to be shown in one line.
fn cut(reason: &str) -> String {
    let words = reason.split(|c: char| c.is_control() || c.is_whitespace());
    let words = words.filter(|word| !word.is_empty()).collect::<Vec<_>>();
    words.join(" ").chars().take(REASON_CHARS_MAX).collect()
}

/// Whether these are the words of a node whose account did not accept a message, and its code's
/// exit code. They stand in `crypto/block/transaction.cpp` and `validator/impl/external-message.cpp`
/// of the node, and have been the same for years; the code is the first one of the message.
fn not_accepted(reason: &str) -> Option<Option<i32>> {
    let is_refusal = [
        "External message was not accepted",
        "external message rejected by",
        "Failed to unpack account state",
    ];
    if !is_refusal.iter().any(|words| reason.contains(words)) {
        return None;
    }
    let (_, rest) = reason.split_once("exitcode=").unwrap_or_default();
    let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit());
    Some(rest[..end.unwrap_or(rest.len())].parse().ok())
}
