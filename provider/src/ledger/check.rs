//! `check`: whether every row of the ledger is what it says it is.
//!
//! In: the database. Out: how much there is, and each thing that does not fit. It changes nothing.
//! Digests, signatures, openings and outputs are computed again; sums are added up again.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use tussah_manifest::{
    Digest, Document as _, Domain, ExitStatus, Opening, PublicKey, Receipt, Request,
};

use super::accounts::manifest_of;
use super::jobs::request_of;
use super::places::place_of;
use super::{Ledger, LedgerError, LedgerView, Shape, store};

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which row, such as `job blake3:…`.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What a check came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Jobs that have not ended.
    pub accepted: u64,
    /// Jobs with a receipt.
    pub finished: u64,
    /// Jobs that ended without a run.
    pub not_run: u64,
    /// Ended jobs whose content was removed for its age, which cannot be compared any more.
    pub pruned: u64,
    /// Accounts.
    pub accounts: u64,
    /// Manifests.
    pub manifests: u64,
    /// What does not fit; empty if all is well.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    fn found(&mut self, place: &str, problem: impl Into<String>) {
        self.findings.push(Finding {
            place: place.to_owned(),
            problem: problem.into(),
        });
    }
}

impl Ledger {
    /// Looks at every row. `provider_key` is whose receipts these have to be, if that is known.
    ///
    /// # Errors
    /// [`LedgerError::Store`] if the database cannot be read at all.
    pub fn check(&self, provider_key: Option<&PublicKey>) -> Result<CheckReport, LedgerError> {
        (self.store).read(|connection| check(connection, provider_key))
    }
}

impl LedgerView {
    /// As [`Ledger::check`], and without any way to change what it looks at: also beside a daemon
    /// that runs.
    ///
    /// # Errors
    /// As [`Ledger::check`].
    pub fn check(&mut self, provider_key: Option<&PublicKey>) -> Result<CheckReport, LedgerError> {
        store::read(&mut self.connection, |connection| {
            check(connection, provider_key)
        })
    }
}

/// All of it over one state of the database.
fn check(
    connection: &Connection,
    provider_key: Option<&PublicKey>,
) -> Result<CheckReport, LedgerError> {
    let mut report = CheckReport::default();
    check_database(connection, &mut report)?;
    check_manifests(connection, &mut report)?;
    check_deployments(connection, &mut report)?;
    let sums = check_jobs(connection, provider_key, &mut report)?;
    check_accounts(connection, &sums, &mut report)?;
    Ok(report)
}

/// What the jobs of an account add up to.
#[derive(Debug, Default)]
struct Sum {
    spent: i128,
    reserved: i128,
}

/// SQLite's own view of its file.
fn check_database(connection: &Connection, report: &mut CheckReport) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    for line in lines {
        let line = line?;
        if line != "ok" {
            report.found("database", line);
        }
    }
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let broken = statement.query_map([], |row| row.get::<_, String>(0))?;
    for table in broken {
        report.found(
            &format!("table {}", table?),
            "a row names another that is not there",
        );
    }
    Ok(())
}

fn check_manifests(connection: &Connection, report: &mut CheckReport) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("SELECT digest, bytes FROM manifests")?;
    let rows = statement.query_map([], |row| {
        Ok((Digest::from_bytes(row.get(0)?), row.get::<_, Vec<u8>>(1)?))
    })?;
    for row in rows {
        let (digest, bytes) = row?;
        report.manifests += 1;
        if let Err(error) = manifest_of(&digest, &bytes) {
            report.found(&format!("manifest {digest}"), error.to_string());
        }
    }
    Ok(())
}

fn check_deployments(connection: &Connection, report: &mut CheckReport) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("SELECT name, shape FROM deployments")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    for row in rows {
        let (name, shape) = row?;
        if Shape::from_name(&shape).is_none() {
            let problem = format!("there is no shape {shape:?}");
            report.found(&format!("deployment {name}"), problem);
        }
    }
    Ok(())
}

fn check_jobs(
    connection: &Connection,
    provider_key: Option<&PublicKey>,
    report: &mut CheckReport,
) -> Result<BTreeMap<i64, Sum>, LedgerError> {
    let sql = "SELECT id, state, account, manifest, reserved, finished, price, error_code, fault, \
               error, request, input, receipt, opening, output, accepted, pruned, place, \
               network, incarnation FROM jobs";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut sums: BTreeMap<i64, Sum> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let id = Digest::from_bytes(row.get(0)?);
        let sum = sums.entry(row.get(2)?).or_default();
        if row.get::<_, Option<String>>(17)?.is_none() {
            sum.reserved += i128::from(row.get::<_, i64>(4)?);
            sum.spent += i128::from(row.get::<_, Option<i64>>(6)?.unwrap_or_default());
        }
        let mut problems = Vec::new();
        match row.get::<_, i64>(1)? {
            0 => report.accepted += 1,
            1 => report.finished += 1,
            _ => report.not_run += 1,
        }
        if row.get::<_, Option<i64>>(16)?.is_some() {
            report.pruned += 1;
        }
        check_job(row, &id, provider_key, &mut problems)?;
        for problem in problems {
            report.found(&format!("job {id}"), problem);
        }
    }
    Ok(sums)
}

fn check_job(
    row: &Row<'_>,
    id: &Digest,
    provider_key: Option<&PublicKey>,
    problems: &mut Vec<String>,
) -> Result<(), LedgerError> {
    let request = match request_of(&row.get::<_, Vec<u8>>(10)?) {
        Ok(request) => request,
        Err(error) => {
            problems.push(error.to_string());
            return Ok(());
        }
    };
    let mut hold = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    let body = &request.body;
    hold(body.job_id() == *id, "the id is not its request's");
    hold(
        request.verify().is_ok(),
        "the client did not sign this request",
    );
    let place: Option<String> = row.get(17)?;
    hold(
        place_of(body.channel) == place,
        "the request names another place in a channel",
    );
    let opening: (Option<i32>, Option<[u8; 32]>) = (row.get(18)?, row.get(19)?);
    hold(
        opening.0.is_some() == opening.1.is_some() && (opening.0.is_none() || place.is_some()),
        "the opening of its channel does not fit its place",
    );
    let manifest: [u8; 32] = row.get(3)?;
    hold(
        body.manifest.as_bytes() == &manifest,
        "the request names another manifest",
    );
    let input: Vec<u8> = row.get(11)?;
    let state: i64 = row.get(1)?;
    let pruned = row.get::<_, Option<i64>>(16)?.is_some();
    hold(
        pruned || body.is_for_input(&input),
        "the request was made for another input",
    );
    hold(
        !pruned || (state != 0 && input.is_empty()),
        "its content counts as removed, and it has not ended or has an input",
    );
    let reserved: i64 = row.get(4)?;
    let (finished, price): (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
    let receipt: Option<Vec<u8>> = row.get(12)?;
    let ended = state != 0;
    hold(
        finished.is_some() == ended,
        "its end's time does not fit its state",
    );
    hold(price.is_some() == ended, "its price does not fit its state");
    hold(
        !ended || reserved == 0,
        "it ended and still has a reservation",
    );
    hold(
        receipt.is_some() == (state == 1),
        "its receipt does not fit its state",
    );
    let fault: Option<String> = row.get(8)?;
    hold(
        fault.is_some() == (state == 2),
        "whose fault it is does not fit its state",
    );
    if let Some(receipt) = receipt {
        check_receipt(row, &request, &receipt, price, provider_key, problems)?;
    }
    Ok(())
}

fn check_receipt(
    row: &Row<'_>,
    request: &Request,
    receipt: &[u8],
    price: Option<i64>,
    provider_key: Option<&PublicKey>,
    problems: &mut Vec<String>,
) -> Result<(), LedgerError> {
    let receipt = match Receipt::from_verified_bytes(receipt) {
        Ok(receipt) => receipt,
        Err(error) => {
            problems.push(format!("the receipt: {error}"));
            return Ok(());
        }
    };
    let opening: Option<Vec<u8>> = row.get(13)?;
    let opening = match Opening::from_bytes(&opening.unwrap_or_default()) {
        Ok(opening) => opening,
        Err(error) => {
            problems.push(format!("the opening: {error}"));
            return Ok(());
        }
    };
    let mut hold = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    let consensus = &receipt.consensus;
    let ours = provider_key.is_none_or(|key| *key == receipt.provider_key);
    hold(ours, "another provider signed the receipt");
    hold(
        opening.request == *request,
        "the opening is of another request",
    );
    hold(
        opening.matches(&receipt).is_ok(),
        "the opening is not the receipt's",
    );
    let same = u64::try_from(price.unwrap_or(-1)) == Ok(consensus.price_nanograms.get());
    hold(same, "the price is not the receipt's");
    let output: Vec<u8> = row.get::<_, Option<_>>(14)?.unwrap_or_default();
    let output = opening.output_digest(&output);
    let pruned = row.get::<_, Option<i64>>(16)?.is_some();
    hold(
        pruned || output == consensus.output,
        "the output is not the receipt's",
    );
    if let ExitStatus::JobError { code, message } = &consensus.exit {
        hold(
            row.get::<_, Option<u32>>(7)? == Some(*code),
            "the error's code is not the receipt's",
        );
        let text = row.get::<_, Option<String>>(9)?.unwrap_or_default();
        let digest = Digest::salted(&opening.salt, Domain::JobError, text.as_bytes());
        hold(
            digest == *message,
            "the error's message is not the receipt's",
        );
    }
    Ok(())
}

fn check_accounts(
    connection: &Connection,
    sums: &BTreeMap<i64, Sum>,
    report: &mut CheckReport,
) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("SELECT id, name, spent, reserved FROM accounts")?;
    let mut rows = statement.query([])?;
    let none = Sum::default();
    while let Some(row) = rows.next()? {
        report.accounts += 1;
        let sum = sums.get(&row.get(0)?).unwrap_or(&none);
        let place = format!("account {}", row.get::<_, String>(1)?);
        if i128::from(row.get::<_, i64>(2)?) != sum.spent {
            report.found(
                &place,
                format!("its jobs cost {} nanograms, not that", sum.spent),
            );
        }
        if i128::from(row.get::<_, i64>(3)?) != sum.reserved {
            let problem = format!("its jobs reserve {} nanograms, not that", sum.reserved);
            report.found(&place, problem);
        }
    }
    Ok(())
}
