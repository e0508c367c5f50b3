//! `tussah:job/llm`: sessions with the models that the manifest names.
//!
//! In: names, text, tokens, options from the guest, none of it trusted. Out: tokens and
//! text. The arithmetic runs on threads for blocking work, so that a job that waits for
//! inference never holds a thread of the executor; a job that is dropped stops its
//! inference at the next token or chunk. Sessions count against the job's model memory and
//! inference units, from shapes alone.

use std::{collections::BTreeMap, sync::Arc};

use tussah_inference::{
    AddBos, BackendError, CancelToken, ChatMessage, EncodeOptions, FinishReason, Model, Sampling,
    Session, SessionError, SessionOptions, StopStrings, TextStream, TokenId,
};
use tussah_manifest::{Digest, ModelName};
use wasmtime::component::Resource;

use super::{
    Event, ModelSource,
    bindings::tussah::job::{
        llm::{self, Message},
        types::{Error, ErrorCode},
    },
    guest::Guest,
    limiter::Stop,
};

/// Candidates a guest may ask for at once.
const CANDIDATES_MAX: u32 = 1024;

/// The models that one job may load.
pub(crate) struct Models {
    /// Name in the manifest → digest of the model file.
    pub(crate) named: BTreeMap<ModelName, Digest>,
    pub(crate) source: Arc<dyn ModelSource>,
    /// Stops this job's inference.
    pub(crate) cancel: CancelToken,
    /// What did its inference, for the receipt's evidence; none before a model is loaded.
    pub(crate) engine: Option<String>,
}

/// A guest's handle of a loaded model.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct ModelEntry {
    model: Arc<Model>,
}

/// A guest's handle of a session.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct SessionEntry {
    /// Away while a call works on it; a guest that is single-threaded cannot see that.
    active: Option<Box<Active>>,
    memory_bytes: u64,
}

/// A session with the text it is making.
struct Active {
    session: Session,
    stream: TextStream,
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

fn refuse(code: ErrorCode, message: impl Into<String>) -> Error {
    Error {
        code,
        message: message.into(),
    }
}

/// Maps an error of inference to one of the guest's, or ends the job where it is the host's.
fn guest_error(error: SessionError) -> wasmtime::Result<Error> {
    let code = match &error {
        SessionError::ContextFull { .. } => ErrorCode::ContextFull,
        SessionError::Backend(BackendError::OutOfMemory { .. }) => ErrorCode::OutOfMemory,
        SessionError::Backend(_) | SessionError::Failed => ErrorCode::ModelFailed,
        SessionError::Cancelled => return Err(Stop::Cancelled.into()),
        SessionError::Unsupported { .. } => ErrorCode::UnsupportedOperation,
        SessionError::ContextSize { .. }
        | SessionError::UnknownToken { .. }
        | SessionError::Empty
        | SessionError::Sampling(_) => ErrorCode::InvalidArgument,
    };
    Ok(refuse(code, chain(&error)))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs blocking work off the executor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> wasmtime::Result<T> {
    // A panic is a mistake of ours; it ends this job and nothing else.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Stop::HostFailure.into())
}

impl Guest {
    fn model(&mut self, handle: &Resource<ModelEntry>) -> wasmtime::Result<Arc<Model>> {
        Ok(Arc::clone(&self.table().get(handle)?.model))
    }

    /// Lends a session to blocking work, counts what it used, and puts it back.
    async fn with_session<T: Send + 'static>(
        &mut self,
        handle: &Resource<SessionEntry>,
        work: impl FnOnce(&mut Active) -> Result<T, SessionError> + Send + 'static,
    ) -> Answer<T> {
        let entry = self.table().get_mut(handle)?;
        let mut active = entry.active.take().ok_or(Stop::HostFailure)?;
        let before = active.session.usage();
        let (active, result) = blocking(move || {
            let result = work(&mut active);
            (active, result)
        })
        .await?;
        let after = active.session.usage();
        self.table().get_mut(handle)?.active = Some(active);
        self.limiter
            .add_inference_units(after.inference_units - before.inference_units)?;
        let prompt = after.prompt_tokens - before.prompt_tokens;
        let generated = after.generated_tokens - before.generated_tokens;
        self.events.event(Event::Tokens { prompt, generated });
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(error) => Ok(Err(guest_error(error)?)),
        }
    }

    /// Appends tokens and says how many.
    async fn append(
        &mut self,
        handle: &Resource<SessionEntry>,
        tokens: Vec<TokenId>,
    ) -> Answer<u32> {
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let answer = self
            .with_session(handle, move |active| active.session.append(&tokens))
            .await?;
        Ok(answer.map(|()| count))
    }

    fn session_model(&mut self, handle: &Resource<SessionEntry>) -> wasmtime::Result<Arc<Model>> {
        let active = self
            .table()
            .get(handle)?
            .active
            .as_ref()
            .ok_or(Stop::HostFailure)?;
        Ok(Arc::clone(active.session.model()))
    }

    fn record_answer<T>(
        &mut self,
        call: &str,
        arguments: &[u8],
        answer: &Result<T, Error>,
        results: impl FnOnce(&T) -> Vec<u8>,
    ) -> Result<(), Stop> {
        let results = match answer {
            Ok(value) => results(value),
            Err(error) => vec![0xff, error.code as u8],
        };
        self.record(call, arguments, &results)
    }
}

fn encode_text(model: &Model, text: &str) -> Result<Vec<TokenId>, Error> {
    let options = EncodeOptions {
        add_bos: AddBos::Never,
        parse_special: false,
    };
    model
        .tokenizer()
        .encode(text, options)
        .map_err(|error| refuse(ErrorCode::InvalidArgument, chain(&error)))
}

fn encode_chat(model: &Model, messages: Vec<Message>) -> Result<Vec<TokenId>, Error> {
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

fn token_bytes(tokens: &[TokenId]) -> Vec<u8> {
    tokens
        .iter()
        .flat_map(|token| token.0.to_le_bytes())
        .collect()
}

fn chat_bytes(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in messages
        .iter()
        .flat_map(|message| [&message.role, &message.content])
    {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn check_ids(model: &Model, tokens: &[u32]) -> Result<Vec<TokenId>, Error> {
    let vocabulary = model.tokenizer().len();
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        Some(token) => Err(refuse(
            ErrorCode::InvalidArgument,
            format!("token {token} is not in the model's vocabulary of {vocabulary}"),
        )),
        None => Ok(tokens.iter().map(|token| TokenId(*token)).collect()),
    }
}

impl llm::HostModel for Guest {
    async fn load(&mut self, name: String) -> Answer<Resource<ModelEntry>> {
        let digest = name
            .parse()
            .ok()
            .and_then(|name: ModelName| self.models.named.get(&name).copied());
        let Some(digest) = digest else {
            let known: Vec<_> = self.models.named.keys().map(ToString::to_string).collect();
            let message = format!(
                "the manifest names no model `{name}`; it names: {}",
                known.join(", ")
            );
            return Ok(Err(refuse(ErrorCode::UnknownModel, message)));
        };
        let (source, events) = (Arc::clone(&self.models.source), Arc::clone(&self.events));
        let loaded = blocking(move || source.load(&digest, events.as_ref())).await?;
        let model = match loaded {
            Ok(model) => model,
            // Which machine has how much memory is no result of the job's: it ends here.
            Err(error) => return Err(wasmtime::Error::new(error).context(Stop::HostFailure)),
        };
        self.record("llm#model.load", name.as_bytes(), digest.as_bytes())?;
        self.models.engine = Some(model.info().engine.clone());
        Ok(Ok(self.table().push(ModelEntry { model })?))
    }

    fn info(&mut self, handle: Resource<ModelEntry>) -> wasmtime::Result<llm::ModelInfo> {
        let model = self.model(&handle)?;
        let info = model.info();
        Ok(llm::ModelInfo {
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            context_tokens_max: info.context_tokens_max,
            vocabulary_size: u32::try_from(model.tokenizer().len()).unwrap_or(u32::MAX),
        })
    }

    async fn tokenize(&mut self, handle: Resource<ModelEntry>, text: String) -> Answer<Vec<u32>> {
        let model = self.model(&handle)?;
        let (text, answer) = blocking(move || {
            let answer = encode_text(&model, &text);
            (text, answer)
        })
        .await?;
        self.record_answer("llm#model.tokenize", text.as_bytes(), &answer, |t| {
            token_bytes(t)
        })?;
        Ok(answer.map(|tokens| tokens.into_iter().map(|token| token.0).collect()))
    }

    async fn detokenize(
        &mut self,
        handle: Resource<ModelEntry>,
        tokens: Vec<u32>,
    ) -> Answer<Vec<u8>> {
        let model = self.model(&handle)?;
        let answer = check_ids(&model, &tokens).map(|tokens| {
            let tokenizer = model.tokenizer();
            tokens
                .iter()
                .flat_map(|token| tokenizer.token_bytes(*token).to_vec())
                .collect::<Vec<u8>>()
        });
        let arguments: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        self.record_answer("llm#model.detokenize", &arguments, &answer, Clone::clone)?;
        Ok(answer)
    }

    async fn count_chat_tokens(
        &mut self,
        handle: Resource<ModelEntry>,
        messages: Vec<Message>,
    ) -> Answer<u32> {
        let model = self.model(&handle)?;
        let arguments = chat_bytes(&messages);
        let answer = blocking(move || encode_chat(&model, messages)).await?;
        let answer = answer.map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        self.record_answer("llm#model.count-chat-tokens", &arguments, &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer)
    }

    async fn session(
        &mut self,
        handle: Resource<ModelEntry>,
        options: llm::SessionOptions,
    ) -> Answer<Resource<SessionEntry>> {
        let model = self.model(&handle)?;
        let arguments = options_bytes(&options);
        let answer = self.open_session(&model, options).await?;
        self.record_answer("llm#model.session", &arguments, &answer, |_| vec![])?;
        match answer {
            Ok(entry) => Ok(Ok(self.table().push(entry)?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn drop(&mut self, handle: Resource<ModelEntry>) -> wasmtime::Result<()> {
        self.table().delete(handle)?;
        Ok(())
    }
}

fn options_bytes(options: &llm::SessionOptions) -> Vec<u8> {
    let sampling = &options.sampling;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&options.context_tokens_max.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&options.generated_tokens_max.to_le_bytes());
    for value in [
        sampling.temperature.to_bits(),
        sampling.top_k,
        sampling.top_p.to_bits(),
        sampling.min_p.to_bits(),
        sampling.repetition_penalty.to_bits(),
    ] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&sampling.seed.to_le_bytes());
    for stop in &options.stop {
        bytes.extend_from_slice(&(stop.len() as u64).to_le_bytes());
        bytes.extend_from_slice(stop.as_bytes());
    }
    bytes
}

impl Guest {
    async fn open_session(
        &mut self,
        model: &Arc<Model>,
        options: llm::SessionOptions,
    ) -> Answer<SessionEntry> {
        let (sampling, stops) = match check_options(&options) {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        let context = match self.context_for(model, options.context_tokens_max) {
            Ok(context) => context,
            Err(error) => return Ok(Err(error)),
        };
        let memory_bytes = Session::memory_bytes_for(model, context);
        if let Err(free) = self.limiter.hold_model_memory(memory_bytes) {
            return Ok(Err(refuse(
                ErrorCode::LimitExceeded,
                format!(
                    "a context of {context} tokens takes {memory_bytes} bytes, {free} are left of \
                     limits.model_memory_bytes_max: ask for a smaller context or raise the limit"
                ),
            )));
        }
        let session_options = SessionOptions {
            context_tokens_max: context,
            sampling,
            seed: session_seed(self.seed(), options.sampling.seed),
            cancel: self.models.cancel.clone(),
        };
        let model = Arc::clone(model);
        let opened = blocking(move || Session::open(&model, session_options)).await?;
        let session = match opened {
            Ok(session) => session,
            Err(error) => {
                self.limiter.release_model_memory(memory_bytes);
                return Ok(Err(guest_error(error)?));
            }
        };
        let tokens_max = match options.generated_tokens_max {
            0 => u32::MAX,
            tokens => tokens,
        };
        let stream = TextStream::new(stops, tokens_max);
        Ok(Ok(SessionEntry {
            active: Some(Box::new(Active { session, stream })),
            memory_bytes,
        }))
    }

    /// The context to reserve: what was asked for, or all that the model and the limit allow.
    fn context_for(&self, model: &Model, wanted: Option<u32>) -> Result<u32, Error> {
        let most = model.info().context_tokens_max;
        match wanted {
            Some(0) => Err(refuse(
                ErrorCode::InvalidArgument,
                "a context has at least 1 token",
            )),
            Some(tokens) if tokens > most => Err(refuse(
                ErrorCode::InvalidArgument,
                format!(
                    "a context of {tokens} tokens was asked for, the model was made for {most}"
                ),
            )),
            Some(tokens) => Ok(tokens),
            None => {
                let free = self.limiter.model_memory_free();
                let (mut fits, mut over) = (1, most.saturating_add(1));
                while over - fits > 1 {
                    let middle = fits + (over - fits) / 2;
                    if Session::memory_bytes_for(model, middle) <= free {
                        fits = middle;
                    } else {
                        over = middle;
                    }
                }
                Ok(fits)
            }
        }
    }
}

fn check_options(options: &llm::SessionOptions) -> Result<(Sampling, StopStrings), Error> {
    let sampling = Sampling {
        temperature: options.sampling.temperature,
        top_k: options.sampling.top_k,
        top_p: options.sampling.top_p,
        min_p: options.sampling.min_p,
        repetition_penalty: options.sampling.repetition_penalty,
    };
    sampling
        .check()
        .map_err(|error| refuse(ErrorCode::InvalidArgument, chain(&error)))?;
    let stops = StopStrings::new(options.stop.clone())
        .map_err(|error| refuse(ErrorCode::InvalidArgument, chain(&error)))?;
    Ok((sampling, stops))
}

/// The seed of a session: the request's, with the guest's number.
fn session_seed(seed: &[u8; 32], number: u64) -> [u8; 32] {
    let mut material = [0; 40];
    material[..32].copy_from_slice(seed);
    material[32..].copy_from_slice(&number.to_le_bytes());
    blake3::derive_key("tussah 2026-11 session seed v1", &material)
}

impl llm::HostSession for Guest {
    async fn append_text(&mut self, handle: Resource<SessionEntry>, text: String) -> Answer<u32> {
        let model = self.session_model(&handle)?;
        let (text, encoded) = blocking(move || {
            let encoded = encode_text(&model, &text);
            (text, encoded)
        })
        .await?;
        let answer = match encoded {
            Ok(tokens) => self.append(&handle, tokens).await?,
            Err(error) => Err(error),
        };
        self.record_answer("llm#session.append-text", text.as_bytes(), &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer)
    }

    async fn append_tokens(
        &mut self,
        handle: Resource<SessionEntry>,
        tokens: Vec<u32>,
    ) -> Answer<()> {
        let model = self.session_model(&handle)?;
        let arguments: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        let answer = match check_ids(&model, &tokens) {
            Ok(tokens) => self.append(&handle, tokens).await?,
            Err(error) => Err(error),
        };
        self.record_answer("llm#session.append-tokens", &arguments, &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer.map(|_| ()))
    }

    async fn append_chat(
        &mut self,
        handle: Resource<SessionEntry>,
        messages: Vec<Message>,
    ) -> Answer<u32> {
        let model = self.session_model(&handle)?;
        let arguments = chat_bytes(&messages);
        let answer = match blocking(move || encode_chat(&model, messages)).await? {
            Ok(tokens) => self.append(&handle, tokens).await?,
            Err(error) => Err(error),
        };
        self.record_answer("llm#session.append-chat", &arguments, &answer, |n| {
            n.to_le_bytes().to_vec()
        })?;
        Ok(answer)
    }

    async fn next(&mut self, handle: Resource<SessionEntry>) -> Answer<Option<llm::Chunk>> {
        let answer = self
            .with_session(&handle, |active| active.stream.next(&mut active.session))
            .await?
            .map(|chunk| {
                chunk.map(|chunk| llm::Chunk {
                    text: chunk.text,
                    tokens: chunk.tokens.iter().map(|token| token.0).collect(),
                })
            });
        self.record_answer("llm#session.next", &[], &answer, |chunk| {
            chunk.as_ref().map_or_else(Vec::new, |chunk| {
                chunk
                    .tokens
                    .iter()
                    .flat_map(|token| token.to_le_bytes())
                    .collect()
            })
        })?;
        Ok(answer)
    }

    fn finish_reason(
        &mut self,
        handle: Resource<SessionEntry>,
    ) -> wasmtime::Result<Option<llm::FinishReason>> {
        let active = self
            .table()
            .get(&handle)?
            .active
            .as_ref()
            .ok_or(Stop::HostFailure)?;
        Ok(active.stream.finish_reason().map(|reason| match reason {
            FinishReason::EndOfText => llm::FinishReason::EndOfText,
            FinishReason::Stop => llm::FinishReason::Stop,
            FinishReason::Length => llm::FinishReason::Length,
        }))
    }

    async fn candidates(
        &mut self,
        handle: Resource<SessionEntry>,
        k: u32,
    ) -> Answer<Vec<llm::Candidate>> {
        let model = self.session_model(&handle)?;
        let answer = if (1..=CANDIDATES_MAX).contains(&k) {
            self.with_session(&handle, move |active| active.session.candidates(k as usize))
                .await?
        } else {
            let message = format!("{k} candidates were asked for, 1 to {CANDIDATES_MAX} can be");
            Err(refuse(ErrorCode::InvalidArgument, message))
        };
        let answer = answer.map(|candidates| {
            let tokenizer = model.tokenizer();
            candidates
                .into_iter()
                .map(|candidate| llm::Candidate {
                    token: candidate.token.0,
                    bytes: tokenizer.token_bytes(candidate.token).to_vec(),
                    logit: candidate.logit,
                })
                .collect::<Vec<_>>()
        });
        self.record_answer(
            "llm#session.candidates",
            &k.to_le_bytes(),
            &answer,
            |candidates| {
                candidates
                    .iter()
                    .flat_map(|candidate| [candidate.token, candidate.logit.to_bits()])
                    .flat_map(u32::to_le_bytes)
                    .collect()
            },
        )?;
        Ok(answer)
    }

    async fn accept(&mut self, handle: Resource<SessionEntry>, token: u32) -> Answer<()> {
        let model = self.session_model(&handle)?;
        let answer = match check_ids(&model, &[token]) {
            Ok(_) => {
                self.with_session(&handle, move |active| active.session.accept(TokenId(token)))
                    .await?
            }
            Err(error) => Err(error),
        };
        self.record_answer(
            "llm#session.accept",
            &token.to_le_bytes(),
            &answer,
            |()| vec![],
        )?;
        Ok(answer)
    }

    async fn fork(&mut self, handle: Resource<SessionEntry>) -> Answer<Resource<SessionEntry>> {
        let memory_bytes = self.table().get(&handle)?.memory_bytes;
        let answer = if let Err(free) = self.limiter.hold_model_memory(memory_bytes) {
            Err(refuse(
                ErrorCode::LimitExceeded,
                format!(
                    "a fork takes {memory_bytes} bytes, {free} are left of limits.model_memory_bytes_max"
                ),
            ))
        } else {
            let forked = self
                .with_session(&handle, |active| {
                    let session = active.session.fork()?;
                    Ok(Active {
                        session,
                        stream: active.stream.clone(),
                    })
                })
                .await?;
            if forked.is_err() {
                self.limiter.release_model_memory(memory_bytes);
            }
            forked
        };
        self.record_answer("llm#session.fork", &[], &answer, |_| vec![])?;
        match answer {
            Ok(active) => {
                let entry = SessionEntry {
                    active: Some(Box::new(active)),
                    memory_bytes,
                };
                Ok(Ok(self.table().push(entry)?))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn usage(&mut self, handle: Resource<SessionEntry>) -> wasmtime::Result<llm::Usage> {
        let active = self
            .table()
            .get(&handle)?
            .active
            .as_ref()
            .ok_or(Stop::HostFailure)?;
        let usage = active.session.usage();
        Ok(llm::Usage {
            prompt_tokens: u32::try_from(usage.prompt_tokens).unwrap_or(u32::MAX),
            generated_tokens: u32::try_from(usage.generated_tokens).unwrap_or(u32::MAX),
            inference_units: usage.inference_units,
        })
    }

    async fn drop(&mut self, handle: Resource<SessionEntry>) -> wasmtime::Result<()> {
        let entry = self.table().delete(handle)?;
        self.limiter.release_model_memory(entry.memory_bytes);
        Ok(())
    }
}

impl llm::Host for Guest {}
