//! Large zeroed memory for weights and caches.
//! In: a length. Out: a slice at a page boundary, on huge pages where the system offers them, or an error.
//! Pages that are never touched cost nothing.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::backend::BackendError;

/// Types that any bits are a value of, and that need at most a page's alignment.
///
/// # Safety
/// Every bit pattern is a valid value, there is no padding and the alignment is 4096 at most.
#[expect(
    unsafe_code,
    reason = "a promise about memory that the compiler cannot check"
)]
pub(super) unsafe trait Plain: Copy {}

/// Zeroed memory for `T`s.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    map: Option<MmapMut>,
    length: usize,
    element: PhantomData<T>,
}

#[expect(unsafe_code, reason = "every integer is plain")]
// SAFETY: any bits are an i16, without padding, aligned to 2.
unsafe impl Plain for i16 {}
#[expect(unsafe_code, reason = "every integer is plain")]
// SAFETY: any bits are an i32, without padding, aligned to 4.
unsafe impl Plain for i32 {}

impl<T: Plain> Buffer<T> {
    pub(super) fn zeroed(length: usize, what: &'static str) -> Result<Self, BackendError> {
        let bytes = length.checked_mul(size_of::<T>());
        let failed = || BackendError::OutOfMemory {
            what,
            bytes: (length as u64).saturating_mul(size_of::<T>() as u64),
        };
        let bytes = bytes.ok_or_else(failed)?;
        // An empty mapping is an error to the system.
        let map = match bytes {
            0 => None,
            _ => Some(MmapMut::map_anon(bytes).map_err(|_| failed())?),
        };
        #[cfg(target_os = "linux")]
        if let Some(map) = &map {
            // A hint: without huge pages all works, only slower.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self {
            map,
            length,
            element: PhantomData,
        })
    }
}

#[expect(unsafe_code, reason = "reads the mapping as values of a plain type")]
impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.map {
            None => &[],
            // SAFETY: the mapping has `length` times T's size in bytes, begins at a page boundary and
            // lives as long as `self`; any bits are a T.
            Some(map) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), self.length) },
        }
    }
}

#[expect(unsafe_code, reason = "writes the mapping as values of a plain type")]
impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.map {
            None => &mut [],
            // SAFETY: as in `deref`, and `self` is borrowed mutably.
            Some(map) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), self.length)
            },
        }
    }
}
