//! What a chat or a completion asks for: OpenAI's fields in, a job's input out.
//!
//! In: the fields of a request. Out: the input by the convention of docs/openai-jobs.md and what
//! the answer shall look like; or a refusal that names the field.

use serde_json::{Map, Value, json};

use super::refuse;
use super::tools::{self, Ids};
use crate::http::body::{Fields, missing, wrong};
use crate::http::error::ApiError;
use crate::http::ordered::Ordered;
use crate::ledger::Shape;

/// Messages of one request.
const MESSAGES_MAX: usize = 4096;
/// Texts at which an answer stops, as OpenAI has it.
const STOPS_MAX: usize = 4;
/// Tokens told of beside each of a chat's answer, and of a completion's, as OpenAI has it.
const TOP_LOGPROBS_MAX: u64 = 20;
const LOGPROBS_MAX: u64 = 5;

/// What is asked for besides the job's input.
pub(super) struct Asked {
    pub(super) shape: Shape,
    pub(super) model: String,
    pub(super) input: Map<String, Value>,
    pub(super) seed: Option<u64>,
    pub(super) logprobs: bool,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

pub(super) fn asked(mut fields: Fields, shape: Shape) -> Result<Asked, ApiError> {
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
        ("logprobs", logprobs(&mut fields, shape)?.map(Value::from)),
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
    if shape == Shape::Chat {
        tools::asked(&mut fields, &mut input)?;
    }
    refuse_others(&mut fields)?;
    fields.finish()?;
    Ok(Asked {
        shape,
        model,
        logprobs: input.contains_key("logprobs"),
        input,
        seed,
        stream,
        include_usage,
    })
}

/// How many of the likeliest tokens are told of at each position; none where no logprobs are asked for.
fn logprobs(fields: &mut Fields, shape: Shape) -> Result<Option<u64>, ApiError> {
    if shape != Shape::Chat {
        return match fields.take("logprobs") {
            None | Some(Value::Bool(false)) => Ok(None),
            Some(value) => match value.as_u64().filter(|count| *count <= LOGPROBS_MAX) {
                Some(count) => Ok(Some(count)),
                None => Err(wrong("logprobs", "a whole number from 0 to 5")),
            },
        };
    }
    let wanted = fields.boolean("logprobs")?.unwrap_or_default();
    let top = fields.whole("top_logprobs")?;
    match top {
        Some(count) if count > TOP_LOGPROBS_MAX => {
            Err(wrong("top_logprobs", "a whole number from 0 to 20"))
        }
        Some(1..) if !wanted => {
            let message = "`top_logprobs` needs `logprobs: true`";
            Err(ApiError::bad("invalid_value", message).param("top_logprobs"))
        }
        _ => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

/// The job's input as text. The schemas in it are as the client wrote them: the order of their
/// properties is the order of the answer, and a map would have lost it.
pub(super) fn job_input(input: &Map<String, Value>, body: &[u8]) -> Vec<u8> {
    let body: Option<Ordered> = serde_json::from_slice(body).ok();
    let within = |path: &[&str]| {
        let body = body.as_ref()?;
        let found = path.iter().try_fold(body, |value, name| value.get(name))?;
        serde_json::to_string(found).ok()
    };
    let mut rest = input.clone();
    let path = ["response_format", "json_schema", "schema"];
    let format = (rest.remove("response_format")).map(|format| match within(&path) {
        Some(schema) if format.get("schema").is_some() => {
            format!("{{\"type\":\"json_schema\",\"schema\":{schema}}}")
        }
        _ => format.to_string(),
    });
    let tools = rest.remove("tools").map(|tools| match &body {
        Some(body) => tools::as_written(&tools, body),
        None => tools.to_string(),
    });
    let mut text = Value::Object(rest).to_string();
    for (name, value) in [("response_format", format), ("tools", tools)] {
        if let Some(value) = value {
            // Messages or a prompt are always there: what follows them follows a comma.
            text.pop();
            text.push_str(&format!(",\"{name}\":{value}}}"));
        }
    }
    text.into_bytes()
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
        ("echo", vec![no]),
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
    let mut ids = Ids::default();
    let messages = messages.into_iter().enumerate().map(|(index, message)| {
        let path = format!("messages[{index}]");
        self::message(message, &path, &mut ids)
    });
    Ok(Value::Array(messages.collect::<Result<_, _>>()?))
}

fn message(message: Value, path: &str, ids: &mut Ids) -> Result<Value, ApiError> {
    let mut fields = Fields::within(message, path)?;
    let role = fields.needed_text("role")?;
    // A later name of the same thing, which models' templates do not know.
    let role = match role.as_str() {
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        _ => {
            let expected = "`system`, `developer`, `user`, `assistant` or `tool`";
            return Err(wrong(&format!("{path}.role"), expected));
        }
    };
    let mut job = json!({"role": role});
    match role {
        "assistant" => {
            if let Some(calls) = tools::calls(&mut fields, path, ids)? {
                job["tool_calls"] = calls;
            }
        }
        "tool" => job["tool_call_id"] = Value::String(tools::result_of(&mut fields, path, ids)?),
        _ => {}
    }
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
    match content(&mut fields, path)? {
        Some(content) => job["content"] = Value::String(content),
        // Who calls a function need say nothing.
        None if job.get("tool_calls").is_some() => {}
        None => return Err(missing(&format!("{path}.content"))),
    }
    fields.text("name")?;
    fields.finish()?;
    Ok(job)
}

/// A text, or a list of parts that are all text.
fn content(fields: &mut Fields, path: &str) -> Result<Option<String>, ApiError> {
    let path = format!("{path}.content");
    match fields.take("content") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(parts)) => {
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
            Ok(Some(all))
        }
        Some(_) => Err(wrong(&path, "a string or a list of text parts")),
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
