//! The installed rustc: which one it is and where its libraries lie.
//!
//! In: `rustc -vV` and `rustc --print sysroot`. Out: [`Toolchain`]. Never: changes it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command;

/// What `rustc` says of itself.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// `1.95.0`
    pub(crate) release: String,
    /// The whole commit hash, or `unknown` from a distribution that does not state it.
    pub(crate) commit: String,
    /// The target it builds for by default.
    pub(crate) host: String,
    /// Where its own libraries lie.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// Asks `rustc`.
    ///
    /// # Errors
    /// There is none, or it answers in an unknown form.
    pub(crate) fn ask() -> Result<Toolchain> {
        let version = command::output(command::rustc().arg("-vV")).context(
            "Rust is needed: install 1.95 or later, by rustup or your system's packages",
        )?;
        let field = |name: &str| {
            let found = version
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found
                .map(str::to_owned)
                .with_context(|| format!("`rustc -vV` states no {name}"))
        };
        let sysroot = command::output(command::rustc().args(["--print", "sysroot"]))?;
        Ok(Toolchain {
            release: field("release")?,
            commit: field("commit-hash").unwrap_or_else(|_| "unknown".to_owned()),
            host: field("host")?,
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    /// The folder name of this rustc's private sysroot: release and start of the commit hash.
    pub(crate) fn name(&self) -> String {
        let commit: String = self.commit.chars().take(9).collect();
        format!("{}-{commit}", self.release)
    }

    /// True where std for `target` came with the toolchain.
    pub(crate) fn has_std(&self, target: &str) -> bool {
        let lib = self.sysroot.join("lib/rustlib").join(target).join("lib");
        std::fs::read_dir(lib).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
        })
    }
}
