//! `cargo xtask setup`: what a fresh machine lacks.
//!
//! In: a machine with Rust, a C compiler and Python's pip.
//! Out: std for the wasm targets, the toolchain's own or a private one under `TUSSAH_HOME`;
//! the models that a task needs in the store there.
//! Never: does a finished step again, or leaves half a step behind.

use anyhow::Result;
use clap::{Args, FromArgMatches};

use crate::model::TestModel;
use crate::workspace::Workspace;
use crate::{home, model, ui, wasm_std};

/// The targets that jobs are built for: components, and modules of `abi = "preview1"`.
const JOB_TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-wasip1"];

/// Flags of `setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetupArgs {
    /// Where std for wasm comes from: `auto` takes the first of the other ways that works
    #[arg(long, value_enum, default_value_t, env = "TUSSAH_WASM_STD")]
    pub(crate) wasm_std: wasm_std::Way,
    /// Fetch the models of all tests, not only the demonstration's
    #[arg(long)]
    all_models: bool,
}

impl SetupArgs {
    /// The models that the flags ask for.
    pub(crate) fn models(&self) -> &'static [TestModel] {
        if self.all_models {
            &model::ALL
        } else {
            &[model::SMOLLM2]
        }
    }

    /// What the tasks that set up by themselves use: no flags, only the environment.
    ///
    /// # Errors
    /// The environment asks for something unknown.
    pub(crate) fn from_environment() -> Result<SetupArgs> {
        let none = Self::augment_args(clap::Command::new("setup").no_binary_name(true));
        Ok(Self::from_arg_matches(
            &none.try_get_matches_from([""; 0])?,
        )?)
    }
}

/// Does what is missing and says so.
///
/// # Errors
/// A step failed; the error says what to do.
pub(crate) fn run(args: &SetupArgs, models: &[TestModel]) -> Result<()> {
    let home = home::tussah_home()?;
    ui::say(&format!("setup: TUSSAH_HOME is {}", home.display()));
    for target in JOB_TARGETS {
        wasm_std::ensure(&home, target, args.wasm_std)?;
    }
    model::ensure(&home, models, || Workspace::ask()?.release_binary())
}
