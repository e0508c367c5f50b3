//! `/v1/chat/completions` and `/v1/completions`: messages or a prompt in, text out, at once or as
//! it comes.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tussah_manifest::Digest;

use super::lines::{Finish, Line, Lines};
use super::{answered, bad_output, deployed, ours, refuse, run};
use crate::gateway::{JobEnd, JobEvent, Listener, News, Ticket, now_unix_ms};
use crate::http::body::{self, Fields, missing, wrong};
use crate::http::error::{ApiError, json_response};
use crate::http::jobs::{RECEIPT_HEADER, keep_alive, receipt_header};
use crate::http::ordered::Ordered;
use crate::http::{App, auth};
use crate::ledger::Shape;

/// Messages of one request.
const MESSAGES_MAX: usize = 4096;
/// Texts at which an answer stops, as OpenAI has it.
const STOPS_MAX: usize = 4;

/// What is asked for besides the job's input.
struct Asked {
    shape: Shape,
    model: String,
    input: Map<String, Value>,
    seed: Option<u64>,
    stream: bool,
    include_usage: bool,
}

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
    let bytes = body::json_bytes(&app, &headers, body).await?;
    let asked = asked(body::object(&bytes)?, shape)?;
    let deployed = deployed(&app, &asked.model, shape)?;
    let input = job_input(&asked.input, &bytes);
    drop(bytes);
    let ticket = run(&app, account, deployed, input, asked.seed).await?;
    let id = ticket.id;
    let mut response = match asked.stream {
        true => streamed(app, asked, ticket).await?,
        false => at_once(&app, &asked, ticket).await?,
    };
    let header = receipt_header(&id);
    response.headers_mut().insert(RECEIPT_HEADER, header);
    Ok(response)
}

fn asked(mut fields: Fields, shape: Shape) -> Result<Asked, ApiError> {
    let model = fields.needed_text("model")?;
    let mut input = Map::new();
    match shape {
        Shape::Chat => {
            input.insert("messages".to_owned(), messages(&mut fields)?);
        }
        _ => {
            let prompt = match fields.take("prompt").ok_or_else(|| missing("prompt"))? {
                Value::String(prompt) => prompt,
                _ => return Err(wrong("prompt", "a string")),
            };
            input.insert("prompt".to_owned(), Value::String(prompt));
        }
    }
    let newer = fields.whole("max_completion_tokens")?;
    let max_tokens = fields.whole("max_tokens")?.or(newer);
    if max_tokens == Some(0) {
        return Err(wrong("max_tokens", "at least 1"));
    }
    let seed = fields.whole("seed")?;
    let optional = [
        ("max_tokens", max_tokens.map(Value::from)),
        ("seed", seed.map(Value::from)),
        (
            "temperature",
            fields.number("temperature", 0.0, 2.0)?.map(Value::from),
        ),
        ("top_p", fields.number("top_p", 0.0, 1.0)?.map(Value::from)),
        ("stop", stops(&mut fields)?),
        ("response_format", response_format(&mut fields)?),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            input.insert(name.to_owned(), value);
        }
    }
    let stream = fields.boolean("stream")?.unwrap_or_default();
    let include_usage = match fields.take("stream_options") {
        None => false,
        Some(_) if !stream => {
            let message = "`stream_options` is for `stream: true` only";
            return Err(ApiError::bad("invalid_value", message).param("stream_options"));
        }
        Some(options) => {
            let mut options = Fields::within(options, "stream_options")?;
            let usage = options.boolean("include_usage")?.unwrap_or_default();
            options.boolean("include_obfuscation")?;
            options.finish()?;
            usage
        }
    };
    refuse_others(&mut fields)?;
    fields.finish()?;
    Ok(Asked {
        shape,
        model,
        input,
        seed,
        stream,
        include_usage,
    })
}

/// The job's input as text. The schema in it is as the client wrote it: the order of its properties
/// is the order of the answer, and a map would have lost it.
fn job_input(input: &Map<String, Value>, body: &[u8]) -> Vec<u8> {
    let path = ["response_format", "json_schema", "schema"];
    let body: Option<Ordered> = serde_json::from_slice(body).ok();
    let schema = (body.as_ref())
        .and_then(|body| path.iter().try_fold(body, |value, name| value.get(name)))
        .and_then(|schema| serde_json::to_string(schema).ok());
    match schema {
        Some(schema) if input.contains_key("response_format") => {
            let mut rest = input.clone();
            rest.remove("response_format");
            let mut text = Value::Object(rest).to_string();
            // Messages or a prompt are always there: what follows them follows a comma.
            text.pop();
            text.push_str(",\"response_format\":{\"type\":\"json_schema\",\"schema\":");
            text.push_str(&schema);
            text.push_str("}}");
            text.into_bytes()
        }
        _ => Value::Object(input.clone()).to_string().into_bytes(),
    }
}

/// What OpenAI has and this does not.
fn refuse_others(fields: &mut Fields) -> Result<(), ApiError> {
    // They change no answer.
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        fields.text(name)?;
    }
    fields.take("metadata");
    let (no, zero, none) = (json!(false), json!(0), json!("none"));
    let (one, empty, object) = (json!(1), json!([]), json!({}));
    let (zero_float, auto, default) = (json!(0.0), json!("auto"), json!("default"));
    for (name, nothing) in [
        ("n", vec![one.clone()]),
        ("best_of", vec![one]),
        ("store", vec![no.clone()]),
        ("echo", vec![no.clone()]),
        ("logprobs", vec![no]),
        ("top_logprobs", vec![zero.clone()]),
        ("frequency_penalty", vec![zero.clone(), zero_float.clone()]),
        ("presence_penalty", vec![zero, zero_float]),
        ("logit_bias", vec![object]),
        ("tools", vec![empty.clone()]),
        ("functions", vec![empty]),
        ("tool_choice", vec![none.clone()]),
        ("function_call", vec![none]),
        ("parallel_tool_calls", vec![]),
        ("modalities", vec![json!(["text"])]),
        ("service_tier", vec![auto, default]),
        ("suffix", vec![json!("")]),
        ("audio", vec![]),
        ("prediction", vec![]),
        ("reasoning_effort", vec![]),
        ("verbosity", vec![]),
        ("web_search_options", vec![]),
    ] {
        refuse(fields, name, &nothing)?;
    }
    Ok(())
}

fn messages(fields: &mut Fields) -> Result<Value, ApiError> {
    let messages = match fields.take("messages").ok_or_else(|| missing("messages"))? {
        Value::Array(messages) if (1..=MESSAGES_MAX).contains(&messages.len()) => messages,
        _ => return Err(wrong("messages", "a list of 1 to 4096 messages")),
    };
    let messages = messages.into_iter().enumerate().map(|(index, message)| {
        let path = format!("messages[{index}]");
        let mut fields = Fields::within(message, &path)?;
        let role = fields.needed_text("role")?;
        if !["system", "developer", "user", "assistant"].contains(&role.as_str()) {
            let expected = "`system`, `developer`, `user` or `assistant`";
            return Err(wrong(&format!("{path}.role"), expected));
        }
        // A later name of the same thing, which models' templates do not know.
        let role = if role == "developer" {
            "system".to_owned()
        } else {
            role
        };
        let content = content(&mut fields, &path)?;
        for name in [
            "refusal",
            "annotations",
            "audio",
            "function_call",
            "tool_calls",
        ] {
            if fields.take(name).is_some_and(|value| value != json!([])) {
                let name = format!("{path}.{name}");
                let message = format!("`{name}` is not supported by this provider");
                return Err(ApiError::bad("unsupported_parameter", message).param(name));
            }
        }
        fields.text("name")?;
        fields.finish()?;
        Ok(json!({"role": role, "content": content}))
    });
    Ok(Value::Array(messages.collect::<Result<_, _>>()?))
}

/// A text, or a list of parts that are all text.
fn content(fields: &mut Fields, path: &str) -> Result<String, ApiError> {
    let path = format!("{path}.content");
    match fields.take("content").ok_or_else(|| missing(&path))? {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let mut all = String::new();
            for (index, part) in parts.into_iter().enumerate() {
                let path = format!("{path}[{index}]");
                let mut part = Fields::within(part, &path)?;
                let kind = part.needed_text("type")?;
                if kind != "text" {
                    let name = format!("{path}.type");
                    let message = "this provider takes text only";
                    return Err(ApiError::bad("unsupported_parameter", message).param(name));
                }
                all.push_str(&part.needed_text("text")?);
                part.finish()?;
            }
            Ok(all)
        }
        _ => Err(wrong(&path, "a string or a list of text parts")),
    }
}

fn stops(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let expected = "a string or a list of 1 to 4 strings, none of them empty";
    let good = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match fields.take("stop") {
        None => Ok(None),
        Some(text) if good(&text) => Ok(Some(Value::Array(vec![text]))),
        Some(Value::Array(texts))
            if (1..=STOPS_MAX).contains(&texts.len()) && texts.iter().all(good) =>
        {
            Ok(Some(Value::Array(texts)))
        }
        Some(_) => Err(wrong("stop", expected)),
    }
}

/// OpenAI's `response_format` as jobs get it: the schema beside the type.
fn response_format(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(format) = fields.take("response_format") else {
        return Ok(None);
    };
    let mut format = Fields::within(format, "response_format")?;
    let kind = format.needed_text("type")?;
    let job = match kind.as_str() {
        "text" => None,
        "json_object" => Some(json!({"type": "json_object"})),
        "json_schema" => {
            let path = "response_format.json_schema";
            let schema = format.take("json_schema").ok_or_else(|| missing(path))?;
            let mut named = Fields::within(schema, path)?;
            named.text("name")?;
            named.text("description")?;
            named.boolean("strict")?;
            let path = format!("{path}.schema");
            let schema = named.take("schema").ok_or_else(|| missing(&path))?;
            if !schema.is_object() {
                return Err(wrong(&path, "an object"));
            }
            named.finish()?;
            Some(json!({"type": "json_schema", "schema": schema}))
        }
        _ => {
            let expected = "`text`, `json_object` or `json_schema`";
            return Err(wrong("response_format.type", expected));
        }
    };
    format.finish()?;
    Ok(job)
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
            let record = app.gateway.ledger().job_with_content(id)?;
            return Ok((record.map(|record| record.output).unwrap_or_default(), end));
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
    for line in Lines::default().add(&output).map_err(|e| bad_output(&e))? {
        match line {
            Line::Text(piece) => text.push_str(&piece),
            Line::Finish(last) => finish = Some(last),
            Line::Embedding(_) => return Err(bad_output("it has vectors among its text")),
        }
    }
    let finish = finish.ok_or_else(|| bad_output("it has no last line"))?;
    let choice = match asked.shape {
        Shape::Chat => json!({
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null,
            "finish_reason": finish.reason,
        }),
        _ => json!({
            "index": 0, "text": text, "logprobs": null, "finish_reason": finish.reason,
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
            let record = app.gateway.ledger().job_with_content(&id)?;
            Source::Ended(record.map(|record| record.output), Box::new(end))
        }
    };
    let mut stream = Stream {
        asked,
        id,
        created: now_unix_ms() / 1000,
        source,
        lines: Lines::default(),
        finish: None,
        ready: VecDeque::new(),
        over: false,
    };
    let delta = match stream.asked.shape {
        Shape::Chat => json!({"role": "assistant", "content": "", "refusal": null}),
        _ => Value::Null,
    };
    if !delta.is_null() {
        let chunk = stream.chunk(&delta, None, None);
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
                    match line {
                        Line::Text(text) => {
                            let chunk = self.text_chunk(&text);
                            self.ready.push_back(chunk);
                        }
                        Line::Finish(finish) => self.finish = Some(finish),
                        Line::Embedding(_) => {
                            return Err(bad_output("it has vectors among its text"));
                        }
                    }
                }
                Ok(())
            }
            Some(JobEvent::Ended(end)) => self.end(&end),
            Some(JobEvent::Started | JobEvent::Progress(_)) => Ok(()),
            None => self.end(&JobEnd::Unrecorded),
        }
    }

    /// The last chunks: why it ended and by which receipt, what it took, and the mark of the end.
    fn end(&mut self, end: &JobEnd) -> Result<(), ApiError> {
        let receipt = answered(end)?;
        let finish = self.finish.take();
        let finish = finish.ok_or_else(|| bad_output("it has no last line"))?;
        let last = match self.asked.shape {
            Shape::Chat => self.chunk(&json!({}), Some(&finish.reason), Some(&receipt)),
            _ => self.chunk(&json!(""), Some(&finish.reason), Some(&receipt)),
        };
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

    fn text_chunk(&self, text: &str) -> Event {
        match self.asked.shape {
            Shape::Chat => self.chunk(&json!({"content": text}), None, None),
            _ => self.chunk(&json!(text), None, None),
        }
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>, receipt: Option<&Digest>) -> Event {
        let key = match self.asked.shape {
            Shape::Chat => "delta",
            _ => "text",
        };
        let choice = json!([{
            "index": 0, key: delta, "logprobs": null, "finish_reason": finish,
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
