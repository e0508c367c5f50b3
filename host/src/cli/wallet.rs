//! `tussah wallet`: keys that pay, under a passphrase, by name.

mod address;
mod balance;
mod import;
mod new;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use tussah_settlement::FriendlyAddress;
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{Mnemonic, Wallet, WalletVersion};

use crate::{exit_code::Exit, failure::Failure, home::Home, ui::Ui, wallets};

/// Make wallets and look into them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    New(new::Arguments),
    Import(import::Arguments),
    Address(address::Arguments),
    Balance(balance::Arguments),
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::New(arguments) => arguments.json,
            Self::Import(arguments) => arguments.json,
            Self::Address(arguments) => arguments.json,
            Self::Balance(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let home = Home::open()?;
        match self {
            Self::New(arguments) => arguments.run(&home, ui),
            Self::Import(arguments) => arguments.run(&home, ui),
            Self::Address(arguments) => arguments.run(&home, ui),
            Self::Balance(arguments) => arguments.run(&home, ui),
        }
    }
}

/// Which contract the wallet is, and where.
#[derive(Clone, Debug, Args)]
struct KindOption {
    /// Which contract the wallet is.
    #[arg(long, value_enum, default_value = "v5r1")]
    version: Version,
    /// The network: `mainnet`, `testnet`, `localnet`, or its global id.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: NetworkId,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    /// Up to four messages at once; the same address on every network.
    V4r2,
    /// Up to 255 messages at once; another address on each network.
    V5r1,
}

impl KindOption {
    fn kind(&self) -> (WalletVersion, NetworkId) {
        let version = match self.version {
            Version::V4r2 => WalletVersion::V4R2,
            Version::V5r1 => WalletVersion::V5R1,
        };
        (version, self.network)
    }
}

/// For clap: a network by name or number.
fn network(text: &str) -> Result<NetworkId, String> {
    match text {
        "mainnet" => Ok(NetworkId::MAINNET),
        "testnet" => Ok(NetworkId::TESTNET),
        "localnet" => Ok(NetworkId::LOCALNET),
        number => number
            .parse()
            .map(NetworkId)
            .map_err(|_| format!("`{text}` is no network: mainnet, testnet, localnet or a number")),
    }
}

/// What a network is called.
pub(super) fn network_name(network: NetworkId) -> String {
    match network {
        NetworkId::MAINNET => "mainnet".to_owned(),
        NetworkId::TESTNET => "testnet".to_owned(),
        NetworkId::LOCALNET => "localnet".to_owned(),
        NetworkId(id) => id.to_string(),
    }
}

/// Locks the words' key under a passphrase, and says which wallet it is.
fn lock(
    home: &Home,
    name: &str,
    mnemonic: &Mnemonic,
    kind: &KindOption,
    passphrase: &str,
) -> Result<View, Failure> {
    let wallet = wallets::create(home, name, &mnemonic.key(), kind.kind(), passphrase)?;
    Ok(View::new(name, &wallet))
}

/// A wallet, as `--json` shows it.
#[derive(Serialize)]
struct View {
    name: String,
    /// Without bounce, so that money reaches it before it is deployed.
    address: String,
    raw_address: String,
    version: &'static str,
    network: String,
    public_key: String,
}

impl View {
    fn new(name: &str, wallet: &Wallet) -> Self {
        let address = wallet.address();
        Self {
            name: name.to_owned(),
            raw_address: address.to_string(),
            address: FriendlyAddress::wallet(address, wallet.network).to_string(),
            version: match wallet.version {
                WalletVersion::V4R2 => "v4r2",
                WalletVersion::V5R1 => "v5r1",
            },
            network: network_name(wallet.network),
            public_key: wallet.key.to_string(),
        }
    }
}
