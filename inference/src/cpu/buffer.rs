//! Large zeroed memory for weights and caches.
//! In: a length. Out: a slice at the boundary of a cache line, on huge pages where the system offers
//! them, or an error. Pages that are never touched cost nothing.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::{MmapMut, MmapRaw};

use crate::backend::BackendError;

/// Buffers begin at multiples of a cache line.
const LINE: usize = 64;
/// What an arena asks the system for at a time: many huge pages.
const REGION_BYTES: usize = 32 << 20;
/// Below this, huge pages would waste more memory than they save time.
const HUGE_FROM_BYTES: usize = 8 << 20;

/// Types that any bits are a value of, and that need at most a cache line's alignment.
///
/// # Safety
/// Every bit pattern is a valid value, there is no padding and the alignment is 64 at most.
#[expect(
    unsafe_code,
    reason = "a promise about memory that the compiler cannot check"
)]
pub(super) unsafe trait Plain: Copy + Send + Sync {}

#[expect(unsafe_code, reason = "every integer is plain")]
// SAFETY: any bits are an i16, without padding, aligned to 2.
unsafe impl Plain for i16 {}
#[expect(unsafe_code, reason = "every integer is plain")]
// SAFETY: any bits are an i32, without padding, aligned to 4.
unsafe impl Plain for i32 {}

#[expect(unsafe_code, reason = "reads plain values as bytes")]
pub(super) fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values have no padding, and any of their bytes are u8s.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

#[expect(unsafe_code, reason = "writes plain values as bytes")]
pub(super) fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: plain values have no padding, and any bytes are some of them.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Hands out buffers that lie side by side, so that small ones share huge pages.
#[derive(Debug)]
pub(super) struct Arena {
    region: Option<Arc<MmapRaw>>,
    used: usize,
    /// The least that is asked for at a time.
    region_bytes: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            region: None,
            used: 0,
            region_bytes: REGION_BYTES,
        }
    }
}

impl Arena {
    /// A zeroed buffer of `length` values.
    pub(super) fn zeroed<T: Plain>(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<Buffer<T>, BackendError> {
        const { assert!(align_of::<T>() <= LINE) };
        let failed = || BackendError::OutOfMemory {
            what,
            bytes: (length as u64).saturating_mul(size_of::<T>() as u64),
        };
        let bytes = length.checked_mul(size_of::<T>());
        let bytes = bytes.and_then(|bytes| bytes.checked_next_multiple_of(LINE));
        let bytes = bytes.ok_or_else(failed)?;
        let region = match &self.region {
            Some(region) if bytes <= region.len() - self.used => Arc::clone(region),
            _ => {
                let region = map(bytes.max(self.region_bytes).max(LINE)).map_err(|_| failed())?;
                self.used = 0;
                Arc::clone(self.region.insert(Arc::new(region)))
            }
        };
        // Within the region, which the test above has made sure of.
        let start = region.as_mut_ptr().wrapping_byte_add(self.used).cast::<T>();
        self.used += bytes;
        Ok(Buffer {
            _region: region,
            start,
            length,
        })
    }
}

fn map(bytes: usize) -> std::io::Result<MmapRaw> {
    let map = MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_FROM_BYTES {
        // A hint: without huge pages all works, only slower.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(MmapRaw::from(map))
}

/// Zeroed memory for `T`s.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    /// Keeps the memory; parts of it belong to other buffers.
    _region: Arc<MmapRaw>,
    start: *mut T,
    length: usize,
}

#[expect(unsafe_code, reason = "owns memory through a pointer")]
// SAFETY: the part of the region from `start` on belongs to this buffer alone, like a Vec's memory.
unsafe impl<T: Plain> Send for Buffer<T> {}
#[expect(unsafe_code, reason = "owns memory through a pointer")]
// SAFETY: shared references give shared slices only.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> Buffer<T> {
    /// A buffer with memory of its own.
    pub(super) fn zeroed(length: usize, what: &'static str) -> Result<Self, BackendError> {
        let mut arena = Arena {
            region_bytes: 0,
            ..Arena::default()
        };
        arena.zeroed(length, what)
    }
}

#[expect(unsafe_code, reason = "reads the mapping as values of a plain type")]
impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `length` values from `start` on lie in the region, which lives as long as `self`, at a
        // cache line's boundary; no other buffer has them, and any bits are a T.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

#[expect(unsafe_code, reason = "writes the mapping as values of a plain type")]
impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_an_arena_are_apart_and_zeroed() {
        let mut arena = Arena::default();
        let mut buffers: Vec<Buffer<i32>> = (0..200)
            .map(|i| arena.zeroed(i * 1000, "a test").unwrap())
            .collect();
        for (i, buffer) in (0i32..).zip(&mut buffers) {
            assert!(buffer.iter().all(|value| *value == 0));
            buffer.fill(i);
        }
        for (i, buffer) in (0i32..).zip(&buffers) {
            assert!(buffer.iter().all(|value| *value == i));
        }
        assert!(arena.zeroed::<i32>(usize::MAX / 2, "a test").is_err());
        assert!(arena.zeroed::<i32>(usize::MAX / 8, "a test").is_err());
    }
}
