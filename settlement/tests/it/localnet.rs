//! The embedded chain through `Chain`, as a program sees it, and across a restart.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use tussah_manifest::Nanograms;
use tussah_settlement::chain::EmbeddedChain;
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::channel::{self, ChannelState};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::{AccountStatus, Address, Chain, ChainError, ContractError};
use tycho_types::cell::HashBytes;

use crate::fixture::*;

/// The embedded chain never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the embedded chain does not wait"),
    }
}

#[test]
fn a_program_redeems_and_sees_it() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let forged = world.voucher(200_000_000).redeem_message(&key(66));
    let channel = world.channel.clone();
    let chain = Mutex::new(world.chain);
    assert_eq!(chain.network(), NetworkId::LOCALNET);
    let before = now(chain.account(&channel)).unwrap();
    let message = external_message(&channel, None, &body).unwrap();
    now(chain.send_boc(message.clone())).unwrap();
    // That it was sent says nothing; its transaction does.
    let after = now(chain.transactions(&channel, before.last_lt)).unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!(
        (after[0].message_hash, after[0].exit_code),
        (message.repr_hash().0, Some(0))
    );
    let all = now(chain.transactions(&channel, 0)).unwrap();
    assert!(all.windows(2).all(|pair| pair[0].lt < pair[1].lt));
    let stack = now(chain.run_get_method(&channel, ChannelState::METHOD, Vec::new())).unwrap();
    assert_eq!(
        ChannelState::from_stack(stack).unwrap().redeemed.get(),
        100_000_000
    );

    let message = external_message(&channel, None, &forged).unwrap();
    let error = now(chain.send_boc(message)).unwrap_err();
    assert_eq!(
        error.contract_error(),
        Some(ContractError::BadProviderSignature)
    );
    assert_eq!(
        error.to_string(),
        "the message was not accepted: BadProviderSignature (exit code 409)"
    );
    let nobody = Address::new(0, HashBytes([1; 32]));
    let missing = now(chain.account(&nobody)).unwrap();
    assert_eq!(
        (missing.status, missing.balance),
        (AccountStatus::Missing, Nanograms::ZERO)
    );
    let error = now(chain.run_get_method(&nobody, "seqno", Vec::new())).unwrap_err();
    assert!(matches!(error, ChainError::NoCode(_)));
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::open(2 * GRAM);
    assert_eq!(world.redeem(100_000_000), "ok");
    let saved = world.chain.save().unwrap();
    let mut restored = EmbeddedChain::restore(&saved).unwrap();
    assert_eq!(restored.save().unwrap(), saved);
    assert_eq!(
        (restored.now(), restored.fees()),
        (world.chain.now(), world.chain.fees())
    );
    assert_eq!(restored.total().unwrap(), world.chain.total().unwrap());
    // What happens next is the same, down to the transaction.
    let body = world.redeem_body(200_000_000);
    let message = external_message(&world.channel, None, &body).unwrap();
    let one = world.chain.send(message.clone()).unwrap();
    assert_eq!(restored.send(message).unwrap(), one);
    let client = world.client.clone();
    assert_eq!(world.send(&client, channel::start_close(1)), "ok");
}

#[test]
fn what_is_no_saved_chain_is_refused() {
    let saved = World::open(GRAM).chain.save().unwrap();
    for length in [0, 1, 16, saved.len() / 2, saved.len() - 1] {
        assert!(
            EmbeddedChain::restore(&saved[..length]).is_err(),
            "{length}"
        );
    }
    let other = tycho_types::boc::Boc::encode(channel::top_up(1));
    assert!(matches!(
        EmbeddedChain::restore(&other),
        Err(ChainError::Saved(_))
    ));
    for at in 0..saved.len() {
        let mut changed = saved.clone();
        changed[at] ^= 1;
        // It may be another chain; it is never a panic.
        let _ = EmbeddedChain::restore(&changed);
    }
}
