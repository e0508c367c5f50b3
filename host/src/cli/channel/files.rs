//! `tussah channel export` and `channel import`: a book as a file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_commit::Look;
use tussah_commit::backup::{Backup, BackupError};
use tussah_manifest::Digest;
use tussah_settlement::Address;
use tussah_settlement::channel::ProviderSide;

use super::{Place, show};
use crate::{
    chain_option::{ChainOption, address, block_on, chain_failure},
    channels::{Agreed, Channels, PriceOption, require_network, store_failure, write_whole},
    exit_code::Exit,
    failure::Failure,
    home::Home,
    input,
    ui::Ui,
};

/// The largest book that is read, 1 GiB: about a million receipts.
const BOOK_BYTES_MAX: u64 = 1 << 30;

/// Whose book.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// What was asked for and promised.
    Client,
    /// What was done and is to be paid.
    Provider,
}

/// Write all that a book has of a channel into one file.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The channel.
    #[arg(value_name = "ADDRESS", value_parser = address)]
    address: Address,
    /// Whose book.
    #[arg(long, value_enum)]
    role: Role,
    /// The file; one that is there is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Go on from an exported book. A file that is older than the book or the chain is refused.
///
/// The file has what was signed, which says nothing of what the next jobs cost: where this host
/// does not know the channel yet, that is as with `channel open`.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The file.
    file: PathBuf,
    /// Whose book.
    #[arg(long, value_enum)]
    role: Role,
    #[command(flatten)]
    prices: PriceOption,
    #[command(flatten)]
    chain: ChainOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct ExportView {
    file: PathBuf,
    bytes: usize,
    digest: String,
}

impl ExportArguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        block_on(async {
            let place = Place::find(home, &self.chain, &self.address).await?;
            let Place {
                channels, known, ..
            } = &place;
            let file = match self.role {
                Role::Client => channels.client.export(&known.id),
                Role::Provider => channels.provider.export(&known.id),
            };
            let file = file.map_err(backup_failure)?;
            write_whole(&self.out, &file)?;
            let view = ExportView {
                bytes: file.len(),
                digest: Digest::of(&file).to_string(),
                file: self.out.clone(),
            };
            if ui.json() {
                ui.document(&view)?;
            } else {
                let name = view.file.display();
                ui.line(&format!("{name}, {} bytes, {}", view.bytes, view.digest))?;
            }
            Ok(Exit::DONE)
        })
    }
}

impl ImportArguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        let channels = Channels::open(home)?;
        let bytes = input::bytes(&self.file, BOOK_BYTES_MAX)?;
        let backup = Backup::from_file(&bytes).map_err(backup_failure)?;
        block_on(async {
            let chain = self.chain.open().await?;
            let (id, record) = (backup.id().clone(), backup.record());
            require_network(id.network, &chain)?;
            let look = Look::at(&chain, &id.address).await.map_err(chain_failure)?;
            let side = ProviderSide::at(&chain, &id.address).await;
            let key = side.map_err(chain_failure)?.key;
            let agreed = Agreed {
                network: id.network,
                terms: record.terms.clone(),
                side: record.side.clone(),
                in_flight_max: record.in_flight_max,
                prices: self.prices.prices(),
            };
            match self.role {
                Role::Client => channels.client.import(backup, &look, &key),
                Role::Provider => channels.provider.import(backup, &look, &key),
            }
            .map_err(backup_failure)?;
            if !channels.addresses()?.contains(&id.address) {
                channels.keep(&id.address, &agreed)?;
            }
            show(&channels, &chain, &id.address, ui).await
        })
    }
}

fn backup_failure(error: BackupError) -> Failure {
    match error {
        BackupError::Store(error) => store_failure(error),
        BackupError::Unknown(_) | BackupError::OtherRole { .. } => Failure::usage(error),
        other => Failure::not_verified(other),
    }
}
