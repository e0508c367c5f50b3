//! Random sequences of messages by honest and dishonest parties, in a real TVM.
//!
//! After every message: money is conserved, amounts and counts only grow, the client's part of
//! the balance shrinks by vouchers and rent alone, the provider's by payments alone. At the end
//! of every sequence both sides get out what is theirs.

use proptest::prelude::*;
use tussah_settlement::channel::{self, ChannelStatus, ProviderSide};
use tussah_settlement::voucher::SignedVoucher;
use tussah_settlement::{Address, Cell};

use crate::fixture::*;

/// What it costs to send a message without a reference, and so the least that can be paid.
const FORWARD_FEE: u64 = 66_667;

/// What somebody does. Numbers choose among what there is, so that every sequence can be played.
#[derive(Debug, Clone)]
enum Act {
    Open {
        days: u32,
        deposit: u64,
    },
    TopUp {
        by: u8,
        value: u64,
    },
    /// The client signs a voucher for so much more, over so many more receipts.
    Sign {
        step: u64,
        receipts: u64,
    },
    /// Somebody posts the voucher signed `back` vouchers ago, with a key of number `key`.
    Redeem {
        back: usize,
        key: u8,
        external: bool,
    },
    /// The same message once more.
    Replay,
    Withdraw {
        by: u8,
        bounceable: bool,
    },
    StartClose {
        by: u8,
    },
    CloseAgreed {
        back: usize,
        forged: bool,
    },
    Refund {
        by: u8,
    },
    Rotate {
        by: u8,
        key: u8,
        payout: u8,
    },
    Prove {
        index: u64,
    },
    Junk {
        bytes: Vec<u8>,
        external: bool,
    },
    Wait {
        seconds: u32,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let by = 0..3_u8;
    prop_oneof![
        1 => (0..40_u32, 0..3 * GRAM).prop_map(|(days, deposit)| Act::Open { days, deposit }),
        2 => (by.clone(), 0..GRAM).prop_map(|(by, value)| Act::TopUp { by, value }),
        6 => (0..400_000_000_u64, 0..4_u64).prop_map(|(step, receipts)| Act::Sign { step, receipts }),
        8 => (0..3_usize, 2..5_u8, any::<bool>()).prop_map(|(back, key, external)| Act::Redeem { back, key, external }),
        2 => Just(Act::Replay),
        3 => (by.clone(), any::<bool>()).prop_map(|(by, bounceable)| Act::Withdraw { by, bounceable }),
        1 => by.clone().prop_map(|by| Act::StartClose { by }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(back, forged)| Act::CloseAgreed { back, forged }),
        2 => by.clone().prop_map(|by| Act::Refund { by }),
        1 => (by, 2..4_u8, 0..3_u8).prop_map(|(by, key, payout)| Act::Rotate { by, key, payout }),
        1 => (0..20_u64).prop_map(|index| Act::Prove { index }),
        1 => (prop::collection::vec(any::<u8>(), 0..100), any::<bool>()).prop_map(|(bytes, external)| Act::Junk { bytes, external }),
        3 => prop_oneof![0..30_u32, 0..2 * CHALLENGE, 0..40 * 86_400_u32].prop_map(|seconds| Act::Wait { seconds }),
    ]
}

/// The world, and what its parties know besides the chain.
struct Play {
    world: World,
    vouchers: Vec<SignedVoucher>,
    last_redeem: Option<Cell>,
    throws: Address,
}

/// What the channel holds, as far as it can change by a message.
#[derive(Debug, Clone, Copy)]
struct Ledger {
    redeemed: u64,
    owed: u64,
    receipts: u64,
    /// Of the balance, what is not owed.
    clients: u64,
    at: u32,
    rent_paid_at: u32,
    /// Before it was opened nobody was promised anything.
    is_opened: bool,
}

impl Play {
    fn new() -> Self {
        let mut world = World::unopened("payout", TAKES);
        let throws = account(&mut world.chain, "throws", THROWS);
        world.brought += u128::from(GRAM);
        Self {
            world,
            vouchers: Vec::new(),
            last_redeem: None,
            throws,
        }
    }

    fn is_deployed(&self) -> bool {
        matches!(
            self.world.status(),
            tussah_settlement::AccountStatus::Active(_)
        )
    }

    fn ledger(&self) -> Ledger {
        let balance = self.world.balance(&self.world.channel.clone());
        let at = self.world.chain.now();
        if !self.is_deployed() {
            return Ledger {
                redeemed: 0,
                owed: 0,
                receipts: 0,
                clients: balance,
                at,
                rent_paid_at: at,
                is_opened: false,
            };
        }
        let state = self.world.state();
        let owed = state.owed.get();
        assert!(balance >= owed, "{balance} does not cover {owed}");
        Ledger {
            redeemed: state.redeemed.get(),
            owed,
            receipts: state.commitment.receipts,
            clients: balance - owed,
            at,
            rent_paid_at: at,
            is_opened: state.status != ChannelStatus::Unopened,
        }
    }

    fn who(&self, by: u8) -> Address {
        match by {
            0 => self.world.client.clone(),
            1 => self.world.owner.clone(),
            _ => self.world.stranger.clone(),
        }
    }

    fn voucher(&self, back: usize) -> Option<&SignedVoucher> {
        self.vouchers
            .len()
            .checked_sub(back + 1)
            .map(|at| &self.vouchers[at])
    }

    /// Does one thing and checks what must hold after it.
    fn act(&mut self, act: &Act, before: Ledger) -> Ledger {
        let ended = self.perform(act);
        let mut after = self.ledger();
        self.world.check_conservation();
        assert!(after.redeemed >= before.redeemed && after.receipts >= before.receipts);
        let signed = self
            .vouchers
            .iter()
            .map(|one| one.voucher.amount.get())
            .max();
        assert!(after.redeemed <= signed.unwrap_or(0));
        let gained = after.redeemed - before.redeemed;
        match act {
            Act::Redeem { external: true, .. } | Act::Replay if gained > 0 => {
                let charge = before.owed + gained - after.owed;
                assert!(
                    gained >= STEP_MIN && (500_000..600_000).contains(&charge),
                    "{gained} {charge}"
                );
            }
            Act::Redeem { .. } | Act::CloseAgreed { .. } => {
                assert_eq!(after.owed, before.owed + gained)
            }
            Act::Withdraw { .. } => assert!(after.owed <= before.owed),
            // What does not cover the fee of its payment.
            Act::Refund { .. } if after.owed == 0 => assert!(before.owed <= FORWARD_FEE),
            _ => assert_eq!((gained, after.owed), (0, before.owed)),
        }
        // Rent is less than a nanogram a second, rounded up, since it was last paid.
        let rent = u64::from(after.at - before.rent_paid_at) + 2;
        let is_refund = matches!((act, ended.as_str()), (Act::Refund { .. }, "ok"));
        if before.is_opened && !is_refund {
            assert!(
                after.clients + gained + rent >= before.clients,
                "{before:?} {after:?}"
            );
        }
        // Rent of before the opening is a debt, which the next message pays.
        if !before.is_opened || (after.clients, after.owed) == (before.clients, before.owed) {
            after.rent_paid_at = before.rent_paid_at;
        }
        after
    }

    fn perform(&mut self, act: &Act) -> String {
        let deployed = self.is_deployed();
        match act {
            Act::Open { days, deposit } => {
                let client = self.world.client.clone();
                let init = channel::state_init(&self.world.terms, &self.world.side);
                let body = channel::open(1, [9; 32], self.world.chain.now() + days * 86_400);
                self.world.deliver(&client, *deposit, Some(init), body)
            }
            Act::TopUp { by, value } => {
                let by = self.who(*by);
                self.world.deliver(&by, *value, None, channel::top_up(1))
            }
            Act::Sign { step, receipts } if deployed => {
                self.world.receipts(*receipts);
                let amount = self.voucher(0).map_or(0, |one| one.voucher.amount.get());
                let voucher = self.world.voucher(amount + step);
                self.vouchers.push(voucher);
                String::new()
            }
            Act::Redeem {
                back,
                key: by,
                external,
            } => {
                let Some(body) = self.voucher(*back).map(|one| one.redeem_message(&key(*by)))
                else {
                    return String::new();
                };
                if *external {
                    self.last_redeem = Some(body.clone());
                    return self.world.external(&body);
                }
                let stranger = self.world.stranger.clone();
                self.world.send(&stranger, body)
            }
            Act::Replay => {
                let Some(body) = self.last_redeem.clone().filter(|_| deployed) else {
                    return String::new();
                };
                let before = self.world.state().redeemed;
                let ended = self.world.external(&body);
                // It may have been refused for want of funds or of the right key at first.
                if ended == "ok" {
                    assert!(self.world.state().redeemed > before);
                    assert!(self.world.external(&body).starts_with("refused"));
                }
                ended
            }
            Act::Withdraw { by, bounceable } => {
                let by = self.who(*by);
                self.world.send(&by, channel::withdraw(1, *bounceable))
            }
            Act::StartClose { by } => {
                let by = self.who(*by);
                self.world.send(&by, channel::start_close(1))
            }
            Act::CloseAgreed { back, forged } => {
                let Some(last) = self.voucher(*back).map(|one| one.voucher.clone()) else {
                    return String::new();
                };
                let provider = key(if *forged { 66 } else { 2 });
                let body = last.close_message(
                    &last.agree_to_close(&self.world.client_key),
                    &last.agree_to_close(&provider),
                );
                let stranger = self.world.stranger.clone();
                self.world.send(&stranger, body)
            }
            Act::Refund { by } => {
                let by = self.who(*by);
                self.world.send(&by, channel::refund(1))
            }
            Act::Rotate {
                by,
                key: number,
                payout,
            } => {
                let by = self.who(*by);
                let payout = match payout {
                    0 => self.world.payout.clone(),
                    1 => self.throws.clone(),
                    _ => self.world.channel.clone(),
                };
                let side = ProviderSide {
                    key: key(*number).public_key(),
                    payout,
                };
                self.world.send(&by, channel::rotate(1, &side))
            }
            Act::Prove { index } if *index < self.world.tree.len() => {
                let proof = self
                    .world
                    .tree
                    .prove_inclusion(*index, self.world.tree.len())
                    .unwrap();
                let stranger = self.world.stranger.clone();
                self.world.send(
                    &stranger,
                    channel::prove_inclusion(1, &receipt(*index), &proof),
                )
            }
            Act::Junk { bytes, external } => {
                let junk = junk(bytes);
                if *external && deployed {
                    return self.world.external(&junk);
                }
                let stranger = self.world.stranger.clone();
                self.world.send(&stranger, junk)
            }
            Act::Wait { seconds } => {
                self.world.chain.advance(*seconds);
                String::new()
            }
            Act::Sign { .. } | Act::Prove { .. } => String::new(),
        }
    }

    /// Both sides leave, by messages of their own; nothing stays behind.
    fn leave(&mut self) {
        if !self.is_deployed() || self.world.state().status == ChannelStatus::Unopened {
            return;
        }
        let left = self
            .world
            .state()
            .deadline
            .saturating_sub(self.world.chain.now());
        self.world.chain.advance(left);
        let (client, owner) = (self.world.client.clone(), self.world.owner.clone());
        let good = ProviderSide {
            key: key(2).public_key(),
            payout: self.world.payout.clone(),
        };
        assert_eq!(self.world.send(&owner, channel::rotate(1, &good)), "ok");
        let _ = self.world.send(&owner, channel::withdraw(1, true));
        assert!(self.world.state().owed.get() <= FORWARD_FEE);
        let _ = self.world.send(&client, channel::refund(1));
        assert_eq!(self.world.balance(&self.world.channel.clone()), 0);
    }
}

fn junk(bytes: &[u8]) -> Cell {
    let mut builder = tycho_types::cell::CellBuilder::new();
    builder
        .store_raw(bytes, u16::try_from(bytes.len() * 8).unwrap())
        .unwrap();
    builder.build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent(acts in prop::collection::vec(act(), 1..60)) {
        let mut play = Play::new();
        let mut ledger = play.ledger();
        // Most sequences begin with a channel that is open.
        if acts.len() % 4 != 0 {
            ledger = play.act(&Act::Open { days: 30, deposit: 2 * GRAM }, ledger);
        }
        for act in &acts {
            ledger = play.act(act, ledger);
        }
        play.leave();
    }

    /// A provider that looks at its channel more often than the challenge window is long is
    /// paid its newest voucher, whatever the client and strangers do meanwhile. What it can lose
    /// is what it ran without a voucher: the cap that it sets itself.
    #[test]
    fn a_provider_that_looks_is_paid(acts in prop::collection::vec(act(), 1..60)) {
        let mut play = Play::new();
        let ledger = play.ledger();
        let mut ledger = play.act(&Act::Open { days: 30, deposit: 2 * GRAM }, ledger);
        for act in &acts {
            let act = match act.clone() {
                // It signs no close that it did not ask for, and its owner does nothing odd.
                Act::CloseAgreed { back, .. } => Act::CloseAgreed { back, forged: true },
                Act::Rotate { .. } | Act::Open { .. } => continue,
                Act::StartClose { .. } => Act::StartClose { by: 0 },
                // It works for vouchers that the deposit covers, and it looks often enough.
                Act::Sign { step, receipts } => {
                    let newest = play.voucher(0).map_or(0, |one| one.voucher.amount.get());
                    let room = play.world.capacity().saturating_sub(newest + GRAM / 10);
                    Act::Sign { step: step.min(room), receipts }
                }
                Act::Wait { seconds } => Act::Wait { seconds: seconds % CHALLENGE },
                other => other,
            };
            ledger = play.act(&act, ledger);
            let state = play.world.state();
            let is_ending = state.status == ChannelStatus::Closing
                || state.deadline < play.world.chain.now() + 2 * CHALLENGE;
            if is_ending && play.world.chain.now() < state.deadline {
                ledger = play.act(&Act::Redeem { back: 0, key: 2, external: false }, ledger);
            }
            if state.status == ChannelStatus::Closed || play.world.chain.now() >= state.deadline {
                break;
            }
        }
        if play.world.state().status == ChannelStatus::Open {
            ledger = play.act(&Act::Redeem { back: 0, key: 2, external: false }, ledger);
        }
        let newest = play.voucher(0).map_or(0, |one| one.voucher.amount.get());
        prop_assert_eq!(ledger.redeemed, newest);
        play.leave();
    }
}
