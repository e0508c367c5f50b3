//! The checkout: where it lies, what is in it, where cargo builds it.
//!
//! In: `cargo metadata`. Out: [`Workspace`]. Never: asks the network.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command, ui};

/// What cargo says of the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the root Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// The members, in cargo's own words.
    pub(crate) members: Vec<Value>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// We are not in a workspace, or a manifest in it is wrong.
    pub(crate) fn ask() -> Result<Workspace> {
        let mut metadata = metadata(&["--no-deps"])?;
        let folder = |metadata: &Value, name: &str| {
            let path = metadata
                .get(name)
                .and_then(Value::as_str)
                .map(PathBuf::from);
            path.with_context(|| format!("`cargo metadata` states no {name}"))
        };
        Ok(Workspace {
            root: folder(&metadata, "workspace_root")?,
            target: folder(&metadata, "target_directory")?,
            members: match metadata.get_mut("packages").map(Value::take) {
                Some(Value::Array(members)) => members,
                _ => Vec::new(),
            },
        })
    }

    /// Cargo, in the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = command::cargo();
        cargo.current_dir(&self.root);
        cargo
    }

    /// Builds the `tussah` binary and returns its path.
    ///
    /// # Errors
    /// It does not build.
    pub(crate) fn release_binary(&self) -> Result<PathBuf> {
        ui::say("building tussah (release; several minutes the first time)");
        let mut build = self.cargo();
        build.args(["build", "--release", "--locked", "--package", "tussah-host"]);
        command::run(build.args(["--bin", "tussah"]))?;
        Ok(self.binary("release"))
    }

    /// Builds the binary and the tests with the features that all tests have; returns the binary's
    /// path.
    ///
    /// # Errors
    /// Something does not build.
    pub(crate) fn debug_binary(&self) -> Result<PathBuf> {
        let mut build = self.cargo();
        build.args(["build", "--workspace", "--locked", "--bins", "--tests"]);
        command::run(&mut build)?;
        Ok(self.binary("debug"))
    }

    /// Where cargo puts `tussah` in the profile's folder.
    pub(crate) fn binary(&self, profile: &str) -> PathBuf {
        self.target
            .join(profile)
            .join(format!("tussah{}", std::env::consts::EXE_SUFFIX))
    }
}

/// `cargo metadata` with `arguments`.
///
/// # Errors
/// Cargo refuses, or does not answer in JSON.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut ask = command::cargo();
    ask.args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments);
    let answer = command::output(&mut ask)?;
    serde_json::from_str(&answer).context("`cargo metadata` did not answer in JSON")
}
