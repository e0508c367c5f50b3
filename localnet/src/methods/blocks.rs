//! Blocks, what is in them, and the configuration.
//!
//! The basechain is one shard, and each of its blocks has a masterchain block of the same number.

use serde_json::{Value, json};
use tussah_settlement::Address;
use tycho_types::dict::Dict;

use super::{ApiError, require_newest};
use crate::blocks::Block;
use crate::cells;
use crate::network::Network;
use crate::parameters::Parameters;
use crate::transaction::{self, Shape};

/// The whole of a workchain, as a signed number.
const SHARD: i64 = i64::MIN;
const MASTERCHAIN: i8 = -1;
const BASECHAIN: i8 = 0;
const COUNT_DEFAULT: u64 = 40;
const COUNT_MAX: u64 = 1000;

fn id(block: Block, workchain: i8) -> Result<Value, ApiError> {
    Ok(json!({
        "@type": "ton.blockIdExt",
        "workchain": workchain,
        "shard": SHARD.to_string(),
        "seqno": block.seqno,
        "root_hash": cells::base64(&block.hash(workchain, false)?),
        "file_hash": cells::base64(&block.hash(workchain, true)?),
    }))
}

/// The masterchain's last block.
pub(super) fn newest(network: &Network) -> Result<Value, ApiError> {
    id(network.blocks().last(), MASTERCHAIN)
}

pub(super) fn masterchain_info(network: &mut Network, _: &Parameters) -> Result<Value, ApiError> {
    let last = network.blocks().last();
    Ok(json!({
        "@type": "blocks.masterchainInfo",
        "last": newest(network)?,
        "state_root_hash": cells::base64(&last.hash(MASTERCHAIN, false)?),
        "init": id(network.blocks().first(), MASTERCHAIN)?,
    }))
}

pub(super) fn consensus_block(network: &mut Network, _: &Parameters) -> Result<Value, ApiError> {
    let last = network.blocks().last();
    Ok(json!({
        "@type": "ext.blocks.consensusBlock",
        "consensus_block": last.seqno,
        "timestamp": last.now,
    }))
}

fn not_there() -> ApiError {
    ApiError::new(500, "LITE_SERVER_NOTREADY: block is not in db")
}

/// The workchain that was asked for, which must be one of ours with its only shard.
fn workchain(parameters: &Parameters) -> Result<i8, ApiError> {
    let workchain = match parameters.required_integer("workchain")? {
        -1 => MASTERCHAIN,
        0 => BASECHAIN,
        other => {
            return Err(ApiError::malformed(format!(
                "there is no workchain {other}"
            )));
        }
    };
    parameters.required("shard")?;
    // 2^63 is written with and without a sign.
    let whole = SHARD.unsigned_abs().to_string();
    let is_whole = parameters.get("shard").is_some_and(|shard| match shard {
        Value::String(text) => *text == whole,
        Value::Number(number) => number.to_string() == whole,
        _ => false,
    });
    if !is_whole && parameters.integer("shard")? != Some(SHARD) {
        return Err(ApiError::malformed(
            "there is one shard only, -9223372036854775808",
        ));
    }
    Ok(workchain)
}

fn by_seqno(network: &Network, parameters: &Parameters) -> Result<Block, ApiError> {
    parameters.required("seqno")?;
    let seqno = parameters.unsigned("seqno")?.unwrap_or_default();
    let seqno = u32::try_from(seqno).map_err(|_| not_there())?;
    network.blocks().get(seqno).ok_or_else(not_there)
}

pub(super) fn look_up(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let workchain = workchain(parameters)?;
    let (lt, time) = (parameters.unsigned("lt")?, parameters.unsigned("unixtime")?);
    let block = match (parameters.get("seqno"), lt, time) {
        (Some(_), None, None) => by_seqno(network, parameters)?,
        (None, Some(lt), None) => network.blocks().at_lt(lt).ok_or_else(not_there)?,
        (None, None, Some(time)) => {
            let time = u32::try_from(time).unwrap_or(u32::MAX);
            network.blocks().at_time(time).ok_or_else(not_there)?
        }
        _ => {
            let message = "exactly one of seqno, lt and unixtime should be specified";
            return Err(ApiError::malformed(message));
        }
    };
    id(block, workchain)
}

pub(super) fn shards(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let block = by_seqno(network, parameters)?;
    Ok(json!({ "@type": "blocks.shards", "shards": [id(block, BASECHAIN)?] }))
}

/// The block that was asked for; a hash that is given must be its own.
fn asked(network: &Network, parameters: &Parameters) -> Result<(Block, i8), ApiError> {
    let workchain = workchain(parameters)?;
    let block = by_seqno(network, parameters)?;
    for (name, is_file) in [("root_hash", false), ("file_hash", true)] {
        if let Some(hash) = parameters.hash(name)?
            && hash != block.hash(workchain, is_file)?
        {
            return Err(not_there());
        }
    }
    Ok((block, workchain))
}

pub(super) fn header(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let (block, workchain) = asked(network, parameters)?;
    let mut previous = Vec::new();
    if let Some(before) = block
        .seqno
        .checked_sub(1)
        .and_then(|n| network.blocks().get(n))
    {
        previous.push(id(before, workchain)?);
    }
    Ok(json!({
        "@type": "blocks.header",
        "id": id(block, workchain)?,
        "global_id": network.chain().network_id().0,
        "version": 0,
        "after_merge": false,
        "after_split": false,
        "before_split": false,
        "want_merge": false,
        "want_split": false,
        "validator_list_hash_short": 0,
        "catchain_seqno": 0,
        "min_ref_mc_seqno": block.seqno.saturating_sub(1),
        "is_key_block": false,
        "prev_key_block_seqno": 0,
        "start_lt": block.start_lt.to_string(),
        "end_lt": block.end_lt.to_string(),
        "gen_utime": block.now,
        "prev_blocks": previous,
    }))
}

/// What a block holds, as far as it was asked for.
struct Contents {
    /// The answer's first fields.
    head: Value,
    /// More would follow.
    incomplete: bool,
    /// By logical time.
    found: Vec<(Address, u64)>,
}

/// Transactions in the block that was asked for.
fn contents(network: &Network, parameters: &Parameters) -> Result<Contents, ApiError> {
    let (block, workchain) = asked(network, parameters)?;
    let count = match parameters.unsigned("count")? {
        Some(0) => return Err(ApiError::malformed("count should be positive")),
        Some(count) => count.min(COUNT_MAX),
        None => COUNT_DEFAULT,
    };
    let after_lt = parameters.unsigned("after_lt")?.unwrap_or(0);
    let from = block.start_lt.max(after_lt.saturating_add(1));
    let mut found = Vec::new();
    for address in network.chain().accounts() {
        if address.workchain != workchain {
            continue;
        }
        let log = network.chain().log(address).rev();
        let inside = log
            .skip_while(|(lt, _)| *lt > block.end_lt)
            .take_while(|(lt, _)| *lt >= from);
        found.extend(inside.map(|(lt, _)| (address.clone(), lt)));
    }
    found.sort_by_key(|(_, lt)| *lt);
    let count_max = usize::try_from(count).unwrap_or(usize::MAX);
    let incomplete = found.len() > count_max;
    found.truncate(count_max);
    let head = json!({
        "@type": "blocks.transactions",
        "id": id(block, workchain)?,
        "req_count": count,
    });
    Ok(Contents {
        head,
        incomplete,
        found,
    })
}

pub(super) fn transactions(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let Contents {
        head: mut shown,
        incomplete,
        found,
    } = contents(network, parameters)?;
    let short = |(address, lt): &(Address, u64)| {
        let cell = network.chain().transaction(address, *lt)?;
        Some(json!({
            "@type": "blocks.shortTxId",
            // Which of account, time and hash are there: all three.
            "mode": 135,
            "account": crate::address::raw(address),
            "lt": lt.to_string(),
            "hash": cells::base64(cell.repr_hash().as_array()),
        }))
    };
    let list: Vec<Value> = found.iter().filter_map(short).collect();
    shown["incomplete"] = json!(incomplete);
    shown["transactions"] = Value::Array(list);
    Ok(shown)
}

pub(super) fn transactions_ext(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let Contents {
        head: mut shown,
        incomplete,
        found,
    } = contents(network, parameters)?;
    let mut list = Vec::new();
    for (address, lt) in &found {
        if let Some(cell) = network.chain().transaction(address, *lt) {
            let mut described = transaction::describe(address, cell, Shape::Standard)?;
            described["account"] = json!(crate::address::raw(address));
            list.push(described);
        }
    }
    shown["@type"] = json!("blocks.transactionsExt");
    shown["incomplete"] = json!(incomplete);
    shown["transactions"] = Value::Array(list);
    Ok(shown)
}

fn config(cell: &tussah_settlement::Cell) -> Value {
    let cell = json!({ "@type": "tvm.cell", "bytes": cells::boc(cell.as_ref()) });
    json!({ "@type": "configInfo", "config": cell })
}

pub(super) fn config_param(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    let numbers = (
        parameters.integer("param")?,
        parameters.integer("config_id")?,
    );
    let number = match numbers {
        (Some(number), None) | (None, Some(number)) => number,
        _ => {
            let message = "only one of config_id or param should be specified";
            return Err(ApiError::malformed(message));
        }
    };
    if number < 0 {
        return Err(ApiError::malformed("param should be non-negative"));
    }
    require_newest(network, parameters)?;
    let dict = Dict::<u32, tussah_settlement::Cell>::from_raw(Some(network.chain().config()));
    let found = match u32::try_from(number) {
        Ok(number) => dict.get(number)?,
        Err(_) => None,
    };
    match found {
        Some(cell) => Ok(config(&cell)),
        None => Err(ApiError::new(
            500,
            format!("there is no config param {number}"),
        )),
    }
}

pub(super) fn config_all(
    network: &mut Network,
    parameters: &Parameters,
) -> Result<Value, ApiError> {
    require_newest(network, parameters)?;
    Ok(config(&network.chain().config()))
}
