//! `tussah channel top-up` and `channel withdraw`: money in, money out.

use clap::Args;
use tussah_manifest::Nanograms;
use tussah_settlement::Address;
use tussah_settlement::channel;

use super::{CHANNEL, status, to_channel};
use crate::{
    chain_option::{ChainOption, address, block_on, pay},
    channels::Channels,
    exit_code::Exit,
    failure::Failure,
    grams,
    home::Home,
    ui::Ui,
    wallets::{PassphraseOption, unlock_on, wallet_name},
};

/// Add to a channel's deposit.
#[derive(Debug, Args)]
pub(crate) struct TopUpArguments {
    /// The channel.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Address,
    /// GRAM to add.
    #[arg(long, value_name = "GRAM", value_parser = grams::parse)]
    amount: Nanograms,
    /// The wallet that pays.
    #[arg(long, value_name = "NAME", value_parser = wallet_name)]
    wallet: String,
    #[command(flatten)]
    chain: ChainOption,
    #[command(flatten)]
    passphrase: PassphraseOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Have what was redeemed paid out to the payout account.
#[derive(Debug, Args)]
pub(crate) struct WithdrawArguments {
    /// The channel.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Address,
    /// The wallet that pays the gas; what is left of it comes back.
    #[arg(long, value_name = "NAME", value_parser = wallet_name)]
    wallet: String,
    /// Pay an account that is not deployed yet, too. Only the channel's owner can.
    #[arg(long)]
    undeployed: bool,
    #[command(flatten)]
    chain: ChainOption,
    #[command(flatten)]
    passphrase: PassphraseOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl TopUpArguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let channels = Channels::open(home)?;
        block_on(async {
            let chain = self.chain.open().await?;
            let known = channels.find(&chain, &self.address).await?;
            let wallet = unlock_on(home, &chain, &self.wallet, &self.passphrase)?;
            let message = to_channel(&known, self.amount, channel::top_up(1));
            pay(&chain, &wallet, &[message], CHANNEL).await?;
            let known = channels.find(&chain, &self.address).await?;
            status::show(&channels, &known, ui)?;
            Ok(Exit::DONE)
        })
    }
}

impl WithdrawArguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let channels = Channels::open(home)?;
        block_on(async {
            let chain = self.chain.open().await?;
            let known = channels.find(&chain, &self.address).await?;
            if known.look.state.owed == Nanograms::ZERO {
                return Err(Failure::usage("the channel owes the provider nothing")
                    .help("`tussah channel redeem` posts the newest voucher"));
            }
            let wallet = unlock_on(home, &chain, &self.wallet, &self.passphrase)?;
            let body = channel::withdraw(1, !self.undeployed);
            pay(
                &chain,
                &wallet,
                &[to_channel(&known, Nanograms::ZERO, body)],
                CHANNEL,
            )
            .await?;
            let known = channels.find(&chain, &self.address).await?;
            status::show(&channels, &known, ui)?;
            Ok(Exit::DONE)
        })
    }
}
