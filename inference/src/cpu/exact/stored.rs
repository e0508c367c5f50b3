//! Packed weights on the disk, so that the next load of a model does not pack them again.
//! In: a folder, a key of the host's, a model's digest. Out: the bytes that packing gave before, if the file has
//! just them. What is wrong with a file never fails a load: it is said, and the weights are packed anew.
//!
//! A file: [`MAGIC`], how many matrices, for each an [`Entry`], a MAC over all that; then the matrices, each its
//! groups and its blocks, at multiples of 64 bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use memmap2::Mmap;

use super::pack::Packed;
use crate::cpu::pool::{Parts, Pool};

const MAGIC: [u8; 16] = *b"tussah packed 1\n";
/// What the MAC is over besides the head: the same key may authenticate other things. Another layout of
/// `pack.rs` is another version.
const PURPOSE: &[u8] = b"tussah 2026-11 packed weights v1";
/// Bytes that one thread reads and hashes at a time.
const PART_BYTES: usize = 1 << 20;
/// Where matrices begin.
const ALIGNMENT: u64 = 64;
/// More matrices than any model has.
const MATRICES_MAX: usize = 1 << 16;
const SUFFIX: &str = "packed";
/// After so long, a file that is still being written was left by a process that ended.
const STALE: Duration = Duration::from_secs(3600);

/// Where packed weights are kept, one file a model.
#[derive(Clone)]
pub struct PackedCache {
    /// The folder; it is made if it is not there.
    pub folder: PathBuf,
    /// Authenticates the files: a secret of this machine's.
    pub key: [u8; 32],
    /// BLAKE3 of the model's file, which the caller has checked.
    pub model: [u8; 32],
    /// The most bytes of all files; those that were used least recently go.
    pub bytes_max: u64,
    /// Told in a line of a file that could not be used or written.
    pub warn: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for PackedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedCache")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl PartialEq for PackedCache {
    fn eq(&self, other: &Self) -> bool {
        (&self.folder, self.model) == (&other.folder, other.model)
    }
}

impl Eq for PackedCache {}

/// A matrix in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    offset: u64,
    bytes_of_groups: u64,
    bytes_of_blocks: u64,
    digest: [u8; 32],
}

impl Entry {
    const BYTES: usize = 3 * 8 + 32;

    fn put(&self, out: &mut Vec<u8>) {
        for number in [self.offset, self.bytes_of_groups, self.bytes_of_blocks] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.digest);
    }

    fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (numbers, digest) = bytes.split_last_chunk()?;
        let [offset, bytes_of_groups, bytes_of_blocks] = *numbers.as_chunks().0.as_array()?;
        Some(Self {
            offset: u64::from_le_bytes(offset),
            bytes_of_groups: u64::from_le_bytes(bytes_of_groups),
            bytes_of_blocks: u64::from_le_bytes(bytes_of_blocks),
            digest: *digest,
        })
    }
}

/// Bytes before the first matrix, without what aligns it.
fn head_bytes(matrices: usize) -> usize {
    MAGIC.len() + 8 + matrices * Entry::BYTES + blake3::OUT_LEN
}

/// One model's file.
pub(super) struct Stored<'a> {
    cache: &'a PackedCache,
    path: PathBuf,
    /// What a load before has left.
    found: Option<Found>,
    /// The number of the next matrix.
    next: usize,
    /// Whether a matrix was not found.
    missed: bool,
}

struct Found {
    map: Mmap,
    entries: Vec<Entry>,
}

impl<'a> Stored<'a> {
    /// The file of a model, if it is there and authentic.
    pub(super) fn open(cache: &'a PackedCache, matrices: usize) -> Self {
        let mut name = blake3::Hasher::new_keyed(&cache.key);
        name.update(PURPOSE).update(b" name").update(&cache.model);
        let path = cache.folder.join(name.finalize().to_hex().as_str());
        let path = path.with_extension(SUFFIX);
        let found = match Found::open(cache, &path, matrices) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                (cache.warn)(&format!(
                    "packed weights in {} could not be used: {error}; packing again",
                    path.display()
                ));
                None
            }
        };
        Self {
            cache,
            path,
            missed: found.is_none(),
            found,
            next: 0,
        }
    }

    /// Fills the groups and blocks of the next matrix as they were before; if it gives `false`, with anything.
    pub(super) fn fill(&mut self, groups: &mut [u8], blocks: &mut [u8], pool: &Pool) -> bool {
        let index = self.next;
        self.next += 1;
        let Some(found) = &self.found else {
            return false;
        };
        let filled = found.fill(index, groups, blocks, pool);
        if !filled {
            (self.cache.warn)(&format!(
                "packed weights in {} are damaged; packing again",
                self.path.display()
            ));
            self.found = None;
            self.missed = true;
        }
        filled
    }

    /// Writes the file, if it was not there or not whole.
    pub(super) fn keep(self, matrices: &[&Packed], pool: &Pool) {
        let Self {
            cache,
            path,
            found,
            missed,
            ..
        } = self;
        drop(found);
        if missed && let Err(error) = write(cache, &path, matrices, pool) {
            (cache.warn)(&format!(
                "packed weights could not be kept in {}: {error}; the next load packs again",
                cache.folder.display()
            ));
        }
    }
}

impl Found {
    fn open(cache: &PackedCache, path: &Path, matrices: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        // What was used last stays longest; without it the file is only older than it could be.
        let _ = file.set_modified(SystemTime::now());
        #[expect(unsafe_code, reason = "the file might change while it is mapped")]
        // SAFETY: the file is only ever replaced by another of its name, never written to. Were it cut short all
        // the same, the process would end by a signal; what is read is copied, and hashed as it was copied.
        let map = unsafe { Mmap::map(&file)? };
        let damaged = || io::Error::other("it is damaged or made with another key");
        let head = map.get(..head_bytes(matrices)).ok_or_else(damaged)?;
        let (head, mac) = head.split_last_chunk().ok_or_else(damaged)?;
        // Equality of `blake3::Hash` takes the same time wherever the first difference is.
        if mac_of(cache, head) != blake3::Hash::from_bytes(*mac) {
            return Err(damaged());
        }
        let entries = head.get(MAGIC.len() + 8..).unwrap_or_default();
        let entries = entries.as_chunks().0.iter().filter_map(Entry::parse);
        Ok(Self {
            entries: entries.collect(),
            map,
        })
    }

    fn fill(&self, index: usize, groups: &mut [u8], blocks: &mut [u8], pool: &Pool) -> bool {
        let Some(entry) = self.entries.get(index) else {
            return false;
        };
        let sizes = (entry.bytes_of_groups, entry.bytes_of_blocks);
        if sizes != (groups.len() as u64, blocks.len() as u64) {
            return false;
        }
        let first = usize::try_from(entry.offset).unwrap_or(usize::MAX);
        let of_groups = self.map.get(first..).and_then(|it| it.get(..groups.len()));
        let second = first.saturating_add(groups.len());
        let of_blocks = self.map.get(second..).and_then(|it| it.get(..blocks.len()));
        let (Some(of_groups), Some(of_blocks)) = (of_groups, of_blocks) else {
            return false;
        };
        let outs = [Parts::new(groups), Parts::new(blocks)];
        let sources = [of_groups, of_blocks];
        let found = digest(sources.map(<[u8]>::len), pool, |which, part| {
            #[expect(unsafe_code, reason = "each part is written by one thread")]
            // SAFETY: `digest` asks for each part once.
            let out = unsafe { outs[which].part(part.start, part.len()) };
            out.copy_from_slice(&sources[which][part]);
            *blake3::hash(out).as_bytes()
        });
        found == entry.digest
    }
}

/// BLAKE3 of the lengths of a matrix's groups and blocks, and of the hashes of their parts.
fn digest(
    lengths: [usize; 2],
    pool: &Pool,
    hash: impl Fn(usize, Range<usize>) -> [u8; 32] + Sync,
) -> [u8; 32] {
    let mut all = blake3::Hasher::new();
    for (which, length) in lengths.into_iter().enumerate() {
        all.update(&(length as u64).to_le_bytes());
        let mut hashes = vec![[0; 32]; length.div_ceil(PART_BYTES)];
        let count = hashes.len();
        let out = Parts::new(&mut hashes);
        pool.run(count, |part| {
            let from = part * PART_BYTES;
            #[expect(unsafe_code, reason = "each chunk writes its own hash")]
            // SAFETY: chunk `part` takes its own element.
            let out = unsafe { out.part(part, 1) };
            out[0] = hash(which, from..length.min(from + PART_BYTES));
        });
        all.update(hashes.as_flattened());
    }
    *all.finalize().as_bytes()
}

fn mac_of(cache: &PackedCache, head: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&cache.key);
    hasher.update(PURPOSE).update(&cache.model).update(head);
    hasher.finalize()
}

/// Writes a file beside, and renames it, so that nobody ever reads half of one. A crash of the machine may leave a
/// damaged one, which the next load finds to be that.
fn write(cache: &PackedCache, path: &Path, matrices: &[&Packed], pool: &Pool) -> io::Result<()> {
    if matrices.len() > MATRICES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let aligned = |offset: u64| offset.next_multiple_of(ALIGNMENT);
    let mut end = head_bytes(matrices.len()) as u64;
    let mut head = MAGIC.to_vec();
    head.extend((matrices.len() as u64).to_le_bytes());
    let mut offsets = Vec::with_capacity(matrices.len());
    for matrix in matrices {
        let (groups, blocks) = matrix.bytes();
        let entry = Entry {
            offset: aligned(end),
            bytes_of_groups: groups.len() as u64,
            bytes_of_blocks: blocks.len() as u64,
            digest: digest([groups.len(), blocks.len()], pool, |which, part| {
                *blake3::hash(&[groups, blocks][which][part]).as_bytes()
            }),
        };
        end = entry.offset + entry.bytes_of_groups + entry.bytes_of_blocks;
        offsets.push(entry.offset);
        entry.put(&mut head);
    }
    if end > cache.bytes_max {
        return Err(io::Error::other(format!(
            "they take {} MB, and all together may take {} MB",
            end / 1_000_000,
            cache.bytes_max / 1_000_000
        )));
    }
    std::fs::create_dir_all(&cache.folder)?;
    trim(cache, end)?;
    let mut file = tempfile::NamedTempFile::new_in(&cache.folder)?;
    let mut out = BufWriter::with_capacity(PART_BYTES, file.as_file_mut());
    out.write_all(&head)?;
    out.write_all(mac_of(cache, &head).as_bytes())?;
    let mut at = head_bytes(matrices.len()) as u64;
    for (matrix, offset) in matrices.iter().zip(offsets) {
        let (groups, blocks) = matrix.bytes();
        let gap = usize::try_from(offset - at).map_err(io::Error::other)?;
        out.write_all(&vec![0; gap])?;
        out.write_all(groups)?;
        out.write_all(blocks)?;
        at = offset + (groups.len() + blocks.len()) as u64;
    }
    out.flush()?;
    drop(out);
    file.persist(path)?;
    Ok(())
}

/// Makes room for a file: those that were used least recently go, and what nobody writes any more.
fn trim(cache: &PackedCache, bytes: u64) -> io::Result<()> {
    let now = SystemTime::now();
    let mut files = Vec::new();
    for entry in cache.folder.read_dir()? {
        let entry = entry?;
        // What is gone meanwhile takes no room.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let is_ours = entry.path().extension().is_some_and(|it| it == SUFFIX);
        if is_ours {
            files.push((used, metadata.len(), entry.path()));
        } else if now.duration_since(used).is_ok_and(|age| age > STALE) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    files.sort();
    let mut all = bytes + files.iter().map(|(_, length, _)| length).sum::<u64>();
    for (_, length, path) in files {
        if all <= cache.bytes_max {
            break;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => all -= length,
        }
    }
    Ok(())
}
