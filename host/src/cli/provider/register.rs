//! `tussah provider register`: deploys the provider's contract, lists its offer, adds to its bond.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tussah_manifest::{Nanograms, SigningKey};
use tussah_settlement::provider::{self, Listing, ProviderTerms};
use tussah_settlement::wallet::{OutMessage, Wallet};
use tussah_settlement::{Address, Chain, ChainError};

use super::{Listed, read_offer};
use crate::{
    chain_option::{ChainOption, OpenChain, Recipient, after_payment, block_on, pay, recipient},
    exit_code::Exit,
    failure::Failure,
    grams,
    home::Home,
    keys::{self, KeyName},
    ui::Ui,
    wallets::{self, PassphraseOption, wallet_name},
};

/// What the listing carries for its gas; what is left of it comes back.
const LIST_NANOGRAMS: u64 = 100_000_000;
/// What goes with the bond: the rent of a year that the contract keeps back, about 0.03 grams,
/// and gas. What is not needed is added to the bond.
const BOND_BESIDE_NANOGRAMS: u64 = 50_000_000;

/// Between two looks at the chain.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Looks for a contract that was just paid: servers behind one address can be some blocks apart.
const LOOKS_MAX: u32 = 10;

const EXAMPLES: &str = "\
Examples:
  tussah provider register cold --offer offer.toml --bond 10 --chain testnet
  tussah provider register cold --offer offer.toml --chain testnet     Lists another offer

The wallet owns the contract; its address follows from owner, exit delay, forfeit and salt, so
the same command with another offer changes the listing. The offer is a file that you serve:

  offer = 1
  network = -3                        # -239 is the main network
  key = \"ed25519:3b6a27bc…\"           # `tussah provider key`
  fuel_price_nanograms = 10000        # for 10^9 units of fuel
  inference_price_nanograms = 20000   # for 10^9 inference units";

/// Register as a provider, or change what is listed.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The wallet that owns the contract and pays.
    #[arg(value_parser = wallet_name)]
    wallet: String,
    /// The offer to list.
    #[arg(long, value_name = "FILE")]
    offer: PathBuf,
    /// GRAM to add to the bond.
    #[arg(long, value_name = "GRAM", default_value = "0", value_parser = grams::parse)]
    bond: Nanograms,
    /// The account that the bond goes back to; the wallet if not given.
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    payout: Option<Recipient>,
    /// Days from the wish to leave until the bond can be taken.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
    exit_days: u32,
    /// Thousandths of the bond that an equivocation costs.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    forfeit_permille: u16,
    /// Tells the contracts of one owner apart.
    #[arg(long, value_name = "N", default_value_t = 0)]
    salt: u64,
    #[command(flatten)]
    chain: ChainOption,
    #[command(flatten)]
    passphrase: PassphraseOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Shows what is listed; a server that does not know the contract yet is asked again.
async fn show(chain: &OpenChain, contract: &Address, ui: &Ui) -> Result<Exit, Failure> {
    let mut looks = 1;
    loop {
        match Listed::read(chain, contract.clone()).await {
            Err(failure) if is_absent(&failure) && looks < LOOKS_MAX => {
                looks += 1;
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            listed => {
                listed?.show(chain, ui)?;
                return Ok(Exit::DONE);
            }
        }
    }
}

fn is_absent(failure: &Failure) -> bool {
    let error = failure.error.downcast_ref::<ChainError>();
    matches!(error, Some(ChainError::NoCode(_)))
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let home = Home::open()?;
        let offer = read_offer(&self.offer)?;
        let own = SigningKey::from_bytes(&*keys::load_or_create(&home, KeyName::Provider)?);
        if own.public_key() != offer.key {
            let message = format!("the offer's key is not this host's, {}", own.public_key());
            return Err(Failure::usage(message).help("name this host's key in the offer"));
        }
        let listing = Listing {
            payout: match &self.payout {
                Some(payout) => payout.on(offer.network)?,
                None => wallets::load(&home, &self.wallet)?.wallet().address(),
            },
            key: offer.key,
            endpoint: offer.endpoint,
            offer: offer.posted(),
        };
        block_on(async {
            let chain = self.chain.open().await?;
            if chain.network() != offer.network {
                let message = format!(
                    "the offer is for network {}, and this chain is network {}",
                    offer.network.0,
                    chain.network().0
                );
                return Err(Failure::usage(message));
            }
            let name = &self.wallet;
            let (wallet, key) = wallets::unlock_on(&home, &chain, name, &self.passphrase)?;
            let (contract, messages) = self.messages(&wallet, &listing);
            pay(&chain, &(wallet, key), &messages, "the provider's contract").await?;
            let look = format!("tussah provider show {contract}");
            let shown = show(&chain, &contract, ui).await;
            shown.map_err(|failure| after_payment(failure, &look))
        })
    }

    /// The contract's address, and what deploys it, lists the offer and adds the bond.
    fn messages(&self, wallet: &Wallet, listing: &Listing) -> (Address, Vec<OutMessage>) {
        let terms = ProviderTerms {
            owner: wallet.address(),
            exit_seconds: self.exit_days * 86_400,
            forfeit_permille: self.forfeit_permille,
            salt: self.salt,
        };
        let contract = provider::address(&terms);
        let message = |nanograms, body| OutMessage {
            to: contract.clone(),
            value: Nanograms::new(nanograms).unwrap_or(Nanograms::MAX),
            bounce: true,
            init: Some(provider::state_init(&terms)),
            body,
        };
        let mut messages = vec![message(LIST_NANOGRAMS, provider::list(1, listing))];
        if self.bond > Nanograms::ZERO {
            let value = self.bond.get() + BOND_BESIDE_NANOGRAMS;
            messages.push(message(value, provider::add_bond(2)));
        }
        (contract, messages)
    }
}
