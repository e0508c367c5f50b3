//! What became of a message: accepted, too late, or nobody can say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::chain::toncenter::ToncenterError;
use tussah_settlement::chain::{
    Clock, Confirmation, EmbeddedChain, Sent, StackValue, Transaction, confirm, external_hash,
};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::{Account, Address, Cell, Chain, ChainError};
use tycho_types::cell::{CellBuilder, CellSliceParts};
use tycho_types::models::{ExtInMsgInfo, IntAddr, MsgInfo, OwnedMessage};
use tycho_types::num::Tokens;

use crate::fixture::*;
use crate::localnet::now;

/// A chain whose time passes while somebody waits, and whose server fails or loses messages as
/// often as it is told.
pub(crate) struct Network {
    pub(crate) chain: Mutex<EmbeddedChain>,
    /// Seconds of the chain's time in a second of ours.
    pace: u32,
    pub(crate) failures: AtomicU32,
    pub(crate) losses: AtomicU32,
    /// Sendings whose answer breaks off after the message has arrived.
    pub(crate) breaks: AtomicU32,
    /// A gateway's status in place of an answer, to what has arrived; 0 where there is no gateway.
    pub(crate) gateway: AtomicU32,
    waited_ms: Mutex<u64>,
}

impl Network {
    pub(crate) fn new(chain: EmbeddedChain, pace: u32) -> Self {
        Self {
            chain: Mutex::new(chain),
            pace,
            failures: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            breaks: AtomicU32::new(0),
            gateway: AtomicU32::new(0),
            waited_ms: Mutex::default(),
        }
    }

    fn fail(&self) -> Result<(), ChainError> {
        let left = self.failures.load(Relaxed);
        if left == 0 {
            return Ok(());
        }
        self.failures.store(left - 1, Relaxed);
        Err(hung_up("getTransactions"))
    }
}

fn hung_up(method: &'static str) -> ChainError {
    ToncenterError::Transport {
        host: "test".to_owned(),
        method,
        source: "it hung up".into(),
    }
    .into()
}

fn refused(code: u32) -> ChainError {
    ToncenterError::Refused {
        host: "test".to_owned(),
        method: "sendBoc",
        code: code.into(),
        reason: "the answer is no JSON".to_owned(),
        wait: None,
    }
    .into()
}

impl Chain for Network {
    fn network(&self) -> NetworkId {
        self.chain.network()
    }

    async fn time(&self) -> Result<u32, ChainError> {
        self.chain.time().await
    }

    async fn send_boc(&self, message: Cell) -> Result<(), ChainError> {
        if self.losses.load(Relaxed) > 0 {
            self.losses.fetch_sub(1, Relaxed);
            return Ok(());
        }
        self.chain.send_boc(message).await?;
        if self.breaks.load(Relaxed) > 0 {
            self.breaks.fetch_sub(1, Relaxed);
            return Err(hung_up("sendBoc"));
        }
        match self.gateway.load(Relaxed) {
            0 => Ok(()),
            code => Err(refused(code)),
        }
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
        self.chain.run_get_method(address, method, arguments).await
    }

    async fn transactions(
        &self,
        address: &Address,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        self.fail()?;
        self.chain.transactions(address, after_lt).await
    }
}

impl Clock for Network {
    fn now(&self) -> Duration {
        Duration::from_millis(*self.waited_ms.lock().unwrap())
    }

    async fn sleep(&self, time: Duration) {
        *self.waited_ms.lock().unwrap() += u64::try_from(time.as_millis()).unwrap();
        let seconds = u32::try_from(time.as_millis()).unwrap() * self.pace / 1_000;
        self.chain.lock().unwrap().advance(seconds);
    }

    fn any_number(&self) -> u64 {
        0
    }
}

/// The same signed body in another wrapping, as anybody could make it who sees the message.
fn wrapped_anew(channel: &Address, body: &Cell) -> Cell {
    let info = MsgInfo::ExtIn(ExtInMsgInfo {
        dst: IntAddr::Std(channel.clone()),
        import_fee: Tokens::new(5),
        ..ExtInMsgInfo::default()
    });
    let message = OwnedMessage {
        info,
        init: None,
        body: CellSliceParts::from(body.clone()),
        layout: None,
    };
    CellBuilder::build_from(message).unwrap()
}

fn sent(world: &World, message: &Cell) -> Sent {
    Sent {
        account: world.channel.clone(),
        after_lt: world.chain.account_now(&world.channel).unwrap().last_lt,
        message: message.clone(),
        valid_until: world.chain.now() + 60,
    }
}

#[test]
fn an_accepted_message_is_found_however_it_was_wrapped() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let channel = world.channel.clone();
    let message = external_message(&channel, None, &body).unwrap();
    let other = wrapped_anew(&channel, &body);
    assert_ne!(message.repr_hash(), other.repr_hash());
    assert_eq!(
        external_hash(&message).unwrap(),
        external_hash(&other).unwrap()
    );
    let sent = sent(&world, &message);
    let network = Network::new(world.chain, 1);
    network.failures.store(10, Relaxed);
    now(network.send_boc(other.clone())).unwrap();
    let Confirmation::Accepted(transaction) = now(confirm(&network, &network, &sent)).unwrap()
    else {
        panic!("it is there")
    };
    assert_eq!(transaction.message_hash, other.repr_hash().0);
    assert_eq!(ended(&transaction), "ok");
    // What was there before it was sent is not its transaction.
    let later = Sent {
        after_lt: transaction.lt,
        ..sent
    };
    let late = now(confirm(&network, &network, &later)).unwrap();
    assert_eq!(late, Confirmation::Expired);
}

#[test]
fn a_message_that_never_comes_is_too_late_by_the_chains_time() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let message = external_message(&world.channel, None, &body).unwrap();
    let sent = sent(&world, &message);
    let network = Network::new(world.chain, 10);
    let late = now(confirm(&network, &network, &sent)).unwrap();
    assert_eq!(late, Confirmation::Expired);
    let time = now(network.time()).unwrap();
    assert!(time > sent.valid_until + 30, "{time}");
}

#[test]
fn a_chain_that_stands_still_or_fails_says_nothing() {
    let mut world = World::open(2 * GRAM);
    let body = world.redeem_body(100_000_000);
    let message = external_message(&world.channel, None, &body).unwrap();
    let sent = sent(&world, &message);
    let network = Network::new(world.chain, 0);
    let error = now(confirm(&network, &network, &sent)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the chain has stood still at second {START}")
    );
    assert!(error.is_transient());
    assert!(network.now() > Duration::from_secs(120));
    network.failures.store(11, Relaxed);
    let error = now(confirm(&network, &network, &sent)).unwrap_err();
    assert!(matches!(error, ChainError::Toncenter(_)), "{error:?}");
}
