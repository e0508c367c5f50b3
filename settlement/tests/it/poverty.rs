//! Too little gas, and too little money: nothing changes, and nobody loses what is theirs.

use tussah_settlement::channel;

use crate::fixture::*;

const YEAR: u32 = 31_536_000;

/// What a message carries is all that its gas may cost; the account's own money is not touched.
#[test]
fn a_message_that_runs_out_of_gas_changes_nothing() {
    let mut world = World::open(GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    let owner = world.owner.clone();
    let channel = world.channel.clone();
    let state = world.state();
    for (value, expected) in [
        // Nothing buys gas; less than the least that is sold; too little for the code to end.
        (1, "no code ran"),
        (6_000, "no code ran"),
        (20_000, "exit code -14"),
        (100_000, "exit code -14"),
    ] {
        let before = world.balance(&channel);
        let ended = world.deliver(&owner, value, None, channel::withdraw(1, true));
        assert_eq!(ended, expected, "{value}");
        assert_eq!(world.state(), state, "{value}");
        // Rent is all that went: seconds stand still here.
        let after = world.balance(&channel);
        assert!(after >= before, "{value}: {before} to {after}");
    }
    assert_eq!(world.send(&owner, channel::withdraw(1, true)), "ok");
    assert_eq!(world.state().owed.get(), 0);
}

/// A channel whose money went for rent: what comes from outside is refused for free, ever more
/// early.
#[test]
fn an_account_without_money_takes_nothing_from_outside() {
    let mut world = World::open(FEE);
    let body = world.redeem_body(world.capacity());
    let mut seen = vec![world.external(&body)];
    let redeemed = world.state().redeemed;
    let next = {
        world.receipts(1);
        let more = world.voucher(redeemed.get() + GRAM);
        more.redeem_message(&world.provider_key)
    };
    for _ in 0..20 {
        let ended = world.external(&next);
        if seen.last() != Some(&ended) {
            seen.push(ended);
        }
        world.chain.advance(YEAR);
    }
    assert_eq!(
        seen,
        [
            "ok",
            "refused: StepTooSmall",
            "refused: TooLate",
            "refused: no code ran"
        ]
    );
}
