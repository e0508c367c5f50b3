//! A step of a verification that is a program of its own, within bounds.
//!
//! In: a command in fresh surroundings. Out: how it ended and what it said. Whatever it started
//! is ended when its time or its room is over, or when the user asks for it.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    failure::Failure,
    interrupt::Interrupt,
    tools::{Fresh, Tools},
};

/// How often a step is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How often the room that it takes is measured.
const MEASURE: Duration = Duration::from_millis(500);
/// The most of what a step prints that is taken.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// The most of what it says to people.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// Files that are counted in a folder; more are too much.
const COUNT_MAX: usize = 2_000_000;

/// What a step may take.
pub(super) struct Bounds<'a> {
    /// For people: `fetching`.
    pub(super) what: &'static str,
    pub(super) until: Instant,
    /// A folder that it fills, and how far.
    pub(super) room: Option<(&'a Path, u64)>,
}

/// How a step ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) answer: Vec<u8>,
    pub(super) said: String,
}

/// Runs a step to its end.
///
/// # Errors
/// A failure if it takes more than its bounds, or is interrupted.
pub(super) fn run(
    fresh: &Fresh,
    mut command: Command,
    bounds: &Bounds<'_>,
    interrupt: &Interrupt,
) -> Result<Ended, Failure> {
    // Files, which nobody has to read meanwhile.
    let answer = tempfile::NamedTempFile::new().map_err(Failure::host)?;
    let said = tempfile::NamedTempFile::new().map_err(Failure::host)?;
    command.stdin(Stdio::null());
    command.stdout(answer.reopen().map_err(Failure::host)?);
    command.stderr(said.reopen().map_err(Failure::host)?);
    let mut child = command.spawn().map_err(Failure::host)?;
    let mut measured = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(Failure::host)? {
            break status;
        }
        let over = if interrupt.requested() {
            Some(Failure::interrupted())
        } else if Instant::now() >= bounds.until {
            Some(too_much(bounds.what, "took longer than it may"))
        } else if measured.elapsed() >= MEASURE {
            measured = Instant::now();
            fills(bounds).then(|| too_much(bounds.what, "took more room than it may"))
        } else {
            None
        };
        if let Some(failure) = over {
            Tools::Fresh(fresh.clone()).kill(&mut child);
            let _ = child.wait();
            return Err(failure);
        }
        std::thread::sleep(POLL);
    };
    if fills(bounds) {
        return Err(too_much(bounds.what, "took more room than it may"));
    }
    let read = |path: &Path, max: u64| {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let said =
        read(said.path(), SAID_BYTES_MAX).map_err(|error: std::io::Error| Failure::host(error))?;
    Ok(Ended {
        status,
        answer: read(answer.path(), ANSWER_BYTES_MAX)
            .map_err(|error: std::io::Error| Failure::host(error))?,
        said: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

fn too_much(what: &str, how: &str) -> Failure {
    Failure::host(format!("{what} {how}"))
        .help("`--timeout-s` bounds the time; what a step may write is bounded for good")
}

fn fills(bounds: &Bounds<'_>) -> bool {
    bounds
        .room
        .is_some_and(|(folder, max)| holds_more(folder, max))
}

/// Whether a folder holds more bytes than that, or more files than can be counted.
fn holds_more(folder: &Path, max: u64) -> bool {
    let (mut bytes, mut count) = (0_u64, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            count += 1;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                bytes = bytes.saturating_add(meta.len());
            }
            if bytes > max || count > COUNT_MAX {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_holds_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/ten"), [0; 10]).unwrap();
        fs::write(folder.path().join("five"), [0; 5]).unwrap();
        assert!(!holds_more(folder.path(), 15));
        assert!(holds_more(folder.path(), 14));
    }
}
