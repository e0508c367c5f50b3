//! `EmbeddedChain`: real TVM transactions in this process; no node, no network, no blocks to wait for.
//!
//! In: messages, and a clock that only its owner moves. Out: accounts and transactions as TON
//! would have them: tycho-executor runs storage, compute, action and bounce phases.
//! A message and all that it causes are delivered before the call returns, each in a block of its
//! own second unless the clock stands still. Money comes from [`EmbeddedChain::deliver`] alone,
//! and [`EmbeddedChain::total`] plus [`EmbeddedChain::fees`] is always what was delivered.

mod explore;
mod saved;

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, ready};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tussah_manifest::Nanograms;
use tycho_executor::{
    Executor, ExecutorInspector, ExecutorOutput, ExecutorParams, ParsedConfig, TxError,
};
use tycho_types::cell::{Cell, CellBuilder, CellSliceParts, HashBytes, Lazy};
use tycho_types::crc::crc_16;
use tycho_types::models::{
    AccountState, CurrencyCollection, ExtInMsgInfo, IntAddr, IntMsgInfo, MsgInfo, OptionalAccount,
    OwnedMessage, ShardAccount, StateInit, StdAddr,
};
use tycho_vm::{OwnedCellSlice, RcStackValue, SafeRc, Stack};

pub use self::explore::{GetMethodId, GetMethodRun};
use crate::chain::describe::{describe, nanograms};
use crate::chain::recorder::{Outcome, Step};
use crate::chain::{
    Account, AccountStatus, Chain, ChainError, StackValue, Transaction, localnet_config,
};
use crate::voucher::NetworkId;

/// Logical time between two transactions; room for the messages of each.
const LT_STEP: u64 = 1_000_000;

/// A message of our own making, from somebody whose wallet is not simulated.
#[derive(Debug, Clone)]
pub struct Internal {
    /// Who sends it.
    pub from: StdAddr,
    /// Whom it is for.
    pub to: StdAddr,
    /// What it carries.
    pub value: Nanograms,
    /// Whether it comes back if it fails.
    pub bounce: bool,
    /// The code and state to deploy or revive with it.
    pub init: Option<StateInit>,
    /// What it says.
    pub body: Cell,
}

/// A chain in this process.
pub struct EmbeddedChain {
    network: NetworkId,
    config: ParsedConfig,
    accounts: BTreeMap<StdAddr, ShardAccount>,
    /// The cells of each account's transactions, by logical time.
    transactions: BTreeMap<StdAddr, BTreeMap<u64, Cell>>,
    /// Logical time of the last transaction.
    lt: u64,
    now: u32,
    fees: u128,
    /// Every transaction since [`EmbeddedChain::record`] was called.
    steps: Option<Vec<Step>>,
}

impl std::fmt::Debug for EmbeddedChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedChain")
            .field("network", &self.network)
            .field("accounts", &self.accounts.len())
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl EmbeddedChain {
    /// A chain without accounts, whose clock stands at `now`.
    ///
    /// # Errors
    /// [`ChainError::Cell`] if the configuration cannot be built.
    pub fn new(now: u32) -> Result<Self, ChainError> {
        let network = NetworkId::LOCALNET;
        Ok(Self {
            network,
            config: localnet_config(network)?,
            accounts: BTreeMap::new(),
            transactions: BTreeMap::new(),
            lt: LT_STEP,
            now,
            fees: 0,
            steps: None,
        })
    }

    /// The second that the next transactions are in.
    pub fn now(&self) -> u32 {
        self.now
    }

    /// Moves the clock on; it never goes back.
    pub fn advance(&mut self, seconds: u32) {
        self.now = self.now.saturating_add(seconds);
    }

    /// What all accounts hold together, in nanograms.
    ///
    /// # Errors
    /// [`ChainError::Cell`] if an account cannot be read.
    pub fn total(&self) -> Result<u128, ChainError> {
        let mut total = 0;
        for account in self.accounts.values() {
            if let Some(account) = account.load_account()? {
                total += account.balance.tokens.into_inner();
            }
        }
        Ok(total)
    }

    /// What validators have earned so far, in nanograms.
    pub fn fees(&self) -> u128 {
        self.fees
    }

    /// Keeps every transaction from now on, with all that goes into it.
    pub fn record(&mut self) {
        self.steps.get_or_insert_default();
    }

    /// What was recorded.
    pub fn recorded(&self) -> &[Step] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// The configuration's parameters, as a dictionary's root.
    pub fn config(&self) -> Cell {
        let params = self.config.raw.params.as_dict();
        params.root().clone().unwrap_or_default()
    }

    /// The account as of now; the same as [`Chain::account`], without waiting.
    ///
    /// # Errors
    /// [`ChainError::Cell`] if the account cannot be read.
    pub fn account_now(&self, address: &StdAddr) -> Result<Account, ChainError> {
        let missing = Account {
            balance: Nanograms::ZERO,
            status: AccountStatus::Missing,
            last_lt: 0,
        };
        let Some(shard) = self.accounts.get(address) else {
            return Ok(missing);
        };
        let Some(account) = shard.load_account()? else {
            return Ok(missing);
        };
        Ok(Account {
            balance: nanograms(account.balance.tokens)?,
            status: match account.state {
                AccountState::Uninit => AccountStatus::Uninit,
                AccountState::Active(init) => AccountStatus::Active(Box::new(init)),
                AccountState::Frozen(hash) => AccountStatus::Frozen(hash.0),
            },
            last_lt: shard.last_trans_lt,
        })
    }

    /// Delivers money and a message from outside of the chain, and all that it causes.
    /// The first transaction is the message's own.
    ///
    /// # Errors
    /// [`ChainError`] if the message is none or cannot be run; a contract that refuses it is no error.
    pub fn deliver(&mut self, message: &Internal) -> Result<Vec<Transaction>, ChainError> {
        let info = MsgInfo::Int(IntMsgInfo {
            ihr_disabled: true,
            bounce: message.bounce,
            src: IntAddr::Std(message.from.clone()),
            dst: IntAddr::Std(message.to.clone()),
            value: CurrencyCollection::new(message.value.get().into()),
            created_lt: self.lt,
            created_at: self.now,
            ..IntMsgInfo::default()
        });
        self.run_all(build(info, message.init.clone(), &message.body)?)
    }

    /// Hands over an external message, and delivers all that it causes.
    ///
    /// # Errors
    /// [`ChainError::NotAccepted`] if the contract does not accept it; then nothing has changed.
    pub fn send(&mut self, message: Cell) -> Result<Vec<Transaction>, ChainError> {
        self.run_all(message)
    }

    fn run_all(&mut self, message: Cell) -> Result<Vec<Transaction>, ChainError> {
        let mut queue = VecDeque::from([message]);
        let mut done = Vec::new();
        while let Some(message) = queue.pop_front() {
            let parsed = message.parse::<OwnedMessage>()?;
            let (to, is_external) = match &parsed.info {
                MsgInfo::Int(info) => (info.dst.clone(), false),
                MsgInfo::ExtIn(info) => (info.dst.clone(), true),
                // An event: nobody receives it.
                MsgInfo::ExtOut(_) => continue,
            };
            if is_external && !done.is_empty() {
                return Err(ChainError::Message(
                    "a contract sent an external message in".to_owned(),
                ));
            }
            let IntAddr::Std(to) = to else {
                return Err(ChainError::Message(
                    "its address is not a standard one".to_owned(),
                ));
            };
            let transaction = self.run_one(&to, is_external, message)?;
            queue.extend(transaction.out_messages.iter().cloned());
            done.push(transaction);
        }
        Ok(done)
    }

    fn run_one(
        &mut self,
        to: &StdAddr,
        is_external: bool,
        message: Cell,
    ) -> Result<Transaction, ChainError> {
        let lt = self.lt + LT_STEP;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&lt.to_be_bytes());
        let before = match self.accounts.get(to) {
            Some(account) => account.clone(),
            None => ShardAccount {
                account: Lazy::new(&OptionalAccount(None))?,
                last_trans_hash: HashBytes::ZERO,
                last_trans_lt: 0,
            },
        };
        let forward_fee = forward_fee(&message)?;
        let recorded = self.steps.is_some().then(|| message.clone());
        let frozen = self.frozen_by_debt(to, &before, &message)?;
        let input = frozen.as_ref().unwrap_or(&before);
        let (run, exit_code) = self.execute(to, is_external, message, input, lt, seed);
        if let (Some(steps), Some(message)) = (&mut self.steps, recorded) {
            let outcome = match &run {
                Ok(output) => Some(Outcome {
                    transaction: output.transaction.inner().clone(),
                    after: CellBuilder::build_from(&output.new_state)?,
                }),
                Err(_) => None,
            };
            steps.push(Step {
                before: CellBuilder::build_from(&before)?,
                message,
                is_external,
                now: self.now,
                lt,
                seed,
                outcome,
                exit_code,
            });
        }
        let output = run?;
        // The rest of the forwarding fee is earned where the message arrives.
        self.fees += output.transaction_meta.total_fees.into_inner()
            + output.burned.into_inner()
            + forward_fee;
        self.lt = lt.max(output.transaction_meta.next_lt);
        let cell = output.transaction.inner().clone();
        let transaction = describe(to, &cell)?;
        self.accounts.insert(to.clone(), output.new_state);
        let log = self.transactions.entry(to.clone()).or_default();
        log.insert(transaction.lt, cell);
        Ok(transaction)
    }

    /// The account as frozen, if it is active and owes too much rent by now. The executor runs
    /// the code of such an account once more and freezes it afterwards; the reference
    /// implementation freezes it first, and so do we.
    fn frozen_by_debt(
        &self,
        address: &StdAddr,
        before: &ShardAccount,
        message: &Cell,
    ) -> Result<Option<ShardAccount>, ChainError> {
        let Some(mut account) = before.load_account()? else {
            return Ok(None);
        };
        let AccountState::Active(init) = &account.state else {
            return Ok(None);
        };
        let hash = *CellBuilder::build_from(init)?.repr_hash();
        let stat = &account.storage_stat;
        let is_masterchain = address.is_masterchain();
        let fees = self
            .config
            .compute_storage_fees(stat, self.now, false, is_masterchain);
        let rent = fees.into_inner() + stat.due_payment.unwrap_or_default().into_inner();
        let mut funds = account.balance.tokens.into_inner();
        // What does not bounce is credited before rent is taken.
        if let MsgInfo::Int(info) = message.parse::<OwnedMessage>()?.info
            && !info.bounce
        {
            funds += info.value.tokens.into_inner();
        }
        let debt_max = self.config.gas_prices(is_masterchain).freeze_due_limit;
        if rent.saturating_sub(funds) <= u128::from(debt_max) {
            return Ok(None);
        }
        account.state = AccountState::Frozen(hash);
        Ok(Some(ShardAccount {
            account: Lazy::new(&OptionalAccount(Some(account)))?,
            ..before.clone()
        }))
    }

    /// Runs one transaction; its code's exit code is known even where nothing comes of it.
    fn execute(
        &self,
        to: &StdAddr,
        is_external: bool,
        message: Cell,
        before: &ShardAccount,
        lt: u64,
        seed: [u8; 32],
    ) -> (Result<ExecutorOutput, ChainError>, Option<i32>) {
        let params = ExecutorParams {
            rand_seed: HashBytes(seed),
            block_unixtime: self.now,
            block_lt: lt,
            charge_action_fees_on_fail: true,
            strict_extra_currency: true,
            ..ExecutorParams::default()
        };
        let mut inspector = ExecutorInspector::default();
        let executor = Executor::new(&params, &self.config).with_min_lt(lt);
        let run =
            executor.begin_ordinary_ext(to, is_external, message, before, Some(&mut inspector));
        let exit_code = inspector.exit_code;
        let output = match run {
            Ok(run) => run
                .commit()
                .map_err(|error| ChainError::Executor(error.into())),
            Err(TxError::Skipped) => Err(ChainError::NotAccepted { exit_code }),
            Err(TxError::Fatal(error)) => Err(ChainError::Executor(error.into())),
        };
        (output, exit_code)
    }

    /// The account's transactions after `after_lt`; the same as [`Chain::transactions`], without
    /// waiting.
    ///
    /// # Errors
    /// [`ChainError::Cell`] if one cannot be read.
    pub fn transactions_after(
        &self,
        address: &StdAddr,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        let logs = self.transactions.get(address).into_iter();
        let later = logs.flat_map(|log| log.range(after_lt.saturating_add(1)..));
        later.map(|(_, cell)| describe(address, cell)).collect()
    }

    /// Runs a get-method; the same as [`Chain::run_get_method`], without waiting.
    ///
    /// # Errors
    /// [`ChainError::GetMethod`] with the exit code, where it fails.
    pub fn get(
        &self,
        address: &StdAddr,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> Result<Vec<StackValue>, ChainError> {
        let account = self.account_now(address)?;
        if !matches!(account.status, AccountStatus::Active(_)) {
            return Err(ChainError::NoCode(address.clone()));
        }
        let values = arguments.into_iter().map(write).collect();
        let run = self.run_get(address, &GetMethodId::Name(method.to_owned()), values)?;
        if run.exit_code != 0 && run.exit_code != 1 {
            return Err(ChainError::GetMethod {
                method: method.to_owned(),
                exit_code: run.exit_code,
            });
        }
        let stack = run.stack.iter();
        stack.map(|value| read(method, value)).collect()
    }
}

/// Turns a value of ours into one of the machine.
fn write(value: StackValue) -> RcStackValue {
    match value {
        StackValue::Null => Stack::make_null(),
        StackValue::Int(value) => SafeRc::new_dyn_value(value),
        StackValue::Cell(cell) => SafeRc::new_dyn_value(cell),
        StackValue::Slice(cell) => SafeRc::new_dyn_value(OwnedCellSlice::new_allow_exotic(cell)),
        StackValue::Tuple(values) => {
            SafeRc::new_dyn_value(values.into_iter().map(write).collect::<Vec<_>>())
        }
    }
}

/// Turns a value of the machine into one of ours.
fn read(method: &str, value: &RcStackValue) -> Result<StackValue, ChainError> {
    if let Some(int) = value.as_int() {
        return Ok(StackValue::Int(int.clone()));
    }
    if let Some(cell) = value.as_cell() {
        return Ok(StackValue::Cell(cell.clone()));
    }
    if let Some(slice) = value.as_cell_slice() {
        return Ok(StackValue::Slice(CellBuilder::build_from(slice.apply())?));
    }
    if value.is_null() {
        return Ok(StackValue::Null);
    }
    if let Some(values) = value.as_tuple() {
        let values = values.iter().map(|value| read(method, value));
        return Ok(StackValue::Tuple(values.collect::<Result<_, _>>()?));
    }
    Err(ChainError::Answer {
        method: method.to_owned(),
    })
}

/// An external message for a contract.
///
/// # Errors
/// [`ChainError::Cell`] if the body is too large to be carried.
pub fn external_message(
    to: &StdAddr,
    init: Option<StateInit>,
    body: &Cell,
) -> Result<Cell, ChainError> {
    let info = MsgInfo::ExtIn(ExtInMsgInfo {
        dst: IntAddr::Std(to.clone()),
        ..ExtInMsgInfo::default()
    });
    build(info, init, body)
}

fn build(info: MsgInfo, init: Option<StateInit>, body: &Cell) -> Result<Cell, ChainError> {
    let message = OwnedMessage {
        info,
        init,
        body: CellSliceParts::from(body.clone()),
        layout: None,
    };
    Ok(CellBuilder::build_from(message)?)
}

/// What of a message's forwarding fee is still to be earned.
fn forward_fee(message: &Cell) -> Result<u128, ChainError> {
    Ok(match message.parse::<OwnedMessage>()?.info {
        MsgInfo::Int(info) => info.fwd_fee.into_inner(),
        _ => 0,
    })
}

/// The number of a get-method: CRC-16 of its name, with bit 16 set.
fn method_id(name: &str) -> u32 {
    u32::from(crc_16(name.as_bytes())) | 0x1_0000
}

/// One chain that several parts of a program share.
impl Chain for Mutex<EmbeddedChain> {
    fn network(&self) -> NetworkId {
        lock(self).network
    }

    fn time(&self) -> impl Future<Output = Result<u32, ChainError>> + Send {
        ready(Ok(lock(self).now))
    }

    fn send_boc(&self, message: Cell) -> impl Future<Output = Result<(), ChainError>> + Send {
        ready(lock(self).send(message).map(drop))
    }

    fn account(
        &self,
        address: &StdAddr,
    ) -> impl Future<Output = Result<Account, ChainError>> + Send {
        ready(lock(self).account_now(address))
    }

    fn run_get_method(
        &self,
        address: &StdAddr,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> impl Future<Output = Result<Vec<StackValue>, ChainError>> + Send {
        ready(lock(self).get(address, method, arguments))
    }

    fn transactions(
        &self,
        address: &StdAddr,
        after_lt: u64,
    ) -> impl Future<Output = Result<Vec<Transaction>, ChainError>> + Send {
        ready(lock(self).transactions_after(address, after_lt))
    }
}

/// A transaction is applied whole or not at all, so what a panic left behind can be used.
fn lock(chain: &Mutex<EmbeddedChain>) -> MutexGuard<'_, EmbeddedChain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}
