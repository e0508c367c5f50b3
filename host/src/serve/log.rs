//! The daemon's log: one line an event on standard error, for people or for programs.
//!
//! In: events of the gateway. Out: their time, level and fields. None of them has a job's input,
//! output or words, a key, or the path of a request; what other crates say is kept to warnings.

use std::{fmt, io, str::FromStr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, fmt::layer, layer::SubscriberExt as _};

use crate::failure::Failure;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(pub(crate) LevelFilter);

impl Default for Level {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

impl FromStr for Level {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        match text.parse() {
            Ok(level) if known.contains(&text) => Ok(Self(level)),
            _ => Err("write off, error, warn, info, debug or trace"),
        }
    }
}

/// For whom it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// People.
    #[default]
    Text,
    /// Programs: one JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("write text or json"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Writes the log of this process from now on.
///
/// # Errors
/// A host failure if another log is written already.
pub(super) fn install(level: Level, format: Format) -> Result<(), Failure> {
    let ours = Targets::new()
        .with_default(level.0.min(LevelFilter::WARN))
        .with_target("tussah", level.0);
    let lines = layer().with_writer(io::stderr).with_ansi(false);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(ours));
    tracing::subscriber::set_global_default(log).map_err(Failure::host)
}
