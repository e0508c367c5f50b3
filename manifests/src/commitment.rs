//! `Commitment`: a channel's append-only tree of receipts, and the root that goes on chain.
//!
//! In: receipt digests, in the order of the channel's indices. Out: the root over the first N of
//! them, proofs that one of them is in it, proofs that a later root extends an earlier one.
//! The shape and hashing are those of RFC 6962 §2.1 (RFC 9162 §2.1 says the same) with SHA-256,
//! which the TVM has; a leaf's data is the 32 bytes of [`crate::Receipt::digest`].
//! The tree holds digests only and never forgets one; who stores it is the callers' business.

mod nodes;

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, parse_hex, to_hex};

pub use nodes::TreeNodes;

/// 32 bytes of SHA-256: a node or the root of a tree. Prints as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash([u8; 32]);

impl TreeHash {
    /// Takes bytes that are a tree's hash already.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The root of a tree without leaves: SHA-256 of nothing.
    pub fn empty_root() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// The leaf of a receipt.
    pub fn of_receipt(receipt: &Digest) -> Self {
        Self::leaf(receipt.as_bytes())
    }

    /// `SHA-256(0x00 ‖ data)`.
    fn leaf(data: &[u8]) -> Self {
        Self(
            Sha256::new()
                .chain_update([0])
                .chain_update(data)
                .finalize()
                .into(),
        )
    }

    /// `SHA-256(0x01 ‖ left ‖ right)`.
    pub fn node(left: &Self, right: &Self) -> Self {
        let hasher = Sha256::new().chain_update([1]).chain_update(left.0);
        Self(hasher.chain_update(right.0).finalize().into())
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", to_hex(&self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TreeHash {
    type Err = TreeHashError;

    fn from_str(text: &str) -> Result<Self, TreeHashError> {
        let hex = text.strip_prefix("sha256:").ok_or(TreeHashError)?;
        parse_hex(hex).map(Self).map_err(|_| TreeHashError)
    }
}

/// The text is no hash of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tree's hash is `sha256:` and 64 lowercase hex digits")]
pub struct TreeHashError;

impl Serialize for TreeHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What both sides agree on before it can be posted: how many receipts, and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Commitment {
    /// Receipts in the tree.
    #[serde(serialize_with = "crate::json::u64_string")]
    pub receipts: u64,
    /// The root over them.
    pub root: TreeHash,
}

/// A channel's receipts. Appending and proving take time in the logarithm of their number.
#[derive(Debug, Clone, Default)]
pub struct ReceiptTree {
    /// `levels[k][i]` is the hash over the leaves `i * 2^k .. (i + 1) * 2^k`.
    levels: Vec<Vec<TreeHash>>,
}

impl ReceiptTree {
    /// A tree without receipts.
    pub const fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// How many receipts there are.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a receipt and returns its index.
    pub fn append(&mut self, receipt: &Digest) -> u64 {
        self.append_data(receipt.as_bytes())
    }

    fn append_data(&mut self, data: &[u8]) -> u64 {
        let index = self.len();
        let mut hash = TreeHash::leaf(data);
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            row.push(hash);
            if !row.len().is_multiple_of(2) {
                break;
            }
            hash = TreeHash::node(&row[row.len() - 2], &row[row.len() - 1]);
        }
        index
    }

    /// The root over all receipts.
    pub fn commitment(&self) -> Commitment {
        Commitment {
            receipts: self.len(),
            root: self.root(),
        }
    }

    /// The peaks are the last hashes of the levels where their number is odd.
    fn root(&self) -> TreeHash {
        let rows = self.levels.iter();
        let peaks = rows.filter(|row| !row.len().is_multiple_of(2));
        let mut peaks = peaks.filter_map(|row| row.last());
        let Some(smallest) = peaks.next() else {
            return TreeHash::empty_root();
        };
        peaks.fold(*smallest, |hash, left| TreeHash::node(left, &hash))
    }

    /// The root over the first `receipts` of them, as it was when there were no more.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if there are fewer.
    pub fn commitment_at(&self, receipts: u64) -> Result<Commitment, ProofError> {
        TreeNodes::commitment_at(self, receipts)
    }

    /// The proof that receipt `index` is in the tree of the first `receipts`.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if there are fewer receipts, or `index` is not among them.
    pub fn prove_inclusion(&self, index: u64, receipts: u64) -> Result<InclusionProof, ProofError> {
        TreeNodes::prove_inclusion(self, index, receipts)
    }

    /// The proof that the tree of the first `newer` receipts extends that of the first `older`.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if there are fewer than `newer`, or `older` is 0 or more than
    /// `newer`.
    pub fn prove_consistency(
        &self,
        older: u64,
        newer: u64,
    ) -> Result<ConsistencyProof, ProofError> {
        TreeNodes::prove_consistency(self, older, newer)
    }
}

impl TreeNodes for ReceiptTree {
    type Error = ProofError;

    fn receipts(&self) -> u64 {
        self.len()
    }

    fn node(&self, level: u32, place: u64) -> Result<TreeHash, ProofError> {
        let row = self.levels.get(level as usize);
        let hash = usize::try_from(place).ok().and_then(|at| row?.get(at));
        hash.copied().ok_or(ProofError::OutOfTree {
            asked: place,
            receipts: self.len(),
        })
    }
}

/// That one receipt is in a commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InclusionProof {
    /// The receipt's place, from 0.
    #[serde(serialize_with = "crate::json::u64_string")]
    pub index: u64,
    /// Receipts in the commitment.
    #[serde(serialize_with = "crate::json::u64_string")]
    pub receipts: u64,
    /// The hashes beside the way up from the leaf.
    pub path: Vec<TreeHash>,
}

impl InclusionProof {
    /// Whether `receipt` stands at this proof's place in `commitment` (RFC 9162 §2.1.3.2).
    ///
    /// # Errors
    /// [`ProofError`] if the proof does not fit the commitment or leads to another root.
    pub fn verify(&self, receipt: &Digest, commitment: &Commitment) -> Result<(), ProofError> {
        self.verify_data(receipt.as_bytes(), commitment)
    }

    fn verify_data(&self, data: &[u8], commitment: &Commitment) -> Result<(), ProofError> {
        if self.receipts != commitment.receipts {
            return Err(ProofError::OtherSize {
                proof: self.receipts,
                commitment: commitment.receipts,
            });
        }
        if self.index >= self.receipts {
            return Err(ProofError::OutOfTree {
                asked: self.index,
                receipts: self.receipts,
            });
        }
        let (mut index, mut last) = (self.index, self.receipts - 1);
        let mut hash = TreeHash::leaf(data);
        for beside in &self.path {
            if last == 0 {
                return Err(ProofError::Length);
            }
            if index % 2 == 1 || index == last {
                hash = TreeHash::node(beside, &hash);
                // A right edge without a left neighbour at this level goes up alone.
                while index.is_multiple_of(2) && index != 0 {
                    index >>= 1;
                    last >>= 1;
                }
            } else {
                hash = TreeHash::node(&hash, beside);
            }
            index >>= 1;
            last >>= 1;
        }
        if last != 0 {
            return Err(ProofError::Length);
        }
        expect_root(hash, commitment)
    }
}

/// That a commitment extends an earlier one of the same channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsistencyProof {
    /// Receipts in the earlier commitment.
    #[serde(serialize_with = "crate::json::u64_string")]
    pub older: u64,
    /// Receipts in the later one.
    #[serde(serialize_with = "crate::json::u64_string")]
    pub newer: u64,
    /// The hashes from which both roots follow.
    pub path: Vec<TreeHash>,
}

impl ConsistencyProof {
    /// Whether `newer` holds the receipts of `older` and then others (RFC 9162 §2.1.4.2).
    ///
    /// # Errors
    /// [`ProofError`] if the proof does not fit the two or leads to other roots.
    pub fn verify(&self, older: &Commitment, newer: &Commitment) -> Result<(), ProofError> {
        for (proof, commitment) in [(self.older, older), (self.newer, newer)] {
            if proof != commitment.receipts {
                return Err(ProofError::OtherSize {
                    proof,
                    commitment: commitment.receipts,
                });
            }
        }
        if self.older == 0 || self.older > self.newer {
            return Err(ProofError::OutOfTree {
                asked: self.older,
                receipts: self.newer,
            });
        }
        if self.older == self.newer {
            if !self.path.is_empty() {
                return Err(ProofError::Length);
            }
            return expect_root(older.root, newer);
        }
        let mut path = self.path.iter();
        // A complete older tree is a subtree of the newer one, and its root is known.
        let first = if self.older.is_power_of_two() {
            Some(&older.root)
        } else {
            path.next()
        };
        let first = *first.ok_or(ProofError::Length)?;
        let (mut index, mut last) = (self.older - 1, self.newer - 1);
        while index % 2 == 1 {
            index >>= 1;
            last >>= 1;
        }
        let (mut older_hash, mut newer_hash) = (first, first);
        for beside in path {
            if last == 0 {
                return Err(ProofError::Length);
            }
            if index % 2 == 1 || index == last {
                older_hash = TreeHash::node(beside, &older_hash);
                newer_hash = TreeHash::node(beside, &newer_hash);
                while index.is_multiple_of(2) && index != 0 {
                    index >>= 1;
                    last >>= 1;
                }
            } else {
                newer_hash = TreeHash::node(&newer_hash, beside);
            }
            index >>= 1;
            last >>= 1;
        }
        if last != 0 {
            return Err(ProofError::Length);
        }
        expect_root(older_hash, older)?;
        expect_root(newer_hash, newer)
    }
}

fn expect_root(found: TreeHash, commitment: &Commitment) -> Result<(), ProofError> {
    if found == commitment.root {
        Ok(())
    } else {
        Err(ProofError::OtherRoot {
            found,
            expected: commitment.root,
        })
    }
}

/// Why a proof cannot be made or does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Asked about receipts that the tree does not have.
    #[error("{asked} is not within a tree of {receipts} receipts")]
    OutOfTree {
        /// The index or size that was asked for.
        asked: u64,
        /// Receipts in the tree.
        receipts: u64,
    },
    /// The proof is for a tree of another size.
    #[error("the proof is for {proof} receipts, the commitment holds {commitment}")]
    OtherSize {
        /// In the proof.
        proof: u64,
        /// In the commitment.
        commitment: u64,
    },
    /// Too few or too many hashes for these sizes.
    #[error("the proof has too few or too many hashes for its sizes")]
    Length,
    /// The proof leads elsewhere.
    #[error("the proof leads to {found}, the commitment's root is {expected}")]
    OtherRoot {
        /// Where it leads.
        found: TreeHash,
        /// The commitment's root.
        expected: TreeHash,
    },
}

#[cfg(test)]
mod tests;
