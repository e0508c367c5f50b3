//! Payments to the provider, also where they fail, and what rent does over the years.

use tussah_settlement::channel::{self, ProviderSide};
use tussah_settlement::{AccountStatus, Address};
use tycho_types::cell::HashBytes;

use crate::fixture::*;

#[test]
fn all_that_is_owed_is_paid() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    let owed = world.state().owed.get();
    let (stranger, payout) = (world.stranger.clone(), world.payout.clone());
    let (before, theirs) = (world.balance(&payout), world.balance(&stranger));
    let clients = world.capacity();
    assert_eq!(world.send(&stranger, channel::withdraw(1, true)), "ok");
    let paid = world.balance(&payout) - before;
    assert!(paid < owed && paid + 500_000 > owed, "{paid} of {owed}");
    // Who asked paid the gas and has the rest back; the client paid nothing.
    assert!(world.balance(&stranger) > theirs + FEE - 2_000_000);
    assert_eq!(world.capacity(), clients);
    assert_eq!(
        world.send(&stranger, channel::withdraw(1, true)),
        "NothingOwed"
    );
}

#[test]
fn strangers_cannot_have_crumbs_paid_out() {
    let mut world = World::open(2 * GRAM);
    let (stranger, owner) = (world.stranger.clone(), world.owner.clone());
    let body = world.redeem_body(STEP_MIN - 1);
    assert_eq!(world.send(&stranger, body), "ok");
    assert_eq!(
        world.send(&stranger, channel::withdraw(1, true)),
        "NothingOwed"
    );
    assert_eq!(world.send(&owner, channel::withdraw(1, true)), "ok");
}

/// The refund keeps the rent reserve while anything is owed, so what is owed can be paid out by
/// anyone at the end, and what is too little to be paid holds nothing up.
#[test]
fn crumbs_do_not_hold_up_the_refund() {
    for (owed, pays) in [
        (1, false),
        (66_667, false),
        (66_668, true),
        (STEP_MIN - 1, true),
    ] {
        let mut world = World::open(2 * GRAM);
        let (stranger, client) = (world.stranger.clone(), world.client.clone());
        let body = world.redeem_body(owed);
        assert_eq!(world.send(&stranger, body), "ok");
        world.chain.advance(EXPIRY - START);
        let paid = world.send(&client, channel::withdraw(1, true));
        assert_eq!(
            paid == "ok" && world.state().owed.get() == 0,
            pays || owed == 66_667,
            "{owed}"
        );
        assert_eq!(world.send(&client, channel::refund(1)), "ok");
        assert_eq!(world.balance(&world.channel.clone()), 0);
    }
}

#[test]
fn a_payment_that_bounces_is_owed_again() {
    let mut world = World::unopened("throws", THROWS);
    assert_eq!(world.open_with(2 * GRAM), "ok");
    assert_eq!(world.redeem(100_000_000), "ok");
    let (owed, clients) = (world.state().owed.get(), world.capacity());
    let owner = world.owner.clone();
    assert_eq!(world.send(&owner, channel::withdraw(1, true)), "ok");
    let again = world.state().owed.get();
    assert!(
        again < owed && again + 2_000_000 > owed,
        "{again} of {owed}"
    );
    // The way there and back was the provider's; the client did not pay for it.
    assert!(world.capacity() >= clients);
    // Nobody else can have it tried again, at the provider's cost.
    let stranger = world.stranger.clone();
    assert!(world.state().payout_bounced);
    let tried = world.send(&stranger, channel::withdraw(1, true));
    assert_eq!(
        (tried.as_str(), world.state().owed.get()),
        ("NotOwner", again)
    );
    // A cold account that works: nothing was lost.
    let side = ProviderSide {
        payout: owner.clone(),
        ..world.side.clone()
    };
    let before = world.balance(&owner);
    assert_eq!(world.send(&owner, channel::rotate(1, &side)), "ok");
    assert_eq!(world.send(&owner, channel::withdraw(1, true)), "ok");
    assert!(world.balance(&owner) > before + 2 * FEE + again - 3_000_000);
}

#[test]
fn a_payment_bounces_back_even_after_the_end() {
    let mut world = World::unopened("throws", THROWS);
    assert_eq!(world.open_with(2 * GRAM), "ok");
    assert_eq!(world.redeem(100_000_000), "ok");
    world.chain.advance(EXPIRY - START);
    let (client, owner) = (world.client.clone(), world.owner.clone());
    assert_eq!(world.send(&client, channel::refund(1)), "ok");
    assert_eq!(world.send(&owner, channel::withdraw(1, true)), "ok");
    let owed = world.state().owed.get();
    assert!(owed > 98_000_000, "{owed}");
    // What came back is the provider's, and no refund takes it.
    let _ = world.send(&client, channel::refund(1));
    assert!(world.balance(&world.channel.clone()) >= owed);
}

/// Cold wallets are often not deployed. A bounceable payment comes back from one; the owner can
/// have it stay there.
#[test]
fn the_owner_can_be_paid_at_an_account_without_code() {
    let mut world = World::unopened("payout", TAKES);
    let cold = Address::new(0, HashBytes([0xc0; 32]));
    world.side.payout = cold.clone();
    world.channel = channel::address(&world.terms, &world.side);
    assert_eq!(world.open_with(2 * GRAM), "ok");
    assert_eq!(world.redeem(100_000_000), "ok");
    let (owner, stranger) = (world.owner.clone(), world.stranger.clone());
    for from in [&stranger, &owner] {
        // A stranger's wish for no bounce is not heeded.
        let body = channel::withdraw(1, from == &owner);
        assert_eq!(world.send(from, body), "ok");
        assert_eq!(world.balance(&cold), 0);
        assert!(world.state().owed.get() > 90_000_000);
    }
    assert_eq!(world.send(&owner, channel::withdraw(1, false)), "ok");
    assert!(world.balance(&cold) > 90_000_000);
    assert_eq!(world.state().owed.get(), 0);
}

#[test]
fn a_payment_to_the_masterchain_pays_its_dearer_way_itself() {
    let mut world = World::unopened("payout", TAKES);
    let cold = Address::new(-1, HashBytes([0xc0; 32]));
    world.side.payout = cold.clone();
    world.channel = channel::address(&world.terms, &world.side);
    assert_eq!(world.open_with(2 * GRAM), "ok");
    let (owner, clients) = (world.owner.clone(), world.capacity());
    // Less than the way costs: nothing is marked as paid, and the value comes back.
    let body = world.redeem_body(6_000_000);
    assert_eq!(world.external(&body), "ok");
    let owed = world.state().owed;
    assert_eq!(world.send(&owner, channel::withdraw(1, false)), "action 37");
    assert_eq!(world.state().owed, owed);
    assert_eq!(world.redeem(106_000_000), "ok");
    assert_eq!(world.send(&owner, channel::withdraw(1, false)), "ok");
    assert!(world.balance(&cold) > 85_000_000);
    assert!(world.capacity() >= clients);
}

#[test]
fn the_reserve_pays_rent_for_a_year_past_the_deadline() {
    let mut world = World::open(GRAM);
    let body = world.redeem_body(world.capacity());
    assert_eq!(world.external(&body), "ok");
    let owed = world.state().owed.get();
    world.chain.advance(EXPIRY - START + 31_536_000 - 60);
    let (owner, payout) = (world.owner.clone(), world.payout.clone());
    let before = world.balance(&payout);
    assert_eq!(world.send(&owner, channel::withdraw(1, true)), "ok");
    assert_eq!(world.state().owed.get(), 0);
    let paid = world.balance(&payout) - before;
    // The payout account had its own rent to pay.
    assert!(paid + 2_000_000 > owed, "{paid} of {owed}");
    assert!(world.balance(&world.channel.clone()) > 0);
}

/// A channel that everybody forgot: its rent is paid from what is owed, then it freezes. Whoever
/// brings its last state and pays its debt revives it, and nothing in it has changed.
#[test]
fn a_frozen_channel_can_be_revived() {
    let mut world = World::open(GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    let (client, owner) = (world.client.clone(), world.owner.clone());
    world.chain.advance(EXPIRY - START);
    assert_eq!(world.send(&client, channel::refund(1)), "ok");
    let state = world.state();
    let AccountStatus::Active(last) = world.status() else {
        panic!("it is active")
    };
    world.chain.advance(20 * 31_536_000);
    assert_eq!(
        world.send(&owner, channel::withdraw(1, true)),
        "no code ran"
    );
    assert!(matches!(world.status(), AccountStatus::Frozen(_)));
    assert_eq!(world.balance(&world.channel.clone()), 0);
    // Neither its first state nor any other but its last is taken.
    let first = channel::state_init(&world.terms, &world.side);
    let body = channel::withdraw(1, true);
    assert_eq!(
        world.deliver(&owner, GRAM, Some(first), body.clone()),
        "no code ran"
    );
    assert_eq!(
        world.deliver(&owner, GRAM, Some(*last), body),
        "NothingOwed"
    );
    assert!(matches!(world.status(), AccountStatus::Active(_)));
    assert_eq!(world.state().owed, state.owed);
}
