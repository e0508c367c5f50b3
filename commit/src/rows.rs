//! Values to columns and back: SQLite's integers are signed, and a blob has any length.
//!
//! In: amounts, counts, hashes, keys, addresses. Out: what a column holds; or that a column holds
//! what this crate never writes, which is damage and no panic.

use rusqlite::Row;
use rusqlite::types::FromSql;
use tussah_manifest::{Digest, Nanograms, PublicKey, Signature, TreeHash};
use tussah_settlement::Address;

use crate::store::StoreError;

/// A count as a column. Amounts end at 5 * 10^18 and receipts long before 2^63.
pub(crate) fn int(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Damaged("a number past 2^63"))
}

/// An amount as a column.
pub(crate) fn amount(value: Nanograms) -> Result<i64, StoreError> {
    int(value.get())
}

/// Reads columns by name; what does not fit is damage.
pub(crate) trait Columns {
    fn value<T: FromSql>(&self, column: &'static str) -> Result<T, StoreError>;

    fn count(&self, column: &'static str) -> Result<u64, StoreError> {
        let value: i64 = self.value(column)?;
        u64::try_from(value).map_err(|_| StoreError::Damaged(column))
    }

    fn second(&self, column: &'static str) -> Result<u32, StoreError> {
        u32::try_from(self.count(column)?).map_err(|_| StoreError::Damaged(column))
    }

    fn nanograms(&self, column: &'static str) -> Result<Nanograms, StoreError> {
        Nanograms::new(self.count(column)?).ok_or(StoreError::Damaged(column))
    }

    fn array<const N: usize>(&self, column: &'static str) -> Result<[u8; N], StoreError> {
        let bytes: Vec<u8> = self.value(column)?;
        bytes.try_into().map_err(|_| StoreError::Damaged(column))
    }

    fn digest(&self, column: &'static str) -> Result<Digest, StoreError> {
        Ok(Digest::from_bytes(self.array(column)?))
    }

    fn hash(&self, column: &'static str) -> Result<TreeHash, StoreError> {
        Ok(TreeHash::from_bytes(self.array(column)?))
    }

    fn signature(&self, column: &'static str) -> Result<Signature, StoreError> {
        Ok(Signature::from_bytes(self.array(column)?))
    }

    fn key(&self, column: &'static str) -> Result<PublicKey, StoreError> {
        PublicKey::from_bytes(self.array(column)?).map_err(|_| StoreError::Damaged(column))
    }

    fn address(&self, column: &'static str) -> Result<Address, StoreError> {
        let text: String = self.value(column)?;
        text.parse().map_err(|_| StoreError::Damaged(column))
    }
}

impl Columns for Row<'_> {
    fn value<T: FromSql>(&self, column: &'static str) -> Result<T, StoreError> {
        Ok(self.get(column)?)
    }
}

/// The sum of two amounts; more than there is cannot be owed.
pub(crate) fn sum(a: Nanograms, b: Nanograms) -> Nanograms {
    Nanograms::new(a.get().saturating_add(b.get())).unwrap_or(Nanograms::MAX)
}

/// What `a` is more than `b`.
pub(crate) fn less(a: Nanograms, b: Nanograms) -> Nanograms {
    Nanograms::new(a.get().saturating_sub(b.get())).unwrap_or(Nanograms::ZERO)
}
