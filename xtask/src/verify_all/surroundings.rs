//! Surroundings that must not show in a module: where it is built, by whom, and when.
//!
//! In: a checkout. Out: a copy of it, and `tussah build` in it with some of the surroundings changed.
//! What was fetched already is shared; what is built is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::job::{Built, Job, Record};
use crate::{command, home};

/// When files are from, and the clock shows, in the surroundings `clock`: 3 February 2001.
const ANOTHER_TIME_S: u64 = 981_173_106;

/// What can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Folder,
    CargoHome,
    User,
    Umask,
    Locale,
    TimeZone,
    Jobs,
    Clock,
}

impl Change {
    pub(super) const ALL: [Self; 8] = [
        Self::Folder,
        Self::CargoHome,
        Self::User,
        Self::Umask,
        Self::Locale,
        Self::TimeZone,
        Self::Jobs,
        Self::Clock,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::CargoHome => "CARGO_HOME",
            Self::User => "user",
            Self::Umask => "umask",
            Self::Locale => "locale",
            Self::TimeZone => "time zone",
            Self::Jobs => "one compiler",
            Self::Clock => "clock",
        }
    }
}

/// A copy of the checkout, and what is different around it.
#[derive(Debug)]
pub(super) struct Place {
    source: PathBuf,
    target: PathBuf,
    cargo_home: PathBuf,
    user_home: PathBuf,
    tussah: PathBuf,
    changes: &'static [Change],
}

impl Place {
    /// Copies what git does not ignore, and makes the folders.
    ///
    /// # Errors
    /// Git or the disk fails.
    pub(super) fn make(
        root: &Path,
        folder: &Path,
        tussah: &Path,
        name: &str,
        changes: &'static [Change],
    ) -> Result<Self> {
        let source = match changes.contains(&Change::Folder) {
            true => folder.join("somebody else's/ein anderer Ort/of the job"),
            false => folder.join("source"),
        };
        empty(&source)?;
        copy_checkout(root, &source)?;
        if changes.contains(&Change::Clock) {
            set_times(
                &source,
                SystemTime::UNIX_EPOCH + Duration::from_secs(ANOTHER_TIME_S),
            )?;
        }
        // Built anew each time: what was built before would hide a difference.
        let target = folder.join("target").join(name.replace(' ', "-"));
        empty(&target)?;
        let cargo_home = match changes.contains(&Change::CargoHome) {
            true => another_cargo_home(&folder.join("another cargo home"))?,
            false => own_cargo_home()?,
        };
        let user_home = folder.join("home of another");
        fs::create_dir_all(&user_home)?;
        Ok(Self {
            source,
            target,
            cargo_home,
            user_home,
            tussah: tussah.to_owned(),
            changes,
        })
    }

    /// Builds a job here.
    ///
    /// # Errors
    /// It does not build; what was said is in the error.
    pub(super) fn build(&self, job: &Job) -> Result<Built> {
        let mut command = self.command(&job.name)?;
        let ended = command.stdin(Stdio::null()).output();
        let ended = ended.context("cannot start `tussah build`")?;
        // With --json it says what is wrong on standard output.
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !ended.status.success() {
            let (out, err) = (said(&ended.stdout), said(&ended.stderr));
            bail!("`tussah build` ended with {}: {err} {out}", ended.status);
        }
        let document: Value =
            serde_json::from_slice(&ended.stdout).context("`tussah build` gave no JSON")?;
        let text = |part: &str, name: &str| {
            let found = document.get(part).and_then(|part| part.get(name)?.as_str());
            found.with_context(|| format!("`tussah build` named no {name} of the {part}"))
        };
        let record = Record::read(Path::new(text("manifest", "path")?))?;
        if text("module", "digest")? != record.module {
            bail!("`tussah build` named another module than it wrote");
        }
        Ok(Built { record })
    }

    fn command(&self, job: &str) -> Result<Command> {
        let has = |change| self.changes.contains(&change);
        let mut words: Vec<PathBuf> = Vec::new();
        if has(Change::Clock) && command::exists("faketime") {
            words.extend(["faketime", "2001-02-03 04:05:06"].map(PathBuf::from));
        }
        words.push(self.tussah.clone());
        let mut command = match has(Change::Umask) && cfg!(unix) {
            true => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "umask 077; exec \"$@\"", "sh"])
                    .args(&words);
                shell
            }
            false => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                command
            }
        };
        command.args(["build", &format!("jobs/{job}"), "--json", "--jobs"]);
        command.arg(if has(Change::Jobs) { "1" } else { "2" });
        command
            .current_dir(&self.source)
            .env("TUSSAH_HOME", home::tussah_home()?)
            .env("CARGO_HOME", &self.cargo_home)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUSTUP_HOME", rustup_home()?);
        if has(Change::User) {
            command.env("HOME", &self.user_home);
            command.env("USER", "somebody").env("LOGNAME", "somebody");
        }
        if has(Change::Locale) {
            command
                .env("LC_ALL", "tr_TR.UTF-8")
                .env("LANG", "tr_TR.UTF-8");
        }
        if has(Change::TimeZone) {
            command.env("TZ", "Pacific/Chatham");
        }
        if has(Change::Clock) {
            command.env("SOURCE_DATE_EPOCH", ANOTHER_TIME_S.to_string());
        }
        Ok(command)
    }
}

/// What git knows of or would take, as it is in the work tree.
///
/// # Errors
/// Git or the disk fails.
pub(super) fn copy_checkout(root: &Path, to: &Path) -> Result<()> {
    let mut list = Command::new("git");
    list.current_dir(root);
    list.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    for file in command::output(&mut list)?.split_terminator('\0') {
        let from = root.join(file);
        // What was removed is still in the index.
        if !from.is_file() {
            continue;
        }
        let target = to.join(file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&from, &target).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// A CARGO_HOME with what the own one has fetched, which unpacks it anew.
///
/// # Errors
/// The disk fails.
pub(super) fn another_cargo_home(at: &Path) -> Result<PathBuf> {
    let own = own_cargo_home()?;
    empty(at)?;
    let registry = at.join("registry");
    fs::create_dir_all(&registry)?;
    for part in ["cache", "index"] {
        let there = own.join("registry").join(part);
        #[cfg(unix)]
        if there.is_dir() {
            std::os::unix::fs::symlink(&there, registry.join(part))?;
        }
        #[cfg(not(unix))]
        let _ = there;
    }
    for file in ["config.toml", "config"] {
        if own.join(file).is_file() {
            fs::copy(own.join(file), at.join(file))?;
        }
    }
    Ok(at.to_owned())
}

/// The user's CARGO_HOME.
///
/// # Errors
/// Nothing says where it is.
pub(super) fn own_cargo_home() -> Result<PathBuf> {
    own("CARGO_HOME", ".cargo")
}

fn rustup_home() -> Result<PathBuf> {
    own("RUSTUP_HOME", ".rustup")
}

fn own(variable: &str, below: &str) -> Result<PathBuf> {
    let filled = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = filled(variable) {
        return Ok(path.into());
    }
    let home = filled("HOME").or_else(|| filled("USERPROFILE"));
    let home = home.with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(Path::new(&home).join(below))
}

/// An empty folder.
///
/// # Errors
/// The disk fails.
pub(super) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn set_times(folder: &Path, to: SystemTime) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_times(&entry.path(), to)?;
        } else {
            fs::File::options()
                .write(true)
                .open(entry.path())?
                .set_modified(to)?;
        }
    }
    Ok(())
}
