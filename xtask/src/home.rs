//! Where Tussah keeps what is not in the checkout.
//!
//! In: the environment. Out: the folder `TUSSAH_HOME`, by the same rule as the `tussah` binary.
//! Never: writes a file into it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `TUSSAH_HOME`, else the user's data folder.
///
/// # Errors
/// No variable says where the user's data lies.
pub(crate) fn tussah_home() -> Result<PathBuf> {
    if let Some(home) = set("TUSSAH_HOME") {
        return std::path::absolute(&home).context("TUSSAH_HOME cannot be made absolute");
    }
    let data = if cfg!(windows) {
        set("APPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        set("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local/share")))
    };
    let data = data.context("no home folder is known; set TUSSAH_HOME to a folder of your own")?;
    Ok(data.join("tussah"))
}

/// Creates a folder of the home, for the owner alone, since keys are to lie in it.
///
/// # Errors
/// The folder cannot be created.
pub(crate) fn create(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let created = builder.create(folder);
    created.with_context(|| format!("cannot create {}; check TUSSAH_HOME", folder.display()))
}

fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
