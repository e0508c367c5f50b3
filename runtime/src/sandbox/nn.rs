//! `wasi:nn`: the standard interface to the models of a job.
//!
//! In: names, tensors, none of them trusted. Out: named tensors, or one of the standard's
//! error codes with a message. Models are named, never passed. A decoder takes a prompt and
//! gives text, tokens or logits; an encoder takes texts and gives their embedding; the names
//! of their tensors stand in `docs/wasi-nn.md`. A graph of tensors has names of its own. Each `compute` starts from nothing: whoever
//! wants to go on where it stopped passes all of it again, or uses `tussah:job/llm`.
//!
//! Codes: `invalid-argument` (a tensor that is not what its name calls for),
//! `invalid-encoding` (text that is not UTF-8, JSON that does not parse), `not-found` (no such
//! model), `security` (a digest that the manifest does not have), `unsupported-operation`,
//! `too-large` (the context or a limit of the job), `runtime-error` (the model failed).
//! `timeout` and `unknown` are never given: a deadline ends the job, and every error is known.

mod compute;
mod graph;
pub(crate) mod host;
mod inputs;
pub(crate) mod tensor;

use tussah_inference::graph::Port;
use tussah_manifest::{Digest, ModelRef};

use super::{
    bindings::{
        tussah::job::types::{Error, ErrorCode},
        wasi::nn::errors::ErrorCode as NnCode,
    },
    guest::Guest,
    models::LoadedModel,
};

/// Why a call of wasi-nn was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: NnCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: NnCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(NnCode::InvalidArgument, message)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match error.code {
            ErrorCode::InvalidArgument => NnCode::InvalidArgument,
            ErrorCode::UnknownModel => NnCode::NotFound,
            ErrorCode::UnsupportedOperation => NnCode::UnsupportedOperation,
            ErrorCode::ContextFull | ErrorCode::OutOfMemory | ErrorCode::LimitExceeded => {
                NnCode::TooLarge
            }
            ErrorCode::ModelFailed => NnCode::RuntimeError,
        };
        Self::new(code, error.message)
    }
}

/// What a guest is told, or why its job ends.
pub(crate) type Answer<T> = wasmtime::Result<Result<T, Refusal>>;

/// What is said to whoever passes a model's bytes.
pub(crate) fn load_refused() -> Refusal {
    Refusal::new(
        NnCode::UnsupportedOperation,
        "models are named, not passed: list the model in tussah.toml and load it by its name",
    )
}

/// The names of a model's inputs, by index.
pub(crate) fn input_names(model: &LoadedModel) -> Vec<&str> {
    match model {
        LoadedModel::Graph(graph) => port_names(graph.inputs()),
        LoadedModel::Text(model) if model.info().embeddings.is_some() => {
            inputs::ENCODER_INPUTS.to_vec()
        }
        LoadedModel::Text(_) => inputs::DECODER_INPUTS.to_vec(),
    }
}

/// The names of a model's outputs, by index.
pub(crate) fn output_names(model: &LoadedModel) -> Vec<&str> {
    match model {
        LoadedModel::Graph(graph) => port_names(graph.outputs()),
        LoadedModel::Text(model) if model.info().embeddings.is_some() => {
            inputs::ENCODER_OUTPUTS.to_vec()
        }
        LoadedModel::Text(_) => inputs::DECODER_OUTPUTS.to_vec(),
    }
}

fn port_names(ports: &[Port]) -> Vec<&str> {
    ports.iter().map(|port| port.name.as_str()).collect()
}

/// What is said of an index that a model does not have.
pub(crate) fn no_index(what: &str, index: usize, names: &[&str]) -> Refusal {
    let known = match names.len() {
        0 => "it has none".to_owned(),
        count => format!("it has 0 to {}", count - 1),
    };
    Refusal::invalid(format!("this model has no {what} {index}; {known}"))
}

impl Guest {
    /// Loads a model by the manifest's name, or by a digest that the manifest has.
    pub(crate) async fn nn_load(&mut self, name: &str) -> Answer<LoadedModel> {
        let named = match self.nn_find(name) {
            Ok(named) => named,
            Err(refusal) => {
                self.record(
                    "nn#load-by-name",
                    name.as_bytes(),
                    &[0xff, refusal.code as u8],
                )?;
                return Ok(Err(refusal));
            }
        };
        let model = self.load_model(named).await?;
        let digest = named.digest.as_bytes();
        self.record("nn#load-by-name", name.as_bytes(), digest)?;
        Ok(Ok(model))
    }

    fn nn_find(&self, name: &str) -> Result<ModelRef, Refusal> {
        // A model's name has no colon in it, so that no name can look like a digest.
        if !name.starts_with("blake3:") {
            let found = self.models.find(name);
            return found.map_err(|message| Refusal::new(NnCode::NotFound, message));
        }
        let digest: Digest = name
            .parse()
            .map_err(|error| Refusal::invalid(format!("`{name}` is no digest: {error}")))?;
        let mut named = self.models.named.values();
        let found = named.find(|named| named.digest == digest).copied();
        found.ok_or_else(|| {
            let message = format!(
                "the manifest has no model {digest}: a job loads only what its manifest lists"
            );
            Refusal::new(NnCode::Security, message)
        })
    }
}
