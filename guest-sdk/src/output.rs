//! What leaves the job: its output, and how far it is.
//!
//! In: bytes. Out: nothing but errors; the client sees each piece as it is emitted.

use crate::{Error, bindings::tussah::job::output};

/// Appends to the job's output; the client sees it at once.
///
/// # Limits
/// The manifest's `output_bytes_max`, over all calls together. A job that passes it is
/// ended by the host; this call does not return then.
///
/// # Errors
/// None today; the host may come to refuse output that its client no longer takes.
pub fn emit(bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    output::emit(bytes.as_ref()).map_err(Error::from)
}

/// Tells the client how far the job is; `total` is 0 where it is not known.
///
/// It is shown, not stored: neither the output nor the receipt has it.
pub fn progress(done: u64, total: u64, note: &str) {
    output::progress(done, total, note);
}
