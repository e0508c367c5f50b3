//! Wallets: equal to those of npm `@ton/ton`, and at work in a real TVM.
//!
//! `tests/vectors/wallets.json` was written by `@ton/ton` 16.3.0: for 20 seeds and both versions
//! the address, the hash of the first state, and the hash of a signed transfer of two messages.

use serde_json::Value;
use tussah_manifest::SigningKey;
use tussah_settlement::chain::embedded::{Internal, external_message};
use tussah_settlement::channel::{self, ProviderSide, Terms};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{OutMessage, Wallet, WalletError, WalletVersion};
use tussah_settlement::{Address, Cell, chain::EmbeddedChain};
use tycho_types::cell::{CellBuilder, HashBytes};

use crate::fixture::*;

fn message(to: &Address, value: u64, body: Cell) -> OutMessage {
    OutMessage {
        to: to.clone(),
        value: nano(value),
        bounce: true,
        init: None,
        body,
    }
}

#[test]
fn wallets_equal_those_of_the_official_client() {
    let vectors = include_str!("../vectors/wallets.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    assert_eq!(vectors.len(), 40);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let seed: Vec<u8> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&text("seed")[at..at + 2], 16).unwrap())
            .collect();
        let key = SigningKey::from_bytes(&seed.try_into().unwrap());
        let wallet = Wallet {
            version: match text("version") {
                "v4r2" => WalletVersion::V4R2,
                _ => WalletVersion::V5R1,
            },
            key: key.public_key(),
            network: NetworkId::MAINNET,
        };
        assert_eq!(wallet.address().to_string(), text("address"));
        let init = CellBuilder::build_from(wallet.state_init()).unwrap();
        assert_eq!(init.repr_hash().to_string(), text("state_init"));
        let mut second = message(&Address::new(-1, HashBytes([0xcd; 32])), 1, Cell::default());
        second.bounce = false;
        let first = Address::new(0, HashBytes([0xab; 32]));
        let messages = [message(&first, 1_500_000_000, channel::top_up(7)), second];
        let seqno = u32::try_from(vector["seqno"].as_u64().unwrap()).unwrap();
        let body = wallet.transfer(&key, seqno, START + 60, &messages).unwrap();
        assert_eq!(body.repr_hash().to_string(), text("transfer"), "{wallet:?}");
    }
}

/// A wallet that is deployed by its first message, opens a channel and sends several at once.
#[test]
fn wallets_open_and_close_a_channel() {
    for version in [WalletVersion::V4R2, WalletVersion::V5R1] {
        let mut chain = EmbeddedChain::new(START).unwrap();
        let owner = account(&mut chain, "owner", TAKES);
        let wallet = Wallet {
            version,
            key: key(5).public_key(),
            network: NetworkId::LOCALNET,
        };
        let address = wallet.address();
        let funds = Internal {
            from: owner.clone(),
            to: address.clone(),
            value: nano(10 * GRAM),
            bounce: false,
            init: None,
            body: Cell::default(),
        };
        chain.deliver(&funds).unwrap();
        let terms = Terms {
            client: address.clone(),
            owner: owner.clone(),
            client_key: key(1).public_key(),
            challenge_seconds: CHALLENGE,
            redeem_step_min: nano(STEP_MIN),
            salt: 1,
        };
        let side = ProviderSide {
            key: key(2).public_key(),
            payout: owner,
        };
        let at = channel::address(&terms, &side);
        let mut open = message(&at, 2 * GRAM, channel::open(1, [3; 32], EXPIRY));
        open.init = Some(channel::state_init(&terms, &side));
        let send = |chain: &mut EmbeddedChain, seqno: u32, messages: &[OutMessage]| {
            let body = wallet
                .transfer(&key(5), seqno, START + 60, messages)
                .unwrap();
            let init = (seqno == 0).then(|| wallet.state_init());
            let sent = external_message(&address, init, &body).unwrap();
            chain.send(sent.clone()).map(|done| {
                // A wallet takes a message once.
                assert!(chain.send(sent).is_err(), "{version:?}");
                done.iter()
                    .map(|one| (one.account.clone(), ended(one)))
                    .collect::<Vec<_>>()
            })
        };
        let done = send(&mut chain, 0, &[open]).unwrap();
        assert_eq!(
            done[..2],
            [
                (address.clone(), "ok".to_owned()),
                (at.clone(), "ok".to_owned())
            ]
        );
        // Three at once: a second wish to close is refused, and holds up nothing.
        let several = [
            message(&at, FEE, channel::top_up(2)),
            message(&at, FEE, channel::start_close(3)),
            message(&at, FEE, channel::start_close(4)),
        ];
        let done = send(&mut chain, 1, &several).unwrap();
        let ends: Vec<&str> = done
            .iter()
            .filter(|(account, _)| *account == at)
            .map(|(_, ended)| ended.as_str())
            .collect();
        assert_eq!(ends, ["ok", "ok", "WrongState"]);
        // Too late for what was signed until then.
        chain.advance(61);
        assert!(send(&mut chain, 2, &several).is_err());
    }
}

#[test]
fn what_a_wallet_cannot_send_is_refused() {
    let wallet = |version| Wallet {
        version,
        key: key(5).public_key(),
        network: NetworkId::LOCALNET,
    };
    let nobody = Address::new(0, HashBytes::ZERO);
    let many = |count| vec![message(&nobody, 1, Cell::default()); count];
    for version in [WalletVersion::V4R2, WalletVersion::V5R1] {
        let messages_max = version.messages_max();
        let wallet = wallet(version);
        for count in [0, 1, messages_max] {
            assert!(wallet.transfer(&key(5), 0, START, &many(count)).is_ok());
        }
        assert_eq!(
            wallet.transfer(&key(5), 0, START, &many(messages_max + 1)),
            Err(WalletError::TooMany {
                messages: messages_max + 1,
                messages_max
            })
        );
        assert_eq!(
            wallet.transfer(&key(6), 0, START, &many(1)),
            Err(WalletError::Key)
        );
    }
}
