//! `abi = "preview1"`: core modules of WASI preview 1, with models through `wasi_ephemeral_nn`.
//!
//! In: a core module's calls, every pointer and length in them hostile. Out: the same job as a
//! component would be: input on standard input, output on standard output, the log on standard
//! error, virtual clocks, random bytes from the request's nonce. There are no arguments, no
//! environment and no files. A pointer outside the module's memory ends the job as a trap; a
//! wrong handle or argument is an error code.

mod imports;
mod memory;
mod nn;
mod streams;
mod system;

use chacha20::ChaCha20Rng;
use wasmtime::{Engine, ExternType, Linker, Module};

use super::guest::Guest;
pub(crate) use imports::check;

/// What the host keeps for a guest of this ABI.
pub(crate) struct State {
    input: Vec<u8>,
    /// Bytes of the input that were read.
    read: usize,
    /// Made at the first use: most jobs ask for no random bytes.
    random: Option<ChaCha20Rng>,
    nn: nn::State,
}

impl State {
    pub(crate) fn new(input: Vec<u8>) -> Self {
        Self {
            input,
            read: 0,
            random: None,
            nn: nn::State::default(),
        }
    }
}

/// Ends a module that called `proc_exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the module ended itself with code {0}")]
pub(crate) struct Exited(pub(crate) u32);

/// The linker with everything that `preview1/imports.rs` lets through, and nothing else.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    streams::add_to_linker(&mut linker)?;
    system::add_to_linker(&mut linker)?;
    nn::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Looks whether a module can be started: what preview 1 calls a command.
///
/// # Errors
/// What it lacks.
pub(crate) fn check_exports(module: &Module) -> wasmtime::Result<()> {
    match module.get_export("_start") {
        Some(ExternType::Func(start))
            if start.params().len() == 0 && start.results().len() == 0 => {}
        Some(_) => {
            wasmtime::bail!("its export `_start` is no function without parameters and results")
        }
        None => wasmtime::bail!("it has no export `_start`"),
    }
    match module.get_export("memory") {
        Some(ExternType::Memory(_)) => Ok(()),
        _ => wasmtime::bail!("it does not export its memory as `memory`"),
    }
}
