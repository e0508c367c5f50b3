//! What people see. Results go to standard output; this is the only place that writes to
//! standard error: progress while it is a terminal, notes, and errors with what to do.
//!
//! In: what a command has to say. Out: lines. Nothing of a job's content goes to standard
//! error, and with `--json` it stays empty.

use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::{exit_code::Exit, failure::Failure};

/// How this process talks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    json: bool,
    bars: bool,
    color: bool,
    streams_to_terminal: bool,
}

impl Ui {
    /// Looks at the streams and the environment.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            bars: terminal && !json && !dumb,
            color: terminal && !plain && !dumb,
            streams_to_terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether there is a terminal that shows progress.
    pub(crate) fn shows_bars(&self) -> bool {
        self.bars
    }

    /// Whether results are JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Writes a part of the result to standard output, at once.
    ///
    /// # Errors
    /// A failure if nobody reads any more, or the disk behind it is full.
    pub(crate) fn out(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| {
                match error.kind() {
                    // `tussah … | head`: what was asked for was delivered.
                    io::ErrorKind::BrokenPipe => Failure::new(Exit::DONE, ReaderGone),
                    _ => Failure::host(error).context("cannot write to standard output"),
                }
            })
    }

    /// Writes a line of the result to standard output.
    ///
    /// # Errors
    /// As [`Ui::out`].
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.out(format!("{text}\n").as_bytes())
    }

    /// Writes the result as one JSON document.
    ///
    /// # Errors
    /// As [`Ui::out`].
    pub(crate) fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::host)?;
        self.line(&text)
    }

    /// Says something that is worth keeping, on standard error.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            self.stderr(text);
        }
    }

    /// Passes on what a guest wrote to its own log.
    pub(crate) fn log(&self, bytes: &[u8]) {
        if !self.json {
            // A guest must not move the cursor or recolour the terminal.
            let text = String::from_utf8_lossy(bytes);
            let kept: String = text
                .chars()
                .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
                .collect();
            // Nobody is left to tell if standard error is gone.
            let _ = io::stderr().lock().write_all(kept.as_bytes());
        }
    }

    /// Whether results are read by a person as they come.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.streams_to_terminal
    }

    /// Says that something is not as it should be, though the command goes on.
    pub(crate) fn warn(&self, text: &str) {
        if !self.json {
            self.stderr(&format!("{} {text}", self.paint("warning:", "1;33")));
        }
    }

    /// Says why the command failed.
    pub(crate) fn fail(&self, failure: &Failure) {
        if failure.error.is::<ReaderGone>() {
            return;
        }
        let chain = failure.chain();
        let (message, causes) = chain.split_first().map_or(("", &[][..]), |(m, c)| (m, c));
        if self.json {
            let exit_code = failure.exit.number();
            let error = ErrorView {
                exit_code,
                message,
                causes,
                help: failure.help.as_deref(),
            };
            // Nobody is left to tell if standard output is gone.
            let _ = self.document(&ErrorDocument { error });
            return;
        }
        self.stderr(&format!("{} {message}", self.paint("error:", "1;31")));
        for cause in causes {
            self.stderr(&format!("  caused by: {cause}"));
        }
        if let Some(help) = &failure.help {
            self.stderr(&format!("{} {help}", self.paint("help:", "1;36")));
        }
    }

    /// Bytes of so many: hashing, copying, loading.
    pub(crate) fn bytes_bar(&self, label: impl Into<Cow<'static, str>>, total: u64) -> Bar {
        let template = "{msg:>12} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
        self.bar(label, template, Some(total))
    }

    /// Bytes of nobody knows how many.
    pub(crate) fn unsized_bar(&self, label: impl Into<Cow<'static, str>>) -> Bar {
        let template = "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}";
        self.bar(label, template, None)
    }

    /// Work of unknown length.
    pub(crate) fn spinner(&self, label: impl Into<Cow<'static, str>>) -> Bar {
        self.bar(label, "{spinner} {msg} {elapsed}", None)
    }

    /// Tokens as they are generated. Hidden where the text itself goes to the terminal.
    pub(crate) fn tokens_bar(&self, label: impl Into<Cow<'static, str>>) -> Bar {
        if self.streams_to_terminal {
            return Bar(ProgressBar::hidden());
        }
        self.bar(label, "{spinner} {msg} {pos} tokens, {rate}", None)
    }

    fn bar(&self, label: impl Into<Cow<'static, str>>, template: &str, total: Option<u64>) -> Bar {
        if !self.bars {
            return Bar(ProgressBar::hidden());
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
                // Nobody is left to tell if the terminal is gone.
                let _ = write!(text, "{:.1}/s", state.per_sec());
            };
            bar.set_style(style.progress_chars("=> ").with_key("rate", rate));
        }
        bar.set_message(label);
        bar.enable_steady_tick(Duration::from_millis(100));
        Bar(bar)
    }

    fn paint<'a>(&self, text: &'a str, code: &str) -> Cow<'a, str> {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m").into()
        } else {
            text.into()
        }
    }

    fn stderr(&self, text: &str) {
        // Nobody is left to tell if standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Progress on the terminal; gone when dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// So many more are done.
    pub(crate) fn add(&self, count: u64) {
        self.0.inc(count);
    }

    /// So many are done in all.
    pub(crate) fn set(&self, count: u64) {
        self.0.set_position(count);
    }

    /// So many were done before, and count neither for the rate nor for the time left.
    pub(crate) fn start_at(&self, count: u64) {
        self.0.set_position(count);
        self.0.reset_eta();
    }

    /// What is being done now.
    pub(crate) fn say(&self, label: impl Into<Cow<'static, str>>) {
        self.0.set_message(label);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Standard output was closed by its reader.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
struct ReaderGone;

#[derive(Serialize)]
struct ErrorDocument<'a> {
    error: ErrorView<'a>,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    exit_code: u8,
    message: &'a str,
    causes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

/// `98.4 MB`, in powers of ten as disks and hubs count.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 s` or `340 ms`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (98_362_432, "98.4 MB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (u64::MAX, "18446744.1 TB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(count(number), expected);
        }
        assert_eq!(duration(Duration::from_millis(999)), "999 ms");
        assert_eq!(duration(Duration::from_millis(1250)), "1.2 s");
    }
}
