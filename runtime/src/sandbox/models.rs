//! The models that a job may load, and the work that is done with them off the executor.
//!
//! In: names from the guest, none of them trusted. Out: loaded models that the job's
//! manifest names, or why not. Models are named, never passed: no bytes of a guest's become
//! a model. What fails for reasons of this machine ends the job, since it is no result of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tussah_inference::{
    AddBos, BackendError, CancelToken, ChatMessage, EncodeOptions, GpuInfo, Model, Scope,
    SessionError, TokenId, graph::TensorGraph,
};
use tussah_manifest::{ModelName, ModelRef};

use super::{
    ModelSource,
    bindings::tussah::job::{
        llm::Message,
        types::{Error, ErrorCode},
    },
    guest::Guest,
    limiter::Stop,
};

/// A model in memory; clones share it.
#[derive(Debug, Clone)]
pub enum LoadedModel {
    /// A decoder or an encoder of text.
    Text(Arc<Model>),
    /// A graph of tensors, which `wasi:nn` alone can compute.
    Graph(Arc<dyn TensorGraph>),
}

impl LoadedModel {
    /// What runs it, for the receipt's evidence.
    fn engine(&self) -> &str {
        match self {
            Self::Text(model) => &model.info().engine,
            Self::Graph(graph) => graph.engine(),
        }
    }

    /// The GPU that runs it, if one does.
    fn gpu(&self) -> Option<&GpuInfo> {
        match self {
            Self::Text(model) => model.info().gpu.as_ref(),
            Self::Graph(_) => None,
        }
    }
}

/// The models that one job may load.
pub(crate) struct Models {
    /// Name in the manifest → digest and format of the model file.
    pub(crate) named: BTreeMap<ModelName, ModelRef>,
    pub(crate) source: Arc<dyn ModelSource>,
    /// Stops this job's inference.
    pub(crate) cancel: CancelToken,
    /// Its sessions share what they compute of equal beginnings, with each other and no other job.
    pub(crate) scope: Scope,
    /// What did its inference, for the receipt's evidence; none before a model is loaded.
    pub(crate) engine: Option<String>,
    /// The GPU that a model was loaded onto, for the same.
    pub(crate) gpu: Option<GpuInfo>,
    /// Time that the job's sessions took on it; `None` once a part of it is not known.
    pub(crate) gpu_time: Option<Duration>,
    /// Whether the guest was told that this machine had no memory: another one might have had it.
    pub(crate) memory_was_short: bool,
}

/// What a guest is told, or why its job ends.
pub(crate) type Answer<T> = wasmtime::Result<Result<T, Error>>;

pub(crate) fn refuse(code: ErrorCode, message: impl Into<String>) -> Error {
    Error {
        code,
        message: message.into(),
    }
}

/// Maps an error of inference to one of the guest's, or ends the job where it is the host's.
pub(crate) fn guest_error(error: SessionError) -> wasmtime::Result<Error> {
    let code = match &error {
        SessionError::ContextFull { .. } => ErrorCode::ContextFull,
        SessionError::Backend(BackendError::OutOfMemory { .. } | BackendError::NoRoom { .. }) => {
            ErrorCode::OutOfMemory
        }
        // What happens to this machine is no result of the job's: it ends here.
        SessionError::Backend(BackendError::DeviceLost { .. }) => {
            return Err(wasmtime::Error::new(error).context(Stop::DeviceLost));
        }
        SessionError::Backend(BackendError::Device { .. }) => {
            return Err(wasmtime::Error::new(error).context(Stop::HostFailure));
        }
        SessionError::Backend(_) | SessionError::Failed => ErrorCode::ModelFailed,
        SessionError::Unsupported { .. } => ErrorCode::UnsupportedOperation,
        SessionError::Cancelled => return Err(Stop::Cancelled.into()),
        SessionError::ContextSize { .. }
        | SessionError::UnknownToken { .. }
        | SessionError::Empty
        | SessionError::Sampling(_) => ErrorCode::InvalidArgument,
    };
    Ok(refuse(code, chain(&error)))
}

impl Models {
    /// As [`guest_error`], and remembers what no other machine would have said.
    pub(crate) fn guest_error(&mut self, error: SessionError) -> wasmtime::Result<Error> {
        let short = matches!(
            error,
            SessionError::Backend(BackendError::OutOfMemory { .. } | BackendError::NoRoom { .. })
        );
        self.memory_was_short |= short;
        guest_error(error)
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs blocking work off the executor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> wasmtime::Result<T> {
    // A panic is a mistake of ours; it ends this job and nothing else.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Stop::HostFailure.into())
}

impl Models {
    /// What the manifest gives to a name.
    pub(crate) fn find(&self, name: &str) -> Result<ModelRef, String> {
        let found = name
            .parse()
            .ok()
            .and_then(|name: ModelName| self.named.get(&name).copied());
        found.ok_or_else(|| {
            let known: Vec<_> = self.named.keys().map(ToString::to_string).collect();
            format!(
                "the manifest names no model `{name}`; it names: {}",
                known.join(", ")
            )
        })
    }
}

impl Guest {
    /// Loads a model that the manifest has.
    pub(crate) async fn load_model(&mut self, named: ModelRef) -> wasmtime::Result<LoadedModel> {
        let (source, events) = (Arc::clone(&self.models.source), Arc::clone(&self.events));
        let loaded = blocking(move || source.load(&named, events.as_ref())).await?;
        let model = match loaded {
            Ok(model) => model,
            // Which machine has how much memory is no result of the job's: it ends here.
            Err(error) => return Err(wasmtime::Error::new(error).context(Stop::HostFailure)),
        };
        self.models.engine = Some(model.engine().to_owned());
        if let Some(gpu) = model.gpu() {
            self.models.gpu = Some(gpu.clone());
        }
        Ok(model)
    }
}

/// Text to tokens; special tokens in it are not interpreted.
pub(crate) fn encode_text(model: &Model, text: &str) -> Result<Vec<TokenId>, Error> {
    let options = EncodeOptions {
        add_bos: AddBos::Never,
        parse_special: false,
    };
    encode(model, text, options)
}

/// A whole prompt to tokens: special tokens in it count, and it begins as the model's
/// metadata says.
pub(crate) fn encode_prompt(model: &Model, text: &str) -> Result<Vec<TokenId>, Error> {
    let options = EncodeOptions {
        add_bos: AddBos::ByMetadata,
        parse_special: true,
    };
    encode(model, text, options)
}

fn encode(model: &Model, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, Error> {
    model
        .tokenizer()
        .encode(text, options)
        .map_err(|error| refuse(ErrorCode::InvalidArgument, chain(&error)))
}

/// A conversation to tokens, by the model's template.
pub(crate) fn encode_chat(model: &Model, messages: Vec<Message>) -> Result<Vec<TokenId>, Error> {
    let messages: Vec<ChatMessage> = messages
        .into_iter()
        .map(|message| ChatMessage {
            role: message.role,
            content: message.content,
        })
        .collect();
    // Special tokens come from the template alone: no message can end its own turn.
    model
        .encode_chat(&messages, true)
        .map_err(|error| refuse(ErrorCode::UnsupportedOperation, chain(&error)))
}

/// Tokens from a guest, if all of them are the model's.
pub(crate) fn check_ids(model: &Model, tokens: &[u32]) -> Result<Vec<TokenId>, Error> {
    let vocabulary = model.tokenizer().len();
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        Some(token) => Err(refuse(
            ErrorCode::InvalidArgument,
            format!("token {token} is not in the model's vocabulary of {vocabulary}"),
        )),
        None => Ok(tokens.iter().map(|token| TokenId(*token)).collect()),
    }
}
