//! A Tussah provider, by its API of OpenAI's shape.
//!
//! In: messages of a conversation. Out: pieces of the answer as they come, then which job and
//! which receipt they are of. A provider that asks to wait is waited for, within bounds.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::telegram::{agent, seconds, way};

/// Tokens of an answer.
const TOKENS_MAX: u32 = 220;
/// Bytes of all that a stream says, and of a refusal.
const STREAM_BYTES_MAX: u64 = 4 << 20;
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// How long one answer may take.
const TIME_MAX: Duration = Duration::from_secs(300);
/// How often a provider is asked that is busy, and how long it is waited for each time.
const TRIES: u32 = 4;
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It is busy, and stayed so.
    #[error("busy, asked {TRIES} times")]
    Busy,
    /// The key is not known there.
    #[error("the key is not known there")]
    Key,
    /// It refused.
    #[error("refused with {status} {code}: {message}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Which error.
        code: String,
        /// Its words.
        message: String,
    },
    /// It was not reached.
    #[error("not reached: {0}")]
    Unreachable(&'static str),
    /// The stream ended early or is none.
    #[error("the answer broke off: {0}")]
    Broken(&'static str),
}

/// Where an answer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The id of the job.
    pub job: String,
    /// The digest of its receipt.
    pub receipt: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalError,
}

#[derive(Deserialize)]
struct RefusalError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: Option<String>,
}

/// The provider.
#[derive(Debug)]
pub struct Provider {
    url: String,
    key: crate::config::Secret,
    model: String,
    agent: ureq::Agent,
}

impl Provider {
    /// The provider of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            url: format!("{}/v1/chat/completions", config.provider_url),
            key: config.provider_key.clone(),
            model: config.model.clone(),
            agent: agent(TIME_MAX),
        }
    }

    /// Asks, and hands over the answer piece by piece; `wait` is called before each further try.
    ///
    /// # Errors
    /// [`ProviderError`]; pieces that were handed over are no answer then.
    pub fn ask(
        &self,
        system: &str,
        user: &str,
        mut piece: impl FnMut(&str),
        mut wait: impl FnMut(Duration),
    ) -> Result<Source, ProviderError> {
        let body = json!({
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "max_tokens": TOKENS_MAX,
            "stream": true,
        });
        for attempt in 1..=TRIES {
            match self.once(&body, &mut piece)? {
                Once::Answered(source) => return Ok(source),
                Once::Later(asked) if attempt < TRIES => {
                    wait(
                        asked
                            .unwrap_or(Duration::from_secs(1 << attempt))
                            .min(WAIT_MAX),
                    );
                }
                Once::Later(_) => {}
            }
        }
        Err(ProviderError::Busy)
    }

    fn once(&self, body: &Value, piece: &mut impl FnMut(&str)) -> Result<Once, ProviderError> {
        let request = self.agent.post(&self.url);
        let request = request.header("authorization", format!("Bearer {}", self.key.reveal()));
        let request = request.header("content-type", "application/json");
        let answer = request.send(body.to_string());
        let answer = answer.map_err(|error| ProviderError::Unreachable(way(&error)))?;
        let status = answer.status().as_u16();
        let after = seconds(answer.headers().get("retry-after")).map(Duration::from_secs);
        let reader = answer.into_body().into_reader();
        match status {
            200 => stream(reader.take(STREAM_BYTES_MAX), piece).map(Once::Answered),
            429 | 503 => Ok(Once::Later(after)),
            401 => Err(ProviderError::Key),
            _ => {
                let mut text = Vec::new();
                // Whatever came is all there is to say.
                let _ = reader.take(REFUSAL_BYTES_MAX).read_to_end(&mut text);
                let refusal = serde_json::from_slice::<Refusal>(&text).ok();
                let (code, message) = match refusal {
                    Some(Refusal { error }) => (error.code.unwrap_or_default(), error.message),
                    None => (String::new(), "without a word".to_owned()),
                };
                Err(ProviderError::Refused {
                    status,
                    code,
                    message,
                })
            }
        }
    }
}

enum Once {
    Answered(Source),
    /// After so long, where it said how long.
    Later(Option<Duration>),
}

/// Reads server-sent events to their mark of the end.
fn stream(
    reader: impl std::io::Read,
    piece: &mut impl FnMut(&str),
) -> Result<Source, ProviderError> {
    let mut source = None;
    for line in BufReader::new(reader).lines() {
        let line = line.map_err(|_| ProviderError::Broken("the connection broke"))?;
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        let data = data.trim_start();
        if data == "[DONE]" {
            return source.ok_or(ProviderError::Broken("it names no receipt"));
        }
        let chunk: Value =
            serde_json::from_str(data).map_err(|_| ProviderError::Broken("a piece is no JSON"))?;
        if let Some(error) = chunk.get("error") {
            let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
            return Err(ProviderError::Refused {
                status: 200,
                code: text("code"),
                message: text("message"),
            });
        }
        if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str() {
            piece(text);
        }
        let ours = &chunk["tussah"];
        if let (Some(job), Some(receipt)) = (ours["job_id"].as_str(), ours["receipt"].as_str()) {
            source = Some(Source {
                job: digest(job)?,
                receipt: digest(receipt)?,
            });
        }
    }
    Err(ProviderError::Broken("the stream has no end"))
}

/// What is shown to people is a digest and nothing else.
fn digest(text: &str) -> Result<String, ProviderError> {
    let hex = text.strip_prefix("blake3:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_owned());
    }
    Err(ProviderError::Broken("a receipt's name is no digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &str) -> (String, Result<Source, String>) {
        let mut text = String::new();
        let source = stream(events.as_bytes(), &mut |piece: &str| text.push_str(piece));
        (text, source.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_stream_is_an_answer_only_with_its_end_and_its_receipt() {
        let id = format!("blake3:{}", "ab".repeat(32));
        let hello = r#"data: {"choices":[{"delta":{"content":"Hé"}}],"tussah":{"job_id":null}}"#;
        let last = format!(
            r#"data: {{"choices":[{{"delta":{{}}}}],"tussah":{{"job_id":"{id}","receipt":"{id}"}}}}"#
        );
        let (text, source) = read(&format!(
            ": hi\n\n{hello}\n\n{hello}\n\n{last}\n\ndata: [DONE]\n\n"
        ));
        assert_eq!(text, "HéHé");
        assert_eq!(source.unwrap().receipt, id);
        for (events, says) in [
            (format!("{hello}\n\n{last}\n\n"), "has no end"),
            (format!("{hello}\n\ndata: [DONE]\n\n"), "names no receipt"),
            ("data: {]\n\n".to_owned(), "no JSON"),
            (last.replace("ab", "<b"), "no digest"),
            (
                r#"data: {"error":{"code":"host_failure","message":"try again"}}"#.to_owned(),
                "host_failure: try again",
            ),
        ] {
            let error = read(&events).1.unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
