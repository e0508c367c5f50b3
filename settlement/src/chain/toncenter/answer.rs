//! Answers of toncenter, field by field: each is what it should be, or the error names it.
//!
//! In: JSON that a server sent. Out: numbers, hashes, cells. Numbers come as JSON numbers or as
//! decimal strings, by version of the server; both are read, and nothing is rounded.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tussah_manifest::Nanograms;
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;

use super::http::ToncenterError;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    method: &'static str,
    result: Value,
}

impl Reply {
    pub(super) fn new(method: &'static str, result: Value) -> Self {
        Self { method, result }
    }

    pub(super) fn result(&self) -> Answer<'_> {
        Answer {
            method: self.method,
            path: "result".to_owned(),
            value: &self.result,
        }
    }
}

/// A value within an answer, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Answer<'a> {
    method: &'static str,
    path: String,
    value: &'a Value,
}

impl<'a> Answer<'a> {
    /// That the value is not what it should be.
    pub(super) fn wrong(&self, expected: &'static str) -> ToncenterError {
        ToncenterError::Answer {
            method: self.method,
            field: self.path.clone(),
            expected,
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<Answer<'a>, ToncenterError> {
        let field = Answer {
            method: self.method,
            path: format!("{}.{name}", self.path),
            value: self.value.get(name).unwrap_or(&Value::Null),
        };
        if self.value.get(name).is_none() {
            return Err(field.wrong("there"));
        }
        Ok(field)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some()
    }

    pub(super) fn items(&self, items_max: usize) -> Result<Vec<Answer<'a>>, ToncenterError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list"))?;
        if items.len() > items_max {
            return Err(self.wrong("a list of no more than was asked for"));
        }
        let at = |(index, value)| Answer {
            method: self.method,
            path: format!("{}[{index}]", self.path),
            value,
        };
        Ok(items.iter().enumerate().map(at).collect())
    }

    pub(super) fn str(&self) -> Result<&'a str, ToncenterError> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    pub(super) fn u64(&self) -> Result<u64, ToncenterError> {
        let number = match self.value {
            Value::Number(number) => number.as_u64(),
            Value::String(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok()
            }
            _ => None,
        };
        number.ok_or_else(|| self.wrong("a whole number that is not negative"))
    }

    pub(super) fn i64(&self) -> Result<i64, ToncenterError> {
        let number = self.value.as_i64();
        number.ok_or_else(|| self.wrong("a whole number"))
    }

    pub(super) fn nanograms(&self) -> Result<Nanograms, ToncenterError> {
        Nanograms::new(self.u64()?).ok_or_else(|| self.wrong("an amount that there is"))
    }

    pub(super) fn bytes32(&self) -> Result<[u8; 32], ToncenterError> {
        let bytes = BASE64_STANDARD.decode(self.str()?).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| self.wrong("32 bytes in base64"))
    }

    pub(super) fn cell(&self) -> Result<Cell, ToncenterError> {
        let cell = Boc::decode_base64(self.str()?);
        cell.map_err(|_| self.wrong("a bag of cells in base64"))
    }

    /// A cell, or nothing where the string is empty.
    pub(super) fn maybe_cell(&self) -> Result<Option<Cell>, ToncenterError> {
        match self.str()? {
            "" => Ok(None),
            _ => self.cell().map(Some),
        }
    }
}
