//! Streams that read a prompt and generate after it, together on one model.
//! In: a loaded model, how many streams. Out: what each run of theirs took, and the figures of all runs.
//! All streams begin at once, and generate once the last has read its prompt; ends of texts are ignored,
//! since the rate is of whole steps.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tussah_inference::{CancelToken, Model, Sampling, Session, SessionOptions, TokenId};

use crate::spread::Spread;
use crate::{Failure, Lengths};

/// A model on a device.
pub(crate) struct Loaded {
    pub(crate) model: Arc<Model>,
    pub(crate) load_seconds: f64,
    /// Bytes a second of the GPU's memory, by a copy.
    pub(crate) bandwidth: Option<f64>,
}

/// Streams on a model, and what their runs took.
pub(crate) struct Streams {
    loaded: Arc<Loaded>,
    batch: u32,
    session_bytes: u64,
    /// Seconds from the start until the last stream's first token is known.
    prompts: Vec<f64>,
    /// Seconds from the start until a stream's first token is known, one a stream and run.
    first_token: Vec<f64>,
    /// Seconds of all tokens after the first.
    generation: Vec<f64>,
    /// Seconds on the GPU of the same; none if one run's are not known.
    on_gpu: Option<Vec<f64>>,
}

/// The times of one stream.
struct Times {
    start: Instant,
    first: Instant,
    generating: Instant,
    end: Instant,
    on_gpu: Option<Duration>,
}

impl Streams {
    pub(crate) fn new(loaded: &Arc<Loaded>, batch: u32) -> Self {
        Self {
            loaded: Arc::clone(loaded),
            batch,
            session_bytes: 0,
            prompts: Vec::new(),
            first_token: Vec::new(),
            generation: Vec::new(),
            on_gpu: Some(Vec::new()),
        }
    }

    /// What is measured, in a few words.
    pub(crate) fn name(&self) -> String {
        let engine = &self.loaded.model.info().engine;
        match self.batch {
            1 => format!("{engine}, 1 stream"),
            batch => format!("{engine}, {batch} streams"),
        }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.loaded.model
    }

    /// Forgets what was measured so far.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(&self.loaded, self.batch);
    }

    /// One session a stream, from the first token of its prompt to the last that is generated.
    pub(crate) fn run(&mut self, lengths: Lengths) -> Result<(), Failure> {
        let model = &self.loaded.model;
        let open = |_| {
            let options = SessionOptions {
                context_tokens_max: lengths.prompt + lengths.generate + 1,
                sampling: Sampling::default(),
                seed: [0; 32],
                cancel: CancelToken::new(),
            };
            Session::open(model, options)
        };
        let sessions: Vec<_> = (0..self.batch).map(open).collect::<Result<_, _>>()?;
        self.session_bytes = sessions.first().map_or(0, Session::memory_bytes);
        let together = Barrier::new(sessions.len());
        let times: Vec<Times> = thread::scope(|scope| {
            let streams: Vec<_> = (0..)
                .zip(sessions)
                .map(|(number, session)| {
                    let together = &together;
                    scope.spawn(move || stream(session, number, lengths, together))
                })
                .collect();
            let join = |stream: thread::ScopedJoinHandle<'_, Result<Times, Failure>>| {
                stream.join().map_err(|_| "a stream panicked")?
            };
            streams
                .into_iter()
                .map(join)
                .collect::<Result<_, Failure>>()
        })?;
        self.note(&times);
        Ok(())
    }

    fn note(&mut self, times: &[Times]) {
        let earliest = |time: fn(&Times) -> Instant| times.iter().map(time).min();
        let latest = |time: fn(&Times) -> Instant| times.iter().map(time).max();
        let between = |from: Option<Instant>, to: Option<Instant>| {
            from.zip(to).map(|(from, to)| (to - from).as_secs_f64())
        };
        let start = earliest(|it| it.start);
        self.prompts.extend(between(start, latest(|it| it.first)));
        let first = times.iter().map(|it| it.first - it.start);
        self.first_token
            .extend(first.map(|time| time.as_secs_f64()));
        let generating = earliest(|it| it.generating);
        self.generation
            .extend(between(generating, latest(|it| it.end)));
        let on_gpu: Option<Duration> = times.iter().map(|it| it.on_gpu).sum();
        self.on_gpu = self.on_gpu.take().zip(on_gpu).map(|(mut all, time)| {
            all.push(time.as_secs_f64());
            all
        });
    }

    /// The figures of all runs.
    pub(crate) fn figures(&self, lengths: Lengths) -> Result<Figures, Failure> {
        let rates = |tokens: u32, seconds: &[f64]| -> Vec<f64> {
            let tokens = f64::from(tokens) * f64::from(self.batch);
            seconds.iter().map(|seconds| tokens / seconds).collect()
        };
        let prompts = rates(lengths.prompt, &self.prompts);
        let generations = rates(lengths.generate, &self.generation);
        let scaled = |factor: f64, values: &[f64]| {
            Spread::of(values.iter().map(|value| value * factor).collect())
        };
        let steps = f64::from(lengths.generate);
        let weights = self.loaded.model.weight_bytes();
        let bandwidth = self.loaded.bandwidth.zip(weights);
        Ok(Figures {
            name: self.name(),
            loaded: Arc::clone(&self.loaded),
            streams: self.batch,
            session_bytes: self.session_bytes,
            runs: self.generation.len(),
            prompt: Spread::of(prompts.clone()).ok_or("no runs")?,
            prompts,
            first_ms: scaled(1e3, &self.first_token).ok_or("no runs")?,
            generation: Spread::of(generations.clone()).ok_or("no runs")?,
            generations,
            gpu_ms_of_step: self.on_gpu.as_ref().and_then(|it| scaled(1e3 / steps, it)),
            bandwidth_share: bandwidth.and_then(|(bandwidth, weights)| {
                let share = |seconds: &f64| steps * weights as f64 / seconds / bandwidth;
                Spread::of(self.generation.iter().map(share).collect())
            }),
        })
    }
}

/// What all runs came to.
pub(crate) struct Figures {
    pub(crate) name: String,
    loaded: Arc<Loaded>,
    pub(crate) streams: u32,
    session_bytes: u64,
    runs: usize,
    /// Tokens a second of all streams together, of each round, and what they came to.
    pub(crate) prompts: Vec<f64>,
    prompt: Spread,
    first_ms: Spread,
    /// Tokens a second of all streams together, of each round, and what they came to.
    pub(crate) generations: Vec<f64>,
    generation: Spread,
    gpu_ms_of_step: Option<Spread>,
    /// Bytes of weights a second through those that a copy moves, if every stream is in every step.
    bandwidth_share: Option<Spread>,
}

impl Figures {
    pub(crate) fn lines(&self, lengths: Lengths) -> Vec<String> {
        let Lengths { prompt, generate } = lengths;
        let model = &self.loaded.model;
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let mut lines = vec![format!(
            "{}: load {:.2} s, weights {}, session {}, {} runs",
            self.name,
            self.loaded.load_seconds,
            megabytes(model.weight_bytes().unwrap_or(0)),
            megabytes(self.session_bytes),
            self.runs
        )];
        lines.push(format!(
            "  prompt of {prompt}: {} tokens/s; first token after {} ms",
            self.prompt, self.first_ms
        ));
        lines.push(format!(
            "  generation of {generate}: {} tokens/s",
            self.generation
        ));
        if let Some(dispatches) = model.dispatches_per_token() {
            let gpu = match &self.gpu_ms_of_step {
                Some(time) => format!("{time} ms on the GPU"),
                None => "GPU time not measured".to_owned(),
            };
            lines.push(format!("  step: {dispatches} dispatches, {gpu}"));
        }
        if let (Some(share), Some(bandwidth)) = (&self.bandwidth_share, self.loaded.bandwidth) {
            lines.push(format!(
                "  weights: {:.1} % of the memory's bandwidth, {:.1} GB/s by a copy",
                share.median * 100.0,
                bandwidth / 1e9
            ));
        }
        lines
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let model = &self.loaded.model;
        let info = model.info();
        let gpu = info.gpu.as_ref();
        json!({
            "engine": info.engine,
            "adapter": gpu.map(|gpu| &gpu.name),
            "driver": gpu.map(|gpu| &gpu.driver),
            "kind": gpu.map(|gpu| gpu.kind.name()),
            "streams": self.streams,
            "load_seconds": self.loaded.load_seconds,
            "weight_bytes": model.weight_bytes(),
            "session_bytes": self.session_bytes,
            "runs": self.runs,
            "prompt_tokens_per_second": self.prompt.json(),
            "generated_tokens_per_second": self.generation.json(),
            "first_token_ms": self.first_ms.json(),
            "dispatches_per_token": model.dispatches_per_token(),
            "gpu_ms_per_step": self.gpu_ms_of_step.as_ref().map(Spread::json),
            "copy_bytes_per_second": self.loaded.bandwidth,
            "bandwidth_share": self.bandwidth_share.as_ref().map(Spread::json),
        })
    }
}

/// One stream; it waits for the others even if it failed, so that they do not wait for it.
fn stream(
    mut session: Session,
    number: u32,
    lengths: Lengths,
    together: &Barrier,
) -> Result<Times, Failure> {
    let vocabulary = session.model().info().vocabulary_size;
    // A prompt of its own, so that nothing can be shared.
    let token = |at: u32| TokenId((at * 7919 + number * 101 + 13) % vocabulary);
    let tokens: Vec<_> = (0..lengths.prompt).map(token).collect();
    let likeliest = |session: &mut Session| {
        let candidates = session.candidates(1)?;
        let first = candidates.first().map(|candidate| candidate.token);
        first.ok_or_else(|| Failure::from("a model without tokens"))
    };
    together.wait();
    let start = Instant::now();
    let read = session.append(&tokens).map_err(Failure::from);
    let first = read.and_then(|()| likeliest(&mut session));
    let first_at = Instant::now();
    together.wait();
    let mut token = first?;
    let (before, generating) = (session.gpu_time(), Instant::now());
    for _ in 0..lengths.generate {
        session.accept(token)?;
        token = likeliest(&mut session)?;
    }
    let after = session.gpu_time();
    Ok(Times {
        start,
        first: first_at,
        generating,
        end: Instant::now(),
        on_gpu: after.zip(before).map(|(after, before)| after - before),
    })
}
