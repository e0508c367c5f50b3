//! Jobs from a few lines of WebAssembly text, run on the whole road.
//!
//! In: the body of a core module's `run`. Out: what a job's owner would see.

use std::sync::{Arc, Mutex};

use tussah_inference::{
    CancelToken, LoadOptions, Model, QuantType, Sampling, Session, SessionOptions, StopStrings,
    TextStream, TokenId,
    generate::{RandomArchitecture, RandomModel, RandomShape, WeightMix},
};
use tussah_manifest::{
    Abi, Channel, Digest, JobDescription, JobName, Limits, LocalSecret, Manifest, ModelFormat,
    ModelName, ModelRef, ModuleRef, Nanograms, Nonce, Request, RequestBody, SigningKey, Version,
};
use tussah_runtime::{
    Allocation, Cancel, Event, Events, LoadedModel, ModelSource, ModelSourceError, Run, RunError,
    Runtime, RuntimeConfig, SignedRun, SubmittedJob, run_job,
};

/// Small limits, so that reaching them takes no time.
pub(crate) const LIMITS: Limits = Limits {
    fuel_max: 50_000_000,
    memory_bytes_max: 4 << 20,
    output_bytes_max: 1 << 16,
    input_bytes_max: 1 << 10,
    log_bytes_max: 1 << 10,
    host_calls_max: 1000,
    wall_ms_max: 20_000,
    ..Limits::DEFAULT
};

/// A host without models.
pub(crate) struct NoModels;

impl ModelSource for NoModels {
    fn check(&self, model: &ModelRef) -> Result<(), ModelSourceError> {
        Err(ModelSourceError {
            digest: model.digest,
            reason: "there are no models here".into(),
        })
    }

    fn threads(&self) -> u32 {
        1
    }

    fn load(&self, model: &ModelRef, _: &dyn Events) -> Result<LoadedModel, ModelSourceError> {
        Err(self.check(model).expect_err("there are none"))
    }
}

/// A host with one small model of random weights.
pub(crate) struct RandomModels {
    model: Arc<Model>,
    digest: Digest,
}

impl RandomModels {
    pub(crate) fn new() -> Self {
        let random = RandomModel {
            name: "tiny".into(),
            architecture: RandomArchitecture::Llama,
            shape: RandomShape {
                vocabulary: 512,
                layers: 1,
                embedding_length: 64,
                feed_forward_length: 64,
                heads: 2,
                kv_heads: 1,
                head_size: 32,
                context_tokens_max: 64,
                tied_head: true,
            },
            weights: WeightMix::all(QuantType::Q8_0),
            seed: 7,
        };
        let mut bytes = Vec::new();
        random
            .write(&mut bytes, &mut |_| Ok(()))
            .expect("it can be written");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, &bytes).expect("written");
        let options = LoadOptions {
            threads: 1,
            ..LoadOptions::default()
        };
        let model = Model::open(&path, &options, &mut |_| ()).expect("it is a model");
        Self::of(Arc::new(model))
    }

    /// A host with this model under a digest of its own.
    pub(crate) fn of(model: Arc<Model>) -> Self {
        let digest = Digest::of(b"a model");
        Self { model, digest }
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Maps a name to the model and signs the job anew.
    pub(crate) fn name_in(&self, job: &mut SubmittedJob, name: &str) {
        let model = ModelRef {
            digest: self.digest,
            format: ModelFormat::Gguf,
        };
        let name = ModelName::new(name).expect("a name");
        job.manifest.job.models.insert(name, model);
        job.request = request(&job.manifest, &job.input);
    }
}

/// The usual guest around a model: it reads token ids of the model `tiny` and emits the text after them.
pub(crate) fn llm_component(tokens_max: u32) -> Vec<u8> {
    let text = include_str!("llm.wat").replace("TOKENS_MAX", &tokens_max.to_string());
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// That guest's input.
pub(crate) fn llm_input(tokens: &[TokenId]) -> Vec<u8> {
    let bytes = tokens.iter().flat_map(|token| token.0.to_le_bytes());
    bytes.collect()
}

/// What that guest does, without a sandbox: the text after a prompt, and how many tokens it has.
pub(crate) fn native_text(
    model: &Arc<Model>,
    prompt: &[TokenId],
    tokens_max: u32,
) -> (String, usize) {
    let options = SessionOptions {
        context_tokens_max: model.info().context_tokens_max,
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    let mut session = Session::open(model, options).expect("a context");
    session.append(prompt).expect("it has room");
    let mut stream = TextStream::new(StopStrings::none(), tokens_max);
    let (mut text, mut tokens) = (String::new(), 0);
    while let Some(chunk) = stream.next(&mut session).expect("it generates") {
        text.push_str(&chunk.text);
        tokens += chunk.tokens.len();
    }
    (text, tokens)
}

impl ModelSource for RandomModels {
    fn check(&self, _: &ModelRef) -> Result<(), ModelSourceError> {
        Ok(())
    }

    fn threads(&self) -> u32 {
        1
    }

    fn load(&self, model: &ModelRef, _: &dyn Events) -> Result<LoadedModel, ModelSourceError> {
        assert_eq!(
            model.digest, self.digest,
            "only the manifest's models are loaded"
        );
        Ok(LoadedModel::Text(Arc::clone(&self.model)))
    }
}

/// Keeps what a listener was told.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<String>>);

impl Events for Heard {
    fn event(&self, event: Event<'_>) {
        let text = match event {
            Event::Output(bytes) => format!("output {}", String::from_utf8_lossy(bytes)),
            Event::Progress { done, total, note } => format!("progress {done} of {total:?} {note}"),
            Event::Log(bytes) => format!("log {}", String::from_utf8_lossy(bytes)),
            Event::Compiled { cached, .. } => format!("compiled, cached: {cached}"),
            Event::Warning(text) => format!("warning {text}"),
            _ => return,
        };
        self.0
            .lock()
            .expect("no test panics while it holds this")
            .push(text);
    }
}

pub(crate) fn config() -> RuntimeConfig {
    RuntimeConfig {
        allocation: Allocation::Pooled { jobs_max: 4 },
        memory_bytes_max: 64 << 20,
        cache_dir: None,
        cache_bytes_max: tussah_runtime::CACHE_BYTES_MAX,
        cache_key: [7; 32],
        host_build: "tussah-runtime tests".into(),
        arithmetic: "exact/0".into(),
    }
}

pub(crate) fn runtime() -> Runtime {
    Runtime::new(config()).expect("the engine starts")
}

pub(crate) fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

/// A component that exports `run`, around a core module.
///
/// `module` is the inside of the core module: it has the memory `mem`, the imports `emit`
/// (ptr, len, retptr), `progress`, `now`, `random`, `sleep` and must define the function
/// `$run` (ptr, len) → retptr. Address 0 holds an `ok`, address 64 an error with code 7
/// and the message at 96.
pub(crate) fn component(module: &str) -> Vec<u8> {
    let text = include_str!("component.wat").replace(";; GUEST", module);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn submit(module: Vec<u8>, limits: Limits, input: &[u8]) -> SubmittedJob {
    submit_as(Abi::Component, module, limits, input)
}

pub(crate) fn submit_as(abi: Abi, module: Vec<u8>, limits: Limits, input: &[u8]) -> SubmittedJob {
    let job = JobDescription {
        limits,
        abi,
        ..JobDescription::new(JobName::new("guest").expect("a name"))
    };
    let manifest = job.with_module(ModuleRef::of(&module));
    SubmittedJob {
        request: request(&manifest, input),
        manifest,
        module,
        input: input.to_vec(),
    }
}

pub(crate) fn request(manifest: &Manifest, input: &[u8]) -> Request {
    let secret = LocalSecret::from_bytes([3; 32]);
    let nonce = Nonce::local(&secret, &manifest.module.digest, &manifest.digest(), input);
    let client = key(1);
    let body = RequestBody {
        version: Version::V1,
        manifest: manifest.digest(),
        module: manifest.module.digest,
        input: RequestBody::input_digest(&nonce, input),
        nonce,
        price_nanograms_max: Nanograms::ZERO,
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: client.public_key(),
    };
    body.sign(&client).expect("the key is the client's")
}

pub(crate) fn run_with(events: Arc<dyn Events>) -> Run {
    Run {
        models: Arc::new(NoModels),
        events,
        cancel: Cancel::new(),
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("tokio starts")
        .block_on(future)
}

pub(crate) fn run(runtime: &Runtime, job: SubmittedJob) -> Result<SignedRun, RunError> {
    let run = run_with(Arc::new(tussah_runtime::NoEvents));
    block_on(run_job(runtime, job, run, &key(2)))
}

/// What the owner of a job sees of its end, in a line.
pub(crate) fn ended(result: Result<SignedRun, RunError>) -> String {
    match result {
        Ok(run) => {
            run.receipt.verify().expect("every receipt verifies");
            run.opening.matches(&run.receipt).expect("its opening fits");
            let output = String::from_utf8_lossy(&run.outcome.output).into_owned();
            let error = run.outcome.error.map_or_else(String::new, |error| {
                format!(": {}", error.message.lines().next().unwrap_or_default())
            });
            let consensus = &run.receipt.consensus;
            format!(
                "{} [{}] {output:?}{error}",
                consensus.exit,
                consensus.determinism.name()
            )
        }
        Err(error) => {
            let mut text = format!("{:?}: {error}", error.fault());
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        }
    }
}
