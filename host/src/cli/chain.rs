//! `tussah chain`: a TON network on this machine, and a look at accounts of any network.

mod control;
mod localnet;
mod show;

use clap::Subcommand;

use crate::{exit_code::Exit, failure::Failure, ui::Ui};

/// Run a TON network on this machine, and look at chains.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Localnet(localnet::Arguments),
    Faucet(control::FaucetArguments),
    Advance(control::AdvanceArguments),
    Show(show::Arguments),
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Localnet(arguments) => arguments.json,
            Self::Faucet(arguments) => arguments.json,
            Self::Advance(arguments) => arguments.json,
            Self::Show(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self {
            Self::Localnet(arguments) => arguments.run(ui),
            Self::Faucet(arguments) => arguments.run(ui),
            Self::Advance(arguments) => arguments.run(ui),
            Self::Show(arguments) => arguments.run(ui),
        }
    }
}
