//! `VerifiedJob` → `SandboxedJob` → `Outcome`: compiled, then run under every limit.
//!
//! In: a verified job, a source of models, somebody who listens. Out: what the job put
//! out, how it ended and what it used. A guest reaches nothing but what `imports.rs`
//! lists; time, memory, tables, output, inference and host calls all have a ceiling.

mod bindings;
mod compile;
mod embeddings;
mod engine;
mod guest;
pub(crate) mod imports;
mod limiter;
mod llm;
mod models;
mod nn;
mod output;
mod sessions;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tussah_inference::{CancelToken, Model};
use tussah_manifest::{
    Digest, Domain, ExitStatus, LimitHit, Limits, Manifest, Request, Transcript, Trap,
};
use wasmtime::Store;

use crate::{Fault, SharedEvents, VerifiedJob};
use bindings::{Job, JobPre};
pub use engine::{Allocation, Runtime, RuntimeConfig, RuntimeError};
pub(crate) use engine::{WASM_ENGINE, config_digest, features};
use guest::Guest;
pub(crate) use guest::{CLOCK_POLICY, SEED_POLICY};
use limiter::Stop;
pub use limiter::Used;
use models::Models;

/// Fuel between two looks at the deadline and at cancellation: some 10 µs of wasm.
const YIELD_FUEL: u64 = 20_000;
/// Bytes a guest may pass to the host in one call, beyond its output limit.
const CALL_BYTES: u64 = 1024 * 1024;
/// Handles of resources a guest may hold.
const HANDLES_MAX: usize = 10_000;

/// Something that happens while a job is prepared and run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The module's code is being made ready: from the cache if it is there, else by the compiler.
    Compiling,
    /// The module's code is ready.
    Compiled {
        /// Whether it came from the cache.
        cached: bool,
        /// How long that took.
        took: Duration,
    },
    /// A model is being loaded.
    ModelLoading {
        /// Bytes read so far.
        done_bytes: u64,
        /// Bytes of the file.
        total_bytes: u64,
    },
    /// Tokens were read or generated.
    Tokens {
        /// Tokens of prompts read since the last event.
        prompt: u64,
        /// Tokens generated since the last event.
        generated: u64,
    },
    /// The job emitted output.
    Output(&'a [u8]),
    /// The job wrote to its standard output or error: its log, no part of its output.
    Log(&'a [u8]),
    /// The job says how far it is.
    Progress {
        /// Steps done.
        done: u64,
        /// Steps in all, if it knows.
        total: Option<u64>,
        /// What it is doing.
        note: &'a str,
    },
    /// Something to know that fails nothing.
    Warning(&'a str),
}

/// Who is told what happens. Called from the threads of the run; must return quickly.
pub trait Events: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl Events for NoEvents {
    fn event(&self, _: Event<'_>) {}
}

/// Where models come from: the host's store, with the models that are loaded already.
pub trait ModelSource: Send + Sync {
    /// Whether the model can be loaded, without loading it.
    ///
    /// # Errors
    /// [`ModelSourceError`] if it cannot.
    fn check(&self, digest: &Digest) -> Result<(), ModelSourceError>;

    /// CPU threads that inference uses here, for the receipt's evidence.
    fn threads(&self) -> u32;

    /// The model, loaded if it is not yet. Called on a thread for blocking work.
    ///
    /// # Errors
    /// [`ModelSourceError`] if it is not there, damaged, or does not fit.
    fn load(&self, digest: &Digest, events: &dyn Events) -> Result<Arc<Model>, ModelSourceError>;
}

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("model {digest} cannot be used")]
pub struct ModelSourceError {
    /// The model.
    pub digest: Digest,
    /// Why.
    #[source]
    pub reason: Box<dyn std::error::Error + Send + Sync>,
}

/// Ends a run from outside.
#[derive(Debug, Clone)]
pub struct Cancel {
    inference: CancelToken,
    notify: Arc<tokio::sync::Notify>,
}

impl Cancel {
    /// One that has not been used.
    pub fn new() -> Self {
        Self {
            inference: CancelToken::new(),
            notify: Arc::new(tokio::sync::Notify::new()),
        }
    }

    /// Ends the run at its next token, host call or fuel check; may be called twice.
    pub fn cancel(&self) {
        self.inference.cancel();
        self.notify.notify_one();
    }

    async fn cancelled(&self) {
        if !self.inference.is_cancelled() {
            self.notify.notified().await;
        }
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

/// What one run gets besides the job.
#[derive(Clone)]
pub struct Run {
    /// Where its models come from.
    pub models: Arc<dyn ModelSource>,
    /// Who is told what happens.
    pub events: Arc<dyn Events>,
    /// What ends it from outside.
    pub cancel: Cancel,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Run")
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}

/// Why a verified job could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The compiler refused the module.
    #[error("the module cannot be compiled")]
    Compile(#[source] wasmtime::Error),
    /// The module does not export what a job exports, or misuses what it imports.
    #[error(
        "the module is no job: it must export `run: func(input: list<u8>) -> result<_, job-error>` of the world tussah:job/job"
    )]
    World(#[source] wasmtime::Error),
    /// A model that the manifest names is not here.
    #[error("the manifest's model `{name}` is missing")]
    Model {
        /// The manifest's name for it.
        name: String,
        /// Why it cannot be had.
        #[source]
        reason: ModelSourceError,
    },
    /// The compiler died: a mistake of ours or the engine's.
    #[error("the compiler stopped without an answer")]
    CompilerLost,
}

impl PrepareError {
    /// Whose change would make a retry succeed.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Compile(_) | Self::World(_) => Fault::Developer,
            Self::Model { .. } | Self::CompilerLost => Fault::Provider,
        }
    }
}

/// Compiled code with its imports resolved; starting it takes microseconds.
#[derive(Clone)]
pub(crate) struct Preparation {
    pre: JobPre<Guest>,
}

/// The modules that were prepared last, the latest first.
#[derive(Default)]
pub(crate) struct Prepared(Mutex<VecDeque<(Digest, Preparation)>>);

impl Prepared {
    /// Modules that are kept; code takes memory for as long as it is here.
    const KEPT: usize = 64;

    fn get(&self, digest: &Digest) -> Option<Preparation> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == digest)?;
        let entry = kept.remove(at)?;
        let preparation = entry.1.clone();
        kept.push_front(entry);
        Some(preparation)
    }

    fn put(&self, digest: Digest, preparation: Preparation) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((digest, preparation));
        kept.truncate(Self::KEPT);
    }

    /// Whether bytes of this digest were checked and compiled before.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().any(|(known, _)| known == digest)
    }
}

/// A job that can be run: verified, compiled, its models at hand.
pub struct SandboxedJob {
    pub(crate) documents: Documents,
    preparation: Preparation,
    input: Vec<u8>,
}

impl std::fmt::Debug for SandboxedJob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SandboxedJob")
            .field("documents", &self.documents)
            .finish_non_exhaustive()
    }
}

/// What of a job its receipt names.
#[derive(Debug)]
pub(crate) struct Documents {
    pub(crate) request: Request,
    pub(crate) manifest: Manifest,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// All that the job emitted before it ended.
    pub output: Vec<u8>,
    /// How it ended.
    pub exit: ExitStatus,
    /// What to tell people about an end that is not `Done`.
    pub error: Option<GuestError>,
    /// What it wrote to its standard output and error, up to its limit.
    pub log: Vec<u8>,
    /// What it used of its limits.
    pub used: Used,
    /// How long it ran on this machine.
    pub wall: Duration,
    /// A digest of each host call.
    pub transcript: Transcript,
    /// What did its inference, if it had any.
    pub inference_engine: Option<String>,
    /// CPU threads that its inference used.
    pub inference_threads: u32,
}

/// Why a job ended without being done, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GuestError {
    /// One line, or more where the engine knows a wasm backtrace.
    pub message: String,
}

impl Runtime {
    /// Compiles a verified job, or takes its code from the cache, and looks whether its
    /// models are here.
    ///
    /// # Errors
    /// [`PrepareError`] if it cannot be run here.
    pub async fn prepare(&self, job: VerifiedJob, run: &Run) -> Result<SandboxedJob, PrepareError> {
        let VerifiedJob {
            request,
            manifest,
            module,
            input,
        } = job;
        for (name, model) in &manifest.job.models {
            run.models
                .check(&model.digest)
                .map_err(|reason| PrepareError::Model {
                    name: name.to_string(),
                    reason,
                })?;
        }
        let digest = manifest.module.digest;
        let preparation = match self.prepared.get(&digest) {
            Some(preparation) => preparation,
            None => self.compile(digest, module, &run.events).await?,
        };
        Ok(SandboxedJob {
            documents: Documents { request, manifest },
            preparation,
            input,
        })
    }

    /// Code for a module whose digest was checked; the executor's other tasks go on meanwhile.
    async fn compile(
        &self,
        digest: Digest,
        module: Vec<u8>,
        events: &SharedEvents,
    ) -> Result<Preparation, PrepareError> {
        let started = Instant::now();
        events.event(Event::Compiling);
        let (cache, engine) = (Arc::clone(&self.cache), self.engine.clone());
        let warned = Arc::clone(events);
        let compiled = tokio::task::spawn_blocking(move || {
            let mut warn = |text: String| warned.event(Event::Warning(&text));
            cache.load_or_compile(&engine, &digest, &module, &mut warn)
        });
        let (component, origin) = compiled
            .await
            .map_err(|_| PrepareError::CompilerLost)?
            .map_err(PrepareError::Compile)?;
        let cached = origin == compile::CodeOrigin::Cache;
        events.event(Event::Compiled {
            cached,
            took: started.elapsed(),
        });
        let pre = self
            .linker
            .instantiate_pre(&component)
            .map_err(PrepareError::World)?;
        let preparation = Preparation {
            pre: JobPre::new(pre).map_err(PrepareError::World)?,
        };
        self.prepared.put(digest, preparation.clone());
        Ok(preparation)
    }
}

impl SandboxedJob {
    /// Runs the job to its end, whatever that is.
    /// Another call runs it again.
    pub async fn run(&self, runtime: &Runtime, run: Run) -> Outcome {
        let Self {
            documents,
            preparation,
            input,
        } = self;
        let models = Models {
            named: documents.manifest.model_digests(),
            source: run.models,
            cancel: run.cancel.inference.clone(),
            engine: None,
        };
        let limits = &documents.manifest.job.limits;
        let nonce = &documents.request.body.nonce;
        let guest = Guest::new(limits, nonce, models, run.events);
        execute(runtime, preparation, guest, limits, input, &run.cancel).await
    }
}

/// How a run came to an end, as the executor sees it.
enum End {
    Returned(wasmtime::Result<Result<(), bindings::JobError>>),
    Cancelled,
    TimeUp,
}

/// One run of prepared code: a fresh store, one call, and the store is gone.
async fn execute(
    runtime: &Runtime,
    preparation: &Preparation,
    guest: Guest,
    limits: &Limits,
    input: &[u8],
    cancel: &Cancel,
) -> Outcome {
    let started = Instant::now();
    // Inference that runs on another thread stops when this future is dropped.
    let _stop_inference = StopOnDrop(guest.models.cancel.clone());
    let mut store = new_store(runtime, guest, limits);
    let end = {
        let call = async {
            let job: Job = preparation.pre.instantiate_async(&mut store).await?;
            job.call_run(&mut store, input).await
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => End::Cancelled,
            end = tokio::time::timeout(Duration::from_millis(limits.wall_ms_max), call) => {
                end.map_or(End::TimeUp, End::Returned)
            }
        }
    };
    let fuel_left = store.get_fuel().unwrap_or(0);
    let guest = store.into_data();
    let (exit, error) = exit_of(end, &guest, limits);
    let used = Used {
        fuel: limits.fuel_max.saturating_sub(fuel_left),
        host_calls: guest.transcript.calls().len() as u64,
        ..guest.limiter.used()
    };
    Outcome {
        exit,
        error,
        log: guest.log(),
        used,
        wall: started.elapsed(),
        inference_threads: guest.models.source.threads(),
        inference_engine: guest.models.engine,
        output: guest.output,
        transcript: guest.transcript,
    }
}

/// A store with every limit set.
fn new_store(runtime: &Runtime, guest: Guest, limits: &Limits) -> Store<Guest> {
    let mut store = Store::new(&runtime.engine, guest);
    store.limiter(|guest| &mut guest.limiter);
    let call_bytes = limits
        .output_bytes_max
        .max(limits.input_bytes_max)
        .saturating_add(CALL_BYTES);
    store.set_hostcall_fuel(usize::try_from(call_bytes).unwrap_or(usize::MAX));
    store.set_max_component_handles(HANDLES_MAX);
    // Both fail only on engines without fuel, and ours always has it.
    let fuel = store.set_fuel(limits.fuel_max);
    let interval = store.fuel_async_yield_interval(Some(YIELD_FUEL));
    assert!(
        fuel.is_ok() && interval.is_ok(),
        "the engine is configured with fuel"
    );
    store
}

struct StopOnDrop(CancelToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The exit status of an end, and what to tell people about it.
fn exit_of(end: End, guest: &Guest, limits: &Limits) -> (ExitStatus, Option<GuestError>) {
    let told = |exit, message: String| (exit, Some(GuestError { message }));
    match end {
        End::Returned(Ok(Ok(()))) => (ExitStatus::Done, None),
        End::Returned(Ok(Err(error))) => {
            let message = Digest::salted(&guest.salt, Domain::JobError, error.message.as_bytes());
            let exit = ExitStatus::JobError {
                code: error.code,
                message,
            };
            told(
                exit,
                format!("the job failed: {} (code {})", error.message, error.code),
            )
        }
        End::Returned(Err(error)) => exit_of_trap(&error, limits),
        End::Cancelled => told(ExitStatus::Cancelled, "the job was cancelled".into()),
        End::TimeUp => told(
            ExitStatus::DeadlineExceeded,
            format!(
                "the job ran for {} ms, all that limits.wall_ms_max allows",
                limits.wall_ms_max
            ),
        ),
    }
}

fn exit_of_trap(error: &wasmtime::Error, limits: &Limits) -> (ExitStatus, Option<GuestError>) {
    let told = |exit, message: String| (exit, Some(GuestError { message }));
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Limit(limit) => told(
                ExitStatus::LimitHit { limit: *limit },
                limit_message(*limit, limits),
            ),
            Stop::Cancelled => told(ExitStatus::Cancelled, "the job was cancelled".into()),
            Stop::HostFailure => told(
                ExitStatus::HostFailure,
                format!("the host failed: {error:#}"),
            ),
        };
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return match exit.0 {
            0 => (ExitStatus::Done, None),
            code => told(
                ExitStatus::Trapped { trap: Trap::Exited },
                format!("the job ended its process with code {code} instead of returning"),
            ),
        };
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::OutOfFuel) => {
            let limit = LimitHit::Fuel;
            told(ExitStatus::LimitHit { limit }, limit_message(limit, limits))
        }
        Some(trap) => told(
            ExitStatus::Trapped {
                trap: trap_code(*trap),
            },
            format!("the job trapped: {trap}\n{error}"),
        ),
        None => told(
            ExitStatus::Trapped {
                trap: Trap::HostCallMisused,
            },
            format!(
                "the job misused a host call: {}\n{error}",
                error.root_cause()
            ),
        ),
    }
}

fn limit_message(limit: LimitHit, limits: &Limits) -> String {
    let name = limit.name();
    let allowed = tussah_manifest::Limits::FIELDS
        .iter()
        .find(|field| field.name == name)
        .map_or_else(String::new, |field| {
            format!(" of {} {}", (field.get)(limits), field.unit.plural())
        });
    format!(
        "the job reached its limit{allowed} (limits.{name}); raise it in the job's tussah.toml, or do less"
    )
}

/// Wasmtime's traps in the receipt's words.
fn trap_code(trap: wasmtime::Trap) -> Trap {
    use wasmtime::Trap as W;
    match trap {
        W::UnreachableCodeReached => Trap::Unreachable,
        W::MemoryOutOfBounds | W::HeapMisaligned => Trap::MemoryOutOfBounds,
        W::TableOutOfBounds => Trap::TableOutOfBounds,
        W::IndirectCallToNull => Trap::IndirectCallToNull,
        W::BadSignature => Trap::BadSignature,
        W::IntegerOverflow => Trap::IntegerOverflow,
        W::IntegerDivisionByZero => Trap::DivisionByZero,
        W::BadConversionToInteger => Trap::BadConversionToInteger,
        W::StackOverflow => Trap::StackOverflow,
        _ => Trap::Other,
    }
}
