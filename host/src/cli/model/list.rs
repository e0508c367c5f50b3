//! `tussah model list`: which names there are.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::Store;
use crate::{
    exit_code::Exit,
    failure::Failure,
    models::ModelRecord,
    ui::{self, Ui},
};

/// List models.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    #[serde(flatten)]
    record: &'a ModelRecord,
    /// Whether the file is in the store.
    present: bool,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let models = store.models.list()?;
        if ui.json() {
            let views: Vec<_> = models
                .iter()
                .map(|(name, record)| View {
                    name: name.as_str(),
                    record,
                    present: store.blobs.contains(&record.digest),
                })
                .collect();
            ui.document(&views)?;
            return Ok(Exit::DONE);
        }
        if models.is_empty() {
            ui.note("no models yet; add one with `tussah model add NAME FILE.gguf`");
        }
        let width = models
            .iter()
            .map(|(name, _)| name.as_str().len())
            .max()
            .unwrap_or(0);
        for (name, record) in &models {
            let missing = if store.blobs.contains(&record.digest) {
                ""
            } else {
                "  (file missing)"
            };
            let size = ui::size(record.size_bytes);
            ui.line(&format!(
                "{:width$}  {size:>9}  {:<11}  {}{missing}",
                name.as_str(),
                record.format,
                record.digest
            ))?;
        }
        if models.len() > 1 {
            // Two names of one file take its space once.
            let files: BTreeMap<String, u64> = models
                .iter()
                .map(|(_, record)| (record.digest.to_string(), record.size_bytes))
                .collect();
            let noun = if files.len() == 1 { "file" } else { "files" };
            let size = ui::size(files.values().sum());
            ui.note(&format!("{size} in {} {noun}", files.len()));
        }
        Ok(Exit::DONE)
    }
}
