//! A flag that one thread sets and another reads between steps.
//! In: `cancel()` from anywhere. Out: `is_cancelled()`, and a call to whoever cannot look by itself.
//! It never interrupts anything of its own accord.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Asks work to stop; clones share the flag.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    calls: Mutex<Calls>,
}

/// What is called when somebody asks; entries go with their [`OnCancel`].
#[derive(Default)]
struct Calls {
    next: u64,
    waiting: BTreeMap<u64, Box<dyn Fn() + Send>>,
}

impl CancelToken {
    /// A token that nobody has cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all work that holds this token or a clone to stop at its next step.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        for call in self.0.calls().waiting.values() {
            call();
        }
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Has `call` called when somebody asks, from their thread, for as long as the result is kept;
    /// at once if somebody did. It must return quickly and may be called more than once.
    pub fn on_cancel(&self, call: impl Fn() + Send + 'static) -> OnCancel {
        let mut calls = self.0.calls();
        // Under the lock: whoever cancels now either finds the call or was seen here.
        if self.is_cancelled() {
            call();
        }
        let id = calls.next;
        calls.next += 1;
        calls.waiting.insert(id, Box::new(call));
        drop(calls);
        OnCancel {
            shared: Arc::clone(&self.0),
            id,
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = self.is_cancelled();
        formatter
            .debug_tuple("CancelToken")
            .field(&cancelled)
            .finish()
    }
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a call of [`CancelToken::on_cancel`] in place; after its drop nothing is called any more.
#[must_use = "the call goes when this is dropped"]
pub struct OnCancel {
    shared: Arc<Shared>,
    id: u64,
}

impl fmt::Debug for OnCancel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OnCancel").finish_non_exhaustive()
    }
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        self.shared.calls().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_call_is_made_while_its_guard_lives() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = || {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let token = CancelToken::new();
        drop(token.on_cancel(counted()));
        let kept = token.on_cancel(counted());
        assert_eq!(count.load(Ordering::Relaxed), 0);
        token.clone().cancel();
        assert_eq!(
            count.load(Ordering::Relaxed),
            1,
            "only the one that is kept"
        );
        drop(kept);
        token.cancel();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let late = token.on_cancel(counted());
        assert_eq!(count.load(Ordering::Relaxed), 2, "cancelled already");
        drop(late);
    }
}
