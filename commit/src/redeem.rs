//! Redeeming: the newest voucher, from the book to the chain, once.
//!
//! In: a chain, the provider's key, a policy. Out: one step at a time, each repeatable: look at
//! the chain, write down what it says, decide, write down what will be sent, send. A message that
//! was sent counts for nothing until the chain shows it, by its transaction or by the amount; until
//! then it is sent again. It can be repeated, lost, late or out of order, and the process can end
//! anywhere between: the contract credits what a voucher gains and no more, so nothing is paid twice.

use tussah_manifest::{Nanograms, Signature, SigningKey};
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::chain::external_hash;
use tussah_settlement::channel::ChannelStatus;
use tussah_settlement::voucher::{ChannelId, SignedVoucher};
use tussah_settlement::{Cell, Chain, ChainError, ContractError, Transaction};

use rusqlite::{Connection, OptionalExtension};

use crate::channel::{self, ChannelView, Look};
use crate::provider::{ProviderBook, ProviderError, entry};
use crate::rows::{Columns, amount, int, less};
use crate::store::StoreError;

/// Transactions that one look at a channel reads, at most. Where strangers have sent it more small
/// messages than that since the last look, ours is known by the amount alone.
const SCANNED_MAX: usize = 256;

/// When a voucher is redeemed without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedeemPolicy {
    /// From this gain on.
    pub value_min: Nanograms,
    /// From this age of the oldest amount that is not redeemed on, whatever the gain.
    pub age_seconds_max: u32,
    /// From this many seconds before the channel's deadline on, whatever the gain. A close that
    /// somebody started is such a deadline at once.
    pub before_deadline_seconds: u32,
    /// After this long without a trace of it on chain, a message is sent again.
    pub resend_seconds: u32,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tended {
    /// There is nothing to redeem, or it is not time yet.
    Idle,
    /// A message was handed to the chain.
    Sent {
        /// The voucher's amount.
        amount: Nanograms,
        /// The message's hash, however it is wrapped on its way.
        message: [u8; 32],
    },
    /// A message is on its way, and not due to be sent again.
    Waiting,
    /// It is time, and the gain is below what the channel redeems for an external message. A
    /// wallet's message redeems it: with this body, sent to the channel, at the wallet's gas.
    Small {
        /// The message's body.
        body: Cell,
        /// What it would gain.
        gain: Nanograms,
    },
    /// The deadline has passed with this much not redeemed.
    Late {
        /// What a voucher promises beyond what was redeemed.
        lost: Nanograms,
    },
}

/// A voucher that is to be posted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The newest one.
    pub signed: SignedVoucher,
    /// What it would be credited.
    pub gain: Nanograms,
    /// The least that the channel redeems for an external message.
    pub step_min: Nanograms,
}

/// Whether it is time to post a voucher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weighed {
    /// It is not.
    Rests(Tended),
    /// It is.
    Due(Box<Due>),
}

/// Why a step could not be taken. What was written down stays, and the next one goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// The book.
    #[error(transparent)]
    Book(#[from] ProviderError),
    /// The chain did not answer, or refused the message.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The key is not the one that the channel knows the provider by.
    #[error("this is not the channel's provider key")]
    Key,
}

impl From<StoreError> for RedeemError {
    fn from(error: StoreError) -> Self {
        Self::Book(error.into())
    }
}

impl ProviderBook {
    /// Takes in what the chain says of a channel. Older answers than were seen change nothing.
    ///
    /// # Errors
    /// [`RedeemError`] if the chain does not say, or the account was opened anew.
    pub async fn see<C: Chain>(
        &self,
        chain: &C,
        id: &ChannelId,
    ) -> Result<ChannelView, RedeemError> {
        Ok(self.look(chain, id).await?.0)
    }

    /// The same, and the answer itself.
    async fn look<C: Chain>(
        &self,
        chain: &C,
        id: &ChannelId,
    ) -> Result<(ChannelView, Look), RedeemError> {
        let seen_lt = {
            let id = id.clone();
            self.store
                .read(move |connection| seen_lt(connection, &id))?
        };
        let look = Look::at(chain, &id.address).await?;
        if look.state.incarnation != id.incarnation {
            let other = id.address.to_string();
            return Err(ProviderError::OtherChannel(other).into());
        }
        let newest = chain.newest_transactions(&id.address, seen_lt, SCANNED_MAX);
        let transactions = newest.await?;
        let (id, seen) = (id.clone(), look.clone());
        let view = self.store.write(move |connection| {
            let number = entry(connection, &id)?.number;
            channel::see(connection, number, &seen)?;
            let landed = posting(connection, number)?
                .filter(|posting| posting.amount <= seen.state.redeemed);
            if let Some(landed) = &landed {
                // What is not redeemed yet was promised after that was sent.
                let sql = "UPDATE channel SET voucher_since = max(voucher_since, ?2) WHERE id = ?1";
                connection.execute(sql, (number, landed.sent_at))?;
            }
            see_transactions(connection, number, &transactions)?;
            let view = entry(connection, &id)?.view;
            if landed.is_some() {
                forget_posting(connection, number)?;
            }
            Ok::<_, ProviderError>(view)
        })?;
        Ok((view, look))
    }

    /// Takes the next step towards having the newest voucher redeemed; to be called every so
    /// often, from one place or several, for as long as there is a channel.
    ///
    /// # Errors
    /// [`RedeemError`]; what was decided before it is kept.
    pub async fn tend<C: Chain>(
        &self,
        chain: &C,
        id: &ChannelId,
        key: &SigningKey,
        policy: RedeemPolicy,
    ) -> Result<Tended, RedeemError> {
        let (view, look) = self.look(chain, id).await?;
        if key.public_key() != view.provider_key {
            return Err(RedeemError::Key);
        }
        match weigh(&view, &look, self.clock.now(), policy) {
            Weighed::Rests(tended) => Ok(tended),
            Weighed::Due(due) => {
                let consent = due.signed.voucher.consent(key);
                self.post(chain, id, &due, &consent, policy).await
            }
        }
    }

    /// As [`ProviderBook::see`], where all that is posted is in the book; and whether it is time to
    /// post the newest voucher: for whoever has to ask another process for the provider's consent,
    /// and then [`ProviderBook::post`]s it.
    ///
    /// # Errors
    /// [`RedeemError`]; [`ProviderError::Posted`] in it if the chain has what the book lacks.
    pub async fn weigh<C: Chain>(
        &self,
        chain: &C,
        id: &ChannelId,
        policy: RedeemPolicy,
    ) -> Result<(ChannelView, Weighed), RedeemError> {
        let (view, look) = self.look(chain, id).await?;
        self.check_posted(id, &look.state.commitment)?;
        let weighed = weigh(&view, &look, self.clock.now(), policy);
        Ok((view, weighed))
    }

    /// Posts a voucher that is due, with the provider's consent.
    ///
    /// # Errors
    /// [`RedeemError`]; what was decided before it is kept.
    pub async fn post<C: Chain>(
        &self,
        chain: &C,
        id: &ChannelId,
        due: &Due,
        consent: &Signature,
        policy: RedeemPolicy,
    ) -> Result<Tended, RedeemError> {
        let Due {
            signed,
            gain,
            step_min,
        } = due;
        let (gain, body) = (*gain, signed.redeem_message_with(consent));
        if gain < *step_min {
            return Ok(Tended::Small { body, gain });
        }
        let message = external_message(&id.address, None, &body)?;
        let hash = external_hash(&message)?.ok_or_else(outside)?;
        if !self.plan(id, signed, hash, self.clock.now(), policy)? {
            return Ok(Tended::Waiting);
        }
        match chain.send_boc(message).await {
            Ok(()) => {}
            // It has to gain more than it costs, too, which the network's gas price decides.
            Err(error) if error.contract_error() == Some(ContractError::StepTooSmall) => {
                let id = id.clone();
                self.store.write(move |connection| {
                    let number = entry(connection, &id)?.number;
                    Ok::<_, ProviderError>(forget_posting(connection, number)?)
                })?;
                return Ok(Tended::Small { body, gain });
            }
            // It is credited, and the answer that said otherwise was an old one.
            Err(error) if error.contract_error() == Some(ContractError::AmountNotMore) => {
                return Ok(Tended::Waiting);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Tended::Sent {
            amount: signed.voucher.amount,
            message: hash,
        })
    }

    /// Writes down what will be sent; false where it was sent lately.
    fn plan(
        &self,
        id: &ChannelId,
        signed: &SignedVoucher,
        hash: [u8; 32],
        now: u32,
        policy: RedeemPolicy,
    ) -> Result<bool, ProviderError> {
        let (id, voucher) = (id.clone(), signed.voucher.clone());
        self.store.write(move |connection| {
            let number = entry(connection, &id)?.number;
            if let Some(before) = posting(connection, number)?
                && before.message == hash
                && now.saturating_sub(before.sent_at) < policy.resend_seconds
            {
                return Ok(false);
            }
            connection.execute(
                "INSERT INTO posting (channel, amount, receipts, message, sent_at, tries)
                 VALUES (?1, ?2, ?3, ?4, ?5, 1)
                 ON CONFLICT (channel) DO UPDATE SET amount = excluded.amount,
                    receipts = excluded.receipts, message = excluded.message,
                    sent_at = excluded.sent_at, tries = tries + 1",
                (
                    number,
                    amount(voucher.amount)?,
                    int(voucher.commitment.receipts)?,
                    hash,
                    now,
                ),
            )?;
            Ok(true)
        })
    }

    /// The transactions that posted this book's vouchers, by logical time.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn posted(&self, id: &ChannelId) -> Result<Vec<u64>, ProviderError> {
        self.store.read(|connection| {
            let number = entry(connection, id)?.number;
            let mut statement =
                connection.prepare("SELECT lt FROM posted WHERE channel = ?1 ORDER BY lt")?;
            let mut rows = statement.query([number])?;
            let mut posted = Vec::new();
            while let Some(row) = rows.next()? {
                posted.push(u64::from_be_bytes(row.array("lt")?));
            }
            Ok(posted)
        })
    }
}

/// Whether it is time, by what the chain says now: an answer that once said otherwise may have been
/// wrong, and to send a voucher in vain costs nothing.
fn weigh(view: &ChannelView, look: &Look, now: u32, policy: RedeemPolicy) -> Weighed {
    let Some(signed) = &view.voucher else {
        return Weighed::Rests(Tended::Idle);
    };
    let gain = gain(look, signed);
    if look.state.status == ChannelStatus::Closed || now >= look.state.deadline {
        let lost = less(signed.voucher.amount, look.state.redeemed);
        return Weighed::Rests(match lost {
            Nanograms::ZERO => Tended::Idle,
            lost => Tended::Late { lost },
        });
    }
    let is_closing = [view.status, look.state.status].contains(&ChannelStatus::Closing);
    let deadline = view.deadline.min(look.state.deadline);
    let urgent = is_closing || now.saturating_add(policy.before_deadline_seconds) >= deadline;
    let old = now.saturating_sub(view.voucher_since) >= policy.age_seconds_max;
    if gain == Nanograms::ZERO || !(urgent || old || gain >= policy.value_min) {
        return Weighed::Rests(Tended::Idle);
    }
    Weighed::Due(Box::new(Due {
        signed: signed.clone(),
        gain,
        step_min: view.record.terms.redeem_step_min,
    }))
}

/// What the newest voucher would be credited now.
fn gain(look: &Look, signed: &SignedVoucher) -> Nanograms {
    less(
        signed.voucher.amount.min(look.capacity),
        look.state.redeemed,
    )
}

struct Posting {
    amount: Nanograms,
    message: [u8; 32],
    sent_at: u32,
}

fn posting(connection: &Connection, number: i64) -> Result<Option<Posting>, StoreError> {
    let posting = connection
        .query_row(
            "SELECT amount, message, sent_at FROM posting WHERE channel = ?1",
            [number],
            |row| {
                Ok((|| {
                    Ok(Posting {
                        amount: row.nanograms("amount")?,
                        message: row.array("message")?,
                        sent_at: row.second("sent_at")?,
                    })
                })())
            },
        )
        .optional()?;
    posting.transpose()
}

fn forget_posting(connection: &Connection, number: i64) -> Result<(), StoreError> {
    connection.execute("DELETE FROM posting WHERE channel = ?1", [number])?;
    Ok(())
}

fn seen_lt(connection: &Connection, id: &ChannelId) -> Result<u64, ProviderError> {
    let number = entry(connection, id)?.number;
    let seen = connection.query_row(
        "SELECT seen_lt FROM channel WHERE id = ?1",
        [number],
        |row| Ok(row.array("seen_lt")),
    )?;
    Ok(u64::from_be_bytes(seen?))
}

/// Looks for the message among the transactions, which come in the order of their logical time.
fn see_transactions(
    connection: &Connection,
    number: i64,
    transactions: &[Transaction],
) -> Result<(), StoreError> {
    for transaction in transactions {
        let posting = posting(connection, number)?;
        if posting.is_some_and(|posting| Some(posting.message) == transaction.external_hash) {
            connection.execute(
                "INSERT OR IGNORE INTO posted (channel, lt, message) VALUES (?1, ?2, ?3)",
                (
                    number,
                    transaction.lt.to_be_bytes(),
                    transaction.message_hash,
                ),
            )?;
            forget_posting(connection, number)?;
        }
        connection.execute(
            "UPDATE channel SET seen_lt = max(seen_lt, ?2) WHERE id = ?1",
            (number, transaction.lt.to_be_bytes()),
        )?;
    }
    Ok(())
}

/// What [`external_message`] makes is external, so this is never said.
fn outside() -> ChainError {
    ChainError::Message("it does not come from outside".to_owned())
}
