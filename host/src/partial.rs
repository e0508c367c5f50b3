//! A file on its way into the store: written in `downloads/`, taken over whole or not at all.
//!
//! In: bytes of a generator. Out: a blob, or nothing if it is dropped before it is whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    blobs::{Added, Blobs},
    failure::Failure,
    home::{self, Home, HomeError},
    interrupt::Interrupt,
    ui::{self, Ui},
};

/// Free space that must be left beside a download: documents, caches, other programs.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// Nobody comes back to a download after that long.
const AGE_MAX: Duration = Duration::from_hours(24 * 14);

/// A file that is not whole yet.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    /// It became a blob.
    taken: bool,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartialError {
    /// It would not fit.
    #[error("{} needed, {} free in {}", ui::size(*needed_bytes), ui::size(*free_bytes), folder.display())]
    NoSpace {
        folder: PathBuf,
        needed_bytes: u64,
        free_bytes: u64,
    },
    /// Reading or writing failed.
    #[error("cannot write to {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl From<PartialError> for Failure {
    fn from(error: PartialError) -> Self {
        let help = match &error {
            PartialError::Home(_) => "set TUSSAH_HOME to a folder that you can write to",
            PartialError::NoSpace { .. } | PartialError::Io { .. } => {
                "free some space, or set TUSSAH_HOME to a folder on another disk"
            }
        };
        Self::host(error).help(help)
    }
}

/// The folder of files that are not whole, without what was left there long ago.
///
/// # Errors
/// [`PartialError::Home`] if it cannot be made.
pub(crate) fn folder(home: &Home) -> Result<PathBuf, PartialError> {
    let folder = home.folder("downloads")?;
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > AGE_MAX));
        if old {
            // If it cannot be deleted now, the next time will do.
            let _ = fs::remove_file(entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(folder)
}

/// Refuses what would not fit.
///
/// # Errors
/// [`PartialError::NoSpace`]; where the free space is not known, writing will tell.
pub(crate) fn check_space(folder: &Path, bytes: u64) -> Result<(), PartialError> {
    let needed_bytes = bytes.saturating_add(DISK_RESERVE_BYTES);
    match home::disk_free(folder) {
        Some(free_bytes) if free_bytes < needed_bytes => Err(PartialError::NoSpace {
            folder: folder.to_owned(),
            needed_bytes,
            free_bytes,
        }),
        _ => Ok(()),
    }
}

impl Partial {
    /// A new file for so many bytes, gone when it is dropped.
    ///
    /// # Errors
    /// [`PartialError`] if there is no place for it.
    pub(crate) fn fresh(home: &Home, bytes: u64) -> Result<Self, PartialError> {
        let folder = folder(home)?;
        check_space(&folder, bytes)?;
        let io = |source| PartialError::Io {
            path: folder.clone(),
            source,
        };
        let temporary = tempfile::Builder::new()
            .prefix(".incoming-")
            .tempfile_in(&folder)
            .map_err(io)?;
        let (file, path) = temporary.keep().map_err(|error| io(error.error))?;
        Ok(Self {
            path,
            file,
            taken: false,
        })
    }

    /// To write to, at its end.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// How much is there.
    ///
    /// # Errors
    /// [`PartialError::Io`].
    pub(crate) fn len(&self) -> Result<u64, PartialError> {
        let metadata = self.file.metadata().map_err(|source| self.io(source))?;
        Ok(metadata.len())
    }

    /// Hashes the file, lets `check` look at it, and makes it a blob.
    ///
    /// # Errors
    /// What `check` returns, or the store's.
    pub(crate) fn into_store(
        mut self,
        blobs: &Blobs,
        interrupt: &Interrupt,
        ui: &Ui,
        check: impl FnOnce(&Added, &Path) -> Result<(), Failure>,
    ) -> Result<Added, Failure> {
        let bar = ui.bytes_bar("checking", self.len()?);
        let hashed = blobs.hash(&self.path, interrupt, &mut |read| bar.add(read))?;
        drop(bar);
        check(&hashed, &self.path)?;
        blobs.take(&self.file, &self.path, &hashed.digest)?;
        self.taken = true;
        Ok(hashed)
    }

    fn io(&self, source: io::Error) -> PartialError {
        PartialError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.taken {
            // What cannot be deleted now goes when it is old.
            let _ = fs::remove_file(&self.path);
        }
    }
}
