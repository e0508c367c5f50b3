//! Messages from outside, and what they would cost.

use serde_json::{Value, json};
use tussah_settlement::Cell;
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::chain::external_hash;
use tycho_types::models::{ComputePhase, MsgInfo, OwnedMessage, StateInit, Transaction, TxInfo};

use super::ApiError;
use crate::cells;
use crate::network::Network;
use crate::parameters::Parameters;

/// Sends the message and returns it.
fn send(network: &mut Network, parameters: &Parameters) -> Result<Cell, ApiError> {
    let message = parameters.boc("boc")?;
    let parsed = message.parse::<OwnedMessage>();
    if !matches!(
        parsed,
        Ok(OwnedMessage {
            info: MsgInfo::ExtIn(_),
            ..
        })
    ) {
        return Err(ApiError::new(500, "boc is not an external message"));
    }
    network.send(message.clone())?;
    Ok(message)
}

pub(super) fn boc(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    send(network, parameters)?;
    Ok(json!({ "@type": "ok" }))
}

pub(super) fn boc_return_hash(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let message = send(network, parameters)?;
    let normalized = external_hash(&message)?.unwrap_or(message.repr_hash().0);
    Ok(json!({
        "@type": "raw.extMessageInfo",
        "hash": cells::base64(message.repr_hash().as_array()),
        "hash_norm": cells::base64(&normalized),
    }))
}

pub(super) fn estimate_fee(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let to = parameters.address("address")?;
    let body = parameters.boc("body")?;
    let (code, data) = (
        parameters.optional_boc("init_code")?,
        parameters.optional_boc("init_data")?,
    );
    let trusting = parameters.truth("ignore_chksig")?.unwrap_or(true);
    let init = (code.is_some() || data.is_some()).then(|| StateInit {
        code,
        data,
        ..StateInit::default()
    });
    let message = external_message(&to, init, &body)?;
    let cell = network.chain().rehearse(message, trusting)?;
    let transaction = cell.parse::<Transaction>()?;
    let total = transaction.total_fees.tokens.into_inner();
    let (mut storage, mut gas, mut forwarding, mut actions) = (0, 0, 0, 0);
    if let TxInfo::Ordinary(info) = transaction.load_info()? {
        storage = info
            .storage_phase
            .map_or(0, |phase| phase.storage_fees_collected.into_inner());
        if let ComputePhase::Executed(phase) = info.compute_phase {
            gas = phase.gas_fees.into_inner();
        }
        if let Some(phase) = info.action_phase {
            forwarding = phase.total_fwd_fees.unwrap_or_default().into_inner();
            actions = phase.total_action_fees.unwrap_or_default().into_inner();
        }
    }
    // The rest of what the account pays is the message's import.
    let import = total.saturating_sub(storage + gas + actions);
    let fees = |values: [u128; 4]| {
        let [in_fwd_fee, storage_fee, gas_fee, fwd_fee] =
            values.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
        json!({
            "@type": "fees",
            "in_fwd_fee": in_fwd_fee,
            "storage_fee": storage_fee,
            "gas_fee": gas_fee,
            "fwd_fee": fwd_fee,
        })
    };
    Ok(json!({
        "@type": "query.fees",
        "source_fees": fees([import, storage, gas, forwarding]),
        "destination_fees": [],
    }))
}
