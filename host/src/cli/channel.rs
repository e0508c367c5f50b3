//! `tussah channel`: payment channels, from the deposit to the payout.

mod close;
mod files;
mod fund;
mod open;
mod redeem;
mod status;

use clap::Subcommand;
use tussah_manifest::Nanograms;
use tussah_settlement::Cell;
use tussah_settlement::wallet::OutMessage;

use crate::{channels::Known, exit_code::Exit, failure::Failure, home::Home, ui::Ui};

/// What a message carries for its gas, 0.05 GRAM; what is left of it comes back.
const GAS_NANOGRAMS: u64 = 50_000_000;

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
            Self::Open(arguments) => arguments.json,
            Self::TopUp(arguments) => arguments.json,
            Self::Status(arguments) => arguments.json,
            Self::Redeem(arguments) => arguments.json,
            Self::Withdraw(arguments) => arguments.json,
            Self::Close(arguments) => arguments.json,
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
