//! Standard streams, and files that are not there.
//!
//! In: descriptors and buffers of a guest. Out: the input, read to its end; the job's output
//! and its log. Descriptors 0 to 2 are all there is: nothing is opened before, so every call
//! on a path or a file is refused with `badf`, and nothing of the host can be named.

use wasmtime::{Caller, Linker};

use super::memory::{self, BUFFERS_MAX, Buffer, Pointer};
use crate::sandbox::{Event, guest::Guest};

/// Error numbers of WASI preview 1.
pub(super) mod errno {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const BADF: i32 = 8;
    pub(crate) const INVAL: i32 = 28;
    pub(crate) const SPIPE: i32 = 70;
}
use errno::{BADF, INVAL, SPIPE, SUCCESS};

const MODULE: &str = "wasi_snapshot_preview1";
const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// The rights `fd_read` and `fd_write`.
const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;

fn is_stream(descriptor: i32) -> bool {
    (STDIN..=STDERR).contains(&descriptor)
}

/// What a call on a descriptor says that is fine for streams and does nothing.
fn done_on_stream(descriptor: i32) -> i32 {
    if is_stream(descriptor) { SUCCESS } else { BADF }
}

/// What a call says that no stream can do.
fn no_file(descriptor: i32) -> i32 {
    if is_stream(descriptor) { SPIPE } else { BADF }
}

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(MODULE, "fd_filestat_get", fd_filestat_get)?;
    linker.func_wrap(MODULE, "fd_close", done_on_stream)?;
    linker.func_wrap(MODULE, "fd_sync", done_on_stream)?;
    linker.func_wrap(MODULE, "fd_datasync", done_on_stream)?;
    linker.func_wrap(MODULE, "fd_fdstat_set_flags", |fd: i32, _: i32| {
        done_on_stream(fd)
    })?;
    linker.func_wrap(MODULE, "fd_seek", |fd: i32, _: i64, _: i32, _: i32| {
        no_file(fd)
    })?;
    linker.func_wrap(MODULE, "fd_tell", |fd: i32, _: i32| no_file(fd))?;
    add_files_to_linker(linker)
}

/// Calls that need an open folder or file, of which there is none.
fn add_files_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let l = linker;
    l.func_wrap(MODULE, "fd_prestat_get", |_: i32, _: i32| BADF)?;
    l.func_wrap(MODULE, "fd_prestat_dir_name", |_: i32, _: i32, _: i32| BADF)?;
    l.func_wrap(MODULE, "fd_filestat_set_size", |fd: i32, _: i64| {
        no_file(fd)
    })?;
    l.func_wrap(
        MODULE,
        "fd_filestat_set_times",
        |fd: i32, _: i64, _: i64, _: i32| no_file(fd),
    )?;
    for name in ["fd_pread", "fd_pwrite", "fd_readdir"] {
        let position = |fd: i32, _: i32, _: i32, _: i64, _: i32| no_file(fd);
        l.func_wrap(MODULE, name, position)?;
    }
    for name in [
        "path_create_directory",
        "path_remove_directory",
        "path_unlink_file",
    ] {
        l.func_wrap(MODULE, name, |_: i32, _: i32, _: i32| BADF)?;
    }
    l.func_wrap(
        MODULE,
        "path_filestat_get",
        |_: i32, _: i32, _: i32, _: i32, _: i32| BADF,
    )?;
    l.func_wrap(
        MODULE,
        "path_filestat_set_times",
        |_: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32| BADF,
    )?;
    l.func_wrap(
        MODULE,
        "path_link",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32| BADF,
    )?;
    l.func_wrap(
        MODULE,
        "path_open",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32, _: i32| BADF,
    )?;
    l.func_wrap(
        MODULE,
        "path_readlink",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| BADF,
    )?;
    l.func_wrap(
        MODULE,
        "path_rename",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| BADF,
    )?;
    l.func_wrap(
        MODULE,
        "path_symlink",
        |_: i32, _: i32, _: i32, _: i32, _: i32| BADF,
    )?;
    Ok(())
}

/// The buffers of a call, none of them looked at yet; `None` if there are too many.
fn buffers(data: &[u8], at: i32, count: i32) -> wasmtime::Result<Option<Vec<Buffer>>> {
    let count = count.cast_unsigned();
    if count > BUFFERS_MAX {
        return Ok(None);
    }
    let start = Pointer::new(at);
    (0..count)
        .map(|index| memory::read_buffer(data, start.offset(8 * index)?))
        .collect::<wasmtime::Result<Vec<_>>>()
        .map(Some)
}

fn fd_read(
    mut caller: Caller<'_, Guest>,
    descriptor: i32,
    buffers_at: i32,
    count: i32,
    read_at: i32,
) -> wasmtime::Result<i32> {
    if descriptor != STDIN {
        return Ok(BADF);
    }
    let memory = memory::memory(&mut caller)?;
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    let Some(buffers) = buffers(data, buffers_at, count)? else {
        return Ok(INVAL);
    };
    let state = &mut guest.preview1;
    let begun = state.read;
    for buffer in buffers {
        let into = memory::bytes_mut(data, buffer)?;
        let rest = &state.input[state.read..];
        let length = into.len().min(rest.len());
        into[..length].copy_from_slice(&rest[..length]);
        state.read += length;
    }
    // The input's size is a limit below 2^32.
    let read = u32::try_from(state.read - begun).unwrap_or(u32::MAX);
    memory::write(data, Pointer::new(read_at), &read.to_le_bytes())?;
    Ok(SUCCESS)
}

fn fd_write(
    mut caller: Caller<'_, Guest>,
    descriptor: i32,
    buffers_at: i32,
    count: i32,
    written_at: i32,
) -> wasmtime::Result<i32> {
    if !matches!(descriptor, STDOUT | STDERR) {
        return Ok(BADF);
    }
    let memory = memory::memory(&mut caller)?;
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    let Some(buffers) = buffers(data, buffers_at, count)? else {
        return Ok(INVAL);
    };
    let total: u64 = buffers.iter().map(|buffer| u64::from(buffer.length)).sum();
    let Ok(written) = u32::try_from(total) else {
        return Ok(INVAL);
    };
    if descriptor == STDOUT {
        // Before anything is copied: the sum is the guest's word alone.
        guest.limiter.add_output_bytes(written as usize)?;
        let mut output = Vec::with_capacity(written as usize);
        for buffer in buffers {
            output.extend_from_slice(memory::bytes(data, buffer)?);
        }
        guest.record("stdout#write", &output, &[])?;
        guest.events.event(Event::Output(&output));
        guest.output.append(&mut output);
    } else {
        for buffer in buffers {
            guest.write_log(memory::bytes(data, buffer)?);
        }
    }
    memory::write(data, Pointer::new(written_at), &written.to_le_bytes())?;
    Ok(SUCCESS)
}

fn fd_fdstat_get(mut caller: Caller<'_, Guest>, descriptor: i32, at: i32) -> wasmtime::Result<i32> {
    let rights = match descriptor {
        STDIN => RIGHT_READ,
        STDOUT | STDERR => RIGHT_WRITE,
        _ => return Ok(BADF),
    };
    // Of an unknown kind, so that no C library takes it for a terminal; then its rights.
    let mut stat = [0; 24];
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    let memory = memory::memory(&mut caller)?;
    memory::write(memory.data_mut(&mut caller), Pointer::new(at), &stat)?;
    Ok(SUCCESS)
}

fn fd_filestat_get(
    mut caller: Caller<'_, Guest>,
    descriptor: i32,
    at: i32,
) -> wasmtime::Result<i32> {
    if !is_stream(descriptor) {
        return Ok(BADF);
    }
    let memory = memory::memory(&mut caller)?;
    memory::write(memory.data_mut(&mut caller), Pointer::new(at), &[0; 64])?;
    Ok(SUCCESS)
}
