//! The input: a chat or a completion, checked.
//!
//! In: bytes of a client. Out: a request whose every number is in its range, or an error with
//! code 1 whose message begins with the field in back quotes. No field is ignored.

use std::collections::BTreeSet;

use serde::Deserialize;
use tussah_sdk::{Error, ErrorCode, Message, ResultExt, from_json, json_schema::Schema};

use crate::tools::{self, Call, Choice, Tool, Tools};

/// Messages of a conversation. Each has a few tokens of the template at least, so that more
/// would not fit the context anyway.
const MESSAGES_MAX: usize = 2048;
/// Texts to stop at, as in OpenAI's API.
const STOPS_MAX: usize = 4;
/// Bytes of each.
const STOP_BYTES_MAX: usize = 1024;
/// As in OpenAI's API.
const TEMPERATURE_MAX: f32 = 2.0;
/// Other tokens told of beside each of the answer, as in OpenAI's API.
const LOGPROBS_MAX: usize = 20;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) prompt: Prompt,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    /// What the answer has to be, where it is not any text.
    pub(crate) schema: Option<Schema>,
    /// How many tokens to tell of at each position, where probabilities are asked for.
    pub(crate) logprobs: Option<usize>,
    /// The functions that may be called.
    pub(crate) tools: Option<Tools>,
}

/// What the model goes on with.
#[derive(Debug)]
pub(crate) enum Prompt {
    Chat(Vec<Message>),
    Text(String),
}

impl Prompt {
    /// The field that it comes from.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Chat(_) => "messages",
            Self::Text(_) => "prompt",
        }
    }
}

/// The input as it is written.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `messages` or `prompt`"
)]
struct Written {
    messages: Option<Vec<Turn>>,
    prompt: Option<String>,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Option<Vec<String>>,
    response_format: Option<Format>,
    logprobs: Option<usize>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Choice>,
}

/// One message of a conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a message with `role` and `content`")]
struct Turn {
    role: Role,
    content: Option<String>,
    tool_calls: Option<Vec<Call>>,
    tool_call_id: Option<String>,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    System,
    /// What OpenAI calls `system` of late.
    Developer,
    User,
    Assistant,
    /// What a function gave that the assistant called.
    Tool,
}

/// What the answer shall be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `type`")]
struct Format {
    #[serde(rename = "type")]
    kind: Kind,
    schema: Option<Schema>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Text,
    JsonObject,
    JsonSchema,
}

impl Request {
    /// Reads and checks the input.
    ///
    /// # Errors
    /// Code 1, with the field in the message.
    pub(crate) fn read(input: &[u8]) -> Result<Self, Error> {
        let written: Written = from_json(input).code(1)?;
        let tools = Tools::read(written.tools.unwrap_or_default(), written.tool_choice)?;
        let prompt = prompt(written.messages, written.prompt, tools.as_ref())?;
        if written.max_tokens == Some(0) {
            return refuse("max_tokens", "is 0, give 1 or more");
        }
        for (field, value, most) in [
            ("temperature", written.temperature, TEMPERATURE_MAX),
            ("top_p", written.top_p, 1.0),
        ] {
            if let Some(value) = value.filter(|value| !(0.0..=most).contains(value)) {
                return refuse(field, format!("is {value}, 0 to {most} can be"));
            }
        }
        let stop = written.stop.unwrap_or_default();
        check_stops(&stop)?;
        let schema = schema(written.response_format)?;
        if schema.is_some() && !stop.is_empty() {
            return refuse(
                "stop",
                "a text to stop at would break the JSON that `response_format` asks for",
            );
        }
        if let Some(count) = written.logprobs.filter(|count| *count > LOGPROBS_MAX) {
            return refuse(
                "logprobs",
                format!("is {count}, 0 to {LOGPROBS_MAX} can be"),
            );
        }
        if schema.is_some() && written.logprobs.is_some() {
            return refuse("logprobs", "cannot stand beside a JSON `response_format`");
        }
        if schema.is_some() && tools.is_some() {
            return refuse("tools", "cannot stand beside a JSON `response_format`");
        }
        Ok(Self {
            prompt,
            max_tokens: written.max_tokens,
            temperature: written.temperature,
            top_p: written.top_p,
            seed: written.seed.unwrap_or(0),
            stop,
            schema,
            logprobs: written.logprobs,
            tools,
        })
    }
}

fn prompt(
    messages: Option<Vec<Turn>>,
    prompt: Option<String>,
    tools: Option<&Tools>,
) -> Result<Prompt, Error> {
    match (messages, prompt) {
        (Some(_), Some(_)) => refuse("prompt", "give either `messages` or `prompt`"),
        (None, None) => refuse("messages", "is missing: give `messages` or `prompt`"),
        (None, Some(text)) if text.is_empty() => refuse("prompt", "is empty"),
        (None, Some(_)) if tools.is_some() => refuse("tools", "are for `messages` alone"),
        (None, Some(text)) => Ok(Prompt::Text(text)),
        (Some(turns), None) if turns.is_empty() => refuse("messages", "is empty"),
        (Some(turns), None) if turns.len() > MESSAGES_MAX => {
            let count = turns.len();
            refuse(
                "messages",
                format!("{count} messages, at most {MESSAGES_MAX} can be"),
            )
        }
        (Some(turns), None) => Ok(Prompt::Chat(conversation(turns, tools)?)),
    }
}

/// The messages that the model's template gets: of the system, the user and the assistant alone.
fn conversation(turns: Vec<Turn>, tools: Option<&Tools>) -> Result<Vec<Message>, Error> {
    let mut messages: Vec<Message> = Vec::new();
    let mut calls = BTreeSet::new();
    let mut results = false;
    for (at, turn) in turns.into_iter().enumerate() {
        let made = turn.tool_calls.unwrap_or_default();
        let field = |name: &str| format!("messages[{at}].{name}");
        if turn.role != Role::Assistant && !made.is_empty() {
            return refuse(&field("tool_calls"), "are of the assistant alone");
        }
        if turn.role != Role::Tool && turn.tool_call_id.is_some() {
            return refuse(&field("tool_call_id"), "is of the role `tool` alone");
        }
        let content = match turn.content {
            Some(content) => content,
            None if !made.is_empty() => String::new(),
            None => return refuse(&format!("messages[{at}]"), "missing field `content`"),
        };
        let after_result = std::mem::replace(&mut results, turn.role == Role::Tool);
        match turn.role {
            Role::System | Role::Developer => messages.push(Message::system(content)),
            Role::User => messages.push(Message::user(content)),
            Role::Assistant => {
                messages.push(Message::assistant(tools::calls(&content, &made)));
                calls.extend(made.into_iter().map(|call| call.id));
            }
            Role::Tool => {
                let of = turn.tool_call_id.filter(|id| calls.contains(id));
                if of.is_none() {
                    let problem = "names no call of an assistant's message before";
                    return refuse(&field("tool_call_id"), problem);
                }
                let text = tools::result(&content);
                match messages.last_mut().filter(|_| after_result) {
                    // Templates want the roles to take turns.
                    Some(before) => before.content = format!("{}\n{text}", before.content),
                    None => messages.push(Message::user(text)),
                }
            }
        }
    }
    if let Some(tools) = tools {
        let words = tools.words();
        match messages.first_mut().filter(|first| first.role == "system") {
            Some(first) => first.content = format!("{}\n\n{words}", first.content),
            None => messages.insert(0, Message::system(words)),
        }
    }
    Ok(messages)
}

fn check_stops(stops: &[String]) -> Result<(), Error> {
    if stops.len() > STOPS_MAX {
        let count = stops.len();
        return refuse("stop", format!("{count} texts, at most {STOPS_MAX} can be"));
    }
    for (at, stop) in stops.iter().enumerate() {
        if !(1..=STOP_BYTES_MAX).contains(&stop.len()) {
            let bytes = stop.len();
            return refuse(
                &format!("stop[{at}]"),
                format!("{bytes} bytes, 1 to {STOP_BYTES_MAX} can be"),
            );
        }
    }
    Ok(())
}

/// The schema that the answer has to satisfy; none for text.
fn schema(format: Option<Format>) -> Result<Option<Schema>, Error> {
    const FIELD: &str = "response_format.schema";
    let Some(format) = format else {
        return Ok(None);
    };
    match (format.kind, format.schema) {
        (Kind::Text, None) => Ok(None),
        (Kind::JsonObject, None) => Ok(Some(Schema::parse(r#"{"type": "object"}"#)?)),
        (Kind::JsonSchema, Some(schema)) => Ok(Some(schema)),
        (Kind::JsonSchema, None) => refuse(FIELD, "is missing, and the type is `json_schema`"),
        (Kind::Text | Kind::JsonObject, Some(_)) => {
            refuse(FIELD, "belongs to the type `json_schema` alone")
        }
    }
}

/// What the client has to change.
pub(crate) fn refuse<T>(field: &str, problem: impl AsRef<str>) -> Result<T, Error> {
    let message = format!("`{field}`: {}", problem.as_ref());
    Err(Error::with_code(ErrorCode::Job(1), message))
}
