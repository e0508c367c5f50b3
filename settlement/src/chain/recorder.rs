//! `Step`: one transaction with all that went into it, so that another machine can run it again.
//!
//! In: what the embedded chain did. Out: cells and numbers. Nothing is recorded unless asked for.

use tycho_types::cell::Cell;

/// One transaction of the embedded chain.
#[derive(Debug, Clone)]
pub struct Step {
    /// The account before, as a `ShardAccount`.
    pub before: Cell,
    /// The message.
    pub message: Cell,
    /// True for a message from outside of the chain.
    pub is_external: bool,
    /// Second of the block.
    pub now: u32,
    /// Logical time of the block, and the least of the transaction.
    pub lt: u64,
    /// The block's random seed.
    pub seed: [u8; 32],
    /// What came of it; nothing if the message was not accepted.
    pub outcome: Option<Outcome>,
    /// How the code ended; nothing where none ran.
    pub exit_code: Option<i32>,
}

/// A transaction and the account after it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The transaction.
    pub transaction: Cell,
    /// The account after, as a `ShardAccount`.
    pub after: Cell,
}
