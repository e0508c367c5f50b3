//! The channel contract as Rust sees it: its address, messages, get-methods and state.
//!
//! In: the terms that two parties agreed on, answers of a chain. Out: message bodies, typed state.
//! A channel's address follows from its terms and is computed here, never taken from the other
//! side: an account of the same code with another first state could owe anything to anyone.

use tussah_manifest::{Commitment, Digest, InclusionProof, Nanograms, PublicKey, TreeHash};
use tycho_types::cell::Cell;
use tycho_types::models::{StateInit, StdAddr};

use crate::cells::{self, BuilderExt};
use crate::chain::{Chain, ChainError, StackReader, StackValue};
use crate::contracts::channel_code;

/// What two parties agree on before there is a channel; none of it can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The account that deposits and is refunded.
    pub client: StdAddr,
    /// The provider's cold account: rotates the key and changes the payout address.
    pub owner: StdAddr,
    /// The key that signs vouchers.
    pub client_key: PublicKey,
    /// Seconds that a one-sided close leaves for a newer voucher.
    pub challenge_seconds: u32,
    /// What an external redeem must gain.
    pub redeem_step_min: Nanograms,
    /// Tells the channels between the same two apart.
    pub salt: u64,
}

/// The provider's part, which its owner can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSide {
    /// The key that posts vouchers.
    pub key: PublicKey,
    /// The account that is paid.
    pub payout: StdAddr,
}

impl ProviderSide {
    /// The get-method that [`ProviderSide::from_stack`] reads.
    pub const METHOD: &str = "channel_provider";

    /// Reads an answer.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is not what a channel answers.
    pub fn from_stack(stack: Vec<StackValue>) -> Result<Self, ChainError> {
        let mut stack = StackReader::new(Self::METHOD, stack);
        let key = PublicKey::from_bytes(stack.bytes32()?);
        let side = Self {
            key: key.map_err(|_| stack.wrong())?,
            payout: stack.address()?,
        };
        stack.end()?;
        Ok(side)
    }

    /// Asks the chain for the present part of the channel at an address.
    ///
    /// # Errors
    /// [`ChainError`] if it does not say, or there is no channel.
    pub async fn at<C: Chain>(chain: &C, address: &StdAddr) -> Result<Self, ChainError> {
        let answer = chain.run_get_method(address, Self::METHOD, Vec::new());
        Self::from_stack(answer.await?)
    }

    fn cell(&self) -> Cell {
        cells::cell(|b| {
            b.bytes(self.key.as_bytes())?;
            b.address(&self.payout)
        })
    }
}

/// The code and first state of the channel on these terms, to be deployed with [`open`].
pub fn state_init(terms: &Terms, provider: &ProviderSide) -> StateInit {
    let terms = cells::cell(|b| {
        b.address(&terms.client)?;
        b.address(&terms.owner)?;
        b.bytes(terms.client_key.as_bytes())?;
        b.store_u32(terms.challenge_seconds)?;
        b.coins(terms.redeem_step_min)?;
        b.store_u64(terms.salt)
    });
    let data = cells::cell(|b| {
        b.store_zeros(2)?; // status: unopened
        b.store_bit_zero()?; // payout_bounced
        b.store_u32(0)?; // deadline
        for _ in ["rent reserve", "redeemed", "owed"] {
            b.coins(Nanograms::ZERO)?;
        }
        b.store_u64(0)?; // receipts
        b.bytes(&[0; 32])?; // root
        b.bytes(&[0; 32])?; // incarnation
        b.store_reference(terms)?;
        b.store_reference(provider.cell())
    });
    cells::state_init(channel_code(), data)
}

/// The address of the channel on these terms.
pub fn address(terms: &Terms, provider: &ProviderSide) -> StdAddr {
    cells::address_of(&state_init(terms, provider))
}

/// Opens the channel until `expires_at`; the message's value is the deposit and the rent reserve.
/// `random` is drawn anew for each opening and becomes part of the incarnation.
pub fn open(query_id: u64, random: [u8; 32], expires_at: u32) -> Cell {
    cells::cell(|b| {
        b.store_u32(0x5475_0101)?;
        b.store_u64(query_id)?;
        b.bytes(&random)?;
        b.store_u32(expires_at)
    })
}

/// Adds the message's value to the deposit; anyone may.
pub fn top_up(query_id: u64) -> Cell {
    plain(0x5475_0102, query_id)
}

/// Pays what is owed to the payout address; anyone may ask. Without `bounceable`, which only the
/// owner can leave out, the money also reaches an account that is not deployed yet.
pub fn withdraw(query_id: u64, bounceable: bool) -> Cell {
    cells::cell(|b| {
        b.store_u32(0x5475_0104)?;
        b.store_u64(query_id)?;
        b.store_bit(bounceable)
    })
}

/// Starts the challenge window; the client or the owner may.
pub fn start_close(query_id: u64) -> Cell {
    plain(0x5475_0106, query_id)
}

/// Takes back what is left once the channel is closed; the client may.
pub fn refund(query_id: u64) -> Cell {
    plain(0x5475_0107, query_id)
}

/// Changes the provider's part; the owner may.
pub fn rotate(query_id: u64, provider: &ProviderSide) -> Cell {
    cells::cell(|b| {
        b.store_u32(0x5475_0108)?;
        b.store_u64(query_id)?;
        b.bytes(provider.key.as_bytes())?;
        b.address(&provider.payout)
    })
}

/// Has the channel prove to the sender that `receipt` is in its posted root.
pub fn prove_inclusion(query_id: u64, receipt: &Digest, proof: &InclusionProof) -> Cell {
    cells::cell(|b| {
        b.store_u32(0x5475_0109)?;
        b.store_u64(query_id)?;
        b.bytes(receipt.as_bytes())?;
        b.store_u64(proof.index)?;
        b.maybe_reference(path_cell(&proof.path))
    })
}

fn plain(op: u32, query_id: u64) -> Cell {
    cells::cell(|b| {
        b.store_u32(op)?;
        b.store_u64(query_id)
    })
}

/// Three hashes a cell, the nearest to the leaf first.
fn path_cell(path: &[TreeHash]) -> Option<Cell> {
    let mut rest = None;
    for hashes in path.chunks(3).rev() {
        let tail = rest.take();
        rest = Some(cells::cell(|b| {
            for hash in hashes {
                b.bytes(hash.as_bytes())?;
            }
            tail.map_or(Ok(()), |tail| b.store_reference(tail))
        }));
    }
    rest
}

/// Where a channel is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelStatus {
    /// Deployed and not opened.
    Unopened,
    /// Takes vouchers until its deadline.
    Open,
    /// Takes vouchers until the challenge window ends.
    Closing,
    /// Takes no vouchers; pays what it owes.
    Closed,
}

/// What `channel_state` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    /// Where it is in its life. Past the deadline, open and closing are as good as closed.
    pub status: ChannelStatus,
    /// The last payment came back: the payout account does not take it. Until the owner has
    /// changed it or tried again, nobody else can have it tried.
    pub payout_bounced: bool,
    /// From this second on nothing is redeemed.
    pub deadline: u32,
    /// What stays in the account while it owes anything.
    pub rent_reserve: Nanograms,
    /// Credited to the provider so far, cumulative.
    pub redeemed: Nanograms,
    /// Credited and not paid out, after the gas that redeeming took.
    pub owed: Nanograms,
    /// What was posted last.
    pub commitment: Commitment,
    /// Which opening this is; zero before the first.
    pub incarnation: [u8; 32],
}

impl ChannelState {
    /// The get-method that [`ChannelState::from_stack`] reads.
    pub const METHOD: &str = "channel_state";

    /// Reads an answer.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is not what a channel answers.
    pub fn from_stack(stack: Vec<StackValue>) -> Result<Self, ChainError> {
        let mut stack = StackReader::new(Self::METHOD, stack);
        let status = match stack.u64()? {
            0 => ChannelStatus::Unopened,
            1 => ChannelStatus::Open,
            2 => ChannelStatus::Closing,
            3 => ChannelStatus::Closed,
            _ => return Err(stack.wrong()),
        };
        let state = Self {
            status,
            payout_bounced: stack.bool()?,
            deadline: stack.u32()?,
            rent_reserve: stack.nanograms()?,
            redeemed: stack.nanograms()?,
            owed: stack.nanograms()?,
            commitment: Commitment {
                receipts: stack.u64()?,
                root: TreeHash::from_bytes(stack.bytes32()?),
            },
            incarnation: stack.bytes32()?,
        };
        stack.end()?;
        Ok(state)
    }
}

/// What `verify_inclusion` is asked with.
pub fn verify_inclusion_arguments(receipt: &Digest, proof: &InclusionProof) -> Vec<StackValue> {
    vec![
        StackValue::from_bytes32(receipt.as_bytes()),
        StackValue::from(proof.index),
        path_cell(&proof.path).map_or(StackValue::Null, StackValue::Cell),
    ]
}

/// What `voucher_hash` is asked with.
pub fn voucher_hash_arguments(amount: Nanograms, commitment: &Commitment) -> Vec<StackValue> {
    vec![
        StackValue::from(amount.get()),
        StackValue::from(commitment.receipts),
        StackValue::from_bytes32(commitment.root.as_bytes()),
    ]
}
