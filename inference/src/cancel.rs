//! A flag that one thread sets and another reads between steps.
//! In: `cancel()` from anywhere. Out: `is_cancelled()`. It never interrupts anything by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks a session to stop; clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every session that holds this token or a clone to stop at its next step.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
