//! `tussah provider key`: the public key by which clients and contracts know this host.

use clap::Args;
use serde::Serialize;
use tussah_manifest::SigningKey;

use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    keys::{self, KeyName},
    ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah provider key
  tussah provider key --json | jq -r .key

It signs receipts, claims and redeems. An offer names it, and so does whoever opens a channel
to this host. The secret half stays in TUSSAH_HOME.";

/// Show this host's provider key.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View {
    key: String,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let home = Home::open()?;
        let secret = keys::load_or_create(&home, KeyName::Provider)?;
        let key = SigningKey::from_bytes(&secret).public_key().to_string();
        if ui.json() {
            ui.document(&View { key })?;
        } else {
            ui.line(&key)?;
        }
        Ok(Exit::DONE)
    }
}
