//! A module's memory as host calls reach it: every pointer and length checked.
//!
//! In: pointers and lengths from a guest. Out: bytes and numbers, or a trap. Sums are taken
//! in 64 bits, so that none can wrap around.

use wasmtime::{Caller, Extern, Memory};

use crate::sandbox::guest::Guest;

/// Buffers that one call may name; what POSIX calls IOV_MAX.
pub(crate) const BUFFERS_MAX: u32 = 1024;

/// A pointer into a guest's memory; nothing is known of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointer(u32);

impl Pointer {
    pub(crate) fn new(address: i32) -> Self {
        Self(address.cast_unsigned())
    }

    /// So many bytes further.
    pub(crate) fn offset(self, bytes: u32) -> wasmtime::Result<Self> {
        let sum = self.0.checked_add(bytes);
        sum.map(Self).ok_or_else(|| outside(self, u64::from(bytes)))
    }
}

/// A stretch of a guest's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) at: Pointer,
    pub(crate) length: u32,
}

fn outside(at: Pointer, length: u64) -> wasmtime::Error {
    wasmtime::format_err!(
        "pointer {} with {length} bytes is out of bounds of memory",
        at.0
    )
}

/// The memory that the module exports; `preview1.rs` has checked that it does.
pub(crate) fn memory(caller: &mut Caller<'_, Guest>) -> wasmtime::Result<Memory> {
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => wasmtime::bail!("the module does not export its memory as `memory`"),
    }
}

/// Bytes of memory.
pub(crate) fn bytes(data: &[u8], buffer: Buffer) -> wasmtime::Result<&[u8]> {
    let (start, length) = (buffer.at.0 as usize, buffer.length as usize);
    data.get(start..)
        .and_then(|rest| rest.get(..length))
        .ok_or_else(|| outside(buffer.at, u64::from(buffer.length)))
}

/// Bytes of memory, to be written.
pub(crate) fn bytes_mut(data: &mut [u8], buffer: Buffer) -> wasmtime::Result<&mut [u8]> {
    let (start, length) = (buffer.at.0 as usize, buffer.length as usize);
    data.get_mut(start..)
        .and_then(|rest| rest.get_mut(..length))
        .ok_or_else(|| outside(buffer.at, u64::from(buffer.length)))
}

/// So many bytes, in an array.
pub(crate) fn array<const N: usize>(data: &[u8], at: Pointer) -> wasmtime::Result<[u8; N]> {
    let length = u32::try_from(N).unwrap_or(u32::MAX);
    let found = bytes(data, Buffer { at, length })?;
    found.try_into().map_err(|_| outside(at, u64::from(length)))
}

/// A little-endian number.
pub(crate) fn read_u32(data: &[u8], at: Pointer) -> wasmtime::Result<u32> {
    Ok(u32::from_le_bytes(array(data, at)?))
}

/// A pointer and a length that lie in memory.
pub(crate) fn read_buffer(data: &[u8], at: Pointer) -> wasmtime::Result<Buffer> {
    Ok(Buffer {
        at: Pointer(read_u32(data, at)?),
        length: read_u32(data, at.offset(4)?)?,
    })
}

/// Writes bytes.
pub(crate) fn write(data: &mut [u8], at: Pointer, value: &[u8]) -> wasmtime::Result<()> {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes_mut(data, Buffer { at, length })?.copy_from_slice(value);
    Ok(())
}
