//! Compiled kernels on disk, so that the next start does not compile them again.
//! In: a folder, a key of the host's, a device. Out: the device's pipeline cache, filled from the adapter's
//! file, and written back to it. What is in the file goes to the driver as it is, which trusts it: so every
//! file carries a MAC under the host's key, and the bytes that were checked are the bytes that are handed on.
//! It never fails a run: a file that cannot be used is said to be so, and made anew.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wgpu::{AdapterInfo, Device, PipelineCache, PipelineCacheDescriptor};

/// Bytes of the MAC, and of the digest after it that says which adapter and driver the data are for.
const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// The largest file that is read or written; the kernels of a model are some megabytes.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What the MAC is over besides the rest of the file: the same key may authenticate other things.
const PURPOSE: &[u8] = b"tussah 2026-11 gpu pipelines v1";

/// Who is told of a file that could not be used.
type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// Where compiled kernels are kept, one file an adapter.
#[derive(Clone)]
pub struct GpuCache {
    /// The folder; it is made if it is not there.
    pub folder: PathBuf,
    /// Authenticates the files: a secret of this machine's.
    pub key: [u8; 32],
    /// Told in a line of a file that could not be used or written.
    pub warn: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for GpuCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuCache")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// The cache of an opened device.
pub(super) struct Pipelines {
    cache: PipelineCache,
    kept: Kept,
    /// Digest of the data that the file has, so far as we know.
    in_file: Mutex<Option<blake3::Hash>>,
}

impl Pipelines {
    /// The device's cache, with what the adapter's file has; none where the interface has no such thing.
    pub(super) fn open(cache: &GpuCache, device: &Device, adapter: &AdapterInfo) -> Option<Self> {
        let kept = Kept::of(cache, adapter)?;
        let data = kept.load();
        #[expect(unsafe_code, reason = "drivers trust what they are given")]
        // SAFETY: `data` is what `PipelineCache::get_data` gave on this machine for the same adapter and
        // driver: a MAC under this host's key says so, over the very bytes that are handed on.
        let cache = unsafe {
            device.create_pipeline_cache(&PipelineCacheDescriptor {
                label: Some("kernels"),
                data: data.as_deref(),
                fallback: true,
            })
        };
        Some(Self {
            cache,
            in_file: Mutex::new(data.map(|data| blake3::hash(&data))),
            kept,
        })
    }

    pub(super) fn cache(&self) -> &PipelineCache {
        &self.cache
    }

    /// Writes the file, if there is anything new.
    pub(super) fn keep(&self) {
        let Some(data) = self.cache.get_data() else {
            return;
        };
        let digest = blake3::hash(&data);
        let mut in_file = self.in_file.lock().unwrap_or_else(PoisonError::into_inner);
        if *in_file != Some(digest) && self.kept.store(&data) {
            *in_file = Some(digest);
        }
    }
}

/// One adapter's file.
struct Kept {
    path: PathBuf,
    key: [u8; 32],
    /// Which adapter, driver and version of it.
    identity: blake3::Hash,
    warn: Warn,
}

impl Kept {
    fn of(cache: &GpuCache, adapter: &AdapterInfo) -> Option<Self> {
        let key = wgpu::util::pipeline_cache_key(adapter)?;
        let mut identity = blake3::Hasher::new();
        // Another version's kernels would only fill the file.
        let version = env!("CARGO_PKG_VERSION").to_owned();
        for part in [
            &version,
            &key,
            &adapter.name,
            &adapter.driver,
            &adapter.driver_info,
        ] {
            identity.update(&(part.len() as u64).to_le_bytes());
            identity.update(part.as_bytes());
        }
        Some(Self {
            path: cache.folder.join(format!("{key}.bin")),
            key: cache.key,
            identity: identity.finalize(),
            warn: Arc::clone(&cache.warn),
        })
    }

    fn mac(&self, rest: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(PURPOSE);
        hasher.update(rest);
        hasher.finalize()
    }

    /// What was stored for this adapter and driver, if it is authentic.
    fn load(&self) -> Option<Vec<u8>> {
        let path = self.path.display();
        let mut file = match read(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                (self.warn)(&format!(
                    "compiled kernels in {path} could not be read: {error}; compiling again"
                ));
                return None;
            }
        };
        let checked = file.split_first_chunk().filter(|(mac, rest)| {
            // Equality of `blake3::Hash` takes the same time wherever the first difference is.
            self.mac(rest) == blake3::Hash::from_bytes(**mac)
        });
        let Some((_, rest)) = checked else {
            (self.warn)(&format!(
                "compiled kernels in {path} were damaged or made with another key; compiling again"
            ));
            return None;
        };
        // Another driver's are of no use, and nothing is wrong with them.
        let is_ours = rest.starts_with(self.identity.as_bytes());
        is_ours.then(|| file.split_off(2 * DIGEST_BYTES))
    }

    /// Writes a file beside, which only its owner may read, and renames it, so that nobody ever reads half of
    /// one; says whether that went well.
    fn store(&self, data: &[u8]) -> bool {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            if data.len() as u64 > FILE_BYTES_MAX - 2 * DIGEST_BYTES as u64 {
                // The next start begins anew, or this would be said at each.
                let _ = std::fs::remove_file(&self.path);
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            let rest = [self.identity.as_bytes(), data].concat();
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(self.mac(&rest).as_bytes())?;
            file.write_all(&rest)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        });
        if let Err(error) = &written {
            (self.warn)(&format!(
                "compiled kernels could not be kept in {}: {error}; the next start compiles again",
                self.path.display()
            ));
        }
        written.is_ok()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in a folder, and what was warned of.
    fn kept(folder: &Path, key: u8, driver: &str) -> (Kept, Arc<Mutex<Vec<String>>>) {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&warnings);
        let cache = GpuCache {
            folder: folder.join("gpu"),
            key: [key; 32],
            warn: Arc::new(move |text| told.lock().unwrap().push(text.to_owned())),
        };
        let mut adapter = AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan);
        adapter.driver = driver.to_owned();
        (Kept::of(&cache, &adapter).unwrap(), warnings)
    }

    #[test]
    fn what_was_stored_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let (first, warnings) = kept(folder.path(), 1, "driver 1");
        assert_eq!(first.load(), None);
        assert!(first.store(b"kernels"));
        assert_eq!(first.load(), Some(b"kernels".to_vec()));
        assert!(first.store(b"more kernels"));
        assert_eq!(first.load(), Some(b"more kernels".to_vec()));
        // A newer driver cannot use them; that is no reason for alarm.
        let (newer, newer_warnings) = kept(folder.path(), 1, "driver 2");
        assert_eq!(newer.load(), None);
        assert!(newer.store(b"other kernels"));
        assert_eq!(newer.load(), Some(b"other kernels".to_vec()));
        assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
        assert_eq!(*newer_warnings.lock().unwrap(), Vec::<String>::new());
        // One file an adapter, and nothing left beside it.
        assert_eq!(first.path.parent().unwrap().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_ours_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = kept(folder.path(), 1, "driver");
        assert!(first.store(b"kernels"));
        let good = std::fs::read(&first.path).unwrap();
        let mut flipped = (0..good.len()).map(|at| {
            let mut file = good.clone();
            file[at] ^= 1;
            file
        });
        let cut = [0, 1, 31, 32, 63, good.len() - 1].map(|length| good[..length].to_vec());
        let longer = [&good[..], b"x"].concat();
        for file in flipped.by_ref().chain(cut).chain([longer]) {
            std::fs::write(&first.path, &file).unwrap();
            let (again, warnings) = kept(folder.path(), 1, "driver");
            assert_eq!(again.load(), None);
            let warnings = warnings.lock().unwrap();
            assert!(
                warnings[0].contains("damaged or made with another key"),
                "{warnings:?}"
            );
        }
        std::fs::write(&first.path, &good).unwrap();
        let (other_key, warnings) = kept(folder.path(), 2, "driver");
        assert_eq!(other_key.load(), None);
        assert_eq!(warnings.lock().unwrap().len(), 1);
        // It is made anew.
        assert!(other_key.store(b"kernels"));
        assert_eq!(other_key.load(), Some(b"kernels".to_vec()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said_to_be_so() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gpu"), "a file").unwrap();
        let (first, warnings) = kept(folder.path(), 1, "driver");
        assert!(!first.store(b"kernels"));
        assert!(warnings.lock().unwrap()[0].contains("could not be kept"));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_a_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = kept(folder.path(), 1, "driver");
        assert!(first.store(b"kernels"));
        let mode = std::fs::metadata(&first.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
