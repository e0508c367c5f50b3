//! Random sequences of messages to the provider's contract, in a real TVM.
//!
//! After every message: money is conserved, the balance covers the bond, and the bond shrinks by
//! a proven equivocation or by its owner's exit alone, never before the delay. At the end of
//! every sequence the owner gets out what is left.

use proptest::prelude::*;
use tussah_manifest::Digest;
use tussah_settlement::provider::{self, ProviderState};

use crate::bond::{Bond, EXIT};
use crate::fixture::*;

#[derive(Debug, Clone)]
enum Act {
    List {
        by: u8,
        key: u8,
    },
    AddBond {
        by: u8,
        value: u64,
    },
    StartExit {
        by: u8,
    },
    CancelExit {
        by: u8,
    },
    TakeBond {
        by: u8,
    },
    /// Two claims of `key` about receipts of these numbers, which may be one.
    Equivocation {
        key: u8,
        receipts: (u8, u8),
    },
    Junk {
        bytes: Vec<u8>,
    },
    Wait {
        seconds: u32,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let by = 0..3_u8;
    prop_oneof![
        3 => (by.clone(), 2..8_u8).prop_map(|(by, key)| Act::List { by, key }),
        3 => (by.clone(), 0..2 * GRAM).prop_map(|(by, value)| Act::AddBond { by, value }),
        1 => by.clone().prop_map(|by| Act::StartExit { by }),
        1 => by.clone().prop_map(|by| Act::CancelExit { by }),
        2 => by.prop_map(|by| Act::TakeBond { by }),
        3 => (2..8_u8, (0..3_u8, 0..3_u8)).prop_map(|(key, receipts)| Act::Equivocation { key, receipts }),
        1 => prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Act::Junk { bytes }),
        2 => prop_oneof![0..100_u32, 0..2 * EXIT / 3].prop_map(|seconds| Act::Wait { seconds }),
    ]
}

const fn who(by: u8) -> &'static str {
    match by {
        0 | 1 => "owner",
        _ => "stranger",
    }
}

fn perform(bond: &mut Bond, act: &Act) -> String {
    let transaction = match act {
        Act::List { by, key: number } => {
            let body = bond.listing(&key(*number));
            bond.send(who(*by), body)
        }
        Act::AddBond { by, value } => bond
            .deliver(who(*by), *value, provider::add_bond(1))
            .remove(0),
        Act::StartExit { by } => bond.send(who(*by), provider::start_exit(1)),
        Act::CancelExit { by } => bond.send(who(*by), provider::cancel_exit(1)),
        Act::TakeBond { by } => bond.send(who(*by), provider::take_bond(1)),
        Act::Equivocation {
            key: number,
            receipts: (one, other),
        } => {
            let (one, other) = (Digest::of(&[*one]), Digest::of(&[*other]));
            let body = bond.equivocation(&key(*number), &one, &other);
            bond.send("stranger", body)
        }
        Act::Junk { bytes } => {
            let mut builder = tycho_types::cell::CellBuilder::new();
            builder
                .store_raw(bytes, u16::try_from(bytes.len() * 8).unwrap())
                .unwrap();
            bond.send("stranger", builder.build().unwrap())
        }
        Act::Wait { seconds } => {
            bond.world.chain.advance(*seconds);
            return String::new();
        }
    };
    ended(&transaction)
}

fn check(act: &Act, ended: &str, before: &ProviderState, after: &ProviderState, now: u32) {
    let (was, is) = (before.bond.get(), after.bond.get());
    let proven = after.equivocations - before.equivocations;
    match act {
        Act::Equivocation {
            key: number,
            receipts: (one, other),
        } if ended == "ok" => {
            assert_ne!(one, other);
            assert_eq!((is, proven), (was - was / 2, 1));
            assert_ne!(after.key, *key(*number).public_key().as_bytes());
        }
        Act::TakeBond { by } if ended == "ok" => {
            assert!(before.exit_at != 0 && now >= before.exit_at && who(*by) == "owner");
            assert_eq!((is, proven), (0, 0));
        }
        Act::AddBond { value, .. } => assert!(is >= was && is <= was + value && proven == 0),
        _ => assert_eq!((is, proven), (was, 0), "{act:?} {ended}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_provider_is_sent(acts in prop::collection::vec(act(), 1..60)) {
        let mut bond = Bond::new();
        prop_assert_eq!(ended(&bond.list(&key(2))), "ok");
        prop_assert_eq!(ended(&bond.add(5 * GRAM)), "ok");
        let mut before = bond.state();
        for act in &acts {
            let ended = perform(&mut bond, act);
            let after = bond.state();
            check(act, &ended, &before, &after, bond.world.chain.now());
            let balance = bond.world.balance(&bond.at.clone());
            prop_assert!(balance >= after.bond.get(), "{} does not cover {}", balance, after.bond);
            before = after;
        }
        if before.exit_at == 0 {
            prop_assert_eq!(ended(&bond.send("owner", provider::start_exit(1))), "ok");
        }
        bond.world.chain.advance(EXIT);
        let payout = bond.world.payout.clone();
        let (left, had) = (bond.state().bond.get(), bond.world.balance(&payout));
        prop_assert_eq!(ended(&bond.send("owner", provider::take_bond(1))), "ok");
        // The payout account pays its own rent and gas: 0.1 grams are more than both.
        prop_assert!(bond.world.balance(&payout) + GRAM / 10 >= had + left);
        prop_assert_eq!(bond.world.balance(&bond.at.clone()), 0);
    }
}
