//! What a transaction's cell says, in our words.
//!
//! In: a transaction's cell, of the executor or of a server. Out: [`Transaction`], and the hash
//! that an external message has however it was wrapped.

use tussah_manifest::Nanograms;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, Store};
use tycho_types::models::{ComputePhase, MsgInfo, OwnedMessage, StdAddr, TxInfo};
use tycho_types::num::Tokens;

use crate::cells::{self, BuilderExt};

use crate::chain::{ChainError, Transaction};

/// The hash of an external message that does not depend on what anyone could change on its way
/// without touching what was signed: the normalized hash of TEP-467, where the source is
/// `addr_none`, the import fee is 0, there is no state-init, and the body is a cell of its own.
/// Nothing for a message from within the chain.
///
/// # Errors
/// [`ChainError::Cell`] if it is no message.
pub fn external_hash(message: &Cell) -> Result<Option<[u8; 32]>, ChainError> {
    let parsed = message.parse::<OwnedMessage>()?;
    let MsgInfo::ExtIn(info) = parsed.info else {
        return Ok(None);
    };
    let body = CellBuilder::build_from(CellSlice::apply(&parsed.body)?)?;
    let mut builder = CellBuilder::new();
    builder.store_small_uint(0b1000, 4)?; // ext_in_msg_info$10 src:addr_none$00
    info.dst.store_into(&mut builder, cells::context())?;
    builder.coins(Nanograms::ZERO)?; // import_fee
    builder.store_bit_zero()?; // init:nothing
    builder.store_bit_one()?; // body:^Any
    builder.store_reference(body)?;
    Ok(Some(builder.build()?.repr_hash().0))
}

/// Reads a transaction of `account`.
pub(crate) fn describe(account: &StdAddr, cell: &Cell) -> Result<Transaction, ChainError> {
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
        in_message: message.cloned(),
        message_hash: message.map_or([0; 32], |message| message.repr_hash().0),
        external_hash: match message {
            Some(message) => external_hash(message)?,
            None => None,
        },
        exit_code,
        action_code,
        gas_used,
        fees: nanograms(transaction.total_fees.tokens)?,
        aborted,
        out_messages,
    })
}

pub(crate) fn nanograms(tokens: Tokens) -> Result<Nanograms, ChainError> {
    let amount = u64::try_from(tokens.into_inner())
        .ok()
        .and_then(Nanograms::new);
    amount.ok_or_else(|| ChainError::Message("more nanograms than there are".to_owned()))
}
