//! `tussah model remove`: a name goes, and the file with its last name.

use clap::Args;
use serde::Serialize;
use tussah_manifest::ModelName;

use super::{Store, model_name};
use crate::{
    exit_code::Exit,
    failure::Failure,
    ui::{self, Ui},
};

/// Remove a model's name, and its file if no other name has it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The name.
    #[arg(value_parser = model_name)]
    name: ModelName,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    digest: String,
    file_deleted: bool,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let (record, file_deleted) = store.models.remove(&store.blobs, &self.name)?;
        if ui.json() {
            let digest = record.digest.to_string();
            ui.document(&View {
                name: self.name.as_str(),
                digest,
                file_deleted,
            })?;
        } else if file_deleted {
            ui.note(&format!(
                "removed {}, {} freed",
                self.name,
                ui::size(record.size_bytes)
            ));
        } else {
            ui.note(&format!(
                "removed {}; its file stays, as other names have it",
                self.name
            ));
        }
        Ok(Exit::DONE)
    }
}
