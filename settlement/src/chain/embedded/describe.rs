//! What a transaction's cell says, in our words.
//!
//! In: a transaction that the executor made. Out: [`Transaction`].

use tussah_manifest::Nanograms;
use tycho_types::cell::Cell;
use tycho_types::models::{ComputePhase, StdAddr, TxInfo};
use tycho_types::num::Tokens;

use crate::chain::{ChainError, Transaction};

/// Reads a transaction of `account`.
pub(super) fn describe(account: &StdAddr, cell: &Cell) -> Result<Transaction, ChainError> {
    let transaction = cell.parse::<tycho_types::models::Transaction>()?;
    let (gas_used, exit_code, action_code, aborted) = match transaction.load_info()? {
        TxInfo::Ordinary(info) => {
            let (gas_used, exit_code) = match &info.compute_phase {
                ComputePhase::Executed(phase) => {
                    (phase.gas_used.into_inner(), Some(phase.exit_code))
                }
                ComputePhase::Skipped(_) => (0, None),
            };
            let action_code = info.action_phase.as_ref().map(|phase| phase.result_code);
            (gas_used, exit_code, action_code, info.aborted)
        }
        TxInfo::TickTock(_) => (0, None, None, false),
    };
    let message = transaction.in_msg.as_ref();
    let mut out_messages = Vec::new();
    for message in transaction.out_msgs.values() {
        out_messages.push(message?);
    }
    Ok(Transaction {
        account: account.clone(),
        lt: transaction.lt,
        now: transaction.now,
        message_hash: message.map_or([0; 32], |message| message.repr_hash().0),
        exit_code,
        action_code,
        gas_used,
        fees: nanograms(transaction.total_fees.tokens)?,
        aborted,
        out_messages,
    })
}

pub(super) fn nanograms(tokens: Tokens) -> Result<Nanograms, ChainError> {
    let amount = u64::try_from(tokens.into_inner())
        .ok()
        .and_then(Nanograms::new);
    amount.ok_or_else(|| ChainError::Message("more nanograms than there are".to_owned()))
}
