//! The append-only tree of a channel's receipts, as rows: every complete subtree's hash, so that
//! roots and proofs read a logarithm of them and nothing is held in memory.
//!
//! In: digests in the order of their indices. Out: hashes, of which `tussah_manifest::TreeNodes`
//! makes roots and proofs. It never changes a row that is there.

use rusqlite::{Connection, OptionalExtension};
use tussah_manifest::{Digest, ProofError, TreeHash, TreeNodes};

use crate::rows::int;
use crate::store::StoreError;

/// One channel's tree within a transaction.
pub(crate) struct Tree<'a> {
    connection: &'a Connection,
    channel: i64,
    receipts: u64,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Asked about receipts that are not there.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<'a> Tree<'a> {
    /// The tree of the first `receipts` of `channel`.
    pub(crate) const fn new(connection: &'a Connection, channel: i64, receipts: u64) -> Self {
        Self {
            connection,
            channel,
            receipts,
        }
    }

    /// Adds a receipt: its leaf, and every subtree that it completes.
    pub(crate) fn append(&mut self, receipt: &Digest) -> Result<(), StoreError> {
        let mut hash = TreeHash::of_receipt(receipt);
        let mut place = self.receipts;
        for level in 0.. {
            self.connection.execute(
                "INSERT INTO node (channel, level, place, hash) VALUES (?1, ?2, ?3, ?4)",
                (self.channel, level, int(place)?, hash.as_bytes()),
            )?;
            if place.is_multiple_of(2) {
                break;
            }
            let left = self.row(level, place - 1)?;
            hash = TreeHash::node(&left, &hash);
            place /= 2;
        }
        self.receipts += 1;
        Ok(())
    }

    fn row(&self, level: u32, place: u64) -> Result<TreeHash, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT hash FROM node WHERE channel = ?1 AND level = ?2 AND place = ?3")?;
        let hash: Option<Vec<u8>> = statement
            .query_row((self.channel, level, int(place)?), |row| row.get(0))
            .optional()?;
        let hash = hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok());
        hash.map(TreeHash::from_bytes)
            .ok_or(StoreError::Damaged("a hash of the receipt tree is missing"))
    }
}

impl TreeNodes for Tree<'_> {
    type Error = TreeError;

    fn receipts(&self) -> u64 {
        self.receipts
    }

    fn node(&self, level: u32, place: u64) -> Result<TreeHash, TreeError> {
        Ok(self.row(level, place)?)
    }
}

#[cfg(test)]
mod tests {
    use tussah_manifest::ReceiptTree;

    use super::*;

    /// Every size up to 40 has every shape of a left and a right part up to six levels.
    const RECEIPTS: u64 = 40;

    #[test]
    fn roots_and_proofs_are_those_of_the_tree_in_memory() {
        let connection = Connection::open_in_memory().unwrap();
        let schema = include_str!("store/0001.sql");
        connection.execute_batch(schema).unwrap();
        connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        let mut rows = Tree::new(&connection, 1, 0);
        let mut memory = ReceiptTree::new();
        for index in 0..RECEIPTS {
            let receipt = Digest::of(&index.to_be_bytes());
            rows.append(&receipt).unwrap();
            memory.append(&receipt);
        }
        // Another channel's rows are another tree.
        let mut other = Tree::new(&connection, 2, 0);
        other.append(&Digest::of(b"other")).unwrap();
        for newer in 0..=RECEIPTS {
            let commitment = memory.commitment_at(newer).unwrap();
            assert_eq!(rows.commitment_at(newer).unwrap(), commitment);
            for index in 0..newer {
                let proof = rows.prove_inclusion(index, newer).unwrap();
                assert_eq!(proof, memory.prove_inclusion(index, newer).unwrap());
                let proof = rows.prove_consistency(index + 1, newer).unwrap();
                assert_eq!(proof, memory.prove_consistency(index + 1, newer).unwrap());
            }
            assert!(rows.prove_inclusion(newer, newer).is_err());
            assert!(rows.prove_consistency(0, newer).is_err());
            assert!(rows.prove_consistency(newer + 1, newer).is_err());
        }
        assert!(rows.commitment_at(RECEIPTS + 1).is_err());
    }
}
