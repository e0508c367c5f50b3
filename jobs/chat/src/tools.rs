//! Functions that the model may call, in words that every chat template takes.
//!
//! In: functions with the schemas of their arguments, calls made before and what they gave. Out:
//! a text for the system's message, and calls and results as texts of messages. A call is
//! `<tool_call>`, a line of JSON, `</tool_call>`, as the models know it that were trained to call;
//! the job needs nothing of the template, and a model that never heard of it is told here.

use std::collections::BTreeSet;

use serde::Deserialize;
use tussah_sdk::{Error, json_schema::Schema};

use crate::request::refuse;

/// Functions of a request, as in OpenAI's API.
const TOOLS_MAX: usize = 128;
/// Letters of a name, as in OpenAI's API.
const NAME_MAX: usize = 64;
/// Bytes of a description.
const DESCRIPTION_MAX: usize = 4096;

/// Where a call begins, and the model is left no choice but to finish it.
pub(crate) const CALL: &str = "<tool_call>";

/// A function as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a function with `name`")]
pub(crate) struct Tool {
    pub(crate) name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    parameters: Option<Schema>,
}

/// Which functions may or must be called.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    None,
    Auto,
    Required,
    /// This one has to be.
    Function(String),
}

/// A call that was made before.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a call with `id`, `name` and `arguments`"
)]
pub(crate) struct Call {
    pub(crate) id: String,
    name: String,
    /// As JSON text.
    arguments: String,
}

/// The functions of a request, checked.
#[derive(Debug)]
pub(crate) struct Tools {
    tools: Vec<(Tool, Schema)>,
    pub(crate) choice: Choice,
}

impl Tools {
    /// `None` where there are none, or none may be called.
    pub(crate) fn read(tools: Vec<Tool>, choice: Option<Choice>) -> Result<Option<Self>, Error> {
        if tools.is_empty() {
            return match choice {
                None | Some(Choice::None) => Ok(None),
                Some(_) => refuse("tool_choice", "there are no `tools` to call"),
            };
        }
        if tools.len() > TOOLS_MAX {
            let count = tools.len();
            let problem = format!("{count} functions, at most {TOOLS_MAX} can be");
            return refuse("tools", problem);
        }
        let mut names = BTreeSet::new();
        let mut checked = Vec::new();
        for (at, tool) in tools.into_iter().enumerate() {
            if !names.insert(tool.name.clone()) {
                let problem = format!("a function `{}` is there before", tool.name);
                return refuse(&format!("tools[{at}].name"), problem);
            }
            checked.push(check(at, tool)?);
        }
        if let Some(Choice::Function(name)) = &choice
            && !names.contains(name)
        {
            let problem = format!("`tools` has no function `{name}`");
            return refuse("tool_choice.function", problem);
        }
        let choice = choice.unwrap_or(Choice::Auto);
        let tools = Self {
            tools: checked,
            choice,
        };
        Ok(Some(tools).filter(|tools| tools.choice != Choice::None))
    }

    /// What the model is told.
    pub(crate) fn words(&self) -> String {
        let mut words =
            "You can call functions. These are all of them, with JSON Schemas of their \
                         arguments:\n<tools>\n"
                .to_owned();
        for (tool, schema) in &self.tools {
            let description = tool.description.as_deref().unwrap_or_default();
            words.push_str(&format!(
                "{{\"name\": {}, \"description\": {}, \"parameters\": {}}}\n",
                quoted(&tool.name),
                quoted(description),
                schema.text()
            ));
        }
        words.push_str(
            "</tools>\nTo call one, answer with this and nothing else:\n<tool_call>\n\
             {\"name\": NAME, \"arguments\": {...}}\n</tool_call>",
        );
        words
    }

    /// JSON of one of the names.
    pub(crate) fn names(&self) -> Result<Schema, Error> {
        let names = self.tools.iter().map(|(tool, _)| quoted(&tool.name));
        let names: Vec<String> = names.collect();
        Ok(Schema::parse(format!(
            "{{\"enum\": [{}]}}",
            names.join(",")
        ))?)
    }

    /// The arguments of a function; every name in `tools` has them.
    pub(crate) fn arguments(&self, name: &str) -> Result<&Schema, Error> {
        match self.tools.iter().find(|(tool, _)| tool.name == name) {
            Some((_, schema)) => Ok(schema),
            None => refuse("tools", format!("no function `{name}`")),
        }
    }
}

fn check(at: usize, mut tool: Tool) -> Result<(Tool, Schema), Error> {
    let letters = |name: &str| {
        let good = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        (1..=NAME_MAX).contains(&name.len()) && name.chars().all(good)
    };
    if !letters(&tool.name) {
        let problem = format!("is not 1 to {NAME_MAX} letters, digits, `_` or `-`");
        return refuse(&format!("tools[{at}].name"), problem);
    }
    let bytes = tool.description.as_ref().map_or(0, String::len);
    if bytes > DESCRIPTION_MAX {
        let problem = format!("{bytes} bytes, at most {DESCRIPTION_MAX} can be");
        return refuse(&format!("tools[{at}].description"), problem);
    }
    // Without a schema, or with one that says nothing, it takes no arguments.
    let given = tool.parameters.take().filter(|it| it.text() != "{}");
    let schema = match given {
        Some(schema) => schema,
        None => {
            Schema::parse(r#"{"type": "object", "properties": {}, "additionalProperties": false}"#)?
        }
    };
    let matcher = schema.matcher();
    let else_than_object = |first: &u8| *first != b'{' && matcher.allows(&[*first]);
    if !matcher.allows(b"{") || (0x20..0x7f).any(|first| else_than_object(&first)) {
        let problem = "is not a schema of `\"type\": \"object\"`";
        return refuse(&format!("tools[{at}].parameters"), problem);
    }
    Ok((tool, schema))
}

/// Calls made before, as the model would have written them.
pub(crate) fn calls(said: &str, calls: &[Call]) -> String {
    let mut text = said.to_owned();
    for call in calls {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!(
            "{CALL}\n{{\"name\": {}, \"arguments\": {}}}\n</tool_call>",
            quoted(&call.name),
            call.arguments
        ));
    }
    text
}

/// What a call gave, as a message tells it.
pub(crate) fn result(content: &str) -> String {
    format!("<tool_response>\n{content}\n</tool_response>")
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}
