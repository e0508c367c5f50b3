//! Host calls, answered by the script of this thread.
//!
//! In: calls in the shape of the WIT world. Out: the script's answers, counted as the host
//! counts. Without a script every call panics and says what to do.

use std::{
    cell::{Ref, RefCell},
    fmt,
    rc::Rc,
};

pub(crate) use super::session::Session;
use super::{
    HostCall, Progress,
    script::{ScriptedModel, Stage},
    tokens::VOCABULARY,
    unscripted::{Ended, unscripted},
};
use crate::{
    Error, Message, ModelInfo,
    bindings::tussah::job::{
        llm::{OverLong, SessionOptions},
        types,
    },
    nn::Tensor,
};

/// Notes of progress are cut at so many bytes.
const NOTE_BYTES_MAX: usize = 200;
/// Texts that one call embeds.
const TEXTS_MAX: usize = 1024;

thread_local! {
    static STAGE: RefCell<Option<Rc<Stage>>> = const { RefCell::new(None) };
}

/// Puts the script before this one back, also when a test panics.
pub(super) struct Guard {
    before: Option<Rc<Stage>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        STAGE.with(|stage| *stage.borrow_mut() = self.before.take());
    }
}

pub(super) fn enter(stage: &Rc<Stage>) -> Guard {
    Guard {
        before: STAGE.with(|current| current.replace(Some(Rc::clone(stage)))),
    }
}

pub(super) fn stage() -> Rc<Stage> {
    match STAGE.with(|stage| stage.borrow().clone()) {
        Some(stage) => stage,
        None => unscripted(
            "a host call outside of a module and without a script: wrap it in \
             tussah_sdk::testing::Scripted::model(\"NAME\").run(...) or .scope(...)",
        ),
    }
}

pub(super) type Answer<T> = Result<T, types::Error>;

pub(super) fn refuse<T>(code: types::ErrorCode, message: impl Into<String>) -> Answer<T> {
    Err(types::Error {
        code,
        message: message.into(),
    })
}

/// The scripted failure of a call, if it is its turn.
pub(super) fn check(call: HostCall) -> Answer<()> {
    use crate::ErrorCode;
    let stage = stage();
    let mut calls = stage.calls.borrow_mut();
    let count = calls.entry(call).or_default();
    *count += 1;
    let mut failures = stage.failures.borrow_mut();
    let found = failures
        .iter()
        .position(|failure| failure.call == call && failure.nth.is_none_or(|nth| nth == *count));
    let Some(at) = found else {
        return Ok(());
    };
    let error = failures.remove(at).error;
    let code = match error.code() {
        ErrorCode::InvalidArgument => types::ErrorCode::InvalidArgument,
        ErrorCode::UnknownModel => types::ErrorCode::UnknownModel,
        ErrorCode::UnsupportedOperation => types::ErrorCode::UnsupportedOperation,
        ErrorCode::ContextFull => types::ErrorCode::ContextFull,
        ErrorCode::OutOfMemory => types::ErrorCode::OutOfMemory,
        ErrorCode::LimitExceeded => types::ErrorCode::LimitExceeded,
        ErrorCode::ModelFailed => types::ErrorCode::ModelFailed,
        other => panic!("no host call fails with {other:?}; script a code that the host has"),
    };
    refuse(code, error.message())
}

pub(crate) fn emit(bytes: &[u8]) -> Answer<()> {
    check(HostCall::Emit)?;
    let stage = stage();
    let mut captured = stage.captured.borrow_mut();
    let (total, most) = (captured.bytes.len() + bytes.len(), stage.output_bytes_max);
    if total > most {
        drop(captured);
        let reason =
            format!("the host ended the job: {total} bytes of output, output_bytes_max is {most}");
        std::panic::resume_unwind(Box::new(Ended(reason)));
    }
    captured.bytes.extend_from_slice(bytes);
    captured.pieces.push(bytes.len());
    Ok(())
}

pub(crate) fn progress(done: u64, total: u64, note: &str) {
    let end = note.floor_char_boundary(NOTE_BYTES_MAX);
    let note = note[..end].to_owned();
    stage()
        .captured
        .borrow_mut()
        .progress
        .push(Progress { done, total, note });
}

pub(crate) fn log(line: fmt::Arguments<'_>) {
    stage().captured.borrow_mut().log.push(line.to_string());
}

/// The same in every run, as the host's is for a request.
pub(crate) fn random() -> u64 {
    0
}

/// A scripted model.
pub(crate) struct Model {
    name: String,
    script: Rc<RefCell<ScriptedModel>>,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Model")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn scripted(name: &str) -> Answer<Rc<RefCell<ScriptedModel>>> {
    check(HostCall::Load)?;
    let stage = stage();
    match stage.models.get(name) {
        Some(script) => Ok(Rc::clone(script)),
        None => {
            let known: Vec<&str> = stage.models.keys().map(String::as_str).collect();
            let message = format!(
                "the manifest names no model `{name}`; it names: {}",
                known.join(", ")
            );
            refuse(types::ErrorCode::UnknownModel, message)
        }
    }
}

/// The tokens of messages in the template of a scripted model.
pub(super) fn chat_tokens(script: &mut ScriptedModel, messages: &[Message]) -> Answer<u32> {
    if !script.chat {
        return refuse(
            types::ErrorCode::UnsupportedOperation,
            "the model has no chat template",
        );
    }
    let tokens = messages.iter().map(|message| {
        script.vocabulary.tokenize(&message.role).len()
            + script.vocabulary.tokenize(&message.content).len()
            + 2
    });
    Ok(u32::try_from(tokens.sum::<usize>() + 2).unwrap_or(u32::MAX))
}

impl Model {
    pub(crate) fn load(name: &str) -> Answer<Self> {
        Ok(Self {
            name: name.to_owned(),
            script: scripted(name)?,
        })
    }

    fn script(&self) -> Ref<'_, ScriptedModel> {
        self.script.borrow()
    }

    pub(crate) fn info(&self) -> ModelInfo {
        ModelInfo {
            name: self.name.clone(),
            architecture: "scripted".to_owned(),
            context_tokens_max: self.script().context_tokens_max,
            vocabulary_size: VOCABULARY,
            embedding_length: self.script().embedding_length,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of the host's call")]
    pub(crate) fn tokenize(&self, text: &str) -> Answer<Vec<u32>> {
        Ok(self.script.borrow_mut().vocabulary.tokenize(text))
    }

    pub(crate) fn detokenize(&self, tokens: &[u32]) -> Answer<Vec<u8>> {
        let mut bytes = Vec::new();
        for token in tokens {
            match self.script().vocabulary.bytes(*token) {
                Some(found) => bytes.extend(found),
                None => {
                    return refuse(
                        types::ErrorCode::InvalidArgument,
                        format!("token {token} is not in the model's vocabulary"),
                    );
                }
            }
        }
        Ok(bytes)
    }

    pub(crate) fn count_chat_tokens(&self, messages: &[Message]) -> Answer<u32> {
        chat_tokens(&mut self.script.borrow_mut(), messages)
    }

    pub(crate) fn session(&self, options: &SessionOptions) -> Answer<Session> {
        check(HostCall::Open)?;
        Session::open(&self.name, &self.script, options)
    }

    pub(crate) fn embed(&self, texts: &[String], over_long: OverLong) -> Answer<Vec<Vec<f32>>> {
        check(HostCall::Embed)?;
        let mut script = self.script.borrow_mut();
        if script.embedding_length == 0 {
            return refuse(
                types::ErrorCode::UnsupportedOperation,
                format!(
                    "the model `{}` makes no embeddings: script some with .embedding(text, vector) or .embeddings_with(...)",
                    self.name
                ),
            );
        }
        if texts.len() > TEXTS_MAX {
            return refuse(
                types::ErrorCode::InvalidArgument,
                format!("{} texts, at most {TEXTS_MAX}", texts.len()),
            );
        }
        let mut vectors = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let (tokens, most) = (
                script.vocabulary.tokenize(text).len(),
                script.context_tokens_max as usize,
            );
            if tokens > most && matches!(over_long, OverLong::Refuse) {
                let message =
                    format!("text {at} has {tokens} tokens, the model was made for {most}");
                return refuse(types::ErrorCode::ContextFull, message);
            }
            let known = script.embeddings.get(text).cloned();
            let vector = known.or_else(|| script.embedder.as_mut().map(|embed| embed(text)));
            let Some(vector) = vector else {
                unscripted(&format!(
                    "the embedding of {text:?} is not scripted: add .embedding({text:?}, &[...]) to Scripted::model(\"{}\")",
                    self.name
                ));
            };
            assert_eq!(
                vector.len(),
                script.embedding_length as usize,
                "the scripted embedding of {text:?} is not as long as the others"
            );
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            vectors.push(
                vector
                    .iter()
                    .map(|value| value / length.max(f32::MIN_POSITIVE))
                    .collect(),
            );
        }
        Ok(vectors)
    }
}

/// A scripted graph.
pub(crate) struct Graph {
    name: String,
    script: Rc<RefCell<ScriptedModel>>,
}

impl fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Graph")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Graph {
    pub(crate) fn load(name: &str) -> Result<Self, Error> {
        let script = scripted(name).map_err(Error::from_host)?;
        Ok(Self {
            name: name.to_owned(),
            script,
        })
    }

    pub(crate) fn compute(
        &self,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        check(HostCall::Compute).map_err(Error::from_host)?;
        match &mut self.script.borrow_mut().computer {
            Some(compute) => compute(&inputs),
            None => unscripted(&format!(
                "the graph `{0}` has nothing to compute: add .computes(|inputs| ...) to Scripted::model(\"{0}\")",
                self.name
            )),
        }
    }
}
