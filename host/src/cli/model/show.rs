//! `tussah model show`: what a model is and what it needs.

use clap::Args;
use serde::Serialize;
use tussah_inference::{Gguf, GgufSummary, OnnxFile, Session, StorageShare};
use tussah_manifest::ModelName;

use super::{Store, model_name};
use crate::{
    engine::{self, Inspected},
    exit_code::Exit,
    failure::Failure,
    models::ModelRecord,
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah model show smollm2
  tussah model show smollm2 --context 4096        How much memory does a session take?
  tussah model show smollm2 --json | jq -r .chat_template";

/// Show what a model is and what it needs.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The name.
    #[arg(value_parser = model_name)]
    name: ModelName,
    /// The tokens of the session whose memory is shown; the longest if not given.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
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
    /// Of `--context`, or of the whole.
    context_tokens: u32,
    session_bytes: u64,
    #[serde(flatten)]
    header: Header,
}

/// What a GGUF file says of itself; nothing for other formats.
#[derive(Default, Serialize)]
struct Header {
    license: Option<String>,
    tokenizer: Option<String>,
    pre_tokenizer: Option<String>,
    chat_template: Option<String>,
    storage: Vec<Share>,
}

#[derive(Serialize)]
struct Share {
    #[serde(rename = "type")]
    quant: &'static str,
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

impl From<GgufSummary> for Header {
    fn from(summary: GgufSummary) -> Self {
        let share = |share: StorageShare| Share {
            quant: share.quant.name(),
            tensors: share.tensors,
            parameters: share.parameters,
            bytes: share.bytes,
        };
        Self {
            license: summary.license,
            tokenizer: summary.tokenizer,
            pre_tokenizer: summary.pre_tokenizer,
            chat_template: summary.chat_template,
            storage: summary.storage.into_iter().map(share).collect(),
        }
    }
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
        let model = match engine::inspect_any(&path)? {
            Inspected::Text(model) => model,
            Inspected::Graph(file) => return self.show_graph(&record, &file, ui),
        };
        let info = model.info();
        let context_tokens = self.context.unwrap_or(info.context_tokens_max);
        if context_tokens > info.context_tokens_max {
            let most = info.context_tokens_max;
            let message = format!("the model takes {most} tokens, not {context_tokens}");
            return Err(Failure::usage(message).help("give --context a smaller number"));
        }
        let header = match record.format.as_str() {
            "gguf" => Gguf::open(&path)
                .and_then(|gguf| gguf.summary())
                .map_err(Failure::usage)?
                .into(),
            _ => Header::default(),
        };
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
            context_tokens,
            session_bytes: Session::memory_bytes_for(&model, context_tokens),
            header,
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

impl Arguments {
    /// What can be said of a graph without the library that runs it.
    fn show_graph(&self, record: &ModelRecord, file: &OnnxFile, ui: &Ui) -> Result<Exit, Failure> {
        if self.context.is_some() {
            return Err(Failure::usage("a graph of tensors has no context"));
        }
        let view = GraphView {
            name: self.name.as_str(),
            record,
            parameters: file.parameters(),
        };
        if ui.json() {
            ui.document(&view)?;
            return Ok(Exit::DONE);
        }
        for (label, value) in [
            ("name", view.name.to_owned()),
            ("format", "onnx, a graph of tensors".to_owned()),
            ("parameters", ui::count(view.parameters)),
            ("file", ui::size(record.size_bytes)),
            ("digest", record.digest.to_string()),
            ("sha256", record.sha256.clone()),
            ("added from", record.added_from.clone()),
        ] {
            ui.line(&format!("{label:<13}  {value}"))?;
        }
        Ok(Exit::DONE)
    }
}

#[derive(Serialize)]
struct GraphView<'a> {
    name: &'a str,
    #[serde(flatten)]
    record: &'a ModelRecord,
    parameters: u64,
}

fn rows(view: &View<'_>) -> Vec<(&'static str, String)> {
    let chat = match &view.header.chat_template {
        Some(template) => format!("{} bytes; --json prints it", template.len()),
        None if view.has_chat_template => "yes".to_owned(),
        None => "no: use `model generate --raw`".to_owned(),
    };
    let unknown = || "not stated".to_owned();
    let header = &view.header;
    let kind = match header.tokenizer.as_deref() {
        Some("gpt2") => "byte-level BPE",
        Some("llama") => "SPM",
        Some(other) => other,
        None => "WordPiece",
    };
    let cut = header.pre_tokenizer.as_ref();
    let cut = cut
        .map(|cut| format!(", cut as `{cut}`"))
        .unwrap_or_default();
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
        ("tokenizer", format!("{kind}{cut}")),
        ("chat template", chat),
        ("licence", header.license.clone().unwrap_or_else(unknown)),
        ("file", ui::size(view.record.size_bytes)),
        (
            "memory",
            format!(
                "{} weights, and {} for a session of {} tokens",
                ui::size(view.record.size_bytes),
                ui::size(view.session_bytes),
                ui::count(view.context_tokens.into())
            ),
        ),
        ("digest", view.record.digest.to_string()),
        ("sha256", view.record.sha256.clone()),
        ("added from", view.record.added_from.clone()),
    ];
    let all: u64 = header.storage.iter().map(|share| share.bytes).sum();
    for (at, share) in header.storage.iter().enumerate() {
        let percent = share.bytes as f64 * 100.0 / all.max(1) as f64;
        let line = format!(
            "{:<5} {:>5.1} %  {:>9}  {} tensors",
            share.quant,
            percent,
            ui::size(share.bytes),
            share.tensors
        );
        rows.push((if at == 0 { "stored as" } else { "" }, line));
    }
    rows.extend(view.record.source.clone().map(|source| ("source", source)));
    rows
}
