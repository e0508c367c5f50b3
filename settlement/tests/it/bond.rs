//! The provider's contract: listings, the bond and its exit delay, proofs of equivocation.

use tussah_manifest::{Digest, SigningKey};
use tussah_settlement::chain::{StackValue, Transaction};
use tussah_settlement::provider::{self, Listing, Offer, ProviderState, ProviderTerms};
use tussah_settlement::voucher::Claim;
use tussah_settlement::{Address, Cell};
use tycho_types::cell::HashBytes;

use crate::fixture::*;

pub(crate) const EXIT: u32 = 7 * 86_400;

/// A provider's contract beside a channel whose receipts it signs.
pub(crate) struct Bond {
    pub(crate) world: World,
    pub(crate) terms: ProviderTerms,
    pub(crate) at: Address,
}

impl Bond {
    pub(crate) fn new() -> Self {
        Self::paying_out_to("payout", TAKES)
    }

    pub(crate) fn paying_out_to(name: &str, code: &[u8]) -> Self {
        let mut world = World::unopened(name, code);
        assert_eq!(world.open_with(GRAM), "ok");
        let terms = ProviderTerms {
            owner: world.owner.clone(),
            exit_seconds: EXIT,
            forfeit_permille: 500,
            salt: 1,
        };
        let at = provider::address(&terms);
        Self { world, terms, at }
    }

    pub(crate) fn deliver(&mut self, from: &str, value: u64, body: Cell) -> Vec<Transaction> {
        let from = match from {
            "owner" => self.world.owner.clone(),
            "client" => self.world.client.clone(),
            _ => self.world.stranger.clone(),
        };
        let (at, init) = (self.at.clone(), provider::state_init(&self.terms));
        self.world.deliver_to(&at, &from, value, Some(init), body)
    }

    pub(crate) fn send(&mut self, from: &str, body: Cell) -> Transaction {
        self.deliver(from, FEE, body).remove(0)
    }

    pub(crate) fn listing(&self, key: &SigningKey) -> Cell {
        let listing = Listing {
            payout: self.world.payout.clone(),
            key: key.public_key(),
            endpoint: [7; 32],
            offer: Offer {
                digest: Digest::of(b"offer"),
                attestation: Digest::of(b"quote"),
                fuel_price: nano(100),
                inference_price: nano(20_000),
            },
        };
        provider::list(1, &listing)
    }

    pub(crate) fn list(&mut self, key: &SigningKey) -> Transaction {
        let body = self.listing(key);
        self.send("owner", body)
    }

    pub(crate) fn add(&mut self, value: u64) -> Transaction {
        self.deliver("stranger", value, provider::add_bond(1))
            .remove(0)
    }

    pub(crate) fn claim(&self, key: &SigningKey, index: u64, receipt: &Digest) -> Claim {
        self.world.id().claim(index, receipt, key)
    }

    pub(crate) fn equivocation(&self, key: &SigningKey, first: &Digest, second: &Digest) -> Cell {
        let (first, second) = (self.claim(key, 3, first), self.claim(key, 3, second));
        provider::equivocation(1, &key.public_key(), &first, &second)
    }

    pub(crate) fn state(&self) -> ProviderState {
        let stack = self
            .world
            .chain
            .get(&self.at, ProviderState::METHOD, Vec::new());
        ProviderState::from_stack(stack.unwrap()).unwrap()
    }
}

#[track_caller]
fn check(transaction: &Transaction, expected: &str) {
    assert_eq!(ended(transaction), expected);
}

/// A provider with a listed key and a bond of about ten grams.
fn bonded() -> Bond {
    let mut bond = Bond::new();
    check(&bond.list(&key(2)), "ok");
    check(&bond.add(10 * GRAM), "ok");
    bond
}

fn two() -> (Digest, Digest) {
    (Digest::of(b"first"), Digest::of(b"second"))
}

#[test]
fn a_listing_can_be_read_back() {
    let bond = bonded();
    let state = bond.state();
    assert_eq!(state.key, *key(2).public_key().as_bytes());
    assert_eq!(
        (state.endpoint, &state.payout),
        ([7; 32], &bond.world.payout)
    );
    // The bond is what came in, less the rent that is kept back and the gas.
    assert!(
        (9_900_000_000..10_000_000_000).contains(&state.bond.get()),
        "{}",
        state.bond
    );
    let offer = bond
        .world
        .chain
        .get(&bond.at, "provider_offer", Vec::new())
        .unwrap();
    assert_eq!(
        offer[0],
        StackValue::from_bytes32(Digest::of(b"offer").as_bytes())
    );
    assert_eq!(offer[3], StackValue::from(20_000));
}

#[test]
fn only_the_owner_lists_and_leaves() {
    let mut bond = bonded();
    let listing = bond.listing(&key(3));
    for body in [
        listing,
        provider::start_exit(1),
        provider::cancel_exit(1),
        provider::take_bond(1),
    ] {
        check(&bond.send("stranger", body), "NotOwner");
    }
}

#[test]
fn two_receipts_for_one_place_forfeit_half_of_the_bond() {
    let mut bond = bonded();
    let (first, second) = two();
    let before = bond.state().bond.get();
    let reporters = bond.world.balance(&bond.world.stranger.clone());
    let proof = bond.equivocation(&key(2), &first, &second);
    check(&bond.send("stranger", proof.clone()), "ok");
    let state = bond.state();
    assert_eq!(
        (state.bond.get(), state.equivocations),
        (before - before / 2, 1)
    );
    // The key has no standing any more: not for another proof, and not in the listing.
    assert_eq!(state.key, [0; 32]);
    check(&bond.send("stranger", proof), "UnknownKey");
    // Half of what was forfeited is the reporter's, half is nobody's.
    // The messages' values were brought from outside, and what is left of them came back.
    let reward = bond.world.balance(&bond.world.stranger.clone()) - reporters - 2 * FEE;
    assert!(
        reward <= before / 4 && reward + 2_000_000 > before / 4,
        "{reward}"
    );
    let nobody = Address::new(-1, HashBytes::ZERO);
    let burnt = bond.world.balance(&nobody);
    assert!(
        burnt < before / 4 && burnt + 12_000_000 > before / 4,
        "{burnt}"
    );
}

#[test]
fn what_is_no_equivocation_forfeits_nothing() {
    let mut bond = bonded();
    let (first, second) = two();
    let before = bond.state();
    let mut refused = |first: &Claim, second: &Claim, by: &SigningKey, expected: &str| {
        let body = provider::equivocation(1, &by.public_key(), first, second);
        check(&bond.send("stranger", body), expected);
    };
    let (good, other) = {
        let bond = bonded();
        (bond.claim(&key(2), 3, &first), bond)
    };
    let claim = |by: &SigningKey, index, receipt: &Digest| other.claim(by, index, receipt);
    refused(&good, &good, &key(2), "NoEquivocation");
    // The same provider, two places: each is honest.
    refused(
        &good,
        &claim(&key(2), 4, &second),
        &key(2),
        "BadClaimSignature",
    );
    // Somebody else signed one of them, or both.
    refused(
        &good,
        &claim(&key(3), 3, &second),
        &key(2),
        "BadClaimSignature",
    );
    refused(&claim(&key(3), 3, &first), &good, &key(2), "NoEquivocation");
    refused(
        &claim(&key(3), 3, &second),
        &good,
        &key(2),
        "BadClaimSignature",
    );
    refused(
        &claim(&key(3), 3, &first),
        &claim(&key(3), 3, &second),
        &key(3),
        "UnknownKey",
    );
    // Another channel, or another opening of it.
    let mut elsewhere = other.world.id();
    elsewhere.incarnation[0] ^= 1;
    refused(
        &good,
        &elsewhere.claim(3, &second, &key(2)),
        &key(2),
        "BadClaimSignature",
    );
    let mut elsewhere = other.world.id();
    elsewhere.address = other.at.clone();
    refused(
        &good,
        &elsewhere.claim(3, &second, &key(2)),
        &key(2),
        "BadClaimSignature",
    );
    assert_eq!(bond.state(), before);
}

#[test]
fn a_key_of_zero_is_nobodys() {
    let mut bond = Bond::new();
    let (first, second) = (
        bond.claim(&key(2), 3, &two().0),
        bond.claim(&key(2), 3, &two().1),
    );
    check(&bond.add(GRAM), "ok");
    let body = provider::equivocation(1, &key(2).public_key(), &first, &second);
    check(&bond.send("stranger", body), "UnknownKey");
}

#[test]
fn a_retired_key_is_answered_for_until_the_exit_delay_is_over() {
    let (first, second) = two();
    let mut bond = bonded();
    check(&bond.list(&key(3)), "ok");
    let proof = bond.equivocation(&key(2), &first, &second);
    check(&bond.send("stranger", proof), "ok");
    // The present key stays.
    assert_eq!(bond.state().key, *key(3).public_key().as_bytes());

    let mut bond = bonded();
    check(&bond.list(&key(3)), "ok");
    bond.world.chain.advance(EXIT + 1);
    check(&bond.list(&key(4)), "ok");
    let proof = bond.equivocation(&key(2), &first, &second);
    check(&bond.send("stranger", proof), "UnknownKey");
    let proof = bond.equivocation(&key(3), &first, &second);
    check(&bond.send("stranger", proof), "ok");
}

#[test]
fn keys_cannot_be_retired_without_end() {
    let mut bond = bonded();
    for number in 0..8 {
        check(&bond.list(&key(10 + number)), "ok");
    }
    check(&bond.list(&key(30)), "TooManyKeys");
    bond.world.chain.advance(EXIT + 1);
    check(&bond.list(&key(30)), "ok");
}

#[test]
fn the_bond_is_taken_after_the_delay_and_not_before() {
    let mut bond = bonded();
    check(&bond.send("owner", provider::take_bond(1)), "WrongState");
    check(&bond.send("owner", provider::cancel_exit(1)), "WrongState");
    check(&bond.send("owner", provider::start_exit(1)), "ok");
    check(&bond.send("owner", provider::start_exit(1)), "WrongState");
    bond.world.chain.advance(EXIT - 1);
    check(&bond.send("owner", provider::take_bond(1)), "TooEarly");
    // Still held to account in the last second.
    let (first, second) = two();
    let proof = bond.equivocation(&key(2), &first, &second);
    check(&bond.send("stranger", proof), "ok");
    bond.world.chain.advance(1);
    let (payout, left) = (bond.world.payout.clone(), bond.state().bond.get());
    let before = bond.world.balance(&payout);
    check(&bond.send("owner", provider::take_bond(1)), "ok");
    assert!(bond.world.balance(&payout) > before + left);
    assert_eq!(
        (
            bond.state().bond.get(),
            bond.world.balance(&bond.at.clone())
        ),
        (0, 0)
    );
}

#[test]
fn a_cancelled_exit_starts_anew() {
    let mut bond = bonded();
    check(&bond.send("owner", provider::start_exit(1)), "ok");
    bond.world.chain.advance(EXIT);
    check(&bond.send("owner", provider::cancel_exit(1)), "ok");
    check(&bond.send("owner", provider::take_bond(1)), "WrongState");
    check(&bond.send("owner", provider::start_exit(1)), "ok");
    check(&bond.send("owner", provider::take_bond(1)), "TooEarly");
}

#[test]
fn a_bond_that_bounces_is_a_bond_again() {
    let mut bond = Bond::paying_out_to("throws", THROWS);
    check(&bond.list(&key(2)), "ok");
    check(&bond.add(10 * GRAM), "ok");
    check(&bond.send("owner", provider::start_exit(1)), "ok");
    bond.world.chain.advance(EXIT);
    let before = bond.state().bond.get();
    check(&bond.send("owner", provider::take_bond(1)), "ok");
    let after = bond.state().bond.get();
    assert!(after + 5_000_000 > before, "{after} of {before}");
    assert!(bond.world.balance(&bond.at.clone()) >= after);
}

#[test]
fn a_bond_needs_the_rent_first() {
    let mut bond = Bond::new();
    check(&bond.add(FEE / 5), "NotEnoughValue");
    check(&bond.add(FEE), "ok");
    let first = bond.state().bond.get();
    assert!(first < FEE / 2, "{first}");
    check(&bond.add(FEE), "ok");
    assert!(bond.state().bond.get() > first + FEE * 9 / 10);
}
