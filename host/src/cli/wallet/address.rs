//! `tussah wallet address`: where to send money.

use clap::Args;

use super::View;
use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    ui::Ui,
    wallets::{self, wallet_name},
};

const EXAMPLES: &str = "\
Examples:
  tussah wallet address main
  tussah wallet address main --json | jq -r .raw_address

The address has no bounce flag, so that money reaches a wallet that is not deployed yet; outside
the main network it is marked as test only. No passphrase is needed.";

/// Show a wallet's address.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The wallet's name.
    #[arg(value_parser = wallet_name)]
    name: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let file = wallets::load(home, &self.name)?;
        let view = View::new(&self.name, file.wallet());
        if ui.json() {
            ui.document(&view)?;
        } else {
            ui.line(&view.address)?;
        }
        Ok(Exit::DONE)
    }
}
