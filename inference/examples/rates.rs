//! Measures a model file on one or more devices, their runs interleaved: reading a prompt, generating after
//! it, the time to the first token, and the memory of a session; of an encoder's archive, embedding 64 texts
//! of some hundred tokens.
//! `cargo run --release -p tussah-inference --example rates -- MODEL [--device cpu|gpu|NAME]… [--threads N]…
//! [--simd LEVEL] [--runs N] [--prompt N] [--generate N] [--json FILE]`; prints medians, least and most.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tussah_inference::archive::Archive;
use tussah_inference::{
    CancelToken, Device, Gpu, GpuChoice, GpuOptions, LoadOptions, Model, OverLong, Sampling,
    Session, SessionOptions, SimdLevel, TokenId,
};

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    model: PathBuf,
    /// `cpu`, `gpu` or a name, in the order of their runs.
    devices: Vec<String>,
    /// Of the CPU, each measured; 0 is one a CPU.
    threads: Vec<usize>,
    simd: SimdLevel,
    runs: usize,
    prompt: u32,
    generate: u32,
    json: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut words = std::env::args().skip(1);
    let mut arguments = Arguments {
        model: words.next().ok_or("name a model file")?.into(),
        devices: Vec::new(),
        threads: Vec::new(),
        simd: SimdLevel::Auto,
        runs: 5,
        prompt: 256,
        generate: 64,
        json: None,
    };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(format!("{flag} wants a value"))?;
        match flag.as_str() {
            "--device" => arguments.devices.push(value),
            "--threads" => arguments.threads.push(value.parse()?),
            "--simd" => arguments.simd = SimdLevel::from_name(&value).ok_or("no such level")?,
            "--runs" => arguments.runs = value.parse()?,
            "--prompt" => arguments.prompt = value.parse()?,
            "--generate" => arguments.generate = value.parse()?,
            "--json" => arguments.json = Some(value.into()),
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let Arguments {
        prompt, generate, ..
    } = arguments;
    if arguments.runs == 0 || prompt == 0 || generate == 0 {
        return Err("--runs, --prompt and --generate want 1 or more".into());
    }
    if arguments.devices.is_empty() {
        arguments.devices.push("cpu".to_owned());
    }
    if arguments.threads.is_empty() {
        arguments.threads.push(0);
    }
    Ok(arguments)
}

impl Arguments {
    /// How to load the model, once for each thing to be measured.
    fn options(&self) -> Result<Vec<LoadOptions>, Failure> {
        let mut all = Vec::new();
        for name in &self.devices {
            let choice = match name.as_str() {
                "cpu" => {
                    all.extend(self.threads.iter().map(|threads| LoadOptions {
                        threads: *threads,
                        simd: self.simd,
                        ..LoadOptions::default()
                    }));
                    continue;
                }
                "gpu" => GpuChoice::Best,
                name => GpuChoice::Named(name.to_owned()),
            };
            let options = GpuOptions {
                choice,
                ..GpuOptions::default()
            };
            all.push(LoadOptions {
                device: Device::Gpu(Gpu::open(&options)?),
                ..LoadOptions::default()
            });
        }
        Ok(all)
    }
}

/// The median, the least and the most.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Self {
            median: f64::midpoint(values[low], values[high]),
            min: values[0],
            max: values[values.len() - 1],
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, min, max } = self;
        write!(f, "{median:.1} ({min:.1} to {max:.1})")
    }
}

/// Rates of an encoder; all texts are one call.
fn embeddings(model: &Model, runs: usize) -> Result<(), Failure> {
    let words = [
        "a", "river", "of", "glass", "runs", "under", "the", "old", "town",
    ];
    let texts: Vec<String> = (0..64)
        .map(|text| {
            let word = |at: usize| words[(text + at * at) % words.len()];
            (0..100).map(word).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut rates = Vec::new();
    let mut tokens = 0;
    for _ in 0..runs {
        let start = Instant::now();
        tokens = model
            .embed(&texts, OverLong::Cut, &CancelToken::new())?
            .tokens;
        rates.push(tokens as f64 / start.elapsed().as_secs_f64());
    }
    println!("{}", model.info().engine);
    let rates = Spread::of(rates);
    println!("64 texts of {tokens} tokens, {runs} runs: {rates} tokens/s");
    Ok(())
}

/// A model on a device, and what its runs took.
struct Measured {
    model: Arc<Model>,
    load_seconds: f64,
    session_bytes: u64,
    /// Seconds from the start of the prompt until the first token is known.
    first_token: Vec<f64>,
    /// Seconds of all tokens after that.
    generation: Vec<f64>,
}

impl Measured {
    fn load(path: &std::path::Path, options: &LoadOptions) -> Result<Self, Failure> {
        let start = Instant::now();
        let model = Arc::new(Model::open(path, options, &mut |_| {})?);
        Ok(Self {
            load_seconds: start.elapsed().as_secs_f64(),
            model,
            session_bytes: 0,
            first_token: Vec::new(),
            generation: Vec::new(),
        })
    }

    /// One session, from the first token of its prompt to the last that is generated.
    fn run(&mut self, prompt: u32, generate: u32) -> Result<(), Failure> {
        let vocabulary = self.model.info().vocabulary_size;
        let tokens: Vec<TokenId> = (0..prompt)
            .map(|i| TokenId((i * 7919 + 13) % vocabulary))
            .collect();
        let options = SessionOptions {
            context_tokens_max: prompt + generate + 1,
            sampling: Sampling::default(),
            seed: [0; 32],
            cancel: CancelToken::new(),
        };
        let mut session = Session::open(&self.model, options)?;
        self.session_bytes = session.memory_bytes();
        let start = Instant::now();
        session.append(&tokens)?;
        let mut token = session.candidates(1)?[0].token;
        self.first_token.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for _ in 0..generate {
            // Whatever token it is, an end token too: the rate is of whole steps.
            session.accept(token)?;
            token = session.candidates(1)?[0].token;
        }
        self.generation.push(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn report(self, prompt: u32, generate: u32) -> serde_json::Value {
        let rate = |count: u32, seconds: &[f64]| {
            Spread::of(seconds.iter().map(|s| f64::from(count) / s).collect())
        };
        let runs = self.generation.len();
        let read = rate(prompt, &self.first_token);
        let made = rate(generate, &self.generation);
        let first = Spread::of(self.first_token.iter().map(|s| s * 1e3).collect());
        let info = self.model.info();
        let megabytes = self.session_bytes as f64 / 1e6;
        println!(
            "{}: load {:.2} s, session {megabytes:.1} MB, {runs} runs",
            info.engine, self.load_seconds
        );
        println!("  prompt of {prompt}: {read} tokens/s; first token after {first} ms");
        println!("  generation of {generate}: {made} tokens/s");
        json!({
            "engine": info.engine,
            "adapter": info.gpu.as_ref().map(|gpu| &gpu.name),
            "driver": info.gpu.as_ref().map(|gpu| &gpu.driver),
            "kind": info.gpu.as_ref().map(|gpu| gpu.kind.name()),
            "load_seconds": self.load_seconds,
            "session_bytes": self.session_bytes,
            "runs": runs,
            "prompt_tokens_per_second": read.json(),
            "generated_tokens_per_second": made.json(),
            "first_token_ms": first.json(),
        })
    }
}

fn main() -> Result<(), Failure> {
    let arguments = arguments()?;
    let (runs, prompt, generate) = (arguments.runs, arguments.prompt, arguments.generate);
    let options = arguments.options()?;
    if let Ok(archive) = Archive::open(&arguments.model) {
        if arguments.json.is_some() {
            return Err("--json is for models that generate".into());
        }
        let model = Model::from_archive(archive, &options[0], &mut |_| {})?;
        return embeddings(&model, runs);
    }
    let load = |options: &LoadOptions| Measured::load(&arguments.model, options);
    let mut all = options.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    for measured in &mut all {
        // What only the first run does is nobody's rate.
        measured.run(prompt, 1)?;
        measured.first_token.clear();
        measured.generation.clear();
    }
    // In turn, so that whatever else the machine does meets all alike.
    for _ in 0..runs {
        for measured in &mut all {
            measured.run(prompt, generate)?;
        }
    }
    let info = all[0].model.info();
    let (quantization, parameters) = (info.quantization.clone(), info.parameters);
    let results = all
        .into_iter()
        .map(|measured| measured.report(prompt, generate));
    let results: Vec<_> = results.collect();
    if let Some(path) = &arguments.json {
        let document = json!({
            "quantization": quantization,
            "parameters": parameters,
            "prompt_tokens": prompt,
            "generated_tokens": generate,
            "results": results,
        });
        std::fs::write(path, serde_json::to_string_pretty(&document)? + "\n")?;
    }
    Ok(())
}
