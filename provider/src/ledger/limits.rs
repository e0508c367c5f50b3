//! What an account may do: its limits, its credit, what it uploads.
//!
//! In: changes that an operator asks for, uploads that a client announces. Out: the account as it
//! stands after them, durable. A change names what it changes and leaves the rest, so that two of
//! them at a time do not undo each other; they count from the next job on.

use rusqlite::{Connection, OptionalExtension as _};
use tussah_manifest::Nanograms;

use super::accounts::{ACCOUNT, account_of};
use super::{Account, AccountId, Ledger, LedgerError, NewJob, amount, signed, unsigned};

/// What an account may do; `None` is without a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccountLimits {
    /// What all its jobs together may cost.
    pub credit_nanograms: Option<Nanograms>,
    /// Jobs that run at a time.
    pub running_max: Option<u32>,
    /// Jobs that wait at a time.
    pub queued_max: Option<u32>,
    /// Jobs that are taken in a minute.
    pub per_minute_max: Option<u32>,
    /// Bytes of all blobs together whose uploads it starts.
    pub upload_bytes_max: Option<u64>,
}

/// How a limit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// Not at all.
    #[default]
    Keep,
    /// To this.
    To(T),
    /// There is none any more.
    Lift,
}

/// How an account's credit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CreditChange {
    /// Not at all.
    #[default]
    Keep,
    /// What all its jobs together may cost, those of the past included.
    To(Nanograms),
    /// So much more, to what there was; to an account without a limit that is an error.
    Add(Nanograms),
    /// So much less; down to nothing at most.
    Take(Nanograms),
    /// It spends what it likes.
    Lift,
}

/// How an account's limits change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitChanges {
    /// What all its jobs together may cost.
    pub credit: CreditChange,
    /// Jobs that run at a time.
    pub running_max: Change<u32>,
    /// Jobs that wait at a time.
    pub queued_max: Change<u32>,
    /// Jobs that are taken in a minute.
    pub per_minute_max: Change<u32>,
    /// Bytes of all blobs together whose uploads it starts.
    pub upload_bytes_max: Change<u64>,
}

impl<T> Change<T> {
    fn over(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::To(value) => Some(value),
            Self::Lift => None,
        }
    }
}

impl CreditChange {
    fn over(self, before: Option<Nanograms>) -> Result<Option<Nanograms>, LedgerError> {
        let had = || before.ok_or(LedgerError::NoCreditLimit);
        Ok(match self {
            Self::Keep => before,
            Self::To(amount) => Some(amount),
            Self::Add(more) => {
                let sum = had()?.get().checked_add(more.get());
                let sum = sum.and_then(Nanograms::new);
                Some(sum.ok_or(LedgerError::CreditTooMuch)?)
            }
            Self::Take(less) => Nanograms::new(had()?.get().saturating_sub(less.get())),
            Self::Lift => None,
        })
    }
}

impl Account {
    /// What it can still spend; `None` is without a limit.
    pub fn credit_left(&self) -> Option<Nanograms> {
        let used = self.spent.get().saturating_add(self.reserved.get());
        let credit = self.limits.credit_nanograms?;
        Nanograms::new(credit.get().saturating_sub(used))
    }
}

impl Ledger {
    /// Gives an account other limits.
    ///
    /// # Errors
    /// [`LedgerError::NoAccount`] or [`LedgerError::Store`].
    pub fn set_limits(&self, name: &str, limits: AccountLimits) -> Result<(), LedgerError> {
        fn to<T>(limit: Option<T>) -> Change<T> {
            limit.map_or(Change::Lift, Change::To)
        }
        let credit = limits.credit_nanograms;
        let changes = LimitChanges {
            credit: credit.map_or(CreditChange::Lift, CreditChange::To),
            running_max: to(limits.running_max),
            queued_max: to(limits.queued_max),
            per_minute_max: to(limits.per_minute_max),
            upload_bytes_max: to(limits.upload_bytes_max),
        };
        self.change_limits(name, changes).map(drop)
    }

    /// Changes some of an account's limits, and says how it stands then.
    ///
    /// # Errors
    /// [`LedgerError::NoAccount`], [`LedgerError::NoCreditLimit`] if more or less is asked for
    /// where there is no limit, [`LedgerError::CreditTooMuch`] or [`LedgerError::Store`].
    pub fn change_limits(&self, name: &str, changes: LimitChanges) -> Result<Account, LedgerError> {
        let name = name.to_owned();
        let answer = self
            .store
            .write(move |connection| change(connection, &name, changes));
        answer.block()
    }

    /// Counts an upload of so many bytes against its account's limit.
    ///
    /// # Errors
    /// [`LedgerError::UploadQuota`] if there is no room, after which nothing was counted, or
    /// [`LedgerError::Store`].
    pub async fn count_upload(&self, account: AccountId, bytes: u64) -> Result<(), LedgerError> {
        let added = signed(bytes, "an upload")?;
        let answer = self.store.write(move |connection| {
            let sql = "UPDATE accounts SET uploaded = uploaded + ?2 WHERE id = ?1 \
                       AND uploaded <= coalesce(upload_bytes_max, 9223372036854775807) - ?2";
            if connection.execute(sql, (account.0, added))? > 0 {
                return Ok(());
            }
            let sql = "SELECT uploaded, upload_bytes_max FROM accounts WHERE id = ?1";
            let (uploaded, max): (i64, Option<i64>) =
                connection.query_row(sql, [account.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Err(LedgerError::UploadQuota {
                bytes,
                uploaded: unsigned(uploaded, "accounts.uploaded")?,
                max: unsigned(max.unwrap_or(i64::MAX), "accounts.upload_bytes_max")?,
            })
        });
        answer.wait().await
    }
}

impl Ledger {
    /// Gives bytes back that were counted and never came.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn uncount_upload(&self, account: AccountId, bytes: u64) -> Result<(), LedgerError> {
        let less = signed(bytes, "an upload")?;
        let answer = self.store.write(move |connection| {
            let sql = "UPDATE accounts SET uploaded = max(0, uploaded - ?2) WHERE id = ?1";
            connection.execute(sql, (account.0, less))?;
            Ok(())
        });
        answer.wait().await
    }
}

/// Within a transaction: reads, changes, writes.
pub(super) fn change(
    connection: &Connection,
    name: &str,
    changes: LimitChanges,
) -> Result<Account, LedgerError> {
    let sql = format!("SELECT {ACCOUNT} FROM accounts WHERE name = ?1");
    let found = connection.query_row(&sql, [name], |row| Ok(account_of(row, 0)));
    let found = found.optional()?.transpose()?;
    let mut account = found.ok_or_else(|| LedgerError::NoAccount(name.to_owned()))?;
    let before = account.limits;
    let limits = AccountLimits {
        credit_nanograms: changes.credit.over(before.credit_nanograms)?,
        running_max: changes.running_max.over(before.running_max),
        queued_max: changes.queued_max.over(before.queued_max),
        per_minute_max: changes.per_minute_max.over(before.per_minute_max),
        upload_bytes_max: changes.upload_bytes_max.over(before.upload_bytes_max),
    };
    let credit = limits.credit_nanograms.map(Nanograms::get);
    let whole = |value: Option<u64>, what| value.map(|value| signed(value, what)).transpose();
    let sql = "UPDATE accounts SET credit = ?2, running_max = ?3, queued_max = ?4, \
               per_minute_max = ?5, upload_bytes_max = ?6 WHERE id = ?1";
    connection.execute(
        sql,
        (
            account.id.0,
            whole(credit, "credit")?,
            limits.running_max,
            limits.queued_max,
            limits.per_minute_max,
            whole(limits.upload_bytes_max, "the limit of uploads")?,
        ),
    )?;
    account.limits = limits;
    Ok(account)
}

/// Sets a price aside; whether the account is there and its credit reaches. What costs nothing
/// changes nothing, and needs no page of its own in the log.
pub(super) fn reserve_credit(
    connection: &Connection,
    account: AccountId,
    price: i64,
) -> Result<bool, LedgerError> {
    if price == 0 {
        let sql = "SELECT 1 FROM accounts WHERE id = ?1";
        return Ok(connection.prepare_cached(sql)?.exists([account.0])?);
    }
    let sql = "UPDATE accounts SET reserved = reserved + ?2 WHERE id = ?1 \
               AND spent + reserved + ?2 <= coalesce(credit, ?3)";
    // Without a limit of its own an account still cannot owe more than there is.
    let all = signed(Nanograms::MAX.get(), "all there is")?;
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.execute((account.0, price, all))? > 0)
}

/// Why nothing could be reserved.
pub(super) fn no_credit(connection: &Connection, job: &NewJob) -> Result<LedgerError, LedgerError> {
    let all = signed(Nanograms::MAX.get(), "all there is")?;
    let sql = "SELECT credit, spent + reserved FROM accounts WHERE id = ?1";
    let row: Option<(Option<i64>, i64)> = connection
        .query_row(sql, [job.account.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match row {
        None => LedgerError::NoAccount(format!("number {}", job.account.0)),
        Some((credit, used)) => LedgerError::Credit {
            needed: job.reserve,
            left: amount(credit.unwrap_or(all).saturating_sub(used).max(0), "credit")?,
        },
    })
}
