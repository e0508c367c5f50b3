//! The folder of the code cache: how many bytes it holds, and which files go first.
//!
//! In: a folder, files that are in use. Out: room for another file. What was used least recently
//! goes first, whichever process put it there, and what this process is at stays. When a file was
//! used is what the file system says that it was written; no result depends on it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Files that runs of this process read or write now, and how many runs that are.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<BTreeMap<PathBuf, usize>>);

impl InUse {
    /// Keeps a file for as long as the result is kept.
    pub(super) fn hold(&self, file: &Path) -> Held<'_> {
        *self.lock().entry(file.to_owned()).or_default() += 1;
        Held {
            files: self,
            file: file.to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes files of the folder until it holds at most so many bytes: those that were used least
    /// recently first, and none that is held.
    ///
    /// # Errors
    /// The file system's, if the folder cannot be read. A file that cannot be removed stays.
    pub(super) fn make_room(&self, folder: &Path, bytes_max: u64) -> io::Result<()> {
        let mut files = Vec::new();
        let mut bytes: u64 = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Another process may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && is_ours(&entry.path()) {
                bytes = bytes.saturating_add(metadata.len());
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, entry.path(), metadata.len()));
            }
        }
        files.sort();
        // Under the lock: what is taken now is there, or is seen to be gone.
        let held = self.lock();
        for (_, file, length) in files {
            if bytes <= bytes_max {
                break;
            }
            if !held.contains_key(&file) && fs::remove_file(&file).is_ok() {
                bytes -= length;
            }
        }
        Ok(())
    }
}

/// Code, or what a process that was killed left of some.
fn is_ours(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension == "code" || extension == "part")
}

/// Remembers that a file is used now.
pub(super) fn touch(file: &File) {
    // A file that counts as older than it is goes earlier: nothing worse.
    let _ = file.set_modified(SystemTime::now());
}

/// A file that stays.
#[derive(Debug)]
pub(super) struct Held<'a> {
    files: &'a InUse,
    file: PathBuf,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut files = self.files.lock();
        if let Some(count) = files.get_mut(&self.file) {
            *count -= 1;
            if *count == 0 {
                files.remove(&self.file);
            }
        }
    }
}
