//! `tussah wallet new`: 24 words are drawn, shown once, and their key is locked in a file.

use clap::Args;
use serde::Serialize;
use tussah_settlement::wallet::{Mnemonic, MnemonicError, Wallet};

use super::{KindOption, View, lock};
use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    ui::Ui,
    wallets::{self, PassphraseOption, wallet_name},
};

const EXAMPLES: &str = "\
Examples:
  tussah wallet new main --network testnet
  tussah wallet new old --network mainnet --version v4r2 --passphrase-file pass.txt

The 24 words go to standard output, once: they are the wallet, in any program that knows TON,
and nobody can restore them. Their key is kept in TUSSAH_HOME under the passphrase.";

/// What is lost where the words cannot be shown: nothing.
const UNSEEN: &str = "the words could not be shown, so no wallet was made";

/// Draw a new wallet.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The wallet's name here: lowercase letters, digits, `-`, `.` and `_`.
    #[arg(value_parser = wallet_name)]
    name: String,
    #[command(flatten)]
    kind: KindOption,
    #[command(flatten)]
    passphrase: PassphraseOption,
    /// Print JSON, with the words in it.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct NewView<'a> {
    #[serde(flatten)]
    wallet: &'a View,
    words: &'a str,
}

/// Why no words were drawn.
enum DrawError {
    Source(Failure),
    Words(MnemonicError),
}

impl From<MnemonicError> for DrawError {
    fn from(error: MnemonicError) -> Self {
        Self::Words(error)
    }
}

impl Arguments {
    pub(super) fn run(self, home: &Home, ui: &Ui) -> Result<Exit, Failure> {
        wallets::require_free(home, &self.name)?;
        let passphrase = self.passphrase.choose(&self.name)?;
        let fill = |bytes: &mut [u8]| wallets::random(bytes).map_err(DrawError::Source);
        let mnemonic = Mnemonic::generate(fill, "").map_err(|error| match error {
            DrawError::Source(failure) => failure,
            DrawError::Words(error) => Failure::host(error),
        })?;
        let (version, network) = self.kind.kind();
        let wallet = Wallet {
            version,
            key: mnemonic.key().public_key(),
            network,
        };
        // Before there is a file: one whose words nobody has seen could hold money.
        self.show(&View::new(&self.name, &wallet), &mnemonic, ui)
            .map_err(|failure| Failure::host(failure.error).context(UNSEEN))?;
        lock(home, &self.name, &mnemonic, &self.kind, &passphrase)?;
        Ok(Exit::DONE)
    }

    fn show(&self, view: &View, mnemonic: &Mnemonic, ui: &Ui) -> Result<(), Failure> {
        if ui.json() {
            return ui.document(&NewView {
                wallet: view,
                words: mnemonic.words(),
            });
        }
        ui.warn("these 24 words are the wallet: write them down, they are not shown again");
        ui.line(mnemonic.words())?;
        ui.line(&view.address)
    }
}
