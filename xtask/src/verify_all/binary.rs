//! `tussah` itself from two paths: `packaging/build` in two copies of the checkout, each with a
//! CARGO_HOME and a target folder of its own.
//!
//! In: the checkout. Out: two digests, and where the files differ first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::surroundings::{another_cargo_home, copy_checkout, empty, own_cargo_home};
use crate::workspace::Workspace;
use crate::{command, ui};

/// What came of two builds.
pub(super) struct Two {
    digests: [String; 2],
    sizes: [usize; 2],
    times: [Duration; 2],
    /// The first byte that differs.
    differs: Option<usize>,
}

/// Builds it twice and compares.
///
/// # Errors
/// A build fails.
pub(super) fn from_two_paths(workspace: &Workspace, folder: &Path) -> Result<Two> {
    let here = folder.join("program");
    let second = here.join("another/place-of-somebody/else");
    let places = [
        (here.join("one"), own_cargo_home()?),
        (second.clone(), another_cargo_home(&second.join("cargo"))?),
    ];
    let mut built = Vec::new();
    let mut times = Vec::new();
    for (place, cargo_home) in &places {
        ui::say(&format!("building tussah in {}", place.display()));
        let begun = Instant::now();
        built.push(build(workspace, place, cargo_home)?);
        times.push(begun.elapsed());
        ui::say(&format!("built it in {}", ui::seconds(begun.elapsed())));
    }
    let read =
        |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (first, second) = (read(&built[0])?, read(&built[1])?);
    Ok(Two::of(&first, &second, [times[0], times[1]]))
}

fn build(workspace: &Workspace, place: &Path, cargo_home: &Path) -> Result<PathBuf> {
    let (source, target) = (place.join("source"), place.join("target"));
    for folder in [&source, &target] {
        empty(folder)?;
    }
    copy_checkout(&workspace.root, &source)?;
    let mut build = Command::new("sh");
    build
        .arg(source.join("packaging/build"))
        .current_dir(&source);
    build
        .env("CARGO_HOME", cargo_home)
        .env("CARGO_TARGET_DIR", &target);
    command::run(&mut build)?;
    Ok(target.join("release/tussah"))
}

impl Two {
    fn of(first: &[u8], second: &[u8], times: [Duration; 2]) -> Self {
        let same = first.iter().zip(second).take_while(|(a, b)| a == b).count();
        Self {
            digests: [first, second].map(|bytes| format!("blake3:{}", blake3::hash(bytes))),
            sizes: [first.len(), second.len()],
            times,
            differs: (first != second).then_some(same),
        }
    }

    pub(super) fn line(&self) -> String {
        let [first, second] = self.times.map(ui::seconds);
        match self.problem() {
            None => format!(
                "{} from two paths, in {first} and {second}",
                self.digests[0]
            ),
            Some(problem) => problem,
        }
    }

    pub(super) fn problem(&self) -> Option<String> {
        let byte = self.differs?;
        let ([a, b], [first, second]) = (&self.digests, self.sizes);
        Some(format!(
            "tussah from two paths is {a} of {first} bytes and {b} of {second} bytes; byte {byte} is \
             the first that differs"
        ))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "digests": self.digests,
            "sizes": self.sizes,
            "seconds": self.times.map(|time| time.as_secs_f64()),
            "first_difference": self.differs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_has_a_place() {
        let times = [Duration::from_secs(1); 2];
        let two = |first: &[u8], second: &[u8]| Two::of(first, second, times).differs;
        assert_eq!(two(b"abc", b"abc"), None);
        assert_eq!(two(b"abc", b"abd"), Some(2));
        assert_eq!(two(b"abc", b"abcd"), Some(3));
        let problem = Two::of(b"abc", b"abd", times).problem();
        assert!(problem.is_some_and(|text| text.ends_with("byte 2 is the first that differs")));
    }
}
