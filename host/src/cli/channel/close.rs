//! `tussah channel close`: at once where both agree, else by the challenge window; then the rest
//! of the deposit goes back to the client.

use clap::Args;
use tussah_manifest::{Commitment, Nanograms, TreeHash};
use tussah_settlement::channel::{self, ChannelStatus};
use tussah_settlement::voucher::Voucher;
use tussah_settlement::{Address, Cell, Chain};

use super::{CHANNEL, PayOption, Place, to_channel};
use crate::{
    chain_option::{address, block_on, chain_failure, pay},
    channels::{Channels, Held, Known, client_failure},
    exit_code::Exit,
    failure::Failure,
    home::Home,
    paid::Books,
    ui::Ui,
    wallets::{unlock_on, wallet_name},
};

const EXAMPLES: &str = "\
Examples:
  tussah channel close 0:83ae… --wallet main --chain testnet

Where this host is client and provider both sign, and the channel closes at once on the newest
voucher. Otherwise the challenge window starts; once it is over, the same command takes back what
is left. Money that the channel owes the provider stays until it is withdrawn.";

/// Close a channel, and take back what is left of the deposit.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The channel.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Address,
    /// The client's wallet, which opened the channel.
    #[arg(long, value_name = "NAME", value_parser = wallet_name)]
    wallet: String,
    /// Start the challenge window even where both could sign.
    #[arg(long)]
    one_sided: bool,
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
            let now = chain.time().await.map_err(chain_failure)?;
            let state = &known.look.state;
            let is_over = state.status == ChannelStatus::Closed || now >= state.deadline;
            let both = known.is_client && known.is_provider && !self.one_sided;
            if !is_over && !both && state.status != ChannelStatus::Open {
                let message = format!(
                    "the challenge window ends in {} seconds",
                    state.deadline - now
                );
                return Err(Failure::new(Exit::LIMIT, message)
                    .help("run the command again then, to take back what is left"));
            }
            // Before anything is signed, which cannot be taken back.
            let wallet = unlock_on(home, chain, &self.wallet, &self.with.passphrase)?;
            self.require_party(known, &wallet.0.address(), is_over || both)?;
            // Held to the end: no run begins on a close that is signed.
            let mut held = None;
            let bodies = if is_over {
                vec![channel::refund(1)]
            } else if both {
                let held = held.insert(channels.hold(&self.address)?);
                vec![agreed(home, channels, known, held)?, channel::refund(2)]
            } else {
                vec![channel::start_close(1)]
            };
            let messages: Vec<_> = bodies
                .into_iter()
                .map(|body| to_channel(known, Nanograms::ZERO, body))
                .collect();
            pay(chain, &wallet, &messages, CHANNEL).await?;
            place.show_paid(ui).await
        })
    }

    /// That the channel takes the wallet's messages: it refunds the client alone, and its
    /// provider's owner may start the window too.
    fn require_party(&self, known: &Known, wallet: &Address, refunds: bool) -> Result<(), Failure> {
        let (client, owner) = (&known.agreed.terms.client, &known.agreed.terms.owner);
        if wallet == client || (!refunds && wallet == owner) {
            return Ok(());
        }
        let name = &self.wallet;
        let message = format!("wallet `{name}` is not the channel's client, {client}");
        Err(Failure::usage(message).help("give the wallet that opened the channel with --wallet"))
    }
}

/// The close on the newest voucher that the client signed, by both.
fn agreed(home: &Home, channels: &Channels, known: &Known, held: &Held) -> Result<Cell, Failure> {
    let one_sided = "or close with --one-sided, which needs no book";
    channels.require_current(known).map_err(|failure| {
        let help = failure.help.clone().unwrap_or_default();
        failure.help(format!("{help}, {one_sided}"))
    })?;
    Books::new(channels, known, held).recover(home)?;
    let view = channels.client.view(&known.id).map_err(client_failure)?;
    let voucher = match view.voucher {
        Some(signed) => signed.voucher,
        None => Voucher {
            channel: known.id.clone(),
            amount: Nanograms::ZERO,
            commitment: Commitment {
                receipts: 0,
                root: TreeHash::empty_root(),
            },
        },
    };
    known.require_credited(voucher.amount)?;
    channels.sign_close(&known.id.address)?;
    let client = voucher.agree_to_close(&channels.client_key);
    let provider = voucher.agree_to_close(&channels.provider_key);
    Ok(voucher.close_message(&client, &provider))
}
