//! Which chain a command talks to: `--chain`, or `TUSSAH_CHAIN`.
//!
//! In: a word, a URL or a folder. Out: an open chain that says which network it is. A word names
//! its network, and a server that is on another one is refused; a URL's server is believed.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Args;
use tussah_localnet::{LocalnetError, Network, StoreError};
use tussah_manifest::SigningKey;
use tussah_settlement::chain::toncenter::{Destination, ToncenterError};
use tussah_settlement::chain::{StackValue, SystemClock, Toncenter, ToncenterConfig, Transaction};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{self, OutMessage, PayError, Wallet};
use tussah_settlement::{
    Account, Address, Cell, Chain, ChainError, ContractError, FriendlyAddress,
};
use zeroize::Zeroizing;

use crate::{
    clock,
    exit_code::Exit,
    failure::{Failure, file_failure},
    grams::grams,
    wallets,
};

/// What to type where no chain was named.
const NAME_ONE: &str = "name `mainnet`, `testnet`, the URL of a toncenter API v2, or \
                        `embedded:FOLDER`";

/// The chain of a command that pays or asks.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChainOption {
    /// The chain: `mainnet`, `testnet`, the URL of a toncenter API v2, such as
    /// http://127.0.0.1:8081/api/v2, or `embedded:FOLDER` for one that needs no server.
    #[arg(long, value_name = "CHAIN", env = "TUSSAH_CHAIN")]
    chain: String,
    #[command(flatten)]
    key: ApiKeyOption,
}

/// By which key a chain's server knows us. It is no argument, where every process of the machine
/// would see it, and what stands in the environment goes to nobody but toncenter.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ApiKeyOption {
    /// The file whose first line is the key that the chain's server knows you by; toncenter's own
    /// may stand in TUSSAH_CHAIN_KEY. Without one a question a second is answered.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// The variable with toncenter's key.
const KEY_VARIABLE: &str = "TUSSAH_CHAIN_KEY";

impl ApiKeyOption {
    /// As if the file had been typed.
    pub(crate) const fn of_file(api_key_file: Option<PathBuf>) -> Self {
        Self { api_key_file }
    }

    /// The file that was typed.
    pub(crate) fn into_file(self) -> Option<PathBuf> {
        self.api_key_file
    }

    fn read(&self, url: &str) -> Result<Option<Zeroizing<String>>, Failure> {
        if let Some(file) = &self.api_key_file {
            return wallets::first_line(file).map(Some);
        }
        let key = std::env::var(KEY_VARIABLE).ok().map(Zeroizing::new);
        key_for(url, key)
    }
}

/// The key of the environment, where it is meant for this server.
fn key_for(
    url: &str,
    key: Option<Zeroizing<String>>,
) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    // As the client reads it that sends the key, so that no spelling leads it elsewhere.
    let Some(to) = Destination::of(url) else {
        return Ok(None); // No server, no key; whoever asks says so.
    };
    let host = &to.host;
    if to.is_secure && (host == "toncenter.com" || host.ends_with(".toncenter.com")) {
        return Ok(Some(key));
    }
    if to.is_local() {
        return Ok(None); // A localnet asks for none.
    }
    let message = format!("{KEY_VARIABLE} is for toncenter.com, and this is {host}");
    Err(Failure::usage(message)
        .help("give this server's key with --api-key-file, or leave the variable empty"))
}

/// A chain that a command talks to.
#[derive(Debug)]
pub(crate) enum OpenChain {
    /// Behind a server.
    Toncenter(Box<Toncenter>),
    /// In this process, kept in a folder that no other process has meanwhile.
    Embedded(Box<Mutex<Network>>),
}

impl ChainOption {
    /// The option as a command that has flags of its own for it says it.
    pub(crate) const fn new(chain: String, key: ApiKeyOption) -> Self {
        Self { chain, key }
    }

    /// That it names a chain, as far as that shows without asking one.
    ///
    /// # Errors
    /// A usage failure if it does not, or the key's file cannot be read.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.chain.strip_prefix("embedded:") {
            Some(folder) => require_chain_in(Path::new(folder)),
            None => self.server().map(drop),
        }
    }

    fn server(&self) -> Result<ToncenterConfig, Failure> {
        let (url, network) = match self.chain.as_str() {
            "mainnet" => (ToncenterConfig::MAINNET, Some(NetworkId::MAINNET)),
            "testnet" => (ToncenterConfig::TESTNET, Some(NetworkId::TESTNET)),
            url if url.contains("://") => (url, None),
            other => {
                let message = format!("`{other}` is no chain");
                return Err(Failure::usage(message).help(NAME_ONE));
            }
        };
        let mut config = ToncenterConfig::new(url, self.key.read(url)?);
        config.network = network;
        Ok(config)
    }

    /// Opens the chain, and asks it which network it is.
    ///
    /// # Errors
    /// A usage failure if this names no chain, or one on another network; a host failure if it
    /// does not answer.
    pub(crate) async fn open(&self) -> Result<OpenChain, Failure> {
        if let Some(folder) = self.chain.strip_prefix("embedded:") {
            let network = embedded(Path::new(folder), IfNone::Refuse)?;
            return Ok(OpenChain::Embedded(Box::new(Mutex::new(network))));
        }
        let chain = Toncenter::connect(self.server()?).await;
        Ok(OpenChain::Toncenter(Box::new(
            chain.map_err(chain_failure)?,
        )))
    }
}

/// What to do where a folder has no chain. One that a mistyped name made would be an empty one, in
/// which nothing that was paid can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfNone {
    Make,
    Refuse,
}

/// The chain in a folder. Its time is this machine's.
///
/// # Errors
/// A usage failure if there is no name, or no chain and none is to be made; a host failure if the
/// folder cannot be used, or another process has it.
pub(crate) fn embedded(folder: &Path, if_none: IfNone) -> Result<Network, Failure> {
    if folder.as_os_str().is_empty() {
        return Err(Failure::usage("`embedded:` names no folder").help(NAME_ONE));
    }
    if if_none == IfNone::Refuse {
        require_chain_in(folder)?;
    }
    std::fs::create_dir_all(folder).map_err(|error| file_failure("make", folder, error))?;
    Network::open(folder, Box::new(clock::seconds)).map_err(|error| match error {
        LocalnetError::Store(StoreError::Taken { .. }) => {
            Failure::host(error).help("a localnet that runs is named by its URL")
        }
        error => Failure::host(error),
    })
}

fn require_chain_in(folder: &Path) -> Result<(), Failure> {
    if Network::is_in(folder) {
        return Ok(());
    }
    let folder = folder.display();
    let message = format!("there is no chain in {folder}");
    Err(Failure::usage(message).help(format!(
        "`tussah chain faucet ADDRESS GRAM --chain embedded:{folder}` makes one"
    )))
}

fn in_process(error: LocalnetError) -> ChainError {
    match error {
        LocalnetError::Chain(error) => error,
        other => ChainError::Executor(other.into()),
    }
}

/// The network at its present time. A network that panicked was saved before or not at all.
fn present(network: &Mutex<Network>) -> MutexGuard<'_, Network> {
    let mut network = network.lock().unwrap_or_else(PoisonError::into_inner);
    network.tick();
    network
}

/// For clap: an address, with flags or raw.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    recipient(text).map(|recipient| recipient.address)
}

/// An address that money will go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    address: Address,
    /// Its flags say that it is not for the main network.
    test_only: bool,
}

/// For clap: the same, and what its flags say of the network.
pub(crate) fn recipient(text: &str) -> Result<Recipient, String> {
    if let Ok(friendly) = text.parse::<FriendlyAddress>() {
        return Ok(Recipient {
            address: friendly.address,
            test_only: friendly.test_only,
        });
    }
    let raw = text.parse::<Address>();
    let address =
        raw.map_err(|_| format!("`{text}` is no address: 48 characters, or 0: and 64 hex digits"))?;
    Ok(Recipient {
        address,
        test_only: false,
    })
}

impl Recipient {
    /// The address, where money of this network can be meant for it.
    ///
    /// # Errors
    /// A usage failure if it is marked as test only, and this is the main network.
    pub(crate) fn on(&self, network: NetworkId) -> Result<Address, Failure> {
        if !self.test_only || network != NetworkId::MAINNET {
            return Ok(self.address.clone());
        }
        let shown = FriendlyAddress {
            address: self.address.clone(),
            bounceable: false,
            test_only: true,
        };
        let message = format!("{shown} is marked as test only, and this is the main network");
        Err(Failure::usage(message).help("give the account's address on the main network"))
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
            Some("give an API key with --api-key-file, or wait"),
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

/// Sends messages from a wallet to one contract, and waits until it has taken all of them; what
/// each did there, in their order.
///
/// # Errors
/// A usage failure with the contract's own reason if it refused one; what it carried came back.
pub(crate) async fn pay(
    chain: &OpenChain,
    (wallet, key): &(Wallet, SigningKey),
    messages: &[OutMessage],
    contract: &str,
) -> Result<Vec<Transaction>, Failure> {
    let paid = wallet::pay(chain, &SystemClock::default(), wallet, key, messages).await;
    let arrived = paid.map_err(pay_failure)?.arrived;
    for transaction in &arrived {
        if transaction.exit_code == Some(0) && !transaction.aborted {
            continue;
        }
        let reason = match transaction.exit_code {
            Some(code) => match ContractError::from_exit_code(code) {
                Some(error) => error.to_string(),
                None => format!("exit code {code}"),
            },
            None => "no code ran".to_owned(),
        };
        let message = format!("{contract} refused a message: {reason}");
        return Err(Failure::usage(message).help("the money came back, less fees"));
    }
    Ok(arrived)
}

/// What a look that fails after a payment is done is to whoever typed the command: no reason to
/// pay again.
pub(crate) fn after_payment(failure: Failure, look: &str) -> Failure {
    let exit = match failure.exit {
        // Nothing about the command was wrong: it has paid.
        Exit::USAGE => Exit::HOST_FAILED,
        other => other,
    };
    let failure = failure.context("it is paid; only the look at it afterwards failed");
    let help = format!("do not pay again: `{look}` shows what became of it");
    Failure { exit, ..failure }.help(help)
}

/// What a payment's error is to whoever typed the command.
fn pay_failure(error: PayError) -> Failure {
    match error {
        PayError::Chain(error) => chain_failure(error),
        PayError::Unknown { wallet, source } => {
            let unknown = PayError::Unknown {
                wallet: wallet.clone(),
                source,
            };
            Failure::host(unknown).help(format!(
                "look before you pay again: `tussah chain show {wallet}` lists what it sent"
            ))
        }
        PayError::Expired => Failure::host(error).help("try again"),
        PayError::Funds { wallet, has, needs } => {
            let (has, needs) = (grams(has), grams(needs));
            let message =
                format!("{wallet} has {has}, and {needs} are to be sent, with fees beside them");
            Failure::usage(message).help("send the wallet more, or pay less")
        }
        PayError::Unsent { .. } => Failure::usage(error).help("send the wallet more, or pay less"),
        other => Failure::usage(other),
    }
}

impl Chain for OpenChain {
    fn network(&self) -> NetworkId {
        match self {
            Self::Toncenter(chain) => chain.network(),
            Self::Embedded(_) => NetworkId::LOCALNET,
        }
    }

    async fn time(&self) -> Result<u32, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.time().await,
            Self::Embedded(network) => Ok(present(network).chain().now()),
        }
    }

    async fn send_boc(&self, message: Cell) -> Result<(), ChainError> {
        match self {
            Self::Toncenter(chain) => chain.send_boc(message).await,
            Self::Embedded(network) => {
                let sent = present(network).send(message);
                sent.map(drop).map_err(in_process)
            }
        }
    }

    async fn account(&self, address: &Address) -> Result<Account, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.account(address).await,
            Self::Embedded(network) => present(network).chain().account_now(address),
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
            Self::Embedded(network) => present(network).chain().get(address, method, arguments),
        }
    }

    async fn transactions(
        &self,
        address: &Address,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        match self {
            Self::Toncenter(chain) => chain.transactions(address, after_lt).await,
            Self::Embedded(network) => present(network)
                .chain()
                .transactions_after(address, after_lt),
        }
    }

    async fn newest_transactions(
        &self,
        address: &Address,
        after_lt: u64,
        count_max: usize,
    ) -> Result<Vec<Transaction>, ChainError> {
        match self {
            Self::Toncenter(chain) => {
                let newest = chain.newest_transactions(address, after_lt, count_max);
                newest.await
            }
            Self::Embedded(network) => {
                let mut all = present(network)
                    .chain()
                    .transactions_after(address, after_lt)?;
                Ok(all.split_off(all.len().saturating_sub(count_max)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_tests_gets_no_money_of_the_main_network() {
        let raw = format!("0:{}", "11".repeat(32));
        let address: Address = raw.parse().unwrap();
        let text = |test_only| {
            let address = address.clone();
            let bounceable = false;
            let flagged = FriendlyAddress {
                address,
                bounceable,
                test_only,
            };
            flagged.to_string()
        };
        for (text, network, taken, reason) in [
            (text(true), NetworkId::MAINNET, false, "for tests, and real"),
            (text(true), NetworkId::TESTNET, true, "for tests"),
            (text(true), NetworkId::LOCALNET, true, "for tests, here"),
            (text(false), NetworkId::MAINNET, true, "for everything"),
            (text(false), NetworkId::TESTNET, true, "for everything"),
            (raw.clone(), NetworkId::MAINNET, true, "without flags"),
        ] {
            let on = recipient(&text).unwrap().on(network);
            let on = on.map_err(|failure| failure.exit);
            let expected = if taken {
                Ok(address.clone())
            } else {
                Err(Exit::USAGE)
            };
            assert_eq!(on, expected, "{reason}");
        }
        assert!(recipient("nonsense").is_err());
    }

    #[test]
    fn what_fails_after_a_payment_says_that_it_is_paid() {
        let address: Address = format!("0:{}", "11".repeat(32)).parse().unwrap();
        let failed = chain_failure(ChainError::NoCode(address));
        assert_eq!(failed.exit, Exit::USAGE);
        let failed = after_payment(failed, "tussah channel status 0:11");
        assert_eq!(failed.exit, Exit::HOST_FAILED);
        assert!(failed.chain()[0].starts_with("it is paid"), "{failed:?}");
        assert!(failed.chain()[1].contains("has no code"), "{failed:?}");
        let help = failed.help.unwrap();
        assert!(help.contains("`tussah channel status 0:11`"), "{help}");
    }

    #[test]
    fn the_environments_key_goes_to_toncenter_alone() {
        let key = || Some(Zeroizing::new("secret".to_owned()));
        for (url, sent, reason) in [
            (ToncenterConfig::MAINNET, Ok(true), "toncenter"),
            (ToncenterConfig::TESTNET, Ok(true), "toncenter, for tests"),
            ("https://toncenter.com:443/api/v2", Ok(true), "with a port"),
            ("HTTPS://TonCenter.com/api/v2", Ok(true), "in capitals"),
            ("HTTP://LOCALHOST/api/v2", Ok(false), "so is a localnet"),
            ("https://", Ok(false), "no server"),
            ("http://127.0.0.1:8081/api/v2", Ok(false), "a localnet"),
            ("http://localhost/api/v2", Ok(false), "a localnet by name"),
            ("http://[::1]:8081/api/v2", Ok(false), "a localnet by IPv6"),
            ("https://toncenter.com.evil.org/", Err(()), "looks alike"),
            ("https://eviltoncenter.com/", Err(()), "looks alike"),
            ("https://evil.org/toncenter.com", Err(()), "in its path"),
            ("https://a@evil.org/.toncenter.com", Err(()), "a user"),
            ("https://toncenter.com@evil.org/", Err(()), "as a user"),
            ("https://evil.org\\.toncenter.com/", Err(()), "a backslash"),
            ("https://evil.org\\@toncenter.com/", Err(()), "both"),
            ("https://127.evil.org/", Err(()), "like a localnet"),
            ("https://evil.org?.toncenter.com", Err(()), "in its query"),
            ("http://toncenter.com/api/v2", Err(()), "not secret"),
            ("https://example.org/api/v2", Err(()), "somebody else"),
        ] {
            let found = key_for(url, key());
            let found = found.map(|key| key.is_some()).map_err(drop);
            assert_eq!(found, sent, "{reason}");
            assert!(matches!(key_for(url, None), Ok(None)), "no key: {reason}");
        }
    }
}
