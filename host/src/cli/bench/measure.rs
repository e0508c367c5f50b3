//! What this machine does in a second: syncs, memory, wasm, tokens.
//!
//! In: the home folder, models of the store. Out: counts and times. Nothing is kept, and nothing
//! of it goes into a receipt.

use std::{
    hint::black_box,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use tussah_inference::{
    AddBos, CancelToken, EncodeOptions, LoadOptions, Sampling, Session, SessionOptions, TokenId,
    exact_profile,
};
use tussah_manifest::{
    Abi, Channel, JobDescription, JobName, Limits, ModuleRef, Nanograms, Nonce, Request,
    RequestBody, SigningKey, Version,
};
use tussah_runtime::{
    Allocation, Cancel, NoEvents, Run, Runtime, RuntimeConfig, SubmittedJob, run_unsigned,
};

use super::suggest::Rate;
use crate::{
    blobs::Blobs,
    device::Placement,
    engine::{self, Room, StoredModels},
    failure::Failure,
    home::Home,
    interrupt::Interrupt,
    models::ModelRecord,
    onnx::OnnxArguments,
    road::{HOST_BUILD, MEMORY_BYTES_MAX},
    ui::Ui,
};

/// How long each thing is done, at least once.
const TIME: Duration = Duration::from_secs(1);
/// Bytes of memory that are read; more than any cache of a CPU.
const MEMORY_WORDS: usize = 32 << 20;
/// Tokens of the prompt, and tokens after it.
const PROMPT_TOKENS: usize = 256;
const GENERATED_TOKENS: usize = 32;
/// A prompt in plain English, repeated.
const TEXT: &str = "The provider runs the job and signs what it came to. ";

/// A module that ends at once: a function `_start` without a body, and a memory.
const NULL: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
/// The same with a loop that counts down from 50,000,000.
const LOOP: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x19\x01\x17\x01\x01\x7f\x41\x80\xe1\xeb\x17\
    \x21\0\x03\x40\x20\0\x41\x01\x6b\x22\0\x0d\0\x0b\x0b";

/// Does something again and again for a while.
fn repeat(
    interrupt: &Interrupt,
    mut step: impl FnMut() -> Result<u64, Failure>,
) -> Result<Rate, Failure> {
    let begun = Instant::now();
    let mut count = 0;
    loop {
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        count += step()?;
        let time = begun.elapsed();
        if time >= TIME {
            return Ok(Rate { count, time });
        }
    }
}

/// Writes of 4 KiB that are on the disk, one after the other.
pub(super) fn syncs(home: &Home, interrupt: &Interrupt) -> Result<Rate, Failure> {
    let failed = |error| Failure::host(error).context("cannot write to the home folder");
    let mut file = tempfile::tempfile_in(home.root()).map_err(failed)?;
    repeat(interrupt, || {
        file.write_all(&[7; 4096]).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        Ok(1)
    })
}

/// Bytes of memory that all threads together read.
pub(super) fn memory(threads: usize, interrupt: &Interrupt) -> Result<Rate, Failure> {
    let words = vec![1_u64; MEMORY_WORDS];
    let part = words.len().div_ceil(threads);
    repeat(interrupt, || {
        std::thread::scope(|scope| {
            for part in words.chunks(part) {
                scope.spawn(|| {
                    black_box(
                        part.iter()
                            .fold(0, |sum: u64, word| sum.wrapping_add(*word)),
                    )
                });
            }
        });
        Ok(u64::try_from(size_of_val(&*words)).unwrap_or(u64::MAX))
    })
}

/// Runs of modules, each in a sandbox of its own.
pub(super) struct Sandbox {
    runtime: Runtime,
    models: Arc<StoredModels>,
    executor: tokio::runtime::Runtime,
}

impl Sandbox {
    pub(super) fn new(blobs: &Blobs) -> Result<Self, Failure> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(Failure::host)?;
        let runtime = Runtime::new(RuntimeConfig {
            allocation: Allocation::Pooled { jobs_max: 1 },
            memory_bytes_max: MEMORY_BYTES_MAX,
            cache_dir: None,
            cache_bytes_max: tussah_runtime::CACHE_BYTES_MAX,
            cache_key: key,
            host_build: HOST_BUILD.to_owned(),
            arithmetic: exact_profile().to_owned(),
        });
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build();
        Ok(Self {
            runtime: runtime.map_err(Failure::host)?,
            models: Arc::new(StoredModels::new(
                blobs.clone(),
                Placement::default(),
                1,
                OnnxArguments::default(),
                Room::ANY,
            )),
            executor: executor.map_err(Failure::host)?,
        })
    }

    /// Jobs that do nothing, one after the other.
    pub(super) fn jobs(&self, interrupt: &Interrupt) -> Result<Rate, Failure> {
        self.run(NULL)?; // Compiles it.
        repeat(interrupt, || self.run(NULL).map(|_| 1))
    }

    /// Units of fuel on one core.
    pub(super) fn fuel(&self, interrupt: &Interrupt) -> Result<Rate, Failure> {
        self.run(LOOP)?;
        repeat(interrupt, || self.run(LOOP))
    }

    /// Runs a module; the fuel that it took.
    fn run(&self, module: &[u8]) -> Result<u64, Failure> {
        let name = JobName::new("bench").map_err(Failure::host)?;
        let job = JobDescription {
            abi: Abi::Preview1,
            limits: Limits::DEFAULT,
            ..JobDescription::new(name)
        };
        let manifest = job.with_module(ModuleRef::of(module));
        let nonce = Nonce::from_bytes([7; 32]);
        let client = SigningKey::from_bytes(&[7; 32]);
        let body = RequestBody {
            version: Version::V1,
            manifest: manifest.digest(),
            module: manifest.module.digest,
            input: RequestBody::input_digest(&nonce, b""),
            nonce,
            price_nanograms_max: Nanograms::ZERO,
            channel: Channel::Local,
            deadline_unix_ms: None,
            client_key: client.public_key(),
        };
        let request: Request = body.sign(&client).map_err(Failure::host)?;
        let submitted = SubmittedJob {
            request,
            manifest,
            module: module.to_vec(),
            input: Vec::new(),
        };
        let run = Run {
            models: self.models.clone(),
            events: Arc::new(NoEvents),
            cancel: Cancel::new(),
        };
        let account = self
            .executor
            .block_on(run_unsigned(&self.runtime, submitted, run))
            .map_err(Failure::host)?;
        match account.outcome.error {
            None => Ok(account.outcome.used.fuel),
            Some(error) => Err(Failure::host(error).context("the measuring job failed")),
        }
    }
}

/// What a model does for one client.
pub(super) struct Tokens {
    pub(super) engine: String,
    pub(super) prompt: Rate,
    pub(super) generated: Rate,
    /// Units of inference while it generated: what takes longest.
    pub(super) units: Rate,
}

/// Reads a prompt, then goes on token by token.
pub(super) fn tokens(
    blobs: &Blobs,
    record: &ModelRecord,
    placement: &Placement,
    threads: usize,
    ui: &Ui,
) -> Result<Tokens, Failure> {
    let options = LoadOptions {
        engine: engine::exact(),
        threads,
        ..LoadOptions::default()
    };
    let model = engine::load(blobs, &record.digest, options, placement, ui)?;
    let encoding = EncodeOptions {
        add_bos: AddBos::ByMetadata,
        parse_special: false,
    };
    let text = TEXT.repeat(PROMPT_TOKENS / 8);
    let mut prompt = model
        .tokenizer()
        .encode(&text, encoding)
        .map_err(Failure::host)?;
    let most = model.info().context_tokens_max;
    let room = usize::try_from(most).unwrap_or(usize::MAX);
    let room = room.saturating_sub(GENERATED_TOKENS + 1);
    prompt.truncate(PROMPT_TOKENS.min(room).max(1));
    let wanted = u32::try_from(PROMPT_TOKENS + GENERATED_TOKENS + 1).unwrap_or(u32::MAX);
    let options = SessionOptions {
        context_tokens_max: wanted.min(most),
        sampling: Sampling::default(),
        seed: [0; 32],
        cancel: CancelToken::new(),
    };
    let mut session = Session::open(&model, options).map_err(Failure::host)?;
    let reading = ui.spinner("reading a prompt");
    let begun = Instant::now();
    session.append(&prompt).map_err(Failure::host)?;
    session.logits().map_err(Failure::host)?;
    let prompt_time = begun.elapsed();
    drop(reading);
    let bar = ui.tokens_bar("generating");
    let before = session.usage().inference_units;
    let begun = Instant::now();
    // The prompt's own tokens, since one that the model picks could end the text.
    let following: Vec<TokenId> = prompt.iter().copied().take(GENERATED_TOKENS).collect();
    for token in &following {
        session.accept(*token).map_err(Failure::host)?;
        session.logits().map_err(Failure::host)?;
        bar.add(1);
    }
    let time = begun.elapsed();
    let rate = |count: usize, time| Rate {
        count: u64::try_from(count).unwrap_or(u64::MAX),
        time,
    };
    Ok(Tokens {
        engine: model.info().engine.clone(),
        prompt: rate(prompt.len(), prompt_time),
        generated: rate(following.len(), time),
        units: Rate {
            count: session.usage().inference_units - before,
            time,
        },
    })
}
