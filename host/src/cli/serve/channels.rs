//! `tussah serve channel`: through which payment channels the daemon takes jobs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use tussah_manifest::Nanograms;

use tussah_settlement::{Address, voucher::NetworkId};

use crate::{
    chain_option::{ChainOption, Recipient, block_on, recipient},
    channels::{Agreed, BY_ITSELF, Channels, Known, REDEEM_STEP_MIN},
    exit_code::Exit,
    failure::Failure,
    grams::{self, grams},
    home::Home,
    input,
    serve::config::{self, Amount, Config},
    ui::Ui,
};

/// More than the terms of a channel take.
const TERMS_BYTES_MAX: u64 = 1 << 16;
/// Hours that a close has to leave, where nobody says how many: a night, in which a daemon that is
/// down can be started again.
const CHALLENGE_HOURS_MIN: u32 = 12;
/// What may be unpaid at a time where the operator does not say: half a GRAM, or less where the
/// client proposes less.
const IN_FLIGHT_MAX: Nanograms = match Nanograms::new(500_000_000) {
    Some(half) => half,
    None => Nanograms::MAX,
};

const EXAMPLES: &str = "\
Examples:
  tussah serve channel add terms.json --owner 0QAB… --chain testnet
  tussah serve channel add terms.json --owner 0QAB… --in-flight 0.2 --chain testnet

The terms are the file that `tussah channel open … --provider KEY --owner ADDRESS` wrote at the
client's, channels/ADDRESS.json in its TUSSAH_HOME. The channel has to be open on chain, towards
this host's key, and to pay your own account: the client wrote the terms, and could have named
another one. A daemon that runs with --chain takes jobs through it from then on.";

/// Payment channels through which clients pay for their jobs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(AddArguments),
}

/// Take jobs through a client's channel.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct AddArguments {
    /// The channel's terms.
    file: PathBuf,
    /// Your account, which owns the provider's side of the channel; `[channels] owner` of
    /// serve.toml if not given.
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    owner: Option<Recipient>,
    /// The account that is to be paid; the owner's if neither this nor `[channels] payout` says
    /// another one.
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    payout: Option<Recipient>,
    /// The fewest hours that a one-sided close may leave for a newer voucher; 12 if neither this
    /// nor `[channels] challenge_hours_min` says otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=720))]
    challenge_hours_min: Option<u32>,
    /// GRAM that may be unpaid at a time; what the terms propose, up to 0.5, if not given.
    #[arg(long, value_name = "GRAM", value_parser = grams::parse)]
    in_flight: Option<Nanograms>,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    channel: String,
    owner: String,
    payout: String,
    challenge_seconds: u32,
    redeem_step_min_nanograms: Nanograms,
    capacity_nanograms: Nanograms,
    in_flight_max_nanograms: Nanograms,
    deadline: u32,
}

impl View {
    fn new(known: &Known) -> Self {
        let terms = &known.agreed.terms;
        Self {
            channel: known.id.address.to_string(),
            owner: terms.owner.to_string(),
            payout: known.agreed.side.payout.to_string(),
            challenge_seconds: terms.challenge_seconds,
            redeem_step_min_nanograms: terms.redeem_step_min,
            capacity_nanograms: known.look.capacity,
            in_flight_max_nanograms: known.agreed.in_flight_max,
            deadline: known.look.state.deadline,
        }
    }

    fn lines(&self, ui: &Ui) -> Result<(), Failure> {
        let hours = self.challenge_seconds / 3_600;
        for (name, value) in [
            ("channel", self.channel.clone()),
            ("owner", self.owner.clone()),
            ("pays", self.payout.clone()),
            ("a close leaves", format!("{hours} hours for a voucher")),
            (
                "redeems from",
                format!("{} on", grams(self.redeem_step_min_nanograms)),
            ),
            ("deposit covers", grams(self.capacity_nanograms)),
            ("unpaid at a time", grams(self.in_flight_max_nanograms)),
            ("deadline", format!("second {}", self.deadline)),
        ] {
            ui.line(&format!("{name:<17} {value}"))?;
        }
        Ok(())
    }
}

/// Whom a channel has to pay, and how long it has to leave.
struct Wanted {
    owner: Recipient,
    payout: Recipient,
    challenge_hours_min: u32,
    /// The most that has to be owed before a voucher can be posted.
    step_max: Nanograms,
}

impl Wanted {
    /// What was typed, and what serve.toml says of the rest.
    fn of(arguments: &AddArguments, home: &Home) -> Result<Self, Failure> {
        let config = Config::read(&home.root().join(config::FILE))?.unwrap_or_default();
        let set = config.channels;
        let owner = arguments.owner.clone().or(set.owner.map(|owner| owner.0));
        let owner = owner.ok_or_else(|| {
            Failure::usage("nobody said which account the channel has to belong to").help(
                "give your wallet's address with --owner, or as `owner` in [channels] of serve.toml",
            )
        })?;
        let payout = (arguments.payout.clone()).or(set.payout.map(|payout| payout.0));
        let hours = set.challenge_hours_min.map(|hours| hours.0);
        Ok(Self {
            payout: payout.unwrap_or_else(|| owner.clone()),
            owner,
            challenge_hours_min: (arguments.challenge_hours_min.or(hours))
                .unwrap_or(CHALLENGE_HOURS_MIN),
            step_max: (set.redeem_nanograms)
                .map_or(Nanograms::ZERO, |Amount(amount)| amount)
                .max(BY_ITSELF.value_min),
        })
    }

    /// # Errors
    /// A usage failure that says what the client has to open instead.
    fn require(&self, agreed: &Agreed, network: NetworkId) -> Result<(), Failure> {
        let terms = &agreed.terms;
        let same = |what, option, found: &Address, own: &Recipient| {
            let own = own.on(network)?;
            if *found == own {
                return Ok(());
            }
            let message = format!("the terms name {found} as {what}, and yours is {own}");
            let help = format!("have the client open one with {option} {own}");
            Err(Failure::usage(message).help(help))
        };
        same("the provider's owner", "--owner", &terms.owner, &self.owner)?;
        let payout = &agreed.side.payout;
        same("the account that is paid", "--payout", payout, &self.payout)?;
        let (least, found) = (self.challenge_hours_min, terms.challenge_seconds);
        if u64::from(found) < u64::from(least) * 3_600 {
            let message = format!(
                "a close of the channel leaves {found} seconds for a newer voucher, and {least} \
                 hours are wanted"
            );
            let help = format!(
                "have the client open one with --challenge-hours {least}, or lower \
                 --challenge-hours-min"
            );
            return Err(Failure::usage(message).help(help));
        }
        // Of a larger step the daemon could post nothing in time, a smaller one goes into gas.
        let (step, step_max) = (terms.redeem_step_min, self.step_max);
        if !(REDEEM_STEP_MIN..=step_max).contains(&step) {
            let (step, least, most) = (grams(step), grams(REDEEM_STEP_MIN), grams(step_max));
            let message =
                format!("the channel redeems in steps of {step}, and {least} to {most} are wanted");
            let help = "have the client open one with another --redeem-step";
            return Err(Failure::usage(message).help(help));
        }
        Ok(())
    }
}

impl Command {
    pub(super) fn json(&self) -> bool {
        let Self::Add(arguments) = self;
        arguments.json
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let Self::Add(arguments) = self;
        arguments.run(ui)
    }
}

impl AddArguments {
    fn run(&self, ui: &Ui) -> Result<Exit, Failure> {
        let home = Home::open()?;
        let mut agreed = self.terms()?;
        let wanted = Wanted::of(self, &home)?;
        wanted.require(&agreed, agreed.network)?;
        let proposed = agreed.in_flight_max;
        agreed.in_flight_max = self.in_flight.unwrap_or(proposed.min(IN_FLIGHT_MAX));
        let channels = Channels::open(&home)?;
        if agreed.side.key != channels.provider_key.public_key() {
            let message = format!(
                "the channel's provider is {}, another host",
                agreed.side.key
            );
            return Err(Failure::usage(message).help("`tussah provider key` shows this host's"));
        }
        let known = block_on(self.add(&channels, &agreed))?;
        if ui.json() {
            ui.document(&View::new(&known))?;
            return Ok(Exit::DONE);
        }
        View::new(&known).lines(ui)?;
        let allowed = known.agreed.in_flight_max;
        if proposed > allowed {
            let (proposed, allowed) = (grams(proposed), grams(allowed));
            ui.note(&format!(
                "the client proposes {proposed} unpaid at a time, and {allowed} are allowed"
            ));
        }
        ui.note("jobs are taken through it by a daemon that runs with --chain");
        Ok(Exit::DONE)
    }

    fn terms(&self) -> Result<Agreed, Failure> {
        let text = input::bytes(&self.file, TERMS_BYTES_MAX)?;
        let wrong = |what: String| {
            let file = self.file.display();
            Failure::usage(what).context(format!("{file} has no terms of a channel"))
        };
        let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
        Agreed::from_json(&text).map_err(wrong)
    }

    async fn add(&self, channels: &Channels, agreed: &Agreed) -> Result<Known, Failure> {
        let address = tussah_settlement::channel::address(&agreed.terms, &agreed.side);
        let chain = self.chain.open().await?;
        let seen = channels.look_at(&chain, &address, agreed).await?;
        seen.require_open()?;
        // What was agreed on cannot change; the book would refuse it.
        match channels.addresses()?.contains(&address) {
            true if self.in_flight.is_some() => {
                let message = format!("channel {address} is here already");
                return Err(Failure::usage(message).help("leave --in-flight out"));
            }
            true => {}
            false => channels.keep(&address, agreed)?,
        }
        let known = channels.find(&chain, &address).await?;
        channels.require_provider_current(&known)?;
        Ok(known)
    }
}
