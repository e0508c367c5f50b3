//! Messages → prompt, by the model's own template.
//! In: a Jinja template out of an untrusted file, and messages. Out: the prompt's text.
//! It never runs longer than its fuel, takes more than [`RENDER_BYTES_MAX`] of memory, nests deeper than its limit,
//! prints more than its ceiling, or tells a template the time.

mod bounds;
mod literals;
mod methods;

use std::collections::BTreeMap;
use std::io;

use minijinja::machinery::{eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use crate::tokenizer::TokenizeError;

/// What one rendering may use: an instruction takes one, and so do 64 bytes of text or list that it makes,
/// intermediate ones included.
/// A conversation of a hundred turns takes some forty thousand.
const FUEL: u64 = 1_000_000;
/// The most memory that rendering takes beside the messages: the fuel's 64 MB, and what a text of
/// [`PROMPT_BYTES_MAX`] may become, escaped, while it grows.
pub const RENDER_BYTES_MAX: usize = 320 << 20;
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
    syntax: SyntaxConfig,
}

impl ChatTemplate {
    /// `special` has the texts of `bos_token` and `eos_token`.
    pub(crate) fn new(
        source: Option<&str>,
        special: BTreeMap<&'static str, String>,
    ) -> Result<Self, ChatError> {
        let environment = environment();
        // As Hugging Face's renderer does; templates are written for it.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .unwrap_or_default();
        if let Some(source) = source {
            if source.len() > TEMPLATE_BYTES_MAX {
                let detail = format!("{} bytes, at most {TEMPLATE_BYTES_MAX}", source.len());
                let source = Error::new(ErrorKind::SyntaxError, detail);
                return Err(ChatError::BadTemplate { source });
            }
            let compiled = bounds::compile(source, &syntax);
            compiled.map_err(|source| ChatError::BadTemplate { source })?;
        }
        Ok(Self {
            source: source.map(str::to_owned),
            special,
            environment,
            syntax,
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
        let compiled = bounds::compile(source, &self.syntax);
        let compiled = compiled.map_err(|source| ChatError::BadTemplate { source })?;
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
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let (context, blocks) = (Value::from(context), BTreeMap::new());
        let environment = &self.environment;
        let plain = AutoEscape::None;
        let rendered = eval(environment, &compiled, context, &blocks, &mut output, plain);
        let rendered = rendered.map(|_| ());
        drop(output);
        match rendered {
            // Fuel has held it to four times that.
            _ if text.len() > PROMPT_BYTES_MAX => Err(ChatError::TooLong),
            Ok(()) => Ok(text),
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

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    bounds::install(&mut environment);
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
    environment.set_unknown_method_callback(methods::python_method);
    environment
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
            &expect!["error: the model's chat template used more than its 1000000 units of fuel"],
        );
    }

    /// What published templates are made of: the newest question looked for backwards, thoughts cut out of older
    /// answers, turns checked and merged, tools in JSON, macros.
    const LIKE_PUBLISHED: &str = r#"{%- macro turn(role, text) -%}<|{{ role }}|>{{ text }}<|end|>{%- endmacro -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] | trim -%}{%- set rest = messages[1:] -%}
{%- else -%}
    {%- set system = 'none' -%}{%- set rest = messages -%}
{%- endif -%}
{%- set ns = namespace(question=true, last=rest | length - 1, seen=[]) -%}
{%- for message in rest[::-1] -%}
    {%- set index = (rest | length - 1) - loop.index0 -%}
    {%- if ns.question and message.role == 'user' and message.content is string and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) -%}
        {%- set ns.question = false -%}{%- set ns.last = index -%}
    {%- endif -%}
{%- endfor -%}
{{ turn('system', system ~ ' ' ~ ({'tools': tools | default([])} | tojson)) }}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must take turns') }}{%- endif -%}
    {%- set ns.seen = ns.seen + [message.role] -%}
    {%- if message.role == 'assistant' and '</think>' in message.content and loop.index0 < ns.last -%}
        {{ turn(message.role, message.content.split('</think>')[-1].lstrip('\n')) }}
    {%- else -%}
        {{ turn(message.role, message.content | trim) }}
    {%- endif -%}
    {%- if loop.last or (not loop.last and loop.nextitem.role != 'tool') -%}{{ '\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{{ ns.last }} {{ ns.seen | unique | sort | join(',') }}{%- endif -%}"#;

    #[test]
    fn what_published_templates_are_made_of_works() {
        check(
            LIKE_PUBLISHED,
            &[
                ("system", " be brief "),
                ("user", "2 + 2?"),
                ("assistant", "<think>two and two</think>\n4"),
                ("user", "and 3 + 3?"),
            ],
            &expect![[r#"
                <|system|>be brief {"tools": []}<|end|><|user|>2 + 2?<|end|>
                <|assistant|>4<|end|>
                <|user|>and 3 + 3?<|end|>
                <|assistant|>2 assistant,user"#]],
        );
        check(
            LIKE_PUBLISHED,
            &[("user", "a"), ("user", "b")],
            &expect![
                "error: the model's chat template failed: invalid operation: roles must take turns (in <string>:16)"
            ],
        );
    }

    #[test]
    fn long_conversations_fit_the_fuel() {
        let text = "word ".repeat(200);
        for turns in [100, 800] {
            let roles = ["user", "assistant"].into_iter().cycle();
            let messages = roles.take(turns).map(|role| ChatMessage {
                role: role.to_owned(),
                content: text.clone(),
            });
            let template = ChatTemplate::new(Some(LIKE_PUBLISHED), BTreeMap::new()).unwrap();
            let prompt = template
                .render(&messages.collect::<Vec<_>>(), true)
                .unwrap();
            assert!(prompt.len() > turns * text.trim().len());
        }
    }
}
