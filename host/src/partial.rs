//! A file on its way into the store: written in `downloads/`, taken over whole or not at all.
//!
//! In: bytes of a download or of a generator. Out: a blob. A nameless one goes when it is dropped;
//! one with a key stays after an error or a kill, so that the next try goes on where it ended.
//! One process at a time has the file of a key.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tussah_manifest::Digest;

use crate::{
    blobs::{Added, Blobs},
    failure::Failure,
    home::{self, Home, HomeError},
    interrupt::Interrupt,
    models::ModelsError,
    ui::{self, Ui},
};

/// Free space that must be left beside a download: documents, caches, other programs.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// Nobody comes back to a download after that long.
const AGE_MAX: Duration = Duration::from_hours(24 * 14);

/// What must be the same at the next try for the bytes on disk to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validator {
    /// A strong ETag, or the date of the last change.
    pub(crate) tag: Option<String>,
    /// Size of the whole file.
    pub(crate) size_bytes: Option<u64>,
}

/// A file that is not whole yet.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    /// Stays when it is dropped.
    kept: bool,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartialError {
    /// Another process writes it.
    #[error("another tussah is downloading the same file")]
    Busy,
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
            PartialError::Busy => "wait for it to end, or end it",
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
            kept: false,
        })
    }

    /// The file of a source, with what earlier tries left in it.
    ///
    /// # Errors
    /// [`PartialError::Busy`] if another process has it.
    pub(crate) fn of(home: &Home, source: &str) -> Result<Self, PartialError> {
        let key = Digest::of(source.as_bytes()).to_hex();
        let path = folder(home)?.join(format!("{}.part", &key[..32]));
        let io = |source| PartialError::Io {
            path: path.clone(),
            source,
        };
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(PartialError::Busy),
            // A file system without locks has one user.
            Err(fs::TryLockError::Error(_)) => {}
        }
        Ok(Self {
            path,
            file,
            kept: true,
        })
    }

    /// To write to, at its end.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How much is there.
    ///
    /// # Errors
    /// [`PartialError::Io`].
    pub(crate) fn len(&self) -> Result<u64, PartialError> {
        let metadata = self.file.metadata().map_err(|source| self.io(source))?;
        Ok(metadata.len())
    }

    /// What the bytes on disk belong to; the default if that is not known.
    pub(crate) fn validator(&self) -> Validator {
        let text = fs::read(self.validator_path()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Throws away what is there, and notes what comes instead.
    ///
    /// # Errors
    /// [`PartialError::Io`].
    pub(crate) fn restart(&self, validator: &Validator) -> Result<(), PartialError> {
        let write = || {
            self.file.set_len(0)?;
            fs::write(self.validator_path(), serde_json::to_vec(validator)?)
        };
        write().map_err(|source| self.io(source))
    }

    /// Throws the file away.
    pub(crate) fn discard(mut self) {
        self.kept = false;
    }

    /// Gives the whole file another place, on the same disk.
    ///
    /// # Errors
    /// [`PartialError::Io`].
    pub(crate) fn move_to(mut self, path: &Path) -> Result<(), PartialError> {
        fs::rename(&self.path, path).map_err(|source| self.io(source))?;
        // What is left is the validator.
        self.kept = false;
        Ok(())
    }

    /// Hashes the file, lets `check` look at it, and makes it a blob. If `check` refuses, the
    /// file goes, since another try would give the same; but for a name that is taken, since another
    /// name would do.
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
        if let Err(failure) = check(&hashed, &self.path) {
            // Under another name the same file will do.
            let name_taken = matches!(
                failure.error.downcast_ref(),
                Some(ModelsError::Taken { .. })
            );
            self.kept &= name_taken;
            return Err(failure);
        }
        self.kept = false;
        blobs.take(&self.file, &self.path, &hashed.digest)?;
        Ok(hashed)
    }

    fn validator_path(&self) -> PathBuf {
        self.path.with_extension("json")
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
        if !self.kept {
            // What cannot be deleted now goes when it is old.
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(self.validator_path());
        }
    }
}
