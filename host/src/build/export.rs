//! `tussah build --verifiable`: a build that a stranger can repeat, from a commit alone.
//!
//! In: a job's folder in a git work tree. Out: a clean export of its commit, and the SHA-256 of its
//! listing. Refused: changes that no commit holds, packages by paths outside the tree, no lock
//! file, another toolchain than the tree records.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use tussah_manifest::{Digest, Label, Manifest};

use super::{Declared, MANIFEST_FILE_BYTES_MAX};
use crate::{
    failure::{Failure, file_failure},
    input, toolchain,
    verify::source,
};

/// Changed files that a refusal names.
const NAMED_MAX: usize = 5;
/// A manifest beside `tussah.toml`, in the commit: the toolchain that it records is the one.
const RECORD: &str = "manifest.toml";

/// A commit's files in a folder of our own, removed with it.
#[derive(Debug)]
pub(crate) struct Export {
    folder: TempDir,
    /// The commit's files.
    pub(crate) source: PathBuf,
    /// The job's folder below them.
    pub(crate) place: PathBuf,
    /// And all of its path.
    pub(crate) job: PathBuf,
    pub(crate) commit: String,
    pub(crate) declared: Declared,
}

impl Export {
    /// Exports the commit that a job's folder is at.
    ///
    /// # Errors
    /// A usage failure if a stranger could not build the same.
    pub(crate) fn of(job: &Path, source_uri: Option<Label>) -> Result<Self, Failure> {
        let top = PathBuf::from(git(job, &["rev-parse", "--show-toplevel"], None)?);
        let top = fs::canonicalize(&top).map_err(|error| file_failure("open", &top, error))?;
        let changed = git(
            &top,
            &["status", "--porcelain", "--untracked-files=all"],
            None,
        )?;
        if !changed.is_empty() {
            let mut names: Vec<&str> = changed.lines().take(NAMED_MAX).map(str::trim).collect();
            if changed.lines().count() > NAMED_MAX {
                names.push("…");
            }
            let message = format!("no commit holds what is here: {}", names.join(", "));
            return Err(Failure::usage(message).help("commit it, or take it away"));
        }
        let commit = git(&top, &["rev-parse", "HEAD"], None)?;
        let folder = tempfile::Builder::new()
            .prefix("tussah-export-")
            .tempdir()
            .map_err(Failure::host)?;
        let root = fs::canonicalize(folder.path()).map_err(Failure::host)?;
        let source = root.join("source");
        let index = root.join("index");
        let mut prefix = std::ffi::OsString::from("--prefix=");
        prefix.push(source.join(""));
        git(&top, &["read-tree", "HEAD"], Some(&index))?;
        let checkout = ["-c", "core.autocrlf=false", "checkout-index", "--all"].map(OsStr::new);
        git(
            &top,
            &[&checkout[..], &[prefix.as_os_str()]].concat(),
            Some(&index),
        )?;
        let listed = source::list(&source)?;
        let below = job.strip_prefix(&top).unwrap_or(Path::new(""));
        Ok(Self {
            job: source.join(below),
            place: below.to_owned(),
            source,
            folder,
            commit,
            declared: Declared {
                image: None,
                source_sha256: Some(listed.sha256),
                source_uri,
            },
        })
    }

    /// No package comes from outside the export, but from registries and repositories by commit.
    ///
    /// # Errors
    /// A usage failure that names the package.
    pub(crate) fn check_packages(&self) -> Result<(), Failure> {
        let output = toolchain::command("cargo", &self.job)
            .args(["metadata", "--format-version=1", "--locked"])
            .output()
            .map_err(|source| toolchain::ToolchainError::Start {
                program: "cargo",
                source,
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::usage(said)
                .context("the commit does not say by itself what the job is made of"));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(Failure::host)?;
        let root = fs::canonicalize(self.folder.path()).map_err(Failure::host)?;
        let packages = metadata["packages"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        for package in packages
            .iter()
            .filter(|package| package["source"].is_null())
        {
            let path = package["manifest_path"].as_str().unwrap_or_default();
            if !Path::new(path).starts_with(&root) {
                let name = package["name"].as_str().unwrap_or_default();
                let message = format!("the job depends on `{name}` outside its tree, at {path}");
                return Err(Failure::usage(message)
                    .help("copy it into the tree, or depend on it by a registry or a git commit"));
            }
        }
        Ok(())
    }

    /// The toolchain is the one that the tree records, where it records one.
    ///
    /// # Errors
    /// A usage failure that names both.
    pub(crate) fn check_toolchain(
        &self,
        (rustc, commit): (&str, &str),
        std_digest: &Digest,
    ) -> Result<(), Failure> {
        let path = self.job.join(RECORD);
        if !path.is_file() {
            return Ok(());
        }
        let bytes = input::bytes(&path, MANIFEST_FILE_BYTES_MAX)?;
        let manifest = Manifest::parse_bytes(&bytes)
            .map_err(|error| Failure::usage(error).context("the job's manifest.toml is wrong"))?;
        let Some(recorded) = manifest.build.map(|build| build.info) else {
            return Ok(());
        };
        let name = |rustc: &str, commit: &str, std: &Digest| {
            format!("rustc {rustc} ({commit}) with std {std}")
        };
        let used = name(rustc, commit, std_digest);
        let recorded = name(
            recorded.rustc.as_str(),
            recorded.rustc_commit.as_str(),
            &recorded.std_digest,
        );
        if recorded != used {
            let message = format!("the job's manifest.toml records {recorded}, and this is {used}");
            return Err(Failure::usage(message)
                .help("install that toolchain, or take the manifest out of the tree"));
        }
        Ok(())
    }
}

/// What git says, without the environment that would lead it elsewhere.
fn git<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: &[S],
    index: Option<&Path>,
) -> Result<String, Failure> {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    if let Some(index) = index {
        command.env("GIT_INDEX_FILE", index);
    }
    let output = command
        .output()
        .map_err(|error| Failure::host(error).context("cannot run `git`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::usage(said)
            .context("the job's commit cannot be read")
            .help("a verifiable build starts from a commit of git"));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
