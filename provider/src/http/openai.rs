//! OpenAI's shape over deployed jobs: a "model" is a job that answers in lines of JSON.
//!
//! In: OpenAI's requests. Out: OpenAI's answers, each with the id of the job it came from. What a
//! job's input and output have to be is in docs/openai-jobs.md. An option that nothing here does
//! anything with is refused by name, unless it has the value that asks for nothing.

mod asked;
pub(super) mod embeddings;
mod lines;
mod logprobs;
pub(super) mod models;
pub(super) mod text;
mod tools;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tussah_manifest::{Digest, ExitStatus, Manifest};

use super::App;
use super::body::Fields;
use super::error::ApiError;
use super::jobs::no_model;
use crate::gateway::{Ask, JobEnd, Submission, SubmitError, Ticket};
use crate::ledger::{Account, Deployment, Shape};
use crate::wire::WhoseFault;

/// The codes, besides 1, that are for the client to change something, by docs/openai-jobs.md: an
/// input that does not fit its type, and what the host refuses because of it, such as a text that
/// the model has no tokens for, or more of it than the context or a limit takes; and a schema.
const BAD_INPUT: u32 = 65_536;
const INVALID_ARGUMENT: u32 = 65_537;
const CONTEXT_FULL: u32 = 65_540;
const LIMIT_EXCEEDED: u32 = 65_542;
const SCHEMA: u32 = 65_545;

/// The job behind a model's name, which has to be of this shape.
fn deployed(app: &App, name: &str, shape: Shape) -> Result<(Deployment, Manifest), ApiError> {
    let ledger = app.gateway.ledger();
    let deployment = ledger.deployment(name)?.ok_or_else(|| no_model(name))?;
    if deployment.shape != shape {
        let has = deployment.shape.name();
        let message = format!("the model `{name}` is for {has}, not for {}", shape.name());
        return Err(ApiError::bad("model_shape", message).param("model"));
    }
    let manifest = ledger.manifest(&deployment.manifest)?;
    Ok((deployment, manifest.ok_or_else(|| no_model(name))?))
}

/// Has a deployed job run for as long as its client is there.
async fn run(
    app: &App,
    account: Account,
    model: (Deployment, Manifest),
    input: Vec<u8>,
    seed: Option<u64>,
) -> Result<Ticket, ApiError> {
    let (deployment, manifest) = model;
    let submission = Submission {
        account,
        ask: Ask::House {
            price_max: None,
            seed,
        },
        manifest,
        input,
        claim: None,
        deployment: Some(deployment.name),
        deadline_ms: None,
        time_max_ms: None,
        keep: false,
    };
    Ok(app.gateway.submit(submission).await?)
}

/// Refuses an option that is not supported, unless its value asks for nothing.
fn refuse(fields: &mut Fields, name: &str, nothing: &[Value]) -> Result<(), ApiError> {
    match fields.take(name) {
        None => Ok(()),
        Some(value) if nothing.contains(&value) => Ok(()),
        Some(_) => {
            let message = format!("`{name}` is not supported by this provider");
            Err(ApiError::bad("unsupported_parameter", message).param(name))
        }
    }
}

/// Why a job's answer is none; `Ok` with its receipt's digest if it is one.
fn answered(end: &JobEnd) -> Result<Digest, ApiError> {
    // The same call would come to the same end.
    let failed = |code, message: &str| {
        let failed = ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, message);
        Err(failed.last())
    };
    let (receipt, fault) = match end {
        JobEnd::Receipt { receipt, fault, .. } => (receipt, fault),
        JobEnd::NotRun { fault, message } => {
            return Err(match fault {
                WhoseFault::Client => ApiError::bad("job_not_run", message),
                WhoseFault::Developer => {
                    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "job_not_run", message).last()
                }
                WhoseFault::Provider => {
                    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "job_not_run", message)
                }
            });
        }
        JobEnd::Postponed => return Err(SubmitError::Draining.into()),
        JobEnd::Unrecorded => {
            let message = "the job's end could not be recorded; try again";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(ApiError::new(status, "unrecorded", message));
        }
    };
    let words = fault.as_ref().map_or("", |fault| fault.message.as_str());
    match receipt.consensus.exit {
        ExitStatus::Done => Ok(receipt.digest()),
        ExitStatus::JobError {
            code: 1 | BAD_INPUT | INVALID_ARGUMENT | CONTEXT_FULL | LIMIT_EXCEEDED | SCHEMA,
            ..
        } => Err(bad_input(words)),
        ExitStatus::JobError { .. } => failed("job_error", words),
        ExitStatus::LimitHit { limit } => {
            let message = format!("the job reached its limit {}", limit.name());
            Err(ApiError::bad("limit_reached", message))
        }
        ExitStatus::Trapped { .. } => failed("job_trapped", "the job failed"),
        ExitStatus::Cancelled => failed("cancelled", "the job was cancelled"),
        ExitStatus::DeadlineExceeded => {
            let message = "the job took too long";
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).last())
        }
        ExitStatus::DeviceLost | ExitStatus::HostFailure => {
            let message = "the provider failed while it ran the job; try again";
            Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "host_failure",
                message,
            ))
        }
    }
}

/// A job's refusal of its input: its message begins with the field, in back quotes.
fn bad_input(message: &str) -> ApiError {
    let field = message
        .strip_prefix('`')
        .and_then(|rest| rest.split_once('`'));
    let error = ApiError::bad("job_error", message);
    match field {
        Some((field, _)) if !field.is_empty() => error.param(field),
        _ => error,
    }
}

/// The part of an answer that is ours: where it came from.
fn ours(job: &Digest, receipt: Option<&Digest>) -> Value {
    json!({"job_id": job.to_string(), "receipt": receipt.map(Digest::to_string)})
}

/// A job whose output is not what its shape says.
fn bad_output(problem: &str) -> ApiError {
    let message = format!("the job's output does not follow its shape: {problem}");
    ApiError::new(StatusCode::BAD_GATEWAY, "bad_output", message).last()
}
