//! The blob store: bytes named by their digest.
//!
//! In: files and bytes from outside, with a limit on their size. Out: the same bytes by
//! digest, hashed again at each read. A blob is either whole under its name or not there;
//! a write that fails leaves nothing behind. The store never changes a blob.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tussah_manifest::{Digest, Hasher};

use crate::{
    exit_code::Exit,
    failure::Failure,
    home::{Home, HomeError},
    interrupt::Interrupt,
};

/// Read and hashed at a time: large enough for BLAKE3 to use its widest code.
const CHUNK_BYTES: usize = 1 << 20;
/// What temporary files start with; a crash can leave one, and `open` removes old ones.
const TEMPORARY_PREFIX: &str = ".incoming-";
/// No copy takes that long; what is older belongs to a process that was killed.
const TEMPORARY_AGE_MAX: std::time::Duration = std::time::Duration::from_hours(24);

/// Told of bytes done.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64);

/// The folder of blobs.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
}

/// A file that was taken into the store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) digest: Digest,
    /// Lowercase hex SHA-256, by which hubs and packages name files.
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// No blob has this digest.
    #[error("there is no blob {digest} in {}", root.display())]
    Missing { digest: Digest, root: PathBuf },
    /// The file under this name has other bytes: the disk or somebody changed it.
    #[error("the blob {} is damaged: its bytes have the digest {found}", path.display())]
    Damaged { path: PathBuf, found: Digest },
    /// Over the limit; nothing was kept.
    #[error("{} has more than {bytes_max} bytes", path.display())]
    TooLarge { path: PathBuf, bytes_max: u64 },
    /// The disk is full, or a quota is; nothing was kept.
    #[error("no space left in {} after {written_bytes} bytes", root.display())]
    Full {
        root: PathBuf,
        written_bytes: u64,
        source: io::Error,
    },
    /// Ctrl-C; nothing was kept.
    #[error("interrupted")]
    Interrupted,
    /// Anything else that reading or writing can meet.
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The folder is not usable.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        let (exit, help) = match &error {
            BlobError::Missing { .. } => (Exit::USAGE, None),
            BlobError::Damaged { path, .. } => (
                Exit::NOT_VERIFIED,
                Some(format!("delete {} and add the file again", path.display())),
            ),
            BlobError::TooLarge { .. } => (Exit::USAGE, None),
            BlobError::Full { .. } => (
                Exit::HOST_FAILED,
                Some("free some space, or set TUSSAH_HOME to a folder on another disk".to_owned()),
            ),
            BlobError::Interrupted => (Exit::INTERRUPTED, None),
            BlobError::Io { doing, source, .. }
                if *doing == "read" && source.kind() == io::ErrorKind::NotFound =>
            {
                (Exit::USAGE, Some("check the path".to_owned()))
            }
            BlobError::Io { .. } => (Exit::HOST_FAILED, None),
            BlobError::Home(_) => (Exit::HOST_FAILED, Some("set TUSSAH_HOME".to_owned())),
        };
        let failure = Self::new(exit, error);
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl Blobs {
    /// Opens the store of this home, and clears what a killed process left half-written.
    ///
    /// # Errors
    /// [`BlobError::Home`] if the folder cannot be created.
    pub(crate) fn open(home: &Home) -> Result<Self, BlobError> {
        let root = home.folder("blobs")?;
        remove_abandoned(&root);
        Ok(Self { root })
    }

    /// Where a blob is or would be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.root.join(&hex[..2]).join(hex)
    }

    /// Whether there is a file of that name; its bytes are not looked at.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The error for a blob that is not there.
    pub(crate) fn missing(&self, digest: &Digest) -> BlobError {
        BlobError::Missing {
            digest: *digest,
            root: self.root.clone(),
        }
    }

    /// Stores bytes and returns their digest.
    ///
    /// # Errors
    /// [`BlobError::Full`] or [`BlobError::Io`]; nothing is left behind.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        if self.verify(&digest, &mut |_| ()).is_ok() {
            return Ok(digest);
        }
        let mut file = self.temporary()?;
        file.write_all(bytes)
            .map_err(|source| self.write_failed(0, source))?;
        self.publish(file, &digest)?;
        Ok(digest)
    }

    /// Copies a file into the store, hashing it on the way.
    /// `check` sees the digests before the blob gets its name, and can refuse it.
    ///
    /// # Errors
    /// What `check` returns, or a [`BlobError`]; nothing is left behind.
    pub(crate) fn put_file<E: From<BlobError>>(
        &self,
        source: &Path,
        bytes_max: u64,
        interrupt: &Interrupt,
        progress: Progress<'_>,
        check: impl FnOnce(&Added, &Path) -> Result<(), E>,
    ) -> Result<Added, E> {
        let mut temporary = self.temporary()?;
        let added = self.copy(
            source,
            bytes_max,
            interrupt,
            progress,
            temporary.as_file_mut(),
        )?;
        check(&added, temporary.path())?;
        self.publish(temporary, &added.digest)?;
        Ok(added)
    }

    /// Hashes a file of this process, such as a download, that may become a blob.
    ///
    /// # Errors
    /// [`BlobError::Io`] or [`BlobError::Interrupted`].
    pub(crate) fn hash(
        &self,
        source: &Path,
        interrupt: &Interrupt,
        progress: Progress<'_>,
    ) -> Result<Added, BlobError> {
        self.copy(source, u64::MAX, interrupt, progress, &mut io::sink())
    }

    /// Makes a file of the home's own a blob without a copy of it: one that was hashed before,
    /// and that nobody else writes to.
    ///
    /// # Errors
    /// [`BlobError::Full`] or [`BlobError::Io`].
    pub(crate) fn take(&self, file: &File, from: &Path, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        let folder = path.parent().unwrap_or(&self.root);
        let failed = |source| self.write_failed(0, source);
        fs::create_dir_all(folder).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(from, &path).map_err(failed)?;
        sync_folder(folder).map_err(failed)
    }

    /// The whole blob, hashed.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], [`BlobError::TooLarge`] or [`BlobError::Io`].
    pub(crate) fn read(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let file = self.open_blob(digest)?;
        let failed = |source| BlobError::Io {
            doing: "read",
            path: path.clone(),
            source,
        };
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
            return Err(BlobError::TooLarge { path, bytes_max });
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(BlobError::Damaged { path, found }),
        }
    }

    /// Hashes a blob that is too large to hold, and returns its path.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`] or [`BlobError::Io`].
    pub(crate) fn verify(
        &self,
        digest: &Digest,
        progress: Progress<'_>,
    ) -> Result<PathBuf, BlobError> {
        let path = self.path(digest);
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = read_some(&mut file, &path, &mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            progress(u64::try_from(read).unwrap_or(u64::MAX));
        }
        match hasher.finish() {
            found if found == *digest => Ok(path),
            found => Err(BlobError::Damaged { path, found }),
        }
    }

    /// Deletes a blob; whether there was one.
    ///
    /// # Errors
    /// [`BlobError::Io`] if it is there and cannot be deleted.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(BlobError::Io {
                doing: "delete",
                path,
                source,
            }),
        }
    }

    fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => self.missing(digest),
            _ => BlobError::Io {
                doing: "read",
                path,
                source,
            },
        })
    }

    /// In the store's own folder, so that the rename stays within one file system.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, BlobError> {
        tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(&self.root)
            .map_err(|source| self.write_failed(0, source))
    }

    fn copy(
        &self,
        source: &Path,
        bytes_max: u64,
        interrupt: &Interrupt,
        progress: Progress<'_>,
        target: &mut dyn Write,
    ) -> Result<Added, BlobError> {
        let failed = |error| BlobError::Io {
            doing: "read",
            path: source.to_owned(),
            source: error,
        };
        let too_large = || BlobError::TooLarge {
            path: source.to_owned(),
            bytes_max,
        };
        let mut file = File::open(source).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > bytes_max {
            return Err(too_large());
        }
        let (mut hasher, mut sha256) = (Hasher::new(), Sha256::new());
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut size_bytes = 0u64;
        loop {
            if interrupt.requested() {
                return Err(BlobError::Interrupted);
            }
            let read = read_some(&mut file, source, &mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            sha256.update(&buffer[..read]);
            target
                .write_all(&buffer[..read])
                .map_err(|error| self.write_failed(size_bytes, error))?;
            let read = u64::try_from(read).unwrap_or(u64::MAX);
            size_bytes = size_bytes.saturating_add(read);
            if size_bytes > bytes_max {
                return Err(too_large()); // It grew while it was read.
            }
            progress(read);
        }
        let sha256 = sha256
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Added {
            digest: hasher.finish(),
            sha256,
            size_bytes,
        })
    }

    fn publish(&self, file: tempfile::NamedTempFile, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        let folder = path.parent().unwrap_or(&self.root);
        let failed = |source| self.write_failed(0, source);
        fs::create_dir_all(folder).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        sync_folder(folder).map_err(failed)
    }

    fn write_failed(&self, written_bytes: u64, source: io::Error) -> BlobError {
        let root = self.root.clone();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => BlobError::Full {
                root,
                written_bytes,
                source,
            },
            _ => BlobError::Io {
                doing: "write to",
                path: root,
                source,
            },
        }
    }
}

/// A name is durable only once its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn read_some(file: &mut File, path: &Path, buffer: &mut [u8]) -> Result<usize, BlobError> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => {
                let doing = "read";
                let failed = |source| BlobError::Io {
                    doing,
                    path: path.to_owned(),
                    source,
                };
                return other.map_err(failed);
            }
        }
    }
}

fn remove_abandoned(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let abandoned = entry
            .file_name()
            .to_string_lossy()
            .starts_with(TEMPORARY_PREFIX)
            && entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > TEMPORARY_AGE_MAX));
        if abandoned {
            // If it cannot be deleted now, the next time will do.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store {
        blobs: Blobs,
        temporary: tempfile::TempDir,
    }

    fn store() -> Store {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home")).unwrap();
        Store {
            blobs: Blobs::open(&home).unwrap(),
            temporary,
        }
    }

    impl Store {
        fn files(&self) -> usize {
            fn count(folder: &Path) -> usize {
                fs::read_dir(folder)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .map(|path| if path.is_dir() { count(&path) } else { 1 })
                    .sum()
            }
            count(&self.blobs.root)
        }

        fn put_file(&self, bytes: &[u8], bytes_max: u64) -> Result<Added, BlobError> {
            let source = self.temporary.path().join("source");
            fs::write(&source, bytes).unwrap();
            self.blobs.put_file(
                &source,
                bytes_max,
                &Interrupt::never(),
                &mut |_| (),
                |_, _| Ok(()),
            )
        }
    }

    #[test]
    fn a_file_comes_back_by_its_digest() {
        let store = store();
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1] {
            let bytes: Vec<u8> = (0..size)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let added = store.put_file(&bytes, 1 << 30).unwrap();
            assert_eq!(added.digest, Digest::of(&bytes));
            assert_eq!(added.size_bytes, size as u64);
            assert_eq!(store.blobs.read(&added.digest, 1 << 30).unwrap(), bytes);
            let mut seen = 0;
            store
                .blobs
                .verify(&added.digest, &mut |read| seen += read)
                .unwrap();
            assert_eq!(seen, size as u64);
        }
        assert_eq!(store.files(), 5, "five blobs and no temporary file");
    }

    #[test]
    fn sha256_is_the_usual_one() {
        let added = store().put_file(b"abc", 3).unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(added.sha256, expected);
    }

    #[test]
    fn sizes_are_limited_and_nothing_is_left() {
        let store = store();
        store.put_file(&[7; 100], 100).unwrap();
        let error = store.put_file(&[8; 101], 100).unwrap_err();
        assert!(
            matches!(error, BlobError::TooLarge { bytes_max: 100, .. }),
            "{error}"
        );
        let digest = Digest::of(&[7; 100]);
        store.blobs.read(&digest, 100).unwrap();
        assert!(matches!(
            store.blobs.read(&digest, 99),
            Err(BlobError::TooLarge { .. })
        ));
        assert_eq!(store.files(), 1);
    }

    #[test]
    fn a_changed_blob_is_never_returned_and_a_new_put_heals_it() {
        let store = store();
        let digest = store.blobs.put(b"twelve bytes").unwrap();
        fs::write(store.blobs.path(&digest), b"twelve bytez").unwrap();
        assert!(matches!(
            store.blobs.read(&digest, 99),
            Err(BlobError::Damaged { .. })
        ));
        let verified = store.blobs.verify(&digest, &mut |_| ());
        assert!(matches!(verified, Err(BlobError::Damaged { .. })));
        store.blobs.put(b"twelve bytes").unwrap();
        store.blobs.read(&digest, 99).unwrap();
    }

    #[test]
    fn a_refused_or_interrupted_file_leaves_nothing() {
        let store = store();
        let source = store.temporary.path().join("source");
        fs::write(&source, b"bytes").unwrap();
        let refused = store
            .blobs
            .put_file(&source, 9, &Interrupt::never(), &mut |_| (), |_, _| {
                Err(BlobError::Interrupted)
            });
        assert!(matches!(refused, Err(BlobError::Interrupted)));
        assert_eq!(store.files(), 0);
        let missing = store.blobs.read(&Digest::of(b"bytes"), 9);
        assert!(matches!(missing, Err(BlobError::Missing { .. })));
        assert!(!store.blobs.remove(&Digest::of(b"bytes")).unwrap());
    }

    #[test]
    fn old_temporary_files_go_and_young_ones_stay() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().to_owned()).unwrap();
        let root = home.folder("blobs").unwrap();
        let (old, young) = (root.join(".incoming-old"), root.join(".incoming-young"));
        for path in [&old, &young] {
            fs::write(path, b"").unwrap();
        }
        let two_days_ago = std::time::SystemTime::now() - 2 * TEMPORARY_AGE_MAX;
        File::options()
            .write(true)
            .open(&old)
            .unwrap()
            .set_modified(two_days_ago)
            .unwrap();
        Blobs::open(&home).unwrap();
        assert!(!old.exists() && young.exists());
    }
}
