//! `Network`: the embedded chain with a clock, blocks, a giver, and a folder that it lives in.
//!
//! In: messages, wishes for money and time. Out: transactions, each in a block, each on disk
//! before anybody hears of it. Money comes into being once, when the network does: all of it is
//! the giver's, and from then on it only moves, by messages.

use std::fmt;
use std::path::Path;

use tussah_manifest::{Digest, Nanograms, SigningKey};
use tussah_settlement::chain::EmbeddedChain;
use tussah_settlement::chain::embedded::{Internal, external_message};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{OutMessage, Wallet, WalletError, WalletVersion};
use tussah_settlement::{Address, Cell, ChainError, StackValue, StateInit, Transaction};

use crate::blocks::Blocks;
use crate::store::{Saved, Store, StoreError};

/// All the money there is: a billion grams.
const SUPPLY: u64 = 1_000_000_000 * GRAM;
/// What the developer's wallet is given at the start.
const DEVELOPER_GRAMS: u64 = 1_000_000;
const GRAM: u64 = 1_000_000_000;

/// The most that the giver gives at once: a million grams.
pub const FAUCET_MAX: u64 = 1_000_000 * GRAM;

/// Seconds that a transfer of the giver's stays good; it is delivered at once.
const GIVER_SECONDS: u32 = 60;

/// Where the seconds of the Unix epoch come from.
pub type Clock = Box<dyn Fn() -> u32 + Send + Sync>;

/// Why the network did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalnetError {
    /// The chain refused.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The giver's wallet.
    #[error("the giver cannot send")]
    Giver(#[source] WalletError),
    /// More than is given at once, or nothing.
    #[error("the giver gives 1 to {FAUCET_MAX} nanograms at once, not {asked}")]
    Amount {
        /// How much was asked for.
        asked: u64,
    },
    /// The giver does not have it.
    #[error("the giver does not have {asked} nanograms any more")]
    Poor {
        /// How much was asked for.
        asked: u64,
    },
    /// The clock would leave 32 bits.
    #[error("the clock cannot be moved by {seconds} seconds from {now}: it ends in 2106")]
    Clock {
        /// How far.
        seconds: u32,
        /// From when.
        now: u32,
    },
    /// Something could not be saved earlier, so memory and disk disagree.
    #[error("the network stopped when it could not save: {reason}; start it again")]
    Stopped {
        /// What failed then.
        reason: String,
    },
}

/// A network of our own.
pub struct Network {
    chain: EmbeddedChain,
    blocks: Blocks,
    /// Seconds that the clock was moved ahead of its source.
    ahead: u32,
    clock: Clock,
    /// Nothing for a network that lives in memory alone.
    store: Option<Store>,
    /// Why it does not go on, if it does not.
    stopped: Option<String>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("chain", &self.chain)
            .field("last", &self.blocks.last())
            .finish_non_exhaustive()
    }
}

impl Network {
    /// The network in this folder, which must be there; a new one if there is none in it yet.
    ///
    /// # Errors
    /// [`LocalnetError::Store`] if the folder is taken, or holds something else.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, LocalnetError> {
        let store = Store::open(folder)?;
        let Some(saved) = store.load()? else {
            return Self::start(clock, Some(store));
        };
        let Saved {
            chain,
            blocks,
            ahead,
        } = saved;
        let mut network = Self {
            chain,
            blocks,
            ahead,
            clock,
            store: Some(store),
            stopped: None,
        };
        network.tick();
        Ok(network)
    }

    /// Whether there is a network in this folder.
    pub fn is_in(folder: &Path) -> bool {
        Store::is_in(folder)
    }

    /// A new network that ends with this process.
    ///
    /// # Errors
    /// [`LocalnetError::Chain`] if the chain cannot be made.
    pub fn in_memory(clock: Clock) -> Result<Self, LocalnetError> {
        Self::start(clock, None)
    }

    fn start(clock: Clock, store: Option<Store>) -> Result<Self, LocalnetError> {
        let chain = EmbeddedChain::new(clock())?;
        let blocks = Blocks::starting(chain.now(), chain.last_lt());
        let mut network = Self {
            chain,
            blocks,
            ahead: 0,
            clock,
            store,
            stopped: None,
        };
        let (wallet, _) = giver();
        network.chain.deliver(&Internal {
            from: Address::new(-1, tycho_types::cell::HashBytes::ZERO),
            to: wallet.address(),
            value: Nanograms::new(SUPPLY).unwrap_or(Nanograms::ZERO),
            bounce: false,
            init: Some(wallet.state_init()),
            body: Cell::default(),
        })?;
        network.close_block();
        // Deployed with its money, so that its first transfer needs nothing else.
        let (wallet, _) = developer();
        let init = Some(wallet.state_init());
        network.give(&wallet.address(), DEVELOPER_GRAMS * GRAM, init)?;
        network.save()?;
        Ok(network)
    }

    /// The chain, for questions.
    pub fn chain(&self) -> &EmbeddedChain {
        &self.chain
    }

    /// Its blocks.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Seconds that the clock was moved ahead.
    pub fn ahead(&self) -> u32 {
        self.ahead
    }

    /// Lets the chain's time catch up with the clock; it never goes back.
    pub fn tick(&mut self) {
        let now = (self.clock)().saturating_add(self.ahead);
        self.chain.advance(now.saturating_sub(self.chain.now()));
    }

    /// Moves the clock ahead for good; the next block is of the new time.
    ///
    /// # Errors
    /// [`LocalnetError::Clock`] if time would leave its 32 bits, [`LocalnetError::Store`] if it
    /// cannot be saved.
    pub fn advance(&mut self, seconds: u32) -> Result<u32, LocalnetError> {
        self.require_running()?;
        self.tick();
        let now = self.chain.now();
        let too_far = LocalnetError::Clock { seconds, now };
        let Some(ahead) = self.ahead.checked_add(seconds) else {
            return Err(too_far);
        };
        if now.checked_add(seconds).is_none() {
            return Err(too_far);
        }
        self.ahead = ahead;
        self.chain.advance(seconds);
        self.save()?;
        Ok(self.chain.now())
    }

    /// Hands over an external message, and delivers all that it causes.
    ///
    /// # Errors
    /// [`LocalnetError::Chain`] if the contract does not accept it; then nothing has changed.
    pub fn send(&mut self, message: Cell) -> Result<Vec<Transaction>, LocalnetError> {
        self.require_running()?;
        self.tick();
        let sent = self.chain.send(message);
        // A chain of messages can break off after its first transactions were made.
        if self.chain.last_lt() != self.blocks.last().end_lt {
            self.close_block();
            self.save()?;
        }
        Ok(sent?)
    }

    /// Has the giver send `nanograms`, without anything that could come back.
    ///
    /// # Errors
    /// [`LocalnetError::Amount`] or [`LocalnetError::Poor`] if that is not to be had.
    pub fn faucet(
        &mut self,
        to: &Address,
        nanograms: u64,
    ) -> Result<Vec<Transaction>, LocalnetError> {
        self.require_running()?;
        if nanograms == 0 || nanograms > FAUCET_MAX {
            return Err(LocalnetError::Amount { asked: nanograms });
        }
        self.tick();
        let given = self.give(to, nanograms, None);
        if self.chain.last_lt() != self.blocks.last().end_lt {
            self.close_block();
        }
        self.save()?;
        given
    }

    fn give(
        &mut self,
        to: &Address,
        nanograms: u64,
        init: Option<StateInit>,
    ) -> Result<Vec<Transaction>, LocalnetError> {
        let (wallet, key) = giver();
        let address = wallet.address();
        let poor = LocalnetError::Poor { asked: nanograms };
        let held = self.chain.account_now(&address)?.balance.get();
        if held <= nanograms.saturating_add(GRAM) {
            return Err(poor);
        }
        let seqno = match self.chain.get(&address, "seqno", Vec::new())?.first() {
            Some(StackValue::Int(seqno)) => u32::try_from(seqno).unwrap_or(u32::MAX),
            _ => {
                return Err(ChainError::Answer {
                    method: "seqno".to_owned(),
                }
                .into());
            }
        };
        let valid_until = self.chain.now().saturating_add(GIVER_SECONDS);
        let message = OutMessage {
            to: to.clone(),
            value: Nanograms::new(nanograms).unwrap_or(Nanograms::ZERO),
            bounce: false,
            init,
            body: Cell::default(),
        };
        let body = wallet
            .transfer(&key, seqno, valid_until, &[message])
            .map_err(LocalnetError::Giver)?;
        let transactions = self.chain.send(external_message(&address, None, &body)?)?;
        self.close_block();
        Ok(transactions)
    }

    fn close_block(&mut self) {
        self.blocks.push(self.chain.now(), self.chain.last_lt());
    }

    fn require_running(&self) -> Result<(), LocalnetError> {
        match &self.stopped {
            None => Ok(()),
            Some(reason) => Err(LocalnetError::Stopped {
                reason: reason.clone(),
            }),
        }
    }

    fn save(&mut self) -> Result<(), LocalnetError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        if let Err(error) = store.save(&self.chain, &self.blocks, self.ahead) {
            self.stopped = Some(error.to_string());
            return Err(error.into());
        }
        Ok(())
    }
}

/// The account that all money starts in. Its key is no secret: the money is worth nothing.
pub fn giver() -> (Wallet, SigningKey) {
    wallet("tussah localnet: giver")
}

/// A wallet that has money from the start, for whoever wants to use its key.
pub fn developer() -> (Wallet, SigningKey) {
    wallet("tussah localnet: developer")
}

fn wallet(phrase: &str) -> (Wallet, SigningKey) {
    let key = SigningKey::from_bytes(Digest::of(phrase.as_bytes()).as_bytes());
    let wallet = Wallet {
        version: WalletVersion::V5R1,
        key: key.public_key(),
        network: NetworkId::LOCALNET,
    };
    (wallet, key)
}
