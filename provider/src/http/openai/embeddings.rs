//! `/v1/embeddings`: texts in, vectors out, as floats or as base64.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tussah_manifest::Digest;

use super::lines::{Finish, Line, Lines, floats};
use super::{answered, bad_output, deployed, ours, refuse, run};
use crate::gateway::Ticket;
use crate::http::body::{self, Fields, missing, wrong};
use crate::http::error::{ApiError, json_response};
use crate::http::jobs::{RECEIPT_HEADER, receipt_header};
use crate::http::{App, auth};
use crate::ledger::Shape;

/// Texts of one request, as OpenAI has it.
const TEXTS_MAX: usize = 2048;

pub(in crate::http) async fn embeddings(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let account = auth::account(&app, &headers)?;
    let (mut fields, held) = body::json(&app, &account, &headers, body).await?;
    let model = fields.needed_text("model")?;
    let texts = texts_of(&mut fields)?;
    let as_base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(wrong("encoding_format", "`float` or `base64`")),
    };
    fields.text("user")?;
    refuse(&mut fields, "dimensions", &[])?;
    fields.finish()?;
    let deployed = deployed(&app, &model, Shape::Embeddings)?;
    let count = texts.len();
    // Vectors of equal texts are equal: such calls may be one job.
    let input = json!({"input": texts}).to_string().into_bytes();
    let mut ticket = run(&app, account, deployed, input, Some(0)).await?;
    drop(held);
    let (vectors, finish, receipt) = collect(&app, &mut ticket).await?;
    if vectors.len() != count {
        return Err(bad_output(
            "it has another number of vectors than there are texts",
        ));
    }
    let data: Vec<Value> = vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| {
            let value = match as_base64 {
                true => Value::String(vector),
                false => json!(floats(&vector)),
            };
            json!({"object": "embedding", "index": index, "embedding": value})
        })
        .collect();
    let answer = json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": finish.prompt_tokens, "total_tokens": finish.prompt_tokens},
        "tussah": ours(&ticket.id, Some(&receipt)),
    });
    let mut response = json_response(StatusCode::OK, &answer);
    let header = receipt_header(&ticket.id);
    response.headers_mut().insert(RECEIPT_HEADER, header);
    Ok(response)
}

fn texts_of(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let expected = "a string or a list of 1 to 2048 strings";
    let texts = match fields.take("input").ok_or_else(|| missing("input"))? {
        Value::String(text) => vec![text],
        Value::Array(texts) if (1..=TEXTS_MAX).contains(&texts.len()) => texts
            .into_iter()
            .map(|text| match text {
                Value::String(text) => Ok(text),
                _ => Err(wrong("input", expected)),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong("input", expected)),
    };
    if texts.iter().any(String::is_empty) {
        return Err(wrong("input", "texts of at least one character"));
    }
    Ok(texts)
}

async fn collect(
    app: &App,
    ticket: &mut Ticket,
) -> Result<(Vec<String>, Finish, Digest), ApiError> {
    let (output, end) = super::text::whole(app, &ticket.id, &mut ticket.news).await?;
    let receipt = answered(&end)?;
    let (mut vectors, mut finish) = (Vec::new(), None);
    for line in Lines::default().add(&output).map_err(|e| bad_output(&e))? {
        match line {
            Line::Embedding(vector) => vectors.push(vector),
            Line::Finish(last) => finish = Some(last),
            Line::Text(..) | Line::Call(_) => {
                return Err(bad_output("it has text among its vectors"));
            }
        }
    }
    let finish = finish.ok_or_else(|| bad_output("it has no last line"))?;
    Ok((vectors, finish, receipt))
}
