//! `tussah provider`: who a provider says that it is, on chain, with a bond behind it.

mod key;
mod register;
mod show;

use std::path::Path;

use clap::Subcommand;
use serde::Serialize;
use tussah_manifest::Nanograms;
use tussah_settlement::offer::{OFFER_BYTES_MAX, OfferDocument};
use tussah_settlement::provider::{Offer, ProviderState};
use tussah_settlement::{Address, Chain, FriendlyAddress};

use crate::{
    chain_option::{OpenChain, chain_failure},
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    input,
    ui::Ui,
};

/// Register as a provider, and see what providers state.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Key(key::Arguments),
    Register(register::Arguments),
    Show(show::Arguments),
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Key(arguments) => arguments.json,
            Self::Register(arguments) => arguments.json,
            Self::Show(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self {
            Self::Key(arguments) => arguments.run(ui),
            Self::Register(arguments) => arguments.run(ui),
            Self::Show(arguments) => arguments.run(ui),
        }
    }
}

fn read_offer(path: &Path) -> Result<OfferDocument, Failure> {
    let bytes = input::bytes(path, OFFER_BYTES_MAX as u64)?;
    let offer = OfferDocument::parse(&bytes);
    offer.map_err(|error| Failure::usage(error).context(format!("cannot use {}", path.display())))
}

/// What a provider's contract states.
struct Listed {
    address: Address,
    state: ProviderState,
    offer: Offer,
}

impl Listed {
    async fn read(chain: &OpenChain, address: Address) -> Result<Self, Failure> {
        let state = chain.run_get_method(&address, ProviderState::METHOD, Vec::new());
        let state = ProviderState::from_stack(state.await.map_err(chain_failure)?);
        let offer = chain.run_get_method(&address, Offer::METHOD, Vec::new());
        let offer = Offer::from_stack(offer.await.map_err(chain_failure)?);
        Ok(Self {
            address,
            state: state.map_err(chain_failure)?,
            offer: offer.map_err(chain_failure)?,
        })
    }

    fn show(&self, chain: &OpenChain, ui: &Ui) -> Result<(), Failure> {
        let network = chain.network();
        let view = View {
            address: FriendlyAddress::contract(self.address.clone(), network).to_string(),
            bond_nanograms: self.state.bond,
            exit_at: (self.state.exit_at > 0).then_some(self.state.exit_at),
            equivocations: self.state.equivocations,
            payout: FriendlyAddress::wallet(self.state.payout.clone(), network).to_string(),
            key: format!("ed25519:{}", hex(&self.state.key)),
            endpoint: hex(&self.state.endpoint),
            offer: self.offer.digest.to_string(),
            attestation: self.offer.attestation.to_string(),
            fuel_price_nanograms: self.offer.fuel_price,
            inference_price_nanograms: self.offer.inference_price,
        };
        if ui.json() {
            return ui.document(&view);
        }
        let exit = match view.exit_at {
            Some(second) => format!("the bond can be taken from second {second} on"),
            None => "stays".to_owned(),
        };
        for (name, value) in [
            ("address", view.address),
            ("bond", grams(view.bond_nanograms)),
            ("exit", exit),
            ("equivocations", view.equivocations.to_string()),
            ("payout", view.payout),
            ("key", view.key),
            ("endpoint", view.endpoint),
            ("offer", view.offer),
            ("attestation", view.attestation),
            ("10^9 fuel", grams(view.fuel_price_nanograms)),
            (
                "10^9 inference units",
                grams(view.inference_price_nanograms),
            ),
        ] {
            ui.line(&format!("{name:<21} {value}"))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct View {
    address: String,
    bond_nanograms: Nanograms,
    /// The second from which the bond can be taken; null while it stays.
    exit_at: Option<u32>,
    equivocations: u32,
    payout: String,
    key: String,
    endpoint: String,
    offer: String,
    attestation: String,
    fuel_price_nanograms: Nanograms,
    inference_price_nanograms: Nanograms,
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
