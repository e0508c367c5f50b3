//! Redeem: who can post a voucher, which ones, and what it costs whom.

use tussah_manifest::{Commitment, TreeHash};
use tussah_settlement::chain::StackValue;
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::voucher::{ChannelId, NetworkId, SignedVoucher, Voucher};
use tussah_settlement::{Cell, channel};
use tycho_types::cell::CellBuilder;

use crate::fixture::*;

#[test]
fn a_voucher_credits_what_it_gains_and_posts_its_root() {
    let mut world = World::open(2 * GRAM);
    let capacity = world.capacity();
    assert_eq!(world.redeem(100_000_000), "ok");
    let state = world.state();
    assert_eq!(state.redeemed.get(), 100_000_000);
    assert_eq!(state.commitment, world.tree.commitment());
    // The gas is the provider's, so what the client has left is what it had, less the voucher.
    let fee = 100_000_000 - state.owed.get();
    assert!((500_000..600_000).contains(&fee), "{fee}");
    assert!(world.capacity() >= capacity && world.capacity() < capacity + 30_000);
}

#[test]
fn vouchers_are_cumulative() {
    let mut world = World::open(2 * GRAM);
    for amount in [100_000_000, 250_000_000, 255_000_000] {
        assert_eq!(world.redeem(amount), "ok");
        assert_eq!(world.state().redeemed.get(), amount);
    }
}

/// A voucher, changed in one way, signed by whom it takes.
#[track_caller]
fn check(change: impl FnOnce(&World, &mut Voucher), expected: &str) {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    world.receipts(1);
    let mut voucher = world.voucher(200_000_000).voucher;
    change(&world, &mut voucher);
    let body = voucher
        .sign(&world.client_key)
        .redeem_message(&world.provider_key);
    assert_eq!(world.external(&body), expected);
    // The same as an internal message: refused for the same reason, and the value bounces.
    let stranger = world.stranger.clone();
    let balance = world.balance(&stranger);
    let internal = world.send(&stranger, body);
    assert_eq!(internal, expected.trim_start_matches("refused: "));
    if internal != "ok" {
        assert!(world.balance(&stranger) > balance + FEE * 9 / 10);
        assert_eq!(world.state().redeemed.get(), 100_000_000);
    }
}

#[test]
fn a_voucher_is_good_in_one_place_only() {
    let foreign = "refused: BadClientSignature";
    check(
        |_, voucher| voucher.channel.network = NetworkId::MAINNET,
        foreign,
    );
    check(|_, voucher| voucher.channel.incarnation[31] ^= 1, foreign);
    check(
        |world, voucher| {
            let mut terms = world.terms.clone();
            terms.salt += 1;
            voucher.channel.address = channel::address(&terms, &world.side);
        },
        foreign,
    );
}

#[test]
fn smaller_and_replayed_vouchers_are_refused() {
    check(
        |_, voucher| voucher.amount = nano(99_999_999),
        "refused: AmountNotMore",
    );
    check(
        |_, voucher| voucher.amount = nano(100_000_000),
        "refused: AmountNotMore",
    );
    check(
        |_, voucher| voucher.amount = nano(0),
        "refused: AmountNotMore",
    );
}

#[test]
fn the_posted_tree_only_grows() {
    let root = |byte| TreeHash::from_bytes([byte; 32]);
    check(
        |_, voucher| {
            voucher.commitment = Commitment {
                receipts: 0,
                root: root(1),
            }
        },
        "refused: CountWentBack",
    );
    check(
        |_, voucher| {
            voucher.commitment = Commitment {
                receipts: 1,
                root: root(1),
            }
        },
        "refused: RootChanged",
    );
}

#[test]
fn a_voucher_within_a_long_job_is_over_the_same_tree() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    let body = world
        .voucher(200_000_000)
        .redeem_message(&world.provider_key);
    assert_eq!(world.external(&body), "ok");
    assert_eq!(world.state().commitment.receipts, 1);
}

#[test]
fn forged_and_stolen_vouchers_are_refused() {
    let mut world = World::open(2 * GRAM);
    world.receipts(1);
    let voucher = world.voucher(200_000_000);
    let forged = voucher.voucher.clone().sign(&key(66));
    assert_eq!(
        world.external(&forged.redeem_message(&world.provider_key)),
        "refused: BadClientSignature"
    );
    // Somebody got hold of a voucher: it is of no use without the provider.
    assert_eq!(
        world.external(&voucher.redeem_message(&key(66))),
        "refused: BadProviderSignature"
    );
    // A signature for closing is none for redeeming.
    let closing = SignedVoucher {
        signature: voucher.voucher.agree_to_close(&world.client_key),
        voucher: voucher.voucher.clone(),
    };
    assert_eq!(
        world.external(&closing.redeem_message(&world.provider_key)),
        "refused: BadClientSignature"
    );
    assert_eq!(
        world.external(&voucher.redeem_message(&world.provider_key)),
        "ok"
    );
}

#[test]
fn an_external_redeem_is_taken_once() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let owed = |world: &World| world.state().owed;
    assert_eq!(world.external(&body), "ok");
    let first = owed(&world);
    for _ in 0..10 {
        assert_eq!(world.external(&body), "refused: AmountNotMore");
    }
    assert_eq!(owed(&world), first);
}

#[test]
fn junk_costs_the_channel_nothing() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let filled = |fill: &dyn Fn(&mut CellBuilder)| {
        let mut builder = CellBuilder::new();
        fill(&mut builder);
        builder.build().unwrap()
    };
    let with_rest = |bits: u16, cells: usize| {
        filled(&|b| {
            b.store_slice(body.as_slice().unwrap()).unwrap();
            b.store_zeros(bits).unwrap();
            for _ in 0..cells {
                b.store_reference(Cell::default()).unwrap();
            }
        })
    };
    let cases = [
        ("nothing", Cell::default(), "refused: BulkyMessage"),
        (
            "another message",
            channel::withdraw(1, true),
            "refused: BulkyMessage",
        ),
        (
            "zeros",
            filled(&|b| b.store_zeros(1023).unwrap()),
            "refused: exit code 63",
        ),
        (
            "a bit more than was signed",
            with_rest(1, 0),
            "refused: exit code 9",
        ),
        (
            "a cell more than was signed",
            with_rest(0, 1),
            "refused: exit code 9",
        ),
    ];
    for (what, junk, expected) in cases {
        assert_eq!(world.external(&junk), expected, "{what}");
    }
    assert_eq!(world.external(&body), "ok");
}

/// The import fee of an external message is the account's: a good message must not be wrapped
/// in a large one by whoever sees it pass.
#[test]
fn a_good_message_in_a_bulky_wrapping_is_refused() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let init = channel::state_init(&world.terms, &world.side);
    let wrapped = external_message(&world.channel, Some(init), &body).unwrap();
    assert_eq!(world.raw_external(wrapped), "refused: BulkyMessage");
    assert_eq!(world.external(&body), "ok");
}

#[test]
fn the_smallest_step_is_enforced_outside_and_not_inside() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(STEP_MIN - 1);
    assert_eq!(world.external(&body), "refused: StepTooSmall");
    let stranger = world.stranger.clone();
    assert_eq!(world.send(&stranger, body), "ok");
    // Who sent it paid for it: nothing is taken from the earnings.
    assert_eq!(world.state().owed.get(), STEP_MIN - 1);
    let body = world.redeem_body(2 * STEP_MIN - 1);
    assert_eq!(world.external(&body), "ok");
}

/// Even where the terms would allow it: what is gained must be more than what it costs.
#[test]
fn redeeming_never_costs_more_than_it_gains() {
    let mut world = World::unopened("payout", TAKES);
    world.terms.redeem_step_min = nano(0);
    world.channel = channel::address(&world.terms, &world.side);
    assert_eq!(world.open_with(GRAM), "ok");
    let mut amount = 0;
    for step in [1, 400_000] {
        amount += step;
        let body = world.redeem_body(amount);
        assert_eq!(world.external(&body), "refused: StepTooSmall");
    }
}

#[test]
fn a_voucher_over_the_deposit_stays_good_for_the_rest() {
    let mut world = World::open(GRAM);
    let capacity = world.capacity();
    let body = world.redeem_body(capacity + 300_000_000);
    assert_eq!(world.external(&body), "ok");
    // What the provider paid for gas less than was charged stays with the client.
    assert_eq!(world.state().redeemed.get(), capacity);
    assert_eq!(world.external(&body), "refused: StepTooSmall");
    let stranger = world.stranger.clone();
    assert_eq!(
        world.deliver(&stranger, 200_000_000, None, channel::top_up(1)),
        "ok"
    );
    assert_eq!(world.external(&body), "ok");
    let redeemed = world.state().redeemed.get();
    assert!(
        redeemed > capacity + 199_000_000 && redeemed < capacity + 200_100_000,
        "{redeemed}"
    );
    assert_eq!(
        world.deliver(&stranger, 200_000_000, None, channel::top_up(1)),
        "ok"
    );
    assert_eq!(world.external(&body), "ok");
    assert_eq!(world.state().redeemed.get(), capacity + 300_000_000);
}

#[test]
fn the_contract_and_this_crate_sign_the_same() {
    let mut world = World::open(GRAM);
    for (amount, receipts) in [(0, 0), (1, 1), (5_000_000_000_000_000_000, 40)] {
        world.receipts(receipts);
        let voucher = world.voucher(amount).voucher;
        let arguments = channel::voucher_hash_arguments(voucher.amount, &voucher.commitment);
        let answer = world
            .chain
            .get(&world.channel, "voucher_hash", arguments)
            .unwrap();
        assert_eq!(answer, [StackValue::from_bytes32(&voucher.signed_hash())]);
    }
}

/// An account can be lost to debt and deployed again by anyone. Its next opening is another one
/// even if the client draws the same number twice.
#[test]
fn vouchers_of_an_earlier_opening_are_no_good() {
    let mut first = World::open(GRAM);
    let body = first.redeem_body(100_000_000);
    assert_eq!(first.external(&body), "ok");
    let mut second = World::unopened("payout", TAKES);
    let stranger = second.stranger.clone();
    // Deployed by a stranger: nothing runs before the client opens it.
    let init = channel::state_init(&second.terms, &second.side);
    let deployed = second.deliver(&stranger, FEE, Some(init), channel::top_up(1));
    assert_eq!(deployed, "WrongState");
    assert_eq!(second.open_with(GRAM), "ok");
    assert_eq!(first.channel, second.channel);
    let (one, other): (ChannelId, ChannelId) = (first.id(), second.id());
    assert_ne!(one.incarnation, other.incarnation);
    assert_eq!(second.external(&body), "refused: BadClientSignature");
}
