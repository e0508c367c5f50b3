//! A chain whose network loses, delays, repeats and reorders, by a seed that is printed; and that
//! the books come to the same end on it.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Mutex;

use tussah_commit::{RedeemError, Tended};
use tussah_manifest::Nanograms;
use tussah_settlement::chain::{StackValue, Transaction};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::{Account, Address, Cell, Chain, ChainError};

use crate::fixture::*;

/// How often each trouble comes, in percent.
#[derive(Debug, Clone, Copy)]
struct Troubles {
    drop: u64,
    delay: u64,
    repeat: u64,
    /// An error although the message went through.
    unanswered: u64,
    /// A question gets the answer of an earlier one, or none.
    stale: u64,
}

/// A chain behind a bad network.
pub(crate) struct Unreliable<'a, C> {
    chain: &'a C,
    troubles: Troubles,
    state: Mutex<State>,
}

struct State {
    random: u64,
    delayed: VecDeque<Cell>,
    /// The last answer of each get-method.
    answers: Vec<(String, Vec<StackValue>)>,
}

impl<'a, C: Chain> Unreliable<'a, C> {
    /// Takes every message and delivers none.
    pub(crate) fn dropping(chain: &'a C) -> Self {
        let troubles = Troubles {
            drop: 100,
            delay: 0,
            repeat: 0,
            unanswered: 0,
            stale: 0,
        };
        Self::new(chain, troubles, 1)
    }

    fn new(chain: &'a C, troubles: Troubles, seed: u64) -> Self {
        let state = State {
            random: seed,
            delayed: VecDeque::new(),
            answers: Vec::new(),
        };
        Self {
            chain,
            troubles,
            state: Mutex::new(state),
        }
    }

    /// Whether something happens that happens `percent` of the time.
    fn happens(&self, percent: u64) -> bool {
        self.random() % 100 < percent
    }

    fn random(&self) -> u64 {
        next_random(&mut self.state.lock().unwrap().random)
    }

    /// Delivers what was held back, the newest first.
    fn release(&self) {
        loop {
            let held = self.state.lock().unwrap().delayed.pop_back();
            let Some(message) = held else { return };
            // What the contract refuses by now, it refuses.
            let _ = wait_blocking(self.chain.send_boc(message));
        }
    }
}

/// SplitMix64, from its author's public domain description.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The embedded chain's futures are ready at once.
fn wait_blocking<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the embedded chain does not wait"),
    }
}

fn lost() -> ChainError {
    ChainError::Executor("the connection was lost".into())
}

impl<C: Chain + Sync> Chain for Unreliable<'_, C> {
    fn network(&self) -> NetworkId {
        self.chain.network()
    }

    fn time(&self) -> impl Future<Output = Result<u32, ChainError>> + Send {
        self.chain.time()
    }

    fn send_boc(&self, message: Cell) -> impl Future<Output = Result<(), ChainError>> + Send {
        if self.happens(self.troubles.drop) {
            return ready(Ok(()));
        }
        if self.happens(self.troubles.delay) {
            self.state.lock().unwrap().delayed.push_back(message);
            return ready(Ok(()));
        }
        let mut sent = wait_blocking(self.chain.send_boc(message.clone()));
        if self.happens(self.troubles.repeat) {
            // The copy is refused, or the state would show it.
            let _ = wait_blocking(self.chain.send_boc(message));
        }
        if self.happens(50) {
            self.release();
        }
        if self.happens(self.troubles.unanswered) {
            sent = Err(lost());
        }
        ready(sent)
    }

    fn account(
        &self,
        address: &Address,
    ) -> impl Future<Output = Result<Account, ChainError>> + Send {
        self.chain.account(address)
    }

    fn run_get_method(
        &self,
        address: &Address,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> impl Future<Output = Result<Vec<StackValue>, ChainError>> + Send {
        if self.happens(self.troubles.stale) {
            let state = self.state.lock().unwrap();
            let before = state.answers.iter().find(|(name, _)| name == method);
            return ready(before.map(|(_, answer)| answer.clone()).ok_or_else(lost));
        }
        let answer = wait_blocking(self.chain.run_get_method(address, method, arguments));
        if let Ok(answer) = &answer
            && self.happens(50)
        {
            let mut state = self.state.lock().unwrap();
            state.answers.retain(|(name, _)| name != method);
            state.answers.push((method.to_owned(), answer.clone()));
        }
        ready(answer)
    }

    fn transactions(
        &self,
        address: &Address,
        after_lt: u64,
    ) -> impl Future<Output = Result<Vec<Transaction>, ChainError>> + Send {
        let mut transactions = wait_blocking(self.chain.transactions(address, after_lt));
        if let Ok(transactions) = &mut transactions
            && self.happens(self.troubles.stale)
        {
            // A server that is behind does not know the last ones yet.
            let known = usize::try_from(self.random() % 3).unwrap();
            transactions.truncate(known);
        }
        ready(transactions)
    }
}

#[test]
fn a_bad_network_leads_to_the_same_end() {
    const JOBS: u64 = 24;
    const PRICE: u64 = 50_000_000;
    for seed in 1..=10 {
        println!("seed {seed}");
        let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
        let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
        let (id, key) = (world.id(), &world.provider_key);
        let troubles = Troubles {
            drop: 25,
            delay: 25,
            repeat: 25,
            unanswered: 25,
            stale: 25,
        };
        let network = Unreliable::new(&*world.chain, troubles, seed);
        let tend = || match wait(provider.tend(&network, id, key, AT_ONCE)) {
            Ok(tended) => Some(tended),
            Err(RedeemError::Chain(_)) => None,
            Err(other) => panic!("seed {seed}: {other}"),
        };
        for number in 0..JOBS {
            let request = world.request(number, 0, PRICE);
            client.issue(id, &request).unwrap();
            provider.admit(id, &request, RULES).unwrap();
            let receipt = world.receipt(&request, PRICE);
            let claim = provider.finish(id, &receipt, key).unwrap();
            client.deliver(id, &receipt, &claim).unwrap();
            let voucher = client
                .voucher(id, Nanograms::ZERO, &world.client_key)
                .unwrap();
            provider.accept(id, &voucher).unwrap();
            tend();
        }
        let mut steps = 0;
        let promised = provider.view(id).unwrap().vouchered();
        while world.state().redeemed < promised || tend() != Some(Tended::Idle) {
            tend();
            steps += 1;
            assert!(steps < 200, "seed {seed}: no end");
        }
        // What was held back arrives last of all, and changes nothing.
        let before = world.state();
        network.release();
        let (after, view) = (world.state(), provider.view(id).unwrap());
        assert_eq!(after, before, "seed {seed}");
        assert_eq!(after.redeemed, nano(JOBS * PRICE), "seed {seed}");
        assert_eq!(after.commitment, view.commitment, "seed {seed}");
        assert_eq!(view.commitment, client.view(id).unwrap().commitment);
        // Everything but the gas of redeeming is the provider's: no credit came twice.
        let cost = after.redeemed.get() - after.owed.get();
        assert!(cost <= JOBS * 1_000_000, "seed {seed}: {cost}");
    }
}
