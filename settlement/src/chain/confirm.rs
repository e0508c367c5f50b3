//! `confirm`: whether a message that was sent was also accepted.
//!
//! In: a chain, a message that it was handed, the last second in which the message is good.
//! Out: the message's transaction, or that there will be none. A server that takes a message says
//! nothing about its fate: it may have been refused by the next node, or lost.

use std::time::Duration;

use tycho_types::cell::Cell;
use tycho_types::models::StdAddr;

use super::clock::Clock;
use super::describe::external_hash;
use super::{Chain, ChainError, Transaction};
use crate::wallet::destination;

/// The first wait between two looks; blocks come every 0.4 to 5 seconds.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two looks.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Seconds by which the chain's time must have passed a message's last second: servers behind
/// one address can be some blocks apart.
const MARGIN_SECONDS: u32 = 30;
/// So long the chain's time may stand still while we wait.
const STILL_MAX: Duration = Duration::from_secs(120);
/// A message between two accounts takes seconds, unless the network is overloaded.
const UNDER_WAY_SECONDS: u32 = 600;
/// Looks at a chain that fails for a passing reason, in a row.
const FAILURES_MAX: u32 = 10;

/// An external message that was handed over.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The account that it is for.
    pub account: StdAddr,
    /// The account's last logical time before it was sent.
    pub after_lt: u64,
    /// The message.
    pub message: Cell,
    /// The last second of the chain's time in which the account takes it.
    pub valid_until: u32,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmation {
    /// It was accepted; whether it did what it should is in the transaction.
    Accepted(Box<Transaction>),
    /// It was not, and cannot be any more. Nothing was paid for it.
    Expired,
}

/// Waits until the message's transaction is there, or the chain's time has passed its last second.
/// It is recognised by [`external_hash`], so whoever wrapped it anew on its way hides nothing.
///
/// # Errors
/// - [`ChainError`] if the chain does not answer, for a passing reason 10 times in a row.
/// - [`ChainError::Stalled`] if the chain's time stands still for two minutes.
pub async fn confirm(
    chain: &impl Chain,
    clock: &impl Clock,
    sent: &Sent,
) -> Result<Confirmation, ChainError> {
    let Some(hash) = external_hash(&sent.message)? else {
        return Err(ChainError::Message(
            "it does not come from outside".to_owned(),
        ));
    };
    let last = sent.valid_until.saturating_add(MARGIN_SECONDS);
    let is_it = |transaction: &Transaction| transaction.external_hash == Some(hash);
    let found = wait_for(
        chain,
        clock,
        (&sent.account, sent.after_lt),
        |_| last,
        is_it,
    )
    .await?;
    Ok(match found {
        Some(transaction) => Confirmation::Accepted(Box::new(transaction)),
        None => Confirmation::Expired,
    })
}

/// Waits until a message that one account sent to another has arrived; what it did there is in
/// the transaction. `after_lt` is the receiver's last logical time before it was sent.
///
/// # Errors
/// As [`confirm`], and [`ChainError::Undelivered`] after ten minutes of the chain's time: it is
/// still under way then.
pub async fn delivered(
    chain: &impl Chain,
    clock: &impl Clock,
    message: &Cell,
    after_lt: u64,
) -> Result<Transaction, ChainError> {
    let to = destination(message)?;
    let hash = message.repr_hash().0;
    let is_it = |transaction: &Transaction| transaction.message_hash == hash;
    let last = |first: u32| first.saturating_add(UNDER_WAY_SECONDS);
    let found = wait_for(chain, clock, (&to, after_lt), last, is_it).await?;
    found.ok_or(ChainError::Undelivered { to })
}

/// The transaction that `is_it`, or nothing once the chain's time has passed what `last` makes of
/// the first time that was seen.
async fn wait_for(
    chain: &impl Chain,
    clock: &impl Clock,
    (account, after_lt): (&StdAddr, u64),
    last: impl Fn(u32) -> u32,
    is_it: impl Fn(&Transaction) -> bool,
) -> Result<Option<Transaction>, ChainError> {
    let (mut wait, mut failures) = (WAIT_MIN, 0);
    let (mut first, mut newest, mut moved) = (None, 0, clock.now());
    loop {
        match look(chain, account, after_lt, &is_it).await {
            Ok((_, Some(transaction))) => return Ok(Some(transaction)),
            Ok((time, None)) => {
                if time > last(*first.get_or_insert(time)) {
                    return Ok(None);
                }
                failures = 0;
                if time > newest {
                    (newest, moved) = (time, clock.now());
                } else if clock.now().saturating_sub(moved) > STILL_MAX {
                    return Err(ChainError::Stalled { at: newest });
                }
            }
            Err(error) if error.is_transient() && failures < FAILURES_MAX => failures += 1,
            Err(error) => return Err(error),
        }
        clock.sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// The time is asked for first: what is not there by then was not accepted by then.
async fn look(
    chain: &impl Chain,
    account: &StdAddr,
    after_lt: u64,
    is_it: impl Fn(&Transaction) -> bool,
) -> Result<(u32, Option<Transaction>), ChainError> {
    let time = chain.time().await?;
    let transactions = chain.transactions(account, after_lt).await?;
    Ok((time, transactions.into_iter().find(is_it)))
}
