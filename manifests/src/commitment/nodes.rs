//! `TreeNodes`: roots and proofs from the hashes of complete subtrees, wherever these are kept.
//!
//! In: a way to get one hash by its level and place. Out: roots over the first receipts, proofs.
//! What is computed here is the shape of RFC 6962 §2.1 alone; nothing is stored or changed.

use super::{Commitment, ConsistencyProof, InclusionProof, ProofError, TreeHash};

/// A tree's complete subtrees: in memory, or in rows of a database.
pub trait TreeNodes {
    /// Why a hash or a proof cannot be had.
    type Error: From<ProofError>;

    /// How many receipts there are.
    fn receipts(&self) -> u64;

    /// The hash over the leaves `place * 2^level .. (place + 1) * 2^level`, all of which are there.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn node(&self, level: u32, place: u64) -> Result<TreeHash, Self::Error>;

    /// The root over the first `receipts`, as it was when there were no more.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if there are fewer.
    fn commitment_at(&self, receipts: u64) -> Result<Commitment, Self::Error> {
        check_within(self, receipts)?;
        Ok(Commitment {
            receipts,
            root: root_of(self, 0, receipts)?,
        })
    }

    /// The proof that receipt `index` is in the tree of the first `receipts`.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if there are fewer receipts, or `index` is not among them.
    fn prove_inclusion(&self, index: u64, receipts: u64) -> Result<InclusionProof, Self::Error> {
        check_within(self, receipts)?;
        if index >= receipts {
            let asked = index;
            return Err(ProofError::OutOfTree { asked, receipts }.into());
        }
        // From the root down; a proof goes from the leaf up.
        let (mut start, mut end, mut path) = (0, receipts, Vec::new());
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(root_of(self, middle, end)?);
                end = middle;
            } else {
                path.push(root_of(self, start, middle)?);
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

    /// The proof that the tree of the first `newer` receipts extends that of the first `older`.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] if there are fewer than `newer`, or `older` is 0 or more than
    /// `newer`.
    fn prove_consistency(&self, older: u64, newer: u64) -> Result<ConsistencyProof, Self::Error> {
        check_within(self, newer)?;
        if older == 0 || older > newer {
            let (asked, receipts) = (older, newer);
            return Err(ProofError::OutOfTree { asked, receipts }.into());
        }
        // RFC 6962 §2.1.2: SUBPROOF, from the root down.
        let (mut start, mut end, mut path) = (0, newer, Vec::new());
        while older != end {
            let middle = start + split(end - start);
            if older <= middle {
                path.push(root_of(self, middle, end)?);
                end = middle;
            } else {
                path.push(root_of(self, start, middle)?);
                start = middle;
            }
        }
        if start != 0 {
            path.push(root_of(self, start, end)?);
        }
        path.reverse();
        Ok(ConsistencyProof { older, newer, path })
    }
}

fn check_within<T: TreeNodes + ?Sized>(tree: &T, asked: u64) -> Result<(), ProofError> {
    let receipts = tree.receipts();
    if asked > receipts {
        return Err(ProofError::OutOfTree { asked, receipts });
    }
    Ok(())
}

/// The hash over the leaves `start..end`, where `start` is a multiple of a power of two that is
/// not smaller than `end - start`: complete subtrees from the left, the smallest last, folded from
/// the right.
fn root_of<T: TreeNodes + ?Sized>(tree: &T, start: u64, end: u64) -> Result<TreeHash, T::Error> {
    let (mut peaks, mut from) = (Vec::new(), start);
    while from < end {
        let level = (end - from).ilog2();
        peaks.push(tree.node(level, from >> level)?);
        from += 1 << level;
    }
    let Some(mut hash) = peaks.pop() else {
        return Ok(TreeHash::empty_root());
    };
    while let Some(left) = peaks.pop() {
        hash = TreeHash::node(&left, &hash);
    }
    Ok(hash)
}

/// The largest power of two below `leaves`, which is at least 2.
const fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}
