//! WGSL for everything but products.
//! In: a plan's sizes. Out: the sources of kernels, which `wgsl/` has with `$NAMES` where sizes go.

use crate::exact::ScoreScale;
use crate::model::plan::{Plan, RopePairs};

use super::pages::PAGE;

/// Threads of a workgroup; at least half the largest head.
const THREADS: usize = 128;
/// Rows of the largest batch.
pub(super) const ROWS_MAX: usize = 256;
/// Where rows, wanted rows and pages begin in a batch, in words.
pub(super) const ROWS_AT: usize = 4;
pub(super) const WANTED_AT: usize = ROWS_AT + 2 * ROWS_MAX;
pub(super) const PAGES_AT: usize = WANTED_AT + ROWS_MAX;

/// The float operations, in integers.
pub(super) const FLOAT: &str = include_str!("wgsl/float.wgsl");
const BATCH: &str = include_str!("wgsl/batch.wgsl");
const GROUPS: &str = include_str!("wgsl/groups.wgsl");
const WRITE: &str = include_str!("wgsl/write_q16.wgsl");
const CACHE: &str = include_str!("wgsl/cache.wgsl");

/// Puts values where a source has `$NAMES`; longer names first, since one may begin another.
pub(super) fn substitute(source: &str, values: &[(&str, String)]) -> String {
    let mut order: Vec<_> = values.iter().collect();
    order.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut out = source.to_owned();
    for (name, value) in order {
        out = out.replace(&format!("${name}"), value);
    }
    out
}

/// What a norm adds to the states first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Add {
    Nothing,
    Branch,
    /// The branch, after a norm of its own.
    Normed,
}

/// Where a product has its vectors from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// From memory, in Q16.
    Stored,
    /// The product brings the values of a step's only row into Q16 itself.
    Values,
    /// It adds to the states of that row and norms them, too.
    Normed {
        add: Add,
        /// Bits of the norm's epsilon.
        epsilon: u32,
    },
}

/// The sizes that all kernels of a plan share.
fn sizes(plan: &Plan) -> Vec<(&'static str, String)> {
    vec![
        ("WG", THREADS.to_string()),
        ("WANTED_AT", WANTED_AT.to_string()),
        ("PAGES_AT", PAGES_AT.to_string()),
        ("EPS", plan.norm_epsilon.to_bits().to_string()),
        ("PAGE", PAGE.to_string()),
        ("HEADS", plan.heads.to_string()),
        ("HEAD", plan.head_size.to_string()),
        ("HALF_LENGTH", (plan.head_size / 2).to_string()),
        ("KV", plan.kv_heads.to_string()),
    ]
}

/// The start of a product of a step's only row, for workgroups of so many threads: `load(t, group)` leaves the
/// vector in Q16 where the product reads it.
pub(super) fn prologue(input: Input, columns: usize, threads: u32) -> String {
    let blocks = columns / 32;
    let words = 8 * blocks;
    let (load, first) = match input {
        Input::Stored => return String::new(),
        Input::Values => (include_str!("wgsl/prologue_values.wgsl"), ""),
        Input::Normed { add, .. } => (
            include_str!("wgsl/prologue_norm.wgsl"),
            match add {
                Add::Nothing => "states[word * 4u + i]",
                Add::Branch => "f_add(states[word * 4u + i], branch[word * 4u + i])",
                Add::Normed => "branch[word * 4u + i]",
            },
        ),
    };
    let (post, epsilon) = match input {
        Input::Normed { add, epsilon } => {
            let post = matches!(add, Add::Normed);
            let post = post.then_some(include_str!("wgsl/prologue_post.wgsl"));
            (post.unwrap_or_default(), epsilon)
        }
        _ => ("", 0),
    };
    let source = [GROUPS, include_str!("wgsl/prologue.wgsl"), load].concat();
    let values = [
        ("WG", threads.to_string()),
        ("MINE", (4 * words.div_ceil(threads as usize)).to_string()),
        ("X_WORDS", (16 * blocks).to_string()),
        ("X_SUMS", (2 * blocks).to_string()),
        ("FIRST_VALUE", first.to_owned()),
        ("EPS", epsilon.to_string()),
    ];
    substitute(&source.replace("$ADD", post), &values)
}

fn assemble(parts: &[&str], values: Vec<(&'static str, String)>) -> String {
    let source = [BATCH, GROUPS, &parts.concat()].concat();
    format!("{FLOAT}{}", substitute(&source, &values))
}

/// Norm of the states; of the wanted rows only, or of all.
pub(super) fn norm(plan: &Plan, add: Add, wanted_only: bool) -> String {
    let add = match add {
        Add::Nothing => "",
        Add::Branch => include_str!("wgsl/norm_plain.wgsl"),
        Add::Normed => include_str!("wgsl/norm_post.wgsl"),
    };
    let row = match wanted_only {
        true => "batch[WANTED_AT + group.x]",
        false => "group.x",
    };
    let source = include_str!("wgsl/norm.wgsl").replace("$ADD", add);
    let mut values = sizes(plan);
    values.extend([
        ("N", plan.embedding_length.to_string()),
        ("ROW", row.to_owned()),
        ("VALUES", "normed".to_owned()),
    ]);
    assemble(&[&source, WRITE], values)
}

/// Q16 of vectors of `length` values.
pub(super) fn quantize(plan: &Plan, length: usize) -> String {
    let mut values = sizes(plan);
    values.extend([("N", length.to_string()), ("VALUES", "values".to_owned())]);
    assemble(&[include_str!("wgsl/quantize.wgsl"), WRITE], values)
}

/// What a layer's heads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    /// Of queries, of keys.
    pub(super) normed: [bool; 2],
    pub(super) biased: bool,
    pub(super) rope: usize,
}

/// The values of `prepare.wgsl`, and its source for heads of a kind.
fn prepare(plan: &Plan, heads: Heads) -> (String, Vec<(&'static str, String)>) {
    let pairs = plan.rope_dimensions / 2;
    let (first, second) = match plan.rope_pairs {
        RopePairs::Adjacent => ("2u * i", "2u * i + 1u"),
        RopePairs::Halves => ("i", "i + PAIRS"),
    };
    let biased = match heads.biased {
        true => "f_add(raw[at + i], weights[2u * HEAD + head * HEAD + i])",
        false => "raw[at + i]",
    };
    let normed = match heads.normed {
        [false, false] => None,
        [true, false] => Some("head < HEADS"),
        [false, true] => Some("head >= HEADS && head < HEADS + KV"),
        [true, true] => Some("head < HEADS + KV"),
    };
    let norm = normed.map_or(String::new(), |which| {
        include_str!("wgsl/heads_norm.wgsl").replace("$NORMED", which)
    });
    let source = include_str!("wgsl/prepare.wgsl").replace("$NORM", &norm);
    let mut values = sizes(plan);
    values.extend([
        ("PAIRS", pairs.to_string()),
        ("FIRST", first.to_owned()),
        ("SECOND", second.to_owned()),
        ("BIASED", biased.to_owned()),
        ("TURNS", (plan.ropes.len() * 2 * pairs).to_string()),
        ("TURN_AT", (heads.rope * 2 * pairs).to_string()),
    ]);
    (source, values)
}

/// From products to queries and the cache.
pub(super) fn heads(plan: &Plan, heads: Heads) -> String {
    let (source, values) = prepare(plan, heads);
    let main = include_str!("wgsl/heads.wgsl");
    assemble(&[&source, main, CACHE], values)
}

/// Attention, with a sliding window or without; of heads that are in memory.
pub(super) fn attend(plan: &Plan, window: Option<usize>) -> String {
    let stored = include_str!("wgsl/attend_stored.wgsl");
    let mut values = sizes(plan);
    values.extend(scores(plan, window));
    assemble(&[stored, include_str!("wgsl/attend.wgsl"), CACHE], values)
}

/// Attention of a step's only row, from what the product of its heads gave.
pub(super) fn attend_fused(plan: &Plan, heads: Heads, window: Option<usize>) -> String {
    let (source, mut values) = prepare(plan, heads);
    values.extend(scores(plan, window));
    let fused = include_str!("wgsl/attend_fused.wgsl");
    let attend = include_str!("wgsl/attend.wgsl");
    assemble(&[&source, fused, attend, CACHE], values)
}

/// What attention sees, and how its scores are scaled.
fn scores(plan: &Plan, window: Option<usize>) -> [(&'static str, String); 2] {
    let first = match window {
        None => "0u".to_owned(),
        Some(window) => {
            format!("select(0u, position + 1u - {window}u, position + 1u > {window}u)")
        }
    };
    let score = match ScoreScale::of(plan.score_length) {
        ScoreScale::Power(power) => {
            format!("scale2(dot, query_exponent + key_exponent - {power})")
        }
        ScoreScale::Factor(factor) => format!(
            "f_mul(scale2(dot, query_exponent + key_exponent), {}u)",
            factor.to_bits()
        ),
    };
    [("FIRST_SEEN", first), ("SCORE", score)]
}
