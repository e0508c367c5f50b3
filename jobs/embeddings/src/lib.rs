//! Texts in, their embeddings out: the job behind an embedding model of an OpenAI API.
//!
//! In: one JSON object with the texts. Out: one line of JSON a text, in their order, with its
//! vector as base64 of little-endian `f32`, and a last line that says what they took. No text
//! is cut: one that the model does not read whole is refused by its place, before any is read.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tussah_sdk::{
    Embedding, Error, ErrorCode, IntoOutcome, Json, Model, ResultExt, from_json, job, progress,
};

/// The name that `tussah.toml` maps to a model.
const MODEL: &str = "minilm";
/// Texts of one input.
const TEXTS_MAX: usize = 1024;
/// Texts that are embedded in one call, so that the first vectors come early.
const BATCH: usize = 16;
/// What the model puts around a text of its own.
const SPECIAL_TOKENS: usize = 2;

/// What the job takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `input`")]
struct Request {
    input: Vec<String>,
}

/// A line of the output: one text's vector.
#[derive(Debug, Serialize)]
struct Vector {
    embedding: String,
}

/// The last line.
#[derive(Debug, Serialize)]
struct Last {
    finish: &'static str,
    prompt_tokens: usize,
}

#[job]
fn run(input: Vec<u8>) -> Result<(), Error> {
    let request: Request = from_json(input).code(1)?;
    request.check()?;
    let model = Model::load(MODEL)?;
    let prompt_tokens = count(&model, &request.input)?;
    let total = request.input.len() as u64;
    let mut done = 0;
    for batch in request.input.chunks(BATCH) {
        progress(done, total, "embedding texts");
        for vector in model.embed(batch)? {
            let embedding = STANDARD.encode(bytes(&vector));
            Json(Vector { embedding }).into_outcome()?;
        }
        done += batch.len() as u64;
    }
    Json(Last {
        finish: "stop",
        prompt_tokens,
    })
    .into_outcome()
}

impl Request {
    /// Refuses what cannot be embedded; the message begins with the field.
    fn check(&self) -> Result<(), Error> {
        let count = self.input.len();
        if !(1..=TEXTS_MAX).contains(&count) {
            return refuse("input", format!("{count} texts, 1 to {TEXTS_MAX} can be"));
        }
        match self.input.iter().position(String::is_empty) {
            Some(at) => refuse(&format!("input[{at}]"), "is empty"),
            None => Ok(()),
        }
    }
}

/// The tokens of all texts, with those that the model puts around each.
fn count(model: &Model, texts: &[String]) -> Result<usize, Error> {
    let most = model.info().context_tokens_max as usize;
    let mut all = 0;
    for (at, text) in texts.iter().enumerate() {
        let tokens = model.tokenize(text)?.len() + SPECIAL_TOKENS;
        if tokens > most {
            return refuse(
                &format!("input[{at}]"),
                format!("{tokens} tokens, the model reads {most} at once: split the text"),
            );
        }
        all += tokens;
    }
    Ok(all)
}

fn bytes(vector: &Embedding) -> Vec<u8> {
    let values = vector.0.iter();
    values.flat_map(|value| value.to_le_bytes()).collect()
}

/// What the client has to change.
fn refuse<T>(field: &str, problem: impl AsRef<str>) -> Result<T, Error> {
    let message = format!("`{field}`: {}", problem.as_ref());
    Err(Error::with_code(ErrorCode::Job(1), message))
}

#[cfg(test)]
mod tests;
