//! `run --watch`: again at each change of what the job is made of.
//!
//! In: a job, its input, and how to run it once. Out: runs, one after the other; a change ends the
//! one that is going on. Errors are shown and the next change is waited for: only Ctrl-C ends it.
//! Files are looked at four times a second, since notifications differ from one system to the next
//! and do not reach folders that are mounted from elsewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{exit_code::Exit, failure::Failure, interrupt::Interrupt, ui::Ui};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Of a job's own folder; more are looked at only if rustc read them.
const FILES_MAX: usize = 4096;
/// Names in a line about what changed.
const NAMED_MAX: usize = 3;

/// How a run ended, and which files it was made of.
type Round = (Result<Exit, Failure>, Vec<PathBuf>);

/// Runs until Ctrl-C.
///
/// # Errors
/// What `round` says that no change of a file would help with.
pub(super) fn watch(
    job: &Path,
    input: Option<&Path>,
    interrupt: &Interrupt,
    ui: &Ui,
    round: impl Fn(&Interrupt) -> Result<Round, Failure>,
) -> Result<Exit, Failure> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (job, input) = (absolute(job), input.map(absolute));
    let mut seen = Vec::new();
    loop {
        let looked_at = places(&job, input.as_deref(), &seen);
        let mut before = Snapshot::of(&looked_at);
        let changed = Arc::new(AtomicBool::new(false));
        let over = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if Snapshot::of(&looked_at) != before {
                        changed.store(true, Ordering::Relaxed);
                    }
                    std::thread::park_timeout(INTERVAL);
                }
            });
            let ended = round(&interrupt.or(&changed));
            over.store(true, Ordering::Relaxed);
            watcher.thread().unpark();
            ended
        });
        let (ended, files) = ended?;
        if interrupt.requested() {
            return Ok(Exit::INTERRUPTED);
        }
        match ended {
            Err(failure) if failure.exit != Exit::INTERRUPTED => ui.fail(&failure),
            _ => {}
        }
        // A build that failed names no files: those of the last good one still count.
        if !files.is_empty() {
            seen = files;
            // What rustc read and nobody looked at before is no change.
            let new = seen.iter().filter(|path| !looked_at.contains(path));
            before
                .0
                .extend(Snapshot::of(&new.cloned().collect::<Vec<_>>()).0);
        }
        if !changed.load(Ordering::Relaxed) {
            ui.note("waiting for a change; Ctrl-C ends");
        }
        let now = || Snapshot::of(&places(&job, input.as_deref(), &seen));
        let Some(after) = wait(now, &before, interrupt) else {
            return Ok(Exit::INTERRUPTED);
        };
        ui.note(&format!("\nchanged: {}", before.difference(&after)));
    }
}

/// The files once they differ from before and stand still; `None` at Ctrl-C.
fn wait(now: impl Fn() -> Snapshot, before: &Snapshot, interrupt: &Interrupt) -> Option<Snapshot> {
    let mut last = None;
    while !interrupt.requested() {
        let now = now();
        if now != *before && last.as_ref() == Some(&now) {
            return Some(now);
        }
        last = Some(now);
        std::thread::park_timeout(INTERVAL);
    }
    None
}

/// What a change of makes another run.
fn places(job: &Path, input: Option<&Path>, seen: &[PathBuf]) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = seen.to_vec();
    places.extend(input.map(Path::to_owned));
    if job.is_dir() {
        for file in ["Cargo.toml", "tussah.toml", "build.rs"] {
            places.push(job.join(file));
        }
        collect(&job.join("src"), &mut places);
    } else {
        places.push(job.to_owned());
    }
    places.sort();
    places.dedup();
    places
}

fn collect(folder: &Path, places: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Editors write `.name.swp`, `name~` and the like beside the file.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with('~') || places.len() > FILES_MAX {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, places),
            Ok(_) => places.push(path),
            Err(_) => {}
        }
    }
}

/// When files were last written, and how large they are; files that are not there are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Snapshot {
    fn of(places: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((path.clone(), (metadata.modified().ok(), metadata.len())))
        };
        Self(places.iter().filter_map(look).collect())
    }

    /// The names of what differs.
    fn difference(&self, other: &Self) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        let mut names: Vec<String> = self
            .0
            .iter()
            .filter(|(path, state)| other.0.get(*path) != Some(state))
            .map(|(path, _)| path)
            .chain(other.0.keys().filter(|path| !self.0.contains_key(*path)))
            .map(|path| path.strip_prefix(&here).unwrap_or(path))
            .map(|path| path.display().to_string())
            .collect();
        let more = names.len().saturating_sub(NAMED_MAX);
        names.truncate(NAMED_MAX);
        let mut line = names.join(", ");
        if more > 0 {
            line.push_str(&format!(" and {more} more"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_job_is_made_of_counts() {
        let temporary = tempfile::tempdir().unwrap();
        let job = temporary.path();
        for folder in ["src/deep", "target", ".git"] {
            fs::create_dir_all(job.join(folder)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(job.join(name), text).unwrap();
        let look = || Snapshot::of(&places(job, Some(&job.join("in.txt")), &[]));
        for name in [
            "Cargo.toml",
            "src/lib.rs",
            "in.txt",
            "out.txt",
            "target/x",
            "src/.lib.rs.swp",
        ] {
            write(name, "1");
        }
        let before = look();
        for name in [
            "out.txt",
            "target/x",
            ".git/x",
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "Cargo.lock",
        ] {
            write(name, "22");
            assert_eq!(look(), before, "{name}");
        }
        for name in [
            "Cargo.toml",
            "tussah.toml",
            "src/lib.rs",
            "src/deep/new.rs",
            "in.txt",
        ] {
            let before = look();
            write(name, "4444");
            assert!(before.difference(&look()).ends_with(name), "{name}");
        }
        fs::remove_file(job.join("in.txt")).unwrap();
        assert!(before.difference(&look()).contains("in.txt"));
    }
}
