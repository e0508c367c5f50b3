//! Measures tokens a second of a model file: reading a prompt of 256 tokens, and generating after it; of an
//! encoder's archive, embedding 64 texts of some hundred tokens.
//! `cargo run --release -p tussah-inference --example rates -- MODEL [--threads N] [--simd LEVEL]
//! [--runs N] [--prompt N] [--generate N]`; prints medians.

#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tussah_inference::archive::Archive;
use tussah_inference::{
    CancelToken, LoadOptions, Model, OverLong, Sampling, Session, SessionOptions, SimdLevel,
    TokenId,
};

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    model: PathBuf,
    options: LoadOptions,
    runs: usize,
    prompt: u32,
    generate: u32,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut words = std::env::args().skip(1);
    let model = words.next().ok_or("name a model file")?.into();
    let options = LoadOptions::default();
    let mut arguments = Arguments {
        model,
        options,
        runs: 5,
        prompt: 256,
        generate: 64,
    };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(format!("{flag} wants a value"))?;
        match flag.as_str() {
            "--threads" => arguments.options.threads = value.parse()?,
            "--simd" => {
                arguments.options.simd = SimdLevel::from_name(&value).ok_or("no such level")?;
            }
            "--runs" => arguments.runs = value.parse()?,
            "--prompt" => arguments.prompt = value.parse()?,
            "--generate" => arguments.generate = value.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    Ok(arguments)
}

/// The median and, since other work on the machine only ever slows a run down, the best.
fn median_and_best(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
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
    let (median, best) = median_and_best(rates);
    println!("{}", model.info().engine);
    println!(
        "64 texts of {tokens} tokens: median {median:.0}, best {best:.0} tokens/s of {runs} runs"
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let Arguments {
        model,
        options,
        runs,
        prompt,
        generate,
    } = arguments()?;
    if let Ok(archive) = Archive::open(&model) {
        let model = Model::from_archive(archive, &options, &mut |_| {})?;
        return embeddings(&model, runs);
    }
    let start = Instant::now();
    let model = Arc::new(Model::open(&model, &options, &mut |_| {})?);
    let load_seconds = start.elapsed().as_secs_f64();
    let vocabulary = model.info().vocabulary_size;
    let tokens: Vec<TokenId> = (0..prompt)
        .map(|i| TokenId((i * 7919 + 13) % vocabulary))
        .collect();
    let (mut read, mut made) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let options = SessionOptions {
            context_tokens_max: prompt + generate + 1,
            sampling: Sampling::default(),
            seed: [0; 32],
            cancel: CancelToken::new(),
        };
        let mut session = Session::open(&model, options)?;
        let start = Instant::now();
        session.append(&tokens)?;
        read.push(f64::from(prompt) / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for _ in 0..generate {
            // Never an end token: the rate is of whole steps.
            let token = session.candidates(1)?[0].token;
            session.accept(token)?;
        }
        made.push(f64::from(generate) / start.elapsed().as_secs_f64());
    }
    let ((read, read_best), (made, made_best)) = (median_and_best(read), median_and_best(made));
    println!("{}: load {load_seconds:.2} s", model.info().engine);
    println!("prompt of {prompt}: median {read:.0}, best {read_best:.0} tokens/s of {runs} runs");
    println!("generation of {generate}: median {made:.1}, best {made_best:.1} tokens/s");
    Ok(())
}
