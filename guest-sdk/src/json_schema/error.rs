//! Why a schema cannot be decoded with.

use std::fmt;

/// Why a JSON schema was refused; nothing was generated.
///
/// `?` makes an [`Error`](crate::Error) of [`ErrorCode::Schema`](crate::ErrorCode::Schema)
/// of it. Pointers are JSON pointers into the schema, written as `#/properties/age`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaError {
    /// The text is not JSON, or has a key twice.
    NotJson {
        /// What is wrong, with line and column.
        problem: String,
    },
    /// A keyword has a value that JSON Schema does not allow there.
    Invalid {
        /// Where.
        pointer: String,
        /// What is wrong.
        problem: String,
    },
    /// A keyword, or a use of one, that this decoder does not have.
    Unsupported {
        /// Where.
        pointer: String,
        /// What it is, and what to write instead.
        what: String,
    },
    /// The schema is too large to be compiled here.
    TooComplex {
        /// What there is too much of, and how much there may be.
        what: String,
    },
    /// No value satisfies the schema.
    Unsatisfiable {
        /// Where the contradiction is.
        pointer: String,
        /// Why nothing satisfies it.
        reason: String,
    },
}

impl fmt::Display for SchemaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { problem } => write!(formatter, "the schema is not JSON: {problem}"),
            Self::Invalid { pointer, problem } => {
                write!(formatter, "the schema is wrong at `{pointer}`: {problem}")
            }
            Self::Unsupported { pointer, what } => {
                write!(
                    formatter,
                    "the schema cannot be used at `{pointer}`: {what}"
                )
            }
            Self::TooComplex { what } => write!(formatter, "the schema is too large: {what}"),
            Self::Unsatisfiable { pointer, reason } => {
                write!(
                    formatter,
                    "no value satisfies the schema at `{pointer}`: {reason}"
                )
            }
        }
    }
}

impl std::error::Error for SchemaError {}
