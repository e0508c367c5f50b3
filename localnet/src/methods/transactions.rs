//! Transactions of an account, and those that a message joins.

use serde_json::{Value, json};
use tussah_settlement::{Address, Cell};
use tycho_types::models::Transaction;

use super::{ApiError, accounts};
use crate::network::Network;
use crate::parameters::Parameters;
use crate::transaction::{self, Shape};

/// Transactions in one answer.
const LIMIT_MAX: u64 = 1000;
const LIMIT_DEFAULT: u64 = 10;

/// The transactions that were asked for, the newest first.
fn asked(network: &Network, parameters: &Parameters) -> Result<(Address, Vec<Cell>), ApiError> {
    let address = parameters.address("address")?;
    let limit = parameters.unsigned("limit")?.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 {
        return Err(ApiError::malformed("limit should be positive"));
    }
    if limit > LIMIT_MAX {
        let message = format!("limit should be less or equal {LIMIT_MAX}");
        return Err(ApiError::malformed(message));
    }
    // 0 counts as absent.
    let lt = parameters.unsigned("lt")?.filter(|lt| *lt != 0);
    let hash = parameters.hash("hash")?;
    let to_lt = parameters.unsigned("to_lt")?.unwrap_or(0);
    // Everything is kept, so that there is nothing but an archive here.
    parameters.truth("archival")?;
    let from = match (lt, hash) {
        (None, None) => u64::MAX,
        (Some(lt), Some(hash)) => {
            let cell = network.chain().transaction(&address, lt);
            if cell.is_none_or(|cell| cell.repr_hash().0 != hash) {
                let message = format!(
                    "LITE_SERVER_UNKNOWN: cannot locate transaction with logical time {lt}"
                );
                return Err(ApiError::new(500, message));
            }
            lt
        }
        _ => return Err(ApiError::malformed("lt and hash should be used together")),
    };
    let log = network.chain().log(&address).rev();
    let within = log
        .skip_while(|(lt, _)| *lt > from)
        .take_while(|(lt, _)| *lt > to_lt);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let cells = within.take(limit).map(|(_, cell)| cell.clone()).collect();
    Ok((address, cells))
}

fn described(address: &Address, cells: &[Cell], shape: Shape) -> Result<Vec<Value>, ApiError> {
    let described = cells
        .iter()
        .map(|cell| transaction::describe(address, cell, shape));
    Ok(described.collect::<Result<_, _>>()?)
}

pub(super) fn list(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (address, cells) = asked(network, parameters)?;
    Ok(Value::Array(described(&address, &cells, Shape::Extended)?))
}

pub(super) fn list_standard(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let (address, cells) = asked(network, parameters)?;
    let previous = match cells.last() {
        None => accounts::last_transaction(network, &address),
        Some(oldest) => {
            let oldest = oldest.parse::<Transaction>()?;
            transaction::id(oldest.prev_trans_lt, &oldest.prev_trans_hash.0)
        }
    };
    Ok(json!({
        "@type": "raw.transactions",
        "transactions": described(&address, &cells, Shape::Standard)?,
        "previous_transaction_id": previous,
    }))
}

/// The message that was asked for: from where, to where, and when it was made.
fn route(parameters: &Parameters) -> Result<(Address, Address, u64), ApiError> {
    let from = parameters.address("source")?;
    let to = parameters.address("destination")?;
    parameters.required("created_lt")?;
    let created_lt = parameters.unsigned("created_lt")?.unwrap_or_default();
    Ok((from, to, created_lt))
}

fn located(owner: &Address, cell: Option<&Cell>) -> Result<Value, ApiError> {
    let Some(cell) = cell else {
        return Err(ApiError::not_found("transaction was not found"));
    };
    Ok(transaction::describe(owner, cell, Shape::Extended)?)
}

/// Where the message arrived.
pub(super) fn locate_result(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let asked = route(parameters)?;
    let found = network.chain().log(&asked.1).find(|(_, cell)| {
        let transaction = cell.parse::<Transaction>().ok();
        let message = transaction.and_then(|transaction| transaction.in_msg);
        message.and_then(|message| transaction::internal_route(&message)) == Some(asked.clone())
    });
    located(&asked.1, found.map(|(_, cell)| cell))
}

/// Where the message was sent.
pub(super) fn locate_source(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let asked = route(parameters)?;
    let found = network.chain().log(&asked.0).find(|(_, cell)| {
        let Ok(transaction) = cell.parse::<Transaction>() else {
            return false;
        };
        let messages = transaction.out_msgs.values().flatten();
        let mut routes = messages.map(|message| transaction::internal_route(&message));
        routes.any(|route| route.as_ref() == Some(&asked))
    });
    located(&asked.0, found.map(|(_, cell)| cell))
}
