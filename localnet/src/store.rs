//! The network as a file: whole after every message, whatever happens to the process.
//!
//! In: a chain and its blocks. Out: a bag of cells in `localnet.boc`, written beside it, synced,
//! and renamed into its place; or the same chain and blocks again. One process at a time has the
//! folder, which `localnet.lock` sees to.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tussah_settlement::chain::EmbeddedChain;
use tussah_settlement::{Cell, ChainError};
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, CellFamily as _, Load as _, Store as _};
use tycho_types::dict::Dict;

use crate::blocks::Blocks;

/// localnet_server#5475e002 ahead:uint32 blocks:(HashmapE 32 Block) chain:^Localnet = LocalnetServer;
const TAG: u32 = 0x5475_e002;

const FILE: &str = "localnet.boc";
const NEW_FILE: &str = "localnet.boc.new";
const LOCK_FILE: &str = "localnet.lock";

/// Why a network cannot be kept in a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the folder.
    #[error("another process runs the network in {}", folder.display())]
    Taken {
        /// Which folder.
        folder: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not one that was written here.
    #[error("{} is not a saved network: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The chain could not be written as cells.
    #[error("the chain cannot be written")]
    Chain(#[from] ChainError),
}

/// What is kept.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) chain: EmbeddedChain,
    pub(crate) blocks: Blocks,
    /// Seconds that the clock was moved ahead.
    pub(crate) ahead: u32,
}

/// A folder that this process has to itself until it ends.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// Held, never read; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Store {
    /// Whether a network was ever saved in the folder.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Takes the folder, which must be there.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(LOCK_FILE);
        let in_file = |source| StoreError::File {
            path: path.clone(),
            source,
        };
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true);
        let lock = lock.open(&path).map_err(in_file)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Taken {
                    folder: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(in_file(source)),
        }
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// What was saved last, if anything was.
    pub(crate) fn load(&self) -> Result<Option<Saved>, StoreError> {
        let path = self.folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::File { path, source }),
        };
        let saved = decode(&bytes).map_err(|reason| StoreError::Content { path, reason })?;
        Ok(Some(saved))
    }

    /// Puts this on disk; when it returns, a loss of power does not undo it.
    pub(crate) fn save(
        &self,
        chain: &EmbeddedChain,
        blocks: &Blocks,
        ahead: u32,
    ) -> Result<(), StoreError> {
        let bytes = encode(chain, blocks, ahead)?;
        let (new, place) = (self.folder.join(NEW_FILE), self.folder.join(FILE));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &place)?;
            // The new name is the folder's content.
            #[cfg(unix)]
            File::open(&self.folder)?.sync_all()?;
            Ok(())
        };
        write().map_err(|source| StoreError::File {
            path: place.clone(),
            source,
        })
    }
}

fn encode(chain: &EmbeddedChain, blocks: &Blocks, ahead: u32) -> Result<Vec<u8>, ChainError> {
    let chain = Boc::decode(chain.save()?);
    let chain = chain.map_err(|error| ChainError::Saved(error.to_string()))?;
    let mut root = CellBuilder::new();
    root.store_u32(TAG)?;
    root.store_u32(ahead)?;
    let dict = blocks.to_dict()?;
    dict.store_into(&mut root, Cell::empty_context())?;
    root.store_reference(chain)?;
    Ok(Boc::encode(root.build()?))
}

fn decode(bytes: &[u8]) -> Result<Saved, String> {
    let root = Boc::decode(bytes).map_err(|error| error.to_string())?;
    let read = || {
        let mut slice = root.as_slice()?;
        let tag = slice.load_u32()?;
        let ahead = slice.load_u32()?;
        let dict = Dict::load_from(&mut slice)?;
        let chain = slice.load_reference_cloned()?;
        Ok((tag, ahead, dict, chain))
    };
    let (tag, ahead, dict, chain) = read().map_err(|error: tycho_types::error::Error| {
        format!("its first cell is malformed: {error}")
    })?;
    if tag != TAG {
        return Err("its first 32 bits are others".to_owned());
    }
    let chain = EmbeddedChain::restore(&Boc::encode(chain)).map_err(|error| error.to_string())?;
    let blocks = Blocks::from_dict(&dict).map_err(|error| format!("its blocks: {error}"))?;
    if blocks.last().end_lt != chain.last_lt() {
        return Err("its blocks are not the chain's".to_owned());
    }
    Ok(Saved {
        chain,
        blocks,
        ahead,
    })
}
