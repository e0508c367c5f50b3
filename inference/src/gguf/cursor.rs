//! A bounds-checked reader over the header of a GGUF file.
//! In: bytes nobody has checked. Out: little-endian numbers and byte ranges that lie inside them.
//! It never reads past the end and never allocates.

use std::ops::Range;

/// What was being read when the bytes ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfBytes {
    /// Where the read began.
    pub(super) offset: usize,
    /// How many bytes it asked for.
    pub(super) wanted: u64,
}

/// A position in `bytes`.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next `length` bytes as a range of the file; moves past them.
    pub(super) fn take(&mut self, length: u64) -> Result<Range<usize>, OutOfBytes> {
        let out = OutOfBytes {
            offset: self.position,
            wanted: length,
        };
        let length = usize::try_from(length).map_err(|_| out)?;
        let end = self.position.checked_add(length).ok_or(out)?;
        if end > self.bytes.len() {
            return Err(out);
        }
        let range = self.position..end;
        self.position = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], OutOfBytes> {
        let offset = self.position;
        let found = self
            .bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk::<N>());
        let array = *found.ok_or(OutOfBytes {
            offset,
            wanted: N as u64,
        })?;
        self.position += N;
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, OutOfBytes> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, OutOfBytes> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, OutOfBytes> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, OutOfBytes> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
