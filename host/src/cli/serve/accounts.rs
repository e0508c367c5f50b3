//! `tussah serve account` and `tussah serve credit`: what accounts may spend and do.
//!
//! A daemon that runs goes by the new limits from the next job on.

use clap::{Args, Subcommand};
use serde::Serialize;
use tussah_manifest::Nanograms;
use tussah_provider::ledger::{Account, Change, CreditChange, Ledger, LedgerError, LimitChanges};

use super::keys::failure;
use crate::{
    exit_code::Exit,
    failure::Failure,
    grams::{self, grams},
    home::Home,
    serve::open_ledger,
    ui::Ui,
};

const GB: u64 = 1_000_000_000;

/// Accounts: who spends how much, and what each may do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    List(ListArguments),
    Set(SetArguments),
}

/// List accounts, with what each has spent and may do.
#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Change an account's limits; what is not named stays.
#[derive(Debug, Args)]
pub(super) struct SetArguments {
    /// The account.
    account: String,
    #[command(flatten)]
    limits: LimitOptions,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const CREDIT_EXAMPLES: &str = "\
Examples:
  tussah serve credit alice            Shows what alice has spent and has left
  tussah serve credit alice +1GRAM     One GRAM more
  tussah serve credit alice -0.5       Half a GRAM less
  tussah serve credit alice 5          Five GRAM in all, those that were spent included
  tussah serve credit alice none       No limit any more";

/// Show or change what an account's jobs may cost in all.
#[derive(Debug, Args)]
#[command(after_long_help = CREDIT_EXAMPLES)]
pub(super) struct CreditArguments {
    /// The account.
    account: String,
    /// `+GRAM`, `-GRAM`, an amount in all, or `none`.
    #[arg(allow_hyphen_values = true, value_parser = credit_change)]
    change: Option<CreditChange>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What an account may do, as it is typed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LimitOptions {
    /// GRAM that all its jobs together may cost, those of the past included; `+GRAM` is so much
    /// more.
    #[arg(long, value_name = "GRAM|none", allow_hyphen_values = true, value_parser = credit_change)]
    credit: Option<CreditChange>,
    /// Jobs that run at a time.
    #[arg(long, value_name = "N|none", value_parser = count)]
    jobs_max: Option<Change<u32>>,
    /// Jobs that wait at a time.
    #[arg(long, value_name = "N|none", value_parser = count)]
    queued_max: Option<Change<u32>>,
    /// Jobs that are taken in a minute.
    #[arg(long, value_name = "N|none", value_parser = count)]
    per_minute_max: Option<Change<u32>>,
    /// GB of all modules and models together that it uploads.
    #[arg(long, value_name = "GB|none", value_parser = gigabytes)]
    uploads_max_gb: Option<Change<u64>>,
}

impl LimitOptions {
    pub(super) fn changes(self) -> LimitChanges {
        LimitChanges {
            credit: self.credit.unwrap_or_default(),
            running_max: self.jobs_max.unwrap_or_default(),
            queued_max: self.queued_max.unwrap_or_default(),
            per_minute_max: self.per_minute_max.unwrap_or_default(),
            upload_bytes_max: self.uploads_max_gb.unwrap_or_default(),
        }
    }
}

/// For clap: `+1GRAM`, `-0.5`, `5 GRAM`, `none`.
fn credit_change(text: &str) -> Result<CreditChange, String> {
    let amount = |text: &str| {
        let text = text.strip_suffix("GRAM").unwrap_or(text).trim();
        grams::parse(text)
    };
    if text == "none" {
        return Ok(CreditChange::Lift);
    }
    if let Some(more) = text.strip_prefix('+') {
        return amount(more).map(CreditChange::Add);
    }
    if let Some(less) = text.strip_prefix('-') {
        return amount(less).map(CreditChange::Take);
    }
    amount(text).map(CreditChange::To)
}

fn count(text: &str) -> Result<Change<u32>, String> {
    if text == "none" {
        return Ok(Change::Lift);
    }
    match text.parse() {
        Ok(count) if count > 0 => Ok(Change::To(count)),
        _ => Err("write a whole number from 1 on, or `none`".to_owned()),
    }
}

fn gigabytes(text: &str) -> Result<Change<u64>, String> {
    if text == "none" {
        return Ok(Change::Lift);
    }
    let count: Option<u32> = text.parse().ok();
    let count = count.ok_or("write a whole number of GB from 0 on, or `none`")?;
    Ok(Change::To(u64::from(count) * GB))
}

#[derive(Serialize)]
struct View<'a> {
    account: &'a str,
    credit_nanograms: Option<Nanograms>,
    spent_nanograms: Nanograms,
    reserved_nanograms: Nanograms,
    left_nanograms: Option<Nanograms>,
    jobs_max: Option<u32>,
    queued_max: Option<u32>,
    per_minute_max: Option<u32>,
    upload_bytes_max: Option<String>,
    uploaded_bytes: String,
}

impl<'a> View<'a> {
    fn of(account: &'a Account) -> Self {
        let limits = &account.limits;
        Self {
            account: &account.name,
            credit_nanograms: limits.credit_nanograms,
            spent_nanograms: account.spent,
            reserved_nanograms: account.reserved,
            left_nanograms: account.credit_left(),
            jobs_max: limits.running_max,
            queued_max: limits.queued_max,
            per_minute_max: limits.per_minute_max,
            upload_bytes_max: limits.upload_bytes_max.map(|max| max.to_string()),
            uploaded_bytes: account.uploaded_bytes.to_string(),
        }
    }

    /// One line for people.
    fn line(&self) -> String {
        let mut line = format!(
            "{}: {} spent, {} set aside",
            self.account,
            grams(self.spent_nanograms),
            grams(self.reserved_nanograms)
        );
        match (self.credit_nanograms, self.left_nanograms) {
            (Some(credit), Some(left)) => {
                line += &format!(", {} left of {}", grams(left), grams(credit));
            }
            _ => line += ", no limit",
        }
        for (limit, words) in [
            (self.jobs_max, "jobs at a time"),
            (self.queued_max, "waiting"),
            (self.per_minute_max, "a minute"),
        ] {
            if let Some(limit) = limit {
                line += &format!(", {limit} {words}");
            }
        }
        if let Some(max) = &self.upload_bytes_max {
            line += &format!(", {} of {max} bytes uploaded", self.uploaded_bytes);
        }
        line
    }

    fn show(&self, ui: &Ui) -> Result<Exit, Failure> {
        match ui.json() {
            true => ui.document(self)?,
            false => ui.line(&self.line())?,
        }
        Ok(Exit::DONE)
    }
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::List(arguments) => arguments.json,
            Self::Set(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let ledger = open_ledger(&Home::open()?)?;
        match self {
            Self::List(_) => list(&ledger, ui),
            Self::Set(SetArguments {
                account, limits, ..
            }) => change(&ledger, &account, limits.changes(), ui),
        }
    }
}

impl CreditArguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let ledger = open_ledger(&Home::open()?)?;
        let changes = LimitChanges {
            credit: self.change.unwrap_or_default(),
            ..LimitChanges::default()
        };
        change(&ledger, &self.account, changes, ui)
    }
}

fn list(ledger: &Ledger, ui: &Ui) -> Result<Exit, Failure> {
    let accounts = ledger.accounts().map_err(failure)?;
    let views: Vec<View<'_>> = accounts.iter().map(View::of).collect();
    if ui.json() {
        ui.document(&views)?;
        return Ok(Exit::DONE);
    }
    for view in &views {
        ui.line(&view.line())?;
    }
    Ok(Exit::DONE)
}

fn change(ledger: &Ledger, name: &str, changes: LimitChanges, ui: &Ui) -> Result<Exit, Failure> {
    let changed = ledger.change_limits(name, changes);
    let account = changed.map_err(|error| match error {
        LedgerError::NoAccount(_) => {
            Failure::usage(error).help("`tussah serve account list` shows those that there are")
        }
        error => failure(error),
    })?;
    View::of(&account).show(ui)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_credit_are_read_as_they_are_written() {
        let nano = |amount| Nanograms::new(amount).unwrap();
        for (text, change) in [
            ("5", CreditChange::To(nano(5 * GB))),
            ("5GRAM", CreditChange::To(nano(5 * GB))),
            ("0", CreditChange::To(nano(0))),
            ("+1GRAM", CreditChange::Add(nano(GB))),
            ("+0.000000001", CreditChange::Add(nano(1))),
            ("-1.5 GRAM", CreditChange::Take(nano(GB + GB / 2))),
            ("5000000000", CreditChange::To(Nanograms::MAX)),
            ("none", CreditChange::Lift),
        ] {
            assert_eq!(credit_change(text), Ok(change), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "GRAM",
            "+-1",
            "1e3",
            "5000000001",
            "None",
            "1 TON",
        ] {
            assert!(credit_change(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "1.5", "", "4294967296"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert_eq!(count("4294967295"), Ok(Change::To(u32::MAX)));
        assert_eq!(gigabytes("0"), Ok(Change::To(0)));
        assert_eq!(gigabytes("2"), Ok(Change::To(2 * GB)));
        assert_eq!(gigabytes("none"), Ok(Change::Lift));
        assert!(gigabytes("-1").is_err());
    }
}
