//! A call of a function: its name and its arguments, valid whatever the model wants.
//!
//! In: a session whose model calls a function, or has to. Out: lines with the function's name
//! and with pieces of the arguments, which together are JSON of the function's schema.

use serde::Serialize;
use tussah_sdk::{Ended, Error, ErrorCode, IntoOutcome, Json, Session, json_schema::Schema};

use crate::request::{Request, refuse};
use crate::tools::{CALL, Choice, Tools};
use crate::{temperature, top_p};

/// A line of the output: the next piece of a call.
#[derive(Debug, Serialize)]
struct Line<'a> {
    tool_call: Piece<'a>,
}

/// A name begins a call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Piece<'a> {
    Name(&'a str),
    Arguments(&'a str),
}

/// Has the model call a function; says why it ended.
pub(crate) fn forced(
    session: &mut Session,
    request: &Request,
    left: &mut u32,
) -> Result<&'static str, Error> {
    let tools = tools(request)?;
    let name = match &tools.choice {
        Choice::Function(name) => name.clone(),
        // The shortest call decides whether there is room for any.
        _ => {
            let shortest = tools.names()?.matcher().completion();
            String::from_utf8_lossy(&shortest).trim_matches('"').into()
        }
    };
    let shortest = tools.arguments(&name)?.matcher().completion();
    let shortest = String::from_utf8_lossy(&shortest).into_owned();
    let whole = format!("{CALL}\n{{\"name\": \"{name}\", \"arguments\": {shortest}");
    let least = session.tokenize(&whole)?.len();
    if least > *left as usize {
        return refuse(
            "max_tokens",
            format!("the answer has at most {left} tokens, and the shortest call has {least}"),
        );
    }
    put(session, CALL, left)?;
    begun(session, request, left)
}

/// Goes on where a call was begun; says why it ended.
pub(crate) fn begun(
    session: &mut Session,
    request: &Request,
    left: &mut u32,
) -> Result<&'static str, Error> {
    let tools = tools(request)?;
    put(session, "\n{\"name\": ", left)?;
    let name = match &tools.choice {
        Choice::Function(name) => {
            put(session, &format!("\"{name}\""), left)?;
            name.clone()
        }
        _ => {
            let mut text = String::new();
            let names = tools.names()?;
            decode(session, request, &names, left, |piece| {
                text.push_str(piece);
                Ok(())
            })?;
            text.trim_matches('"').to_owned()
        }
    };
    show(Piece::Name(&name))?;
    put(session, ", \"arguments\": ", left)?;
    let ended = decode(session, request, tools.arguments(&name)?, left, |piece| {
        show(Piece::Arguments(piece))
    })?;
    Ok(match ended {
        Ended::Complete => "tool_calls",
        Ended::TokensMax | Ended::ContextFull => "length",
    })
}

fn tools(request: &Request) -> Result<&Tools, Error> {
    match &request.tools {
        Some(tools) => Ok(tools),
        None => refuse("tools", "are missing"),
    }
}

/// What can only come so.
fn put(session: &mut Session, text: &str, left: &mut u32) -> Result<(), Error> {
    for token in session.tokenize(text)? {
        match session.accept(token) {
            // The call is brought to its end all the same.
            Err(error) if error.code() == ErrorCode::ContextFull => return Ok(()),
            accepted => accepted?,
        }
        *left = left.saturating_sub(1);
    }
    Ok(())
}

/// JSON of a schema, out of what is left of the tokens.
fn decode(
    session: &mut Session,
    request: &Request,
    schema: &Schema,
    left: &mut u32,
    piece: impl FnMut(&str) -> Result<(), Error>,
) -> Result<Ended, Error> {
    let before = session.usage().generated_tokens;
    let answer = session
        .json(schema)
        .tokens_max(*left)
        .temperature(temperature(request))
        .top_p(top_p(request))
        .seed(request.seed);
    let ended = answer.generate_with(piece)?;
    let taken = session.usage().generated_tokens.saturating_sub(before);
    *left = left.saturating_sub(taken);
    Ok(ended)
}

fn show(piece: Piece<'_>) -> Result<(), Error> {
    Json(Line { tool_call: piece }).into_outcome()
}
