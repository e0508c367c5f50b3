//! `earnings`: what the jobs of a time came to.
//!
//! In: the ledger, a span of time, by what to group. Out: sums over the jobs that ended in it.
//! It says what was earned and how it is owed: on an account's credit, which is settled outside
//! of any chain, or through a payment channel, whose book knows what of it was posted. The ledger
//! itself has seen no money.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use tussah_manifest::{Channel, Digest, Document as _, ExitStatus, Nanograms, Receipt};

use super::{Ledger, LedgerError, LedgerView, StoreError, amount, signed, store};

/// By what sums are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarningsBy {
    /// The day of the job's end, in UTC: `2026-11-23`.
    Day,
    /// The account's name.
    Account,
    /// The name under which the job was asked for, or its manifest's digest.
    Model,
}

/// Which jobs count: those that ended from `from_unix_ms` on and before `to_unix_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarningsSpan {
    /// The first millisecond since 1970.
    pub from_unix_ms: u64,
    /// The first one that does not count any more.
    pub to_unix_ms: u64,
}

/// What some jobs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Earnings {
    /// Jobs with a receipt.
    pub jobs: u64,
    /// Those of them that did not end well.
    pub failed: u64,
    /// Those of them that cost nothing.
    pub free: u64,
    /// Jobs that ended without a run, and so without a receipt; they cost nothing.
    pub not_run: u64,
    /// Jobs whose reservation went back in full because this provider failed, or because they
    /// never ran.
    pub refunded: u64,
    /// Wasm fuel.
    pub fuel: u128,
    /// Multiply-accumulates of inference.
    pub inference_units: u128,
    /// Earned on credit: what accounts owe for it, nobody has paid through this ledger.
    pub credit: Nanograms,
    /// Earned through payment channels: promised by vouchers, paid once they are redeemed.
    pub channel: Nanograms,
}

impl Earnings {
    /// Both kinds together.
    ///
    /// # Errors
    /// [`LedgerError::Store`] if that is more than there is.
    pub fn total(&self) -> Result<Nanograms, LedgerError> {
        plus(self.credit, self.channel)
    }

    /// These and those.
    ///
    /// # Errors
    /// [`LedgerError::Store`] if that is more money than there is.
    pub fn add(&mut self, other: &Self) -> Result<(), LedgerError> {
        self.jobs = self.jobs.saturating_add(other.jobs);
        self.failed = self.failed.saturating_add(other.failed);
        self.free = self.free.saturating_add(other.free);
        self.not_run = self.not_run.saturating_add(other.not_run);
        self.refunded = self.refunded.saturating_add(other.refunded);
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.inference_units = self.inference_units.saturating_add(other.inference_units);
        self.credit = plus(self.credit, other.credit)?;
        self.channel = plus(self.channel, other.channel)?;
        Ok(())
    }
}

impl Ledger {
    /// Sums over the jobs that ended in a span: by day, or by what earned most. Every receipt of
    /// the span is read, so a long one takes a while.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn earnings(
        &self,
        span: EarningsSpan,
        by: EarningsBy,
    ) -> Result<Vec<(String, Earnings)>, LedgerError> {
        self.store.read(|connection| earnings(connection, span, by))
    }
}

impl LedgerView {
    /// As [`Ledger::earnings`], beside a daemon that runs.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub fn earnings(
        &mut self,
        span: EarningsSpan,
        by: EarningsBy,
    ) -> Result<Vec<(String, Earnings)>, LedgerError> {
        store::read(&mut self.connection, |connection| {
            earnings(connection, span, by)
        })
    }
}

fn earnings(
    connection: &Connection,
    span: EarningsSpan,
    by: EarningsBy,
) -> Result<Vec<(String, Earnings)>, LedgerError> {
    let sql = "SELECT state, price, receipt, date(finished / 1000, 'unixepoch'), name, deployment, \
               manifest FROM jobs JOIN accounts ON accounts.id = account \
               WHERE state != 0 AND finished >= ?1 AND finished < ?2";
    let to = span.to_unix_ms.min(i64::MAX.unsigned_abs());
    let values = (
        signed(span.from_unix_ms, "the first time")?,
        signed(to, "the last time")?,
    );
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(values)?;
    let mut groups: BTreeMap<String, Earnings> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let key = key_of(row, by)?;
        groups.entry(key).or_default().add(&of_job(row)?)?;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    if by != EarningsBy::Day {
        // Stable: what earned the same stays by name.
        groups.sort_by_key(|(_, sums)| {
            std::cmp::Reverse(u128::from(sums.credit.get()) + u128::from(sums.channel.get()))
        });
    }
    Ok(groups)
}

fn key_of(row: &Row<'_>, by: EarningsBy) -> Result<String, LedgerError> {
    let day: Option<String> = row.get(3)?;
    Ok(match by {
        EarningsBy::Day => {
            let damaged = || StoreError::Damaged("jobs.finished is no time".to_owned());
            day.ok_or_else(damaged)?
        }
        EarningsBy::Account => row.get(4)?,
        EarningsBy::Model => match row.get::<_, Option<String>>(5)? {
            Some(name) => name,
            None => Digest::from_bytes(row.get(6)?).to_string(),
        },
    })
}

fn of_job(row: &Row<'_>) -> Result<Earnings, LedgerError> {
    let Some(receipt) = row.get::<_, Option<Vec<u8>>>(2)? else {
        return Ok(Earnings {
            not_run: 1,
            refunded: 1,
            ..Earnings::default()
        });
    };
    let receipt = Receipt::from_bytes(&receipt)
        .map_err(|error| StoreError::Damaged(format!("jobs.receipt: {error}")))?;
    let consensus = &receipt.consensus;
    let price = amount(
        row.get::<_, Option<_>>(1)?.unwrap_or_default(),
        "jobs.price",
    )?;
    let is_ours = matches!(
        consensus.exit,
        ExitStatus::HostFailure | ExitStatus::DeviceLost
    );
    let is_free = price == Nanograms::ZERO;
    let mut sums = Earnings {
        jobs: 1,
        failed: u64::from(consensus.exit != ExitStatus::Done),
        free: u64::from(is_free),
        refunded: u64::from(is_free && is_ours),
        fuel: u128::from(consensus.fuel_used),
        inference_units: u128::from(consensus.inference_units_used),
        ..Earnings::default()
    };
    match consensus.channel {
        Channel::Local => sums.credit = price,
        Channel::Ton { .. } => sums.channel = price,
    }
    Ok(sums)
}

fn plus(one: Nanograms, other: Nanograms) -> Result<Nanograms, LedgerError> {
    let sum = one.get().checked_add(other.get()).and_then(Nanograms::new);
    sum.ok_or_else(|| {
        StoreError::Damaged("jobs.price adds up to more than there is".to_owned()).into()
    })
}
