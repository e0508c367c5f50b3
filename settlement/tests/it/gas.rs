//! What each message costs, as the table in docs/settlement.md has it.
//!
//! The table is exact: a change of the contracts or of the executor that costs another amount of
//! gas fails here, and `UPDATE_EXPECT=1` writes the new figures where the old ones stand.

use std::fmt::Write as _;
use std::fs;

use tussah_manifest::Digest;
use tussah_settlement::chain::Transaction;
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::{Cell, channel, provider};

use crate::bond::Bond;
use crate::fixture::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settlement.md");
const BEGIN: &str = "<!-- gas: written by settlement/tests/it/gas.rs -->\n";
const END: &str = "<!-- gas: end -->";

struct Table(String);

impl Table {
    fn row(&mut self, message: &str, transaction: &Transaction) {
        assert_eq!(ended(transaction), "ok", "{message}");
        let (gas, fees) = (transaction.gas_used, transaction.fees.get());
        let _ = writeln!(
            self.0,
            "| {message} | {gas} | {}.{:06} |",
            fees / GRAM,
            fees % GRAM / 1_000
        );
    }
}

/// The first transaction of what `body` causes.
fn run(world: &mut World, from: &str, body: Cell) -> Transaction {
    let from = match from {
        "client" => world.client.clone(),
        "owner" => world.owner.clone(),
        _ => world.stranger.clone(),
    };
    let channel = world.channel.clone();
    world.deliver_to(&channel, &from, FEE, None, body).remove(0)
}

fn redeem(world: &mut World, amount: u64) -> Transaction {
    let body = world.redeem_body(amount);
    let message = external_message(&world.channel, None, &body).unwrap();
    world.chain.send(message).unwrap().remove(0)
}

#[test]
fn gas_of_every_message() {
    let mut table = Table(String::new());
    table
        .0
        .push_str("| message | gas | fees in grams |\n|---|---|---|\n");
    channel_rows(&mut table);
    provider_rows(&mut table);
    let committed = fs::read_to_string(FILE).unwrap();
    let (before, rest) = committed.split_once(BEGIN).unwrap();
    let (old, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(FILE, format!("{before}{BEGIN}{}{END}{after}", table.0)).unwrap();
    } else {
        assert_eq!(
            table.0, old,
            "run the test with UPDATE_EXPECT=1 to write the new figures"
        );
    }
}

fn channel_rows(table: &mut Table) {
    let mut world = World::unopened("payout", TAKES);
    let (client, at) = (world.client.clone(), world.channel.clone());
    let init = channel::state_init(&world.terms, &world.side);
    let opened = world.deliver_to(
        &at,
        &client,
        3 * GRAM,
        Some(init),
        channel::open(1, [9; 32], EXPIRY),
    );
    table.row("`Open`, deploying", &opened[0]);
    table.row("`TopUp`", &run(&mut world, "client", channel::top_up(2)));
    table.row("`Redeem`, external", &redeem(&mut world, 100_000_000));
    world.receipts(1_023);
    let batch = redeem(&mut world, 200_000_000);
    table.row("`Redeem`, external, 1,024 receipts more", &batch);
    assert!(batch.gas_used / 1_024 <= 15, "the aim is 15 gas a result");
    let body = world.redeem_body(300_000_000);
    table.row("`Redeem`, internal", &run(&mut world, "stranger", body));
    let proof = world.tree.prove_inclusion(5, world.tree.len()).unwrap();
    let body = channel::prove_inclusion(3, &receipt(5), &proof);
    let proven = format!("`ProveInclusion`, 1 of {}", world.tree.len());
    table.row(&proven, &run(&mut world, "stranger", body));
    table.row(
        "`Withdraw`",
        &run(&mut world, "owner", channel::withdraw(4, true)),
    );
    let side = world.side.clone();
    table.row(
        "`Rotate`",
        &run(&mut world, "owner", channel::rotate(5, &side)),
    );
    let last = world.voucher(400_000_000).voucher;
    table.row(
        "`StartClose`",
        &run(&mut world, "client", channel::start_close(6)),
    );
    let body = last.close_message(
        &last.agree_to_close(&world.client_key),
        &last.agree_to_close(&world.provider_key),
    );
    table.row("`CloseAgreed`", &run(&mut world, "stranger", body));
    table.row(
        "`Refund`, while something is owed",
        &run(&mut world, "client", channel::refund(7)),
    );
    run(&mut world, "owner", channel::withdraw(8, true));
    table.row(
        "`Refund`, of all",
        &run(&mut world, "client", channel::refund(9)),
    );

    let mut world = World::unopened("throws", THROWS);
    assert_eq!(world.open_with(2 * GRAM), "ok");
    redeem(&mut world, 100_000_000);
    let (owner, at) = (world.owner.clone(), world.channel.clone());
    let all = world.deliver_to(&at, &owner, FEE, None, channel::withdraw(1, true));
    let back = all.iter().skip(1).find(|one| one.account == at).unwrap();
    table.row("a payout that bounces", back);
}

fn provider_rows(table: &mut Table) {
    let mut bond = Bond::new();
    table.row("`List`, deploying", &bond.list(&key(2)));
    table.row("`List`, another key", &bond.list(&key(3)));
    table.row("`AddBond`", &bond.add(10 * GRAM));
    let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
    let body = bond.equivocation(&key(3), &first, &second);
    table.row("`Equivocation`", &bond.send("stranger", body));
    table.row("`StartExit`", &bond.send("owner", provider::start_exit(1)));
    table.row(
        "`CancelExit`",
        &bond.send("owner", provider::cancel_exit(1)),
    );
    bond.send("owner", provider::start_exit(1));
    bond.world.chain.advance(crate::bond::EXIT);
    table.row("`TakeBond`", &bond.send("owner", provider::take_bond(1)));
}

/// What the contracts count on, in the constants of their first pages.
#[test]
fn the_contracts_own_figures_cover_the_truth() {
    let mut world = World::open(2 * GRAM);
    let at = world.channel.clone();
    // Its way through the code depends on the state and on whether the tree has grown.
    for (times, grows) in [(1, true), (2, false), (3, true), (4, false)] {
        if times == 3 {
            let client = world.client.clone();
            assert_eq!(world.send(&client, channel::start_close(1)), "ok");
        }
        if grows {
            world.receipts(1);
        }
        let body = world
            .voucher(times * 100_000_000)
            .redeem_message(&world.provider_key);
        let (balance, owed) = (world.balance(&at), world.state().owed.get());
        assert_eq!(world.external(&body), "ok");
        let spent = balance - world.balance(&at);
        let charged = 100_000_000 - (world.state().owed.get() - owed);
        // Never less than what redeeming took, and at most 5 % more.
        assert!(
            spent <= charged && charged <= spent * 105 / 100,
            "{spent} {charged}"
        );
    }
    let tussah_settlement::AccountStatus::Active(init) = world.status() else {
        panic!("the channel is not deployed")
    };
    let (code, data) = (init.code.unwrap(), init.data.unwrap());
    let (code, data) = (size(&code), size(&data));
    let (bits, cells) = (code.0 + data.0, code.1 + data.1);
    // The account's own cell and the state-init around them: under 1,000 bits, 1 cell.
    assert!(
        bits + 1_000 <= 26_000 && cells < 70,
        "{bits} bits, {cells} cells"
    );
}
