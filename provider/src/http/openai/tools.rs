//! Functions that a chat's model may call, and calls of them.
//!
//! In: OpenAI's `tools`, `tool_choice` and messages about calls; pieces of calls out of a job's
//! lines. Out: a job's input by docs/openai-jobs.md; `tool_calls` of messages and of chunks.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tussah_manifest::Digest;

use super::lines::CallPiece;
use crate::http::body::{Fields, missing, wrong};
use crate::http::error::ApiError;
use crate::http::ordered::Ordered;

/// Functions of a request, and letters of a name, as OpenAI has it.
const TOOLS_MAX: usize = 128;
const NAME_MAX: usize = 64;
/// Calls of one message, and of one answer.
const CALLS_MAX: usize = 128;

/// Takes `tools` and `tool_choice` into a job's input.
pub(super) fn asked(fields: &mut Fields, input: &mut Map<String, Value>) -> Result<(), ApiError> {
    // A job that calls several functions at once is free to; ours calls one.
    fields.boolean("parallel_tool_calls")?;
    let tools = match fields.take("tools") {
        None => Vec::new(),
        Some(Value::Array(tools)) if tools.len() <= TOOLS_MAX => tools,
        Some(_) => return Err(wrong("tools", "a list of at most 128 functions")),
    };
    let tools = tools.into_iter().enumerate().map(|(index, tool)| {
        let path = format!("tools[{index}]");
        let mut tool = Fields::within(tool, &path)?;
        only_functions(&mut tool, &path)?;
        let function = tool.take("function");
        let path = format!("{path}.function");
        tool.finish()?;
        self::tool(function.ok_or_else(|| missing(&path))?, &path)
    });
    let tools: Vec<Value> = tools.collect::<Result<_, ApiError>>()?;
    let choice = choice(fields)?;
    if tools.is_empty() {
        return match choice {
            None => Ok(()),
            Some(choice) if choice == "none" => Ok(()),
            Some(_) => {
                let message = "`tool_choice` needs `tools`";
                Err(ApiError::bad("invalid_value", message).param("tool_choice"))
            }
        };
    }
    input.insert("tools".to_owned(), Value::Array(tools));
    if let Some(choice) = choice {
        input.insert("tool_choice".to_owned(), choice);
    }
    Ok(())
}

fn only_functions(fields: &mut Fields, path: &str) -> Result<(), ApiError> {
    if fields.needed_text("type")? == "function" {
        return Ok(());
    }
    let name = format!("{path}.type");
    let message = "this provider knows tools of the type `function` alone";
    Err(ApiError::bad("unsupported_parameter", message).param(name))
}

fn tool(function: Value, path: &str) -> Result<Value, ApiError> {
    let mut fields = Fields::within(function, path)?;
    let mut tool = json!({"name": name(&mut fields, path)?});
    if let Some(description) = fields.text("description")? {
        tool["description"] = description.into();
    }
    fields.boolean("strict")?;
    match fields.take("parameters") {
        None => {}
        Some(schema) if schema.is_object() => tool["parameters"] = schema,
        Some(_) => return Err(wrong(&format!("{path}.parameters"), "an object")),
    }
    fields.finish()?;
    Ok(tool)
}

fn name(fields: &mut Fields, path: &str) -> Result<String, ApiError> {
    let name = fields.needed_text("name")?;
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if (1..=NAME_MAX).contains(&name.len()) && name.chars().all(letter) {
        return Ok(name);
    }
    let expected = "1 to 64 letters, digits, `_` or `-`";
    Err(wrong(&format!("{path}.name"), expected))
}

fn choice(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    const PATH: &str = "tool_choice";
    match fields.take(PATH) {
        None => Ok(None),
        Some(Value::String(word)) if ["none", "auto", "required"].contains(&word.as_str()) => {
            Ok(Some(Value::String(word)))
        }
        Some(named @ Value::Object(_)) => {
            let mut named = Fields::within(named, PATH)?;
            only_functions(&mut named, PATH)?;
            let path = format!("{PATH}.function");
            let function = named.take("function").ok_or_else(|| missing(&path))?;
            named.finish()?;
            let mut function = Fields::within(function, &path)?;
            let name = name(&mut function, &path)?;
            function.finish()?;
            Ok(Some(json!({"function": name})))
        }
        Some(_) => {
            let expected = "`none`, `auto`, `required` or a function";
            Err(wrong(PATH, expected))
        }
    }
}

/// The tools of a job's input as text, their schemas as the client wrote them.
pub(super) fn as_written(tools: &Value, body: &Ordered) -> String {
    let tools = tools.as_array().into_iter().flatten().enumerate();
    let texts = tools.map(|(index, tool)| {
        let written = body.get("tools").and_then(|tools| tools.at(index));
        let written = written.and_then(|tool| tool.get("function")?.get("parameters"));
        let written = written.and_then(|schema| serde_json::to_string(schema).ok());
        let mut rest = tool.clone();
        let given = (rest.as_object_mut()).and_then(|fields| fields.remove("parameters"));
        match (given, written) {
            (Some(_), Some(schema)) => {
                let mut text = rest.to_string();
                // A name is always there: what follows it follows a comma.
                text.pop();
                text.push_str(&format!(",\"parameters\":{schema}}}"));
                text
            }
            _ => tool.to_string(),
        }
    });
    format!("[{}]", texts.collect::<Vec<_>>().join(","))
}

/// The calls that were made before a message.
#[derive(Debug, Default)]
pub(super) struct Ids(BTreeSet<String>);

/// The calls of an assistant's message; none where it made none.
pub(super) fn calls(
    fields: &mut Fields,
    path: &str,
    ids: &mut Ids,
) -> Result<Option<Value>, ApiError> {
    let path = format!("{path}.tool_calls");
    let calls = match fields.take("tool_calls") {
        None => return Ok(None),
        Some(Value::Array(calls)) if calls.len() <= CALLS_MAX => calls,
        Some(_) => return Err(wrong(&path, "a list of at most 128 calls")),
    };
    if calls.is_empty() {
        return Ok(None);
    }
    let calls = calls.into_iter().enumerate().map(|(index, call)| {
        let path = format!("{path}[{index}]");
        let mut call = Fields::within(call, &path)?;
        only_functions(&mut call, &path)?;
        let id = call.needed_text("id")?;
        let function = call.take("function");
        call.finish()?;
        let path = format!("{path}.function");
        let mut function = Fields::within(function.ok_or_else(|| missing(&path))?, &path)?;
        let name = name(&mut function, &path)?;
        let arguments = function.needed_text("arguments")?;
        function.finish()?;
        ids.0.insert(id.clone());
        Ok(json!({"id": id, "name": name, "arguments": arguments}))
    });
    Ok(Some(Value::Array(calls.collect::<Result<_, ApiError>>()?)))
}

/// Which call a `tool` message answers.
pub(super) fn result_of(fields: &mut Fields, path: &str, ids: &Ids) -> Result<String, ApiError> {
    let id = fields.needed_text("tool_call_id")?;
    if ids.0.contains(&id) {
        return Ok(id);
    }
    let expected = "the id of a call in an earlier message's `tool_calls`";
    Err(wrong(&format!("{path}.tool_call_id"), expected))
}

/// The calls of an answer, as they come.
#[derive(Debug)]
pub(super) struct Calls {
    /// What the calls' ids are made of.
    job: String,
    calls: Vec<(String, String)>,
}

impl Calls {
    pub(super) fn of(job: &Digest) -> Self {
        Self {
            job: job.to_hex(),
            calls: Vec::new(),
        }
    }

    fn id(&self, index: usize) -> String {
        format!("call_{}{index:02x}", &self.job[..22])
    }

    /// Takes the next piece; what a chunk says of it, or what is wrong with it.
    pub(super) fn add(&mut self, piece: &CallPiece) -> Result<Value, &'static str> {
        match piece {
            CallPiece::Name(_) if self.calls.len() == CALLS_MAX => Err("it has too many calls"),
            CallPiece::Name(name) => {
                let index = self.calls.len();
                self.calls.push((name.clone(), String::new()));
                Ok(json!({
                    "index": index,
                    "id": self.id(index),
                    "type": "function",
                    "function": {"name": name, "arguments": ""},
                }))
            }
            CallPiece::Arguments(piece) => {
                let index = self.calls.len().saturating_sub(1);
                let call = self.calls.last_mut();
                let (_, arguments) = call.ok_or("it has arguments without a call")?;
                arguments.push_str(piece);
                Ok(json!({"index": index, "function": {"arguments": piece}}))
            }
        }
    }

    /// All of them, as a message has them; none where there are none.
    pub(super) fn all(&self) -> Option<Value> {
        let calls = self
            .calls
            .iter()
            .enumerate()
            .map(|(index, (name, arguments))| {
                json!({
                    "id": self.id(index),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                })
            });
        (!self.calls.is_empty()).then(|| Value::Array(calls.collect()))
    }
}
