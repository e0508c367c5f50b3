//! Uploads into the blob store: bytes named by their digest, sent in as many pieces as it takes.
//!
//! In: pieces at an offset, for a digest. Out: a whole blob under its name, or how far it is. A
//! blob gets its name once all its bytes hash to it, never before; a piece that was written stays
//! for the next try. The folders are those of the host's store, which hashes each blob again when
//! it is read. Paths are made of digests alone.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tussah_manifest::{Digest, Hasher};

/// What files that are not whole start with; the host's store removes old ones of that name.
const PARTIAL_PREFIX: &str = ".incoming-upload-";
/// Read and hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a blob is or would be.
pub(crate) fn path(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.to_hex();
    root.join(&hex[..2]).join(hex)
}

/// What may be uploaded.
#[derive(Debug, Clone, Default)]
pub struct BlobRules {
    /// The most bytes of one blob.
    pub blob_bytes_max: u64,
    /// The most bytes of all blobs, those included that were there before.
    pub quota_bytes: u64,
    /// The digests that may be uploaded; `None` is any.
    pub allowed: Option<BTreeSet<Digest>>,
}

/// How much of a blob is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// All of it.
    Whole {
        /// Its size.
        bytes: u64,
    },
    /// The first so many bytes, perhaps none.
    Partial {
        /// How many.
        bytes: u64,
    },
}

/// Why a blob was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// This provider takes certain blobs only.
    #[error("this provider does not take {0}")]
    NotAllowed(Digest),
    /// Larger than a blob may be.
    #[error("a blob has at most {max} bytes, and this {bytes}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The store is full.
    #[error("no space: {used} of {quota} bytes are used, and this blob has {bytes}")]
    Quota {
        /// The blob's size.
        bytes: u64,
        /// What is there.
        used: u64,
        /// What may be there.
        quota: u64,
    },
    /// A piece that does not go on where the last one ended.
    #[error("the upload goes on at byte {expected}, not at {found}")]
    Offset {
        /// Where it goes on.
        expected: u64,
        /// Where the piece starts.
        found: u64,
    },
    /// Somebody else uploads the same blob.
    #[error("this blob is being uploaded already")]
    Busy,
    /// More bytes than were announced.
    #[error("more bytes came than were announced")]
    TooMany,
    /// All bytes are there, and they are others.
    #[error("the bytes have the digest {found}; nothing of them was kept")]
    OtherDigest {
        /// What they hash to.
        found: Digest,
    },
    /// The disk.
    #[error("the blob could not be written")]
    Io(#[from] io::Error),
}

/// The store, as uploads see it.
#[derive(Debug, Clone)]
pub struct Uploads {
    root: Arc<PathBuf>,
    rules: Arc<BlobRules>,
    busy: Arc<Mutex<Busy>>,
}

/// Blobs that are being uploaded, and the bytes that each will have: space that is set aside.
type Busy = HashMap<Digest, u64>;

impl Uploads {
    /// Uploads into this folder of blobs.
    pub fn new(root: PathBuf, rules: BlobRules) -> Self {
        Self {
            root: Arc::new(root),
            rules: Arc::new(rules),
            busy: Arc::default(),
        }
    }

    /// How much of a blob is here.
    pub fn state(&self, digest: &Digest) -> BlobState {
        let length = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
        match length(&path(&self.root, digest)) {
            Ok(bytes) => BlobState::Whole { bytes },
            Err(_) => BlobState::Partial {
                bytes: length(&self.partial(digest)).unwrap_or_default(),
            },
        }
    }

    /// Starts a piece of a blob of `total` bytes at `offset`. Offset 0 starts anew.
    ///
    /// # Errors
    /// [`UploadError`]; nothing was changed.
    pub fn begin(&self, digest: Digest, offset: u64, total: u64) -> Result<Upload, UploadError> {
        let rules = &self.rules;
        if rules
            .allowed
            .as_ref()
            .is_some_and(|all| !all.contains(&digest))
        {
            return Err(UploadError::NotAllowed(digest));
        }
        if total > rules.blob_bytes_max {
            return Err(UploadError::TooLarge {
                bytes: total,
                max: rules.blob_bytes_max,
            });
        }
        // Held until the space is set aside: of two that come at once, the second sees the first.
        let mut busy = lock(&self.busy);
        if busy.contains_key(&digest) {
            return Err(UploadError::Busy);
        }
        let expected = match self.state(&digest) {
            BlobState::Partial { bytes } => bytes,
            BlobState::Whole { bytes } => bytes,
        };
        if offset != 0 && offset != expected {
            return Err(UploadError::Offset {
                expected,
                found: offset,
            });
        }
        let counted_whole = |partial: &Digest| *partial == digest || busy.contains_key(partial);
        let mut used = used_bytes(&self.root, counted_whole)?;
        if let BlobState::Whole { bytes } = self.state(&digest) {
            used = used.saturating_sub(bytes);
        }
        let used = busy
            .values()
            .fold(used, |used, bytes| used.saturating_add(*bytes));
        if used.saturating_add(total) > rules.quota_bytes {
            return Err(UploadError::Quota {
                bytes: total,
                used,
                quota: rules.quota_bytes,
            });
        }
        busy.insert(digest, total);
        drop(busy);
        let claim = Claim {
            busy: Arc::clone(&self.busy),
            digest,
        };
        let file = File::options()
            .create(true)
            .append(true)
            .open(self.partial(&digest))?;
        if offset == 0 {
            file.set_len(0)?;
        }
        Ok(Upload {
            uploads: self.clone(),
            file,
            written: offset,
            total,
            claim,
        })
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.root
            .join(format!("{PARTIAL_PREFIX}{}", digest.to_hex()))
    }
}

/// Holds a blob against a second upload at the same time, and its space against others.
#[derive(Debug)]
struct Claim {
    busy: Arc<Mutex<Busy>>,
    digest: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.busy).remove(&self.digest);
    }
}

fn lock(busy: &Mutex<Busy>) -> MutexGuard<'_, Busy> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A piece on its way. Dropped, it leaves what was written for the next try.
#[derive(Debug)]
pub struct Upload {
    uploads: Uploads,
    file: File,
    written: u64,
    total: u64,
    claim: Claim,
}

impl Upload {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`UploadError::TooMany`] or [`UploadError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let written = u64::try_from(bytes.len())
            .ok()
            .and_then(|more| self.written.checked_add(more))
            .filter(|written| *written <= self.total)
            .ok_or(UploadError::TooMany)?;
        self.file.write_all(bytes)?;
        self.written = written;
        Ok(())
    }

    /// Ends the piece: the blob gets its name if all of it is there and hashes to it.
    ///
    /// # Errors
    /// [`UploadError::OtherDigest`], after which nothing is left; [`UploadError::Io`].
    pub fn finish(self) -> Result<BlobState, UploadError> {
        let bytes = self.written;
        if bytes < self.total {
            self.file.sync_all()?;
            return Ok(BlobState::Partial { bytes });
        }
        let digest = self.claim.digest;
        let partial = self.uploads.partial(&digest);
        let found = hash(&partial)?;
        if found != digest {
            fs::remove_file(&partial)?;
            return Err(UploadError::OtherDigest { found });
        }
        self.file.sync_all()?;
        let path = path(&self.uploads.root, &digest);
        let folder = path.parent().unwrap_or(&self.uploads.root);
        fs::create_dir_all(folder)?;
        fs::rename(&partial, &path)?;
        // A name is durable only once its folder is; elsewhere folders cannot be opened.
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
        Ok(BlobState::Whole { bytes })
    }
}

fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// What all files of the store take: those with a name, and those on their way, but for those that
/// are counted by what they will have.
fn used_bytes(root: &Path, is_counted: impl Fn(&Digest) -> bool) -> io::Result<u64> {
    let mut used = 0_u64;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let partial = name.strip_prefix(PARTIAL_PREFIX);
            let partial = partial.and_then(|hex| Digest::from_hex(hex).ok());
            if !partial.is_some_and(|digest| is_counted(&digest)) {
                used = used.saturating_add(length(&entry)?);
            }
        } else if kind.is_dir() {
            for blob in fs::read_dir(entry.path())? {
                used = used.saturating_add(length(&blob?)?);
            }
        }
    }
    Ok(used)
}

/// Of a file that may be gone by now: an upload gives it another name when it is whole.
fn length(entry: &fs::DirEntry) -> io::Result<u64> {
    match entry.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads(rules: BlobRules) -> (tempfile::TempDir, Uploads) {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(folder.path().to_owned(), rules);
        (folder, uploads)
    }

    fn rules() -> BlobRules {
        BlobRules {
            blob_bytes_max: 100,
            quota_bytes: 150,
            allowed: None,
        }
    }

    #[test]
    fn a_blob_has_its_name_once_it_is_whole_and_not_before() {
        let (folder, uploads) = uploads(rules());
        let digest = Digest::of(b"hello world");
        assert_eq!(uploads.state(&digest), BlobState::Partial { bytes: 0 });
        let mut upload = uploads.begin(digest, 0, 11).unwrap();
        upload.write(b"hello").unwrap();
        assert!(matches!(
            uploads.begin(digest, 0, 11),
            Err(UploadError::Busy)
        ));
        assert_eq!(upload.finish().unwrap(), BlobState::Partial { bytes: 5 });
        let wrong = uploads.begin(digest, 4, 11).unwrap_err().to_string();
        assert_eq!(wrong, "the upload goes on at byte 5, not at 4");
        assert!(!path(folder.path(), &digest).exists());
        let mut upload = uploads.begin(digest, 5, 11).unwrap();
        upload.write(b" world").unwrap();
        assert!(matches!(upload.write(b"!"), Err(UploadError::TooMany)));
        assert_eq!(upload.finish().unwrap(), BlobState::Whole { bytes: 11 });
        assert_eq!(
            fs::read(path(folder.path(), &digest)).unwrap(),
            b"hello world"
        );
        assert_eq!(uploads.state(&digest), BlobState::Whole { bytes: 11 });
    }

    #[test]
    fn other_bytes_are_thrown_away() {
        let (folder, uploads) = uploads(rules());
        let digest = Digest::of(b"hello");
        let mut upload = uploads.begin(digest, 0, 5).unwrap();
        upload.write(b"HELLO").unwrap();
        assert!(matches!(
            upload.finish(),
            Err(UploadError::OtherDigest { .. })
        ));
        assert_eq!(uploads.state(&digest), BlobState::Partial { bytes: 0 });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn sizes_quota_and_the_allow_list_are_checked_first() {
        let (_folder, uploads) = uploads(BlobRules {
            allowed: Some([Digest::of(b"a"), Digest::of(b"b")].into()),
            ..rules()
        });
        let begin = |what: &[u8], total| uploads.begin(Digest::of(what), 0, total).map(drop);
        assert!(matches!(begin(b"c", 1), Err(UploadError::NotAllowed(_))));
        assert!(matches!(
            begin(b"a", 101),
            Err(UploadError::TooLarge { .. })
        ));
        let mut upload = uploads.begin(Digest::of(b"a"), 0, 100).unwrap();
        upload.write(&[0; 99]).unwrap();
        upload.finish().unwrap();
        assert!(matches!(
            begin(b"b", 52),
            Err(UploadError::Quota { used: 99, .. })
        ));
        begin(b"b", 51).unwrap();
    }

    #[test]
    fn space_is_set_aside_for_all_that_come_at_once() {
        let (_folder, uploads) = uploads(rules());
        let [a, b, c] = [b"a", b"b", b"c"].map(|what| Digest::of(what));
        let mut first = uploads.begin(a, 0, 100).unwrap();
        // Nothing of the first is on the disk yet, and all of it is spoken for.
        assert!(matches!(
            uploads.begin(b, 0, 51),
            Err(UploadError::Quota { used: 100, .. })
        ));
        let second = uploads.begin(b, 0, 50).unwrap();
        first.write(&[0; 60]).unwrap();
        assert!(matches!(
            uploads.begin(c, 0, 1),
            Err(UploadError::Quota { used: 150, .. })
        ));
        // One that was given up holds what it wrote; it can go on, though nothing else fits.
        drop(first);
        uploads.begin(c, 0, 41).unwrap_err();
        drop(uploads.begin(c, 0, 40).unwrap());
        uploads.begin(a, 60, 100).unwrap();
        drop(second);
    }
}
