//! `tussah serve channel`: through which payment channels the daemon takes jobs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use tussah_manifest::Nanograms;

use crate::{
    chain_option::{ChainOption, block_on},
    channels::{Agreed, Channels},
    exit_code::Exit,
    failure::Failure,
    grams::{self, grams},
    home::Home,
    input,
    ui::Ui,
};

/// More than the terms of a channel take.
const TERMS_BYTES_MAX: u64 = 1 << 16;

const EXAMPLES: &str = "\
Examples:
  tussah serve channel add terms.json --chain testnet
  tussah serve channel add terms.json --in-flight 0.2 --chain testnet

The terms are the file that `tussah channel open … --provider KEY --owner ADDRESS` wrote at the
client's, channels/ADDRESS.json in its TUSSAH_HOME. The channel has to be open on chain, towards
this host's key. A daemon that runs with --chain takes jobs through it from then on.";

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
    /// GRAM that may be unpaid at a time; what the terms say if not given.
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
    capacity_nanograms: Nanograms,
    in_flight_max_nanograms: Nanograms,
    deadline: u32,
}

impl Command {
    pub(super) fn json(&self) -> bool {
        let Self::Add(arguments) = self;
        arguments.json
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let Self::Add(arguments) = self;
        let text = input::bytes(&arguments.file, TERMS_BYTES_MAX)?;
        let wrong = |what: String| {
            let file = arguments.file.display();
            Failure::usage(what).context(format!("{file} has no terms of a channel"))
        };
        let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
        let mut agreed = Agreed::from_json(&text).map_err(wrong)?;
        agreed.in_flight_max = arguments.in_flight.unwrap_or(agreed.in_flight_max);
        let channels = Channels::open(&Home::open()?)?;
        if agreed.side.key != channels.provider_key.public_key() {
            let message = format!(
                "the channel's provider is {}, another host",
                agreed.side.key
            );
            return Err(Failure::usage(message).help("`tussah provider key` shows this host's"));
        }
        let address = tussah_settlement::channel::address(&agreed.terms, &agreed.side);
        let known = block_on(async {
            let chain = arguments.chain.open().await?;
            let seen = channels.look_at(&chain, &address, &agreed).await?;
            seen.require_open()?;
            // What was agreed on cannot change; the book would refuse it.
            match channels.addresses()?.contains(&address) {
                true if arguments.in_flight.is_some() => {
                    let message = format!("channel {address} is here already");
                    return Err(Failure::usage(message).help("leave --in-flight out"));
                }
                true => {}
                false => channels.keep(&address, &agreed)?,
            }
            let known = channels.find(&chain, &address).await?;
            channels.require_provider_current(&known)?;
            Ok::<_, Failure>(known)
        })?;
        let view = View {
            channel: address.to_string(),
            capacity_nanograms: known.look.capacity,
            in_flight_max_nanograms: known.agreed.in_flight_max,
            deadline: known.look.state.deadline,
        };
        if ui.json() {
            ui.document(&view)?;
        } else {
            ui.note(&format!(
                "jobs are taken through channel {}: {} in it, {} unpaid at a time",
                view.channel,
                grams(view.capacity_nanograms),
                grams(view.in_flight_max_nanograms)
            ));
        }
        Ok(Exit::DONE)
    }
}
