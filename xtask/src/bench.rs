//! `cargo xtask bench`: figures to compare with, measured on this machine.
//!
//! In: the checkout and the test model. Out: the figures on stdout, as the measuring program prints them.
//! Never: judges them; a shared machine is no place for a threshold.

use std::thread;

use anyhow::{Context, Result};

use crate::setup::{self, SetupArgs};
use crate::workspace::Workspace;
use crate::{command, home, model, ui};

/// What to measure.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Tokens a second of the test model, reading and generating, with 1 thread and with all
    Inference,
    /// Microseconds of a job that does nothing, beside bare wasmtime with the same settings
    Sandbox,
    /// A channel's tree of a million receipts: time, memory, proofs
    Receipts,
}

/// Builds what measures and runs it.
///
/// # Errors
/// Set-up, the build or the measurement failed.
pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Inference => inference(),
        Bench::Sandbox => program("tussah-runtime", "sandbox"),
        Bench::Receipts => program("tussah-manifest", "receipts"),
    }
}

fn inference() -> Result<()> {
    let workspace = Workspace::ask()?;
    setup::run(&SetupArgs::from_environment()?, &[model::SMOLLM2])?;
    let model = model::SMOLLM2
        .stored(&home::tussah_home()?)
        .context("set-up left no model")?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, threads];
    counts.dedup();
    for count in counts {
        ui::say(&format!(
            "bench: inference with {count} of {threads} threads"
        ));
        let mut run = workspace.cargo();
        run.args([
            "run",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "tussah-inference",
        ]);
        run.args(["--example", "rates", "--"]).arg(&model);
        command::run(run.args(["--threads", &count.to_string()]))?;
    }
    Ok(())
}

/// One of a crate's own bench programs.
fn program(package: &str, bench: &str) -> Result<()> {
    let workspace = Workspace::ask()?;
    let mut run = workspace.cargo();
    run.args(["bench", "--locked", "--package", package, "--bench", bench]);
    command::run(&mut run)
}
