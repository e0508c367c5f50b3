//! `tussah ledger`: whether the ledger of this machine's provider holds, and what it has of jobs.

mod export;

use clap::{Args, Subcommand};
use serde::Serialize;
use tussah_manifest::SigningKey;
use tussah_provider::ledger::{CheckReport, LedgerError, LedgerView, StoreError};

use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    keys::{self, KeyName},
    ui::{self, Ui},
};

/// The ledger's place below the home folder.
const PLACE: &str = "serve/ledger.sqlite";

/// The ledger of this machine's provider.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(CheckArguments),
    Export(export::ExportArguments),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  tussah ledger check                  Also while the daemon runs
  tussah ledger check --json | jq .findings

Every row is read: signatures of requests and receipts are verified, digests of inputs,
outputs, manifests and openings computed again, and the sums of accounts added up again.
Nothing is changed. Exit code 0: all of it holds. Exit code 3: what does not is listed.";

/// Check every row of the ledger.
#[derive(Debug, Args)]
#[command(after_long_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    clean: bool,
    jobs_accepted: u64,
    jobs_finished: u64,
    jobs_not_run: u64,
    accounts: u64,
    manifests: u64,
    findings: Vec<FindingView<'a>>,
}

#[derive(Serialize)]
struct FindingView<'a> {
    place: &'a str,
    problem: &'a str,
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Check(arguments) => arguments.json,
            // Its lines are for programs, what it says besides is for people.
            Self::Export(_) => false,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self {
            Self::Check(_) => check(ui),
            Self::Export(arguments) => arguments.run(ui),
        }
    }
}

/// Opens the ledger to be read, whether or not a daemon has it.
///
/// # Errors
/// A usage failure where there is none; exit code 3 where it is no ledger.
pub(super) fn open(home: &Home) -> Result<LedgerView, Failure> {
    let path = home.root().join(PLACE);
    if !path.is_file() {
        let message = format!("there is no ledger at {}", path.display());
        return Err(Failure::usage(message)
            .help("the first `tussah serve` makes it; TUSSAH_HOME says which home is meant"));
    }
    LedgerView::open(&path).map_err(|error| {
        unreadable(error).context(format!("cannot read the ledger {}", path.display()))
    })
}

/// A ledger that cannot be read as what it is.
pub(super) fn unreadable(error: LedgerError) -> Failure {
    match &error {
        LedgerError::Store(StoreError::Older { .. }) => {
            Failure::host(error).help("start `tussah serve` once: it brings the ledger up to date")
        }
        LedgerError::Store(StoreError::Newer { .. }) => {
            Failure::host(error).help("use the newer build of tussah that wrote it")
        }
        _ => Failure::not_verified(error).help(
            "keep a copy of the folder, look at the disk, and go on from a backup; \
             `tussah ledger check` says which rows are concerned",
        ),
    }
}

fn check(ui: &Ui) -> Result<Exit, Failure> {
    let home = Home::open()?;
    let mut ledger = open(&home)?;
    let key = keys::load(&home, KeyName::Provider)?;
    let key = key.map(|secret| SigningKey::from_bytes(&secret).public_key());
    let report = {
        let _spinner = ui.spinner("checking the ledger");
        ledger.check(key.as_ref()).map_err(unreadable)?
    };
    let clean = report.findings.is_empty();
    if ui.json() {
        ui.document(&view(&report))?;
        return Ok(match clean {
            true => Exit::DONE,
            false => Exit::NOT_VERIFIED,
        });
    }
    for finding in &report.findings {
        ui.line(&format!("{}: {}", finding.place, finding.problem))?;
    }
    let counts = format!(
        "{} jobs that ended with a receipt, {} without a run, {} not ended; {} accounts, {} \
         manifests",
        ui::count(report.finished),
        ui::count(report.not_run),
        ui::count(report.accepted),
        ui::count(report.accounts),
        ui::count(report.manifests),
    );
    if clean {
        ui.line(&format!("good: {counts}"))?;
        return Ok(Exit::DONE);
    }
    ui.note(&counts);
    let message = format!(
        "the ledger does not hold; findings: {}",
        report.findings.len()
    );
    Err(Failure::not_verified(message).help(
        "stop the daemon, keep a copy of the folder serve/ and look at the disk; then go on from a \
         backup, or keep the ledger as it is for what still holds: each row stands for itself",
    ))
}

fn view(report: &CheckReport) -> View<'_> {
    let findings = report.findings.iter();
    View {
        clean: report.findings.is_empty(),
        jobs_accepted: report.accepted,
        jobs_finished: report.finished,
        jobs_not_run: report.not_run,
        accounts: report.accounts,
        manifests: report.manifests,
        findings: findings
            .map(|finding| FindingView {
                place: &finding.place,
                problem: &finding.problem,
            })
            .collect(),
    }
}
