//! Clocks, random bytes, waiting, ending; no arguments and no environment.
//!
//! In: a guest's calls. Out: virtual time and bytes from the request's nonce, the same as
//! components get. A wait is over at once and moves the clock to its end.

use chacha20::rand_core::Rng as _;
use wasmtime::{Caller, Linker};

use super::{
    Exited,
    memory::{self, BUFFERS_MAX, Buffer, Pointer},
    streams::errno::{BADF, INVAL, SUCCESS},
};
use crate::sandbox::guest::{CLOCK_STEP_NS, Guest};

const MODULE: &str = "wasi_snapshot_preview1";
const REALTIME: i32 = 0;
const MONOTONIC: i32 = 1;
/// Random bytes of one call: making them costs the guest no fuel.
const RANDOM_BYTES_MAX: u32 = 1 << 20;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in ["args_get", "environ_get"] {
        linker.func_wrap(MODULE, name, |_: i32, _: i32| SUCCESS)?;
    }
    for name in ["args_sizes_get", "environ_sizes_get"] {
        linker.func_wrap(MODULE, name, no_texts)?;
    }
    linker.func_wrap(MODULE, "clock_res_get", clock_res_get)?;
    linker.func_wrap(MODULE, "clock_time_get", clock_time_get)?;
    linker.func_wrap(MODULE, "random_get", random_get)?;
    linker.func_wrap(MODULE, "sched_yield", || SUCCESS)?;
    linker.func_wrap(MODULE, "poll_oneoff", poll_oneoff)?;
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(Exited(code.cast_unsigned()).into())
    })?;
    Ok(())
}

/// Writes that there are no arguments or variables, and that they take no bytes.
fn no_texts(mut caller: Caller<'_, Guest>, count_at: i32, bytes_at: i32) -> wasmtime::Result<i32> {
    let memory = memory::memory(&mut caller)?;
    for at in [count_at, bytes_at] {
        memory::write(memory.data_mut(&mut caller), Pointer::new(at), &[0; 4])?;
    }
    Ok(SUCCESS)
}

fn clock_res_get(mut caller: Caller<'_, Guest>, id: i32, at: i32) -> wasmtime::Result<i32> {
    if !matches!(id, REALTIME | MONOTONIC) {
        return Ok(INVAL);
    }
    let memory = memory::memory(&mut caller)?;
    let step = CLOCK_STEP_NS.to_le_bytes();
    memory::write(memory.data_mut(&mut caller), Pointer::new(at), &step)?;
    Ok(SUCCESS)
}

fn clock_time_get(
    mut caller: Caller<'_, Guest>,
    id: i32,
    _: i64,
    at: i32,
) -> wasmtime::Result<i32> {
    let clock = &mut caller.data_mut().clock;
    let now = match id {
        MONOTONIC => clock.read(),
        REALTIME => clock.start_ns().saturating_add(clock.read()),
        _ => return Ok(INVAL),
    };
    let memory = memory::memory(&mut caller)?;
    let now = now.to_le_bytes();
    memory::write(memory.data_mut(&mut caller), Pointer::new(at), &now)?;
    Ok(SUCCESS)
}

fn random_get(mut caller: Caller<'_, Guest>, at: i32, length: i32) -> wasmtime::Result<i32> {
    let (at, length) = (Pointer::new(at), length.cast_unsigned());
    if length > RANDOM_BYTES_MAX {
        return Ok(INVAL);
    }
    let memory = memory::memory(&mut caller)?;
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    let into = memory::bytes_mut(data, Buffer { at, length })?;
    let fresh = || crate::sandbox::guest::wasi_random(guest.seed);
    guest
        .preview1
        .random
        .get_or_insert_with(fresh)
        .fill_bytes(into);
    Ok(SUCCESS)
}

/// What a guest waits for.
enum Wait {
    /// A time of the monotonic clock, in nanoseconds.
    Until(u64),
    /// Bytes on a stream; such a wait is over at once.
    Stream { bytes: u64, error: i32 },
    /// Something that there is not.
    Nothing,
}

fn poll_oneoff(
    mut caller: Caller<'_, Guest>,
    subscriptions_at: i32,
    events_at: i32,
    count: i32,
    events_count_at: i32,
) -> wasmtime::Result<i32> {
    let count = count.cast_unsigned();
    if count == 0 || count > BUFFERS_MAX {
        return Ok(INVAL);
    }
    let memory = memory::memory(&mut caller)?;
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    let start = Pointer::new(subscriptions_at);
    let subscriptions = (0..count)
        .map(|index| memory::array::<48>(data, start.offset(48 * index)?))
        .collect::<wasmtime::Result<Vec<_>>>()?;
    let waits: Vec<Wait> = subscriptions.iter().map(|it| wait(it, guest)).collect();
    let now = reached(&waits, guest);
    let mut happened = 0;
    for (subscription, wait) in subscriptions.iter().zip(waits) {
        let (error, bytes) = match wait {
            Wait::Until(when) if when <= now => (SUCCESS, 0),
            Wait::Until(_) => continue,
            Wait::Stream { bytes, error } => (error, bytes),
            Wait::Nothing => (INVAL, 0),
        };
        let mut event = [0; 32];
        event[..8].copy_from_slice(&subscription[..8]);
        event[8..12].copy_from_slice(&error.to_le_bytes());
        event[10] = subscription[8];
        event[16..24].copy_from_slice(&bytes.to_le_bytes());
        memory::write(data, Pointer::new(events_at).offset(32 * happened)?, &event)?;
        happened += 1;
    }
    let at = Pointer::new(events_count_at);
    memory::write(data, at, &happened.to_le_bytes())?;
    Ok(SUCCESS)
}

/// Moves the clock to the first end of a wait, unless something is ready before; the time then.
fn reached(waits: &[Wait], guest: &mut Guest) -> u64 {
    let ends = waits.iter().map(|wait| match wait {
        Wait::Until(when) => *when,
        Wait::Stream { .. } | Wait::Nothing => 0,
    });
    guest.clock.wait_until(ends.min().unwrap_or(0))
}

fn wait(subscription: &[u8; 48], guest: &Guest) -> Wait {
    let word = |at: usize| {
        let bytes = subscription[at..].first_chunk::<8>();
        u64::from_le_bytes(*bytes.unwrap_or(&[0; 8]))
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half is the field"
    )]
    let half = |at: usize| (word(at) as u32).cast_signed();
    match subscription[8] {
        0 => {
            let (timeout, absolute) = (word(24), subscription[40] & 1 == 1);
            match (half(16), absolute) {
                (REALTIME | MONOTONIC, false) => {
                    Wait::Until(guest.clock.now_ns().saturating_add(timeout))
                }
                (MONOTONIC, true) => Wait::Until(timeout),
                (REALTIME, true) => Wait::Until(timeout.saturating_sub(guest.clock.start_ns())),
                _ => Wait::Nothing,
            }
        }
        1 if half(16) == 0 => Wait::Stream {
            bytes: (guest.preview1.input.len() - guest.preview1.read) as u64,
            error: SUCCESS,
        },
        2 if matches!(half(16), 1 | 2) => Wait::Stream {
            bytes: 65_536,
            error: SUCCESS,
        },
        1 | 2 => Wait::Stream {
            bytes: 0,
            error: BADF,
        },
        _ => Wait::Nothing,
    }
}
