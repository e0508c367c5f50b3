//! The embedded chain against the reference implementation of TON's transactions, which npm
//! `@ton/sandbox` carries: every message of both contracts, refused ones too.
//!
//! Needs node, and `TUSSAH_NODE_MODULES` with the package in it: `cargo xtask contracts` sets both
//! up. Without them the test says so and returns; with `REQUIRE_NODE=1` it fails.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tussah_manifest::Digest;
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::chain::{EmbeddedChain, Step};
use tussah_settlement::channel::{self, ProviderSide};
use tussah_settlement::{Cell, provider};
use tycho_types::boc::Boc;
use tycho_types::cell::CellBuilder;
use tycho_types::models::{
    Account, AccountState, ComputePhase, MsgInfo, ShardAccount, Transaction, TxInfo,
};

use crate::bond::{Bond, EXIT};
use crate::fixture::*;

/// Where npm's packages are.
fn modules() -> Option<OsString> {
    let modules = std::env::var_os("TUSSAH_NODE_MODULES");
    if modules.is_none() {
        assert!(
            std::env::var_os("REQUIRE_NODE").is_none(),
            "TUSSAH_NODE_MODULES is not set; run `cargo xtask contracts`"
        );
    }
    modules
}

#[test]
fn the_reference_implementation_agrees() {
    let Some(modules) = modules() else {
        println!("skipped: TUSSAH_NODE_MODULES is not set; `cargo xtask contracts` sets it up");
        return;
    };
    for (name, chain) in [
        ("channel", a_channels_life()),
        ("bounces", payments_that_bounce()),
        ("years", years()),
        ("provider", a_providers_life()),
    ] {
        let steps = chain.recorded();
        let theirs = replay(&chain, name, Path::new(&modules));
        assert_eq!(theirs.len(), steps.len(), "{name}");
        for (number, (step, theirs)) in steps.iter().zip(theirs).enumerate() {
            assert_eq!(ours(step), theirs, "{name}: transaction {number}");
        }
        println!("{name}: {} transactions agree", steps.len());
    }
}

/// Has node run the steps again.
fn replay(chain: &EmbeddedChain, name: &str, modules: &Path) -> Vec<Value> {
    let steps: Vec<Value> = chain
        .recorded()
        .iter()
        .map(|step| {
            json!({
                "before": Boc::encode_hex(&step.before),
                "message": Boc::encode_hex(&step.message),
                "now": step.now,
                "lt": step.lt.to_string(),
                "seed": step.seed.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            })
        })
        .collect();
    let record = json!({ "config": Boc::encode_hex(chain.config()), "steps": steps });
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("steps-{name}.json"));
    fs::write(&file, record.to_string()).unwrap();
    let text = node("it/second_opinion.cjs", &file, modules);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn node(script: &str, file: &Path, modules: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(script);
    let mut node = Command::new("node");
    let output = node.arg(script).arg(file).env("NODE_PATH", modules);
    let output = output.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The words of the vectors, and words that are drawn here, with and without a password.
#[test]
fn the_official_client_makes_the_same_keys_of_words() {
    let Some(modules) = modules() else {
        println!("skipped: TUSSAH_NODE_MODULES is not set; `cargo xtask contracts` sets it up");
        return;
    };
    let vectors = include_str!("../vectors/mnemonics.json");
    let mut expected: Vec<Value> = serde_json::from_str(vectors).unwrap();
    for (seed, password) in [(1, ""), (2, ""), (3, "a password")] {
        let drawn = crate::mnemonic::draw(seed, password);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        expected.push(json!({
            "words": drawn.words(),
            "password": password,
            "valid": true,
            "public_key": hex(drawn.key().public_key().as_bytes()),
            "secret": hex(&drawn.key().to_bytes()[..]),
        }));
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mnemonics.json");
    fs::write(&file, json!(expected).to_string()).unwrap();
    let theirs = node("vectors/mnemonics.cjs", &file, Path::new(&modules));
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&theirs).unwrap(),
        expected
    );
}

/// What the embedded chain did, in the words of second_opinion.cjs.
fn ours(step: &Step) -> Value {
    let Some(outcome) = &step.outcome else {
        return json!({ "accepted": false, "exitCode": step.exit_code });
    };
    let transaction = outcome.transaction.parse::<Transaction>().unwrap();
    let TxInfo::Ordinary(info) = transaction.load_info().unwrap() else {
        panic!("an ordinary transaction")
    };
    let (exit_code, gas) = match &info.compute_phase {
        ComputePhase::Executed(phase) => (Some(phase.exit_code), phase.gas_used.into_inner()),
        ComputePhase::Skipped(_) => (None, 0),
    };
    let messages: Vec<Value> = transaction
        .iter_out_msgs()
        .map(|message| {
            let message = message.unwrap();
            let MsgInfo::Int(info) = &message.info else {
                panic!("the contracts send internal messages only")
            };
            let body = CellBuilder::build_from(message.body).unwrap();
            json!({
                "value": info.value.tokens.into_inner().to_string(),
                "to": info.dst.to_string(),
                "bounce": info.bounce,
                "body": body.repr_hash().to_string(),
            })
        })
        .collect();
    let mut record = json!({
        "accepted": true,
        "exitCode": exit_code,
        "actionCode": info.action_phase.map(|phase| phase.result_code),
        "gas": gas,
        "fees": transaction.total_fees.tokens.into_inner().to_string(),
        "messages": messages,
    });
    let shard = outcome.after.parse::<ShardAccount>().unwrap();
    add_account(&mut record, shard.load_account().unwrap());
    record
}

/// What is left of the account.
fn add_account(record: &mut Value, account: Option<Account>) {
    let hash = |cell: Option<Cell>| cell.map(|cell| cell.repr_hash().to_string());
    let (mut status, mut code, mut data) = ("missing", None, None);
    let (mut balance, mut debt, mut paid_at) = (0, 0, 0);
    if let Some(account) = account {
        balance = account.balance.tokens.into_inner();
        debt = account
            .storage_stat
            .due_payment
            .unwrap_or_default()
            .into_inner();
        paid_at = account.storage_stat.last_paid;
        status = match account.state {
            AccountState::Uninit => "uninit",
            AccountState::Frozen(_) => "frozen",
            AccountState::Active(init) => {
                (code, data) = (hash(init.code), hash(init.data));
                "active"
            }
        };
    }
    record["balance"] = json!(balance.to_string());
    record["debt"] = json!(debt.to_string());
    record["rentPaidAt"] = json!(paid_at);
    record["status"] = json!(status);
    record["code"] = json!(code);
    record["data"] = json!(data);
}

/// Every message of the channel, taken and refused.
fn a_channels_life() -> EmbeddedChain {
    let mut world = World::unopened("payout", TAKES);
    world.chain.record();
    let (client, owner, stranger) = (
        world.client.clone(),
        world.owner.clone(),
        world.stranger.clone(),
    );
    let init = channel::state_init(&world.terms, &world.side);
    world.deliver(&stranger, FEE, Some(init), channel::top_up(1));
    world.open_with(2 * GRAM);
    world.send(&client, channel::open(2, [1; 32], EXPIRY));
    world.send(&stranger, channel::top_up(3));
    world.receipts(9);
    world.redeem(100_000_000);
    let body = world
        .voucher(100_000_000)
        .redeem_message(&world.provider_key);
    world.external(&body);
    let body = world.redeem_body(200_000_000);
    let init = channel::state_init(&world.terms, &world.side);
    let wrapped = external_message(&world.channel, Some(init), &body).unwrap();
    world.raw_external(wrapped);
    world.external(&channel::withdraw(1, true));
    world.external(&tussah_settlement::Cell::default());
    let forged = world.voucher(300_000_000).redeem_message(&key(66));
    world.external(&forged);
    world.send(&stranger, forged);
    world.send(&stranger, body);
    let proof = world.tree.prove_inclusion(7, world.tree.len()).unwrap();
    world.send(&stranger, channel::prove_inclusion(4, &receipt(7), &proof));
    world.send(&stranger, channel::prove_inclusion(4, &receipt(8), &proof));
    world.send(&stranger, channel::withdraw(5, true));
    world.send(&stranger, channel::withdraw(5, true));
    world.send(&client, channel::refund(6));
    let side = ProviderSide {
        key: key(3).public_key(),
        payout: owner.clone(),
    };
    world.send(&stranger, channel::rotate(7, &side));
    world.send(&owner, channel::rotate(7, &side));
    world.redeem(300_000_000);
    world.chain.advance(100);
    world.send(&stranger, channel::start_close(8));
    world.send(&client, channel::start_close(8));
    world.receipts(1);
    let body = world.voucher(400_000_000).redeem_message(&key(3));
    world.external(&body);
    let last = world.voucher(500_000_000).voucher;
    let close = |by: u8| {
        last.close_message(
            &last.agree_to_close(&key(1)),
            &last.agree_to_close(&key(by)),
        )
    };
    world.send(&stranger, close(66));
    world.send(&stranger, close(3));
    world.send(&client, channel::refund(9));
    world.send(&owner, channel::withdraw(10, false));
    world.send(&client, channel::refund(11));
    world.send(&client, channel::top_up(12));
    world.chain
}

fn payments_that_bounce() -> EmbeddedChain {
    let mut world = World::unopened("throws", THROWS);
    world.chain.record();
    world.open_with(2 * GRAM);
    let owner = world.owner.clone();
    world.redeem(100_000_000);
    world.send(&owner, channel::withdraw(1, true));
    // To the masterchain, with too little for the way there.
    let cold = tussah_settlement::Address::new(-1, tycho_types::cell::HashBytes([7; 32]));
    let side = ProviderSide {
        payout: cold,
        ..world.side.clone()
    };
    world.send(&owner, channel::rotate(1, &side));
    world.send(&owner, channel::withdraw(1, false));
    let body = world.redeem_body(106_000_000);
    world.external(&body);
    world.send(&owner, channel::withdraw(1, false));
    world.chain
}

/// Rent, debt, freezing and reviving.
fn years() -> EmbeddedChain {
    let mut world = World::open(GRAM);
    world.redeem(100_000_000);
    let (client, owner) = (world.client.clone(), world.owner.clone());
    world.chain.record();
    world.chain.advance(EXPIRY - START);
    world.send(&client, channel::refund(1));
    let tussah_settlement::AccountStatus::Active(last) = world.status() else {
        panic!("it is active")
    };
    world.chain.advance(20 * 31_536_000);
    world.send(&owner, channel::withdraw(1, true));
    world.send(&owner, channel::withdraw(1, true));
    world.deliver(&owner, GRAM, Some(*last), channel::withdraw(1, true));
    world.chain
}

/// Every message of the provider's contract, taken and refused.
fn a_providers_life() -> EmbeddedChain {
    let mut bond = Bond::new();
    bond.world.chain.record();
    let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
    bond.list(&key(2));
    bond.add(10 * GRAM);
    for number in 3..6 {
        bond.list(&key(number));
    }
    let listing = bond.listing(&key(9));
    bond.send("stranger", listing);
    for (by, other) in [
        (5, &first),
        (66, &second),
        (4, &second),
        (4, &second),
        (5, &second),
    ] {
        let body = bond.equivocation(&key(by), &first, other);
        bond.send("stranger", body);
    }
    bond.send("owner", provider::start_exit(1));
    bond.send("owner", provider::cancel_exit(1));
    bond.send("owner", provider::start_exit(1));
    bond.send("owner", provider::take_bond(1));
    bond.world.chain.advance(EXIT);
    bond.list(&key(7));
    bond.send("owner", provider::take_bond(1));
    bond.world.chain
}
