//! What ends a test: a call that the script does not foresee, or one past a limit.
//!
//! In: what to say. Out: a panic that names the job's line. Nothing here is an error that the
//! job could get from a host.

use std::backtrace::Backtrace;

/// What is thrown through a job that the host ends.
pub(super) struct Ended(pub(super) String);

/// Panics, with the line of the job that made the call.
pub(super) fn unscripted(message: &str) -> ! {
    match caller(&Backtrace::force_capture().to_string()) {
        Some(line) => panic!("{message}\n  the job called it at {line}"),
        None => panic!("{message}"),
    }
}

/// The first line of a backtrace that is neither this crate's nor the standard library's.
fn caller(backtrace: &str) -> Option<String> {
    let lines = backtrace.lines().map(str::trim_start);
    let places: Vec<&str> = lines.filter_map(|line| line.strip_prefix("at ")).collect();
    // Where this file is, are the others of this crate.
    let here = places.iter().find_map(|place| {
        let at = place.replace('\\', "/").find("testing/unscripted.rs:")?;
        place.get(..at)
    })?;
    let theirs = |place: &&str| {
        !place.starts_with(here) && !place.starts_with("/rustc/") && !place.contains("rustlib")
    };
    places.into_iter().find(theirs).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_jobs() {
        let trace = "   0: a\n             at ./sdk/src/testing/unscripted.rs:14:5\n   \
                     1: b\n             at ./sdk/src/session.rs:9:1\n   \
                     2: c\n             at /rustc/abc/library/core/src/x.rs:1:1\n   \
                     3: run\n             at ./src/lib.rs:17:22\n";
        assert_eq!(caller(trace).as_deref(), Some("./src/lib.rs:17:22"));
        assert_eq!(caller("   0: a\n   1: b\n"), None);
    }
}
