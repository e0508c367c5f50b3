//! The machine's clock, where something has to have a time: books, a network of this process.
//!
//! In: nothing. Out: seconds or milliseconds. No result of a job depends on it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of the Unix epoch; 0 on a machine whose clock is before it.
pub(crate) fn seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}

/// Milliseconds of the Unix epoch; 0 on a machine whose clock is before it.
pub(crate) fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
