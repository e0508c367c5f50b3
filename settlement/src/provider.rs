//! The provider contract as Rust sees it: its address, messages, get-methods and state.
//!
//! In: what a provider says of itself, proofs against it. Out: message bodies, typed state.
//! As with channels, the address follows from the terms and is computed here.

use tussah_manifest::{Digest, Nanograms, PublicKey};
use tycho_types::cell::Cell;
use tycho_types::models::{StateInit, StdAddr};

use crate::cells::{self, BuilderExt};
use crate::chain::{ChainError, StackReader, StackValue};
use crate::contracts::provider_code;
use crate::voucher::Claim;

/// What a provider cannot change without another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderTerms {
    /// Its cold account.
    pub owner: StdAddr,
    /// Seconds from the wish to leave until the bond can be taken.
    pub exit_seconds: u32,
    /// Thousandths of the bond that each key forfeits by equivocating: 1 to 1000.
    pub forfeit_permille: u16,
    /// Tells the contracts of one owner apart.
    pub salt: u64,
}

/// What it asks, in short; the endpoint serves the whole offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Of the whole offer.
    pub digest: Digest,
    /// Of the attestation evidence; zero where there is none.
    pub attestation: Digest,
    /// For 10^9 units of fuel.
    pub fuel_price: Nanograms,
    /// For 10^9 inference units.
    pub inference_price: Nanograms,
}

impl Offer {
    /// The get-method that [`Offer::from_stack`] reads.
    pub const METHOD: &str = "provider_offer";

    /// Reads an answer.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is not what a provider answers.
    pub fn from_stack(stack: Vec<StackValue>) -> Result<Self, ChainError> {
        let mut stack = StackReader::new(Self::METHOD, stack);
        let offer = Self {
            digest: Digest::from_bytes(stack.bytes32()?),
            attestation: Digest::from_bytes(stack.bytes32()?),
            fuel_price: stack.nanograms()?,
            inference_price: stack.nanograms()?,
        };
        stack.end()?;
        Ok(offer)
    }
}

/// What the owner lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The account that the bond goes back to.
    pub payout: StdAddr,
    /// The key that signs receipts, claims and redeems.
    pub key: PublicKey,
    /// The endpoint's id on the network.
    pub endpoint: [u8; 32],
    /// What it asks.
    pub offer: Offer,
}

fn offer_cell(offer: &Offer) -> Cell {
    cells::cell(|b| {
        b.bytes(offer.digest.as_bytes())?;
        b.bytes(offer.attestation.as_bytes())?;
        b.coins(offer.fuel_price)?;
        b.coins(offer.inference_price)
    })
}

/// The code and first state of a provider's contract.
pub fn state_init(terms: &ProviderTerms) -> StateInit {
    let terms_cell = cells::cell(|b| {
        b.address(&terms.owner)?;
        b.store_u32(terms.exit_seconds)?;
        b.store_u16(terms.forfeit_permille)?;
        b.store_u64(terms.salt)
    });
    let no_offer = Offer {
        digest: Digest::from_bytes([0; 32]),
        attestation: Digest::from_bytes([0; 32]),
        fuel_price: Nanograms::ZERO,
        inference_price: Nanograms::ZERO,
    };
    let data = cells::cell(|b| {
        b.coins(Nanograms::ZERO)?; // bond
        b.store_u32(0)?; // exit_at
        b.store_u32(0)?; // equivocations
        b.address(&terms.owner)?; // payout
        b.bytes(&[0; 32])?; // key
        b.bytes(&[0; 32])?; // endpoint
        b.store_reference(terms_cell)?;
        b.store_reference(offer_cell(&no_offer))?;
        b.maybe_reference(None) // retired
    });
    cells::state_init(provider_code(), data)
}

/// The address of a provider's contract.
pub fn address(terms: &ProviderTerms) -> StdAddr {
    cells::address_of(&state_init(terms))
}

/// Says who it is and what it asks; the owner may.
pub fn list(query_id: u64, listing: &Listing) -> Cell {
    cells::cell(|b| {
        b.store_u32(0x5475_0201)?;
        b.store_u64(query_id)?;
        b.address(&listing.payout)?;
        b.bytes(listing.key.as_bytes())?;
        b.bytes(&listing.endpoint)?;
        b.store_reference(offer_cell(&listing.offer))
    })
}

/// Adds the message's value to the bond; anyone may.
pub fn add_bond(query_id: u64) -> Cell {
    plain(0x5475_0202, query_id)
}

/// Starts the exit delay; the owner may.
pub fn start_exit(query_id: u64) -> Cell {
    plain(0x5475_0203, query_id)
}

/// Stays after all; the owner may.
pub fn cancel_exit(query_id: u64) -> Cell {
    plain(0x5475_0204, query_id)
}

/// Takes the bond once the delay is over; the owner may.
pub fn take_bond(query_id: u64) -> Cell {
    plain(0x5475_0205, query_id)
}

/// Proves that `key` signed two receipts for one place; anyone may. The place is the first
/// claim's, so a second one of another place is refused by the contract for its signature.
pub fn equivocation(query_id: u64, key: &PublicKey, first: &Claim, second: &Claim) -> Cell {
    let claim = |claim: &Claim| {
        cells::cell(|b| {
            b.bytes(claim.receipt.as_bytes())?;
            b.bytes(claim.signature.as_bytes())
        })
    };
    cells::cell(|b| {
        b.store_u32(0x5475_0206)?;
        b.store_u64(query_id)?;
        b.bytes(key.as_bytes())?;
        b.address(&first.channel.address)?;
        b.bytes(&first.channel.incarnation)?;
        b.store_u64(first.index)?;
        b.store_reference(claim(first))?;
        b.store_reference(claim(second))
    })
}

fn plain(op: u32, query_id: u64) -> Cell {
    cells::cell(|b| {
        b.store_u32(op)?;
        b.store_u64(query_id)
    })
}

/// What `provider_state` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderState {
    /// What it stands to lose.
    pub bond: Nanograms,
    /// From this second on the bond can be taken; 0 while it stays.
    pub exit_at: u32,
    /// Proven so far.
    pub equivocations: u32,
    /// The account that the bond goes back to.
    pub payout: StdAddr,
    /// The present key; zero if it has none, or if the last one was proven to have equivocated.
    pub key: [u8; 32],
    /// The endpoint's id.
    pub endpoint: [u8; 32],
}

impl ProviderState {
    /// The get-method that [`ProviderState::from_stack`] reads.
    pub const METHOD: &str = "provider_state";

    /// Reads an answer.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is not what a provider answers.
    pub fn from_stack(stack: Vec<StackValue>) -> Result<Self, ChainError> {
        let mut stack = StackReader::new(Self::METHOD, stack);
        let state = Self {
            bond: stack.nanograms()?,
            exit_at: stack.u32()?,
            equivocations: stack.u32()?,
            payout: stack.address()?,
            key: stack.bytes32()?,
            endpoint: stack.bytes32()?,
        };
        stack.end()?;
        Ok(state)
    }
}
