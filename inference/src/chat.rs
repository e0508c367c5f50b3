//! Messages → prompt, by the model's own template.
//! In: a Jinja template out of an untrusted file, and messages. Out: the prompt's text.
//! It never runs longer than its fuel, nests deeper than its limit, prints more than its ceiling,
//! or tells a template the time.
//! One hole is known: minijinja 3.1.0 charges nothing for `list + list` until the sum is made, so a template
//! that doubles a list some thirty times takes memory beyond its fuel.

use std::collections::BTreeMap;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::tokenizer::TokenizeError;

/// What one rendering may use: an instruction takes one, and so do 64 bytes of text or list that it makes,
/// intermediate ones included, so this bounds its memory too, to 64 MB.
/// A conversation of a hundred turns takes about ten thousand.
const FUEL: u64 = 1_000_000;
/// Bytes that one unit of fuel pays for, as minijinja counts.
const BYTES_PER_FUEL: usize = 64;
/// Stack of a rendering, of which only what is used takes memory: a list in a list takes fuel for each level.
const STACK_BYTES: usize = 256 << 20;
/// How deep macros and loops may nest.
const RECURSION_MAX: usize = 64;
/// The longest prompt a template may print.
pub const PROMPT_BYTES_MAX: usize = 16 << 20;
/// The longest template; the longest in the field has about ten thousand bytes.
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Why messages do not become a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model has no template: it is a base model, not a chat model.
    #[error("the model has no chat template; give it a plain prompt")]
    NoTemplate,
    /// The template is not valid Jinja, or too long.
    #[error("the model's chat template is not valid")]
    BadTemplate {
        /// What is wrong and where.
        #[source]
        source: Error,
    },
    /// The template refused the messages, or failed on them.
    #[error("the model's chat template failed: {message}")]
    Failed {
        /// What the template or its interpreter said.
        message: String,
    },
    /// The template ran too long, or made too much text on the way.
    #[error("the model's chat template used more than its {FUEL} units of fuel")]
    OutOfFuel,
    /// The thread that renders could not be started.
    #[error("could not start a thread to render the chat template")]
    Thread(#[source] io::Error),
    /// The prompt has no token ids.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The messages use every character that could keep their text apart from special tokens.
    #[error("the messages have all of the 32 noncharacters U+FDD0 to U+FDEF in them")]
    NoMark,
    /// The template printed too much.
    #[error("the prompt is longer than {PROMPT_BYTES_MAX} bytes")]
    TooLong,
}

/// A model's chat template, ready to render.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    source: Option<String>,
    special: BTreeMap<&'static str, String>,
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// `special` has the texts of `bos_token` and `eos_token`.
    pub(crate) fn new(
        source: Option<&str>,
        special: BTreeMap<&'static str, String>,
    ) -> Result<Self, ChatError> {
        let environment = environment();
        if let Some(source) = source {
            if source.len() > TEMPLATE_BYTES_MAX {
                let detail = format!("{} bytes, at most {TEMPLATE_BYTES_MAX}", source.len());
                let source = Error::new(ErrorKind::SyntaxError, detail);
                return Err(ChatError::BadTemplate { source });
            }
            let compiled = environment.template_from_str(source);
            compiled.map_err(|source| ChatError::BadTemplate { source })?;
        }
        Ok(Self {
            source: source.map(str::to_owned),
            special,
            environment,
        })
    }

    /// Renders on a thread of its own: values may nest as deep as the fuel goes, and what walks or drops
    /// them recurses.
    pub(crate) fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let render = || self.render_here(messages, add_generation_prompt);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread
                .spawn_scoped(scope, render)
                .map_err(ChatError::Thread)?;
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn render_here(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let source = self.source.as_deref().ok_or(ChatError::NoTemplate)?;
        let template = self.environment.template_from_str(source);
        let template = template.map_err(|source| ChatError::BadTemplate { source })?;
        let messages = messages.iter().map(|message| {
            let pairs = [("role", &message.role), ("content", &message.content)];
            let pairs = pairs.map(|(key, text)| (key, Value::from(text.as_str())));
            Value::from(BTreeMap::from(pairs))
        });
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        context.insert("messages", messages.collect::<Vec<Value>>().into());
        context.insert("add_generation_prompt", add_generation_prompt.into());
        for (name, text) in &self.special {
            context.insert(name, Value::from(text.as_str()));
        }
        let mut output = Bounded {
            bytes: Vec::new(),
            full: false,
        };
        let rendered = template.render_captured_to(Value::from(context), &mut output);
        match rendered.map(|_| ()) {
            Ok(()) => Ok(String::from_utf8_lossy(&output.bytes).into_owned()),
            Err(_) if output.full => Err(ChatError::TooLong),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(ChatError::OutOfFuel),
            Err(error) => Err(ChatError::Failed {
                message: chain(&error),
            }),
        }
    }
}

/// The error and its causes in one line.
fn chain(error: &Error) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    message
}

/// A character that stands in none of the messages and, being no character of Unicode, in no vocabulary.
pub(crate) fn mark(messages: &[ChatMessage]) -> Result<char, ChatError> {
    let unused = |mark: &char| {
        let has = |text: &str| text.contains(*mark);
        !messages.iter().any(|it| has(&it.role) || has(&it.content))
    };
    ('\u{fdd0}'..='\u{fdef}')
        .find(unused)
        .ok_or(ChatError::NoMark)
}

/// Takes the template's output up to the ceiling.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > PROMPT_BYTES_MAX {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    // As Hugging Face's renderer does; templates are written for it.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", |_format: String| -> Result<Value, Error> {
        let detail = "the template asks for the time, which a reproducible run does not have";
        Err(Error::new(ErrorKind::InvalidOperation, detail))
    });
    environment.set_unknown_method_callback(python_method);
    environment
}

/// The methods of Python's `str` and `dict` that published templates call.
fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            // Before anything is made: how much it would be.
            let bytes = string_method_bytes(text, method, arguments);
            state.consume_fuel((bytes / BYTES_PER_FUEL) as u64 + 1)?;
            string_method(text, method, arguments)
        }
        ValueKind::Map => {
            state.consume_fuel(value.len().unwrap_or(0) as u64 + 1)?;
            map_method(value, method, arguments)
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

/// At least the bytes that a method reads and makes.
fn string_method_bytes(text: &str, method: &str, arguments: &[Value]) -> usize {
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or("");
    let made = match method {
        "replace" => text
            .matches(argument(0))
            .count()
            .saturating_mul(argument(1).len()),
        // A value of 24 bytes a part, and an allocation where the part is long.
        "split" => text
            .len()
            .saturating_div(argument(0).len().max(1))
            .saturating_mul(48),
        "strip" | "lstrip" | "rstrip" => argument(0).len().saturating_mul(4),
        // Letters may become three.
        _ => text.len().saturating_mul(2),
    };
    made.saturating_add(text.len())
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str);
    let letters = argument(0).map(|set| set.chars().collect::<Vec<_>>());
    let stripped = |letter: char| match &letters {
        None => letter.is_whitespace(),
        Some(set) => set.contains(&letter),
    };
    let missing = || {
        Error::new(
            ErrorKind::MissingArgument,
            format!("`{method}` wants a string"),
        )
    };
    Ok(match method {
        "strip" => text.trim_matches(stripped).into(),
        "lstrip" => text.trim_start_matches(stripped).into(),
        "rstrip" => text.trim_end_matches(stripped).into(),
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "startswith" => text.starts_with(argument(0).ok_or_else(missing)?).into(),
        "endswith" => text.ends_with(argument(0).ok_or_else(missing)?).into(),
        "replace" => {
            let (from, to) = argument(0).zip(argument(1)).ok_or_else(missing)?;
            text.replace(from, to).into()
        }
        "split" => match argument(0) {
            None => text
                .split_whitespace()
                .map(Value::from)
                .collect::<Vec<_>>()
                .into(),
            Some("") => return Err(missing()),
            Some(border) => text
                .split(border)
                .map(Value::from)
                .collect::<Vec<_>>()
                .into(),
        },
        "capitalize" => {
            let mut letters = text.chars();
            let first = letters.next().into_iter().flat_map(char::to_uppercase);
            let capitalized: String = first.chain(letters.flat_map(char::to_lowercase)).collect();
            capitalized.into()
        }
        _ => return Err(ErrorKind::UnknownMethod.into()),
    })
}

fn map_method(map: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let mut values = Vec::new();
    for key in map.try_iter()? {
        let value = map.get_item(&key)?;
        match method {
            "items" => values.push(vec![key, value].into()),
            "keys" => values.push(key),
            "values" => values.push(value),
            "get" => break,
            _ => return Err(ErrorKind::UnknownMethod.into()),
        }
    }
    if method == "get" {
        let [key, default @ ..] = arguments else {
            return Err(ErrorKind::MissingArgument.into());
        };
        let value = map.get_item(key)?;
        let default = default.first().cloned().unwrap_or(Value::from(()));
        return Ok(if value.is_undefined() { default } else { value });
    }
    Ok(values.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(template: &str, messages: &[(&str, &str)], expected: &Expect) {
        let special = BTreeMap::from([("bos_token", "<s>".to_owned())]);
        let messages: Vec<_> = messages
            .iter()
            .map(|(role, content)| ChatMessage {
                role: (*role).to_owned(),
                content: (*content).to_owned(),
            })
            .collect();
        let rendered = ChatTemplate::new(Some(template), special)
            .and_then(|template| template.render(&messages, true));
        let shown = match rendered {
            Ok(text) => text,
            Err(ChatError::BadTemplate { source }) => format!("bad template: {source}"),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn templates_see_messages_and_special_tokens() {
        let template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        check(
            template,
            &[("user", "hi"), ("assistant", "yo")],
            &expect![[r#"
            <s>[user] hi
            [assistant] yo
            [assistant]"#]],
        );
        check(template, &[], &expect!["<s>[assistant]"]);
    }

    #[test]
    fn python_methods_work() {
        check(
            "{{ ' a '.strip() }}|{{ 'xay'.strip('xy') }}|{{ 'ab'.upper() }}|{{ 'a-b'.split('-')[1] }}|{{ 'abc'.startswith('ab') }}|{{ 'aXa'.replace('X', '-') }}|{{ messages[0].get('name', 'none') }}|{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
            &[("user", "hi")],
            &expect!["a|a|AB|b|True|a-a|none|content=hi;role=user;"],
        );
    }

    #[test]
    fn bad_templates_are_named_errors() {
        check(
            "{% for %}",
            &[],
            &expect![
                "bad template: syntax error: unexpected end of block, expected in (in <string>:1)"
            ],
        );
        check(
            "{{ raise_exception('no system turn') }}",
            &[],
            &expect![
                "error: the model's chat template failed: invalid operation: no system turn (in <string>:1)"
            ],
        );
        check(
            "{{ strftime_now('%Y') }}",
            &[],
            &expect![
                "error: the model's chat template failed: invalid operation: the template asks for the time, which a reproducible run does not have (in <string>:1)"
            ],
        );
        check(
            "{{ 'a'.encode() }}",
            &[],
            &expect![
                "error: the model's chat template failed: unknown method: string has no method named encode (in <string>:1)"
            ],
        );
        check(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            &[],
            &expect!["error: the model's chat template used more than its 1000000 units of fuel"],
        );
        check(
            "{% for i in range(9999) %}{{ 'long text ' * 9999 }}{% endfor %}",
            &[],
            &expect!["error: the prompt is longer than 16777216 bytes"],
        );
    }
}
