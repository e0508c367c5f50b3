//! `ended_jobs`: the jobs that ended in a time, for a provider's own books.
//!
//! In: a span of time, and where to go on. Out: a page of jobs in the order in which they were
//! accepted, each with its account's name and its receipt, and none of their content.

use super::jobs::{SUMMARY, summary_of};
use super::{EarningsSpan, JobSummary, LedgerError, LedgerView, signed, store, unsigned};

/// A job that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    /// Its place in the order of acceptance: where the next page goes on.
    pub sequence: u64,
    /// The name of the account that asked.
    pub account: String,
    /// When it ended, as `2026-11-23T17:00:00Z`.
    pub finished_utc: String,
    /// The job.
    pub job: JobSummary,
}

impl LedgerView {
    /// The first jobs behind `after` that ended in the span, `count_max` at most; after the last
    /// page there are none. A daemon that runs goes on between pages.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn ended_jobs(
        &mut self,
        span: EarningsSpan,
        after: u64,
        count_max: u32,
    ) -> Result<Vec<EndedJob>, LedgerError> {
        store::read(&mut self.connection, |connection| {
            let sql = format!(
                "SELECT {SUMMARY}, sequence, \
                 (SELECT name FROM accounts WHERE accounts.id = account), \
                 strftime('%Y-%m-%dT%H:%M:%SZ', finished / 1000, 'unixepoch') \
                 FROM jobs WHERE state != 0 AND finished >= ?1 AND finished < ?2 \
                 AND sequence > ?3 ORDER BY sequence LIMIT ?4"
            );
            let to = span.to_unix_ms.min(i64::MAX.unsigned_abs());
            let values = (
                signed(span.from_unix_ms, "the first time")?,
                signed(to, "the last time")?,
                signed(after, "the place to go on at")?,
                count_max,
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(values)?;
            let mut jobs = Vec::new();
            while let Some(row) = rows.next()? {
                jobs.push(EndedJob {
                    sequence: unsigned(row.get("sequence")?, "jobs.sequence")?,
                    account: row.get(17)?,
                    finished_utc: row.get(18)?,
                    job: summary_of(row)?,
                });
            }
            Ok(jobs)
        })
    }
}
