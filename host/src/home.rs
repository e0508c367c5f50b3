//! Where Tussah keeps its things: `TUSSAH_HOME`, or the user's data folder.
//!
//! In: the environment. Out: checked paths, created with permissions for the owner alone.
//! It never touches anything outside that folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{exit_code::Exit, failure::Failure};

/// The home folder. Its layout:
///
/// ```text
/// blobs/<2 hex>/<64 hex>   models, modules and manifests by BLAKE3 digest
/// models/<name>.toml       names for models
/// keys/                    secrets of this host, readable by the owner alone
/// wallets/<name>.json      keys that pay, each under a passphrase
/// channels/                terms and books of payment channels
/// serve/                   the ledger of `tussah serve`
/// serve.toml               its settings
/// submitted/<id>.json      requests that were sent to providers
/// downloads/               files that are not whole yet
/// cache/                   can be deleted at any time
/// localnet/                the network of `tussah chain localnet`
/// sysroots/                std for wasm targets, where rustup has none
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
}

/// Why the home folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// Neither `TUSSAH_HOME` nor the platform's data folder is known.
    #[error(
        "there is no place for Tussah's data: TUSSAH_HOME is not set and no home folder is known"
    )]
    Unknown,
    /// A folder could not be made or used.
    #[error("cannot use the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::new(Exit::HOST_FAILED, error)
            .help("set TUSSAH_HOME to a folder that you can write to, with a few GB of space")
    }
}

impl Home {
    /// Finds the folder and makes it if it is not there.
    ///
    /// # Errors
    /// [`HomeError`] if there is no such place or it cannot be created.
    pub(crate) fn open() -> Result<Self, HomeError> {
        let root =
            locate(|name| std::env::var_os(name).map(PathBuf::from)).ok_or(HomeError::Unknown)?;
        Self::at(root)
    }

    /// Uses this folder.
    ///
    /// # Errors
    /// [`HomeError::Folder`] if it cannot be created.
    pub(crate) fn at(root: PathBuf) -> Result<Self, HomeError> {
        let root = std::path::absolute(&root).map_err(|source| HomeError::Folder {
            path: root.clone(),
            source,
        })?;
        private_folder(&root)?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A folder in it, created on first use.
    ///
    /// # Errors
    /// [`HomeError::Folder`] if it cannot be created.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, HomeError> {
        let path = self.root.join(name);
        private_folder(&path)?;
        Ok(path)
    }
}

/// Free space of the disk that a folder is on, where that is known.
pub(crate) fn disk_free(folder: &Path) -> Option<u64> {
    let folder = fs::canonicalize(folder).ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    // The deepest mount point above the folder is the one that counts.
    disks
        .iter()
        .flat_map(|disks| disks.iter())
        .filter(|disk| folder.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().components().count())
        .map(sysinfo::Disk::available_space)
}

/// The rule for the folder's place, apart from the process's environment.
fn locate(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let filled = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    if let Some(home) = filled("TUSSAH_HOME") {
        return Some(home);
    }
    if cfg!(windows) {
        return Some(filled("APPDATA")?.join("tussah"));
    }
    if cfg!(target_os = "macos") {
        return Some(filled("HOME")?.join("Library/Application Support/tussah"));
    }
    // The XDG specification says that a relative path is to be ignored.
    match filled("XDG_DATA_HOME").filter(|path| path.is_absolute()) {
        Some(data) => Some(data.join("tussah")),
        None => Some(filled("HOME")?.join(".local/share/tussah")),
    }
}

fn private_folder(path: &Path) -> Result<(), HomeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| HomeError::Folder {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Option<PathBuf> {
        locate(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    #[cfg(all(unix, not(target_os = "macos")))]
    fn place_follows_the_environment() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: [Case<'_>; 5] = [
            (&[("TUSSAH_HOME", "/a"), ("HOME", "/h")], Some("/a")),
            (
                &[("TUSSAH_HOME", ""), ("HOME", "/h")],
                Some("/h/.local/share/tussah"),
            ),
            (
                &[("XDG_DATA_HOME", "/x"), ("HOME", "/h")],
                Some("/x/tussah"),
            ),
            (
                &[("XDG_DATA_HOME", "relative"), ("HOME", "/h")],
                Some("/h/.local/share/tussah"),
            ),
            (&[], None),
        ];
        for (variables, expected) in cases {
            assert_eq!(
                with(variables),
                expected.map(PathBuf::from),
                "{variables:?}"
            );
        }
    }

    #[test]
    #[cfg(unix)]
    fn folders_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("a/home")).unwrap();
        let keys = home.folder("keys").unwrap();
        for folder in [home.root(), &keys] {
            let mode = fs::metadata(folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
    }
}
