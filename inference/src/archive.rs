//! A model folder as one file, so that the model of a Hugging Face encoder stays one digest.
//! In: a folder, or the bytes of an archive, untrusted. Out: an archive, the same for the same files on
//! every machine; or the files in it. The archive is an uncompressed ustar of [`NAMES`] alone, sorted,
//! mode 0644, owner 0, time 0, and ends with two blocks of zeros. The reader takes no other spelling: each
//! header must be, to the byte, what the writer writes, so two archives of the same files are equal.
//! It never reads a path from an archive: names are looked up in [`NAMES`].
//! Source of the format: POSIX.1-2017, `pax`, "ustar Interchange Format".

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

/// The files that a model folder may have in an archive, in their order there.
pub const NAMES: [&str; 7] = [
    "1_Pooling/config.json",
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "vocab.txt",
];
/// Those of them that it must have.
pub const NAMES_NEEDED: [&str; 3] = ["config.json", "model.safetensors", "vocab.txt"];
/// The largest file in an archive but for the weights.
pub const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
/// The largest `model.safetensors`: what eleven octal digits can say.
pub const WEIGHTS_BYTES_MAX: u64 = (8 << 30) - 1;

const BLOCK: usize = 512;
/// Where a header has its magic, and the magic with its version.
const MAGIC_AT: usize = 257;
const MAGIC: &[u8; 8] = b"ustar\x0000";

/// Why there is no archive, or no reading it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file could not be read or written.
    #[error("could not read or write `{path}`")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that every model needs is not there.
    #[error("a model folder needs `{name}`, which is missing")]
    Missing {
        /// The file.
        name: &'static str,
    },
    /// A file is larger than an archive takes.
    #[error("`{name}` has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The file.
        name: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A file changed its size while it was read.
    #[error("`{name}` changed while it was read")]
    Changed {
        /// The file.
        name: &'static str,
    },
    /// The bytes are no archive as the writer writes it.
    #[error("not a model folder archive at byte {offset}: {reason}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
}

fn bytes_max(name: &str) -> u64 {
    match name {
        "model.safetensors" => WEIGHTS_BYTES_MAX,
        _ => SMALL_FILE_BYTES_MAX,
    }
}

/// Writes the archive of a folder and returns its length in bytes.
///
/// Files that are not in [`NAMES`] are left out. Symbolic links are followed: a hub's cache is made of them.
///
/// # Errors
/// [`ArchiveError`]: a file is missing, too large, unreadable, or changes meanwhile; what was written by
/// then is of no use.
pub fn write_folder(folder: &Path, out: &mut dyn Write) -> Result<u64, ArchiveError> {
    let mut written = 0;
    for name in NAMES {
        let path = folder.join(name);
        let io = |source| ArchiveError::Io {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if NAMES_NEEDED.contains(&name) {
                    return Err(ArchiveError::Missing { name });
                }
                continue;
            }
            Err(error) => return Err(io(error)),
        };
        let (bytes, max) = (file.metadata().map_err(io)?.len(), bytes_max(name));
        if bytes > max {
            return Err(ArchiveError::TooLarge { name, bytes, max });
        }
        out.write_all(&header(name, bytes)).map_err(io)?;
        // One byte more than there should be shows a file that grows.
        let copied = io::copy(&mut file.take(bytes + 1), out).map_err(io)?;
        if copied != bytes {
            return Err(ArchiveError::Changed { name });
        }
        let padding = bytes.next_multiple_of(BLOCK as u64) - bytes;
        io::copy(&mut io::repeat(0).take(padding), out).map_err(io)?;
        written += BLOCK as u64 + bytes + padding;
    }
    let end = [0; 2 * BLOCK];
    let io = |source| ArchiveError::Io {
        path: folder.to_owned(),
        source,
    };
    out.write_all(&end).map_err(io)?;
    Ok(written + end.len() as u64)
}

/// The header of a file.
fn header(name: &str, bytes: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644");
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{bytes:011o}").as_bytes());
    put(136, b"00000000000");
    // The checksum is taken with spaces in its own place.
    put(148, b"        ");
    put(156, b"0");
    put(MAGIC_AT, MAGIC);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

/// An archive whose structure has been checked.
#[derive(Debug)]
pub struct Archive {
    bytes: Bytes,
    files: Vec<(&'static str, Range<usize>)>,
}

impl Archive {
    /// Whether these first bytes of a file, at least 512, look like an archive's.
    pub fn is_archive(first: &[u8]) -> bool {
        first.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) == Some(MAGIC.as_slice())
    }

    /// Maps and checks a file.
    ///
    /// The file must not be changed or shortened while it is in use; a content-addressed store never does.
    ///
    /// # Errors
    /// [`ArchiveError`]: the file cannot be read, or it is not, to the byte, what [`write_folder`] writes.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let io = |source| ArchiveError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        #[expect(unsafe_code, reason = "the only way to map a file")]
        // SAFETY: the mapping is read-only, and the caller keeps the file as it is, as documented above.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::check(Bytes::Mapped(map))
    }

    /// Checks an archive that lies in memory.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ArchiveError> {
        Self::check(Bytes::Owned(bytes))
    }

    fn check(bytes: Bytes) -> Result<Self, ArchiveError> {
        let mut archive = Self {
            bytes,
            files: Vec::new(),
        };
        archive.files = files(archive.bytes())?;
        for name in NAMES_NEEDED {
            if archive.get(name).is_none() {
                return Err(ArchiveError::Missing { name });
            }
        }
        Ok(archive)
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// A file's bytes, or `None` if the archive has no file of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let (_, range) = self.files.iter().find(|(have, _)| *have == name)?;
        Some(&self.bytes()[range.clone()])
    }

    /// The names of the files, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.files.iter().map(|(name, _)| *name)
    }

    /// Size of the archive.
    pub fn size_bytes(&self) -> u64 {
        self.bytes().len() as u64
    }
}

/// Where each file lies.
fn files(bytes: &[u8]) -> Result<Vec<(&'static str, Range<usize>)>, ArchiveError> {
    let malformed = |offset: usize, reason: &str| ArchiveError::Malformed {
        offset,
        reason: reason.to_owned(),
    };
    let mut files = Vec::new();
    let mut at = 0;
    // Names come in the order of the list, so each name is looked for behind the one before.
    let mut names = NAMES.iter();
    loop {
        let block = bytes.get(at..at + BLOCK);
        let block = block.ok_or_else(|| malformed(at, "it ends here, wanted a header"))?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let text = |range: Range<usize>| {
            let field = &block[range];
            let end = field.iter().position(|byte| *byte == 0);
            &field[..end.unwrap_or(field.len())]
        };
        let found = text(0..100);
        let name = names.find(|name| name.as_bytes() == found).ok_or_else(|| {
            let found = String::from_utf8_lossy(found);
            let reason = format!("the name `{found}` is unknown, or out of order, or twice there");
            malformed(at, &reason)
        })?;
        let size = std::str::from_utf8(text(124..136)).ok();
        let size = size.and_then(|size| u64::from_str_radix(size, 8).ok());
        let size = size.ok_or_else(|| malformed(at + 124, "the size is no octal number"))?;
        if block != header(name, size) {
            let reason = "the header is not as the writer writes it (mode 0644, owner 0, time 0)";
            return Err(malformed(at, reason));
        }
        let max = bytes_max(name);
        if size > max {
            let bytes = size;
            return Err(ArchiveError::TooLarge { name, bytes, max });
        }
        let begin = at + BLOCK;
        let size = usize::try_from(size).map_err(|_| malformed(at, "the file is too large"))?;
        let next = begin + size.next_multiple_of(BLOCK);
        let padding = bytes.get(begin + size..next);
        let padding = padding.ok_or_else(|| {
            let reason = format!("`{name}` has {size} bytes, the archive ends before that");
            malformed(begin, &reason)
        })?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(malformed(begin + size, "padding that is not zero"));
        }
        files.push((*name, begin..begin + size));
        at = next;
    }
    if bytes.len() != at + 2 * BLOCK || bytes[at..].iter().any(|byte| *byte != 0) {
        return Err(malformed(at, "wanted two blocks of zeros and then the end"));
    }
    Ok(files)
}
