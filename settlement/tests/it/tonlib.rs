//! The wallets once more, by tonlib-core; only with the feature `tonlib`.

use serde_json::Value;
use tonlib_core::cell::BagOfCells;
use tonlib_core::wallet::mnemonic::Mnemonic as Words;
use tonlib_core::wallet::ton_wallet::TonWallet;
use tonlib_core::wallet::wallet_version::WalletVersion as Version;
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{Mnemonic, OutMessage, Wallet, WalletVersion};
use tussah_settlement::{Address, Cell, tonlib};
use tycho_types::boc::Boc;
use tycho_types::cell::HashBytes;

use crate::fixture::*;

#[test]
fn words_keys_and_addresses_are_the_same_but_with_a_password() {
    let vectors = include_str!("../vectors/mnemonics.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let mnemonic = Mnemonic::parse(text("words"), text("password")).unwrap();
        for version in [WalletVersion::V4R2, WalletVersion::V5R1] {
            let ours = Wallet {
                version,
                key: mnemonic.key().public_key(),
                network: NetworkId::MAINNET,
            };
            let theirs = tonlib::wallet(&mnemonic, version);
            if text("password").is_empty() {
                assert_eq!(theirs.unwrap(), (ours.key, ours.address()));
            } else {
                // npm `@ton/crypto` takes words whose seed with the password is a basic one, and
                // tonlib-core refuses just these.
                let refused = theirs.unwrap_err().to_string();
                assert!(
                    refused.contains("Invalid mnemonic with password"),
                    "{refused}"
                );
            }
        }
    }
}

/// A cell of ours as one of theirs, through the bytes that both write.
fn theirs(cell: &Cell) -> tonlib_core::cell::ArcCell {
    BagOfCells::parse(&Boc::encode(cell))
        .unwrap()
        .single_root()
        .unwrap()
}

fn out(value: u64) -> OutMessage {
    OutMessage {
        to: Address::new(0, HashBytes([0xab; 32])),
        value: nano(value),
        bounce: true,
        init: None,
        body: Cell::default(),
    }
}

/// The messages of a V4R2 body are its references; those of V5R1 hang one below the other.
fn messages(version: WalletVersion, body: &Cell) -> Vec<Cell> {
    let mut found = Vec::new();
    if version == WalletVersion::V4R2 {
        found.extend((0..body.reference_count()).filter_map(|at| body.reference_cloned(at)));
        return found;
    }
    let mut actions = body.reference_cloned(0).unwrap();
    while let Some(message) = actions.reference_cloned(1) {
        found.insert(0, message);
        actions = actions.reference_cloned(0).unwrap();
    }
    found
}

#[test]
fn transfers_are_the_same_but_for_the_order_of_several() {
    let vectors = include_str!("../vectors/mnemonics.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let words = vectors[0]["words"].as_str().unwrap();
    let key = Mnemonic::parse(words, "").unwrap().key();
    for (version, their_version) in [
        (WalletVersion::V4R2, Version::V4R2),
        (WalletVersion::V5R1, Version::V5R1),
    ] {
        let ours = Wallet {
            version,
            key: key.public_key(),
            network: NetworkId::MAINNET,
        };
        let pair = Words::from_str(words, &None)
            .unwrap()
            .to_key_pair()
            .unwrap();
        let wallet = TonWallet::new(their_version, pair).unwrap();
        for count in [1, 2] {
            let sent: Vec<OutMessage> = (1..=count).map(out).collect();
            let body = ours.transfer(&key, 3, START, &sent).unwrap();
            let cells = messages(version, &body);
            let cells: Vec<_> = cells.iter().map(theirs).collect();
            let unsigned = wallet.create_external_body(START, 3, &cells).unwrap();
            let signed = wallet.sign_external_body(&unsigned).unwrap();
            let is_same = signed.cell_hash().as_slice() == &body.repr_hash().0[..];
            // tonlib-core's V5R1 sends several messages in reverse; npm `@ton/ton` does not.
            let is_reversed = version == WalletVersion::V5R1 && count > 1;
            assert_eq!(is_same, !is_reversed, "{version:?}, {count} messages");
        }
    }
}
