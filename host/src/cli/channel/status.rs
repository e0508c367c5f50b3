//! `tussah channel status`: what the chain and both books say of a channel.

use clap::Args;
use serde::Serialize;
use tussah_commit::ChannelView;
use tussah_manifest::Nanograms;
use tussah_settlement::channel::ChannelStatus;
use tussah_settlement::{Address, FriendlyAddress};

use crate::{
    chain_option::{ChainOption, address, block_on},
    channels::{Absent, Channels, Known, client_failure, provider_failure},
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah channel status --chain testnet            All channels of this host, by address
  tussah channel status 0:83ae… --chain testnet    One, as the chain has it now

Where one of all channels cannot be shown, the reason stands in its place. The exit code is that of
the first such reason, unless it is that the channel was never opened or is on another network.";

/// Show channels.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The channel; all of this host if not given.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Option<Address>,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A channel, as `--json` shows it. Amounts are nanograms.
#[derive(Serialize)]
struct View {
    address: String,
    raw_address: String,
    status: &'static str,
    deadline: u32,
    capacity_nanograms: Nanograms,
    redeemed_nanograms: Nanograms,
    owed_nanograms: Nanograms,
    posted_receipts: String,
    posted_root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<BookView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<BookView>,
}

/// A channel that there are terms of.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Shown(Box<View>),
    Unknown(Unknown),
}

/// One that cannot be shown, and why.
#[derive(Serialize)]
struct Unknown {
    raw_address: String,
    error: String,
}

/// What one role's book has.
#[derive(Serialize)]
struct BookView {
    receipts: String,
    root: String,
    earned_nanograms: Nanograms,
    promised_nanograms: Nanograms,
    vouchered_nanograms: Nanograms,
    at_risk_nanograms: Nanograms,
    in_flight_max_nanograms: Nanograms,
}

impl BookView {
    fn new(view: &ChannelView) -> Self {
        Self {
            receipts: view.commitment.receipts.to_string(),
            root: view.commitment.root.to_string(),
            earned_nanograms: view.earned,
            promised_nanograms: view.promised,
            vouchered_nanograms: view.vouchered(),
            at_risk_nanograms: view.at_risk(),
            in_flight_max_nanograms: view.record.in_flight_max,
        }
    }
}

impl View {
    fn new(channels: &Channels, known: &Known) -> Result<Self, Failure> {
        let (state, id) = (&known.look.state, &known.id);
        let client = match known.is_client {
            true => Some(channels.client.view(id).map_err(client_failure)?),
            false => None,
        };
        let provider = match known.is_provider {
            true => Some(channels.provider.view(id).map_err(provider_failure)?),
            false => None,
        };
        Ok(Self {
            address: FriendlyAddress::contract(id.address.clone(), id.network).to_string(),
            raw_address: id.address.to_string(),
            status: match state.status {
                ChannelStatus::Unopened => "unopened",
                ChannelStatus::Open => "open",
                ChannelStatus::Closing => "closing",
                ChannelStatus::Closed => "closed",
            },
            deadline: state.deadline,
            capacity_nanograms: known.look.capacity,
            redeemed_nanograms: state.redeemed,
            owed_nanograms: state.owed,
            posted_receipts: state.commitment.receipts.to_string(),
            posted_root: state.commitment.root.to_string(),
            client: client.as_ref().map(BookView::new),
            provider: provider.as_ref().map(BookView::new),
        })
    }

    fn lines(&self, ui: &Ui) -> Result<(), Failure> {
        let mut lines = vec![
            ("channel", self.address.clone()),
            (
                "status",
                format!("{}, deadline second {}", self.status, self.deadline),
            ),
            ("deposit covers", grams(self.capacity_nanograms)),
            ("redeemed", grams(self.redeemed_nanograms)),
            ("owed to the provider", grams(self.owed_nanograms)),
            (
                "posted",
                format!("{} receipts, {}", self.posted_receipts, self.posted_root),
            ),
        ];
        for (role, book) in [("client", &self.client), ("provider", &self.provider)] {
            let Some(book) = book else { continue };
            let line = format!(
                "{} receipts for {}, vouchered {}, at risk {} of {}",
                book.receipts,
                grams(book.earned_nanograms),
                grams(book.vouchered_nanograms),
                grams(book.at_risk_nanograms),
                grams(book.in_flight_max_nanograms),
            );
            lines.push((role, line));
        }
        for (name, value) in lines {
            ui.line(&format!("{name:<21} {value}"))?;
        }
        Ok(())
    }
}

/// Shows one channel.
pub(super) fn show(channels: &Channels, known: &Known, ui: &Ui) -> Result<(), Failure> {
    let view = View::new(channels, known)?;
    if ui.json() {
        return ui.document(&view);
    }
    view.lines(ui)
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let channels = Channels::open(home)?;
        block_on(async {
            let chain = self.chain.open().await?;
            if let Some(address) = &self.address {
                return super::show(&channels, &chain, address, ui).await;
            }
            let (mut listed, mut exit) = (Vec::new(), Exit::DONE);
            for address in channels.addresses()? {
                let view = match channels.find(&chain, &address).await {
                    Ok(known) => View::new(&channels, &known),
                    Err(failure) => Err(failure),
                };
                listed.push(match view {
                    Ok(view) => Listed::Shown(Box::new(view)),
                    Err(failure) => {
                        if !failure.error.is::<Absent>() && exit == Exit::DONE {
                            exit = failure.exit;
                        }
                        Listed::Unknown(Unknown {
                            raw_address: address.to_string(),
                            error: failure.chain().join(": "),
                        })
                    }
                });
            }
            if ui.json() {
                ui.document(&listed)?;
                return Ok(exit);
            }
            for channel in &listed {
                match channel {
                    Listed::Shown(view) => view.lines(ui)?,
                    Listed::Unknown(unknown) => {
                        ui.line(&format!("{:<21} {}", "channel", unknown.raw_address))?;
                        ui.line(&format!("{:<21} {}", "error", unknown.error))?;
                    }
                }
            }
            Ok(exit)
        })
    }
}
