//! `tussah channel open`: terms, the deposit, and an open channel.

use clap::Args;
use tussah_manifest::{Nanograms, PublicKey};
use tussah_settlement::Chain;
use tussah_settlement::channel::{self, ProviderSide, Terms};
use tussah_settlement::wallet::OutMessage;

use super::{CHANNEL, PayOption, show_paid};
use crate::{
    chain_option::{Recipient, block_on, chain_failure, pay, recipient},
    channels::{Agreed, Channels, PriceOption, REDEEM_STEP_MIN},
    exit_code::Exit,
    failure::Failure,
    grams,
    home::Home,
    ui::Ui,
    wallets::{self, unlock_on, wallet_name},
};

/// What goes with the deposit, 0.1 GRAM: the reserve for rent, and gas. It is the client's, and
/// comes back with the rest when the channel is closed.
const BESIDE_NANOGRAMS: u64 = 100_000_000;

const EXAMPLES: &str = "\
Examples:
  tussah channel open main --deposit 5 --chain testnet
                                   To this host's own provider role, paid out to `main`
  tussah channel open main --deposit 5 --provider ed25519:3b6a… --owner 0QAB… \\
      --inference-price 0.00002    To another provider, on the terms of its offer

The terms are kept before the money leaves the wallet: if the command is cut off,
`tussah channel status` says whether the channel is open.";

/// Open a payment channel with a deposit.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The wallet that deposits, and that gets back what is not spent.
    #[arg(value_parser = wallet_name)]
    wallet: String,
    /// GRAM to deposit.
    #[arg(long, value_name = "GRAM", value_parser = grams::parse)]
    deposit: Nanograms,
    /// The provider's key; this host's own if not given. This build pays no runs on other hosts.
    #[arg(long, value_name = "KEY", requires = "owner")]
    provider: Option<PublicKey>,
    /// The provider's account, which can change its key and payout; the wallet if not given.
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    owner: Option<Recipient>,
    /// The account that is paid; the owner's if not given.
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    payout: Option<Recipient>,
    /// Days until the channel expires.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// Hours that a one-sided close leaves for a newer voucher.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    challenge_hours: u32,
    /// GRAM that may be unpaid at any time.
    #[arg(long, value_name = "GRAM", default_value = "0.5", value_parser = grams::parse)]
    in_flight: Nanograms,
    /// GRAM that the provider redeems at least at once, at the channel's gas; 0.001 or more.
    #[arg(long, value_name = "GRAM", default_value = "0.005", value_parser = redeem_step)]
    redeem_step: Nanograms,
    #[command(flatten)]
    prices: PriceOption,
    #[command(flatten)]
    pub(super) with: PayOption,
}

/// For clap: a step that is worth its gas, which the channel keeps back from what it credits.
fn redeem_step(text: &str) -> Result<Nanograms, String> {
    let step = grams::parse(text)?;
    if step < REDEEM_STEP_MIN {
        let least = grams::grams(REDEEM_STEP_MIN);
        return Err(format!(
            "to redeem costs about half of {least}, the least step"
        ));
    }
    Ok(step)
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let channels = Channels::open(home)?;
        block_on(async {
            let chain = self.with.chain.open().await?;
            let wallet = unlock_on(home, &chain, &self.wallet, &self.with.passphrase)?;
            let (mut salt, mut drawn) = ([0; 8], [0; 32]);
            wallets::random(&mut salt)?;
            wallets::random(&mut drawn)?;
            let (client, network) = (wallet.0.address(), chain.network());
            let owner = match &self.owner {
                Some(owner) => owner.on(network)?,
                None => client.clone(),
            };
            let payout = match &self.payout {
                Some(payout) => payout.on(network)?,
                None => owner.clone(),
            };
            let agreed = Agreed {
                network,
                side: ProviderSide {
                    key: match self.provider {
                        Some(key) => key,
                        None => channels.provider_key.public_key(),
                    },
                    payout,
                },
                terms: Terms {
                    client,
                    owner,
                    client_key: channels.client_key.public_key(),
                    challenge_seconds: self.challenge_hours * 3_600,
                    redeem_step_min: self.redeem_step,
                    salt: u64::from_be_bytes(salt),
                },
                in_flight_max: self.in_flight,
                prices: self.prices.prices(),
            };
            if agreed.side.key != channels.provider_key.public_key() {
                ui.warn(
                    "the provider is another host, and this build pays runs on this host alone: \
                     the deposit can be had back with `tussah channel close --one-sided`",
                );
            }
            let address = channel::address(&agreed.terms, &agreed.side);
            // Before the money is on its way, so that nobody has to look for it.
            channels.keep(&address, &agreed)?;
            let now = chain.time().await.map_err(chain_failure)?;
            let value = self.deposit.get().saturating_add(BESIDE_NANOGRAMS);
            let message = OutMessage {
                to: address.clone(),
                value: Nanograms::new(value).unwrap_or(Nanograms::MAX),
                bounce: true,
                init: Some(channel::state_init(&agreed.terms, &agreed.side)),
                body: channel::open(1, drawn, now.saturating_add(self.days * 86_400)),
            };
            pay(&chain, &wallet, &[message], CHANNEL).await?;
            show_paid(&channels, &chain, &address, ui).await
        })
    }
}
