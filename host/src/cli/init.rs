//! `tussah init`: a home that `tussah serve` can start in: settings, keys, ledger, folders.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use crate::{
    channels::write_whole,
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    keys::{self, KeyName},
    road,
    serve::{
        config::{self, Config},
        open_ledger,
    },
    ui::Ui,
    wallets,
};

const EXAMPLES: &str = "\
Examples:
  tussah init                          Makes TUSSAH_HOME ready for `tussah serve`
  tussah init --force                  Writes a new serve.toml over the one that is there

It can be run again at any time: what is there stays as it is.";

/// What to do in a home that is ready.
const NEXT: [&str; 3] = [
    "tussah deploy jobs/chat --as chat --shape chat",
    "tussah serve key add NAME",
    "tussah serve",
];

/// Make this machine ready to run other people's jobs: keys, a ledger, and a file of settings.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Write a new file of settings over the one that is there.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    home: &'a Path,
    config: &'a Path,
    /// Whether the file of settings is a new one.
    config_written: bool,
    /// The key that signs receipts.
    provider_key: String,
    next: [&'static str; 3],
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let home = Home::open()?;
        for folder in ["blobs", "models"] {
            home.folder(folder)?;
        }
        for name in [KeyName::Client, KeyName::ServeCache] {
            keys::load_or_create(&home, name)?;
        }
        let provider = keys::load_or_create(&home, KeyName::Provider)?;
        let provider = tussah_manifest::SigningKey::from_bytes(&provider).public_key();
        drop(open_ledger(&home)?);
        let path = home.root().join(config::FILE);
        let written = self.write(&path)?;
        if ui.json() {
            ui.document(&View {
                home: home.root(),
                config: &path,
                config_written: written,
                provider_key: provider.to_string(),
                next: NEXT,
            })?;
            return Ok(Exit::DONE);
        }
        let what = match written {
            true => "written; every setting stands in it with its default",
            false => "kept as it is; `tussah init --force` writes a new one",
        };
        for (name, value) in [
            ("home", home.root().display().to_string()),
            ("settings", format!("{} {what}", path.display())),
            ("provider key", provider.to_string()),
        ] {
            ui.line(&format!("{name:<13} {value}"))?;
        }
        ui.line("next:")?;
        for command in NEXT {
            ui.line(&format!("  {command}"))?;
        }
        Ok(Exit::DONE)
    }

    /// Whether there is a new file of settings now. One that is there has to be a good one, since
    /// the next step is to start with it.
    fn write(&self, path: &PathBuf) -> Result<bool, Failure> {
        let text = config::TEMPLATE.as_bytes();
        if self.force {
            write_whole(path, text)?;
            return Ok(true);
        }
        let failed = |error| file_failure("write", path, error);
        match road::stage(path, text, 0o600)?.persist_noclobber(path) {
            Ok(_) => wallets::sync_folder(road::folder_of(path)).map_err(failed)?,
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Config::read(path)?;
                return Ok(false);
            }
            Err(error) => return Err(failed(error.error)),
        }
        Ok(true)
    }
}
