//! Opening, closing and expiry: when money moves, when it cannot, and who may ask.

use tussah_settlement::Address;
use tussah_settlement::channel::{self, ChannelStatus, ProviderSide};
use tycho_types::cell::HashBytes;

use crate::fixture::*;

#[test]
fn only_the_client_opens_and_only_once() {
    let mut world = World::unopened("payout", TAKES);
    let init = channel::state_init(&world.terms, &world.side);
    let open = channel::open(1, [9; 32], EXPIRY);
    let (owner, client) = (world.owner.clone(), world.client.clone());
    assert_eq!(
        world.deliver(&owner, GRAM, Some(init), open.clone()),
        "NotClient"
    );
    assert_eq!(world.open_with(GRAM), "ok");
    assert_eq!(world.send(&client, open), "WrongState");
}

#[test]
fn impossible_terms_are_refused() {
    let mut world = World::unopened("payout", TAKES);
    let init = channel::state_init(&world.terms, &world.side);
    let client = world.client.clone();
    let ten_years = 315_360_000;
    for (expires_at, expected) in [
        (START, "BadTerms"),
        (START + ten_years + 1, "BadTerms"),
        (START - 1, "BadTerms"),
        (0, "BadTerms"),
        (u32::MAX, "BadTerms"),
    ] {
        let body = channel::open(1, [9; 32], expires_at);
        assert_eq!(
            world.deliver(&client, GRAM, Some(init.clone()), body),
            expected,
            "{expires_at}"
        );
    }
    // The rent reserve is part of what it takes to open.
    assert_eq!(world.open_with(FEE / 2), "NotEnoughValue");
    assert_eq!(world.open_with(GRAM), "ok");
    for payout in [world.channel.clone(), Address::new(5, HashBytes::ZERO)] {
        let mut world = World::unopened("payout", TAKES);
        let itself = payout == world.channel;
        world.side.payout = payout;
        world.channel = channel::address(&world.terms, &world.side);
        // Its own address cannot be in its first state, but its owner could rotate to it.
        if !itself {
            assert_eq!(world.open_with(GRAM), "BadTerms");
        }
    }
}

#[test]
fn unknown_messages_come_back() {
    let mut world = World::open(GRAM);
    let stranger = world.stranger.clone();
    let before = world.balance(&stranger);
    for body in [
        tussah_settlement::Cell::default(),
        tussah_settlement::provider::start_exit(1),
    ] {
        assert_eq!(world.deliver(&stranger, GRAM, None, body), "UnknownMessage");
    }
    assert!(world.balance(&stranger) > before + 2 * GRAM - FEE);
}

#[test]
fn a_close_by_agreement_ends_at_once() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    world.receipts(1);
    let last = world.voucher(300_000_000).voucher;
    let (client, provider) = (world.client_key.clone(), world.provider_key.clone());
    let agreed = last.close_message(
        &last.agree_to_close(&client),
        &last.agree_to_close(&provider),
    );
    let stranger = world.stranger.clone();
    let by = |a: &_, b: &_| last.close_message(&last.agree_to_close(a), &last.agree_to_close(b));
    assert_eq!(
        world.send(&stranger, by(&key(66), &provider)),
        "BadClientSignature"
    );
    assert_eq!(
        world.send(&stranger, by(&client, &key(66))),
        "BadProviderSignature"
    );
    // A voucher's signature is no agreement to close.
    let voucher = last.clone().sign(&client);
    let mixed = last.close_message(&voucher.signature, &last.agree_to_close(&provider));
    assert_eq!(world.send(&stranger, mixed), "BadClientSignature");

    assert_eq!(world.send(&stranger, agreed.clone()), "ok");
    let state = world.state();
    assert_eq!(
        (state.status, state.redeemed.get()),
        (ChannelStatus::Closed, 300_000_000)
    );
    assert_eq!(state.commitment, world.tree.commitment());
    assert_eq!(world.send(&stranger, agreed), "WrongState");
    assert_eq!(world.redeem(400_000_000), "refused: WrongState");
    finish(&mut world, 300_000_000);
}

/// Pays out and refunds; checks that everybody has what is theirs, up to their own fees.
#[track_caller]
fn finish(world: &mut World, earned: u64) {
    let (client, owner, payout) = (
        world.client.clone(),
        world.owner.clone(),
        world.payout.clone(),
    );
    let (clients, payouts) = (world.balance(&client), world.balance(&payout));
    let deposit = world.balance(&world.channel.clone()) - world.state().owed.get();
    assert_eq!(world.send(&client, channel::refund(1)), "ok");
    assert_eq!(world.send(&owner, channel::withdraw(2, true)), "ok");
    assert_eq!(world.state().owed.get(), 0);
    let paid = world.balance(&payout) - payouts;
    assert!(
        paid <= earned && paid + 3_000_000 > earned,
        "{paid} of {earned}"
    );
    assert_eq!(world.send(&client, channel::refund(3)), "ok");
    let refunded = world.balance(&client) - clients - 2 * FEE;
    assert!(
        refunded <= deposit && refunded + 3_000_000 > deposit,
        "{refunded} of {deposit}"
    );
    assert_eq!(world.balance(&world.channel.clone()), 0);
    // The account stays, with its state: nothing can be deployed in its place.
    assert_eq!(world.state().status, ChannelStatus::Closed);
    assert_eq!(world.send(&client, channel::top_up(1)), "WrongState");
    assert_eq!(
        world.send(&client, channel::open(1, [1; 32], EXPIRY + 1)),
        "WrongState"
    );
}

#[test]
fn a_one_sided_close_leaves_time_for_a_newer_voucher() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    let (client, stranger) = (world.client.clone(), world.stranger.clone());
    assert_eq!(world.send(&stranger, channel::start_close(1)), "NotClient");
    assert_eq!(world.send(&client, channel::refund(1)), "TooEarly");
    world.chain.advance(10);
    assert_eq!(world.send(&client, channel::start_close(1)), "ok");
    assert_eq!(world.state().deadline, START + 10 + CHALLENGE);
    // In the same second, and until the last one of the window.
    assert_eq!(world.redeem(200_000_000), "ok");
    // A second wish to close does not move the deadline.
    world.chain.advance(CHALLENGE - 1);
    assert_eq!(world.send(&client, channel::start_close(2)), "WrongState");
    assert_eq!(world.redeem(300_000_000), "ok");
    assert_eq!(world.send(&client, channel::refund(1)), "TooEarly");
    // With equal timestamps the deadline wins, whatever the order.
    world.chain.advance(1);
    assert_eq!(world.redeem(400_000_000), "refused: TooLate");
    finish(&mut world, 300_000_000);
}

#[test]
fn the_owner_can_close_too() {
    let mut world = World::open(2 * GRAM);
    let owner = world.owner.clone();
    assert_eq!(world.send(&owner, channel::start_close(1)), "ok");
    world.chain.advance(CHALLENGE);
    let client = world.client.clone();
    assert_eq!(world.send(&owner, channel::refund(1)), "NotClient");
    assert_eq!(world.send(&client, channel::refund(1)), "ok");
    assert_eq!(world.balance(&world.channel.clone()), 0);
}

#[test]
fn a_close_shortly_before_expiry_ends_with_it() {
    let mut world = World::open(2 * GRAM);
    world.chain.advance(EXPIRY - START - 5);
    let client = world.client.clone();
    assert_eq!(world.send(&client, channel::start_close(1)), "ok");
    assert_eq!(world.state().deadline, EXPIRY);
}

#[test]
fn expiry_refunds_without_anybody_else() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    world.chain.advance(EXPIRY - START - 1);
    assert_eq!(world.redeem(200_000_000), "ok");
    let client = world.client.clone();
    assert_eq!(world.send(&client, channel::refund(1)), "TooEarly");
    world.chain.advance(1);
    assert_eq!(world.redeem(300_000_000), "refused: TooLate");
    assert_eq!(world.send(&client, channel::start_close(1)), "TooLate");
    assert_eq!(world.send(&client, channel::top_up(1)), "TooLate");
    finish(&mut world, 200_000_000);
}

#[test]
fn a_close_that_races_a_redeem_costs_the_provider_nothing() {
    for redeem_first in [true, false] {
        let mut world = World::open(2 * GRAM);
        let body = world.redeem_body(500_000_000);
        let client = world.client.clone();
        if redeem_first {
            assert_eq!(world.external(&body), "ok");
        }
        assert_eq!(world.send(&client, channel::start_close(1)), "ok");
        if !redeem_first {
            assert_eq!(world.external(&body), "ok");
        }
        world.chain.advance(CHALLENGE);
        finish(&mut world, 500_000_000);
    }
}

#[test]
fn a_refund_leaves_what_is_owed_and_its_rent() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    world.chain.advance(EXPIRY - START);
    let client = world.client.clone();
    assert_eq!(world.send(&client, channel::refund(1)), "ok");
    let state = world.state();
    let left = world.balance(&world.channel.clone());
    assert_eq!(left, state.owed.get() + state.rent_reserve.get());
    assert_eq!(world.send(&client, channel::refund(1)), "NothingToRefund");
}

#[test]
fn keys_rotate_in_mid_flight() {
    let mut world = World::open(2 * GRAM);
    let in_flight = world.redeem_body(100_000_000);
    let (owner, client) = (world.owner.clone(), world.client.clone());
    let side = ProviderSide {
        key: key(3).public_key(),
        payout: world.owner.clone(),
    };
    assert_eq!(world.send(&client, channel::rotate(1, &side)), "NotOwner");
    assert_eq!(world.send(&owner, channel::rotate(1, &side)), "ok");
    // What the old key signed is no good any more; the client's voucher is.
    assert_eq!(world.external(&in_flight), "refused: BadProviderSignature");
    let again = world.voucher(100_000_000).redeem_message(&key(3));
    assert_eq!(world.external(&again), "ok");
    // To the channel itself, or to a chain that does not exist, nothing can be paid.
    for payout in [world.channel.clone(), Address::new(5, HashBytes::ZERO)] {
        let side = ProviderSide {
            payout,
            ..side.clone()
        };
        assert_eq!(world.send(&owner, channel::rotate(1, &side)), "BadTerms");
    }
}
