//! `VerifiedJob` → `SandboxedJob` → `Outcome`: compiled, then run under every limit.
//!
//! In: a verified job, a source of models, somebody who listens. Out: what the job put
//! out, how it ended and what it used. A guest reaches nothing but what `imports.rs`
//! lists; time, memory, tables, output, inference and host calls all have a ceiling.

mod bindings;
mod code_files;
mod compile;
mod embeddings;
mod engine;
mod exit;
mod guest;
pub(crate) mod imports;
mod limiter;
mod llm;
mod models;
mod nn;
mod output;
mod preview1;
mod sessions;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tussah_inference::{CancelToken, GpuInfo};
use tussah_manifest::{Abi, Digest, ExitStatus, Limits, Manifest, ModelRef, Request, Transcript};
use wasmtime::{InstancePre, Store};

use crate::{Fault, SharedEvents, VerifiedJob};
use bindings::{Job, JobPre};
use compile::Code;
pub use engine::{Allocation, CACHE_BYTES_MAX, Runtime, RuntimeConfig, RuntimeError};
pub(crate) use engine::{WASM_ENGINE, config_digest, features};
use exit::{End, exit_of};
use guest::Guest;
pub(crate) use guest::{CLOCK_POLICY, SEED_POLICY};
pub use limiter::Used;
pub use models::LoadedModel;
use models::Models;
use preview1::Exited;

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
    /// The job is verified and its code is ready: it runs from now on.
    Started,
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
    /// Whether the model can be loaded, if possible without loading it; its format is the
    /// manifest's word. Called on a thread for blocking work.
    ///
    /// # Errors
    /// [`ModelSourceError`] if it cannot.
    fn check(&self, model: &ModelRef) -> Result<(), ModelSourceError>;

    /// CPU threads that inference uses here, for the receipt's evidence.
    fn threads(&self) -> u32;

    /// What runs graphs of tensors here, with its version, such as `onnxruntime 1.32.0`: part of
    /// the profile of jobs that have such models. None where nothing does.
    fn graph_arithmetic(&self) -> Option<String> {
        None
    }

    /// The model, loaded if it is not yet. Called on a thread for blocking work.
    ///
    /// # Errors
    /// [`ModelSourceError`] if it is not there, damaged, or does not fit.
    fn load(&self, model: &ModelRef, events: &dyn Events) -> Result<LoadedModel, ModelSourceError>;
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

    /// What stops the run's work on other threads: cancelled with the run, and when it has ended.
    pub fn token(&self) -> CancelToken {
        self.inference.clone()
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
    /// The module cannot be started as WASI preview 1 says, or misuses what it imports.
    #[error(
        "the module is no job of abi preview1: it must export `_start` and its memory, and import WASI preview 1 and wasi-nn as they are"
    )]
    Command(#[source] wasmtime::Error),
    /// A model that the manifest names is not here, or of a format that nothing here runs.
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
    /// Whoever looks whether models are here died: a mistake of ours.
    #[error("the look for the job's models stopped without an answer")]
    CheckLost,
}

impl PrepareError {
    /// Whose change would make a retry succeed.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Compile(_) | Self::World(_) | Self::Command(_) => Fault::Developer,
            Self::Model { .. } | Self::CompilerLost | Self::CheckLost => Fault::Provider,
        }
    }
}

/// Compiled code with its imports resolved; starting it takes microseconds.
#[derive(Clone)]
pub(crate) enum Preparation {
    Component(JobPre<Guest>),
    Preview1(InstancePre<Guest>),
}

/// What prepared code is kept under: of one module, each ABI would make another job.
type PreparedKey = (Digest, Abi);

/// The modules that were prepared last, the latest first.
#[derive(Default)]
pub(crate) struct Prepared(Mutex<VecDeque<(PreparedKey, Preparation)>>);

impl Prepared {
    /// Modules that are kept; code takes memory for as long as it is here.
    const KEPT: usize = 64;

    fn get(&self, key: PreparedKey) -> Option<Preparation> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| *known == key)?;
        let entry = kept.remove(at)?;
        let preparation = entry.1.clone();
        kept.push_front(entry);
        Some(preparation)
    }

    fn put(&self, key: PreparedKey, preparation: Preparation) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, preparation));
        kept.truncate(Self::KEPT);
    }

    /// Whether bytes of this digest were checked and compiled for this ABI before.
    pub(crate) fn has(&self, digest: &Digest, abi: Abi) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().any(|(known, _)| *known == (*digest, abi))
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
    /// The GPU that a model of the job ran on, if one did.
    pub gpu: Option<GpuInfo>,
    /// Time that its sessions took on that GPU, by the GPU's own clock; `None` where there was none, where it
    /// counts no time, or where a part could not be timed: a step that failed, or one that the job's end cut off.
    pub gpu_time: Option<Duration>,
    /// Whether the job was told that this machine had no memory for its inference. Another machine might have
    /// had it, so its receipt promises no re-run.
    pub memory_was_short: bool,
    /// CPU threads that its inference used.
    pub inference_threads: u32,
    /// What runs graphs of tensors here, by [`ModelSource::graph_arithmetic`].
    pub graph_arithmetic: Option<String>,
}

/// Why a job ended without being done, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GuestError {
    /// One line, or more where the engine knows a wasm backtrace.
    pub message: String,
    /// What the job returned, if it ended with an error of its own.
    pub returned: Option<JobError>,
}

/// An error that a job returned, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// The job's code for it.
    pub code: u32,
    /// What it says.
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
        check_models(&manifest, &run.models).await?;
        let key = (manifest.module.digest, manifest.job.abi);
        let preparation = match self.prepared.get(key) {
            Some(preparation) => preparation,
            None => self.compile(key, module, &run.events).await?,
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
        key: PreparedKey,
        module: Vec<u8>,
        events: &SharedEvents,
    ) -> Result<Preparation, PrepareError> {
        let started = Instant::now();
        events.event(Event::Compiling);
        let (cache, engine) = (Arc::clone(&self.cache), self.engine.clone());
        let warned = Arc::clone(events);
        let compiled = tokio::task::spawn_blocking(move || {
            let mut warn = |text: String| warned.event(Event::Warning(&text));
            cache.load_or_compile(&engine, (&key.0, key.1), &module, &mut warn)
        });
        let (code, origin) = compiled
            .await
            .map_err(|_| PrepareError::CompilerLost)?
            .map_err(PrepareError::Compile)?;
        let cached = origin == compile::CodeOrigin::Cache;
        events.event(Event::Compiled {
            cached,
            took: started.elapsed(),
        });
        let preparation = self.link(&code)?;
        self.prepared.put(key, preparation.clone());
        Ok(preparation)
    }

    /// Resolves imports, and looks whether the code can be started.
    fn link(&self, code: &Code) -> Result<Preparation, PrepareError> {
        match code {
            Code::Component(component) => {
                let pre = self.linker.instantiate_pre(component);
                pre.and_then(JobPre::new)
                    .map(Preparation::Component)
                    .map_err(PrepareError::World)
            }
            Code::Module(module) => {
                let linker = &self.preview1_linker;
                preview1::check_exports(module)
                    .and_then(|()| linker.instantiate_pre(module))
                    .map(Preparation::Preview1)
                    .map_err(PrepareError::Command)
            }
        }
    }
}

/// Looks whether a job's models are here. Some are known only once they are loaded: the executor's
/// other tasks go on meanwhile.
async fn check_models(
    manifest: &Manifest,
    source: &Arc<dyn ModelSource>,
) -> Result<(), PrepareError> {
    for (name, model) in &manifest.job.models {
        let (source, model) = (Arc::clone(source), *model);
        let checked = tokio::task::spawn_blocking(move || source.check(&model));
        let checked = checked.await.map_err(|_| PrepareError::CheckLost)?;
        checked.map_err(|reason| PrepareError::Model {
            name: name.to_string(),
            reason,
        })?;
    }
    Ok(())
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
            named: documents.manifest.job.models.clone(),
            source: run.models,
            cancel: run.cancel.inference.clone(),
            scope: tussah_inference::Scope::new(),
            engine: None,
            gpu: None,
            gpu_time: Some(Duration::ZERO),
            memory_was_short: false,
        };
        let limits = &documents.manifest.job.limits;
        let nonce = &documents.request.body.nonce;
        let stdin = match preparation {
            Preparation::Component(_) => Vec::new(),
            Preparation::Preview1(_) => input.clone(),
        };
        let guest = Guest::new(limits, nonce, models, run.events, stdin);
        execute(runtime, preparation, guest, limits, input, &run.cancel).await
    }
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
        let call = start(preparation, &mut store, input);
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
        graph_arithmetic: guest.models.source.graph_arithmetic(),
        inference_engine: guest.models.engine,
        gpu_time: guest.models.gpu_time.filter(|_| guest.models.gpu.is_some()),
        gpu: guest.models.gpu,
        memory_was_short: guest.models.memory_was_short,
        output: guest.output,
        transcript: guest.transcript,
    }
}

/// Starts the code and waits for its end.
async fn start(
    preparation: &Preparation,
    store: &mut Store<Guest>,
    input: &[u8],
) -> wasmtime::Result<Result<(), bindings::JobError>> {
    let instance = match preparation {
        Preparation::Component(pre) => {
            let job: Job = pre.instantiate_async(&mut *store).await?;
            return job.call_run(store, input).await;
        }
        Preparation::Preview1(pre) => pre.instantiate_async(&mut *store).await?,
    };
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    let ended = start.call_async(store, ()).await;
    match ended
        .as_ref()
        .map_err(|error| error.downcast_ref::<Exited>())
    {
        Ok(()) | Err(Some(Exited(0))) => Ok(Ok(())),
        Err(Some(Exited(code))) => Ok(Err(bindings::JobError {
            code: *code,
            message: format!("it ended itself with exit code {code}"),
        })),
        Err(None) => ended.map(Ok),
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
