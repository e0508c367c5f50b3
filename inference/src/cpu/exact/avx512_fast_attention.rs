//! The fast profile's attention with AVX-512 VNNI: several rows of a head at once, 32 positions at a time.
//! In: queries in 16 bits, of which the high 8 are taken; keys and values as the exact profile keeps them. Out: f32
//! values, the same however many rows come together. The weights of a block of positions have 11 bits and a scale,
//! so that 32 products fit 32 bits.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_cvtepi32_epi16,
    _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_max_epi32, _mm512_mask_max_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_epi32, _mm512_reduce_max_ps, _mm512_scalef_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
    _mm512_sub_epi32, _mm512_sub_ps,
};

use super::HEAD_SIZE_MAX;
use super::attention::{Block, KEYS, Row, VALUES};
use super::avx512_attention::{exp, floats, masks, nearest, prefetch, shorts, words};
use crate::exact::ScoreScale;

/// Rows that share the loads of keys and values.
const ROWS_AT_ONCE: usize = 4;
/// Groups of 16 dimensions whose sums stay in registers.
const GROUPS: usize = 4;
/// The largest weight of a block as an integer: 32 products with 16 bits fit 32 bits.
const WEIGHT_MAX: f32 = 2047.0;

/// Attention of rows that have keys and values in common: of one query head, or of those of one kv head.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn attend(
    rows: &mut [Row<'_>],
    blocks: &[Block<'_>],
    scale: ScoreScale,
    scratch: &mut Vec<f32>,
) {
    let (several, rest) = rows.as_chunks_mut::<ROWS_AT_ONCE>();
    for rows in several {
        attend_rows(rows, blocks, scale, scratch);
    }
    if let Ok(rows) = <&mut [_; 3]>::try_from(&mut *rest) {
        attend_rows(rows, blocks, scale, scratch);
    } else if let Ok(rows) = <&mut [_; 2]>::try_from(&mut *rest) {
        attend_rows(rows, blocks, scale, scratch);
    } else if let Ok(rows) = <&mut [_; 1]>::try_from(rest) {
        attend_rows(rows, blocks, scale, scratch);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn attend_rows<const R: usize>(
    rows: &mut [Row<'_>; R],
    blocks: &[Block<'_>],
    scale: ScoreScale,
    scratch: &mut Vec<f32>,
) {
    let first = rows.iter().map(|row| row.seen.start / VALUES).min();
    let end = rows.iter().map(|row| row.seen.end.div_ceil(VALUES)).max();
    let (first, end) = (first.unwrap_or(0), end.unwrap_or(0));
    let blocks = &blocks[first..end];
    let count = blocks.len() * R * VALUES;
    if scratch.len() < count {
        scratch.resize(count, 0.0);
    }
    let scores = scratch[..count].as_chunks_mut::<VALUES>().0;
    let scores = scores.as_chunks_mut::<R>().0;
    let found = score(rows, (blocks, first), scale, scores);
    let sums = &mut [[[0.0; KEYS]; HEAD_SIZE_MAX / KEYS]; R];
    let totals = weigh(rows, (blocks, first), &found, scores, sums);
    for (r, row) in rows.iter_mut().enumerate() {
        row.fine = found.most[r].is_finite();
        finish(row.out, &sums[r], totals[r], found.largest);
    }
}

/// What the first pass over the positions finds.
struct Found<const R: usize> {
    /// The largest score of each row.
    most: [f32; R],
    /// The largest of the values' exponents that any row sees.
    largest: i32,
}

/// The high bytes of a query, two dimensions a word, rounded to nearest.
#[inline]
fn high(query: &[i16]) -> [i32; HEAD_SIZE_MAX / 2] {
    let mut out = [0; HEAD_SIZE_MAX / 2];
    for (out, pair) in out.iter_mut().zip(query.as_chunks::<2>().0) {
        let [first, second] = pair.map(|q| (i32::from(q) + 128) >> 8);
        *out = first & 0xffff | second << 16;
    }
    out
}

/// Scores of all positions, in parts of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn score<const R: usize>(
    rows: &[Row<'_>; R],
    (blocks, first): (&[Block<'_>], usize),
    scale: ScoreScale,
    scores: &mut [[[f32; VALUES]; R]],
) -> Found<R> {
    let queries: [_; R] = std::array::from_fn(|r| high(rows[r].query));
    let size = rows[0].query.len();
    let (power, factor) = match scale {
        ScoreScale::Power(power) => (8 - power, 1.0),
        ScoreScale::Factor(factor) => (8, factor),
    };
    let factor = _mm512_set1_ps(factor);
    let powers: [_; R] = std::array::from_fn(|r| _mm512_set1_epi32(rows[r].exponent + power));
    let mut most = [_mm512_set1_ps(f32::MIN); R];
    let mut largest = _mm512_set1_epi32(i32::MIN);
    for (index, (block, scores)) in blocks.iter().zip(scores).enumerate() {
        // The hardware's look-ahead ends with the block's page.
        if let Some(next) = blocks.get(index + 1) {
            prefetch(next.keys);
        }
        prefetch(block.values);
        let dots = products(&queries, block.keys, size);
        let key_exponents = block.key_exponents.as_chunks::<KEYS>().0;
        let value_exponents = block.value_exponents.as_chunks::<KEYS>().0;
        for half in 0..2 {
            let (of_keys, of_values) = (words(&key_exponents[half]), words(&value_exponents[half]));
            for r in 0..R {
                let powers = _mm512_cvtepi32_ps(_mm512_add_epi32(of_keys, powers[r]));
                let score = _mm512_scalef_ps(_mm512_cvtepi32_ps(dots[r][half]), powers);
                let score = _mm512_mul_ps(score, factor);
                let mask = masks(&rows[r], first + index)[half];
                most[r] = _mm512_mask_max_ps(most[r], mask, most[r], score);
                largest = _mm512_mask_max_epi32(largest, mask, largest, of_values);
                let out = &mut scores[r].as_chunks_mut::<KEYS>().0[half];
                // SAFETY: the array has the 64 bytes that are written, at any alignment.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), score) };
            }
        }
    }
    Found {
        most: most.map(|most| _mm512_reduce_max_ps(most)),
        largest: _mm512_reduce_max_epi32(largest),
    }
}

/// The products of queries with a block's keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni")]
fn products<const R: usize>(
    queries: &[[i32; HEAD_SIZE_MAX / 2]; R],
    keys: &[i16],
    size: usize,
) -> [[__m512i; 2]; R] {
    let (first, second) = keys.split_at(KEYS * size);
    let pairs = first.as_chunks::<32>().0.iter();
    let pairs = pairs
        .zip(second.as_chunks::<32>().0)
        .take(HEAD_SIZE_MAX / 2);
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    for (pair, (first, second)) in pairs.enumerate() {
        let (first, second) = (shorts(first), shorts(second));
        for r in 0..R {
            let query = _mm512_set1_epi32(queries[r][pair]);
            dots[r][0] = _mm512_dpwssd_epi32(dots[r][0], first, query);
            dots[r][1] = _mm512_dpwssd_epi32(dots[r][1], second, query);
        }
    }
    dots
}

/// The weighted sums of the values in units of 2^largest, and the sums of the weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn weigh<const R: usize>(
    rows: &[Row<'_>; R],
    (blocks, first): (&[Block<'_>], usize),
    found: &Found<R>,
    scores: &[[[f32; VALUES]; R]],
    sums: &mut [[[f32; KEYS]; HEAD_SIZE_MAX / KEYS]; R],
) -> [f32; R] {
    let mut totals = [_mm512_setzero_ps(); R];
    let below = _mm512_set1_epi32(found.largest);
    for (index, (block, scores)) in blocks.iter().zip(scores).enumerate() {
        let exponents = block.value_exponents.as_chunks::<KEYS>().0;
        let powers: [_; 2] = std::array::from_fn(|half| {
            _mm512_cvtepi32_ps(_mm512_sub_epi32(words(&exponents[half]), below))
        });
        let mut weights = [Weights::NONE; R];
        for r in 0..R {
            let most = _mm512_set1_ps(found.most[r]);
            let (masks, scores) = (
                masks(&rows[r], first + index),
                scores[r].as_chunks::<KEYS>().0,
            );
            let mut scaled = [_mm512_setzero_ps(); 2];
            for half in 0..2 {
                let weights = exp(_mm512_sub_ps(floats(&scores[half]), most));
                let weights = _mm512_maskz_mov_ps(masks[half], weights);
                totals[r] = _mm512_add_ps(totals[r], weights);
                let scaled_weights = _mm512_scalef_ps(weights, powers[half]);
                // What is not seen may have any exponent.
                scaled[half] = _mm512_maskz_mov_ps(masks[half], scaled_weights);
            }
            weights[r] = Weights::of(scaled);
        }
        let size = rows[0].query.len();
        let (mut group, groups) = (0, size / KEYS);
        while group + GROUPS <= groups {
            add::<GROUPS, R>(block.values, (size, group), &weights, sums);
            group += GROUPS;
        }
        while group < groups {
            add::<1, R>(block.values, (size, group), &weights, sums);
            group += 1;
        }
    }
    totals.map(|total| _mm512_reduce_add_ps(total))
}

/// A block's weights, two positions a word, in units of a scale.
#[derive(Clone, Copy)]
struct Weights {
    words: [i32; VALUES / 2],
    unit: f32,
}

impl Weights {
    const NONE: Self = Self {
        words: [0; VALUES / 2],
        unit: 0.0,
    };

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "vector stores take pointers")]
    fn of(weights: [__m512; 2]) -> Self {
        let most = _mm512_reduce_max_ps(_mm512_max_ps(weights[0], weights[1]));
        // Weights so small that the division would not be finite are nothing beside the others.
        if most < 1e-30 {
            return Self::NONE;
        }
        let mut out = Self {
            words: [0; VALUES / 2],
            unit: most / WEIGHT_MAX,
        };
        let units = _mm512_set1_ps(WEIGHT_MAX / most);
        let halves = out.words.as_chunks_mut::<8>().0;
        for (out, weights) in halves.iter_mut().zip(weights) {
            let weights = _mm512_cvtepi32_epi16(nearest(_mm512_mul_ps(weights, units)));
            // SAFETY: the array has the 32 bytes that are written, at any alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), weights) };
        }
        out
    }
}

/// Adds a block's values, `[pair of positions][dimension][2]`, in the groups of 16 dimensions from one on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn add<const G: usize, const R: usize>(
    values: &[i16],
    (size, first): (usize, usize),
    weights: &[Weights; R],
    sums: &mut [[[f32; KEYS]; HEAD_SIZE_MAX / KEYS]; R],
) {
    let mut of_block = [[_mm512_setzero_si512(); G]; R];
    for (pair, row) in values.chunks_exact(2 * size).take(VALUES / 2).enumerate() {
        let row = &row.as_chunks::<32>().0[first..first + G];
        let row: [_; G] = std::array::from_fn(|g| shorts(&row[g]));
        for r in 0..R {
            let weight = _mm512_set1_epi32(weights[r].words[pair]);
            for g in 0..G {
                of_block[r][g] = _mm512_dpwssd_epi32(of_block[r][g], row[g], weight);
            }
        }
    }
    for r in 0..R {
        let unit = _mm512_set1_ps(weights[r].unit);
        for g in 0..G {
            let sum = &mut sums[r][first + g];
            let more = _mm512_fmadd_ps(_mm512_cvtepi32_ps(of_block[r][g]), unit, floats(sum));
            // SAFETY: the array has the 64 bytes that are written, at any alignment.
            unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), more) };
        }
    }
}

/// The mean of the values.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
fn finish(out: &mut [f32], sums: &[[f32; KEYS]], total: f32, largest: i32) {
    let (part, power) = (_mm512_set1_ps(1.0 / total), _mm512_set1_ps(largest as f32));
    for (out, sum) in out.as_chunks_mut::<KEYS>().0.iter_mut().zip(sums) {
        // SAFETY: the arrays have the 64 bytes that are read and written, at any alignment.
        unsafe {
            let mean = _mm512_mul_ps(_mm512_loadu_ps(sum.as_ptr()), part);
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_scalef_ps(mean, power));
        }
    }
}
