//! JSON schemas as automata that say which bytes an answer may go on with.
//!
//! In: a JSON Schema. Out: a [`Matcher`] that follows an answer byte by byte, so that every
//! answer that it lets pass parses and satisfies the schema; or a [`SchemaError`], before
//! anything is generated. It knows no model: [`Session::json`](crate::Session::json) puts
//! the two together.
//!
//! # What a schema may use
//!
//! | keywords | how they are generated |
//! |---|---|
//! | `type`, also a list; `enum`, `const`; `true`, `false` | |
//! | `properties`, `required`, `additionalProperties`, `minProperties`, `maxProperties`, `unevaluatedProperties: false` | keys come in the order of the schema; without `additionalProperties` no other keys come, unless the schema names none at all; other keys are 1 to 64 characters of ASCII |
//! | `items`, `prefixItems`, `minItems`, `maxItems` | behind `prefixItems` nothing comes without `items` |
//! | `minLength`, `maxLength`, `pattern`, `format` | strings end after 1,024 characters, with a pattern after 256, where the schema says nothing longer |
//! | `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf` of whole numbers | no exponents; integers to 2^53 − 1, others below 10^9 with 6 digits behind the point, where the schema says nothing else |
//! | `anyOf`, `allOf`, `$ref` within the schema, also recursive; `oneOf` where no two alternatives can hold at once | 64 levels of arrays and objects |
//! | `title`, `description`, `default`, `examples`, `$comment` and other notes, `x-…` | ignored |
//!
//! Formats: `date`, `date-time`, `time`, `email`, `hostname`, `ipv4`, `uri`, `uuid`.
//! Patterns: the regular part of ECMA-262 without look-around, back references, `\b` and `\p`.
//! Everything else (`not`, `if`, `patternProperties`, `uniqueItems`, `contains`, …) is
//! refused by name and JSON pointer, as is a keyword that JSON Schema does not have.
//!
//! An answer is written without line breaks, with at most one space behind `:` and `,`.

mod automaton;
mod branches;
mod error;
mod formats;
mod grammar;
mod keys;
mod keywords;
mod literals;
mod matcher;
mod number;
mod plan;
mod regex;
mod text;
mod value;
mod write;

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::Error as _};

pub use error::SchemaError;
pub use matcher::Matcher;

/// The longest schema, in bytes.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// A JSON schema that an answer can be decoded with.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema {
    compiled: Arc<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    text: String,
    grammar: grammar::Grammar,
    plans: plan::Plans,
}

impl Schema {
    /// Compiles a schema from its text; the order of its `properties` is the order in which
    /// they are generated.
    ///
    /// # Limits
    /// 1 MiB of text, 20,000 places for values, 64 levels of arrays and objects in an
    /// answer, 64 KiB for the shortest answer. Time and memory are bounded.
    ///
    /// # Errors
    /// [`SchemaError`] if it is no schema, if it uses what is not supported, if it is too
    /// large, or if no value satisfies it.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, SchemaError> {
        let text = text.as_ref();
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError::TooComplex {
                what: format!("more than {SCHEMA_BYTES_MAX} bytes"),
            });
        }
        let document: value::Value =
            serde_json::from_str(text).map_err(|error| SchemaError::NotJson {
                problem: error.to_string(),
            })?;
        Self::compile(&document)
    }

    fn compile(document: &value::Value) -> Result<Self, SchemaError> {
        let grammar = grammar::build(&keywords::read(document)?)?;
        let plans = plan::plan(&grammar)?;
        let mut text = Vec::new();
        document.write(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Self {
            compiled: Arc::new(Compiled {
                text,
                grammar,
                plans,
            }),
        })
    }

    /// Compiles a schema from a value, such as that of `serde_json::json!`. Its keys are
    /// sorted by their names, and so are those of the answers.
    ///
    /// # Errors
    /// Those of [`Schema::parse`].
    pub fn from_value(schema: &serde_json::Value) -> Result<Self, SchemaError> {
        Self::parse(schema.to_string())
    }

    /// The schema itself, in one line and in the order it was written: to tell a model of it.
    pub fn text(&self) -> &str {
        &self.compiled.text
    }

    /// Follows an answer from its beginning.
    pub fn matcher(&self) -> Matcher {
        Matcher::new(Arc::clone(&self.compiled))
    }
}

/// A schema as a field of a job's input, with the order of its `properties`. What cannot be
/// decoded with is refused with the field's path, as all of the input is.
///
/// ```
/// use serde::Deserialize;
/// use tussah_sdk::{from_json, json_schema::Schema};
///
/// #[derive(Debug, Deserialize)]
/// struct Question {
///     text: String,
///     answer: Schema,
/// }
///
/// let question: Question = from_json(r#"{"text": "Is it blue?", "answer": {"type": "boolean"}}"#)?;
/// assert_eq!(question.answer.matcher().completion(), b"true");
/// let error = from_json::<Question>(r#"{"text": "", "answer": {"not": {}}}"#).unwrap_err();
/// assert!(error.message().starts_with("`answer`: the schema cannot be used at"), "{error}");
/// # Ok::<(), tussah_sdk::Error>(())
/// ```
impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = value::Value::deserialize(deserializer)?;
        Self::compile(&document).map_err(D::Error::custom)
    }
}
