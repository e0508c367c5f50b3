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
pub(crate) struct Interrupt {
    pressed: Arc<AtomicBool>,
    /// Another reason to stop.
    also: Option<Arc<AtomicBool>>,
}

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
        Ok(Self {
            pressed: flag,
            also: None,
        })
    }

    /// A flag that nothing sets: for what has to end well after Ctrl-C.
    pub(crate) fn never() -> Self {
        Self {
            pressed: Arc::default(),
            also: None,
        }
    }

    /// The same, and this flag stops too.
    pub(crate) fn or(&self, flag: &Arc<AtomicBool>) -> Self {
        Self {
            pressed: Arc::clone(&self.pressed),
            also: Some(Arc::clone(flag)),
        }
    }

    /// Whether to stop.
    pub(crate) fn requested(&self) -> bool {
        let set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        set(&self.pressed) || self.also.as_ref().is_some_and(set)
    }
}
