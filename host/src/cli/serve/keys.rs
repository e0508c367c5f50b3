//! `tussah serve key`: who may ask for jobs. A key is shown once, and only its hash is kept.

use clap::{Args, Subcommand};
use serde::Serialize;
use tussah_provider::ledger::LedgerError;

use super::accounts::LimitOptions;
use crate::{clock, exit_code::Exit, failure::Failure, home::Home, serve::open_ledger, ui::Ui};

/// API keys: who may ask for jobs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(AddArguments),
    List(ListArguments),
    Remove(RemoveArguments),
}

const ADD_EXAMPLES: &str = "\
Examples:
  tussah serve key add alice                    A key of an account without limits
  tussah serve key add bot --credit 5 --jobs-max 2 --per-minute-max 60
  tussah serve key add phone --account alice    Another key of alice's account

Limits are the account's, and hold for all its keys; `tussah serve account set` changes them.";

/// Make a key and show it, once.
#[derive(Debug, Args)]
#[command(after_long_help = ADD_EXAMPLES)]
pub(super) struct AddArguments {
    /// What to call the key.
    name: String,
    /// The account that it spends from and whose limits it has; one of the key's own name if not
    /// given.
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    #[command(flatten)]
    limits: LimitOptions,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// List keys; none is shown.
#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Make a key useless, at once. Jobs that it asked for go on.
#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// The key's name.
    name: String,
}

#[derive(Serialize)]
struct Added<'a> {
    name: &'a str,
    account: &'a str,
    key: &'a str,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    account: String,
    created_unix_ms: String,
    removed_unix_ms: Option<String>,
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Add(arguments) => arguments.json,
            Self::List(arguments) => arguments.json,
            Self::Remove(_) => false,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let ledger = open_ledger(&Home::open()?)?;
        let now = clock::milliseconds();
        match self {
            Self::Add(AddArguments {
                name,
                account,
                limits,
                ..
            }) => {
                let account = account.as_ref().unwrap_or(&name);
                let changes = limits.changes();
                let secret = ledger.new_api_key_with(&name, account, changes, now);
                let secret = secret.map_err(failure)?;
                let key = secret.reveal();
                if ui.json() {
                    let (name, account) = (name.as_str(), account.as_str());
                    ui.document(&Added { name, account, key })?;
                } else {
                    ui.line(key)?;
                    ui.note("this is shown once; whoever has it spends from the account");
                }
            }
            Self::List(_) => {
                let keys = ledger.api_keys().map_err(failure)?;
                let listed: Vec<Listed> = keys
                    .into_iter()
                    .map(|key| Listed {
                        name: key.name,
                        account: key.account,
                        created_unix_ms: key.created_unix_ms.to_string(),
                        removed_unix_ms: key.revoked_unix_ms.map(|ms| ms.to_string()),
                    })
                    .collect();
                if ui.json() {
                    ui.document(&listed)?;
                } else {
                    for key in &listed {
                        let state = key.removed_unix_ms.as_ref().map_or("", |_| " (removed)");
                        ui.line(&format!("{} of account {}{state}", key.name, key.account))?;
                    }
                }
            }
            Self::Remove(RemoveArguments { name }) => {
                ledger.revoke_api_key(&name, now).map_err(failure)?;
                ui.note(&format!("{name} is of no use from now on"));
            }
        }
        Ok(Exit::DONE)
    }
}

/// A name that is taken, unknown or none is the caller's to change.
pub(in crate::cli) fn failure(error: LedgerError) -> Failure {
    match error {
        LedgerError::KeyTaken(_) | LedgerError::NoKey(_) | LedgerError::Name(_) => {
            Failure::usage(error).help("`tussah serve key list` shows the names")
        }
        LedgerError::NoCreditLimit | LedgerError::CreditTooMuch => Failure::usage(error)
            .help("`tussah serve credit ACCOUNT GRAM` sets what it may spend in all"),
        _ => Failure::host(error),
    }
}
