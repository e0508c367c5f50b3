//! The append-only tree of a channel's receipts, as rows: every complete subtree's hash, so that
//! roots and proofs read a logarithm of them and nothing is held in memory.
//!
//! In: digests in the order of their indices. Out: roots over any number of the first of them,
//! inclusion and consistency proofs. Shape and hashes are those of RFC 6962 §2.1 with SHA-256, as
//! in `tussah_manifest::ReceiptTree`, which the tests hold it equal to.

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest as _, Sha256};
use tussah_manifest::{Commitment, ConsistencyProof, Digest, InclusionProof, ProofError, TreeHash};

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
        let mut hash = hash_of(&[&[0], receipt.as_bytes()]);
        let mut place = self.receipts;
        for level in 0.. {
            self.connection.execute(
                "INSERT INTO node (channel, level, place, hash) VALUES (?1, ?2, ?3, ?4)",
                (self.channel, level, int(place)?, hash.as_bytes()),
            )?;
            if place.is_multiple_of(2) {
                break;
            }
            let left = self.node(level, place - 1)?;
            hash = hash_of(&[&[1], left.as_bytes(), hash.as_bytes()]);
            place /= 2;
        }
        self.receipts += 1;
        Ok(())
    }

    /// The root over the first `receipts`.
    pub(crate) fn commitment(&self, receipts: u64) -> Result<Commitment, TreeError> {
        self.check_within(receipts)?;
        Ok(Commitment {
            receipts,
            root: self.root_of(0, receipts)?,
        })
    }

    /// That receipt `index` is among the first `receipts`.
    pub(crate) fn prove_inclusion(
        &self,
        index: u64,
        receipts: u64,
    ) -> Result<InclusionProof, TreeError> {
        self.check_within(receipts)?;
        if index >= receipts {
            let asked = index;
            return Err(ProofError::OutOfTree { asked, receipts }.into());
        }
        let (mut start, mut end, mut path) = (0, receipts, Vec::new());
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(self.root_of(middle, end)?);
                end = middle;
            } else {
                path.push(self.root_of(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Ok(InclusionProof {
            index,
            receipts,
            path,
        })
    }

    /// That the first `newer` receipts begin with the first `older`.
    pub(crate) fn prove_consistency(
        &self,
        older: u64,
        newer: u64,
    ) -> Result<ConsistencyProof, TreeError> {
        self.check_within(newer)?;
        if older == 0 || older > newer {
            return Err(ProofError::OutOfTree {
                asked: older,
                receipts: newer,
            }
            .into());
        }
        let (mut start, mut end, mut path) = (0, newer, Vec::new());
        while older != end {
            let middle = start + split(end - start);
            if older <= middle {
                path.push(self.root_of(middle, end)?);
                end = middle;
            } else {
                path.push(self.root_of(start, middle)?);
                start = middle;
            }
        }
        if start != 0 {
            path.push(self.root_of(start, end)?);
        }
        path.reverse();
        Ok(ConsistencyProof { older, newer, path })
    }

    fn check_within(&self, asked: u64) -> Result<(), ProofError> {
        let receipts = self.receipts;
        if asked > receipts {
            return Err(ProofError::OutOfTree { asked, receipts });
        }
        Ok(())
    }

    /// Complete subtrees from the left, the smallest last, folded from the right.
    fn root_of(&self, start: u64, end: u64) -> Result<TreeHash, StoreError> {
        let (mut peaks, mut from) = (Vec::new(), start);
        while from < end {
            let level = (end - from).ilog2();
            peaks.push(self.node(level, from >> level)?);
            from += 1 << level;
        }
        let Some(mut hash) = peaks.pop() else {
            return Ok(TreeHash::empty_root());
        };
        while let Some(left) = peaks.pop() {
            hash = hash_of(&[&[1], left.as_bytes(), hash.as_bytes()]);
        }
        Ok(hash)
    }

    fn node(&self, level: u32, place: u64) -> Result<TreeHash, StoreError> {
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

/// SHA-256 of `0x00 ‖ data` for leaves, `0x01 ‖ left ‖ right` for nodes.
fn hash_of(parts: &[&[u8]]) -> TreeHash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    TreeHash::from_bytes(hasher.finalize().into())
}

/// The largest power of two below `leaves`, which is at least 2.
const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
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
            assert_eq!(rows.commitment(newer).unwrap(), commitment);
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
        assert!(rows.commitment(RECEIPTS + 1).is_err());
    }
}
