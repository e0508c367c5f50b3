//! `Chain`: what settlement needs of a network, whichever it is.
//!
//! In: external messages, questions about accounts. Out: accounts, answers of get-methods,
//! transactions in the order of their logical time. That a message was sent never means that it
//! was accepted: look for its transaction.

mod clock;
mod config;
mod confirm;
mod describe;
pub mod embedded;
mod recorder;
mod stack;
pub mod toncenter;

use std::future::Future;

use tussah_manifest::Nanograms;
use tycho_types::cell::Cell;
use tycho_types::models::{StateInit, StdAddr};

use crate::contracts::ContractError;
use crate::voucher::NetworkId;

pub use clock::{Clock, SystemClock};
pub use config::localnet_config;
pub use confirm::{Confirmation, Sent, confirm, delivered};
pub use describe::external_hash;
pub use embedded::EmbeddedChain;
pub use recorder::{Outcome, Step};
pub use stack::{StackReader, StackValue};
pub use toncenter::{Toncenter, ToncenterConfig};

/// A network that runs contracts.
pub trait Chain: Sync {
    /// Which network it is; vouchers are bound to it.
    fn network(&self) -> NetworkId;

    /// The second of the chain's newest block, which deadlines are compared with.
    ///
    /// # Errors
    /// [`ChainError`] if the network does not say.
    fn time(&self) -> impl Future<Output = Result<u32, ChainError>> + Send;

    /// Hands over an external message.
    ///
    /// # Errors
    /// [`ChainError`] if the network does not take it. No error does not mean acceptance.
    fn send_boc(&self, message: Cell) -> impl Future<Output = Result<(), ChainError>> + Send;

    /// The account as of now; one that never was is [`AccountStatus::Missing`].
    ///
    /// # Errors
    /// [`ChainError`] if the network does not say.
    fn account(
        &self,
        address: &StdAddr,
    ) -> impl Future<Output = Result<Account, ChainError>> + Send;

    /// Runs a get-method and returns its stack, the first value first.
    ///
    /// # Errors
    /// [`ChainError::GetMethod`] with the exit code, where it fails.
    fn run_get_method(
        &self,
        address: &StdAddr,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> impl Future<Output = Result<Vec<StackValue>, ChainError>> + Send;

    /// The account's transactions after `after_lt`, the oldest first. Order is by logical time:
    /// blocks can share a second.
    ///
    /// # Errors
    /// [`ChainError`] if the network does not say.
    fn transactions(
        &self,
        address: &StdAddr,
        after_lt: u64,
    ) -> impl Future<Output = Result<Vec<Transaction>, ChainError>> + Send;

    /// The newest of them, at most `count_max`, the oldest first. Anybody can send an account any
    /// number of small messages; this is what reading them can be made to cost.
    ///
    /// # Errors
    /// [`ChainError`] if the network does not say.
    fn newest_transactions(
        &self,
        address: &StdAddr,
        after_lt: u64,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<Transaction>, ChainError>> + Send {
        async move {
            let mut all = self.transactions(address, after_lt).await?;
            Ok(all.split_off(all.len().saturating_sub(count_max)))
        }
    }
}

/// An account as of some block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What it holds.
    pub balance: Nanograms,
    /// Whether code runs there.
    pub status: AccountStatus,
    /// Logical time of its last transaction; 0 where there was none.
    pub last_lt: u64,
}

/// Whether code runs at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountStatus {
    /// There is nothing.
    Missing,
    /// There is money and no code.
    Uninit,
    /// There is code.
    Active(Box<StateInit>),
    /// It owed too much rent; whoever brings a state of this hash revives it.
    Frozen([u8; 32]),
}

/// What a message did to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The account.
    pub account: StdAddr,
    /// Its place in the order of all of the account's transactions.
    pub lt: u64,
    /// Seconds of the Unix epoch; several can share one.
    pub now: u32,
    /// The message that caused it; nothing where the chain itself did.
    pub in_message: Option<Cell>,
    /// That message's hash.
    pub message_hash: [u8; 32],
    /// What [`external_hash`] says of that message, if it came from outside of the chain.
    pub external_hash: Option<[u8; 32]>,
    /// How the code ended; nothing where none ran.
    pub exit_code: Option<i32>,
    /// How the actions ended; nothing where none were to run.
    pub action_code: Option<i32>,
    /// Gas that the code took.
    pub gas_used: u64,
    /// All that the account paid: storage, import, gas, and the first part of forwarding.
    pub fees: Nanograms,
    /// True where the state did not change.
    pub aborted: bool,
    /// The messages that it sent, in order.
    pub out_messages: Vec<Cell>,
}

/// Why a chain did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The contract threw before it accepted the external message, or never accepted it.
    #[error("the message was not accepted: {}", named(*exit_code))]
    NotAccepted {
        /// How its code ended; nothing where none ran.
        exit_code: Option<i32>,
    },
    /// The bytes are no message, or none for an account of this chain.
    #[error("this is no message that can be sent: {0}")]
    Message(String),
    /// A get-method was asked of an account without code.
    #[error("{0} has no code")]
    NoCode(StdAddr),
    /// A get-method threw.
    #[error("get-method `{method}` failed: {}", named(Some(*exit_code)))]
    GetMethod {
        /// Which one.
        method: String,
        /// How it ended.
        exit_code: i32,
    },
    /// A get-method answered something else than its contract does.
    #[error("get-method `{method}` answered in another shape")]
    Answer {
        /// Which one.
        method: String,
    },
    /// The bytes are not a chain that was saved.
    #[error("these bytes are no saved chain: {0}")]
    Saved(String),
    /// A cell could not be read or built.
    #[error("a cell is malformed")]
    Cell(#[from] tycho_types::error::Error),
    /// The machine that runs transactions failed; not the contract.
    #[error("the transaction could not be run")]
    Executor(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server that stands for the network.
    #[error(transparent)]
    Toncenter(#[from] toncenter::ToncenterError),
    /// A message that is in the chain has not arrived in ten minutes of the chain's time.
    #[error("the message to {to} is under way since more than ten minutes")]
    Undelivered {
        /// Whom it is for.
        to: StdAddr,
    },
    /// The chain's own time does not pass, so it cannot be said whether a message is too late.
    #[error("the chain has stood still at second {at}")]
    Stalled {
        /// The second of its newest block.
        at: u32,
    },
}

impl ChainError {
    /// Whether the same question may be answered later, with nothing changed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Toncenter(error) => error.is_transient(),
            Self::Stalled { .. } | Self::Undelivered { .. } => true,
            _ => false,
        }
    }

    /// The contract's own error, if it was one.
    pub fn contract_error(&self) -> Option<ContractError> {
        match self {
            Self::NotAccepted { exit_code } => ContractError::from_exit_code((*exit_code)?),
            Self::GetMethod { exit_code, .. } => ContractError::from_exit_code(*exit_code),
            _ => None,
        }
    }
}

fn named(exit_code: Option<i32>) -> String {
    match exit_code {
        None => "no code ran".to_owned(),
        Some(code) => match ContractError::from_exit_code(code) {
            Some(error) => error.to_string(),
            None => format!("exit code {code}"),
        },
    }
}
