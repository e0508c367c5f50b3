//! `tussah wallet balance`: what a wallet has.

use clap::Args;
use serde::Serialize;
use tussah_manifest::Nanograms;
use tussah_settlement::{AccountStatus, Chain};

use super::{View, network_name};
use crate::{
    chain_option::{ChainOption, block_on, chain_failure},
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    ui::Ui,
    wallets::{self, wallet_name},
};

const EXAMPLES: &str = "\
Examples:
  tussah wallet balance main --chain testnet
  TUSSAH_CHAIN=http://127.0.0.1:8081/api/v2 tussah wallet balance main --json

With --json the amount is a string of nanograms. No passphrase is needed.";

/// Show what a wallet has.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The wallet's name.
    #[arg(value_parser = wallet_name)]
    name: String,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct BalanceView {
    #[serde(flatten)]
    wallet: View,
    nanograms: Nanograms,
    state: &'static str,
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let file = wallets::load(home, &self.name)?;
        let wallet = file.wallet();
        let account = block_on(async {
            let chain = self.chain.open().await?;
            wallets::require_network(&self.name, wallet, chain.network())?;
            chain
                .account(&wallet.address())
                .await
                .map_err(chain_failure)
        })?;
        let state = match account.status {
            AccountStatus::Missing => "missing",
            AccountStatus::Uninit => "not deployed",
            AccountStatus::Active(_) => "active",
            AccountStatus::Frozen(_) => "frozen",
        };
        if ui.json() {
            ui.document(&BalanceView {
                wallet: View::new(&self.name, wallet),
                nanograms: account.balance,
                state,
            })?;
        } else {
            let network = network_name(wallet.network);
            ui.line(&format!("{} on {network}, {state}", grams(account.balance)))?;
        }
        Ok(Exit::DONE)
    }
}
