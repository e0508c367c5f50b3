//! `ManifestError`: what is wrong with a manifest, where, and what to write instead.

use std::fmt;

use crate::digest::DigestError;
use crate::limits::Unit;
use crate::names::{LabelError, NameError};

/// A place in a text; both numbers start at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a text is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not UTF-8.
    #[error("line {line}: byte {byte:#04x} is not UTF-8; save the file as UTF-8 text")]
    NotUtf8 {
        /// The line of the first wrong byte.
        line: usize,
        /// That byte.
        byte: u8,
    },
    /// More text than any manifest needs.
    #[error("the manifest has {bytes} bytes, of at most {max}; this is another kind of file")]
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many there can be.
        max: usize,
    },
    /// Not TOML.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Position,
        /// What the TOML reader says.
        message: String,
    },
    /// A field that no manifest has.
    #[error("{at}: unknown field `{field}`{}; known here: {}", did_you_mean(*.suggestion), .known.join(", "))]
    UnknownField {
        /// Where the field's name stands.
        at: Position,
        /// Its whole path.
        field: String,
        /// The known field that is nearest to it.
        suggestion: Option<&'static str>,
        /// The fields of this table.
        known: Vec<&'static str>,
    },
    /// A field that has to be there.
    #[error("{at}: `{field}` is missing; add `{example}`")]
    MissingField {
        /// Where its table starts.
        at: Position,
        /// Its whole path.
        field: String,
        /// What it could look like.
        example: &'static str,
    },
    /// A value of another kind.
    #[error("{at}: `{field}` is {found}, where {expected} belongs")]
    WrongType {
        /// Where the value stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A size in units that are not known.
    #[error(
        "{at}: `{field}` = {value:?} is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as \"64 MiB\"{hint}"
    )]
    WrongUnit {
        /// Where the value stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// What stands there.
        value: String,
        /// About the unit that was written.
        hint: &'static str,
    },
    /// A number outside the field's range.
    #[error("{at}: `{field}` is {value}; it can be {}", unit.show_range(*.min, *.max))]
    OutOfRange {
        /// Where the value stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// The value as it was written.
        value: String,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
        /// What it counts.
        unit: Unit,
    },
    /// A name with a wrong character or length.
    #[error("{at}: `{field}` is no good name: {problem}")]
    Name {
        /// Where the name stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// What is wrong.
        problem: NameError,
    },
    /// A digest that is none.
    #[error("{at}: `{field}` is no digest: {problem}")]
    Digest {
        /// Where the value stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// What is wrong.
        problem: DigestError,
    },
    /// A line of text with a wrong character or length.
    #[error("{at}: `{field}` is no good label: {problem}")]
    Label {
        /// Where the value stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// What is wrong.
        problem: LabelError,
    },
    /// A record of a build that no build makes.
    #[error("{at}: `build`: {problem}")]
    Build {
        /// Where the table starts.
        at: Position,
        /// The field and what is wrong.
        problem: String,
    },
    /// A word that is none of the field's.
    #[error("{at}: `{field}` = {value:?} is unknown{}; it can be {}", did_you_mean(*.suggestion), words(.known))]
    UnknownWord {
        /// Where the value stands.
        at: Position,
        /// The field's whole path.
        field: String,
        /// What stands there.
        value: String,
        /// The known word that is nearest to it.
        suggestion: Option<&'static str>,
        /// The words it can be.
        known: &'static [&'static str],
    },
    /// A manifest of another time.
    #[error("{at}: manifest version {found} is not known to this build, which reads version 1")]
    Version {
        /// Where the number stands.
        at: Position,
        /// The number.
        found: String,
    },
    /// More models than a job can have.
    #[error("{at}: {count} models, of at most {max}")]
    TooManyModels {
        /// Where the table starts.
        at: Position,
        /// How many there are.
        count: usize,
        /// How many there can be.
        max: usize,
    },
    /// A model whose results are not the same everywhere, in a job whose receipts have to be exact.
    #[error(
        "{at}: `{field}` is of the format onnx, whose results differ between machines, and the job asks for exact receipts; write `determinism = \"tolerant\"`"
    )]
    NotExact {
        /// Where the model's table starts.
        at: Position,
        /// The field's whole path.
        field: String,
    },
    /// A manifest without a module.
    #[error(
        "`module` is missing: this is the description of a job that is not built yet; run `tussah build`, which writes its manifest"
    )]
    ModuleMissing,
    /// A `[module]` or `[build]` table in a job's source folder.
    #[error(
        "{at}: `{field}` does not belong into tussah.toml; `tussah build` writes it into the manifest it makes"
    )]
    ModuleInSource {
        /// Where the table starts.
        at: Position,
        /// Which table.
        field: &'static str,
    },
}

impl ManifestError {
    /// The place of the error, where it has one.
    pub const fn position(&self) -> Option<Position> {
        match self {
            Self::NotUtf8 { .. } | Self::TooLong { .. } | Self::ModuleMissing => None,
            Self::Syntax { at, .. }
            | Self::UnknownField { at, .. }
            | Self::MissingField { at, .. }
            | Self::WrongType { at, .. }
            | Self::WrongUnit { at, .. }
            | Self::OutOfRange { at, .. }
            | Self::Name { at, .. }
            | Self::Digest { at, .. }
            | Self::UnknownWord { at, .. }
            | Self::Version { at, .. }
            | Self::TooManyModels { at, .. }
            | Self::NotExact { at, .. }
            | Self::Label { at, .. }
            | Self::Build { at, .. }
            | Self::ModuleInSource { at, .. } => Some(*at),
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

fn words(known: &[&str]) -> String {
    known
        .iter()
        .map(|word| format!("\"{word}\""))
        .collect::<Vec<_>>()
        .join(" or ")
}
