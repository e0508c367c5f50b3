//! `prune`: what is removed of jobs that ended long ago, so that the ledger does not grow for ever.
//!
//! In: from when on. Out: less of input, output and log, a few jobs at a time, and the pages that
//! they took given back to the disk. Receipt, opening and price of every job stay.

use rusqlite::Connection;

use super::{Ledger, LedgerError, signed};

/// How much one step does: everybody who writes waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneStep {
    /// Jobs that ended before are old, in milliseconds since 1970.
    pub ended_before_unix_ms: u64,
    /// Jobs at most.
    pub jobs_max: u32,
    /// Pages that are given back, at most.
    pub pages_max: u32,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs whose content was removed.
    pub jobs: u64,
    /// Whether there is nothing left to do.
    pub is_done: bool,
}

impl Ledger {
    /// Takes one step; durable when this returns.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn prune(&self, step: PruneStep, now_ms: u64) -> Result<Pruned, LedgerError> {
        let answer = self
            .store
            .write(move |connection| prune(connection, step, now_ms));
        answer.wait().await
    }
}

fn prune(connection: &Connection, step: PruneStep, now_ms: u64) -> Result<Pruned, LedgerError> {
    let sql = "UPDATE jobs SET input = x'', output = NULL, log = NULL, pruned = ?2 \
               WHERE sequence IN (SELECT sequence FROM jobs WHERE pruned IS NULL AND state <> 0 \
               AND finished < ?1 ORDER BY finished LIMIT ?3)";
    let values = (
        signed(step.ended_before_unix_ms, "the time")?,
        signed(now_ms, "the time")?,
        step.jobs_max,
    );
    let jobs = connection.prepare_cached(sql)?.execute(values)?;
    // It gives a page back at each step.
    let sql = format!("PRAGMA incremental_vacuum({})", step.pages_max);
    let mut vacuum = connection.prepare(&sql)?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    let jobs = u64::try_from(jobs).unwrap_or(u64::MAX);
    Ok(Pruned {
        jobs,
        is_done: jobs < u64::from(step.jobs_max) && free == 0,
    })
}
