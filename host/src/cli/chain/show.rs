//! `tussah chain show`: what an account is and holds, and what a transaction did, by name.
//!
//! In: an address, or an address and a logical time; what the chain says of it. Out: names, amounts
//! and exit codes in words. It only reads, and what has no name is shown by its number.

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tussah_settlement::channel::{ChannelState, ChannelStatus};
use tussah_settlement::message::{self, ShownMessage};
use tussah_settlement::provider::ProviderState;
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::WalletVersion;
use tussah_settlement::{
    AccountStatus, Address, Cell, Chain, ContractError, FriendlyAddress, StackValue, StateInit,
    Transaction, channel_code, provider_code,
};

use crate::{
    chain_option::{self, ChainOption, OpenChain, block_on, chain_failure},
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    ui::Ui,
};

/// Transactions that are listed unless more are asked for.
const LISTED: usize = 10;

const EXAMPLES: &str = "\
Examples:
  tussah chain show EQAB… --chain testnet
  tussah chain show 0:83df… --json
  tussah chain show EQAB…/46000000000     One transaction: the account's, at this logical time

A channel, a provider's contract and a wallet are known by their code, and their states are
shown by name. What a message says is shown by the names of its layout.";

/// Show an account, or one of its transactions.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// An address in any form; with `/LT`, its transaction at that logical time.
    what: What,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Debug)]
struct What {
    address: Address,
    lt: Option<u64>,
}

impl std::str::FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `/` is also a character of base64, so only what follows 48 characters or a raw
        // address is a logical time.
        let is_time = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        let (address, lt) = match text.rsplit_once('/') {
            Some((address, lt)) if is_time(lt) && address.len() >= 48 => (address, Some(lt)),
            _ => (text, None),
        };
        let address = chain_option::address(address)?;
        let lt = lt.map(|lt| lt.parse().map_err(|_| format!("`{lt}` is no logical time")));
        Ok(Self {
            address,
            lt: lt.transpose()?,
        })
    }
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        block_on(async {
            let chain = self.chain.open().await?;
            match self.what.lt {
                Some(lt) => show_transaction(&chain, &self.what.address, lt, ui).await,
                None => show_account(&chain, &self.what.address, ui).await,
            }
        })
    }
}

/// A contract that is known by its code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Channel,
    Provider,
    Wallet(WalletVersion),
}

impl Known {
    fn of(init: &StateInit) -> Option<Self> {
        let hash = init.code.as_ref()?.repr_hash();
        if *hash == *channel_code().repr_hash() {
            return Some(Self::Channel);
        }
        if *hash == *provider_code().repr_hash() {
            return Some(Self::Provider);
        }
        let versions = [WalletVersion::V4R2, WalletVersion::V5R1];
        let version = versions
            .into_iter()
            .find(|version| version.code().repr_hash() == hash);
        version.map(Self::Wallet)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Channel => "payment channel",
            Self::Provider => "provider",
            Self::Wallet(WalletVersion::V4R2) => "wallet V4R2",
            Self::Wallet(WalletVersion::V5R1) => "wallet V5R1",
        }
    }
}

/// What the state of a known contract says, by name.
async fn state(chain: &OpenChain, address: &Address, known: Known) -> Result<Rows, Failure> {
    let get = async |method: &str| {
        let answer = chain.run_get_method(address, method, Vec::new()).await;
        answer.map_err(chain_failure)
    };
    match known {
        Known::Channel => {
            let state = ChannelState::from_stack(get(ChannelState::METHOD).await?);
            Ok(channel_rows(&state.map_err(chain_failure)?))
        }
        Known::Provider => {
            let state = ProviderState::from_stack(get(ProviderState::METHOD).await?);
            Ok(provider_rows(&state.map_err(chain_failure)?))
        }
        Known::Wallet(_) => {
            let seqno = match get("seqno").await?.first() {
                Some(StackValue::Int(seqno)) => seqno.to_string(),
                _ => "unknown".to_owned(),
            };
            Ok(vec![("seqno", Shown::Text(seqno))])
        }
    }
}

/// A value for people and for JSON, where amounts are nanograms.
enum Shown {
    Text(String),
    Amount(tussah_manifest::Nanograms),
}

type Rows = Vec<(&'static str, Shown)>;

impl Shown {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Amount(amount) => grams(*amount),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Amount(amount) => json!(amount),
        }
    }
}

fn channel_rows(state: &ChannelState) -> Rows {
    let status = match state.status {
        ChannelStatus::Unopened => "unopened",
        ChannelStatus::Open => "open",
        ChannelStatus::Closing => "closing",
        ChannelStatus::Closed => "closed",
    };
    vec![
        ("channel", Shown::Text(status.to_owned())),
        ("deadline", Shown::Text(state.deadline.to_string())),
        ("redeemed", Shown::Amount(state.redeemed)),
        ("owed", Shown::Amount(state.owed)),
        ("rent_reserve", Shown::Amount(state.rent_reserve)),
        (
            "payout_bounced",
            Shown::Text(state.payout_bounced.to_string()),
        ),
        (
            "receipts",
            Shown::Text(state.commitment.receipts.to_string()),
        ),
        ("root", Shown::Text(hex(state.commitment.root.as_bytes()))),
        ("incarnation", Shown::Text(hex(&state.incarnation))),
    ]
}

fn provider_rows(state: &ProviderState) -> Rows {
    vec![
        ("bond", Shown::Amount(state.bond)),
        ("exit_at", Shown::Text(state.exit_at.to_string())),
        (
            "equivocations",
            Shown::Text(state.equivocations.to_string()),
        ),
        ("payout", Shown::Text(state.payout.to_string())),
        ("key", Shown::Text(hex(&state.key))),
        ("endpoint", Shown::Text(hex(&state.endpoint))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn show_account(chain: &OpenChain, address: &Address, ui: &Ui) -> Result<Exit, Failure> {
    let account = chain.account(address).await.map_err(chain_failure)?;
    let (status, known) = match &account.status {
        AccountStatus::Missing => ("missing", None),
        AccountStatus::Uninit => ("uninitialized", None),
        AccountStatus::Active(init) => ("active", Known::of(init)),
        AccountStatus::Frozen(_) => ("frozen", None),
    };
    // A wallet may not be deployed yet, so nothing that is sent there should come back.
    let is_contract = matches!(known, Some(Known::Channel | Known::Provider));
    let friendly = if is_contract {
        FriendlyAddress::contract(address.clone(), chain.network())
    } else {
        FriendlyAddress::wallet(address.clone(), chain.network())
    };
    let mut rows: Rows = vec![
        ("address", Shown::Text(friendly.to_string())),
        ("raw", Shown::Text(address.to_string())),
        ("status", Shown::Text(status.to_owned())),
        ("balance", Shown::Amount(account.balance)),
    ];
    if let Some(known) = known {
        rows.push(("code", Shown::Text(known.name().to_owned())));
        rows.extend(state(chain, address, known).await?);
    }
    let transactions = match account.last_lt {
        0 => Vec::new(),
        _ => chain
            .newest_transactions(address, 0, LISTED)
            .await
            .map_err(chain_failure)?,
    };
    let newest = transactions.iter().rev();
    if ui.json() {
        let mut document = object(&rows);
        let list = newest.map(|t| transaction_json(t, chain.network()));
        document["transactions"] = Value::Array(list.collect());
        ui.document(&document)?;
        return Ok(Exit::DONE);
    }
    print(&rows, ui)?;
    for transaction in newest {
        ui.line(&line(transaction))?;
    }
    Ok(Exit::DONE)
}

async fn show_transaction(
    chain: &OpenChain,
    address: &Address,
    lt: u64,
    ui: &Ui,
) -> Result<Exit, Failure> {
    let after = chain
        .transactions(address, lt.saturating_sub(1))
        .await
        .map_err(chain_failure)?;
    let Some(transaction) = after.iter().find(|transaction| transaction.lt == lt) else {
        let message = format!("{address} has no transaction at logical time {lt}");
        return Err(
            Failure::usage(message).help(format!("`tussah chain show {address}` lists its newest"))
        );
    };
    if ui.json() {
        ui.document(&transaction_json(transaction, chain.network()))?;
        return Ok(Exit::DONE);
    }
    let mut rows: Rows = vec![
        ("account", Shown::Text(address.to_string())),
        ("lt", Shown::Text(transaction.lt.to_string())),
        ("time", Shown::Text(transaction.now.to_string())),
        ("exit", Shown::Text(ended(transaction))),
        ("gas", Shown::Text(transaction.gas_used.to_string())),
        ("fees", Shown::Amount(transaction.fees)),
    ];
    for (way, cell) in messages(transaction) {
        rows.extend(message_rows(way, &cell));
    }
    print(&rows, ui)?;
    Ok(Exit::DONE)
}

/// The messages in and out, in order.
fn messages(transaction: &Transaction) -> Vec<(&'static str, Cell)> {
    let mut messages = Vec::new();
    messages.extend(transaction.in_message.clone().map(|cell| ("in", cell)));
    let out = transaction.out_messages.iter();
    messages.extend(out.map(|cell| ("out", cell.clone())));
    messages
}

fn shown(cell: &Cell) -> Option<ShownMessage> {
    message::show(cell).ok()
}

/// The name of a message, or its number.
fn name(message: &ShownMessage) -> String {
    let name = match (message.name, message.opcode) {
        (Some(name), _) => name.to_owned(),
        (None, Some(opcode)) => format!("0x{opcode:08x}"),
        (None, None) => "unnamed".to_owned(),
    };
    if message.bounced {
        format!("{name}, bounced")
    } else {
        name
    }
}

fn message_rows(way: &'static str, cell: &Cell) -> Rows {
    let Some(message) = shown(cell) else {
        return vec![(way, Shown::Text("unreadable".to_owned()))];
    };
    let end = |address: &Option<Address>| address.as_ref().map(ToString::to_string);
    let mut rows: Rows = vec![(way, Shown::Text(name(&message)))];
    rows.extend(end(&message.from).map(|from| ("  from", Shown::Text(from))));
    rows.extend(end(&message.to).map(|to| ("  to", Shown::Text(to))));
    rows.push(("  value", Shown::Amount(message.value)));
    let fields = message.fields.into_iter();
    rows.extend(fields.map(|(name, value)| (name, Shown::Text(value))));
    rows
}

/// How a transaction ended, by name.
fn ended(transaction: &Transaction) -> String {
    let code = match (transaction.exit_code, transaction.action_code) {
        (None, _) => return "no code ran".to_owned(),
        (Some(0 | 1), None | Some(0)) => return "done".to_owned(),
        (Some(0 | 1), Some(code)) => return format!("actions failed with code {code}"),
        (Some(code), _) => code,
    };
    match ContractError::from_exit_code(code) {
        Some(error) => error.to_string(),
        None => format!("exit code {code}"),
    }
}

fn line(transaction: &Transaction) -> String {
    let what = transaction.in_message.as_ref().and_then(shown);
    let what = what.map_or_else(|| "unreadable".to_owned(), |message| name(&message));
    format!(
        "{:<20} {what}: {}, {} gas, {}",
        transaction.lt,
        ended(transaction),
        transaction.gas_used,
        grams(transaction.fees)
    )
}

fn object(rows: &Rows) -> Value {
    let pairs = rows
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.json()));
    Value::Object(pairs.collect())
}

fn print(rows: &Rows, ui: &Ui) -> Result<(), Failure> {
    for (name, value) in rows {
        ui.line(&format!("{name:<16}  {}", value.text()))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct MessageView {
    from: Option<String>,
    to: Option<String>,
    value: tussah_manifest::Nanograms,
    bounced: bool,
    name: Option<&'static str>,
    opcode: Option<u32>,
    fields: Value,
}

fn message_view(cell: &Cell) -> Option<MessageView> {
    let message = shown(cell)?;
    let fields = message.fields.iter();
    let fields = fields.map(|(name, value)| ((*name).to_owned(), json!(value)));
    Some(MessageView {
        from: message.from.as_ref().map(ToString::to_string),
        to: message.to.as_ref().map(ToString::to_string),
        value: message.value,
        bounced: message.bounced,
        name: message.name,
        opcode: message.opcode,
        fields: Value::Object(fields.collect()),
    })
}

fn transaction_json(transaction: &Transaction, network: NetworkId) -> Value {
    let error = transaction
        .exit_code
        .and_then(ContractError::from_exit_code);
    let out: Vec<Option<MessageView>> = transaction.out_messages.iter().map(message_view).collect();
    json!({
        "network": network.0,
        "account": transaction.account.to_string(),
        "lt": transaction.lt.to_string(),
        "now": transaction.now,
        "exit_code": transaction.exit_code,
        "exit_name": error.map(|error| format!("{error:?}")),
        "action_code": transaction.action_code,
        "aborted": transaction.aborted,
        "gas_used": transaction.gas_used,
        "fees": transaction.fees,
        "in_message": transaction.in_message.as_ref().and_then(message_view),
        "out_messages": out,
    })
}
