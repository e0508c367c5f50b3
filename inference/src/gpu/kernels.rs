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
const COMMON: &str = include_str!("wgsl/common.wgsl");
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

fn assemble(parts: &[&str], values: Vec<(&'static str, String)>) -> String {
    format!("{FLOAT}{}", substitute(&parts.concat(), &values))
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
    assemble(&[COMMON, &source, WRITE], values)
}

/// Q16 of vectors of `length` values.
pub(super) fn quantize(plan: &Plan, length: usize) -> String {
    let mut values = sizes(plan);
    values.extend([("N", length.to_string()), ("VALUES", "values".to_owned())]);
    assemble(&[COMMON, include_str!("wgsl/quantize.wgsl"), WRITE], values)
}

/// What a layer's heads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    /// Of queries, of keys.
    pub(super) normed: [bool; 2],
    pub(super) biased: bool,
    pub(super) rope: usize,
}

/// From products to queries and the cache.
pub(super) fn heads(plan: &Plan, heads: Heads) -> String {
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
    let source = include_str!("wgsl/heads.wgsl").replace("$NORM", &norm);
    let mut values = sizes(plan);
    values.extend([
        ("PAIRS", pairs.to_string()),
        ("FIRST", first.to_owned()),
        ("SECOND", second.to_owned()),
        ("BIASED", biased.to_owned()),
        ("TURNS", (plan.ropes.len() * 2 * pairs).to_string()),
        ("TURN_AT", (heads.rope * 2 * pairs).to_string()),
    ]);
    assemble(&[COMMON, &source, CACHE], values)
}

/// Attention, with a sliding window or without.
pub(super) fn attend(plan: &Plan, window: Option<usize>) -> String {
    let first = match window {
        None => "0u".to_owned(),
        Some(window) => {
            format!("select(0u, position + 1u - {window}u, position + 1u > {window}u)")
        }
    };
    let exponent = "query_exponent + bitcast<i32>(cache[exponents])";
    let score = match ScoreScale::of(plan.score_length) {
        ScoreScale::Power(power) => format!("scale2(dot, {exponent} - {power})"),
        ScoreScale::Factor(factor) => {
            format!("f_mul(scale2(dot, {exponent}), {}u)", factor.to_bits())
        }
    };
    let mut values = sizes(plan);
    values.extend([("FIRST_SEEN", first), ("SCORE", score)]);
    assemble(&[COMMON, include_str!("wgsl/attend.wgsl"), CACHE], values)
}
