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

/// The first wait between two looks; blocks come every 0.4 to 5 seconds.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two looks.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Seconds by which the chain's time must have passed a message's last second: servers behind
/// one address can be some blocks apart.
const MARGIN_SECONDS: u32 = 30;
/// So long the chain's time may stand still while we wait.
const STILL_MAX: Duration = Duration::from_secs(120);
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
    let (mut wait, mut failures) = (WAIT_MIN, 0);
    let (mut newest, mut moved) = (0, clock.now());
    loop {
        match look(chain, sent, hash).await {
            Ok((_, Some(transaction))) => {
                return Ok(Confirmation::Accepted(Box::new(transaction)));
            }
            Ok((time, None)) => {
                if time > sent.valid_until.saturating_add(MARGIN_SECONDS) {
                    return Ok(Confirmation::Expired);
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
    sent: &Sent,
    hash: [u8; 32],
) -> Result<(u32, Option<Transaction>), ChainError> {
    let time = chain.time().await?;
    let transactions = chain.transactions(&sent.account, sent.after_lt).await?;
    let found = transactions
        .into_iter()
        .find(|transaction| transaction.external_hash == Some(hash));
    Ok((time, found))
}
