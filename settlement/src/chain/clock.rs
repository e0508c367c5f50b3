//! `Clock`: the machine's time, as far as waiting needs it.
//!
//! In: how long to wait. Out: the wait, and numbers that spread waits apart. It is never the
//! chain's time: that is [`Chain::time`](super::Chain::time).

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Time to wait in. Tests have one that passes at once.
pub trait Clock: Send + Sync {
    /// Time since some moment that does not change; it never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send;

    /// Any number. It spreads the retries of many clients apart and is no secret.
    fn any_number(&self) -> u64;
}

/// The machine's clock; waits need a tokio runtime with time.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }

    fn any_number(&self) -> u64 {
        // The standard library draws the keys of each process's hash maps at random.
        RandomState::new().hash_one(self.now())
    }
}
