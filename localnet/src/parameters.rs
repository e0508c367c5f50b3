//! Parameters of a request, from a query string or from JSON.
//!
//! In: names and values, where numbers may come as text, since some do not fit JSON's. Out: typed
//! values, or toncenter's refusal, 422, with the parameter's name.

use serde_json::{Map, Value};
use tussah_settlement::{Address, Cell};

use crate::address::{self, ParsedAddress};
use crate::cells;
use crate::methods::ApiError;

/// What a method is asked with.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    values: Map<String, Value>,
}

impl From<Map<String, Value>> for Parameters {
    fn from(values: Map<String, Value>) -> Self {
        Self { values }
    }
}

impl Parameters {
    /// From a query string's pairs; the last of a name counts.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let pairs = pairs.into_iter();
        let values = pairs.map(|(name, value)| (name, Value::String(value)));
        Self {
            values: values.collect(),
        }
    }

    /// That nothing was sent that the method does not know.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let unknown = self.values.keys().find(|name| !known.contains(&&***name));
        match unknown {
            None => Ok(()),
            Some(name) => Err(ApiError::malformed(format!("unknown parameter `{name}`"))),
        }
    }

    /// The value, if there is one that is not null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&Value, ApiError> {
        self.get(name)
            .ok_or_else(|| ApiError::malformed(format!("parameter `{name}` is missing")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, ApiError> {
        let value = self.required(name)?.as_str();
        value.ok_or_else(|| ApiError::malformed(format!("failed to parse {name}: not a text")))
    }

    pub(crate) fn parsed_address(&self, name: &str) -> Result<ParsedAddress, ApiError> {
        let text = self.text(name)?;
        address::parse(text).ok_or_else(|| ApiError::malformed(format!("failed to parse {name}")))
    }

    pub(crate) fn address(&self, name: &str) -> Result<Address, ApiError> {
        Ok(self.parsed_address(name)?.address)
    }

    /// A whole number, in JSON or as text.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let wrong = || ApiError::malformed(format!("failed to parse {name}"));
        number.map(Some).ok_or_else(wrong)
    }

    pub(crate) fn required_integer(&self, name: &str) -> Result<i64, ApiError> {
        self.required(name)?;
        Ok(self.integer(name)?.unwrap_or_default())
    }

    /// A whole number that is not below zero.
    pub(crate) fn unsigned(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let negative = |_| ApiError::malformed(format!("{name} should be non-negative"));
        let number = self.integer(name)?;
        number
            .map(|n| u64::try_from(n).map_err(negative))
            .transpose()
    }

    /// A truth, as toncenter takes it: JSON's, `true`, `false`, 1 or 0.
    pub(crate) fn truth(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value {
            Value::Bool(truth) => Ok(Some(*truth)),
            Value::String(text) if text == "true" || text == "1" => Ok(Some(true)),
            Value::String(text) if text == "false" || text == "0" => Ok(Some(false)),
            Value::Number(number) if number.as_u64() == Some(1) => Ok(Some(true)),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(Some(false)),
            _ => Err(ApiError::malformed(format!("failed to parse {name}"))),
        }
    }

    /// A hash in base64 or hex; an empty text counts as none.
    pub(crate) fn hash(&self, name: &str) -> Result<Option<[u8; 32]>, ApiError> {
        if self.get(name).is_none() || self.text(name)?.is_empty() {
            return Ok(None);
        }
        let hash = cells::from_hash(self.text(name)?);
        let wrong = || ApiError::malformed(format!("failed to parse {name}"));
        hash.map(Some).ok_or_else(wrong)
    }

    /// A bag of cells in base64.
    pub(crate) fn boc(&self, name: &str) -> Result<Cell, ApiError> {
        let wrong = |error| ApiError::malformed(format!("failed to parse {name}: {error}"));
        cells::from_boc(self.text(name)?).map_err(wrong)
    }

    /// The same; nothing where the text is empty or missing.
    pub(crate) fn optional_boc(&self, name: &str) -> Result<Option<Cell>, ApiError> {
        if self.get(name).is_none() || self.text(name)?.is_empty() {
            return Ok(None);
        }
        self.boc(name).map(Some)
    }
}
