//! What a job was given and what it said, as the ledger has it: whole, or from a place on.

use rusqlite::{Connection, OptionalExtension as _};
use tussah_manifest::Digest;

use super::{JobPart, Ledger, LedgerError, signed};

impl Ledger {
    /// A part of a job's content; `None` of a job that has none: it is not there, has not ended,
    /// ended without a run, or the part was removed.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn content(&self, id: Digest, part: JobPart) -> Result<Option<Vec<u8>>, LedgerError> {
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(part.sql())?;
            let found = statement.query_row([id.as_bytes()], |row| row.get(0));
            Ok(found.optional()?.flatten())
        };
        self.store.look_at_content(read).await
    }

    /// The next bytes of a job's output behind the first `from`, `bytes_max` at most; none where
    /// there are none, or none any more.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub(crate) async fn output_from(
        &self,
        id: Digest,
        from: usize,
        bytes_max: u32,
    ) -> Result<Vec<u8>, LedgerError> {
        let from = signed(u64::try_from(from).unwrap_or(u64::MAX), "the place")?;
        let read = move |connection: &Connection| {
            // The first byte is the first, not the zeroth.
            let sql = "SELECT substr(output, ?2 + 1, ?3) FROM jobs WHERE id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let values = (id.as_bytes(), from, bytes_max);
            let found = statement.query_row(values, |row| row.get::<_, Option<Vec<u8>>>(0));
            Ok(found.optional()?.flatten().unwrap_or_default())
        };
        self.store.look_at_content(read).await
    }
}
