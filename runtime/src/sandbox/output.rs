//! `tussah:job/output`: what leaves the job.
//!
//! In: bytes from the guest. Out: the job's output, counted against its limit and shown at
//! once to whoever listens; progress, which is shown and not kept.

use super::{
    Event,
    bindings::tussah::job::{output, types},
    guest::Guest,
};

/// The longest note of a progress report, in bytes.
const NOTE_BYTES_MAX: usize = 200;

impl output::Host for Guest {
    async fn emit(&mut self, bytes: Vec<u8>) -> wasmtime::Result<Result<(), types::Error>> {
        self.limiter.add_output_bytes(bytes.len())?;
        self.record("output#emit", &bytes, &[])?;
        self.output.extend_from_slice(&bytes);
        self.events.event(Event::Output(&bytes));
        Ok(Ok(()))
    }

    fn progress(&mut self, done: u64, total: u64, note: String) -> wasmtime::Result<()> {
        let note = &note[..note.floor_char_boundary(NOTE_BYTES_MAX)];
        self.events.event(Event::Progress {
            done,
            total: (total > 0).then_some(total),
            note,
        });
        Ok(())
    }
}
