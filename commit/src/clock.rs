//! `Clock`: where a book takes the time from: the chain's where the chain is in the box, the
//! machine's elsewhere.

/// Seconds of the Unix epoch.
pub trait Clock: Send + Sync {
    /// The second that it is.
    fn now(&self) -> u32;
}

impl<F: Fn() -> u32 + Send + Sync> Clock for F {
    fn now(&self) -> u32 {
        self()
    }
}
