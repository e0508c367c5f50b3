//! One table of a TOML text, read field by field. Knows which fields a table has, where each stands
//! and of what type it is; what they mean is for `read.rs`.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::MANIFEST_TEXT_BYTES_MAX;
use super::error::{ManifestError, Position};
use super::nearest::nearest;
use crate::codes::Word;
use crate::digest::Digest;
use crate::limits::Unit;
use crate::names::Label;

const EXAMPLE_DIGEST: &str = "digest = \"blake3:<64 hex digits>\"";

/// A table whose field names are all known, and how far it has been read.
pub(super) struct Table<'a> {
    pub(super) text: &'a str,
    /// Path of the table; empty for the root.
    path: String,
    at: Position,
    entries: DeTable<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn root(text: &'a str, known: &[&'static str]) -> Result<Self, ManifestError> {
        check_length(text.len())?;
        let table = DeTable::parse(text).map_err(|error| ManifestError::Syntax {
            at: position(text, &error.span().unwrap_or(0..0)),
            message: error.message().to_owned(),
        })?;
        let at = Position { line: 1, column: 1 };
        Self::new(text, String::new(), at, table.into_inner(), known)
    }

    pub(super) fn new(
        text: &'a str,
        path: String,
        at: Position,
        entries: DeTable<'a>,
        known: &[&'static str],
    ) -> Result<Self, ManifestError> {
        let table = Self {
            text,
            path,
            at,
            entries,
        };
        let unknown = |key: &&Spanned<Cow<'_, str>>| !known.contains(&key.get_ref().as_ref());
        // The first in the text, not in the alphabet.
        let first = table
            .entries
            .keys()
            .filter(unknown)
            .min_by_key(|key| key.span().start);
        if let Some(key) = first {
            return Err(ManifestError::UnknownField {
                at: position(text, &key.span()),
                field: table.path(key.get_ref()),
                suggestion: nearest(key.get_ref(), known),
                known: known.to_vec(),
            });
        }
        Ok(table)
    }

    pub(super) fn path(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    pub(super) fn take(&mut self, field: &str) -> Option<(Position, DeValue<'a>)> {
        let key = self
            .entries
            .keys()
            .find(|key| key.get_ref() == field)?
            .clone();
        let (key, value) = self.entries.remove_entry(&key)?;
        // A table's own span is its header or first field; its name is the better place to show.
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        let span = if is_table { key.span() } else { value.span() };
        Some((position(self.text, &span), value.into_inner()))
    }

    pub(super) fn table(
        &mut self,
        field: &str,
        known: &[&'static str],
    ) -> Result<Option<Table<'a>>, ManifestError> {
        match self.take(field) {
            None => Ok(None),
            Some((at, DeValue::Table(entries))) => {
                Table::new(self.text, self.path(field), at, entries, known).map(Some)
            }
            Some((at, other)) => Err(self.wrong_type(at, field, "a table", &other)),
        }
    }

    pub(super) fn text(
        &mut self,
        field: &str,
    ) -> Result<Option<(Position, Cow<'a, str>)>, ManifestError> {
        match self.take(field) {
            None => Ok(None),
            Some((at, DeValue::String(text))) => Ok(Some((at, text))),
            Some((at, other)) => Err(self.wrong_type(at, field, "a text in quotes", &other)),
        }
    }

    pub(super) fn word<T: Word>(&mut self, field: &str) -> Result<Option<T>, ManifestError> {
        let Some((at, value)) = self.text(field)? else {
            return Ok(None);
        };
        T::from_word(&value)
            .map(Some)
            .ok_or_else(|| ManifestError::UnknownWord {
                at,
                field: self.path(field),
                suggestion: nearest(&value, T::WORDS),
                value: value.into_owned(),
                known: T::WORDS,
            })
    }

    pub(super) fn required_digest(&mut self) -> Result<Digest, ManifestError> {
        self.digest("digest")
    }

    pub(super) fn digest(&mut self, field: &str) -> Result<Digest, ManifestError> {
        let Some((at, value)) = self.text(field)? else {
            return Err(self.missing(field, EXAMPLE_DIGEST));
        };
        value.parse().map_err(|problem| ManifestError::Digest {
            at,
            field: self.path(field),
            problem,
        })
    }

    pub(super) fn label(&mut self, field: &str) -> Result<Option<Label>, ManifestError> {
        let Some((at, value)) = self.text(field)? else {
            return Ok(None);
        };
        self.checked_label(at, field, &value).map(Some)
    }

    /// A list of labels; an absent one is empty.
    pub(super) fn labels(&mut self, field: &str) -> Result<Vec<Label>, ManifestError> {
        let (at, values) = match self.take(field) {
            None => return Ok(Vec::new()),
            Some((at, DeValue::Array(values))) => (at, values),
            Some((at, other)) => return Err(self.wrong_type(at, field, "a list", &other)),
        };
        let label = |value: Spanned<DeValue<'a>>| match value.into_inner() {
            DeValue::String(text) => self.checked_label(at, field, &text),
            other => Err(self.wrong_type(at, field, "a list of texts in quotes", &other)),
        };
        values.into_iter().map(label).collect()
    }

    fn checked_label(&self, at: Position, field: &str, text: &str) -> Result<Label, ManifestError> {
        Label::new(text).map_err(|problem| ManifestError::Label {
            at,
            field: self.path(field),
            problem,
        })
    }

    pub(super) const fn at(&self) -> Position {
        self.at
    }

    pub(super) fn number(
        &mut self,
        field: &str,
        unit: Unit,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ManifestError> {
        let Some((at, value)) = self.take(field) else {
            return Ok(None);
        };
        let (number, written) = match &value {
            DeValue::Integer(written) => {
                let prefix = match written.radix() {
                    2 => "0b",
                    8 => "0o",
                    16 => "0x",
                    _ => "",
                };
                (integer(&value), format!("{prefix}{}", written.as_str()))
            }
            DeValue::String(text) if unit == Unit::Bytes => {
                let wrong = |hint| ManifestError::WrongUnit {
                    at,
                    field: self.path(field),
                    value: text.to_string(),
                    hint,
                };
                (Some(size(text).map_err(wrong)?), text.to_string())
            }
            other => {
                let expected = match unit {
                    Unit::Bytes => "a number of bytes or a size such as \"64 MiB\"",
                    Unit::Milliseconds => "a whole number of milliseconds",
                    _ => "a whole number",
                };
                return Err(self.wrong_type(at, field, expected, other));
            }
        };
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(ManifestError::OutOfRange {
                at,
                field: self.path(field),
                value: written,
                min,
                max,
                unit,
            }),
        }
    }

    pub(super) fn missing(&self, field: &str, example: &'static str) -> ManifestError {
        ManifestError::MissingField {
            at: self.at,
            field: self.path(field),
            example,
        }
    }

    pub(super) fn wrong_type(
        &self,
        at: Position,
        field: &str,
        expected: &'static str,
        found: &DeValue<'_>,
    ) -> ManifestError {
        ManifestError::WrongType {
            at,
            field: self.path(field),
            expected,
            found: kind(found),
        }
    }
}

/// The value of an integer, which TOML keeps as text until somebody asks.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Reads `64 MiB`: a whole number, an optional space, a binary unit.
fn size(text: &str) -> Result<i128, &'static str> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        "KB" | "kB" | "MB" | "GB" | "TB" | "K" | "M" | "G" | "T" => {
            return Err(
                "; decimal units are not taken, since half of their readers take them for binary ones",
            );
        }
        _ => return Err(""),
    };
    // 2^63 is past every limit, and 63 + 40 bits fit.
    let number: u64 = number.parse().map_err(|_| "")?;
    Ok(i128::from(number) << shift)
}

/// What a value is, in people's words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Before anything is read.
pub(super) const fn check_length(bytes: usize) -> Result<(), ManifestError> {
    if bytes > MANIFEST_TEXT_BYTES_MAX {
        return Err(ManifestError::TooLong {
            bytes,
            max: MANIFEST_TEXT_BYTES_MAX,
        });
    }
    Ok(())
}

/// Line and column of a span's start.
pub(super) fn position(text: &str, span: &Range<usize>) -> Position {
    let mut end = span.start.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |index| index + 1);
    Position {
        line: 1 + before.matches('\n').count(),
        column: 1 + before[line_start..].chars().count(),
    }
}
