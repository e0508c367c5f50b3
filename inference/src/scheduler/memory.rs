//! Memory for keys and values on the CPU, which the models of a process share.
//! In: how much there may be. Out: parts of it, each until it is dropped, or a typed error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::BackendError;

/// Memory that sessions of all models on the CPU have together for keys and values; clones are the same memory.
/// By default there is no bound but the machine's own.
#[derive(Debug, Clone, Default)]
pub struct ContextMemory(Option<Arc<Room>>);

#[derive(Debug)]
struct Room {
    bytes_max: u64,
    taken: AtomicU64,
}

impl ContextMemory {
    /// So many bytes.
    pub fn of(bytes_max: u64) -> Self {
        Self(Some(Arc::new(Room {
            bytes_max,
            taken: AtomicU64::new(0),
        })))
    }

    /// Bytes that are taken; 0 where there is no bound.
    pub fn taken_bytes(&self) -> u64 {
        let room = self.0.as_ref();
        room.map_or(0, |room| room.taken.load(Ordering::Relaxed))
    }

    /// Bytes that can be taken.
    pub(crate) fn left_bytes(&self) -> u64 {
        let room = self.0.as_ref();
        room.map_or(u64::MAX, |room| {
            room.bytes_max.saturating_sub(self.taken_bytes())
        })
    }

    /// Takes a part.
    ///
    /// # Errors
    /// [`BackendError::NoRoom`].
    pub(crate) fn take(&self, bytes: u64) -> Result<Taken, BackendError> {
        if let Some(room) = &self.0 {
            let with = |taken: u64| taken.checked_add(bytes).filter(|it| *it <= room.bytes_max);
            let order = Ordering::Relaxed;
            let taken = room.taken.fetch_update(order, order, with);
            taken.map_err(|taken_bytes| BackendError::NoRoom {
                wanted_bytes: bytes,
                taken_bytes,
                bytes_max: room.bytes_max,
            })?;
        }
        Ok(Taken {
            memory: self.clone(),
            bytes,
        })
    }
}

impl PartialEq for ContextMemory {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for ContextMemory {}

/// A part of the memory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    memory: ContextMemory,
    bytes: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(room) = &self.memory.0 {
            room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}
