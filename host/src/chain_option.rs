//! Which chain a command talks to: `--chain`, or `TUSSAH_CHAIN`.
//!
//! In: a word, a URL or a folder. Out: an open chain that says which network it is. A word names
//! its network, and a server that is on another one is refused; a URL's server is believed.

use std::future::Future;

use clap::Args;
use tussah_settlement::chain::toncenter::ToncenterError;
use tussah_settlement::chain::{StackValue, Toncenter, ToncenterConfig, Transaction};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::PayError;
use tussah_settlement::{Account, Address, Cell, Chain, ChainError};
use zeroize::Zeroizing;

use crate::{exit_code::Exit, failure::Failure};

/// The chain of a command that pays or asks.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChainOption {
    /// The chain: `mainnet`, `testnet`, or the URL of a toncenter API v2, such as
    /// http://127.0.0.1:8081/api/v2.
    #[arg(long, value_name = "CHAIN", env = "TUSSAH_CHAIN")]
    chain: String,
    /// The key that the server knows you by; without it one question a second is answered.
    #[arg(
        long,
        value_name = "KEY",
        env = "TUSSAH_CHAIN_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
}

/// A chain that a command talks to.
#[derive(Debug)]
pub(crate) enum OpenChain {
    /// Behind a server.
    Toncenter(Toncenter),
}

impl ChainOption {
    /// Opens the chain, and asks it which network it is.
    ///
    /// # Errors
    /// A usage failure if this names no chain, or one on another network; a host failure if it
    /// does not answer.
    pub(crate) async fn open(&self) -> Result<OpenChain, Failure> {
        let (url, network) = match self.chain.as_str() {
            "mainnet" => (ToncenterConfig::MAINNET, Some(NetworkId::MAINNET)),
            "testnet" => (ToncenterConfig::TESTNET, Some(NetworkId::TESTNET)),
            url if url.contains("://") => (url, None),
            other => {
                let message = format!("`{other}` is no chain");
                return Err(Failure::usage(message)
                    .help("name `mainnet`, `testnet`, or a URL of a toncenter API v2"));
            }
        };
        let mut config = ToncenterConfig::new(url, self.api_key.clone().map(Zeroizing::new));
        config.network = network;
        let chain = Toncenter::connect(config).await;
        Ok(OpenChain::Toncenter(chain.map_err(chain_failure)?))
    }
}

/// Runs a command that waits for a chain.
///
/// # Errors
/// What the command fails with, or a host failure if nothing can be waited for.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::host(error).context("cannot wait"))?;
    runtime.block_on(command)
}

/// What a chain's error is to whoever typed the command.
pub(crate) fn chain_failure(error: ChainError) -> Failure {
    let (exit, help) = match &error {
        ChainError::Toncenter(ToncenterError::Url { .. }) => (Exit::USAGE, None),
        ChainError::Toncenter(ToncenterError::OtherNetwork { .. }) => (
            Exit::USAGE,
            Some("name the chain that you mean with --chain"),
        ),
        ChainError::Toncenter(ToncenterError::Answer { .. } | ToncenterError::Broken { .. }) => {
            (Exit::NOT_VERIFIED, Some("ask another server"))
        }
        ChainError::Toncenter(ToncenterError::Refused { code: 429, .. }) => (
            Exit::HOST_FAILED,
            Some("give an API key with --api-key, or wait"),
        ),
        ChainError::NotAccepted { .. }
        | ChainError::NoCode(_)
        | ChainError::GetMethod { .. }
        | ChainError::Answer { .. }
        | ChainError::Message(_) => (Exit::USAGE, None),
        _ => (Exit::HOST_FAILED, None),
    };
    let failure = Failure::new(exit, error);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// What a payment's error is to whoever typed the command.
pub(crate) fn pay_failure(error: PayError) -> Failure {
    match error {
        PayError::Chain(error) => chain_failure(error),
        PayError::Expired => Failure::host(error).help("try again"),
        PayError::Funds { .. } | PayError::Unsent { .. } => {
            Failure::usage(error).help("send the wallet more, or pay less")
        }
        other => Failure::usage(other),
    }
}

impl Chain for OpenChain {
    fn network(&self) -> NetworkId {
        match self {
            Self::Toncenter(chain) => chain.network(),
        }
    }

    async fn time(&self) -> Result<u32, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.time().await,
        }
    }

    async fn send_boc(&self, message: Cell) -> Result<(), ChainError> {
        match self {
            Self::Toncenter(chain) => chain.send_boc(message).await,
        }
    }

    async fn account(&self, address: &Address) -> Result<Account, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.account(address).await,
        }
    }

    async fn run_get_method(
        &self,
        address: &Address,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> Result<Vec<StackValue>, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.run_get_method(address, method, arguments).await,
        }
    }

    async fn transactions(
        &self,
        address: &Address,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.transactions(address, after_lt).await,
        }
    }
}
