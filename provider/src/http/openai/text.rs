//! `/v1/chat/completions` and `/v1/completions`: messages or a prompt in, text out, at once or as
//! it comes.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tussah_manifest::Digest;

use super::asked::{Asked, asked, job_input};
use super::lines::{Finish, Line, Lines};
use super::logprobs::{self, Offsets, TokenProb};
use super::tools::Calls;
use super::{answered, bad_output, deployed, ours, run};
use crate::gateway::{JobEnd, JobEvent, Listener, News, Ticket, now_unix_ms};
use crate::http::body;
use crate::http::error::{ApiError, json_response};
use crate::http::jobs::{RECEIPT_HEADER, keep_alive, receipt_header};
use crate::http::{App, auth};
use crate::ledger::{JobPart, Shape};

pub(in crate::http) async fn chat(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(app, headers, body, Shape::Chat).await
}

pub(in crate::http) async fn completions(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(app, headers, body, Shape::Completions).await
}

async fn answer(
    app: App,
    headers: HeaderMap,
    body: Body,
    shape: Shape,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let (bytes, held) = body::json_bytes(&app, &account, &headers, body).await?;
    let asked = asked(body::object(&bytes)?, shape)?;
    let deployed = deployed(&app, &asked.model, shape)?;
    let input = job_input(&asked.input, &bytes);
    drop(bytes);
    let ticket = run(&app, account, deployed, input, asked.seed).await?;
    drop(held);
    let id = ticket.id;
    let mut response = match asked.stream {
        true => streamed(app, asked, ticket).await?,
        false => at_once(&app, &asked, ticket).await?,
    };
    let header = receipt_header(&id);
    response.headers_mut().insert(RECEIPT_HEADER, header);
    Ok(response)
}

/// All the output of a job, and its end.
pub(super) async fn whole(
    app: &App,
    id: &Digest,
    news: &mut News,
) -> Result<(Vec<u8>, JobEnd), ApiError> {
    let listener = match news {
        News::Live(listener) => listener,
        News::Ended(job) => {
            let end = JobEnd::of(job).unwrap_or(JobEnd::Unrecorded);
            let output = app.gateway.ledger().content(*id, JobPart::Output).await?;
            return Ok((output.unwrap_or_default(), end));
        }
    };
    let mut output = Vec::new();
    while let Some(event) = listener.next().await {
        match event {
            JobEvent::Output(bytes) => output.extend_from_slice(&bytes),
            JobEvent::Ended(end) => return Ok((output, JobEnd::clone(&end))),
            JobEvent::Started | JobEvent::Progress(_) => {}
        }
    }
    Ok((output, JobEnd::Unrecorded))
}

async fn at_once(app: &App, asked: &Asked, mut ticket: Ticket) -> Result<Response, ApiError> {
    let (output, end) = whole(app, &ticket.id, &mut ticket.news).await?;
    let receipt = answered(&end)?;
    let (mut text, mut finish) = (String::new(), None);
    let (mut tokens, mut calls) = (Vec::new(), Calls::of(&ticket.id));
    for line in Lines::default().add(&output).map_err(|e| bad_output(&e))? {
        match line {
            Line::Text(piece, of_piece) => {
                text.push_str(&piece);
                tokens.extend(of_piece);
            }
            Line::Call(piece) if asked.shape == Shape::Chat => {
                calls.add(&piece).map_err(bad_output)?;
            }
            Line::Call(_) => return Err(bad_output("it calls a function in a completion")),
            Line::Finish(last) => finish = Some(last),
            Line::Embedding(_) => return Err(bad_output("it has vectors among its text")),
        }
    }
    let finish = finish.ok_or_else(|| bad_output("it has no last line"))?;
    let logprobs = logprobs_of(asked, &tokens, &mut Offsets::default());
    let choice = match asked.shape {
        Shape::Chat => {
            let mut message = json!({"role": "assistant", "content": text, "refusal": null});
            if let Some(calls) = calls.all() {
                message["tool_calls"] = calls;
                if text.is_empty() {
                    message["content"] = Value::Null;
                }
            }
            json!({
                "index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish.reason,
            })
        }
        _ => json!({
            "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish.reason,
        }),
    };
    let object = match asked.shape {
        Shape::Chat => "chat.completion",
        _ => "text_completion",
    };
    let answer = json!({
        "id": answer_id(asked.shape, &ticket.id),
        "object": object,
        "created": now_unix_ms() / 1000,
        "model": asked.model,
        "choices": [choice],
        "usage": usage(&finish),
        "tussah": ours(&ticket.id, Some(&receipt)),
    });
    Ok(json_response(StatusCode::OK, &answer))
}

/// How likely tokens were, in the shape of their API; null where nobody asked.
fn logprobs_of(asked: &Asked, tokens: &[TokenProb], offsets: &mut Offsets) -> Value {
    match asked.shape {
        _ if !asked.logprobs => Value::Null,
        Shape::Chat => logprobs::of_chat(tokens),
        _ => logprobs::of_completion(tokens, offsets),
    }
}

fn answer_id(shape: Shape, job: &Digest) -> String {
    let prefix = match shape {
        Shape::Chat => "chatcmpl",
        _ => "cmpl",
    };
    format!("{prefix}-{}", &job.to_hex()[..32])
}

fn usage(finish: &Finish) -> Value {
    json!({
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens.saturating_add(finish.completion_tokens),
    })
}

/// A streamed answer on its way.
struct Stream {
    asked: Asked,
    id: Digest,
    created: u64,
    /// Held for as long as the client is there: dropped, it cancels the job.
    source: Source,
    lines: Lines,
    calls: Calls,
    offsets: Offsets,
    finish: Option<Finish>,
    ready: VecDeque<Event>,
    over: bool,
}

/// Where a stream's output comes from.
enum Source {
    Live(Ticket),
    Ended(Option<Vec<u8>>, Box<JobEnd>),
}

impl Source {
    async fn next(&mut self) -> Option<JobEvent> {
        match self {
            Self::Live(ticket) => match &mut ticket.news {
                News::Live(listener) => Listener::next(listener).await,
                News::Ended(_) => None,
            },
            Self::Ended(output, end) => match output.take() {
                Some(output) => Some(JobEvent::Output(output.into())),
                None => Some(JobEvent::Ended(std::sync::Arc::new(JobEnd::clone(end)))),
            },
        }
    }
}

/// Waits for the first output before it answers, so that a job which fails at once has the status
/// of a failure.
async fn streamed(app: App, asked: Asked, ticket: Ticket) -> Result<Response, ApiError> {
    let id = ticket.id;
    let source = match &ticket.news {
        News::Live(_) => Source::Live(ticket),
        News::Ended(job) => {
            let end = JobEnd::of(job).unwrap_or(JobEnd::Unrecorded);
            let output = app.gateway.ledger().content(id, JobPart::Output).await?;
            Source::Ended(output, Box::new(end))
        }
    };
    let mut stream = Stream {
        asked,
        id,
        created: now_unix_ms() / 1000,
        source,
        lines: Lines::default(),
        calls: Calls::of(&id),
        offsets: Offsets::default(),
        finish: None,
        ready: VecDeque::new(),
        over: false,
    };
    let delta = match stream.asked.shape {
        Shape::Chat => json!({"role": "assistant", "content": "", "refusal": null}),
        _ => Value::Null,
    };
    if !delta.is_null() {
        let chunk = stream.chunk(&delta, &Value::Null, None, None);
        stream.ready.push_back(chunk);
    }
    let first = stream.ready.len();
    while stream.ready.len() == first && !stream.over {
        stream.step().await?;
    }
    let events = futures_util::stream::unfold(stream, |mut stream| async move {
        let event = stream.next_event().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    Ok(Sse::new(events).keep_alive(keep_alive()).into_response())
}

impl Stream {
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.step().await {
                // OpenAI's clients take this for what it is, wherever in a stream it comes.
                self.over = true;
                return Some(Event::default().data(error.to_json().to_string()));
            }
        }
    }

    /// Hears one thing of the job, and makes chunks of it.
    async fn step(&mut self) -> Result<(), ApiError> {
        match self.source.next().await {
            Some(JobEvent::Output(bytes)) => {
                for line in self.lines.add(&bytes).map_err(|e| bad_output(&e))? {
                    self.hear(line)?;
                }
                Ok(())
            }
            Some(JobEvent::Ended(end)) => self.end(&end),
            Some(JobEvent::Started | JobEvent::Progress(_)) => Ok(()),
            None => self.end(&JobEnd::Unrecorded),
        }
    }

    fn hear(&mut self, line: Line) -> Result<(), ApiError> {
        let chunk = match line {
            Line::Text(text, tokens) => {
                let logprobs = logprobs_of(&self.asked, &tokens, &mut self.offsets);
                let delta = match self.asked.shape {
                    Shape::Chat => json!({"content": text}),
                    _ => json!(text),
                };
                self.chunk(&delta, &logprobs, None, None)
            }
            Line::Call(piece) if self.asked.shape == Shape::Chat => {
                let call = self.calls.add(&piece).map_err(bad_output)?;
                let delta = json!({"tool_calls": [call]});
                self.chunk(&delta, &Value::Null, None, None)
            }
            Line::Call(_) => return Err(bad_output("it calls a function in a completion")),
            Line::Finish(finish) => {
                self.finish = Some(finish);
                return Ok(());
            }
            Line::Embedding(_) => return Err(bad_output("it has vectors among its text")),
        };
        self.ready.push_back(chunk);
        Ok(())
    }

    /// The last chunks: why it ended and by which receipt, what it took, and the mark of the end.
    fn end(&mut self, end: &JobEnd) -> Result<(), ApiError> {
        let receipt = answered(end)?;
        let finish = self.finish.take();
        let finish = finish.ok_or_else(|| bad_output("it has no last line"))?;
        let delta = match self.asked.shape {
            Shape::Chat => json!({}),
            _ => json!(""),
        };
        let last = self.chunk(&delta, &Value::Null, Some(&finish.reason), Some(&receipt));
        self.ready.push_back(last);
        if self.asked.include_usage {
            let mut chunk = self.frame(&json!([]), Some(&receipt));
            chunk["usage"] = usage(&finish);
            self.ready
                .push_back(Event::default().data(chunk.to_string()));
        }
        self.ready.push_back(Event::default().data("[DONE]"));
        self.over = true;
        Ok(())
    }

    fn chunk(
        &self,
        delta: &Value,
        logprobs: &Value,
        finish: Option<&str>,
        receipt: Option<&Digest>,
    ) -> Event {
        let key = match self.asked.shape {
            Shape::Chat => "delta",
            _ => "text",
        };
        let choice = json!([{
            "index": 0, key: delta, "logprobs": logprobs, "finish_reason": finish,
        }]);
        Event::default().data(self.frame(&choice, receipt).to_string())
    }

    fn frame(&self, choices: &Value, receipt: Option<&Digest>) -> Value {
        let object = match self.asked.shape {
            Shape::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        let mut frame = json!({
            "id": answer_id(self.asked.shape, &self.id),
            "object": object,
            "created": self.created,
            "model": self.asked.model,
            "choices": choices,
            "tussah": ours(&self.id, receipt),
        });
        if self.asked.include_usage {
            frame["usage"] = Value::Null;
        }
        frame
    }
}
