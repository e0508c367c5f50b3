//! The buffers of a step.
//! In: a plan and how many rows. Out: zeroed memory of the right sizes, or an error; and what it takes.

use crate::backend::{BackendError, zeroed};
use crate::model::plan::Plan;

use super::activations::Activations;
use super::pack::ROWS;

/// The buffers of a step; `n` is the number of its rows, which may be tokens of different sequences.
#[derive(Debug)]
pub(super) struct Buffers {
    /// `[n][embedding]`
    pub(super) states: Vec<f32>,
    /// `[n][embedding]`
    pub(super) normed: Vec<f32>,
    /// `[head: query, key, value][row group][n][16]`
    pub(super) heads: Vec<f32>,
    /// `[query head][n][head size]`
    pub(super) queries: Vec<i16>,
    /// `[query head][n]`
    pub(super) query_exponents: Vec<i32>,
    /// `[n][query heads · head size]`
    pub(super) attended: Vec<f32>,
    /// `[row group][n][16]`
    pub(super) branch: Vec<f32>,
    /// `[row group][n][16]` of gates, then of ups
    pub(super) gates: Vec<f32>,
    pub(super) ups: Vec<f32>,
    /// `[n][feed-forward]`
    pub(super) hidden: Vec<f32>,
    /// `[n][rope][rotated pairs]`
    pub(super) turns: Vec<(f32, f32)>,
    pub(super) of_embedding: Activations,
    pub(super) of_attended: Activations,
    pub(super) of_hidden: Activations,
}

/// Lengths of the buffers for `n` tokens.
struct Lengths {
    embedding: usize,
    heads: usize,
    queries: usize,
    branch: usize,
    feed_forward: usize,
    turns: usize,
}

/// Pairs of all ropes together.
pub(super) fn turns_of_token(plan: &Plan) -> usize {
    plan.ropes.len() * plan.rope_dimensions / 2
}

impl Lengths {
    fn of(plan: &Plan, n: usize) -> Self {
        let padded = |rows: usize| rows.next_multiple_of(ROWS) * n;
        Self {
            embedding: plan.embedding_length * n,
            heads: (plan.heads + 2 * plan.kv_heads) * plan.head_size * n,
            queries: plan.heads * plan.head_size * n,
            branch: padded(plan.embedding_length),
            feed_forward: padded(plan.feed_forward_length),
            turns: turns_of_token(plan) * n,
        }
    }
}

impl Buffers {
    pub(super) fn new(plan: &Plan, n: usize) -> Result<Self, BackendError> {
        let what = "buffers of a step";
        let lengths = Lengths::of(plan, n);
        Ok(Self {
            states: zeroed(lengths.embedding, what)?,
            normed: zeroed(lengths.embedding, what)?,
            heads: zeroed(lengths.heads, what)?,
            queries: zeroed(lengths.queries, what)?,
            query_exponents: zeroed(plan.heads * n, what)?,
            attended: zeroed(lengths.queries, what)?,
            branch: zeroed(lengths.branch, what)?,
            gates: zeroed(lengths.feed_forward, what)?,
            ups: zeroed(lengths.feed_forward, what)?,
            hidden: zeroed(lengths.feed_forward, what)?,
            turns: zeroed(lengths.turns, what)?,
            of_embedding: Activations::new(plan.embedding_length, n)?,
            of_attended: Activations::new(plan.heads * plan.head_size, n)?,
            of_hidden: Activations::new(plan.feed_forward_length, n)?,
        })
    }

    pub(super) fn bytes(plan: &Plan, n: usize) -> u64 {
        let l = Lengths::of(plan, n);
        let floats = 2 * l.embedding + l.heads + l.queries + l.branch + 3 * l.feed_forward;
        let activations = Activations::bytes(plan.embedding_length, n)
            + Activations::bytes(plan.heads * plan.head_size, n)
            + Activations::bytes(plan.feed_forward_length, n);
        let rest = 2 * l.queries + 4 * plan.heads * n + 8 * l.turns + activations;
        (4 * floats + rest) as u64
    }
}
