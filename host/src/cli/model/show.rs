//! `tussah model show`: what a model is and what it needs.

use clap::Args;
use serde::Serialize;
use tussah_inference::Session;
use tussah_manifest::ModelName;

use super::{Store, model_name};
use crate::{
    engine,
    exit_code::Exit,
    failure::Failure,
    models::ModelRecord,
    ui::{self, Ui},
};

/// Show what a model is and what it needs.
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
    #[serde(flatten)]
    record: &'a ModelRecord,
    model_name: &'a str,
    architecture: &'a str,
    quantization: &'a str,
    parameters: u64,
    layers: u32,
    context_tokens_max: u32,
    vocabulary_size: u32,
    has_chat_template: bool,
    /// Of one session with the whole context, beside the weights.
    session_bytes_max: u64,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let record = store.models.get(&self.name)?;
        let path = {
            let bar = ui.bytes_bar("checking", record.size_bytes);
            store
                .blobs
                .verify(&record.digest, &mut |read| bar.add(read))?
        };
        let model = engine::inspect(&path)?;
        let info = model.info();
        let view = View {
            name: self.name.as_str(),
            record: &record,
            model_name: &info.name,
            architecture: &info.architecture,
            quantization: &info.quantization,
            parameters: info.parameters,
            layers: info.layers,
            context_tokens_max: info.context_tokens_max,
            vocabulary_size: info.vocabulary_size,
            has_chat_template: info.has_chat_template,
            session_bytes_max: Session::memory_bytes_for(&model, info.context_tokens_max),
        };
        if ui.json() {
            ui.document(&view)?;
            return Ok(Exit::DONE);
        }
        for (label, value) in rows(&view) {
            ui.line(&format!("{label:<13}  {value}"))?;
        }
        Ok(Exit::DONE)
    }
}

fn rows(view: &View<'_>) -> Vec<(&'static str, String)> {
    let chat = if view.has_chat_template {
        "yes"
    } else {
        "no: use `model generate --raw`"
    };
    let mut rows = vec![
        ("name", view.name.to_owned()),
        ("model", view.model_name.to_owned()),
        ("architecture", view.architecture.to_owned()),
        ("quantization", view.quantization.to_owned()),
        ("parameters", ui::count(view.parameters)),
        ("layers", view.layers.to_string()),
        (
            "context",
            format!("{} tokens", ui::count(view.context_tokens_max.into())),
        ),
        (
            "vocabulary",
            format!("{} tokens", ui::count(view.vocabulary_size.into())),
        ),
        ("chat template", chat.to_owned()),
        ("file", ui::size(view.record.size_bytes)),
        (
            "memory",
            format!(
                "{} weights, and up to {} a session",
                ui::size(view.record.size_bytes),
                ui::size(view.session_bytes_max)
            ),
        ),
        ("digest", view.record.digest.to_string()),
        ("sha256", view.record.sha256.clone()),
        ("added from", view.record.added_from.clone()),
    ];
    rows.extend(view.record.source.clone().map(|source| ("source", source)));
    rows
}
