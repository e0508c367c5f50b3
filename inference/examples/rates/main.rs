//! Measures a model file on one or more devices, their runs interleaved: reading a prompt, generating after
//! it, one stream alone or several together, the time to the first token, memory, and of GPUs dispatches, time
//! and the share of their memory's bandwidth; of an encoder's archive, embedding 64 texts of some hundred tokens.
//! `cargo run --release -p tussah-inference --example rates -- MODEL [--device cpu|gpu|NAME]… [--threads N]…
//! [--profile exact|fast]… [--batch N]… [--simd LEVEL] [--runs N] [--prompt N] [--generate N] [--against LLAMA-BENCH]
//! [--against-argument WORD]… [--reference PROMPT:GENERATION:MACHINE] [--contended N] [--packed FOLDER]
//! [--json FILE]`; prints medians, least and most, and progress on standard error.

#![expect(clippy::print_stdout, reason = "its figures are its output")]
#![expect(clippy::print_stderr, reason = "its progress")]

mod contended;
mod llama_bench;
mod spread;
mod streams;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use serde_json::json;
use tussah_inference::archive::Archive;
use tussah_inference::{
    CancelToken, Device, Engine, Gpu, GpuChoice, GpuOptions, LoadOptions, Model, OverLong,
    PackedCache, SimdLevel,
};

use contended::Contenders;
use llama_bench::{LlamaBench, Reference};
use spread::Spread;
use streams::{Figures, Loaded, Streams};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tokens of a stream.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    prompt: u32,
    generate: u32,
}

struct Arguments {
    model: PathBuf,
    /// `cpu`, `gpu` or a name, in the order of their runs.
    devices: Vec<String>,
    /// Of the CPU, each measured; 0 is one a CPU.
    threads: Vec<usize>,
    /// Arithmetic, each measured.
    engines: Vec<Engine>,
    /// Streams that run together, each measured.
    batches: Vec<u32>,
    simd: SimdLevel,
    runs: usize,
    lengths: Lengths,
    /// llama.cpp's `llama-bench`.
    against: Option<PathBuf>,
    against_arguments: Vec<String>,
    /// What that is known to do.
    reference: Option<Reference>,
    /// Processes that keep CPUs busy meanwhile.
    contended: u32,
    /// Where packed weights are kept, if they are.
    packed: Option<PathBuf>,
    json: Option<PathBuf>,
}

/// A cache for one model, with a key that is no secret.
fn packed(folder: &Path) -> PackedCache {
    PackedCache {
        folder: folder.to_owned(),
        key: [0; 32],
        model: [0; 32],
        bytes_max: u64::MAX,
        warn: Arc::new(|text| eprintln!("{text}")),
    }
}

fn arguments() -> Result<Arguments, Failure> {
    let mut words = std::env::args().skip(1);
    let mut arguments = Arguments {
        model: words.next().ok_or("name a model file")?.into(),
        devices: Vec::new(),
        threads: Vec::new(),
        engines: Vec::new(),
        batches: Vec::new(),
        simd: SimdLevel::Auto,
        runs: 5,
        lengths: Lengths {
            prompt: 256,
            generate: 64,
        },
        against: None,
        against_arguments: Vec::new(),
        reference: None,
        contended: 0,
        packed: None,
        json: None,
    };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(format!("{flag} wants a value"))?;
        match flag.as_str() {
            "--device" => arguments.devices.push(value),
            "--threads" => arguments.threads.push(value.parse()?),
            "--profile" => arguments.engines.push(match value.as_str() {
                "exact" => Engine::Exact,
                "fast" => Engine::Fast,
                _ => return Err("--profile is exact or fast".into()),
            }),
            "--batch" => arguments.batches.push(value.parse()?),
            "--simd" => arguments.simd = SimdLevel::from_name(&value).ok_or("no such level")?,
            "--runs" => arguments.runs = value.parse()?,
            "--prompt" => arguments.lengths.prompt = value.parse()?,
            "--generate" => arguments.lengths.generate = value.parse()?,
            "--against" => arguments.against = Some(value.into()),
            "--against-argument" => arguments.against_arguments.push(value),
            "--reference" => arguments.reference = Some(value.parse()?),
            "--contended" => arguments.contended = value.parse()?,
            "--packed" => arguments.packed = Some(value.into()),
            "--json" => arguments.json = Some(value.into()),
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let Lengths { prompt, generate } = arguments.lengths;
    let least = arguments.batches.iter().copied().chain([prompt, generate]);
    if arguments.runs == 0 || least.min() == Some(0) {
        return Err("--runs, --prompt, --generate and --batch want 1 or more".into());
    }
    if arguments.devices.is_empty() {
        arguments.devices.push("cpu".to_owned());
    }
    if arguments.threads.is_empty() {
        arguments.threads.push(0);
    }
    if arguments.engines.is_empty() {
        arguments.engines.push(Engine::Exact);
    }
    if arguments.batches.is_empty() {
        arguments.batches.push(1);
    }
    if arguments.against.is_some() && !arguments.batches.contains(&1) {
        return Err("--against compares one stream: add --batch 1".into());
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
                    for engine in &self.engines {
                        all.extend(self.threads.iter().map(|threads| LoadOptions {
                            engine: *engine,
                            threads: *threads,
                            simd: self.simd,
                            packed: self.packed.as_deref().map(packed),
                            ..LoadOptions::default()
                        }));
                    }
                    continue;
                }
                "gpu" => GpuChoice::Best,
                name => GpuChoice::Named(name.to_owned()),
            };
            let options = GpuOptions {
                choice,
                ..GpuOptions::default()
            };
            let gpu = Gpu::open(&options)?;
            all.extend(self.engines.iter().map(|engine| LoadOptions {
                engine: *engine,
                device: Device::Gpu(Arc::clone(&gpu)),
                ..LoadOptions::default()
            }));
        }
        Ok(all)
    }

    /// Every model on its device, and the streams to be measured on it.
    fn streams(&self) -> Result<Vec<Streams>, Failure> {
        let mut all = Vec::new();
        for options in self.options()? {
            let loaded = Arc::new(load(&self.model, &options)?);
            all.extend(
                self.batches
                    .iter()
                    .map(|batch| Streams::new(&loaded, *batch)),
            );
        }
        Ok(all)
    }
}

fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, Failure> {
    let bandwidth = match &options.device {
        Device::Gpu(gpu) => {
            eprintln!("measuring the memory of {}", gpu.info().name);
            Some(gpu.measure_bandwidth()?)
        }
        Device::Cpu => None,
    };
    eprintln!("loading {}", path.display());
    let start = Instant::now();
    let model = Arc::new(Model::open(path, options, &mut |_| {})?);
    Ok(Loaded {
        load_seconds: start.elapsed().as_secs_f64(),
        model,
        bandwidth,
    })
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
    let rates = Spread::of(rates).ok_or("no runs")?;
    println!("64 texts of {tokens} tokens, {runs} runs: {rates} tokens/s");
    Ok(())
}

fn main() -> Result<(), Failure> {
    if std::env::args().nth(1).as_deref() == Some(contended::SWITCH) {
        return Ok(contended::spin(std::io::stdin())?);
    }
    let arguments = arguments()?;
    if let Ok(archive) = Archive::open(&arguments.model) {
        if arguments.json.is_some() || arguments.against.is_some() {
            return Err("--json and --against are for models that generate".into());
        }
        let options = arguments.options()?;
        let model = Model::from_archive(archive, &options[0], &mut |_| {})?;
        return embeddings(&model, arguments.runs);
    }
    let lengths = arguments.lengths;
    let mut all = arguments.streams()?;
    let more = &arguments.against_arguments;
    let against = arguments.against.as_ref();
    let mut against = against.map(|it| LlamaBench::new(it, &arguments.model, lengths, more));
    let contenders = Contenders::start(arguments.contended)?;
    for streams in &mut all {
        // What only the first run does is nobody's rate.
        eprintln!("warming up: {}", streams.name());
        let generate = 1;
        streams.run(Lengths {
            generate,
            ..lengths
        })?;
        streams.clear();
    }
    if let Some(against) = &mut against {
        eprintln!("looking for llama.cpp's best numbers of threads");
        let cpus = thread::available_parallelism()?;
        against.find_threads(u32::try_from(cpus.get())?)?;
    }
    // In turn, so that whatever else the machine does meets all alike.
    for round in 1..=arguments.runs {
        for streams in &mut all {
            eprintln!("round {round} of {}: {}", arguments.runs, streams.name());
            streams.run(lengths)?;
        }
        if let Some(against) = &mut against {
            eprintln!("round {round} of {}: {}", arguments.runs, against.name());
            against.run()?;
        }
    }
    drop(contenders);
    let figures = all.iter().map(|streams| streams.figures(lengths));
    let figures = figures.collect::<Result<Vec<_>, _>>()?;
    report(&arguments, &all, &figures, against.as_ref())
}

fn report(
    arguments: &Arguments,
    all: &[Streams],
    figures: &[Figures],
    against: Option<&LlamaBench>,
) -> Result<(), Failure> {
    if arguments.contended > 0 {
        println!("{} other processes computed meanwhile", arguments.contended);
    }
    for line in figures.iter().flat_map(|it| it.lines(arguments.lengths)) {
        println!("{line}");
    }
    // A machine that is kept busy is slower than a quiet one.
    let reference = arguments.reference.as_ref();
    let reference = reference.filter(|_| arguments.contended == 0);
    let against = against.and_then(|against| against.compare(figures, reference));
    for line in against.iter().flat_map(|against| &against.lines) {
        println!("{line}");
    }
    let Some(path) = &arguments.json else {
        return Ok(());
    };
    let info = all.first().map(|streams| streams.model().info());
    let results = figures.iter().enumerate().map(|(at, ours)| {
        let mut result = ours.json();
        let ratio = against.as_ref().and_then(|it| it.ratios.get(at)?.clone());
        result["ratio"] = json!(ratio);
        result
    });
    let document = json!({
        "quantization": info.map(|info| &info.quantization),
        "parameters": info.map(|info| info.parameters),
        "prompt_tokens": arguments.lengths.prompt,
        "generated_tokens": arguments.lengths.generate,
        "contending_processes": arguments.contended,
        "results": results.collect::<Vec<_>>(),
        "llama_cpp": against.as_ref().map(|against| &against.document),
    });
    let text = serde_json::to_string_pretty(&document)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}
