//! Answers one prompt after the other under its JSON schema.
//!
//! In: a JSON array of prompts with their schemas. Out: one answer a line, in their order.

use serde::Deserialize;
use tussah_sdk::{Error, Json, Message, Model, emit, job, json_schema::Schema};

/// What is asked, and what the answer has to be.
#[derive(Debug, Deserialize)]
struct Question {
    prompt: String,
    schema: serde_json::Value,
    tokens_max: u32,
    temperature: f32,
}

#[job]
fn run(Json(questions): Json<Vec<Question>>) -> Result<(), Error> {
    let model = Model::load("smollm2")?;
    for question in questions {
        let schema = Schema::from_value(&question.schema)?;
        let messages = [Message::user(question.prompt)];
        let session = model.session().context_tokens_max(512);
        let mut session = session.open_chat(&messages)?;
        let answer = session.json(&schema).tokens_max(question.tokens_max);
        emit(answer.temperature(question.temperature).text()? + "\n")?;
    }
    Ok(())
}
