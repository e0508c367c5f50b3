//! What has to hold of a job before it is taken: its documents belong together, and where it is
//! paid through a channel, it has a place there.

use rusqlite::{Connection, Row};
use tussah_manifest::{Channel, Digest};

use super::{Ledger, LedgerError, NewJob, StoreError, signed};
use crate::wire::Opening;

impl NewJob {
    /// The job's id, if its documents belong together.
    ///
    /// # Errors
    /// [`LedgerError::Mismatch`] if they do not.
    pub fn check(&self) -> Result<Digest, LedgerError> {
        let body = &self.request.body;
        let mismatch = |text: &str| Err(LedgerError::Mismatch(text.to_owned()));
        if body.manifest != self.manifest.digest() {
            return mismatch("the request names another manifest");
        }
        if body.module != self.manifest.module.digest {
            return mismatch("the request names another module than its manifest");
        }
        if !body.is_for_input(&self.input) {
            return mismatch("the request was made for another input");
        }
        if self.reserve > body.price_nanograms_max {
            return mismatch("more would be reserved than the request pays");
        }
        // What no row can hold is refused here too, before anything else is promised.
        for (time, what) in [
            (self.deadline_unix_ms, "the deadline"),
            (self.time_max_ms, "the longest time"),
        ] {
            time.map(|ms| signed(ms, what)).transpose()?;
        }
        Ok(body.job_id())
    }
}

impl Ledger {
    /// That no job has the place in this opening of its channel.
    ///
    /// # Errors
    /// [`LedgerError::PlaceTaken`] if one has, [`LedgerError::Store`].
    pub fn require_free(&self, channel: Channel, opening: &Opening) -> Result<(), LedgerError> {
        match place_of(channel) {
            None => Ok(()),
            Some(place) => (self.store).look(|connection| require_free(connection, place, opening)),
        }
    }
}

/// A job from before openings were written down has its place in all of them.
pub(super) fn require_free(
    connection: &Connection,
    place: String,
    opening: &Opening,
) -> Result<(), LedgerError> {
    let sql = "SELECT count(*) FROM jobs WHERE place = ?1 \
               AND (incarnation IS NULL OR (network = ?2 AND incarnation = ?3))";
    let values = (&place, opening.network, opening.incarnation);
    let mut statement = connection.prepare_cached(sql)?;
    match statement.query_row(values, |row| row.get::<_, i64>(0))? {
        0 => Ok(()),
        _ => Err(LedgerError::PlaceTaken(place)),
    }
}

/// The opening in two columns from `at` on.
pub(super) fn opening_of(row: &Row<'_>, at: usize) -> Result<Option<Opening>, LedgerError> {
    let network: Option<i32> = row.get(at)?;
    let incarnation: Option<[u8; 32]> = row.get(at + 1)?;
    match (network, incarnation) {
        (Some(network), Some(incarnation)) => Ok(Some(Opening {
            network,
            incarnation,
        })),
        (None, None) => Ok(None),
        _ => Err(StoreError::Damaged("jobs.incarnation".to_owned()).into()),
    }
}

/// A place in a channel, as the ledger tells one from another; none for what is paid on credit.
pub(super) fn place_of(channel: Channel) -> Option<String> {
    match channel {
        Channel::Local => None,
        Channel::Ton { address, index } => Some(format!("{address}/{index}")),
    }
}
