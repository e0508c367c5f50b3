//! What a task tells the person who runs it.
//!
//! In: sentences. Out: lines on stderr, so that stdout stays free for what a task shows.
//! Never: colours, or anything that needs a terminal.

use std::time::Duration;

/// Prints one line.
#[expect(
    clippy::print_stderr,
    reason = "the one place where xtask writes to the terminal"
)]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A size as a person reads it.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= MIB {
        format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB)
    } else {
        format!("{} KiB", bytes.div_ceil(1024))
    }
}

/// A duration as a person reads it.
pub(crate) fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else {
        format!("{} min {:02} s", tenths / 600, tenths / 10 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(size(0), "0 KiB");
        assert_eq!(size(1), "1 KiB");
        assert_eq!(size(98_362_432), "93.8 MiB");
        assert_eq!(seconds(Duration::from_millis(59_999)), "59.9 s");
        assert_eq!(seconds(Duration::from_secs(60)), "1 min 00 s");
    }
}
