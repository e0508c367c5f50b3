//! What an account holds and is.

use serde_json::{Value, json};
use tussah_settlement::wallet::{Wallet, WalletVersion};
use tussah_settlement::{Account, AccountStatus, Address};
use tycho_types::cell::CellBuilder;
use tycho_types::models::StateInit;

use super::{ApiError, blocks, require_newest};
use crate::cells;
use crate::network::{self, Network};
use crate::parameters::Parameters;
use crate::transaction;

/// The account that was asked for.
fn asked(network: &Network, parameters: &Parameters) -> Result<(Address, Account), ApiError> {
    let address = parameters.address("address")?;
    require_newest(network, parameters)?;
    let account = network.chain().account_now(&address)?;
    Ok((address, account))
}

/// toncenter's word for the status.
fn word(status: &AccountStatus) -> &'static str {
    match status {
        AccountStatus::Missing | AccountStatus::Uninit => "uninitialized",
        AccountStatus::Active(_) => "active",
        AccountStatus::Frozen(_) => "frozen",
    }
}

/// Code, data and the hash of what is frozen, each empty where there is none.
fn contents(status: &AccountStatus) -> (String, String, String) {
    match status {
        AccountStatus::Missing | AccountStatus::Uninit => Default::default(),
        AccountStatus::Active(init) => {
            let boc = |cell: &Option<tussah_settlement::Cell>| {
                let cell = cell.as_ref();
                cell.map(|cell| cells::boc(cell.as_ref()))
                    .unwrap_or_default()
            };
            (boc(&init.code), boc(&init.data), String::new())
        }
        AccountStatus::Frozen(hash) => (String::new(), String::new(), cells::base64(hash)),
    }
}

/// The account's last transaction, or zeros.
pub(super) fn last_transaction(network: &Network, address: &Address) -> Value {
    match network.chain().shard_account(address) {
        Some(shard) => transaction::id(shard.last_trans_lt, &shard.last_trans_hash.0),
        None => transaction::id(0, &[0; 32]),
    }
}

pub(super) fn information(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let (address, account) = asked(network, parameters)?;
    let (code, data, frozen_hash) = contents(&account.status);
    Ok(json!({
        "@type": "raw.fullAccountState",
        "balance": account.balance.get().to_string(),
        "extra_currencies": [],
        "code": code,
        "data": data,
        "last_transaction_id": last_transaction(network, &address),
        "block_id": blocks::newest(network)?,
        "frozen_hash": frozen_hash,
        "sync_utime": network.chain().now(),
        "state": word(&account.status),
    }))
}

pub(super) fn extended(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (address, account) = asked(network, parameters)?;
    let (code, data, frozen_hash) = contents(&account.status);
    let state = match &account.status {
        AccountStatus::Active(init) => match known_wallet(init) {
            Some(known) if known.version == WalletVersion::V4R2 => json!({
                "@type": "wallet.v4.accountState",
                "wallet_id": known.id.to_string(),
                "seqno": known.seqno,
            }),
            _ => json!({
                "@type": "raw.accountState",
                "code": code,
                "data": data,
                "frozen_hash": frozen_hash,
            }),
        },
        _ => json!({ "@type": "uninited.accountState", "frozen_hash": frozen_hash }),
    };
    let shown = transaction::account(&address);
    Ok(json!({
        "@type": "fullAccountState",
        "address": { "@type": "accountAddress", "account_address": shown },
        "balance": account.balance.get().to_string(),
        "extra_currencies": [],
        "last_transaction_id": last_transaction(network, &address),
        "block_id": blocks::newest(network)?,
        "sync_utime": network.chain().now(),
        "account_state": state,
        "revision": 0,
    }))
}

pub(super) fn wallet(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (address, account) = asked(network, parameters)?;
    let known = match &account.status {
        AccountStatus::Active(init) => known_wallet(init),
        _ => None,
    };
    let mut shown = json!({
        "@type": "ext.accounts.walletInformation",
        "wallet": known.is_some(),
        "balance": account.balance.get().to_string(),
        "account_state": word(&account.status),
        "last_transaction_id": last_transaction(network, &address),
    });
    if let Some(known) = known {
        shown["seqno"] = json!(known.seqno);
        shown["wallet_id"] = json!(known.id);
        match known.version {
            WalletVersion::V4R2 => shown["wallet_type"] = json!("wallet v4 r2"),
            WalletVersion::V5R1 => {
                shown["wallet_type"] = json!("wallet v5 r1");
                shown["is_signature_allowed"] = json!(known.signatures);
            }
        }
    }
    Ok(shown)
}

pub(super) fn balance(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (_, account) = asked(network, parameters)?;
    Ok(json!(account.balance.get().to_string()))
}

pub(super) fn state(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (_, account) = asked(network, parameters)?;
    Ok(json!(word(&account.status)))
}

pub(super) fn cell(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (address, _) = asked(network, parameters)?;
    let Some(shard) = network.chain().shard_account(&address) else {
        let message = "the account never had a transaction, so there is no cell of it";
        return Err(ApiError::not_found(message));
    };
    let cell = CellBuilder::build_from(shard)?;
    Ok(json!({ "@type": "tvm.cell", "bytes": cells::boc(cell.as_ref()) }))
}

/// A wallet by its code, with what its data says.
struct KnownWallet {
    version: WalletVersion,
    seqno: u32,
    id: i32,
    signatures: bool,
}

fn known_wallet(init: &StateInit) -> Option<KnownWallet> {
    let (code, data) = (init.code.as_ref()?, init.data.as_ref()?);
    let (example, _) = network::developer();
    let version = [WalletVersion::V4R2, WalletVersion::V5R1]
        .into_iter()
        .find(|version| {
            let example = Wallet {
                version: *version,
                ..example.clone()
            };
            let theirs = example.state_init().code;
            theirs.is_some_and(|theirs| theirs.repr_hash() == code.repr_hash())
        })?;
    let mut slice = data.as_slice().ok()?;
    // V5R1 begins with whether signatures are allowed; then both have seqno and id.
    let signatures = version == WalletVersion::V4R2 || slice.load_bit().ok()?;
    Some(KnownWallet {
        version,
        seqno: slice.load_u32().ok()?,
        id: slice.load_u32().ok()?.cast_signed(),
        signatures,
    })
}
