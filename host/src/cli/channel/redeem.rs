//! `tussah channel redeem`: the newest voucher, posted with its root, and seen on chain.

use clap::Args;
use tussah_commit::Tended;
use tussah_manifest::Nanograms;
use tussah_settlement::Address;

use super::{CHANNEL, LOOK_INTERVAL, PayOption, Place, to_channel};
use crate::{
    chain_option::{OpenChain, address, block_on, pay},
    channels::{AT_ONCE, Known, redeem_failure},
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    ui::Ui,
    wallets::{unlock_on, wallet_name},
};

/// Looks until the command gives up waiting; the book goes on at the next one.
const LOOKS_MAX: u32 = 60;

/// Post the newest voucher and its root, and credit the provider.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The channel.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Address,
    /// A wallet that pays the gas where the gain is below the channel's smallest step.
    #[arg(long, value_name = "NAME", value_parser = wallet_name)]
    wallet: Option<String>,
    #[command(flatten)]
    pub(super) with: PayOption,
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        block_on(async {
            let place = Place::find(home, &self.with.chain, &self.address).await?;
            let Place {
                channels,
                chain,
                known,
            } = &place;
            known.require_provider()?;
            // What the client's book lacks does not matter: all that is posted it has signed.
            channels.require_provider_current(known)?;
            let mut by_wallet = false;
            for _ in 0..LOOKS_MAX {
                let key = &channels.provider_key;
                let tended = channels.provider.tend(chain, &known.id, key, AT_ONCE);
                match tended.await.map_err(redeem_failure)? {
                    Tended::Idle if by_wallet => return place.show_paid(ui).await,
                    Tended::Idle => return place.show(ui).await,
                    Tended::Sent { amount, .. } => {
                        ui.note(&format!("sent the voucher for {}", grams(amount)));
                        // A chain in the box has it at once.
                        continue;
                    }
                    Tended::Waiting => tokio::time::sleep(LOOK_INTERVAL).await,
                    // The channel has taken it; a server may not know that yet.
                    Tended::Small { .. } if by_wallet => {
                        tokio::time::sleep(LOOK_INTERVAL).await;
                    }
                    Tended::Small { body, gain } => {
                        self.by_wallet(home, chain, known, body, gain).await?;
                        by_wallet = true;
                    }
                    Tended::Late { lost } => {
                        let lost = grams(lost);
                        let message = format!("the deadline has passed; {lost} are not redeemed");
                        return Err(Failure::new(Exit::LIMIT, message));
                    }
                }
            }
            let message = "the chain does not show the voucher yet";
            Err(Failure::host(message).help("run the command again: nothing is paid twice"))
        })
    }

    async fn by_wallet(
        &self,
        home: &Home,
        chain: &OpenChain,
        known: &Known,
        body: tussah_settlement::Cell,
        gain: Nanograms,
    ) -> Result<(), Failure> {
        let Some(name) = &self.wallet else {
            let step = grams(known.agreed.terms.redeem_step_min);
            let message = format!(
                "{} are to be redeemed, and the channel redeems {step} at least",
                grams(gain)
            );
            return Err(Failure::new(Exit::LIMIT, message)
                .help("wait for more, or have a wallet pay the gas: --wallet NAME"));
        };
        let wallet = unlock_on(home, chain, name, &self.with.passphrase)?;
        let message = to_channel(known, Nanograms::ZERO, body);
        pay(chain, &wallet, &[message], CHANNEL).await.map(drop)
    }
}
