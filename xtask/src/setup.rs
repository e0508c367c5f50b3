//! `cargo xtask setup`: what a fresh machine lacks.
//!
//! In: a machine with Rust, a C compiler and Python's pip.
//! Out: std for the wasm target, the toolchain's own or a private one under `TUSSAH_HOME`.
//! Never: does a finished step again, or leaves half a step behind.

use anyhow::Result;

use crate::{home, ui, wasm_std};

/// The target that jobs are built for.
pub(crate) const JOB_TARGET: &str = "wasm32-wasip2";

/// Flags of `setup`; the other tasks set up with the defaults.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct SetupArgs {
    /// Where std for wasm comes from: `auto` takes the first of the other ways that works
    #[arg(long, value_enum, default_value_t, env = "TUSSAH_WASM_STD")]
    wasm_std: wasm_std::Way,
}

/// Does what is missing and says so.
///
/// # Errors
/// A step failed; the error says what to do.
pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    let home = home::tussah_home()?;
    ui::say(&format!("setup: TUSSAH_HOME is {}", home.display()));
    wasm_std::ensure(&home, JOB_TARGET, args.wasm_std)?;
    Ok(())
}
