//! `Ledger`: what this provider took on, what came of it, and who may spend how much.
//!
//! In: signed requests with their inputs, signed receipts with openings and outputs, accounts and
//! their keys. Out: the same, durable before it is answered. A job is accepted once, by its id,
//! and ends once; its reservation of credit is made and settled in the same transactions. It
//! signs nothing, runs nothing, and stores neither secret keys nor API keys nor passwords, only
//! hashes of the last two.

mod accounts;
mod check;
mod content;
mod earnings;
mod export;
mod jobs;
mod limits;
mod owner;
mod places;
mod prune;
mod store;

use std::path::Path;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use tussah_manifest::{Digest, Nanograms};

pub use accounts::{Account, ApiKey, ApiKeySecret, Deployment, NameError, Shape, check_name};
pub use check::{CheckReport, Finding};
pub use earnings::{Earnings, EarningsBy, EarningsSpan};
pub use export::EndedJob;
pub use jobs::{
    Acceptance, Accepted, Ending, Fault, JobPart, JobState, JobSummary, NewJob, Unfinished,
};
pub use limits::{AccountLimits, Change, CreditChange, LimitChanges};
pub use owner::{PageLock, PagePassword};
pub use prune::{PruneStep, Pruned};
pub use store::StoreError;

use crate::signer::{Jobs, JobsError, KnownJob};
use store::Store;

/// An account's number in this ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub(crate) i64);

/// Why the ledger did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such account.
    #[error("there is no account `{0}`")]
    NoAccount(String),
    /// No such job.
    #[error("there is no job {0}")]
    NoJob(Digest),
    /// A job ends once.
    #[error("job {0} has ended already")]
    Ended(Digest),
    /// No such manifest.
    #[error("there is no manifest {0}")]
    NoManifest(Digest),
    /// The name is in use.
    #[error("there is an API key named `{0}` already")]
    KeyTaken(String),
    /// No such key.
    #[error("there is no API key named `{0}`")]
    NoKey(String),
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The account's credit does not reach.
    #[error("the job may cost {needed}, and the account has {left} left")]
    Credit {
        /// What would be reserved.
        needed: Nanograms,
        /// What is left of the credit.
        left: Nanograms,
    },
    /// The place in the channel is another job's.
    #[error("the channel's place {0} is another job's")]
    PlaceTaken(String),
    /// There is no limit that could be raised or lowered.
    #[error("the account has no credit limit to raise or lower; give it one first")]
    NoCreditLimit,
    /// More than there is.
    #[error("the account's credit would be more than there is")]
    CreditTooMuch,
    /// The account's uploads have used up what they may.
    #[error("the account has uploaded {uploaded} of {max} bytes, and this would be {bytes} more")]
    UploadQuota {
        /// What is announced.
        bytes: u64,
        /// What was before.
        uploaded: u64,
        /// The account's limit.
        max: u64,
    },
    /// Documents that do not belong together; the caller's mistake.
    #[error("the job's documents do not fit together: {0}")]
    Mismatch(String),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The ledger, open for writing. Any number of tasks share one; several processes may have one
/// each.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    manifests: accounts::Manifests,
}

/// What a ledger wrote since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerWrites {
    /// Changes that are durable: a job has two, its acceptance and its end.
    pub writes: u64,
    /// Transactions that they took.
    pub commits: u64,
    /// Times that the disk was synced for them, at most.
    pub syncs: u64,
}

impl Ledger {
    /// Opens the ledger at this path, and makes it if there is none.
    ///
    /// # Errors
    /// [`LedgerError::Store`] if it is another kind of file, or of a later build.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self {
            store: Store::open(path)?,
            manifests: accounts::Manifests::default(),
        })
    }

    /// What was written since it was opened.
    pub fn writes(&self) -> LedgerWrites {
        let counts = self.store.counts();
        LedgerWrites {
            writes: counts.writes.load(Ordering::Relaxed),
            commits: counts.commits.load(Ordering::Relaxed),
            syncs: counts.syncs.load(Ordering::Relaxed),
        }
    }

    /// 32 bytes that this ledger drew when they were first asked for, and always answers: the
    /// secret from which the nonces of seeded requests come.
    ///
    /// # Errors
    /// [`LedgerError::Random`] or [`LedgerError::Store`].
    pub fn nonce_secret(&self) -> Result<[u8; 32], LedgerError> {
        let mut fresh = [0_u8; 32];
        getrandom::fill(&mut fresh).map_err(|error| LedgerError::Random(error.to_string()))?;
        let answer = self.store.write::<_, LedgerError>(move |connection| {
            let sql = "INSERT INTO settings VALUES ('nonce_secret', ?1) ON CONFLICT DO NOTHING";
            connection.execute(sql, [fresh.as_slice()])?;
            let sql = "SELECT value FROM settings WHERE name = 'nonce_secret'";
            Ok(connection.query_row(sql, [], |row| row.get::<_, [u8; 32]>(0))?)
        });
        answer.block()
    }
}

/// The ledger as the signer sees it: to be read, never written.
#[derive(Debug)]
pub struct LedgerView {
    connection: Connection,
}

impl LedgerView {
    /// Opens a ledger that a [`Ledger`] has made.
    ///
    /// # Errors
    /// [`LedgerError::Store`] if there is none, or none of this build's version.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self {
            connection: store::open_to_read(path)?,
        })
    }
}

impl Jobs for LedgerView {
    fn job(&mut self, id: &Digest) -> Result<Option<KnownJob>, JobsError> {
        jobs::known(&self.connection, id).map_err(|error: LedgerError| JobsError {
            message: error.to_string(),
            is_damaged: matches!(error, LedgerError::Store(StoreError::Damaged(_))),
        })
    }
}

/// SQLite's integers have a sign; amounts and sizes here end far below 2^63.
fn signed(value: u64, what: &str) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| LedgerError::Mismatch(format!("{what} is out of range")))
}

fn unsigned(value: i64, what: &str) -> Result<u64, LedgerError> {
    u64::try_from(value).map_err(|_| StoreError::Damaged(format!("{what} is negative")).into())
}

fn amount(value: i64, what: &str) -> Result<Nanograms, LedgerError> {
    Nanograms::new(unsigned(value, what)?)
        .ok_or_else(|| StoreError::Damaged(format!("{what} is no amount")).into())
}
