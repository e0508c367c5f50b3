//! Transactions and messages as toncenter shows them.
//!
//! In: their cells. Out: JSON. Amounts and logical times are texts, since they do not fit JSON's
//! numbers; hashes are base64; an address that there is none of is an empty text.

use serde_json::{Value, json};
use tussah_settlement::{Address, Cell};
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, CellSlice};
use tycho_types::error::Error;
use tycho_types::models::{IntAddr, MsgInfo, OwnedMessage, Transaction, TxInfo};

use crate::address;
use crate::cells;

/// A body that begins so is a text for people.
const COMMENT: u32 = 0;
/// A text that only the receiver can read.
const ENCRYPTED_COMMENT: u32 = 0x2167_da4b;

/// Which of toncenter's two shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `getTransactions`: addresses are texts.
    Extended,
    /// `getTransactionsStd` and blocks: tonlib's own.
    Standard,
}

/// An account's friendly form, as in every answer.
pub(crate) fn account(address: &Address) -> String {
    address::friendly(address, true, false)
}

/// The place of a transaction among its account's.
pub(crate) fn id(lt: u64, hash: &[u8; 32]) -> Value {
    json!({
        "@type": "internal.transactionId",
        "lt": lt.to_string(),
        "hash": cells::base64(hash),
    })
}

/// A transaction of `owner`.
pub(crate) fn describe(owner: &Address, cell: &Cell, shape: Shape) -> Result<Value, Error> {
    let transaction = cell.parse::<Transaction>()?;
    let storage = match transaction.load_info()? {
        TxInfo::Ordinary(info) => info.storage_phase,
        TxInfo::TickTock(info) => Some(info.storage_phase),
    };
    let storage = storage.map_or(0, |phase| phase.storage_fees_collected.into_inner());
    let mut fee = transaction.total_fees.tokens.into_inner();
    let mut out = Vec::new();
    for message in transaction.out_msgs.values() {
        let message = message?;
        if let MsgInfo::Int(info) = message.parse::<OwnedMessage>()?.info {
            fee += info.fwd_fee.into_inner();
        }
        out.push(describe_message(&message, shape)?);
    }
    let mut shown = json!({
        "@type": "raw.transaction",
        "address": { "@type": "accountAddress", "account_address": account(owner) },
        "utime": transaction.now,
        "data": cells::boc(cell.as_ref()),
        "transaction_id": id(transaction.lt, &cell.repr_hash().0),
        "fee": fee.to_string(),
        "storage_fee": storage.to_string(),
        "other_fee": fee.saturating_sub(storage).to_string(),
        "out_msgs": out,
    });
    if shape == Shape::Extended {
        shown["@type"] = json!("ext.transaction");
        shown["account"] = json!(address::raw(owner));
    }
    if let Some(message) = &transaction.in_msg {
        shown["in_msg"] = describe_message(message, shape)?;
    }
    Ok(shown)
}

/// A message by itself.
fn describe_message(cell: &Cell, shape: Shape) -> Result<Value, Error> {
    let message = cell.parse::<OwnedMessage>()?;
    let (mut from, mut to) = (String::new(), String::new());
    let (mut value, mut fwd_fee, mut created_lt) = (0, 0, 0);
    match &message.info {
        MsgInfo::Int(info) => {
            from = shown_address(&info.src);
            to = shown_address(&info.dst);
            value = info.value.tokens.into_inner();
            fwd_fee = info.fwd_fee.into_inner();
            created_lt = info.created_lt;
        }
        MsgInfo::ExtIn(info) => to = shown_address(&info.dst),
        MsgInfo::ExtOut(info) => {
            from = shown_address(&info.src);
            created_lt = info.created_lt;
        }
    }
    let slice: CellSlice<'_> = CellSlice::apply(&message.body)?;
    let body = CellBuilder::build_from(slice)?;
    let init = match &message.init {
        Some(init) => cells::base64(&Boc::encode(CellBuilder::build_from(init)?)),
        None => String::new(),
    };
    let (data, text) = message_data(&body, init);
    let mut shown = json!({
        "@type": "raw.message",
        "hash": cells::base64(cell.repr_hash().as_array()),
        "source": from,
        "destination": to,
        "value": value.to_string(),
        "extra_currencies": [],
        "fwd_fee": fwd_fee.to_string(),
        // Instant routing is no more, and its field carries flags.
        "ihr_fee": "0",
        "created_lt": created_lt.to_string(),
        "body_hash": cells::base64(body.repr_hash().as_array()),
        "msg_data": data,
    });
    match shape {
        Shape::Extended => {
            shown["@type"] = json!("ext.message");
            shown["message"] = json!(text);
        }
        Shape::Standard => {
            for end in ["source", "destination"] {
                let address = shown[end].take();
                shown[end] = json!({ "@type": "accountAddress", "account_address": address });
            }
        }
    }
    Ok(shown)
}

fn shown_address(address: &IntAddr) -> String {
    match address {
        IntAddr::Std(address) => account(address),
        IntAddr::Var(_) => String::new(),
    }
}

/// What a body says, as toncenter sorts it, and the same as text.
fn message_data(body: &Cell, init: String) -> (Value, String) {
    let mut slice = body.as_slice_allow_exotic();
    let tag = slice.load_u32().ok();
    let kind = match tag {
        Some(COMMENT) => Some("msg.dataText"),
        Some(ENCRYPTED_COMMENT) => Some("msg.dataEncryptedText"),
        _ => None,
    };
    if let Some(kind) = kind
        && let Some(bytes) = snake(body)
    {
        let data = json!({ "@type": kind, "text": cells::base64(&bytes) });
        return (data, String::from_utf8_lossy(&bytes).into_owned());
    }
    let mut bytes = body.data().to_vec();
    // Bits past the end are no part of the message.
    let last_bits = body.bit_len() % 8;
    if last_bits != 0
        && let Some(last) = bytes.last_mut()
    {
        *last &= 0xff_u8 << (8 - last_bits);
    }
    let mut text = cells::base64(&bytes);
    if !text.is_empty() {
        // Old clients count on it.
        text.push('\n');
    }
    let data = json!({
        "@type": "msg.dataRaw",
        "body": cells::boc(body.as_ref()),
        "init_state": init,
    });
    (data, text)
}

/// The bytes after the tag, which go on in the first reference of each cell; `None` where the
/// bits make no whole bytes.
fn snake(body: &Cell) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut cell = body.clone();
    let mut skip = 4;
    loop {
        if !cell.bit_len().is_multiple_of(8) {
            return None;
        }
        bytes.extend_from_slice(cell.data().get(skip..)?);
        skip = 0;
        match cell.reference_cloned(0) {
            Some(next) => cell = next,
            None => return Some(bytes),
        }
    }
}

/// Where a message came from, when, and whom it was for; nothing if it is not internal.
pub(crate) fn internal_route(message: &Cell) -> Option<(Address, Address, u64)> {
    match message.parse::<OwnedMessage>().ok()?.info {
        MsgInfo::Int(info) => match (info.src, info.dst) {
            (IntAddr::Std(from), IntAddr::Std(to)) => Some((from, to, info.created_lt)),
            _ => None,
        },
        _ => None,
    }
}
