//! Components and core modules to code, and the authenticated code cache.
//!
//! In: a verified module. Out: code that wasmtime can instantiate. Compiled code is native
//! code: whoever can write the cache could run anything, so every file carries a MAC under
//! a key of this host, and the bytes that were checked are the bytes that are loaded. The
//! cache has a bound: what was used least recently makes room.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use tussah_manifest::{Abi, Digest};
use wasmtime::{Engine, Module, component::Component};

use super::code_files::{self, InUse};

/// Bytes of the MAC before the code in a cache file.
const MAC_BYTES: usize = 32;
/// The largest cache file that is read; code is some ten times the size of its module.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Where the code of a module came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeOrigin {
    Cache,
    Compiler,
}

/// Compiled code, of the kind that its ABI calls for.
pub(crate) enum Code {
    Component(Component),
    Module(Module),
}

impl Code {
    fn compile(engine: &Engine, abi: Abi, module: &[u8]) -> wasmtime::Result<Self> {
        Ok(match abi {
            Abi::Component => Self::Component(Component::from_binary(engine, module)?),
            Abi::Preview1 => Self::Module(Module::from_binary(engine, module)?),
        })
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Component(component) => component.serialize(),
            Self::Module(module) => module.serialize(),
        }
    }

    /// Loads what [`Code::serialize`] gave; wasmtime refuses the other kind.
    ///
    /// # Safety
    /// `code` must be what `serialize` gave on an engine like this one.
    #[expect(unsafe_code, reason = "wasmtime cannot check code")]
    unsafe fn deserialize(engine: &Engine, abi: Abi, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's word, for both kinds.
        unsafe {
            Ok(match abi {
                Abi::Component => Self::Component(Component::deserialize(engine, code)?),
                Abi::Preview1 => Self::Module(Module::deserialize(engine, code)?),
            })
        }
    }
}

/// Compiled code on disk, by module digest and engine.
pub(crate) struct CodeCache {
    folder: Option<PathBuf>,
    /// The most that its files may take.
    bytes_max: u64,
    in_use: InUse,
    key: [u8; 32],
    /// What code depends on besides the module: the engine's version, settings and CPU.
    engine_id: [u8; 32],
}

impl CodeCache {
    /// A cache in this folder, of at most so many bytes; without a folder it keeps nothing.
    pub(crate) fn new(
        folder: Option<PathBuf>,
        bytes_max: u64,
        key: &[u8; 32],
        engine: &Engine,
    ) -> Self {
        let mut id = IdHasher(blake3::Hasher::new_derive_key(
            "tussah 2026-11 code cache engine v1",
        ));
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut id);
        Self {
            folder,
            bytes_max,
            in_use: InUse::default(),
            key: *key,
            engine_id: *id.0.finalize().as_bytes(),
        }
    }

    /// The code of a module: from the cache if it is there and authentic, else compiled
    /// and put there. A cache that cannot be written costs the next start its time and is
    /// reported through `warn`; it fails nothing.
    pub(crate) fn load_or_compile(
        &self,
        engine: &Engine,
        (digest, abi): (&Digest, Abi),
        module: &[u8],
        warn: &mut dyn FnMut(String),
    ) -> wasmtime::Result<(Code, CodeOrigin)> {
        let path = self.path(digest);
        let _held = path.as_deref().map(|path| self.in_use.hold(path));
        if let Some(path) = &path
            && let Some(code) = self.load(engine, path, (digest, abi), warn)
        {
            return Ok((code, CodeOrigin::Cache));
        }
        let code = Code::compile(engine, abi, module)?;
        if let Some(path) = &path
            && let Err(error) = self.store(path, digest, &code.serialize()?)
        {
            warn(format!(
                "compiled code could not be kept in {}: {error}; the job runs, but its next start compiles again",
                path.display()
            ));
        }
        Ok((code, CodeOrigin::Compiler))
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let engine = Digest::from_bytes(self.engine_id).to_hex();
        let name = format!("{}-{}.code", digest.to_hex(), &engine[..16]);
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    fn load(
        &self,
        engine: &Engine,
        path: &Path,
        (digest, abi): (&Digest, Abi),
        warn: &mut dyn FnMut(String),
    ) -> Option<Code> {
        let file = match read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn(format!(
                    "compiled code in {} could not be read: {error}",
                    path.display()
                ));
                return None;
            }
        };
        let code = file.split_at_checked(MAC_BYTES).and_then(|(mac, code)| {
            let mac: [u8; MAC_BYTES] = mac.try_into().ok()?;
            // Equality of `blake3::Hash` takes the same time wherever the first difference is.
            (self.mac(digest, code) == blake3::Hash::from_bytes(mac)).then_some(code)
        });
        let Some(code) = code else {
            warn(format!(
                "compiled code in {} was damaged or made with another key; compiling again",
                path.display()
            ));
            return None;
        };
        #[expect(unsafe_code, reason = "wasmtime cannot check code; the MAC does")]
        // SAFETY: `code` is the very slice whose MAC under this host's key was checked just
        // above, over the module's digest and this engine's id too, so it is what
        // `Code::serialize` gave for this module on an engine like this one.
        let code = unsafe { Code::deserialize(engine, abi, code) };
        code.map_err(|error| {
            warn(format!(
                "compiled code in {} is not usable: {error}",
                path.display()
            ))
        })
        .ok()
    }

    /// Makes room, writes a file beside and renames it, so that nobody ever reads half of one;
    /// leaves nothing behind if that fails.
    fn store(&self, path: &Path, digest: &Digest, code: &[u8]) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let length = (MAC_BYTES as u64).saturating_add(code.len() as u64);
        let Some(left) = self.bytes_max.checked_sub(length) else {
            let max = self.bytes_max;
            let text = format!("it takes {length} bytes, and the cache holds {max} at most");
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        };
        self.in_use.make_room(folder, left)?;
        let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{}-{serial}.part", std::process::id()));
        let written = write(&temporary, self.mac(digest, code).as_bytes(), code)
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // The file is useless; failing to remove it changes nothing for the caller.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn mac(&self, digest: &Digest, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"tussah 2026-11 compiled code v1");
        hasher.update(&self.engine_id);
        hasher.update(digest.as_bytes());
        hasher.update(code);
        hasher.finalize()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    if length > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is over 1 GiB",
        ));
    }
    let mut bytes = Vec::new();
    code_files::touch(&file);
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, mac: &[u8], code: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let mut file = fs::File::create_new(path)?;
    file.write_all(mac)?;
    file.write_all(code)?;
    file.sync_all()
}

/// Feeds what `std::hash::Hash` gives to BLAKE3: wasmtime's own answer is 64 bits wide.
struct IdHasher(blake3::Hasher);

impl std::hash::Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0
            .finalize()
            .as_bytes()
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}
