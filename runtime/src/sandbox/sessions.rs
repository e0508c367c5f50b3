//! Sessions of a job with its models: opened, run off the executor, and counted.
//!
//! In: checked tokens and options. Out: tokens and text, with their memory and inference
//! units charged to the job. Units are looked at before a step is taken, so that nothing is
//! computed that the job's limit does not cover; a job that is dropped stops its inference
//! at the next token or chunk.

use std::{sync::Arc, time::Duration};

use tussah_inference::{
    Chunk, Model, Sampling, Session, SessionError, SessionOptions, StopStrings, TextStream, TokenId,
};
use tussah_manifest::LimitHit;
use wasmtime::component::Resource;

use super::{
    Event,
    bindings::tussah::job::types::ErrorCode,
    guest::Guest,
    limiter::Stop,
    models::{Answer, blocking, chain, refuse},
};

/// A guest's handle of a session.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct SessionEntry {
    /// Away while a call works on it; a guest that is single-threaded cannot see that.
    active: Option<Box<Active>>,
    memory_bytes: u64,
}

impl SessionEntry {
    pub(crate) fn active(&self) -> Result<&Active, Stop> {
        self.active.as_deref().ok_or(Stop::HostFailure)
    }
}

/// A session with the text it is making.
pub(crate) struct Active {
    pub(crate) session: Session,
    pub(crate) stream: TextStream,
}

/// How a session is opened, as a guest says it.
pub(crate) struct Opening {
    /// None is as many as the model and the job's memory allow.
    pub(crate) context_tokens_max: Option<u32>,
    pub(crate) sampling: Sampling,
    /// Mixed into the request's seed.
    pub(crate) seed: u64,
    /// None is no limit but the context.
    pub(crate) generated_tokens_max: Option<u32>,
    pub(crate) stop: Vec<String>,
}

impl Guest {
    pub(crate) async fn open_session(
        &mut self,
        model: &Arc<Model>,
        opening: Opening,
    ) -> Answer<Resource<SessionEntry>> {
        let invalid = |error: &dyn std::error::Error| {
            Ok(Err(refuse(ErrorCode::InvalidArgument, chain(error))))
        };
        if let Err(error) = opening.sampling.check() {
            return invalid(&error);
        }
        let stops = match StopStrings::new(opening.stop) {
            Ok(stops) => stops,
            Err(error) => return invalid(&error),
        };
        let context = match self.context_for(model, opening.context_tokens_max) {
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
            sampling: opening.sampling,
            seed: session_seed(self.seed(), opening.seed),
            cancel: self.models.cancel.clone(),
        };
        let (model, scope) = (Arc::clone(model), self.models.scope.clone());
        let opened = blocking(move || Session::open_in(&model, session_options, &scope)).await?;
        let session = match opened {
            Ok(session) => session,
            Err(error) => {
                self.limiter.release_model_memory(memory_bytes);
                return Ok(Err(self.models.guest_error(error)?));
            }
        };
        let tokens_max = opening.generated_tokens_max.unwrap_or(u32::MAX);
        let stream = TextStream::new(stops, tokens_max);
        Ok(Ok(self.table().push(SessionEntry {
            active: Some(Box::new(Active { session, stream })),
            memory_bytes,
        })?))
    }

    /// The context to reserve: what was asked for, or all that the model and the limit allow.
    fn context_for(
        &self,
        model: &Model,
        wanted: Option<u32>,
    ) -> Result<u32, super::bindings::tussah::job::types::Error> {
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

    /// Lends a session to blocking work, counts what it used, and puts it back.
    pub(crate) async fn with_session<T: Send + 'static>(
        &mut self,
        handle: &Resource<SessionEntry>,
        work: impl FnOnce(&mut Active) -> Result<T, SessionError> + Send + 'static,
    ) -> Answer<T> {
        let entry = self.table().get_mut(handle)?;
        let mut active = entry.active.take().ok_or(Stop::HostFailure)?;
        let before = active.session.usage();
        let time_before = active.session.gpu_time();
        // Not known if the job ends before the work does.
        let gpu_time = self.models.gpu_time.take();
        let (active, result) = blocking(move || {
            let result = work(&mut active);
            (active, result)
        })
        .await?;
        let after = active.session.usage();
        self.models.gpu_time = match active.session.model().info().gpu {
            None => gpu_time,
            Some(_) => sum(gpu_time, time_before, active.session.gpu_time()),
        };
        self.table().get_mut(handle)?.active = Some(active);
        self.limiter
            .add_inference_units(after.inference_units - before.inference_units)?;
        let prompt = after.prompt_tokens - before.prompt_tokens;
        let generated = after.generated_tokens - before.generated_tokens;
        self.events.event(Event::Tokens { prompt, generated });
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(error) => Ok(Err(self.models.guest_error(error)?)),
        }
    }

    /// Ends the job before a step that the rest of its inference units does not cover.
    ///
    /// `takes_a_token`: without room for it the step is refused, and costs nothing.
    pub(crate) fn check_step(
        &mut self,
        handle: &Resource<SessionEntry>,
        takes_a_token: bool,
    ) -> wasmtime::Result<()> {
        let session = &self.table().get(handle)?.active()?.session;
        if takes_a_token && session.position() >= session.context_tokens_max() {
            return Ok(());
        }
        let units = session.inference_units_of_next();
        Ok(self.limiter.check_inference_units(units)?)
    }

    /// Appends tokens and says how many.
    pub(crate) async fn append(
        &mut self,
        handle: &Resource<SessionEntry>,
        tokens: Vec<TokenId>,
    ) -> Answer<u32> {
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let session = &self.table().get(handle)?.active()?.session;
        // What does not fit is refused without being run.
        if count <= session.context_tokens_max() - session.position() {
            let units = session.inference_units_for(tokens.len());
            self.limiter.check_inference_units(units)?;
        }
        let answer = self
            .with_session(handle, move |active| active.session.append(&tokens))
            .await?;
        Ok(answer.map(|()| count))
    }

    /// The next piece of text; none after the end.
    pub(crate) async fn next_chunk(
        &mut self,
        handle: &Resource<SessionEntry>,
    ) -> Answer<Option<Chunk>> {
        let left = self.limiter.inference_units_left();
        let answer = self.with_session(handle, move |active| next_within(active, left));
        match answer.await? {
            Ok(Some(chunk)) => Ok(Ok(chunk)),
            Ok(None) => Err(Stop::Limit(LimitHit::InferenceUnits).into()),
            Err(error) => Ok(Err(error)),
        }
    }

    /// A second session that goes on from here.
    pub(crate) async fn fork_session(
        &mut self,
        handle: &Resource<SessionEntry>,
    ) -> Answer<Resource<SessionEntry>> {
        let memory_bytes = self.table().get(handle)?.memory_bytes;
        if let Err(free) = self.limiter.hold_model_memory(memory_bytes) {
            return Ok(Err(refuse(
                ErrorCode::LimitExceeded,
                format!(
                    "a fork takes {memory_bytes} bytes, {free} are left of limits.model_memory_bytes_max"
                ),
            )));
        }
        let forked = self
            .with_session(handle, |active| {
                let session = active.session.fork()?;
                Ok(Active {
                    session,
                    stream: active.stream.clone(),
                })
            })
            .await?;
        match forked {
            Ok(active) => Ok(Ok(self.table().push(SessionEntry {
                active: Some(Box::new(active)),
                memory_bytes,
            })?)),
            Err(error) => {
                self.limiter.release_model_memory(memory_bytes);
                Ok(Err(error))
            }
        }
    }

    pub(crate) fn session_model(
        &mut self,
        handle: &Resource<SessionEntry>,
    ) -> wasmtime::Result<Arc<Model>> {
        let active = self.table().get(handle)?.active()?;
        Ok(Arc::clone(active.session.model()))
    }

    /// Closes a session and gives its memory back.
    pub(crate) fn close_session(&mut self, handle: Resource<SessionEntry>) -> wasmtime::Result<()> {
        let entry = self.table().delete(handle)?;
        self.limiter.release_model_memory(entry.memory_bytes);
        Ok(())
    }
}

/// A sum with what came to it, where all of it is known.
fn sum(
    all: Option<Duration>,
    before: Option<Duration>,
    after: Option<Duration>,
) -> Option<Duration> {
    Some(all? + after?.checked_sub(before?)?)
}

/// The next piece of text, or none if it would take more than `units_left`.
fn next_within(
    active: &mut Active,
    units_left: u64,
) -> Result<Option<Option<Chunk>>, SessionError> {
    let Active { session, stream } = active;
    let begun = session.usage().inference_units;
    let mut chunk = Chunk::default();
    while chunk.text.is_empty() {
        let used = session.usage().inference_units - begun;
        if used.saturating_add(stream.inference_units_of_step(session)) > units_left {
            return Ok(None);
        }
        let Some(step) = stream.step(session)? else {
            break;
        };
        chunk.text = step.text;
        chunk.tokens.extend(step.tokens);
    }
    Ok(Some((chunk != Chunk::default()).then_some(chunk)))
}

/// The seed of a session: the request's, with the guest's number.
fn session_seed(seed: &[u8; 32], number: u64) -> [u8; 32] {
    let mut material = [0; 40];
    material[..32].copy_from_slice(seed);
    material[32..].copy_from_slice(&number.to_le_bytes());
    blake3::derive_key("tussah 2026-11 session seed v1", &material)
}
