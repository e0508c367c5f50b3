//! Books of one host that do not agree, and a payout account that deploys itself.

use std::{fs, path::Path};

use super::{Paid, copy_folder};
use crate::{
    bank::{Bank, GRAM, nanograms},
    fixture::Sandbox,
};

/// Takes one role's book from an older copy of the folder.
fn restore(channels: &Path, snapshot: &Path, role: &str) {
    for (folder, copies) in [(channels, false), (snapshot, true)] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.starts_with(&format!("{role}.sqlite")) {
                continue;
            }
            if copies {
                fs::copy(&path, channels.join(name)).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }
}

#[test]
fn one_book_that_is_an_older_copy_says_what_helps() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    let first = paid.pay("0", "r0.cbor");
    let (channels, snapshot) = (sandbox.home().join("channels"), sandbox.work().join("old"));
    copy_folder(&channels, &snapshot);
    let second = paid.pay("1", "r1.cbor");
    let pay = ["--price-max", "0.4", "--receipt", "r2.cbor"];
    for role in ["provider", "client"] {
        let file = ["--role", role, "--out", role];
        paid.done("export", &file);
        restore(&channels, &snapshot, role);
        // The chain has nothing yet, so only the other book tells.
        paid.run(&pay).expect(2).says("channel import");
        paid.channel("close", &["--wallet", "main"])
            .expect(2)
            .says("--one-sided");
        if role == "client" {
            // What is redeemed is signed already, and the provider has all of it.
            let redeemed = paid.done("redeem", &[]);
            assert_eq!(nanograms(&redeemed["redeemed_nanograms"]), first + second);
            paid.run(&pay)
                .expect(3)
                .says("2 receipts are posted on chain");
        }
        bank.json(&["channel", "import", role, "--role", role]);
    }
    paid.pay("2", "r2.cbor");
}

/// What pays is deployed before it is paid.
#[test]
fn a_wallet_that_is_not_deployed_has_itself_paid() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::embedded(&sandbox);
    bank.funded("main", "20");
    let cold = bank.funded("cold", "1");
    let paid = Paid::open(&bank, &["--payout", &cold]);
    paid.pay("0", "r0.cbor");
    let owed = nanograms(&paid.done("redeem", &[])["owed_nanograms"]);
    let before = bank.json(&["wallet", "balance", "cold"]);
    assert_eq!(before["state"], "not deployed");
    paid.channel("withdraw", &["--wallet", "main"])
        .expect(2)
        .says("no code runs at the payout account");
    let after = paid.done("withdraw", &["--wallet", "cold"]);
    assert_eq!(after["owed_nanograms"], "0");
    let cold = bank.balance("cold");
    assert!(cold > GRAM + owed - GRAM / 50, "{cold} of {owed}");
}
