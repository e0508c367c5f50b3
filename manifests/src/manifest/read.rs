//! TOML → manifest. Walks the parsed tree by hand, table by table, so that every error can name
//! its field and place: a derived reader would know one of them at best.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ManifestError, Position};
use super::{
    DeterminismRequest, DeviceRequest, JobDescription, MANIFEST_TEXT_BYTES_MAX, MODELS_MAX,
    Manifest, ModelFormat, ModelRef, ModuleRef,
};
use crate::digest::Digest;
use crate::encoding::Version;
use crate::limits::{Limits, Unit};
use crate::names::{JobName, ModelName};
use crate::nanograms::Nanograms;

const EXAMPLE_DIGEST: &str = "digest = \"blake3:<64 hex digits>\"";

/// The text of bytes, if they are UTF-8.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, ManifestError> {
    check_length(bytes.len())?;
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, rest) = bytes.split_at(error.valid_up_to());
        ManifestError::NotUtf8 {
            line: 1 + good.iter().filter(|byte| **byte == b'\n').count(),
            byte: rest.first().copied().unwrap_or_default(),
        }
    })
}

pub(super) fn job_description(text: &str) -> Result<JobDescription, ManifestError> {
    let mut root = Table::root(text)?;
    if let Some((at, _)) = root.take("module") {
        return Err(ManifestError::ModuleInSource { at });
    }
    read_job(&mut root)
}

pub(super) fn manifest(text: &str) -> Result<Manifest, ManifestError> {
    let mut root = Table::root(text)?;
    let module = root.table("module", MODULE_FIELDS)?;
    let job = read_job(&mut root)?;
    let Some(mut module) = module else {
        return Err(ManifestError::ModuleMissing);
    };
    let digest = module.required_digest()?;
    let (min, max) = (ModuleRef::SIZE_BYTES_MIN, ModuleRef::SIZE_BYTES_MAX);
    let size_bytes = module
        .number("size_bytes", Unit::Bytes, min, max)?
        .ok_or_else(|| module.missing("size_bytes", "size_bytes = <the module's length>"))?;
    Ok(job.with_module(ModuleRef { digest, size_bytes }))
}

const ROOT_FIELDS: &[&str] = &[
    "version",
    "name",
    "price_nanograms_max",
    "device",
    "determinism",
    "module",
    "models",
    "limits",
];
const MODULE_FIELDS: &[&str] = &["digest", "size_bytes"];
const MODEL_FIELDS: &[&str] = &["digest", "format"];

fn read_job(root: &mut Table<'_>) -> Result<JobDescription, ManifestError> {
    let Some((at, version)) = root.take("version") else {
        return Err(root.missing("version", "version = 1"));
    };
    match integer(&version) {
        Some(1) => {}
        Some(other) => {
            return Err(ManifestError::Version {
                at,
                found: other.to_string(),
            });
        }
        None => return Err(root.wrong_type(at, "version", "the number 1", &version)),
    }
    let Some((at, name)) = root.text("name")? else {
        return Err(root.missing("name", "name = \"my-job\""));
    };
    let name = JobName::new(&name).map_err(|problem| ManifestError::Name {
        at,
        field: root.path("name"),
        problem,
    })?;

    let mut job = JobDescription::new(name);
    job.version = Version::V1;
    if let Some(price) = root.number(
        "price_nanograms_max",
        Unit::Nanograms,
        0,
        Nanograms::MAX.get(),
    )? {
        job.price_nanograms_max = Nanograms::new(price).unwrap_or(Nanograms::MAX);
    }
    if let Some(device) = root.word("device", DeviceRequest::WORDS, DeviceRequest::from_name)? {
        job.device = device;
    }
    if let Some(class) = root.word(
        "determinism",
        DeterminismRequest::WORDS,
        DeterminismRequest::from_name,
    )? {
        job.determinism = class;
    }
    job.models = read_models(root)?;
    let names: Vec<&'static str> = Limits::FIELDS.iter().map(|field| field.name).collect();
    if let Some(mut limits) = root.table("limits", &names)? {
        for field in &Limits::FIELDS {
            if let Some(value) = limits.number(field.name, field.unit, field.min, field.max)? {
                *(field.get_mut)(&mut job.limits) = value;
            }
        }
    }
    Ok(job)
}

fn read_models(root: &mut Table<'_>) -> Result<BTreeMap<ModelName, ModelRef>, ManifestError> {
    let mut models = BTreeMap::new();
    let Some((at, value)) = root.take("models") else {
        return Ok(models);
    };
    let entries = match value {
        DeValue::Table(entries) => entries,
        other => {
            return Err(root.wrong_type(at, "models", "a table [models.<name>] for each", &other));
        }
    };
    if entries.len() > MODELS_MAX {
        let count = entries.len();
        return Err(ManifestError::TooManyModels {
            at,
            count,
            max: MODELS_MAX,
        });
    }
    for (key, value) in entries {
        let at = position(root.text, &key.span());
        let key = key.into_inner();
        let field = format!("models.{key}");
        let name = ModelName::new(&key).map_err(|problem| ManifestError::Name {
            at,
            field: field.clone(),
            problem,
        })?;
        let value = value.into_inner();
        let DeValue::Table(entries) = value else {
            let expected = "a table with digest and format";
            return Err(ManifestError::WrongType {
                at,
                field,
                expected,
                found: kind(&value),
            });
        };
        let mut model = Table::new(root.text, field, at, entries, MODEL_FIELDS)?;
        let digest = model.required_digest()?;
        let format = model
            .word("format", ModelFormat::WORDS, ModelFormat::from_name)?
            .ok_or_else(|| model.missing("format", "format = \"gguf\""))?;
        models.insert(name, ModelRef { digest, format });
    }
    Ok(models)
}

/// A table whose field names are all known, and how far it has been read.
struct Table<'a> {
    text: &'a str,
    /// Path of the table; empty for the root.
    path: String,
    at: Position,
    entries: DeTable<'a>,
}

impl<'a> Table<'a> {
    fn root(text: &'a str) -> Result<Self, ManifestError> {
        check_length(text.len())?;
        let table = DeTable::parse(text).map_err(|error| ManifestError::Syntax {
            at: position(text, &error.span().unwrap_or(0..0)),
            message: error.message().to_owned(),
        })?;
        let at = Position { line: 1, column: 1 };
        Self::new(text, String::new(), at, table.into_inner(), ROOT_FIELDS)
    }

    fn new(
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

    fn path(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    fn take(&mut self, field: &str) -> Option<(Position, DeValue<'a>)> {
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

    fn table(
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

    fn text(&mut self, field: &str) -> Result<Option<(Position, Cow<'a, str>)>, ManifestError> {
        match self.take(field) {
            None => Ok(None),
            Some((at, DeValue::String(text))) => Ok(Some((at, text))),
            Some((at, other)) => Err(self.wrong_type(at, field, "a text in quotes", &other)),
        }
    }

    fn word<T>(
        &mut self,
        field: &str,
        known: &'static [&'static str],
        from_name: fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ManifestError> {
        let Some((at, value)) = self.text(field)? else {
            return Ok(None);
        };
        from_name(&value)
            .map(Some)
            .ok_or_else(|| ManifestError::UnknownWord {
                at,
                field: self.path(field),
                suggestion: nearest(&value, known),
                value: value.into_owned(),
                known,
            })
    }

    fn required_digest(&mut self) -> Result<Digest, ManifestError> {
        let Some((at, value)) = self.text("digest")? else {
            return Err(self.missing("digest", EXAMPLE_DIGEST));
        };
        value.parse().map_err(|problem| ManifestError::Digest {
            at,
            field: self.path("digest"),
            problem,
        })
    }

    fn number(
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

    fn missing(&self, field: &str, example: &'static str) -> ManifestError {
        ManifestError::MissingField {
            at: self.at,
            field: self.path(field),
            example,
        }
    }

    fn wrong_type(
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
fn integer(value: &DeValue<'_>) -> Option<i128> {
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

fn kind(value: &DeValue<'_>) -> &'static str {
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

const fn check_length(bytes: usize) -> Result<(), ManifestError> {
    if bytes > MANIFEST_TEXT_BYTES_MAX {
        return Err(ManifestError::TooLong {
            bytes,
            max: MANIFEST_TEXT_BYTES_MAX,
        });
    }
    Ok(())
}

fn position(text: &str, span: &Range<usize>) -> Position {
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

/// The known word that somebody who wrote `word` meant, if one is near enough.
fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let lower = word.to_lowercase().replace('-', "_");
    // A long word is nobody's typo, and the distance takes the product of the lengths.
    if lower.len() > 64 {
        return None;
    }
    let ends = |name: &str| {
        let parts = (name.split('_').next(), name.rsplit('_').next());
        (
            parts.0.unwrap_or_default().to_owned(),
            parts.1.unwrap_or_default().to_owned(),
        )
    };
    known
        .iter()
        .map(|name| {
            // `memory_mb_max` means `memory_bytes_max`, the same thing in another unit; `fuel`
            // means `fuel_max`.
            let same_ends = name.contains('_') && ends(name) == ends(&lower);
            let start = name
                .strip_prefix(lower.as_str())
                .is_some_and(|rest| rest.starts_with('_'));
            let distance = if same_ends || start {
                1
            } else {
                distance(&lower, name)
            };
            (distance, *name)
        })
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// How many characters to insert, remove or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
