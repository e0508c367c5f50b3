//! Ctrl-C: the first asks the command to stop and clean up, the second kills the process.
//!
//! In: SIGINT. Out: a flag that long loops look at. Commands that do not look at it never
//! install it, so that Ctrl-C ends them at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::failure::Failure;

/// Whether Ctrl-C was pressed.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over Ctrl-C for this process.
    ///
    /// # Errors
    /// A host failure if the signal handler cannot be registered.
    pub(crate) fn install() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        let install = || {
            // In this order: the first signal finds the flag unset and sets it, the second
            // finds it set and does what an unhandled signal does.
            let signal = signal_hook::consts::SIGINT;
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))
        };
        install().map_err(|error| Failure::host(error).context("cannot take over Ctrl-C"))?;
        Ok(Self(flag))
    }

    /// A flag that nothing sets.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Whether to stop.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
