//! What a chain's own server asks beyond [`Chain`](crate::chain::Chain): cells as they are,
//! get-methods by number, and what a message would cost.
//!
//! In: an embedded chain. Out: its cells and the machine's own values. Nothing here changes it.

use num_bigint::BigInt;
use tycho_executor::{Executor, ExecutorInspector, ExecutorParams, TxError};
use tycho_types::cell::{Cell, HashBytes, Lazy};
use tycho_types::models::{
    CurrencyCollection, IntAddr, MsgInfo, OptionalAccount, OwnedMessage, ShardAccount, StdAddr,
};
use tycho_vm::{
    BehaviourModifiers, GasParams, RcStackValue, SafeRc, SmcInfoBase, VmState, VmVersion,
};

use super::{EmbeddedChain, LT_STEP, method_id};
use crate::chain::{AccountStatus, ChainError};
use crate::voucher::NetworkId;

/// A get-method by name or by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetMethodId {
    /// Its name, of which the number is computed.
    Name(String),
    /// The number itself.
    Number(i64),
}

/// How a get-method ended.
#[derive(Debug)]
pub struct GetMethodRun {
    /// 0 and 1 are success; -13 says that the account has no code.
    pub exit_code: i32,
    /// Gas that it took.
    pub gas_used: u64,
    /// What it left, the first value first.
    pub stack: Vec<RcStackValue>,
}

impl EmbeddedChain {
    /// Which network its transactions are bound to.
    pub fn network_id(&self) -> NetworkId {
        self.network
    }

    /// Logical time of the last transaction and its messages.
    pub fn last_lt(&self) -> u64 {
        self.lt
    }

    /// Every account that ever had a transaction, in the order of their addresses.
    pub fn accounts(&self) -> impl Iterator<Item = &StdAddr> {
        self.transactions.keys()
    }

    /// The account's cell, with the hash of its last transaction.
    pub fn shard_account(&self, address: &StdAddr) -> Option<&ShardAccount> {
        self.accounts.get(address)
    }

    /// The account's transactions with their logical times, the oldest first.
    pub fn log(&self, address: &StdAddr) -> impl DoubleEndedIterator<Item = (u64, &Cell)> {
        let log = self.transactions.get(address).into_iter().flatten();
        log.map(|(lt, cell)| (*lt, cell))
    }

    /// The transaction with this logical time.
    pub fn transaction(&self, address: &StdAddr, lt: u64) -> Option<&Cell> {
        self.transactions.get(address)?.get(&lt)
    }

    /// Runs a get-method, whatever comes of it.
    ///
    /// # Errors
    /// [`ChainError::Cell`] if the account cannot be read.
    pub fn run_get(
        &self,
        address: &StdAddr,
        method: &GetMethodId,
        arguments: Vec<RcStackValue>,
    ) -> Result<GetMethodRun, ChainError> {
        let account = self.account_now(address)?;
        let AccountStatus::Active(init) = account.status else {
            return Ok(GetMethodRun {
                exit_code: -13,
                gas_used: 0,
                stack: Vec::new(),
            });
        };
        let code = init.code.unwrap_or_default();
        let balance = CurrencyCollection::new(account.balance.get().into());
        let info = SmcInfoBase::new()
            .with_now(self.now)
            .with_block_lt(self.lt)
            .with_tx_lt(self.lt)
            .with_account_balance(balance)
            .with_account_addr(IntAddr::Std(address.clone()))
            .with_config(self.config.raw.params.clone())
            .require_ton_v4()
            .with_code(code.clone())
            .require_ton_v6()
            .with_unpacked_config(self.config.unpacked.as_tuple())
            .require_ton_v11();
        let number = match method {
            GetMethodId::Name(name) => BigInt::from(method_id(name)),
            GetMethodId::Number(number) => BigInt::from(*number),
        };
        let mut values = arguments;
        values.push(SafeRc::new_dyn_value(number));
        let mut vm = VmState::builder()
            .with_smc_info(info)
            .with_version(VmVersion::LATEST_TON)
            .with_code(code)
            .with_data(init.data.unwrap_or_default())
            .with_init_selector(false)
            .with_stack(values)
            .with_gas(GasParams::getter())
            .build();
        let exit_code = !vm.run();
        Ok(GetMethodRun {
            exit_code,
            gas_used: vm.gas.consumed(),
            stack: vm.stack.items.clone(),
        })
    }

    /// The transaction that an external message would make now. With `trusting`, every check of a
    /// signature succeeds: what a transfer costs is asked before it is signed.
    ///
    /// # Errors
    /// [`ChainError::NotAccepted`] if the contract would not accept it,
    /// [`ChainError::Message`] if it is no external message for an account of this chain.
    pub fn rehearse(&self, message: Cell, trusting: bool) -> Result<Cell, ChainError> {
        let parsed = message.parse::<OwnedMessage>()?;
        let MsgInfo::ExtIn(info) = &parsed.info else {
            return Err(ChainError::Message("it is not external".to_owned()));
        };
        let IntAddr::Std(to) = info.dst.clone() else {
            let reason = "its address is not a standard one";
            return Err(ChainError::Message(reason.to_owned()));
        };
        let lt = self.lt + LT_STEP;
        let params = ExecutorParams {
            rand_seed: HashBytes([0; 32]),
            block_unixtime: self.now,
            block_lt: lt,
            vm_modifiers: BehaviourModifiers {
                chksig_always_succeed: trusting,
                ..BehaviourModifiers::default()
            },
            charge_action_fees_on_fail: true,
            strict_extra_currency: true,
            ..ExecutorParams::default()
        };
        let before = match self.accounts.get(&to) {
            Some(account) => account.clone(),
            None => ShardAccount {
                account: Lazy::new(&OptionalAccount(None))?,
                last_trans_hash: HashBytes::ZERO,
                last_trans_lt: 0,
            },
        };
        let mut inspector = ExecutorInspector::default();
        let executor = Executor::new(&params, &self.config).with_min_lt(lt);
        let run = executor.begin_ordinary_ext(&to, true, message, &before, Some(&mut inspector));
        let exit_code = inspector.exit_code;
        match run.and_then(|run| run.commit().map_err(TxError::Fatal)) {
            Ok(output) => Ok(output.transaction.inner().clone()),
            Err(TxError::Skipped) => Err(ChainError::NotAccepted { exit_code }),
            Err(TxError::Fatal(error)) => Err(ChainError::Executor(error.into())),
        }
    }
}
