//! `tussah wallet import`: 24 words that somebody has already.

use std::path::PathBuf;

use clap::Args;
use tussah_settlement::wallet::Mnemonic;
use zeroize::Zeroizing;

use super::{KindOption, lock};
use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    ui::Ui,
    wallets::{self, PassphraseOption, wallet_name},
};

const EXAMPLES: &str = "\
Examples:
  tussah wallet import main --network mainnet            The terminal asks for the words
  tussah wallet import main --network mainnet --version v4r2 --words-file words.txt

The address depends on words, version and network: compare it with the one that you know.";

/// Take over a wallet by its 24 words.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The wallet's name here: lowercase letters, digits, `-`, `.` and `_`.
    #[arg(value_parser = wallet_name)]
    name: String,
    #[command(flatten)]
    kind: KindOption,
    /// The file whose first line is the words; the terminal asks if not given.
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
    /// The file whose first line is the password that was chosen with the words, if one was.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseOption,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        wallets::require_free(home, &self.name)?;
        let words = match &self.words_file {
            Some(file) => wallets::first_line(file)?,
            None => wallets::ask("The 24 words: ")?,
        };
        let password = match &self.password_file {
            Some(file) => wallets::first_line(file)?,
            None => Zeroizing::default(),
        };
        let mnemonic = Mnemonic::parse(&words, &password).map_err(Failure::usage)?;
        let passphrase = self.passphrase.choose(&self.name)?;
        let view = lock(home, &self.name, &mnemonic, &self.kind, &passphrase)?;
        if ui.json() {
            ui.document(&view)?;
        } else {
            ui.line(&view.address)?;
        }
        Ok(Exit::DONE)
    }
}
