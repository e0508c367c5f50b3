//! `tussah provider show`: what a provider's contract states, and whether an offer is its own.

use std::path::PathBuf;

use clap::Args;
use tussah_settlement::{Address, Chain};

use super::{Listed, read_offer};
use crate::{
    chain_option::{ChainOption, address, block_on},
    exit_code::Exit,
    failure::Failure,
    ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah provider show kQDx… --chain testnet
  tussah provider show kQDx… --chain testnet --offer offer.toml

With --offer, exit code 3 says that the provider's contract lists another offer: its digest,
a price, the key, the endpoint or the network differs.";

/// Show what a provider states on chain.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The address of the provider's contract.
    #[arg(value_parser = address)]
    provider: Address,
    /// Compare this offer with the one that is listed.
    #[arg(long, value_name = "FILE")]
    offer: Option<PathBuf>,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let offer = self.offer.as_deref().map(read_offer).transpose()?;
        block_on(async {
            let chain = self.chain.open().await?;
            let listed = Listed::read(&chain, self.provider).await?;
            if let Some(offer) = offer {
                let checked = offer.check(chain.network(), &listed.state, &listed.offer);
                checked.map_err(Failure::not_verified)?;
            }
            listed.show(&chain, ui)?;
            Ok(Exit::DONE)
        })
    }
}
