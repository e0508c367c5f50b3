//! `tussah channel`: payment channels, from the deposit to the payout.

mod close;
mod files;
mod fund;
mod open;
mod redeem;
mod status;

use std::time::Duration;

use clap::{Args, Subcommand};
use tussah_manifest::Nanograms;
use tussah_settlement::wallet::OutMessage;
use tussah_settlement::{Address, Cell};

use crate::{
    chain_option::{ChainOption, OpenChain, after_payment},
    channels::{Absent, Channels, Known},
    exit_code::Exit,
    failure::Failure,
    home::Home,
    ui::Ui,
    wallets::PassphraseOption,
};

/// What a message carries for its gas, 0.05 GRAM; what is left of it comes back.
const GAS_NANOGRAMS: u64 = 50_000_000;

/// Between two looks at the chain.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Looks for a channel that was just paid: servers behind one address can be some blocks apart.
const PAID_LOOKS_MAX: u32 = 10;

/// Open payment channels, look into them, and get money out of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Open(open::Arguments),
    TopUp(fund::TopUpArguments),
    Status(status::Arguments),
    Redeem(redeem::Arguments),
    Withdraw(fund::WithdrawArguments),
    Close(close::Arguments),
    Export(files::ExportArguments),
    Import(files::ImportArguments),
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Open(arguments) => arguments.with.json,
            Self::TopUp(arguments) => arguments.with.json,
            Self::Status(arguments) => arguments.json,
            Self::Redeem(arguments) => arguments.with.json,
            Self::Withdraw(arguments) => arguments.with.json,
            Self::Close(arguments) => arguments.with.json,
            Self::Export(arguments) => arguments.json,
            Self::Import(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let home = Home::open()?;
        match self {
            Self::Open(arguments) => arguments.run(&home, ui),
            Self::TopUp(arguments) => arguments.run(&home, ui),
            Self::Status(arguments) => arguments.run(&home, ui),
            Self::Redeem(arguments) => arguments.run(&home, ui),
            Self::Withdraw(arguments) => arguments.run(&home, ui),
            Self::Close(arguments) => arguments.run(&home, ui),
            Self::Export(arguments) => arguments.run(&home, ui),
            Self::Import(arguments) => arguments.run(&home, ui),
        }
    }
}

/// What every command takes that pays: on which chain, by which passphrase, and how to answer.
#[derive(Debug, Args)]
struct PayOption {
    #[command(flatten)]
    chain: ChainOption,
    #[command(flatten)]
    passphrase: PassphraseOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A channel of this host, as its chain has it now.
struct Place {
    channels: Channels,
    chain: OpenChain,
    known: Known,
}

impl Place {
    async fn find(home: &Home, chain: &ChainOption, address: &Address) -> Result<Self, Failure> {
        let channels = Channels::open(home)?;
        let chain = chain.open().await?;
        let known = channels.find(&chain, address).await?;
        Ok(Self {
            channels,
            chain,
            known,
        })
    }

    /// Asks again, and shows what was made of it.
    async fn show(&self, ui: &Ui) -> Result<Exit, Failure> {
        show(&self.channels, &self.chain, &self.known.id.address, ui).await
    }

    /// The same after a payment.
    async fn show_paid(&self, ui: &Ui) -> Result<Exit, Failure> {
        show_paid(&self.channels, &self.chain, &self.known.id.address, ui).await
    }
}

/// Shows a channel as the chain has it now.
async fn show(
    channels: &Channels,
    chain: &OpenChain,
    address: &Address,
    ui: &Ui,
) -> Result<Exit, Failure> {
    let known = channels.find(chain, address).await?;
    status::show(channels, &known, ui)?;
    Ok(Exit::DONE)
}

/// The same after a payment: a server that does not know of it yet is asked again, and what fails
/// all the same says that it is paid.
async fn show_paid(
    channels: &Channels,
    chain: &OpenChain,
    address: &Address,
    ui: &Ui,
) -> Result<Exit, Failure> {
    let mut looks = 1;
    let shown = loop {
        match show(channels, chain, address, ui).await {
            Err(failure) if failure.error.is::<Absent>() && looks < PAID_LOOKS_MAX => {
                looks += 1;
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            shown => break shown,
        }
    };
    shown.map_err(|failure| paid(failure, address))
}

/// What fails after a channel was paid.
fn paid(failure: Failure, address: &Address) -> Failure {
    after_payment(failure, &format!("tussah channel status {address}"))
}

/// A message to a channel, with its gas beside what it brings.
fn to_channel(known: &Known, brings: Nanograms, body: Cell) -> OutMessage {
    let value = brings.get().saturating_add(GAS_NANOGRAMS);
    OutMessage {
        to: known.id.address.clone(),
        value: Nanograms::new(value).unwrap_or(Nanograms::MAX),
        bounce: true,
        init: None,
        body,
    }
}

/// What [`pay`](crate::chain_option::pay) calls whom it pays.
const CHANNEL: &str = "the channel";
