//! Jobs: accepted once, ended once, each in one transaction with what it reserves or costs.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row};
use tussah_manifest::{Digest, Document as _, Manifest, Nanograms, Receipt, Request};

use super::accounts::{manifest_of, put_manifest};
use super::limits::{no_credit, reserve_credit};
use super::places::{opening_of, place_of, require_free};
use super::{AccountId, Finding, Ledger, LedgerError, StoreError, amount, signed, unsigned};
use crate::signer::KnownJob;
use crate::wire::{Opening, WhoseFault};

/// Where a job is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// It will run, or runs, or ran and its end is not on the disk.
    Accepted,
    /// It has a receipt.
    Finished,
    /// It ended without a run, and so without a receipt.
    NotRun,
}

impl JobState {
    const ALL: [Self; 3] = [Self::Accepted, Self::Finished, Self::NotRun];

    const fn code(self) -> i64 {
        match self {
            Self::Accepted => 0,
            Self::Finished => 1,
            Self::NotRun => 2,
        }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Finished => "finished",
            Self::NotRun => "not-run",
        }
    }
}

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Signed; whoever brings it has verified the signature.
    pub request: Request,
    /// The manifest that the request names.
    pub manifest: Manifest,
    /// What the request's salted digest is of.
    pub input: Vec<u8>,
    /// Who asks.
    pub account: AccountId,
    /// The name under which it was asked for, if any.
    pub deployment: Option<String>,
    /// What it may cost: set aside until it ends.
    pub reserve: Nanograms,
    /// When it is worth nothing any more, in milliseconds since 1970.
    pub deadline_unix_ms: Option<u64>,
    /// The longest it may run, besides its manifest's own limit.
    pub time_max_ms: Option<u64>,
    /// Whether it runs when nobody waits for it: also after a crash.
    pub keep: bool,
    /// In which opening of its channel its place is; none of a job on credit.
    pub opening: Option<Opening>,
}

/// What accepting came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is on the disk.
    New,
    /// It was there already, and nothing was changed.
    Known(Box<JobSummary>),
}

/// A job that was accepted and has not ended: to be run again after a crash.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The request.
    pub request: Request,
    /// The manifest.
    pub manifest: Manifest,
    /// The input.
    pub input: Vec<u8>,
    /// Who asked.
    pub account: AccountId,
    /// The name under which it was asked for, if any.
    pub deployment: Option<String>,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_unix_ms: u64,
    /// When it is worth nothing any more.
    pub deadline_unix_ms: Option<u64>,
    /// The longest it may run.
    pub time_max_ms: Option<u64>,
    /// What it may cost.
    pub reserve: Nanograms,
    /// Whether it runs when nobody waits for it.
    pub keep: bool,
}

/// All that was accepted and has not ended.
#[derive(Debug, Clone, Default)]
pub struct Unfinished {
    /// Jobs to be run, oldest first.
    pub jobs: Vec<Accepted>,
    /// Rows that cannot be read: they stay as they are, and hold up no other.
    pub set_aside: Vec<Finding>,
}

/// A part of a job's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPart {
    /// All the output.
    Output,
    /// All the log.
    Log,
    /// Canonical bytes of the opening.
    Opening,
}

impl JobPart {
    pub(super) const fn sql(self) -> &'static str {
        match self {
            Self::Output => "SELECT output FROM jobs WHERE id = ?1",
            Self::Log => "SELECT log FROM jobs WHERE id = ?1",
            Self::Opening => "SELECT opening FROM jobs WHERE id = ?1",
        }
    }
}

/// Why a job did not end well, in words for its client.
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    /// The job's own code, if it returned an error of its own.
    pub code: Option<u32>,
    /// The job's own words, or ours.
    pub message: String,
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A job's words can be its client's.
        write!(f, "Fault({:?}, {} bytes)", self.code, self.message.len())
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With a receipt.
    Receipt {
        /// Signed.
        receipt: Box<Receipt>,
        /// Canonical bytes of the opening.
        opening: Vec<u8>,
        /// All the output.
        output: Vec<u8>,
        /// All the log.
        log: Vec<u8>,
        /// Why, if it is not done.
        fault: Option<Fault>,
    },
    /// Without a run.
    NotRun {
        /// Whose change would make a retry succeed.
        fault: WhoseFault,
        /// The exit code that the command line would have ended with.
        exit_code: u8,
        /// Why.
        message: String,
    },
}

/// A job without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    /// The job's id.
    pub id: Digest,
    /// Where it is.
    pub state: JobState,
    /// Who asked.
    pub account: AccountId,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// The name under which it was asked for, if any.
    pub deployment: Option<String>,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_unix_ms: u64,
    /// When it ended.
    pub finished_unix_ms: Option<u64>,
    /// What it cost.
    pub price: Option<Nanograms>,
    /// Why it did not end well.
    pub fault: Option<Fault>,
    /// Whose fault it is that nothing ran.
    pub whose_fault: Option<WhoseFault>,
    /// The receipt, if it has one.
    pub receipt: Option<Box<Receipt>>,
    /// Bytes of output.
    pub output_bytes: u64,
    /// When its input, output and log were removed, if they were.
    pub pruned_unix_ms: Option<u64>,
    /// In which opening of its channel its place is; none of a job on credit, or from before
    /// openings were written down.
    pub opening: Option<Opening>,
}

impl Ledger {
    /// Accepts a job: durable, and its credit reserved, when this returns. A job of the same id
    /// that was accepted before is left as it is.
    ///
    /// # Errors
    /// [`LedgerError::Credit`] if the account's credit does not reach, [`LedgerError::Mismatch`]
    /// if the documents do not belong together, [`LedgerError::Store`].
    pub async fn accept(&self, job: NewJob, now_ms: u64) -> Result<Acceptance, LedgerError> {
        let id = job.check()?;
        let answer = self
            .store
            .write(move |connection| accept(connection, &id, &job, now_ms));
        answer.wait().await
    }

    /// Ends a job: its end is durable, and its credit settled, when this returns.
    ///
    /// # Errors
    /// [`LedgerError::NoJob`], [`LedgerError::Ended`], [`LedgerError::Mismatch`] if the receipt is
    /// another job's, [`LedgerError::Store`].
    pub async fn finish(
        &self,
        id: Digest,
        ending: impl Into<Arc<Ending>>,
        now_ms: u64,
    ) -> Result<(), LedgerError> {
        let ending = ending.into();
        if let Ending::Receipt { receipt, .. } = &*ending
            && receipt.consensus.job != id
        {
            return Err(LedgerError::Mismatch(
                "the receipt is another job's".to_owned(),
            ));
        }
        let answer = self
            .store
            .write(move |connection| finish(connection, &id, &ending, now_ms));
        answer.wait().await
    }

    /// Has a job run also when nobody waits for it. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn keep(&self, id: Digest) -> Result<(), LedgerError> {
        let answer = self.store.write::<_, LedgerError>(move |connection| {
            let sql = "UPDATE jobs SET keep = 1 WHERE id = ?1 AND state = 0";
            connection.execute(sql, [id.as_bytes()])?;
            Ok(())
        });
        answer.wait().await
    }

    /// The jobs that were accepted and have not ended.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn unfinished(&self) -> Result<Unfinished, LedgerError> {
        self.store.read(|connection| {
            let sql = "SELECT request, manifest, input, account, deployment, accepted, deadline, \
                       time_max_ms, (SELECT bytes FROM manifests WHERE digest = manifest), \
                       reserved, keep, id, network, incarnation \
                       FROM jobs WHERE state = 0 ORDER BY sequence";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            let mut unfinished = Unfinished::default();
            while let Some(row) = rows.next()? {
                match accepted_of(row) {
                    Ok(job) => unfinished.jobs.push(job),
                    Err(error) => unfinished.set_aside.push(Finding {
                        place: format!("job {}", Digest::from_bytes(row.get(11)?)),
                        problem: error.to_string(),
                    }),
                }
            }
            Ok(unfinished)
        })
    }

    /// A job without its content.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn job(&self, id: &Digest) -> Result<Option<JobSummary>, LedgerError> {
        self.store.look(|connection| summary(connection, id))
    }

    /// The jobs that were accepted last, newest first: of one account, or of all.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn recent_jobs(
        &self,
        account: Option<AccountId>,
        count_max: u32,
    ) -> Result<Vec<JobSummary>, LedgerError> {
        self.store.read(|connection| {
            let sql = format!(
                "SELECT {SUMMARY} FROM jobs WHERE ?1 IS NULL OR account = ?1 \
                 ORDER BY sequence DESC LIMIT ?2"
            );
            let mut statement = connection.prepare(&sql)?;
            let values = (account.map(|account| account.0), count_max);
            let rows = statement.query_map(values, |row| Ok(summary_of(row)))?;
            rows.map(|row| row?).collect()
        })
    }
}

fn accept(
    connection: &Connection,
    id: &Digest,
    job: &NewJob,
    now_ms: u64,
) -> Result<Acceptance, LedgerError> {
    if let Some(known) = summary(connection, id)? {
        return Ok(Acceptance::Known(Box::new(known)));
    }
    let reserve = signed(job.reserve.get(), "what is reserved")?;
    let place = place_of(job.request.body.channel);
    match (&place, &job.opening) {
        (Some(place), Some(opening)) => require_free(connection, place.clone(), opening)?,
        (None, None) => {}
        _ => {
            let text = "a place is one in an opening of a channel".to_owned();
            return Err(LedgerError::Mismatch(text));
        }
    }
    // What is paid through a channel is not on credit.
    let on_credit = if place.is_none() { reserve } else { 0 };
    if !reserve_credit(connection, job.account, on_credit)? {
        return Err(no_credit(connection, job)?);
    }
    let digest = job.request.body.manifest;
    put_manifest(connection, &digest, &job.manifest.to_bytes())?;
    let time = |ms: Option<u64>, what| ms.map(|ms| signed(ms, what)).transpose();
    let sql = "INSERT INTO jobs (id, state, account, manifest, deployment, accepted, deadline, \
               time_max_ms, reserved, request, input, keep, place, network, incarnation) \
               VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    connection.prepare_cached(sql)?.execute((
        id.as_bytes(),
        job.account.0,
        digest.as_bytes(),
        &job.deployment,
        signed(now_ms, "the time")?,
        time(job.deadline_unix_ms, "the deadline")?,
        time(job.time_max_ms, "the longest time")?,
        reserve,
        job.request.to_bytes(),
        &job.input,
        job.keep,
        place,
        job.opening.map(|opening| opening.network),
        job.opening.map(|opening| opening.incarnation),
    ))?;
    Ok(Acceptance::New)
}

fn finish(
    connection: &Connection,
    id: &Digest,
    ending: &Ending,
    now_ms: u64,
) -> Result<(), LedgerError> {
    let sql = "SELECT state, account, reserved, manifest, place IS NULL FROM jobs WHERE id = ?1";
    let row: Option<(i64, i64, i64, [u8; 32], bool)> = connection
        .prepare_cached(sql)?
        .query_row([id.as_bytes()], |row| {
            let (state, account, reserved) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((state, account, reserved, row.get(3)?, row.get(4)?))
        })
        .optional()?;
    let (state, account, reserved, manifest, on_credit) = row.ok_or(LedgerError::NoJob(*id))?;
    if state != JobState::Accepted.code() {
        return Err(LedgerError::Ended(*id));
    }
    let now = signed(now_ms, "the time")?;
    let price = match ending {
        Ending::Receipt {
            receipt,
            opening,
            output,
            log,
            fault,
        } => {
            if receipt.consensus.manifest.as_bytes() != &manifest {
                let text = "the receipt is of another manifest".to_owned();
                return Err(LedgerError::Mismatch(text));
            }
            let price = signed(receipt.consensus.price_nanograms.get(), "the price")?;
            if price > reserved {
                let text = "the receipt costs more than was reserved".to_owned();
                return Err(LedgerError::Mismatch(text));
            }
            let (code, message) = match fault {
                Some(fault) => (fault.code, Some(&fault.message)),
                None => (None, None),
            };
            let sql = "UPDATE jobs SET state = 1, reserved = 0, finished = ?2, price = ?3, \
                       error_code = ?4, error = ?5, receipt = ?6, opening = ?7, output = ?8, \
                       log = ?9 WHERE id = ?1";
            let receipt = receipt.to_bytes();
            let values = (
                id.as_bytes(),
                now,
                price,
                code,
                message,
                receipt,
                opening,
                output,
                log,
            );
            connection.prepare_cached(sql)?.execute(values)?;
            price
        }
        Ending::NotRun {
            fault,
            exit_code,
            message,
        } => {
            let sql = "UPDATE jobs SET state = 2, reserved = 0, finished = ?2, price = 0, \
                       error_code = ?3, fault = ?4, error = ?5 WHERE id = ?1";
            let values = (id.as_bytes(), now, exit_code, fault_name(*fault), message);
            connection.prepare_cached(sql)?.execute(values)?;
            0
        }
    };
    if on_credit && (reserved, price) != (0, 0) {
        let sql = "UPDATE accounts SET reserved = reserved - ?2, spent = spent + ?3 WHERE id = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute((account, reserved, price))?;
    }
    Ok(())
}

/// A job as the signer wants it: it checks the request itself.
pub(super) fn known(connection: &Connection, id: &Digest) -> Result<Option<KnownJob>, LedgerError> {
    let sql = "SELECT state, request, receipt, network, incarnation FROM jobs WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let known = statement.query_row([id.as_bytes()], |row| {
        Ok((|| {
            Ok(KnownJob {
                finished: row.get::<_, i64>(0)? != JobState::Accepted.code(),
                request: row.get(1)?,
                receipt: row.get(2)?,
                opening: opening_of(row, 3)?,
            })
        })())
    });
    known.optional()?.transpose()
}

pub(super) fn request_of(bytes: &[u8]) -> Result<Request, LedgerError> {
    Request::from_bytes(bytes)
        .map_err(|error| StoreError::Damaged(format!("jobs.request: {error}")).into())
}

fn accepted_of(row: &Row<'_>) -> Result<Accepted, LedgerError> {
    let time = |at: usize, what: &str| -> Result<Option<u64>, LedgerError> {
        let value: Option<i64> = row.get(at)?;
        value.map(|ms| unsigned(ms, what)).transpose()
    };
    let digest = Digest::from_bytes(row.get(1)?);
    let bytes: Option<Vec<u8>> = row.get(8)?;
    let bytes = bytes.ok_or(LedgerError::NoManifest(digest))?;
    // Who signs its receipt reads it too.
    opening_of(row, 12)?;
    let request = request_of(&row.get::<_, Vec<u8>>(0)?)?;
    // What the signer would refuse at its end is not run first.
    let id = Digest::from_bytes(row.get(11)?);
    if request.verify().is_err() || request.body.job_id() != id {
        let what = "jobs.request: its client did not sign it, or it is another job's";
        return Err(StoreError::Damaged(what.to_owned()).into());
    }
    Ok(Accepted {
        request,
        manifest: manifest_of(&digest, &bytes)?,
        input: row.get(2)?,
        account: AccountId(row.get(3)?),
        deployment: row.get(4)?,
        accepted_unix_ms: unsigned(row.get(5)?, "jobs.accepted")?,
        deadline_unix_ms: time(6, "jobs.deadline")?,
        time_max_ms: time(7, "jobs.time_max_ms")?,
        reserve: amount(row.get(9)?, "jobs.reserved")?,
        keep: row.get(10)?,
    })
}

/// The columns that [`summary_of`] reads.
pub(super) const SUMMARY: &str = "id, state, account, manifest, deployment, accepted, finished, price, \
                       error_code, fault, error, receipt, coalesce(length(output), 0), pruned, \
                       network, incarnation";

fn summary(connection: &Connection, id: &Digest) -> Result<Option<JobSummary>, LedgerError> {
    let sql = format!("SELECT {SUMMARY} FROM jobs WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement
        .query_row([id.as_bytes()], |row| Ok(summary_of(row)))
        .optional()?;
    found.transpose()
}

pub(super) fn summary_of(row: &Row<'_>) -> Result<JobSummary, LedgerError> {
    let damaged = |what: String| LedgerError::from(StoreError::Damaged(what));
    let code: i64 = row.get(1)?;
    let mut states = JobState::ALL.into_iter();
    let state = states
        .find(|state| state.code() == code)
        .ok_or_else(|| damaged(format!("jobs.state {code}")))?;
    let receipt: Option<Vec<u8>> = row.get(11)?;
    let receipt = receipt.map(|bytes| Receipt::from_bytes(&bytes).map(Box::new));
    let receipt = receipt
        .transpose()
        .map_err(|error| damaged(format!("jobs.receipt: {error}")))?;
    let price: Option<i64> = row.get(7)?;
    let finished: Option<i64> = row.get(6)?;
    let pruned: Option<i64> = row.get(13)?;
    let message: Option<String> = row.get(10)?;
    let fault = match message {
        Some(message) => Some(Fault {
            code: row.get(8)?,
            message,
        }),
        None => None,
    };
    let whose: Option<String> = row.get(9)?;
    let whose_fault =
        whose.map(|name| fault_of(&name).ok_or_else(|| damaged(format!("jobs.fault {name:?}"))));
    Ok(JobSummary {
        id: Digest::from_bytes(row.get(0)?),
        state,
        account: AccountId(row.get(2)?),
        manifest: Digest::from_bytes(row.get(3)?),
        deployment: row.get(4)?,
        accepted_unix_ms: unsigned(row.get(5)?, "jobs.accepted")?,
        finished_unix_ms: finished
            .map(|ms| unsigned(ms, "jobs.finished"))
            .transpose()?,
        price: price.map(|price| amount(price, "jobs.price")).transpose()?,
        fault,
        whose_fault: whose_fault.transpose()?,
        receipt,
        output_bytes: unsigned(row.get(12)?, "jobs.output")?,
        pruned_unix_ms: pruned.map(|ms| unsigned(ms, "jobs.pruned")).transpose()?,
        opening: opening_of(row, 14)?,
    })
}

pub(super) const fn fault_name(fault: WhoseFault) -> &'static str {
    match fault {
        WhoseFault::Developer => "developer",
        WhoseFault::Client => "client",
        WhoseFault::Provider => "provider",
    }
}

fn fault_of(name: &str) -> Option<WhoseFault> {
    [
        WhoseFault::Developer,
        WhoseFault::Client,
        WhoseFault::Provider,
    ]
    .into_iter()
    .find(|fault| fault_name(*fault) == name)
}
