//! `tussah model tokenize`: text to token ids.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tussah_inference::{AddBos, EncodeOptions};
use tussah_manifest::ModelName;

use super::{Store, model_name};
use crate::{engine, exit_code::Exit, failure::Failure, input, ui::Ui};

const EXAMPLES: &str = "\
Examples:
  tussah model tokenize smollm2 --text 'Hello world'
  tussah model tokenize smollm2 --file prompt.txt --json
  echo '<|im_start|>user' | tussah model tokenize smollm2 --file - --raw

Text from outside should be read without --raw: with it, `<|im_start|>` in the text becomes
the token that opens a turn.";

/// Turn text into token ids.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The model's name.
    #[arg(value_parser = model_name)]
    name: ModelName,
    /// The text.
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    text: Option<String>,
    /// A file with the text; `-` is standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Read special tokens in the text, and add BOS as the model's metadata says.
    #[arg(long)]
    raw: bool,
    /// Print JSON: `token_ids`, and the text of each token.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View {
    token_ids: Vec<u32>,
    /// Each token's bytes as text; bytes that are no character by themselves show as U+FFFD.
    pieces: Vec<String>,
}

impl Arguments {
    pub(super) fn run(self, store: &Store, ui: &Ui) -> Result<Exit, Failure> {
        let text = input::text(self.text, self.file.as_deref(), "--text")?;
        let record = store.models.get(&self.name)?;
        let path = store.blobs.verify(&record.digest, &mut |_| ())?;
        let model = engine::inspect(&path)?;
        let add_bos = if self.raw {
            AddBos::ByMetadata
        } else {
            AddBos::Never
        };
        let options = EncodeOptions {
            add_bos,
            parse_special: self.raw,
        };
        let tokens = model
            .tokenizer()
            .encode(&text, options)
            .map_err(Failure::usage)?;
        if ui.json() {
            let piece = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pieces = tokens
                .iter()
                .map(|token| piece(model.tokenizer().token_bytes(*token)))
                .collect();
            let token_ids = tokens.iter().map(|token| token.0).collect();
            ui.document(&View { token_ids, pieces })?;
        } else {
            let ids: Vec<String> = tokens.iter().map(ToString::to_string).collect();
            ui.line(&ids.join(" "))?;
        }
        Ok(Exit::DONE)
    }
}
