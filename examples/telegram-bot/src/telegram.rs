//! The Bot API over HTTP.
//!
//! In: methods with their parameters. Out: what Telegram answers, or why it does not. An address
//! has the token in it, so no error of the client is passed on as it is.

use std::io::Read as _;
use std::time::Duration;

use frankenstein::TelegramApi;
use frankenstein::response::ErrorResponse;
use serde::{Serialize, de::DeserializeOwned};

use crate::config::Config;

/// The most bytes of an answer: 100 updates.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// How long one answer may take: a long poll, and some.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Why Telegram did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TelegramError {
    /// It asks to be left alone for a while.
    #[error("asked too often, to be asked again in {seconds} s")]
    TooOften {
        /// How long.
        seconds: u64,
    },
    /// It refused.
    #[error("refused with {code}: {description}")]
    Refused {
        /// Its error code.
        code: u64,
        /// Its words.
        description: String,
    },
    /// It was not reached, or the answer broke off.
    #[error("not reached: {0}")]
    Unreachable(&'static str),
    /// Its answer is none.
    #[error("no answer of the Bot API, status {status}")]
    BadAnswer {
        /// The status of HTTP.
        status: u16,
    },
    /// Files are not sent.
    #[error("this client sends no files")]
    NoFiles,
}

/// The Bot API.
#[derive(Debug)]
pub struct Telegram {
    base: crate::config::Secret,
    agent: ureq::Agent,
}

impl Telegram {
    /// The API of a bot.
    pub fn new(config: &Config) -> Self {
        let base = format!("{}/bot{}", config.telegram_url, config.token.reveal());
        Self {
            base: crate::config::Secret::new(base),
            agent: agent(TIME_MAX),
        }
    }
}

/// A client that takes statuses for answers.
pub(crate) fn agent(time_max: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_global(Some(time_max))
        .build()
        .new_agent()
}

/// What went wrong on the way, in words that have no address in them.
pub(crate) fn way(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "it took too long",
        ureq::Error::HostNotFound => "the host is not known",
        ureq::Error::ConnectionFailed => "no connection",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "TLS failed",
        ureq::Error::Io(_) => "the connection broke",
        _ => "HTTP failed",
    }
}

impl TelegramApi for Telegram {
    type Error = TelegramError;

    fn request<P, T>(&self, method: &str, params: Option<P>) -> Result<T, TelegramError>
    where
        P: Serialize + std::fmt::Debug,
        T: DeserializeOwned,
    {
        let url = format!("{}/{method}", self.base.reveal());
        let body = params.map(|params| serde_json::to_string(&params));
        let body = body.transpose();
        let body = body.map_err(|_| TelegramError::Unreachable("parameters that are no JSON"))?;
        let request = self
            .agent
            .post(&url)
            .header("content-type", "application/json");
        let sent = request.send(body.unwrap_or_else(|| "{}".to_owned()));
        let answer = sent.map_err(|error| TelegramError::Unreachable(way(&error)))?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after").cloned();
        let mut bytes = Vec::new();
        let mut reader = answer.into_body().into_reader().take(ANSWER_BYTES_MAX);
        let read = reader.read_to_end(&mut bytes);
        read.map_err(|_| TelegramError::Unreachable("the answer broke off"))?;
        if (200..300).contains(&status) {
            let parsed = serde_json::from_slice(&bytes);
            return parsed.map_err(|_| TelegramError::BadAnswer { status });
        }
        let Ok(refusal) = serde_json::from_slice::<ErrorResponse>(&bytes) else {
            return Err(match status {
                429 => TelegramError::TooOften {
                    seconds: seconds(retry_after.as_ref()).unwrap_or(5),
                },
                _ => TelegramError::BadAnswer { status },
            });
        };
        let wait = refusal.parameters.and_then(|it| it.retry_after);
        Err(match wait {
            Some(seconds) => TelegramError::TooOften {
                seconds: seconds.into(),
            },
            None => TelegramError::Refused {
                code: refusal.error_code,
                description: refusal.description,
            },
        })
    }

    fn request_with_form_data<P, T>(
        &self,
        _method: &str,
        _params: P,
        _files: Vec<(&str, std::path::PathBuf)>,
    ) -> Result<T, TelegramError>
    where
        P: Serialize + std::fmt::Debug,
        T: DeserializeOwned,
    {
        Err(TelegramError::NoFiles)
    }
}

/// `Retry-After` in seconds.
pub(crate) fn seconds(header: Option<&ureq::http::HeaderValue>) -> Option<u64> {
    header?.to_str().ok()?.trim().parse().ok()
}
