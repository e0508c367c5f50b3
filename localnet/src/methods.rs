//! toncenter's methods by name: which parameters each takes, and what it answers.
//!
//! In: a network, a method's name, parameters. Out: the `result` of toncenter's answer, or its
//! error with the code that is also the HTTP status. A name that is not known is refused by name,
//! and so is one that toncenter knows and a chain without validators cannot answer.

mod accounts;
mod blocks;
mod run;
mod send;
mod transactions;
mod utilities;

use serde_json::Value;
use tussah_settlement::{ChainError, ContractError};

use crate::network::{LocalnetError, Network};
use crate::parameters::Parameters;

/// toncenter's error: the code, which is the HTTP status, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub code: u16,
    /// What was wrong.
    pub message: String,
}

impl ApiError {
    pub(crate) fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A request that cannot be understood.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(422, message)
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }
}

impl From<ChainError> for ApiError {
    fn from(error: ChainError) -> Self {
        let message = match &error {
            ChainError::NotAccepted { exit_code } => not_accepted(*exit_code),
            _ => whole(&error),
        };
        Self::new(500, message)
    }
}

impl From<LocalnetError> for ApiError {
    fn from(error: LocalnetError) -> Self {
        match error {
            LocalnetError::Chain(error) => error.into(),
            LocalnetError::Amount { .. } | LocalnetError::Clock { .. } => {
                Self::malformed(error.to_string())
            }
            other => Self::new(500, whole(&other)),
        }
    }
}

impl From<tycho_types::error::Error> for ApiError {
    fn from(error: tycho_types::error::Error) -> Self {
        Self::new(500, format!("a cell is malformed: {error}"))
    }
}

/// As liteservers say it, which clients read the code out of; and our contracts' name of it.
fn not_accepted(exit_code: Option<i32>) -> String {
    let reason = match exit_code {
        None => "no code ran".to_owned(),
        Some(code) => match ContractError::from_exit_code(code) {
            Some(error) => format!("exitcode={code}, {error:?}"),
            None => format!("exitcode={code}"),
        },
    };
    format!(
        "LITE_SERVER_UNKNOWN: cannot apply external message to current state : \
         External message was not accepted\n\
         Cannot run message on account: inbound external message rejected by transaction: {reason}"
    )
}

/// An error with its causes, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// One method.
struct Method {
    name: &'static str,
    /// Every parameter that it knows.
    parameters: &'static [&'static str],
    /// What changes something is not asked for by GET.
    by_get: bool,
    run: fn(&mut Network, &Parameters) -> Result<Value, ApiError>,
}

const fn ask(
    name: &'static str,
    parameters: &'static [&'static str],
    run: fn(&mut Network, &Parameters) -> Result<Value, ApiError>,
) -> Method {
    Method {
        name,
        parameters,
        by_get: true,
        run,
    }
}

const fn post(
    name: &'static str,
    parameters: &'static [&'static str],
    run: fn(&mut Network, &Parameters) -> Result<Value, ApiError>,
) -> Method {
    Method {
        name,
        parameters,
        by_get: false,
        run,
    }
}

const ACCOUNT: &[&str] = &["address", "seqno"];
const BLOCK: &[&str] = &["workchain", "shard", "seqno", "root_hash", "file_hash"];
const BLOCK_TRANSACTIONS: &[&str] = &[
    "workchain",
    "shard",
    "seqno",
    "root_hash",
    "file_hash",
    "after_lt",
    "after_hash",
    "count",
];
const TRANSACTIONS: &[&str] = &["address", "limit", "lt", "hash", "to_lt", "archival"];
const ROUTE: &[&str] = &["source", "destination", "created_lt"];

const METHODS: &[Method] = &[
    ask("getAddressInformation", ACCOUNT, accounts::information),
    ask("getExtendedAddressInformation", ACCOUNT, accounts::extended),
    ask("getWalletInformation", ACCOUNT, accounts::wallet),
    ask("getAddressBalance", ACCOUNT, accounts::balance),
    ask("getAddressState", ACCOUNT, accounts::state),
    ask("getShardAccountCell", ACCOUNT, accounts::cell),
    ask("detectAddress", &["address"], utilities::detect_address),
    ask("packAddress", &["address"], utilities::pack_address),
    ask("unpackAddress", &["address"], utilities::unpack_address),
    ask("detectHash", &["hash"], utilities::detect_hash),
    ask("getTransactions", TRANSACTIONS, transactions::list),
    ask(
        "getTransactionsStd",
        TRANSACTIONS,
        transactions::list_standard,
    ),
    ask("tryLocateTx", ROUTE, transactions::locate_result),
    ask("tryLocateResultTx", ROUTE, transactions::locate_result),
    ask("tryLocateSourceTx", ROUTE, transactions::locate_source),
    ask("getMasterchainInfo", &[], blocks::masterchain_info),
    ask("getConsensusBlock", &[], blocks::consensus_block),
    ask(
        "lookupBlock",
        &["workchain", "shard", "seqno", "lt", "unixtime"],
        blocks::look_up,
    ),
    ask("shards", &["seqno"], blocks::shards),
    ask("getShards", &["seqno"], blocks::shards),
    ask("getBlockHeader", BLOCK, blocks::header),
    ask(
        "getBlockTransactions",
        BLOCK_TRANSACTIONS,
        blocks::transactions,
    ),
    ask(
        "getBlockTransactionsExt",
        BLOCK_TRANSACTIONS,
        blocks::transactions_ext,
    ),
    ask(
        "getConfigParam",
        &["config_id", "param", "seqno"],
        blocks::config_param,
    ),
    ask("getConfigAll", &["seqno"], blocks::config_all),
    post(
        "runGetMethod",
        &["address", "method", "stack", "seqno"],
        run::pairs,
    ),
    post(
        "runGetMethodStd",
        &["address", "method", "stack", "seqno"],
        run::objects,
    ),
    post("sendBoc", &["boc"], send::boc),
    post("sendBocReturnHash", &["boc"], send::boc_return_hash),
    post(
        "estimateFee",
        &["address", "body", "init_code", "init_data", "ignore_chksig"],
        send::estimate_fee,
    ),
];

/// Methods of toncenter's that have no answer here.
const NOT_HERE: &[&str] = &[
    "dnsResolve",
    "getLibraries",
    "getMasterchainBlockSignatures",
    "getOutMsgQueueSize",
    "getOutMsgQueueSizes",
    "getShardBlockProof",
    "getTokenData",
    "sendBocUnsafe",
    "sendQuery",
    "sendQuerySimple",
    "sendCellSimple",
    "estimateFeeSimple",
];

/// How a method was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// With a query string, in which parameters that nobody knows are left alone, as keys are
    /// sent there too.
    ByGet,
    /// With JSON, in which each parameter must be known.
    ByPost,
}

/// Runs a method of toncenter's.
///
/// # Errors
/// [`ApiError`]: 404 for a name that is not known, 405 for one that is not asked so, 422 for
/// parameters that cannot be understood, 500 for what the chain refused, 501 for what this
/// network does not have.
pub fn call(
    network: &mut Network,
    name: &str,
    parameters: &Parameters,
    asked: Asked,
) -> Result<Value, ApiError> {
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        if NOT_HERE.contains(&name) {
            let message = format!("method `{name}` is not part of a localnet");
            return Err(ApiError::new(501, message));
        }
        return Err(ApiError::not_found(format!("unknown method `{name}`")));
    };
    match asked {
        Asked::ByGet if !method.by_get => {
            let message = format!("method `{name}` is asked for with POST");
            return Err(ApiError::new(405, message));
        }
        Asked::ByGet => {}
        Asked::ByPost => parameters.only(method.parameters)?,
    }
    network.tick();
    (method.run)(network, parameters)
}

/// Only the newest state is kept.
fn require_newest(network: &Network, parameters: &Parameters) -> Result<(), ApiError> {
    let last = u64::from(network.blocks().last().seqno);
    match parameters.unsigned("seqno")? {
        None => Ok(()),
        Some(seqno) if seqno == last => Ok(()),
        Some(seqno) => Err(ApiError::new(
            501,
            format!("a localnet keeps the state of its last block, {last}, not of block {seqno}"),
        )),
    }
}
