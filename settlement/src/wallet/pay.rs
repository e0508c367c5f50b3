//! `pay`: messages from a wallet, followed to the end.
//!
//! In: a chain, a wallet with its key, messages. Out: the wallet's transaction, and what each
//! message did where it arrived. Nothing is sent twice: a message that was sent is waited for
//! until it is in the chain or can never be.

use tussah_manifest::{Nanograms, SigningKey};
use tycho_types::models::{MsgInfo, OwnedMessage, StdAddr};

use super::{OutMessage, Wallet, WalletError};
use crate::chain::embedded::external_message;
use crate::chain::toncenter::ToncenterError;
use crate::chain::{
    Account, AccountStatus, Chain, ChainError, Clock, Confirmation, Sent, StackReader, Transaction,
    confirm, delivered,
};

/// Seconds of the chain's time that a transfer is good for.
const VALID_SECONDS: u32 = 120;

/// A transfer that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// The wallet's own transaction.
    pub transaction: Transaction,
    /// What each message did where it arrived, in their order.
    pub arrived: Vec<Transaction>,
}

/// Why a transfer is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayError {
    /// The messages carry more than the wallet has.
    #[error("{wallet} has {has} nanograms, and {needs} are to be sent, with fees beside them", has = .has.get(), needs = .needs.get())]
    Funds {
        /// The wallet.
        wallet: StdAddr,
        /// What it has.
        has: Nanograms,
        /// What the messages carry.
        needs: Nanograms,
    },
    /// The wallet is frozen for debt.
    #[error("{wallet} is frozen; it has to be revived first")]
    Frozen {
        /// The wallet.
        wallet: StdAddr,
    },
    /// The chain did not take the message in time. Nothing was paid.
    #[error("the message was not accepted before it ended; nothing was paid")]
    Expired,
    /// The wallet took the message and did not send all of what was asked.
    #[error("{wallet} sent {sent} of {messages} messages: the rest was more than it had left")]
    Unsent {
        /// The wallet.
        wallet: StdAddr,
        /// How many went out.
        sent: usize,
        /// How many there were.
        messages: usize,
    },
    /// The message was handed over, and the chain does not say what became of it. It may be paid:
    /// whoever repeats the transfer without looking may pay twice.
    #[error("it is not known whether {wallet} has paid")]
    Unknown {
        /// The wallet.
        wallet: StdAddr,
        /// What the chain answered instead.
        source: Box<ChainError>,
    },
    /// The transfer cannot be made.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The chain, before anything was handed over.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The number that the wallet's next transfer has; 0 before it is deployed.
///
/// # Errors
/// [`ChainError`] if the chain does not say.
pub async fn seqno(chain: &impl Chain, wallet: &Wallet) -> Result<u32, ChainError> {
    let address = wallet.address();
    match chain.run_get_method(&address, "seqno", Vec::new()).await {
        Ok(stack) => StackReader::new("seqno", stack).u32(),
        Err(ChainError::NoCode(_)) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Sends `messages` and waits until each has arrived. A wallet that is not deployed yet is
/// deployed with it.
///
/// # Errors
/// [`PayError`]; with [`PayError::Unknown`] alone something may be paid that is not known of.
pub async fn pay(
    chain: &impl Chain,
    clock: &impl Clock,
    wallet: &Wallet,
    key: &SigningKey,
    messages: &[OutMessage],
) -> Result<Paid, PayError> {
    let address = wallet.address();
    let account = chain.account(&address).await?;
    check_funds(&address, &account, messages)?;
    let is_deployed = matches!(account.status, AccountStatus::Active(_));
    let seqno = if is_deployed {
        seqno(chain, wallet).await?
    } else {
        0
    };
    let mut before = Vec::with_capacity(messages.len());
    for message in messages {
        before.push(chain.account(&message.to).await?.last_lt);
    }
    let valid_until = chain.time().await?.saturating_add(VALID_SECONDS);
    let body = wallet.transfer(key, seqno, valid_until, messages)?;
    let init = (!is_deployed).then(|| wallet.state_init());
    let sent = Sent {
        message: external_message(&address, init, &body)?,
        account: address.clone(),
        after_lt: account.last_lt,
        valid_until,
    };
    match chain.send_boc(sent.message.clone()).await {
        Ok(()) => {}
        // It cannot be called back: the chain will tell.
        Err(error) if may_have_arrived(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let unknown = |error| PayError::Unknown {
        wallet: address.clone(),
        source: Box::new(error),
    };
    let confirmed = confirm(chain, clock, &sent).await;
    let transaction = match confirmed.map_err(unknown)? {
        Confirmation::Accepted(transaction) => *transaction,
        Confirmation::Expired => return Err(PayError::Expired),
    };
    if transaction.out_messages.len() != messages.len() {
        return Err(PayError::Unsent {
            wallet: address,
            sent: transaction.out_messages.len(),
            messages: messages.len(),
        });
    }
    let mut arrived = Vec::with_capacity(messages.len());
    for (index, after_lt) in before.into_iter().enumerate() {
        let message = &transaction.out_messages[index];
        let there = delivered(chain, clock, message, after_lt).await;
        arrived.push(there.map_err(unknown)?);
    }
    Ok(Paid {
        transaction,
        arrived,
    })
}

/// Whether a message is perhaps under way although its sending failed: the answer was lost, is
/// none, or comes from a gateway that does not know what the server behind it did.
fn may_have_arrived(error: &ChainError) -> bool {
    let is_unclear = match error {
        ChainError::Toncenter(ToncenterError::Answer { .. } | ToncenterError::TooLarge { .. }) => {
            true
        }
        ChainError::Toncenter(ToncenterError::Refused { code, .. }) => *code >= 500,
        _ => false,
    };
    is_unclear || error.is_transient()
}

fn check_funds(
    address: &StdAddr,
    account: &Account,
    messages: &[OutMessage],
) -> Result<(), PayError> {
    let wallet = address.clone();
    if let AccountStatus::Frozen(_) = account.status {
        return Err(PayError::Frozen { wallet });
    }
    let needs = messages.iter().map(|message| message.value.get());
    let needs = needs.fold(0, u64::saturating_add);
    if needs >= account.balance.get() {
        return Err(PayError::Funds {
            wallet,
            has: account.balance,
            needs: Nanograms::new(needs).unwrap_or(account.balance),
        });
    }
    Ok(())
}

/// Whom an internal message is for.
pub(crate) fn destination(message: &tycho_types::cell::Cell) -> Result<StdAddr, ChainError> {
    match message.parse::<OwnedMessage>()?.info {
        MsgInfo::Int(info) => match info.dst.as_std() {
            Some(to) => Ok(to.clone()),
            None => Err(ChainError::Message(
                "its address is no standard one".to_owned(),
            )),
        },
        _ => Err(ChainError::Message(
            "it does not stay on the chain".to_owned(),
        )),
    }
}
