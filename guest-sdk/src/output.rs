//! What leaves the job: its output, how far it is, its log.
//!
//! In: bytes. Out: nothing but errors; the client sees each piece as it is emitted.

use std::{
    fmt,
    io::{self, Write},
};

use crate::{Error, host};

/// Appends to the job's output; the client sees it at once.
///
/// # Limits
/// The manifest's `output_bytes_max`, over all calls together. A job that passes it is
/// ended by the host; this call does not return then.
///
/// # Errors
/// None today; the host may come to refuse output that its client no longer takes.
pub fn emit(bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    host::emit(bytes.as_ref()).map_err(Error::from_host)
}

/// Tells the client how far the job is; `total` is 0 where it is not known.
///
/// It is shown, not stored: neither the output nor the receipt has it. Notes are cut at
/// 200 bytes.
pub fn progress(done: u64, total: u64, note: &str) {
    host::progress(done, total, note);
}

/// Writes a line to the job's log, which is the job's standard error.
///
/// It is shown to whoever runs the job and is no part of its output; over the manifest's
/// `log_bytes_max` it is dropped without a word.
pub fn log(line: impl fmt::Display) {
    host::log(format_args!("{line}"));
}

/// The job's output as a [`Write`]: for `write!`, `serde_json::to_writer`, `io::copy`.
///
/// Nothing is held back: each call of `write`, and each whole `write!`, is one [`emit`].
/// Around many small writes put a [`std::io::BufWriter`].
///
/// ```no_run
/// use std::io::Write;
/// use tussah_sdk::{Error, Output};
///
/// fn table(rows: &[(String, f32)]) -> Result<(), Error> {
///     let mut output = Output;
///     for (name, score) in rows {
///         writeln!(output, "{name}\t{score:.3}")?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        emit(bytes).map_err(Error::into_io)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> io::Result<()> {
        match arguments.as_str() {
            Some(text) => self.write_all(text.as_bytes()),
            None => self.write_all(arguments.to_string().as_bytes()),
        }
    }
}
