//! A conversation or a prompt in, its continuation out: the job behind a model of an OpenAI API.
//!
//! In: one JSON object with the fields of a chat or of a completion. Out: lines of JSON, one for
//! each piece of text as it is generated, and a last one that says why it ended and what it
//! took. Under a `response_format` the text is JSON of that form, and a function is called with
//! arguments of its schema, whatever the model wants.
//! What it cannot do is refused by the field's name before anything is generated.

mod call;
mod free;
mod logprobs;
mod request;
mod tail;
mod tools;

use free::End;
use logprobs::Taken;
use request::{Prompt, Request};
use serde::Serialize;
use tools::Choice;
use tussah_sdk::{
    Ended, Error, ErrorCode, IntoOutcome, Json, Model, Session, job, json_schema::Schema,
};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "smollm2";
/// Tokens of an answer where the input does not say.
const MAX_TOKENS: u32 = 512;
/// What SmolLM2's authors sample with: <https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct>.
const TEMPERATURE: f32 = 0.2;
const TOP_P: f32 = 0.9;
/// Below it, a temperature is no different from the likeliest token alone.
const LEAST: f32 = 0.001;

/// A line of the output: a piece of text.
#[derive(Debug, Serialize)]
struct Piece<'a> {
    text: &'a str,
    /// The tokens that it is made of, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Taken>>,
}

/// The last line.
#[derive(Debug, Serialize)]
struct Last {
    finish: &'static str,
    prompt_tokens: u32,
    completion_tokens: u32,
}

#[job]
fn run(input: Vec<u8>) -> Result<(), Error> {
    let request = Request::read(&input)?;
    let model = Model::load(MODEL)?;
    let prompt_tokens = prompt_tokens(&model, &request)?;
    let context = model.info().context_tokens_max;
    let room = context.saturating_sub(prompt_tokens);
    if room == 0 {
        return request::refuse(
            request.prompt.field(),
            format!(
                "{prompt_tokens} tokens, but prompt and answer together have at most {context}"
            ),
        );
    }
    let most = request.max_tokens.unwrap_or(MAX_TOKENS).min(room);
    let mut session = open(&model, &request, prompt_tokens.saturating_add(most))?;
    let mut left = most;
    let finish = match (&request.schema, forced(&request)) {
        (Some(schema), _) => constrained(&mut session, &request, schema, most)?,
        (None, true) => call::forced(&mut session, &request, &mut left)?,
        (None, false) => match free::generate(&mut session, &request, &mut left)? {
            End::Stop => "stop",
            End::Length => "length",
            End::Call => call::begun(&mut session, &request, &mut left)?,
        },
    };
    let usage = session.usage();
    Json(Last {
        finish,
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.generated_tokens,
    })
    .into_outcome()
}

/// The tokens of the prompt, with the model's template around a conversation.
fn prompt_tokens(model: &Model, request: &Request) -> Result<u32, Error> {
    match &request.prompt {
        Prompt::Chat(messages) => match model.count_chat_tokens(messages) {
            // The template takes no such conversation, or the model has none.
            Err(error) if error.code() == ErrorCode::UnsupportedOperation => {
                request::refuse("messages", error.message())
            }
            counted => counted,
        },
        Prompt::Text(text) => {
            let tokens = model.tokenize(text)?.len();
            Ok(u32::try_from(tokens).unwrap_or(u32::MAX))
        }
    }
}

/// Whether a function is called whatever the model wants.
fn forced(request: &Request) -> bool {
    let choice = request.tools.as_ref().map(|tools| &tools.choice);
    matches!(choice, Some(Choice::Required | Choice::Function(_)))
}

/// A session with no more room than prompt and answer take. Its tokens are chosen here.
fn open(model: &Model, request: &Request, context: u32) -> Result<Session, Error> {
    let session = model.session().context_tokens_max(context);
    match &request.prompt {
        Prompt::Chat(messages) => session.open_chat(messages),
        Prompt::Text(text) => session.open_text(text),
    }
}

fn temperature(request: &Request) -> f32 {
    let temperature = request.temperature.unwrap_or(TEMPERATURE);
    if temperature < LEAST {
        0.0
    } else {
        temperature
    }
}

fn top_p(request: &Request) -> f32 {
    request.top_p.unwrap_or(TOP_P)
}

/// Emits JSON of the schema; says why it ended.
fn constrained(
    session: &mut Session,
    request: &Request,
    schema: &Schema,
    most: u32,
) -> Result<&'static str, Error> {
    let shortest = String::from_utf8_lossy(&schema.matcher().completion()).into_owned();
    let least = session.tokenize(&shortest)?.len();
    if least > most as usize {
        return request::refuse(
            "max_tokens",
            format!(
                "the answer has at most {most} tokens, \
                 and the shortest that `response_format` allows has {least}"
            ),
        );
    }
    let answer = session
        .json(schema)
        .tokens_max(most)
        .temperature(temperature(request))
        .top_p(top_p(request))
        .seed(request.seed);
    Ok(match answer.generate_with(show)? {
        Ended::Complete => "stop",
        Ended::TokensMax | Ended::ContextFull => "length",
    })
}

/// Nothing is no piece of output.
fn show(text: &str) -> Result<(), Error> {
    match text.is_empty() {
        true => Ok(()),
        false => Json(Piece {
            text,
            logprobs: None,
        })
        .into_outcome(),
    }
}

#[cfg(test)]
mod tests;
