//! `tussah deploy`: offers a job under a name, as one of the API's models.

use std::{path::PathBuf, sync::Mutex};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_provider::ledger::{LedgerError, Shape};

use super::run::{ModelArgument, Sources, model_argument};
use crate::{
    blobs::Blobs,
    clock,
    exit_code::Exit,
    failure::Failure,
    home::Home,
    interrupt::Interrupt,
    models::Models,
    serve::{open_ledger, verified},
    ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah deploy jobs/chat --as chat --shape chat
  tussah deploy . --as my-job --shape raw

The job is built if DIR is given. From then on `tussah serve` answers requests for the
model of this name with it; a daemon that runs needs no restart.";

/// Offer a job through `tussah serve`, under a name.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A manifest, a job's folder (built first), or a module.
    #[arg(value_name = "MANIFEST|DIR|FILE.wasm")]
    job: PathBuf,
    /// The name by which clients ask for it: the API's `model`.
    #[arg(long = "as", value_name = "NAME")]
    name: String,
    /// What the job takes and gives: docs/openai-jobs.md has each.
    #[arg(long, value_enum)]
    shape: ShapeArgument,
    /// A model for the job: SOURCE is a name of `tussah model list`, a digest, or a GGUF file.
    #[arg(long, value_name = "NAME=SOURCE", value_parser = model_argument)]
    model: Vec<ModelArgument>,
    /// A claim of `tussah verify --sign` on the module, kept for a daemon that asks for one.
    #[arg(long, value_name = "FILE")]
    claim: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `--shape`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShapeArgument {
    /// Messages in, an answer out: /v1/chat/completions.
    Chat,
    /// A prompt in, its continuation out: /v1/completions.
    Completions,
    /// Texts in, vectors out: /v1/embeddings.
    Embeddings,
    /// Bytes in, bytes out: /v1/jobs.
    Raw,
}

impl From<ShapeArgument> for Shape {
    fn from(shape: ShapeArgument) -> Self {
        match shape {
            ShapeArgument::Chat => Self::Chat,
            ShapeArgument::Completions => Self::Completions,
            ShapeArgument::Embeddings => Self::Embeddings,
            ShapeArgument::Raw => Self::Raw,
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    shape: &'static str,
    manifest: String,
    module: String,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let home = Home::open()?;
        let sources = Sources {
            blobs: Blobs::open(&home)?,
            models: Models::open(&home)?,
            home,
            interrupt,
            seen: Mutex::default(),
        };
        let (manifest, module) = sources.job(&self.job, &self.model, ui)?;
        for (name, model) in &manifest.job.models {
            if !sources.blobs.contains(&model.digest) {
                return Err(Failure::from(sources.blobs.missing(&model.digest))
                    .context(format!("the job's model `{name}` is not here"))
                    .help(format!("add it, or give `--model {name}=SOURCE`")));
            }
        }
        if let Some(path) = &self.claim {
            verified::keep(
                &sources.home,
                &verified::read_claim(path, &manifest.module.digest)?,
            )?;
        }
        sources.blobs.put(&module)?;
        let shape = Shape::from(self.shape);
        let ledger = open_ledger(&sources.home)?;
        let digest = ledger
            .deploy(&self.name, &manifest, shape, clock::milliseconds())
            .map_err(failure)?;
        if ui.json() {
            ui.document(&View {
                name: &self.name,
                shape: shape.name(),
                manifest: digest.to_string(),
                module: manifest.module.digest.to_string(),
            })?;
        } else {
            ui.note(&format!(
                "{} is offered as {}, {digest}",
                self.name,
                shape.name()
            ));
        }
        Ok(Exit::DONE)
    }
}

fn failure(error: LedgerError) -> Failure {
    match error {
        LedgerError::Name(_) => Failure::usage(error),
        _ => Failure::host(error),
    }
}
