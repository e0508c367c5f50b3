//! Packages of PyPI, in a folder of their own.
//!
//! In: names and versions. Out: the folder under `target/` that has them.
//! Never: installs anything for the whole machine, or builds a package.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{command, ui};

/// Where pip put these packages, once.
///
/// # Errors
/// They cannot be had.
pub(crate) fn install(workspace: &Workspace, packages: &[(&str, &str)]) -> Result<PathBuf> {
    let named: Vec<String> = packages
        .iter()
        .map(|(name, version)| format!("{name}=={version}"))
        .collect();
    let folder = workspace.target.join("python").join(named.join("-"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let named = named.as_slice();
    ui::say(&format!("fetching {} by pip", named.join(", ")));
    let parent = folder.parent().context("a folder under target/")?;
    fs::create_dir_all(parent)?;
    let work = tempfile::tempdir_in(parent)?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--no-warn-conflicts",
        "--root-user-action=ignore",
        "--only-binary",
        ":all:",
    ]);
    pip.arg("--target").arg(work.path()).args(named);
    command::run(&mut pip).with_context(|| format!("pip cannot fetch {}", named.join(", ")))?;
    // A folder of this name is a whole one.
    fs::rename(work.path(), &folder)?;
    Ok(folder)
}
