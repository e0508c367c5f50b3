//! `tussah earnings`: what the jobs of a time came to, from the ledger of this machine's provider.

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_manifest::Nanograms;
use tussah_provider::ledger::{Earnings, EarningsBy, EarningsSpan};

use super::ledger::{open, unreadable};
use crate::{
    clock,
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah earnings                      The last 30 days, day by day
  tussah earnings --since 7d --by model
  tussah earnings --since 2026-11-01 --by account --json

A job counts on the day on which it ended, in UTC. On credit is what accounts owe for their
jobs: nobody has paid it here, and no chain knows of it. By channel is what clients promised
in vouchers; `tussah channel status` says what of it was redeemed.";

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Show what was earned.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// From when on: days or hours back, such as 7d or 12h, or a date, in UTC.
    #[arg(long, value_name = "7d|DATE", default_value = "30d", value_parser = since)]
    since: Since,
    /// By what sums are told apart.
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// `--by`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum By {
    /// The day of a job's end.
    #[default]
    Day,
    /// Who asked.
    Account,
    /// What was asked for.
    Model,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Account => "account",
            Self::Model => "model",
        }
    }
}

impl From<By> for EarningsBy {
    fn from(by: By) -> Self {
        match by {
            By::Day => Self::Day,
            By::Account => Self::Account,
            By::Model => Self::Model,
        }
    }
}

/// `--since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// So many milliseconds back.
    Back(u64),
    /// A moment, in milliseconds since 1970.
    At(u64),
}

impl Since {
    /// The moment that it names, in milliseconds since 1970.
    pub(super) const fn moment(self, now_ms: u64) -> u64 {
        match self {
            Self::Back(milliseconds) => now_ms.saturating_sub(milliseconds),
            Self::At(moment) => moment,
        }
    }
}

/// For clap.
pub(super) fn since(text: &str) -> Result<Since, String> {
    let wrong = || format!("`{text}` is neither a time back, such as 7d or 12h, nor a date");
    for (unit, milliseconds) in [('d', DAY_MS), ('h', HOUR_MS)] {
        if let Some(count) = text.strip_suffix(unit) {
            let count: u64 = count.parse().map_err(|_| wrong())?;
            let back = count.checked_mul(milliseconds);
            return back.map(Since::Back).ok_or_else(wrong);
        }
    }
    let mut parts = text.split('-');
    let mut part = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.parse::<u64>().ok()
    };
    let date = part(4).zip(part(2)).zip(part(2));
    let ((year, month), day) = date.filter(|_| parts.next().is_none()).ok_or_else(wrong)?;
    days_since_1970(year, month, day)
        .map(|days| Since::At(days * DAY_MS))
        .ok_or_else(|| format!("there is no day {text}, from 1970 on"))
}

/// Days of the Gregorian calendar, counted from 1970-01-01.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || day == 0 || day > *months.get(index)? {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let of_years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    Some(of_years + months[..index].iter().sum::<u64>() + day - 1)
}

#[derive(Serialize)]
struct View {
    from_unix_ms: String,
    to_unix_ms: String,
    by: &'static str,
    groups: Vec<SumsView>,
    total: SumsView,
}

#[derive(Serialize)]
struct SumsView {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    jobs: u64,
    failed: u64,
    free: u64,
    not_run: u64,
    refunded: u64,
    fuel: String,
    inference_units: String,
    /// Owed by accounts; not paid through any chain.
    credit_nanograms: Nanograms,
    /// Promised through payment channels.
    channel_nanograms: Nanograms,
}

impl SumsView {
    fn of(key: Option<String>, sums: &Earnings) -> Self {
        Self {
            key,
            jobs: sums.jobs,
            failed: sums.failed,
            free: sums.free,
            not_run: sums.not_run,
            refunded: sums.refunded,
            fuel: sums.fuel.to_string(),
            inference_units: sums.inference_units.to_string(),
            credit_nanograms: sums.credit,
            channel_nanograms: sums.channel,
        }
    }
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let now = clock::milliseconds();
        let span = EarningsSpan {
            from_unix_ms: self.since.moment(now),
            to_unix_ms: now.saturating_add(1),
        };
        let mut ledger = open(&Home::open()?)?;
        let groups = ledger.earnings(span, self.by.into()).map_err(unreadable)?;
        let mut total = Earnings::default();
        for (_, sums) in &groups {
            total.add(sums).map_err(unreadable)?;
        }
        if ui.json() {
            let rows = groups.into_iter();
            ui.document(&View {
                from_unix_ms: span.from_unix_ms.to_string(),
                to_unix_ms: span.to_unix_ms.to_string(),
                by: self.by.name(),
                groups: rows
                    .map(|(key, sums)| SumsView::of(Some(key), &sums))
                    .collect(),
                total: SumsView::of(None, &total),
            })?;
            return Ok(Exit::DONE);
        }
        if groups.is_empty() {
            ui.line("no job ended in this time")?;
            return Ok(Exit::DONE);
        }
        for line in table(self.by.name(), &groups, &total) {
            ui.line(&line)?;
        }
        if total.credit > Nanograms::ZERO {
            ui.note("on credit: owed by the accounts, paid by no chain");
        }
        if total.channel > Nanograms::ZERO {
            ui.note("by channel: promised in vouchers; see `tussah channel status`");
        }
        Ok(Exit::DONE)
    }
}

/// Lines of columns, the total last.
fn table(by: &str, groups: &[(String, Earnings)], total: &Earnings) -> Vec<String> {
    let head = [
        by,
        "jobs",
        "failed",
        "free",
        "not run",
        "refunded",
        "fuel",
        "inference",
        "on credit",
        "by channel",
    ];
    let cells = |key: &str, sums: &Earnings| {
        [
            key.to_owned(),
            ui::count(sums.jobs),
            ui::count(sums.failed),
            ui::count(sums.free),
            ui::count(sums.not_run),
            ui::count(sums.refunded),
            ui::count(u64::try_from(sums.fuel).unwrap_or(u64::MAX)),
            ui::count(u64::try_from(sums.inference_units).unwrap_or(u64::MAX)),
            grams(sums.credit),
            grams(sums.channel),
        ]
    };
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(groups.iter().map(|(key, sums)| cells(key, sums)));
    rows.push(cells("total", total));
    let mut widths = [0; 10];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        cells.join("  ")
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_hours_or_dates() {
        for (text, expected) in [
            ("7d", Since::Back(7 * DAY_MS)),
            ("12h", Since::Back(12 * HOUR_MS)),
            ("0d", Since::Back(0)),
            ("1970-01-01", Since::At(0)),
            ("1970-03-01", Since::At(59 * DAY_MS)),
            // As `date -u -d 2000-03-01 +%s` has it: the leap day of a year that 400 divides.
            ("2000-03-01", Since::At(951_868_800_000)),
            ("2026-11-23", Since::At(1_795_392_000_000)),
            ("2100-03-01", Since::At(4_107_542_400_000)),
        ] {
            assert_eq!(since(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "7",
            "d",
            "-7d",
            "7w",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "2026-2-9",
            "1969-12-31",
            "2026-11-23-1",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            since(text).unwrap_err();
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let sums = Earnings {
            jobs: 1200,
            credit: Nanograms::new(1_500_000_000).unwrap(),
            ..Earnings::default()
        };
        let lines = table("day", &[("2026-11-23".to_owned(), sums.clone())], &sums);
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("1,200") && lines[1].contains("1.5 GRAM"),
            "{lines:?}"
        );
        assert_eq!(lines[0].chars().count(), lines[2].chars().count());
    }
}
