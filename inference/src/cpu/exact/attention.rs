//! The KV cache of one head, and attention to it: rule 7.
//! In: Q16 keys and values of earlier positions, a Q16 query. Out: the head's F values.
//! All sums are exact integers; the cache is laid out for 16 positions at a time, in blocks of 32.

use std::ops::Range;

use crate::arithmetic::{
    NOT_FINITE, div, exp, int_to_float, magnitude_bits, mul, round_small, scale2, sub,
};
use crate::exact::ScoreScale;

/// Positions of a block of keys.
pub(super) const KEYS: usize = 16;
/// Positions of a block of values: so many products fit 32 bits.
pub(super) const VALUES: usize = 32;

/// What attention needs to know of a query.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) query: &'a [i16],
    pub(super) exponent: i32,
    pub(super) scale: ScoreScale,
}

/// A score: its dot product and exponent, by a scale.
#[inline(always)]
fn scaled(scale: ScoreScale, dot: i64, exponent: i32) -> f32 {
    match scale {
        ScoreScale::Power(m) => scale2(int_to_float(dot), exponent - m),
        ScoreScale::Factor(factor) => mul(scale2(int_to_float(dot), exponent), factor),
    }
}

/// Keys and values of one head at [`VALUES`] positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// `[block of 16][pair of dimensions][position][2]`
    pub(super) keys: &'a [i16],
    /// `[pair of positions][dimension][2]`
    pub(super) values: &'a [i16],
    pub(super) key_exponents: &'a [i32; VALUES],
    pub(super) value_exponents: &'a [i32; VALUES],
}

/// One row of a step at one query head: its query, the positions that it sees, and room for its values.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) query: &'a [i16],
    pub(super) exponent: i32,
    /// Counted from the first block on.
    pub(super) seen: Range<usize>,
    pub(super) out: &'a mut [f32],
    /// Whether its scores were finite, when attention is done.
    pub(super) fine: bool,
}

/// Attention of rows one by one, each with the blocks that it sees.
#[inline(always)]
pub(super) fn one_by_one(
    rows: &mut [Row<'_>],
    blocks: &[Block<'_>],
    scale: ScoreScale,
    mut attend: impl FnMut(&Head<'_>, &HeadCache<'_>, &mut [f32]) -> bool,
) {
    for row in rows {
        let border = row.seen.start / VALUES;
        let cache = HeadCache {
            blocks: &blocks[border..row.seen.end.div_ceil(VALUES)],
            first: row.seen.start - border * VALUES,
            positions: row.seen.end - border * VALUES,
        };
        let head = Head {
            query: row.query,
            exponent: row.exponent,
            scale,
        };
        row.fine = attend(&head, &cache, row.out);
    }
}

/// One head's earlier positions, from the border of a block on.
#[derive(Debug)]
pub(super) struct HeadCache<'a> {
    /// As many as hold `positions`.
    pub(super) blocks: &'a [Block<'a>],
    /// Where those that count begin, in the first block.
    pub(super) first: usize,
    /// And where they end.
    pub(super) positions: usize,
}

/// Writes a position's key into a head's cache.
pub(super) fn store_key(cache: &mut [i16], position: usize, key: &[i16]) {
    let block = &mut cache[position / KEYS * KEYS * key.len()..][..KEYS * key.len()];
    for (pair, two) in key.as_chunks::<2>().0.iter().enumerate() {
        let at = (pair * KEYS + position % KEYS) * 2;
        block[at..at + 2].copy_from_slice(two);
    }
}

/// Writes a position's value into a head's cache.
pub(super) fn store_value(cache: &mut [i16], position: usize, value: &[i16]) {
    let row = &mut cache[position / 2 * 2 * value.len()..][..2 * value.len()];
    for (dimension, value) in value.iter().enumerate() {
        row[2 * dimension + position % 2] = *value;
    }
}

/// Rule 7, with the two integer products of a level.
///
/// `dots` gives the products of the query with 16 positions of keys; `weigh` adds up to 32 positions of
/// values, each times its coefficient of at most 2^21, to sums of 64 bits.
#[inline(always)]
pub(super) fn attend(
    head: &Head<'_>,
    cache: &HeadCache<'_>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
    dots: impl Fn(&[i16], &[i16]) -> [i64; KEYS],
    weigh: impl Fn(&[i16], &[i32], &mut [i64]),
) -> bool {
    let (size, first, positions) = (head.query.len(), cache.first, cache.positions);
    scratch.clear();
    scratch.resize(positions.next_multiple_of(VALUES), 0.0);
    // Whole blocks are computed; what lies before the first position and past the last is never looked at.
    let scores = scratch.as_chunks_mut::<VALUES>().0;
    for (scores, block) in scores.iter_mut().zip(cache.blocks) {
        let scores = scores.as_chunks_mut::<KEYS>().0.iter_mut();
        let exponents = block.key_exponents.as_chunks::<KEYS>().0;
        let keys = block.keys.chunks_exact(KEYS * size);
        for ((scores, exponents), keys) in scores.zip(exponents).zip(keys) {
            let products = dots(head.query, keys);
            for i in 0..KEYS {
                scores[i] = scaled(head.scale, products[i], head.exponent + exponents[i]);
            }
        }
    }
    let scores = &scratch[first..positions];
    if magnitude_bits(scores) >= NOT_FINITE {
        return false;
    }
    let most = largest_of(scores);
    // Of a block, the positions that count.
    let seen = |block: usize| {
        let at = block * VALUES;
        first.saturating_sub(at)..VALUES.min(positions - at)
    };
    let of_block = |(block, it): (usize, &Block<'_>)| {
        let exponents = it.value_exponents[seen(block)].iter();
        exponents.copied().fold(i32::MIN, i32::max)
    };
    let largest = cache.blocks.iter().enumerate().map(of_block);
    let largest = largest.fold(i32::MIN, i32::max);
    let mut total = 0i64;
    let mut sums = [0i64; crate::exact::HEAD_SIZE_MAX];
    let sums = &mut sums[..size];
    let scores = scratch.as_chunks::<VALUES>().0.iter();
    for (index, (scores, block)) in scores.zip(cache.blocks).enumerate() {
        let (mut weights, seen) = ([0.0; VALUES], seen(index));
        for i in 0..VALUES {
            weights[i] = exp(sub(scores[i], most));
        }
        weights[seen.end..].fill(0.0);
        weights[..seen.start].fill(0.0);
        let exponents = block.value_exponents;
        let (mut part, mut coefficients) = (0i32, [0i32; VALUES]);
        for i in 0..VALUES {
            part += round_small(weights[i] * TWO_21);
            coefficients[i] = round_small(scale2(weights[i], exponents[i] - largest) * TWO_21);
        }
        total += i64::from(part);
        weigh(block.values, &coefficients, sums);
    }
    let total = int_to_float(total);
    for (out, sum) in out.iter_mut().zip(sums.iter()) {
        *out = scale2(div(int_to_float(*sum), total), largest);
    }
    true
}

/// The largest of finite scores, lane by lane first.
#[inline(always)]
fn largest_of(scores: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = scores.as_chunks::<KEYS>();
    let mut most = [f32::MIN; KEYS];
    for block in blocks {
        for i in 0..KEYS {
            most[i] = larger(most[i], block[i]);
        }
    }
    most.into_iter()
        .chain(rest.iter().copied())
        .fold(f32::MIN, larger)
}

/// Scales a weight of rule 7 to an integer of 22 bits.
const TWO_21: f32 = 2_097_152.0;

/// The products of a query with 16 positions of keys.
#[inline(always)]
pub(super) fn dots(query: &[i16], keys: &[i16]) -> [i64; KEYS] {
    // Halves of the query keep 32-bit sums exact: |high| ≤ 128, |low| ≤ 128, so each sum is below
    // 2^7 · 2^15 · 2^9.
    let mut high = [0i32; KEYS];
    let mut low = [0i32; KEYS];
    for (query, keys) in query
        .as_chunks::<2>()
        .0
        .iter()
        .zip(keys.as_chunks::<{ 2 * KEYS }>().0)
    {
        let halves = query.map(split);
        for position in 0..KEYS {
            let (a, b) = (
                i32::from(keys[2 * position]),
                i32::from(keys[2 * position + 1]),
            );
            high[position] += a * halves[0].0 + b * halves[1].0;
            low[position] += a * halves[0].1 + b * halves[1].1;
        }
    }
    std::array::from_fn(|i| i64::from(high[i]) * 256 + i64::from(low[i]))
}

/// `q = 256 · high + low` with both in [-128, 127].
#[inline(always)]
pub(super) fn split(q: i16) -> (i32, i32) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the low byte on purpose"
    )]
    let low = i32::from(q as i8);
    ((i32::from(q) - low) >> 8, low)
}

/// Adds 32 positions of values, each times its coefficient.
#[inline(always)]
pub(super) fn weigh(values: &[i16], coefficients: &[i32], sums: &mut [i64]) {
    for (pair, two) in values
        .chunks_exact(2 * sums.len())
        .zip(coefficients.as_chunks::<2>().0)
    {
        if *two == [0, 0] {
            continue;
        }
        for (sum, values) in sums.iter_mut().zip(pair.as_chunks::<2>().0) {
            *sum += i64::from(values[0]) * i64::from(two[0]);
            *sum += i64::from(values[1]) * i64::from(two[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::round_scaled;

    #[test]
    fn small_rounding_is_the_rule() {
        // `round_small` stands for rnd(x, -21) where x is a weight from 0 to 1.
        for x in [
            0.0f32,
            1.0,
            0.5,
            2.384_185_8e-7,
            7.152_557e-7,
            1.192_092_9e-6,
            0.333_333_34,
        ] {
            assert_eq!(round_small(x * TWO_21), round_scaled(x, -21), "{x}");
        }
    }
}
