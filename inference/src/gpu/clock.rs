//! How long a step takes on the device.
//! In: a compute pass. Out: nanoseconds from its begin to its end, by the device's own clock, where it has one.
//! It is evidence alone: no result depends on it, and a device that counts no time has none.

use std::fmt;
use std::time::Duration;

use wgpu::{
    Buffer, BufferUsages, CommandEncoder, ComputePassTimestampWrites, QuerySet, QuerySetDescriptor,
    QueryType,
};

use crate::backend::BackendError;

use super::device::Gpu;

/// Bytes of the two times, begin and end, as a device writes them: 64 bits each.
pub(super) const TIMES_BYTES: u64 = 4 * TIMES_WORDS as u64;
/// The same in words.
pub(super) const TIMES_WORDS: usize = 4;

/// Takes the time of one compute pass after the other.
pub(super) struct Clock {
    times: QuerySet,
    resolved: Buffer,
    /// Nanoseconds of a tick.
    period: f64,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock of {} ns", self.period)
    }
}

impl Clock {
    /// The device's clock, or none where it has none.
    pub(super) fn of(gpu: &Gpu) -> Result<Option<Self>, BackendError> {
        let period = f64::from(gpu.queue().get_timestamp_period());
        // A driver that does not know how long a tick is has no clock for us.
        let has_clock = gpu.info().timestamps && period.is_finite() && period > 0.0;
        if !has_clock {
            return Ok(None);
        }
        let times = gpu.scoped("times of a step", TIMES_BYTES, || {
            gpu.device().create_query_set(&QuerySetDescriptor {
                label: Some("times of a step"),
                ty: QueryType::Timestamp,
                count: 2,
            })
        })?;
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        Ok(Some(Self {
            times,
            resolved: gpu.buffer_for("times of a step", TIMES_BYTES, usage)?,
            period,
        }))
    }

    /// What a pass has to write.
    pub(super) fn writes(&self) -> ComputePassTimestampWrites<'_> {
        ComputePassTimestampWrites {
            query_set: &self.times,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Copies the times of the pass before to [`TIMES_BYTES`] of a buffer.
    pub(super) fn copy(&self, encoder: &mut CommandEncoder, to: &Buffer, at: u64) {
        encoder.resolve_query_set(&self.times, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, to, at, Some(TIMES_BYTES));
    }

    /// How long the pass took, from the words that were copied; `None` where they make no sense.
    pub(super) fn time(&self, words: &[u32]) -> Option<Duration> {
        let [begin_low, begin_high, end_low, end_high] = *words else {
            return None;
        };
        let ticks = |low, high| u64::from(low) | u64::from(high) << 32;
        let (begin, end) = (ticks(begin_low, begin_high), ticks(end_low, end_high));
        // A device whose counter wrapped, or that wrote only one of them, measured nothing.
        let ticks = end.checked_sub(begin).filter(|_| begin > 0)?;
        let seconds = ticks as f64 * self.period / 1e9;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What each part of a step took of its time, by its rows; the parts add up to all of it.
pub(super) fn shares(time: Duration, rows: &[usize]) -> Vec<Duration> {
    let all = rows.iter().sum::<usize>().max(1) as u128;
    let nanos = |rows: u128| {
        let nanos = time.as_nanos() * rows / all;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    };
    let mut before = 0;
    let share = |rows: &usize| {
        let after = before + *rows as u128;
        let share = nanos(after) - nanos(before);
        before = after;
        share
    };
    rows.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_by_rows_and_add_up() {
        let table: [(u64, &[usize], &[u64]); 5] = [
            (900, &[1, 1, 1], &[300, 300, 300]),
            (900, &[8, 1], &[800, 100]),
            // What does not divide goes to somebody.
            (10, &[1, 1, 1], &[3, 3, 4]),
            (10, &[7], &[10]),
            (10, &[], &[]),
        ];
        for (time, rows, wanted) in table {
            let found = shares(Duration::from_nanos(time), rows);
            let found: Vec<_> = found.iter().map(Duration::as_nanos).collect();
            let wanted: Vec<_> = wanted.iter().map(|nanos| u128::from(*nanos)).collect();
            assert_eq!(found, wanted, "{time} ns of {rows:?}");
        }
    }
}
