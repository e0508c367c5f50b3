//! `tussah ledger export`: what a provider's own books need to know of its jobs.
//!
//! In: the ledger, a span of time, a format. Out: a line for each job that ended in it, with its
//! receipt and what is owed for it, and no content of any.

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_manifest::{Channel, Digest, Nanograms, Receipt};
use tussah_provider::ledger::{EarningsSpan, EndedJob};

use super::{open, unreadable};
use crate::{
    cli::earnings::{Since, since},
    clock,
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah ledger export --since 2026-10-01 --until 2026-11-01 --format csv > october.csv
  tussah ledger export --since 90d | jq -r 'select(.owed == \"credit\") | .account'

A line is a job that ended in this time, in the order in which jobs were accepted, also while
the daemon runs. Each has what its receipt says it costs and how that is owed: on the account's
credit, or through a channel, by a voucher that the client gave. What of it was paid, the ledger
does not know. Lines of JSON have the whole receipt, those of CSV its digest.";

/// Jobs that are read at a time.
const PAGE: u32 = 500;
const HEAD: &str = "finished_utc,job,account,model,manifest,status,owed,price_nanograms,\
                    price_gram,channel,index,fuel_used,inference_units_used,receipt\r\n";

/// Write a line for each job that ended: account, price, how it is owed, receipt.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct ExportArguments {
    /// From when on: days or hours back, such as 7d or 12h, or a date, in UTC.
    #[arg(long, value_name = "7d|DATE", default_value = "30d", value_parser = since)]
    since: Since,
    /// Until when, that day not included; until now if not given.
    #[arg(long, value_name = "7d|DATE", value_parser = since)]
    until: Option<Since>,
    /// As what.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line.
    #[default]
    Jsonl,
    /// Comma-separated values with a head (RFC 4180).
    Csv,
}

#[derive(Serialize)]
struct Line<'a> {
    job: String,
    account: &'a str,
    model: Option<&'a str>,
    manifest: String,
    accepted_unix_ms: u64,
    finished_unix_ms: Option<u64>,
    finished_utc: &'a str,
    status: &'static str,
    /// Absent where there is nothing to owe.
    owed: Option<&'static str>,
    price_nanograms: Nanograms,
    channel: Option<String>,
    index: Option<String>,
    receipt_digest: Option<String>,
    receipt: Option<&'a Receipt>,
}

impl ExportArguments {
    pub(super) fn run(&self, ui: &Ui) -> Result<Exit, Failure> {
        let now = clock::milliseconds();
        let until = self.until.map(|until| until.moment(now));
        let span = EarningsSpan {
            from_unix_ms: self.since.moment(now),
            to_unix_ms: until.unwrap_or_else(|| now.saturating_add(1)),
        };
        let mut ledger = open(&Home::open()?)?;
        if self.format == Format::Csv {
            ui.out(HEAD.as_bytes())?;
        }
        let mut after = 0;
        loop {
            let page = ledger.ended_jobs(span, after, PAGE).map_err(unreadable)?;
            let mut text = Vec::new();
            for ended in &page {
                after = ended.sequence;
                match self.format {
                    Format::Jsonl => {
                        let line = serde_json::to_vec(&Line::of(ended)).map_err(Failure::host)?;
                        text.extend_from_slice(&line);
                        text.push(b'\n');
                    }
                    Format::Csv => text.extend_from_slice(csv(&Line::of(ended)).as_bytes()),
                }
            }
            if page.is_empty() {
                return Ok(Exit::DONE);
            }
            ui.out(&text)?;
        }
    }
}

impl<'a> Line<'a> {
    fn of(ended: &'a EndedJob) -> Self {
        let job = &ended.job;
        let receipt = job.receipt.as_deref();
        let price = job.price.unwrap_or(Nanograms::ZERO);
        let (kind, channel, index) = match receipt.map(|receipt| receipt.consensus.channel) {
            Some(Channel::Ton { address, index }) => (
                "channel",
                Some(address.to_string()),
                Some(index.to_string()),
            ),
            Some(Channel::Local) | None => ("credit", None, None),
        };
        Self {
            job: job.id.to_string(),
            account: &ended.account,
            model: job.deployment.as_deref(),
            manifest: job.manifest.to_string(),
            accepted_unix_ms: job.accepted_unix_ms,
            finished_unix_ms: job.finished_unix_ms,
            finished_utc: &ended.finished_utc,
            status: receipt.map_or("not-run", |receipt| receipt.consensus.exit.name()),
            owed: (price > Nanograms::ZERO).then_some(kind),
            price_nanograms: price,
            channel,
            index,
            receipt_digest: receipt.map(Receipt::digest).as_ref().map(Digest::to_string),
            receipt,
        }
    }
}

fn csv(line: &Line<'_>) -> String {
    let price = grams(line.price_nanograms);
    let used = line.receipt.map(|receipt| &receipt.consensus);
    let fields = [
        line.finished_utc.to_owned(),
        line.job.clone(),
        line.account.to_owned(),
        line.model.unwrap_or_default().to_owned(),
        line.manifest.clone(),
        line.status.to_owned(),
        line.owed.unwrap_or_default().to_owned(),
        line.price_nanograms.get().to_string(),
        price.strip_suffix(" GRAM").unwrap_or(&price).to_owned(),
        line.channel.clone().unwrap_or_default(),
        line.index.clone().unwrap_or_default(),
        used.map_or_else(String::new, |used| used.fuel_used.to_string()),
        used.map_or_else(String::new, |used| used.inference_units_used.to_string()),
        line.receipt_digest.clone().unwrap_or_default(),
    ];
    let fields: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
    format!("{}\r\n", fields.join(","))
}

/// A field of CSV. A spreadsheet takes a name that begins like a formula for one: it gets a space.
fn quoted(field: &str) -> String {
    let begins = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = match begins {
        true => format!(" {field}"),
        false => field.to_owned(),
    };
    match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_one_field_and_no_formula() {
        for (field, expected) in [
            ("", ""),
            ("shop", "shop"),
            ("a,b", "\"a,b\""),
            ("say \"a\"", "\"say \"\"a\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", " =1+1"),
            ("-1:00", " -1:00"),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
