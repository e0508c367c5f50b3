//! `tussah channel top-up` and `channel withdraw`: money in, money out.

use clap::Args;
use tussah_manifest::Nanograms;
use tussah_settlement::chain::{SystemClock, delivered};
use tussah_settlement::channel::{self, ProviderSide};
use tussah_settlement::message::{self, ShownMessage};
use tussah_settlement::{Account, AccountStatus, Address, Cell, Chain, Transaction};

use super::{CHANNEL, PayOption, Place, paid, to_channel};
use crate::{
    chain_option::{OpenChain, address, block_on, chain_failure, pay},
    channels::Known,
    exit_code::Exit,
    failure::Failure,
    grams,
    home::Home,
    ui::Ui,
    wallets::{unlock_on, wallet_name},
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
    pub(super) with: PayOption,
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
    pub(super) with: PayOption,
}

impl TopUpArguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        block_on(async {
            let place = Place::find(home, &self.with.chain, &self.address).await?;
            let Place { chain, known, .. } = &place;
            let wallet = unlock_on(home, chain, &self.wallet, &self.with.passphrase)?;
            let message = to_channel(known, self.amount, channel::top_up(1));
            pay(chain, &wallet, &[message], CHANNEL).await?;
            place.show_paid(ui).await
        })
    }
}

impl WithdrawArguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        block_on(async {
            let place = Place::find(home, &self.with.chain, &self.address).await?;
            let Place { chain, known, .. } = &place;
            if known.look.state.owed == Nanograms::ZERO {
                return Err(Failure::usage("the channel owes the provider nothing")
                    .help("`tussah channel redeem` posts the newest voucher"));
            }
            let wallet = unlock_on(home, chain, &self.wallet, &self.with.passphrase)?;
            let side = ProviderSide::at(chain, &self.address).await;
            let payout = side.map_err(chain_failure)?.payout;
            let before = chain.account(&payout).await.map_err(chain_failure)?;
            self.check(known, &wallet.0.address(), (&payout, &before))?;
            let body = channel::withdraw(1, !self.undeployed);
            let message = to_channel(known, Nanograms::ZERO, body);
            let withdrawn = pay(chain, &wallet, &[message], CHANNEL).await?;
            let after = (&payout, before.last_lt);
            for transaction in &withdrawn {
                require_paid(chain, transaction, after).await?;
            }
            place.show_paid(ui).await
        })
    }

    /// That the payment will not come back, as far as that can be told.
    fn check(
        &self,
        known: &Known,
        wallet: &Address,
        (payout, account): (&Address, &Account),
    ) -> Result<(), Failure> {
        let owner = &known.agreed.terms.owner;
        if self.undeployed && wallet != owner {
            let message = format!("only the channel's owner, {owner}, can use --undeployed");
            return Err(Failure::usage(message).help("give the owner's wallet with --wallet"));
        }
        // A wallet that is not deployed yet is deployed by what it pays, before it is paid.
        let will_be_active = wallet == payout || matches!(account.status, AccountStatus::Active(_));
        if self.undeployed || will_be_active {
            return Ok(());
        }
        let message = format!("no code runs at the payout account {payout}: it would not be paid");
        Err(Failure::usage(message)
            .help("deploy it, or have the owner's wallet pay it all the same: --undeployed"))
    }
}

/// Waits until the payment is where it should be, or back.
async fn require_paid(
    chain: &OpenChain,
    withdrawn: &Transaction,
    (payout, after_lt): (&Address, u64),
) -> Result<(), Failure> {
    let clock = SystemClock::default();
    let unseen = |error| paid(chain_failure(error), &withdrawn.account);
    let messages = withdrawn.out_messages.iter();
    for payment in messages.filter(|cell| is(cell, |shown| shown.name == Some("Payout"))) {
        let arrived = delivered(chain, &clock, payment, after_lt).await;
        let arrived = arrived.map_err(unseen)?;
        let mut answers = arrived.out_messages.iter();
        let Some(back) = answers.find(|cell| is(cell, |shown| shown.bounced)) else {
            continue;
        };
        // What the status shows is what is owed again.
        let back = delivered(chain, &clock, back, withdrawn.lt).await;
        back.map_err(unseen)?;
        let message = format!("the payout account {payout} did not take the payment");
        return Err(Failure::usage(message).help(
            "it is owed again, less fees; from now on only the channel's owner can have it tried",
        ));
    }
    Ok(())
}

fn is(cell: &Cell, what: impl Fn(&ShownMessage) -> bool) -> bool {
    message::show(cell).is_ok_and(|shown| what(&shown))
}
