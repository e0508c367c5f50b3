//! Wallets that pay: what arrives, what does not, and what it costs.

use std::sync::atomic::Ordering::Relaxed;

use tussah_settlement::chain::EmbeddedChain;
use tussah_settlement::chain::embedded::Internal;
use tussah_settlement::channel::{self, ProviderSide, Terms};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{OutMessage, PayError, Wallet, WalletVersion, pay, seqno};
use tussah_settlement::{Address, Cell};

use crate::confirm::Network;
use crate::fixture::*;
use crate::localnet::now;

fn funded(version: WalletVersion, amount: u64) -> (Network, Wallet, Address) {
    let mut chain = EmbeddedChain::new(START).unwrap();
    let owner = account(&mut chain, "owner", TAKES);
    let wallet = Wallet {
        version,
        key: key(5).public_key(),
        network: NetworkId::LOCALNET,
    };
    let funds = Internal {
        from: owner.clone(),
        to: wallet.address(),
        value: nano(amount),
        bounce: false,
        init: None,
        body: Cell::default(),
    };
    chain.deliver(&funds).unwrap();
    (Network::new(chain, 10), wallet, owner)
}

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
fn a_wallet_deploys_itself_and_a_channel_and_sees_what_each_message_did() {
    for version in [WalletVersion::V4R2, WalletVersion::V5R1] {
        let (network, wallet, owner) = funded(version, 10 * GRAM);
        let terms = Terms {
            client: wallet.address(),
            owner: owner.clone(),
            client_key: key(1).public_key(),
            challenge_seconds: CHALLENGE,
            redeem_step_min: nano(STEP_MIN),
            salt: 1,
        };
        let side = ProviderSide {
            key: key(2).public_key(),
            payout: owner.clone(),
        };
        let at = channel::address(&terms, &side);
        let mut open = message(&at, 2 * GRAM, channel::open(1, [3; 32], EXPIRY));
        open.init = Some(channel::state_init(&terms, &side));
        assert_eq!(now(seqno(&network, &wallet)).unwrap(), 0);
        let paid = now(pay(&network, &network, &wallet, &key(5), &[open])).unwrap();
        assert_eq!(paid.transaction.account, wallet.address());
        assert_eq!(
            (&paid.arrived[0].account, ended(&paid.arrived[0])),
            (&at, "ok".to_owned())
        );
        assert_eq!(now(seqno(&network, &wallet)).unwrap(), 1);
        // Several at once, one of which is refused and comes back.
        let messages = [
            message(&at, FEE, channel::top_up(1)),
            message(&at, FEE, channel::rotate(2, &side)),
            message(&owner, GRAM, Cell::default()),
        ];
        let paid = now(pay(&network, &network, &wallet, &key(5), &messages)).unwrap();
        let ends: Vec<String> = paid.arrived.iter().map(ended).collect();
        assert_eq!(ends, ["ok", "NotOwner", "ok"]);
        assert_eq!(now(seqno(&network, &wallet)).unwrap(), 2);
    }
}

#[test]
fn what_cannot_be_paid_costs_nothing_or_says_what_went_out() {
    let (network, wallet, owner) = funded(WalletVersion::V4R2, GRAM);
    let balance = || {
        network
            .chain
            .lock()
            .unwrap()
            .account_now(&wallet.address())
            .unwrap()
            .balance
            .get()
    };
    let nothing = Cell::default;
    let run = |messages: &[OutMessage], by: u8| {
        now(pay(&network, &network, &wallet, &key(by), messages)).unwrap_err()
    };
    let error = run(&[message(&owner, GRAM, nothing())], 5);
    assert!(matches!(error, PayError::Funds { .. }), "{error}");
    let error = run(&[message(&owner, 1, nothing())], 6);
    assert_eq!(error.to_string(), "this key is not the wallet's");
    let error = run(&vec![message(&owner, 1, nothing()); 5], 5);
    assert_eq!(
        error.to_string(),
        "5 messages do not fit one transfer, which takes 4"
    );
    assert_eq!(balance(), GRAM);
    // Lost on its way, it is not sent again: somebody could still bring it.
    network.losses.store(1, Relaxed);
    let error = run(&[message(&owner, 1, nothing())], 5);
    assert!(matches!(error, PayError::Expired), "{error}");
    assert_eq!(balance(), GRAM);
    // More than is left after fees: the first goes out, the second does not.
    let messages = [
        message(&owner, 600_000_000, nothing()),
        message(&owner, 399_999_999, nothing()),
    ];
    let error = run(&messages, 5);
    assert!(
        matches!(
            error,
            PayError::Unsent {
                sent: 1,
                messages: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(balance() < 400_000_000);
}

/// Whoever is told that a payment failed will repeat it by hand.
#[test]
fn a_payment_whose_answer_was_lost_is_found_on_chain() {
    let (network, wallet, owner) = funded(WalletVersion::V5R1, 10 * GRAM);
    let has = |address: &Address| {
        let chain = network.chain.lock().unwrap();
        chain.account_now(address).unwrap().balance.get()
    };
    let before = has(&owner);
    let messages = [message(&owner, GRAM, Cell::default())];
    network.breaks.store(1, Relaxed);
    let paid = now(pay(&network, &network, &wallet, &key(5), &messages)).unwrap();
    assert_eq!(paid.arrived.len(), 1);
    assert_eq!(now(seqno(&network, &wallet)).unwrap(), 1);
    assert!((GRAM - FEE..=GRAM).contains(&(has(&owner) - before)));

    // A gateway gave up on the server behind it, which had the message by then.
    for (code, transfers) in [(520, 2), (522, 3), (524, 4)] {
        network.gateway.store(code, Relaxed);
        let paid = now(pay(&network, &network, &wallet, &key(5), &messages)).unwrap();
        assert_eq!(paid.arrived.len(), 1, "{code}");
        assert_eq!(now(seqno(&network, &wallet)).unwrap(), transfers);
    }
    network.gateway.store(0, Relaxed);

    // Where the chain does not answer any more, nobody claims to know.
    network.breaks.store(1, Relaxed);
    network.failures.store(100, Relaxed);
    let error = now(pay(&network, &network, &wallet, &key(5), &messages)).unwrap_err();
    assert!(matches!(error, PayError::Unknown { .. }), "{error}");
    assert_eq!(now(seqno(&network, &wallet)).unwrap(), 5);
}
