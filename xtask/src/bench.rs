//! `cargo xtask bench`: figures to compare with, measured on this machine.
//!
//! In: the checkout and the test model. Out: the figures on stdout, as the measuring program prints them.
//! Never: judges them; a shared machine is no place for a threshold.

use std::env;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};

use crate::model::TestModel;
use crate::setup::{self, SetupArgs};
use crate::workspace::Workspace;
use crate::{command, home, llama_cpp, model, ui};

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// Tokens a second of a model, reading and generating; time to the first token; a session's memory
    Inference(Box<InferenceArgs>),
    /// Microseconds of a job that does nothing, beside bare wasmtime with the same settings
    Sandbox,
    /// Seconds of a guest that generates, beside the same loop on the engine itself
    Guest(GuestArgs),
    /// A channel's tree of a million receipts: time, memory, proofs
    Receipts,
    /// The daemon under 200 clients: jobs a second, waiting times, syncs of the disk, memory
    Serve(ServeArgs),
}

/// Flags of `bench inference`.
#[derive(Debug, clap::Args)]
pub(crate) struct InferenceArgs {
    /// cpu, gpu, or a part of an adapter's name; several take turns. The CPU, if not given
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// A model of the store, by its name
    #[arg(long, default_value = model::SMOLLM2.name)]
    model: String,
    /// Threads of the CPU; several take turns. 1 and all, if not given
    #[arg(long, value_name = "N")]
    threads: Vec<usize>,
    /// Arithmetic: exact, the one that jobs run on, or fast; several take turns. Exact, if not given
    #[arg(long, value_name = "PROFILE", value_parser = ["exact", "fast"])]
    profile: Vec<String>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 256)]
    prompt: u32,
    /// Tokens to generate after it
    #[arg(long, value_name = "N", default_value_t = 64)]
    generate: u32,
    /// Streams that run together; several take turns. 1, if not given
    #[arg(long, value_name = "N")]
    batch: Vec<u32>,
    /// llama.cpp, run on the same file in turn with the rest, to compare with: the word llama.cpp fetches
    /// and builds it, for CPUs; or the path of a built `llama-bench`
    #[arg(long, value_name = "llama.cpp|PATH")]
    against: Option<PathBuf>,
    /// An argument for it besides the model and the lengths, such as -ngl and 0, one at a time; with -t
    /// among them its best numbers of threads are not looked for
    #[arg(
        long,
        value_name = "WORD",
        requires = "against",
        allow_hyphen_values = true
    )]
    against_argument: Vec<String>,
    /// As many other processes as there are CPUs keep all of them busy meanwhile
    #[arg(long)]
    contended: bool,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u32,
    /// Write the figures here too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Flags of `bench guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct GuestArgs {
    /// A model of the store, by its name
    #[arg(long, default_value = model::SMOLLM2.name)]
    model: String,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: u32,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `bench serve`; those left out are the program's own, which it says.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Jobs a second of the part at a stated rate; 0 leaves that part out. 1000, if not given
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Jobs of each of the parts with many clients. 10,000, if not given
    #[arg(long, value_name = "N")]
    jobs: Option<u32>,
    /// Clients in parallel. 200, if not given
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// Jobs that the daemon runs at a time. 8, if not given
    #[arg(long, value_name = "N")]
    jobs_max: Option<u32>,
    /// The folder whose disk is measured. The folder of the binary, if not given
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Write the figures here too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds what measures and runs it.
///
/// # Errors
/// Set-up, the build or the measurement failed.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Inference(args) => inference(args),
        Bench::Sandbox => program("tussah-runtime", "sandbox", &[]),
        Bench::Guest(args) => guest(args),
        Bench::Receipts => program("tussah-manifest", "receipts", &[]),
        Bench::Serve(args) => serve(args),
    }
}

fn serve(args: &ServeArgs) -> Result<()> {
    let workspace = Workspace::ask()?;
    let mut run = workspace.cargo();
    run.args(["bench", "--quiet", "--locked", "--package", "tussah-host"]);
    run.args(["--bench", "serve", "--"]);
    for (flag, number) in [
        ("--rate", args.rate),
        ("--jobs", args.jobs),
        ("--clients", args.clients),
        ("--jobs-max", args.jobs_max),
    ] {
        if let Some(number) = number {
            run.args([flag, &number.to_string()]);
        }
    }
    // Cargo runs from the workspace's root, and the person is somewhere else.
    for (flag, path) in [("--folder", &args.folder), ("--json", &args.json)] {
        if let Some(path) = path {
            run.arg(flag).arg(env::current_dir()?.join(path));
        }
    }
    ui::say("bench: the daemon with a job that does nothing");
    command::run(&mut run)
}

fn inference(args: &InferenceArgs) -> Result<()> {
    let workspace = Workspace::ask()?;
    let (file, known) = model_file(&args.model)?;
    let mut run = workspace.cargo();
    run.args([
        "run",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        "tussah-inference",
    ]);
    run.args(["--example", "rates", "--"]).arg(&file);
    for device in &args.device {
        run.args(["--device", device]);
    }
    for profile in &args.profile {
        run.args(["--profile", profile]);
    }
    for count in &threads(&args.threads) {
        run.args(["--threads", &count.to_string()]);
    }
    for (flag, count) in [
        ("--prompt", args.prompt),
        ("--generate", args.generate),
        ("--runs", args.runs),
    ] {
        run.args([flag, &count.to_string()]);
    }
    for streams in &args.batch {
        run.args(["--batch", &streams.to_string()]);
    }
    if let Some(program) = &args.against {
        run.arg("--against").arg(llama_bench(&workspace, program)?);
        // A reference is of one model, and of CPUs.
        let reference = known.and_then(|known| known.llama_cpp.as_ref());
        if let Some(reference) = reference.filter(|_| args.against_argument.is_empty()) {
            run.args(["--reference", &reference.to_string()]);
        }
    }
    for word in &args.against_argument {
        run.args(["--against-argument", word]);
    }
    if args.contended {
        run.args(["--contended", &all_cpus().to_string()]);
    }
    if let Some(path) = &args.json {
        // Cargo runs from the workspace's root, and the person is somewhere else.
        run.arg("--json").arg(env::current_dir()?.join(path));
    }
    // As for the tests: a layer for windows has nothing to say here.
    run.env("NODEVICE_SELECT", "1");
    ui::say(&format!("bench: inference with {}", args.model));
    command::run(&mut run)
}

/// The program's whole path: cargo runs from the workspace's root, and the person is somewhere else. A bare
/// name is looked for as a shell does; llama.cpp's is built.
fn llama_bench(workspace: &Workspace, program: &Path) -> Result<PathBuf> {
    if program == Path::new(llama_cpp::NAME) {
        return llama_cpp::llama_bench(workspace);
    }
    if program.components().count() == 1 && !program.exists() {
        return Ok(program.to_owned());
    }
    program.canonicalize().with_context(|| {
        format!(
            "{}: --against takes the word `{}`, which builds it, or the path of a built `llama-bench`",
            program.display(),
            llama_cpp::NAME
        )
    })
}

/// Those that were asked for, or one and all.
fn threads(wanted: &[usize]) -> Vec<usize> {
    if !wanted.is_empty() {
        return wanted.to_vec();
    }
    let mut counts = vec![1, all_cpus()];
    counts.dedup();
    counts
}

fn all_cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn guest(args: &GuestArgs) -> Result<()> {
    let (file, _) = model_file(&args.model)?;
    let file = file.to_str().context("TUSSAH_HOME is not UTF-8")?;
    let (tokens, rounds) = (args.tokens.to_string(), args.rounds.to_string());
    let mut words = vec!["--", file, "--tokens", &tokens, "--rounds", &rounds];
    words.extend(args.json.then_some("--json"));
    program("tussah-runtime", "guest", &words)
}

/// A model's file in the store; one that tests know is put there first.
fn model_file(name: &str) -> Result<(PathBuf, Option<&'static TestModel>)> {
    let home = home::tussah_home()?;
    let known = model::ALL.iter().position(|known| known.name == name);
    if let Some(known) = known {
        setup::run(&SetupArgs::from_environment()?, &model::ALL[known..=known])?;
    }
    let file = model::file(&home, name).with_context(|| {
        format!(
            "no model `{name}` in {}: see `tussah model list`",
            home.display()
        )
    })?;
    Ok((file, known.map(|known| &model::ALL[known])))
}

/// One of a crate's own bench programs.
fn program(package: &str, bench: &str, words: &[&str]) -> Result<()> {
    let workspace = Workspace::ask()?;
    let mut run = workspace.cargo();
    run.args(["bench", "--locked", "--package", package, "--bench", bench]);
    command::run(run.args(words))
}
