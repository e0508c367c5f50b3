//! A provider's jobs API, as this machine's client uses it.
//!
//! In: where the provider is, a key for it, calls. Out: answers, or why there is none. What a
//! provider says is a claim: [`evidence`] checks it, and nothing else here believes it. Each call
//! may be made twice without harm, so a broken line and a full queue are waited out. The key and
//! the input go over https or stay on this machine.

pub(crate) mod events;
pub(crate) mod evidence;
pub(crate) mod follow;
pub(crate) mod kept;
pub(crate) mod option;
pub(crate) mod upload;

use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::{
    Agent,
    http::{Method, Request, StatusCode, header},
};
use zeroize::Zeroizing;

use crate::{
    exit_code::Exit,
    failure::Failure,
    interrupt::Interrupt,
    pull::http::{Exchange, HttpError},
    ui::{self, Ui},
};

/// The longest answer that is read whole, unless somebody says otherwise: documents are smaller.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Characters of a provider's message that are shown.
const MESSAGE_CHARS_MAX: usize = 500;
/// Tries in a row that may come to nothing because of the line.
const TRIES_MAX: u32 = 5;
/// The pause after the first of them; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// How long a provider may be full or away before it is given up.
const AWAY_MAX: Duration = Duration::from_secs(600);
/// Between two looks at Ctrl-C.
const TICK: Duration = Duration::from_millis(50);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The line.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The provider says no.
    #[error("the provider refused ({status}): {message}")]
    Refused {
        status: StatusCode,
        /// The API's own word for it, such as `queue_full`.
        code: String,
        message: String,
        /// What `Retry-After` asks for.
        wait: Option<Duration>,
    },
    /// What it answered is not what the API says.
    #[error("the provider's answer cannot be read: {0}")]
    Nonsense(String),
}

impl RemoteError {
    /// Whether another try may go better, and after how long at least.
    fn retry(&self) -> Option<Duration> {
        match self {
            Self::Http(error) => error.retry(),
            Self::Refused {
                status, code, wait, ..
            } => {
                let passes = matches!(
                    *status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::GATEWAY_TIMEOUT
                        | StatusCode::REQUEST_TIMEOUT
                ) || code == "upload_under_way";
                passes.then(|| wait.unwrap_or_default())
            }
            Self::Nonsense(_) => None,
        }
    }

    /// Whether the provider has given this reason.
    pub(crate) fn is_refusal(&self, reason: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == reason)
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let (exit, help) = match &error {
            RemoteError::Http(HttpError::Interrupted) => return Self::interrupted(),
            RemoteError::Http(HttpError::Url { .. }) => (Exit::USAGE, "name a provider with --to"),
            RemoteError::Http(_) => (
                Exit::HOST_FAILED,
                "look whether the provider runs and its address is right; for a certificate of its \
                 own give --ca FILE",
            ),
            RemoteError::Nonsense(_) => (
                Exit::NOT_VERIFIED,
                "look whether this is the address of a Tussah provider",
            ),
            RemoteError::Refused { status, code, .. } => refusal_help(*status, code),
        };
        let failure = Self::new(exit, error);
        match help {
            "" => failure,
            help => failure.help(help),
        }
    }
}

fn refusal_help(status: StatusCode, code: &str) -> (Exit, &'static str) {
    match (status.as_u16(), code) {
        (403, "module_not_verified") => (
            Exit::USAGE,
            "ask one of these verifiers for its claim on this module, and give it with --claim FILE",
        ),
        (403, "model_not_offered") => (
            Exit::USAGE,
            "use a model that this provider offers, or ask another provider",
        ),
        (401 | 403, _) => (
            Exit::USAGE,
            "give the provider's API key with --key-file FILE or in TUSSAH_API_KEY",
        ),
        (402, _) => (Exit::LIMIT, "ask the provider for more credit"),
        (413, _) => (Exit::LIMIT, "shorten the input"),
        (429, _) => (Exit::LIMIT, "come back later, or ask another provider"),
        (_, "blob_missing") => (
            Exit::USAGE,
            "a provider runs models that it has: ask it for this one, or use a job with its models",
        ),
        (400..=499, _) => (Exit::USAGE, ""),
        _ => (Exit::HOST_FAILED, "the provider failed: try again later"),
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(header::HeaderName, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }
}

/// An answer that is not a refusal.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, RemoteError> {
        serde_json::from_slice(&self.body).map_err(|error| RemoteError::Nonsense(error.to_string()))
    }
}

/// A provider.
#[derive(Clone)]
pub(crate) struct Remote {
    /// Without a slash at its end.
    base: String,
    key: Option<Zeroizing<String>>,
    agent: Agent,
    interrupt: Interrupt,
    ui: Ui,
}

impl Remote {
    /// Its address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The same, deaf to Ctrl-C: for what has to be done after it.
    pub(crate) fn unhurried(&self) -> Self {
        Self {
            interrupt: Interrupt::never(),
            ..self.clone()
        }
    }

    /// Makes a call and waits for the answer's head, whatever its status.
    pub(crate) fn send(&self, call: &Call) -> Result<Exchange, RemoteError> {
        let url = format!("{}{}", self.base, call.path);
        let mut request = Request::builder().method(call.method.clone()).uri(&url);
        if let Some(key) = &self.key {
            let bearer = format!("Bearer {}", key.as_str());
            request = request.header(header::AUTHORIZATION, bearer);
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let wrong = |error: ureq::http::Error| HttpError::Url {
            url: url.clone(),
            reason: error.to_string(),
        };
        let request = request.body(()).map_err(wrong)?;
        let (agent, body, place) = (self.agent.clone(), call.body.clone(), url.clone());
        let exchange = Exchange::of(url, &self.interrupt, move || {
            let (parts, ()) = request.into_parts();
            let answer = match body {
                Some(body) => agent.run(Request::from_parts(parts, body)),
                None => agent.run(Request::from_parts(parts, ())),
            };
            answer.map_err(|source| HttpError::Transport {
                url: place,
                source: Box::new(source),
            })
        });
        Ok(exchange?)
    }

    /// Makes a call and reads its answer, once.
    pub(crate) fn ask_once(&self, call: &Call, bytes_max: usize) -> Result<Answer, RemoteError> {
        let mut exchange = self.send(call)?;
        if !exchange.status.is_success() {
            return Err(self.refusal(exchange));
        }
        let body = self.read(&mut exchange, bytes_max)?;
        Ok(Answer {
            status: exchange.status,
            body,
        })
    }

    /// The first call of a command: a line that is broken now says that the address is wrong.
    pub(crate) fn ask_first(&self, call: &Call) -> Result<Answer, RemoteError> {
        let mut patience = Patience::new();
        loop {
            match self.ask_once(call, ANSWER_BYTES_MAX) {
                Ok(answer) => return Ok(answer),
                Err(error @ RemoteError::Http(_)) => return Err(error),
                Err(error) => patience.after(error, self)?,
            }
        }
    }

    /// The same, again and again while that may help.
    pub(crate) fn ask(&self, call: &Call) -> Result<Answer, RemoteError> {
        self.ask_for(call, ANSWER_BYTES_MAX)
    }

    /// The same, with a longer answer.
    pub(crate) fn ask_for(&self, call: &Call, bytes_max: usize) -> Result<Answer, RemoteError> {
        let mut patience = Patience::new();
        loop {
            match self.ask_once(call, bytes_max) {
                Ok(answer) => return Ok(answer),
                Err(error) => patience.after(error, self)?,
            }
        }
    }

    /// What a refusal says of itself.
    pub(crate) fn refusal(&self, mut exchange: Exchange) -> RemoteError {
        let wait = match exchange.refused() {
            HttpError::Status { wait, .. } => wait,
            _ => None,
        };
        let status = exchange.status;
        let body = match self.read(&mut exchange, ANSWER_BYTES_MAX) {
            Ok(body) => body,
            Err(error) => return error,
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |field: &str| body["error"][field].as_str().unwrap_or_default();
        let message = match text("message") {
            "" => "it gave no reason".to_owned(),
            message => printable(message),
        };
        RemoteError::Refused {
            status,
            code: text("code").to_owned(),
            message,
            wait,
        }
    }

    fn read(&self, exchange: &mut Exchange, bytes_max: usize) -> Result<Vec<u8>, RemoteError> {
        let mut body = Vec::new();
        while let Some(chunk) = exchange.chunk(&self.interrupt)? {
            if body.len().saturating_add(chunk.len()) > bytes_max {
                let message = format!("it has more than {bytes_max} bytes");
                return Err(RemoteError::Nonsense(message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(crate) fn chunk(&self, exchange: &mut Exchange) -> Result<Option<Vec<u8>>, RemoteError> {
        Ok(exchange.chunk(&self.interrupt)?)
    }
}

/// A stranger's words for the terminal: short, and without what moves the cursor.
pub(crate) fn printable(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(MESSAGE_CHARS_MAX).collect()
}

/// How often and for how long something is tried again.
#[derive(Debug)]
pub(crate) struct Patience {
    tries: u32,
    since: Option<Instant>,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self {
            tries: 0,
            since: None,
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The same error, where another try would not help or enough were made; Ctrl-C.
    pub(crate) fn after(&mut self, error: RemoteError, remote: &Remote) -> Result<(), RemoteError> {
        let Some(wanted) = error.retry() else {
            return Err(error);
        };
        let is_line = matches!(error, RemoteError::Http(_));
        let since = *self.since.get_or_insert_with(Instant::now);
        let pause = wanted.max(PAUSE_MIN * 2_u32.pow(self.tries.min(6)));
        self.tries += 1;
        if (is_line && self.tries >= TRIES_MAX) || since.elapsed().saturating_add(pause) > AWAY_MAX
        {
            return Err(error);
        }
        let message = format!("{error}; trying again in {}", ui::duration(pause));
        remote.ui.note(&message);
        let started = Instant::now();
        while started.elapsed() < pause {
            if remote.interrupt.requested() {
                return Err(HttpError::Interrupted.into());
            }
            std::thread::sleep(TICK.min(pause));
        }
        Ok(())
    }

    /// Something came: what failed before does not count any more.
    pub(crate) fn renew(&mut self) {
        *self = Self::new();
    }
}
