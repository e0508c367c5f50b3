//! Values of a TVM stack, as get-methods take and answer them.
//!
//! In: what a chain answered. Out: numbers, hashes and addresses, or that the shape is another.

use num_bigint::{BigInt, Sign};
use tussah_manifest::Nanograms;
use tycho_types::cell::{Cell, Load};
use tycho_types::models::StdAddr;

use crate::chain::ChainError;

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackValue {
    /// Nothing.
    Null,
    /// 257 bits, signed.
    Int(BigInt),
    /// A cell.
    Cell(Cell),
    /// What is left of a cell that is being read, as a cell of its own.
    Slice(Cell),
    /// Several values; at most 255.
    Tuple(Vec<StackValue>),
}

impl StackValue {
    /// 32 bytes as the number that they are, the most significant first.
    pub fn from_bytes32(bytes: &[u8; 32]) -> Self {
        Self::Int(BigInt::from_bytes_be(Sign::Plus, bytes))
    }
}

impl From<u64> for StackValue {
    fn from(value: u64) -> Self {
        Self::Int(value.into())
    }
}

/// Reads an answer from its first value to its last.
#[derive(Debug)]
pub struct StackReader {
    method: &'static str,
    values: std::vec::IntoIter<StackValue>,
}

impl StackReader {
    /// Reads what `method` answered.
    pub fn new(method: &'static str, values: Vec<StackValue>) -> Self {
        Self {
            method,
            values: values.into_iter(),
        }
    }

    /// That the answer is not in the method's shape.
    pub fn wrong(&self) -> ChainError {
        ChainError::Answer {
            method: self.method.to_owned(),
        }
    }

    /// The next value, a number.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is none.
    pub fn int(&mut self) -> Result<BigInt, ChainError> {
        match self.values.next() {
            Some(StackValue::Int(value)) => Ok(value),
            _ => Err(self.wrong()),
        }
    }

    /// The next value, a number of 64 bits without sign.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is none.
    pub fn u64(&mut self) -> Result<u64, ChainError> {
        let value = self.int()?;
        u64::try_from(value).map_err(|_| self.wrong())
    }

    /// The next value, true or false: -1 or 0.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is neither.
    pub fn bool(&mut self) -> Result<bool, ChainError> {
        match i64::try_from(self.int()?) {
            Ok(-1) => Ok(true),
            Ok(0) => Ok(false),
            _ => Err(self.wrong()),
        }
    }

    /// The next value, a number of 32 bits without sign.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is none.
    pub fn u32(&mut self) -> Result<u32, ChainError> {
        let value = self.u64()?;
        u32::try_from(value).map_err(|_| self.wrong())
    }

    /// The next value, an amount.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is none.
    pub fn nanograms(&mut self) -> Result<Nanograms, ChainError> {
        let value = self.u64()?;
        Nanograms::new(value).ok_or_else(|| self.wrong())
    }

    /// The next value, 32 bytes.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is none.
    pub fn bytes32(&mut self) -> Result<[u8; 32], ChainError> {
        let (sign, digits) = self.int()?.to_bytes_be();
        if sign == Sign::Minus || digits.len() > 32 {
            return Err(self.wrong());
        }
        let mut bytes = [0; 32];
        bytes[32 - digits.len()..].copy_from_slice(&digits);
        Ok(bytes)
    }

    /// The next value, a slice that holds an address; toncenter's API v2 has slices as cells.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if it is none.
    pub fn address(&mut self) -> Result<StdAddr, ChainError> {
        match self.values.next() {
            Some(StackValue::Slice(cell) | StackValue::Cell(cell)) => {
                let address = cell.as_slice().and_then(|mut s| StdAddr::load_from(&mut s));
                address.map_err(|_| self.wrong())
            }
            _ => Err(self.wrong()),
        }
    }

    /// That there is nothing more.
    ///
    /// # Errors
    /// [`ChainError::Answer`] if there is.
    pub fn end(mut self) -> Result<(), ChainError> {
        match self.values.next() {
            None => Ok(()),
            Some(_) => Err(self.wrong()),
        }
    }
}
