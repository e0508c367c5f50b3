//! From the newest voucher to the chain: when, how often, and what is paid.

use std::sync::Mutex;

use tussah_commit::{ClientBook, ProviderBook, RedeemPolicy, Tended};
use tussah_manifest::Nanograms;
use tussah_settlement::chain::toncenter::ToncenterError;
use tussah_settlement::chain::{EmbeddedChain, StackValue};
use tussah_settlement::channel::{self, ChannelState, ChannelStatus};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::{Account, Address, Cell, Chain, ChainError, Transaction};

use crate::fixture::*;

struct Paid {
    world: World,
    client: ClientBook,
    provider: ProviderBook,
    _folder: tempfile::TempDir,
}

impl Paid {
    fn new() -> Self {
        Self::on(World::open())
    }

    fn on(world: World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            client: world.client(folder.path()),
            provider: world.provider(folder.path()),
            world,
            _folder: folder,
        }
    }

    /// One more job, vouchered.
    fn job(&self, price: u64) {
        let (id, world) = (self.world.id(), &self.world);
        let request = world.request(self.client.next_index(id).unwrap(), 0, price);
        self.client.issue(id, &request).unwrap();
        self.provider.admit(id, &request, RULES).unwrap();
        let receipt = world.receipt(&request, price);
        let claim = self
            .provider
            .finish(id, &receipt, &world.provider_key)
            .unwrap();
        self.client.deliver(id, &receipt, &claim).unwrap();
        let voucher = self
            .client
            .voucher(id, Nanograms::ZERO, &world.client_key)
            .unwrap();
        self.provider.accept(id, &voucher).unwrap();
    }

    fn tend(&self, policy: RedeemPolicy) -> Tended {
        let (id, key) = (self.world.id(), &self.world.provider_key);
        wait(self.provider.tend(&*self.world.chain, id, key, policy)).unwrap()
    }
}

const DAILY: RedeemPolicy = RedeemPolicy {
    value_min: match Nanograms::new(50_000_000) {
        Some(amount) => amount,
        None => panic!("an amount"),
    },
    age_seconds_max: 86_400,
    before_deadline_seconds: 3_600,
    resend_seconds: 60,
};

#[test]
fn a_voucher_is_redeemed_by_its_value() {
    let paid = Paid::new();
    paid.job(40_000_000);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    paid.job(10_000_000);
    let Tended::Sent { amount, message } = paid.tend(DAILY) else {
        panic!("not sent");
    };
    assert_eq!(amount, nano(50_000_000));
    // The chain shows it, by the message's transaction and by the amount; then there is no more.
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    let posted = paid.provider.posted(paid.world.id()).unwrap();
    let chain = paid.world.chain.lock().unwrap();
    let channel = &paid.world.id().address;
    let transactions = chain.account_now(channel).unwrap().last_lt;
    drop(chain);
    assert_eq!(posted, [transactions]);
    assert_ne!(message, [0; 32]);
    let (state, view) = (
        paid.world.state(),
        paid.provider.view(paid.world.id()).unwrap(),
    );
    assert_eq!(state.redeemed, nano(50_000_000));
    assert_eq!(state.commitment, view.commitment);
    assert_eq!((view.redeemed, view.owed), (state.redeemed, state.owed));
}

#[test]
fn a_voucher_is_redeemed_by_its_age_and_before_the_end() {
    let paid = Paid::new();
    paid.job(6_000_000);
    paid.world.advance(86_399);
    // A newer voucher does not make the older amount younger.
    paid.job(1_000_000);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    paid.world.advance(1);
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    paid.job(6_000_000);
    let now = paid.world.chain.lock().unwrap().now();
    let patient = RedeemPolicy {
        age_seconds_max: u32::MAX,
        ..DAILY
    };
    paid.world.advance(EXPIRY - 3_601 - now);
    assert_eq!(paid.tend(patient), Tended::Idle);
    paid.world.advance(1);
    assert!(matches!(paid.tend(patient), Tended::Sent { .. }));
    assert_eq!(paid.world.state().redeemed, nano(13_000_000));
}

/// In a channel that is busy every hour of the day a voucher comes between a posting and the look
/// that sees it: it is not as old as what was posted.
#[test]
fn what_was_promised_after_a_posting_is_no_older_than_it() {
    let paid = Paid::new();
    paid.job(6_000_000);
    paid.world.advance(86_400);
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    paid.job(6_000_000);
    paid.world.advance(30);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    paid.job(1_000_000);
    paid.world.advance(86_369);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    paid.world.advance(1);
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    assert_eq!(paid.world.state().redeemed, nano(13_000_000));
}

#[test]
fn a_close_is_answered_with_the_newest_voucher() {
    let paid = Paid::new();
    paid.job(6_000_000);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    let client = &paid.world.record.terms.client;
    paid.world
        .deliver(client, GRAM, None, channel::start_close(1));
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    let state = paid.world.state();
    assert_eq!(
        (state.status, state.redeemed),
        (ChannelStatus::Closing, nano(6_000_000))
    );
    // Too little for an external message is left to a wallet, whose gas it is.
    let paid = Paid::new();
    paid.job(STEP_MIN - 1);
    paid.world
        .deliver(client, GRAM, None, channel::start_close(1));
    let Tended::Small { body, gain } = paid.tend(DAILY) else {
        panic!("not small");
    };
    assert_eq!(gain, nano(STEP_MIN - 1));
    let owner = paid.world.record.terms.owner.clone();
    paid.world.deliver(&owner, GRAM / 10, None, body);
    assert_eq!(paid.world.state().redeemed, gain);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    // After the window it is too late, and said so.
    let paid = Paid::new();
    paid.job(7_000_000);
    paid.world
        .deliver(client, GRAM, None, channel::start_close(1));
    paid.world.advance(CHALLENGE);
    let lost = nano(7_000_000);
    assert_eq!(paid.tend(DAILY), Tended::Late { lost });
}

/// Terms may name a step below the gas of redeeming; the contract takes no such message.
#[test]
fn a_gain_below_its_gas_is_left_to_a_wallet() {
    let paid = Paid::on(World::open_on(DEPOSIT, 1));
    paid.job(1_000);
    for _ in 0..2 {
        let Tended::Small { gain, .. } = paid.tend(AT_ONCE) else {
            panic!("not small");
        };
        assert_eq!(gain, nano(1_000));
    }
    paid.job(60_000_000);
    assert!(matches!(paid.tend(AT_ONCE), Tended::Sent { .. }));
    assert_eq!(paid.world.state().redeemed, nano(60_001_000));
}

#[test]
fn what_the_deposit_lacks_is_redeemed_after_a_top_up() {
    let paid = Paid::new();
    let mut rest = paid.world.look().capacity.get();
    while rest > 0 {
        let price = rest.min(400_000_000);
        paid.job(price);
        rest -= price;
    }
    // Rent has eaten into the deposit by the time that the voucher is redeemed.
    paid.world.advance(25 * 86_400);
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    let view = wait(paid.provider.see(&*paid.world.chain, paid.world.id())).unwrap();
    let lacking = view.vouchered().get() - view.redeemed.get();
    assert!(lacking > 0);
    let client = &paid.world.record.terms.client;
    paid.world.deliver(client, GRAM, None, channel::top_up(1));
    let Tended::Small { body, gain } = paid.tend(AT_ONCE) else {
        panic!("a month's rent is less than the smallest step");
    };
    assert_eq!(gain, nano(lacking));
    paid.world.deliver(client, GRAM / 10, None, body);
    assert_eq!(paid.tend(AT_ONCE), Tended::Idle);
    assert_eq!(paid.world.state().redeemed, view.vouchered());
}

#[test]
fn a_message_without_a_trace_is_sent_again_after_a_while() {
    let paid = Paid::new();
    paid.job(60_000_000);
    let nowhere = crate::unreliable::Unreliable::dropping(&*paid.world.chain);
    let (id, key) = (paid.world.id(), &paid.world.provider_key);
    let tend = || wait(paid.provider.tend(&nowhere, id, key, DAILY)).unwrap();
    let first = tend();
    assert!(matches!(first, Tended::Sent { .. }));
    assert_eq!(tend(), Tended::Waiting);
    paid.world.advance(60);
    assert_eq!(tend(), first);
    // The same message, since the same voucher: whichever arrives, it is credited once.
    paid.world.advance(60);
    assert_eq!(paid.tend(DAILY), first);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    assert_eq!(paid.world.state().redeemed, nano(60_000_000));
}

#[test]
fn the_payout_is_what_was_redeemed_less_its_way() {
    let paid = Paid::new();
    paid.job(300_000_000);
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    let view = wait(paid.provider.see(&*paid.world.chain, paid.world.id())).unwrap();
    let (payout, owner) = (
        &paid.world.record.side.payout,
        &paid.world.record.terms.owner,
    );
    let before = paid.world.balance(payout);
    paid.world
        .deliver(owner, GRAM / 10, None, channel::withdraw(1, true));
    let paid_out = paid.world.balance(payout) - before;
    assert!(view.owed.get() - paid_out < 1_000_000, "{paid_out}");
    let view = wait(paid.provider.see(&*paid.world.chain, paid.world.id())).unwrap();
    assert_eq!(view.owed, Nanograms::ZERO);
}

/// A server that reads so many transactions and no more, as all do; and may lie.
struct Server<'a> {
    chain: &'a Mutex<EmbeddedChain>,
    lie: Option<Lie>,
}

/// Where `channel_state` has what was redeemed.
const REDEEMED: usize = 4;

/// What a server says of the channel that is not so.
#[derive(Clone, Copy)]
enum Lie {
    /// That it is closed.
    Closed,
    /// That all of this was redeemed.
    Redeemed(u64),
    /// That the deposit covers nothing.
    Empty,
}

impl Chain for Server<'_> {
    fn network(&self) -> NetworkId {
        self.chain.network()
    }

    async fn time(&self) -> Result<u32, ChainError> {
        self.chain.time().await
    }

    async fn send_boc(&self, message: Cell) -> Result<(), ChainError> {
        self.chain.send_boc(message).await
    }

    async fn account(&self, address: &Address) -> Result<Account, ChainError> {
        self.chain.account(address).await
    }

    async fn run_get_method(
        &self,
        address: &Address,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> Result<Vec<StackValue>, ChainError> {
        let answer = self.chain.run_get_method(address, method, arguments);
        let mut answer = answer.await?;
        match self.lie {
            Some(Lie::Closed) if method == ChannelState::METHOD => {
                answer[0] = StackValue::from(3);
            }
            Some(Lie::Redeemed(amount)) if method == ChannelState::METHOD => {
                answer[REDEEMED] = StackValue::from(amount);
            }
            Some(Lie::Empty) if method == "channel_capacity" => answer[0] = StackValue::from(0),
            _ => {}
        }
        Ok(answer)
    }

    async fn transactions(
        &self,
        account: &Address,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        let all = self.chain.transactions(account, after_lt).await?;
        if all.len() < 300 {
            return Ok(all);
        }
        Err(ToncenterError::TooMany {
            account: account.clone(),
            transactions_max: 300,
        }
        .into())
    }

    async fn newest_transactions(
        &self,
        address: &Address,
        after_lt: u64,
        count_max: usize,
    ) -> Result<Vec<Transaction>, ChainError> {
        let newest = self.chain.newest_transactions(address, after_lt, count_max);
        newest.await
    }
}

#[test]
fn small_change_from_strangers_does_not_stop_a_provider() {
    let paid = Paid::new();
    let (id, key) = (paid.world.id(), &paid.world.provider_key);
    let chain = Server {
        chain: &paid.world.chain,
        lie: None,
    };
    let tend = || wait(paid.provider.tend(&chain, id, key, DAILY)).unwrap();
    paid.job(60_000_000);
    assert!(matches!(tend(), Tended::Sent { .. }));
    let stranger = paid.world.record.terms.client.clone();
    for number in 0..300 {
        paid.world
            .deliver(&stranger, GRAM / 100, None, channel::top_up(number));
    }
    // Its own message is buried, and known by the amount.
    assert_eq!(tend(), Tended::Idle);
    assert_eq!(paid.world.state().redeemed, nano(60_000_000));
    assert_eq!(paid.provider.posted(id).unwrap(), Vec::<u64>::new());
    paid.job(60_000_000);
    assert!(matches!(tend(), Tended::Sent { .. }));
    assert_eq!(tend(), Tended::Idle);
    assert_eq!(paid.provider.posted(id).unwrap().len(), 1);
    assert_eq!(paid.world.state().redeemed, nano(120_000_000));
}

#[test]
fn one_wrong_answer_does_not_cost_a_voucher() {
    let paid = Paid::new();
    let (id, key) = (paid.world.id(), &paid.world.provider_key);
    paid.job(60_000_000);
    let liar = |lie| Server {
        chain: &paid.world.chain,
        lie: Some(lie),
    };
    let lost = nano(60_000_000);
    for (lie, said, reason) in [
        (Lie::Closed, Tended::Late { lost }, "closed"),
        (Lie::Redeemed(10 * GRAM), Tended::Idle, "redeemed"),
        (Lie::Empty, Tended::Idle, "nothing left to redeem"),
    ] {
        let tended = wait(paid.provider.tend(&liar(lie), id, key, DAILY)).unwrap();
        assert_eq!(tended, said, "{reason}");
    }
    assert!(matches!(paid.tend(DAILY), Tended::Sent { .. }));
    assert_eq!(paid.world.state().redeemed, lost);
    // Nor does an answer from before it was credited make a failure of it.
    let behind = liar(Lie::Redeemed(0));
    let tended = wait(paid.provider.tend(&behind, id, key, DAILY)).unwrap();
    assert_eq!(tended, Tended::Waiting);
    assert_eq!(paid.tend(DAILY), Tended::Idle);
    // Where it is true nothing is sent.
    let paid = Paid::new();
    paid.job(60_000_000);
    paid.world.advance(EXPIRY);
    assert_eq!(paid.tend(DAILY), Tended::Late { lost });
    assert_eq!(paid.world.state().redeemed, Nanograms::ZERO);
}
