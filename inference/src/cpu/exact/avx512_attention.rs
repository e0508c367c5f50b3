//! Attention with AVX-512 VNNI: rule 7, several rows at once, 32 positions at a time.
//! The integers and floats are those of `attention.rs`: sums of halves in 32 bits, joined to 64; steps whose flush
//! cannot show are left out, as in `arithmetic::exp`.

use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _CMP_NLE_UQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _MM_HINT_T1, _mm_prefetch, _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32,
    _mm512_add_epi64, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castps256_ps512,
    _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_cmpgt_epu32_mask,
    _mm512_cvt_roundps_epi32, _mm512_cvtepi32_epi16, _mm512_cvtepi32_epi64, _mm512_cvtepi32_ps,
    _mm512_cvtepi64_ps, _mm512_div_ps, _mm512_dpwssd_epi32, _mm512_extracti64x4_epi64,
    _mm512_insertf32x8, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_max_epi32,
    _mm512_mask_max_epu32, _mm512_mask_max_ps, _mm512_maskz_mov_epi32, _mm512_maskz_mov_ps,
    _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_epi32,
    _mm512_reduce_max_epu32, _mm512_reduce_max_ps, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_slli_epi32,
    _mm512_slli_epi64, _mm512_srai_epi16, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_epi16, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::HEAD_SIZE_MAX;
use super::attention::{Block, KEYS, Row, VALUES};
use crate::arithmetic::{EXP_STEPS, NOT_FINITE, ROUNDER, TINY, int_to_float};
use crate::exact::ScoreScale;

/// A query's halves, q = 256 · high + low, two dimensions a word.
struct Halves {
    high: [i32; HEAD_SIZE_MAX / 2],
    low: [i32; HEAD_SIZE_MAX / 2],
}

impl Halves {
    const ZERO: Self = Self {
        high: [0; HEAD_SIZE_MAX / 2],
        low: [0; HEAD_SIZE_MAX / 2],
    };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    fn of(query: &[i16]) -> Self {
        let mut padded = [0i16; HEAD_SIZE_MAX];
        padded[..query.len()].copy_from_slice(query);
        let (mut high, mut low) = ([0; HEAD_SIZE_MAX / 2], [0; HEAD_SIZE_MAX / 2]);
        let words = high.as_chunks_mut::<16>().0.iter_mut();
        let words = words.zip(low.as_chunks_mut::<16>().0);
        for (values, (high, low)) in padded.as_chunks::<32>().0.iter().zip(words) {
            // SAFETY: the arrays have the 64 bytes that are read and written, at any alignment.
            unsafe {
                let q = _mm512_loadu_si512(values.as_ptr().cast());
                let lows = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(q));
                let highs = _mm512_srai_epi16::<8>(_mm512_sub_epi16(q, lows));
                _mm512_storeu_si512(high.as_mut_ptr().cast(), highs);
                _mm512_storeu_si512(low.as_mut_ptr().cast(), lows);
            }
        }
        Self { high, low }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn shorts(values: &[i16; 32]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn words(words: &[i32; 16]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn floats(floats: &[f32; 16]) -> __m512 {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}

/// `high · 2^SHIFT + low` of each lane, as 64 bits: lanes 0 to 7 and 8 to 15.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen<const SHIFT: u32>(high: __m512i, low: __m512i) -> [__m512i; 2] {
    let join = |high, low| {
        let high = _mm512_slli_epi64::<SHIFT>(_mm512_cvtepi32_epi64(high));
        _mm512_add_epi64(high, _mm512_cvtepi32_epi64(low))
    };
    let upper = |vector| _mm512_extracti64x4_epi64::<1>(vector);
    [
        join(_mm512_castsi512_si256(high), _mm512_castsi512_si256(low)),
        join(upper(high), upper(low)),
    ]
}

/// One rounding of each.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn rounded([first, second]: [__m512i; 2]) -> __m512 {
    let (first, second) = (_mm512_cvtepi64_ps(first), _mm512_cvtepi64_ps(second));
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(first), second)
}

/// Rule 1's flush; NaN stays.
#[inline]
#[target_feature(enable = "avx512f")]
fn flush(values: __m512) -> __m512 {
    let normal = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(_mm512_abs_ps(values), _mm512_set1_ps(TINY));
    _mm512_maskz_mov_ps(normal, values)
}

/// `scale2` of each lane: what rounding below 2^-126 may do is flushed.
#[inline]
#[target_feature(enable = "avx512f")]
fn scale2(values: __m512, powers: __m512i) -> __m512 {
    flush(_mm512_scalef_ps(values, _mm512_cvtepi32_ps(powers)))
}

/// Rule 8 of values up to 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    let set = |bits| _mm512_set1_ps(f32::from_bits(bits));
    let x = _mm512_max_ps(_mm512_set1_ps(-87.0), x);
    let rounder = _mm512_set1_ps(ROUNDER);
    let rounded = _mm512_add_ps(_mm512_mul_ps(x, set(0x3fb8_aa3b)), rounder);
    let n = _mm512_sub_ps(rounded, rounder);
    let r = _mm512_sub_ps(x, _mm512_mul_ps(n, set(0x3f31_8000)));
    let r = _mm512_sub_ps(r, _mm512_mul_ps(n, set(0xb95e_8083)));
    let mut p = set(EXP_STEPS[0]);
    for bits in &EXP_STEPS[1..] {
        p = _mm512_add_ps(_mm512_mul_ps(p, r), set(*bits));
    }
    let e = _mm512_add_ps(_mm512_mul_ps(p, _mm512_mul_ps(r, r)), r);
    let e = _mm512_castps_si512(_mm512_add_ps(e, _mm512_set1_ps(1.0)));
    let powers = _mm512_sub_epi32(_mm512_castps_si512(rounded), _mm512_castps_si512(rounder));
    let bits = _mm512_add_epi32(e, _mm512_slli_epi32::<23>(powers));
    let normal = _mm512_cmpgt_epu32_mask(bits, _mm512_set1_epi32(TINY.to_bits().cast_signed()));
    _mm512_castsi512_ps(_mm512_maskz_mov_epi32(normal, bits))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn nearest(values: __m512) -> __m512i {
    _mm512_cvt_roundps_epi32::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(values)
}

/// The products of queries with a block's keys, one rounding each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni")]
fn products<const R: usize>(queries: &[Halves; R], keys: &[i16], size: usize) -> [[__m512; 2]; R] {
    let (first, second) = keys.split_at(KEYS * size);
    let pairs = first.as_chunks::<32>().0.iter();
    let pairs = pairs
        .zip(second.as_chunks::<32>().0)
        .take(HEAD_SIZE_MAX / 2);
    let mut high = [[_mm512_setzero_si512(); 2]; R];
    let mut low = [[_mm512_setzero_si512(); 2]; R];
    for (pair, (first, second)) in pairs.enumerate() {
        let (first, second) = (shorts(first), shorts(second));
        for (r, query) in queries.iter().enumerate() {
            let of_high = _mm512_set1_epi32(query.high[pair]);
            let of_low = _mm512_set1_epi32(query.low[pair]);
            high[r][0] = _mm512_dpwssd_epi32(high[r][0], first, of_high);
            high[r][1] = _mm512_dpwssd_epi32(high[r][1], second, of_high);
            low[r][0] = _mm512_dpwssd_epi32(low[r][0], first, of_low);
            low[r][1] = _mm512_dpwssd_epi32(low[r][1], second, of_low);
        }
    }
    let mut out = [[_mm512_setzero_ps(); 2]; R];
    for (out, (high, low)) in out.iter_mut().zip(high.into_iter().zip(low)) {
        for half in 0..2 {
            out[half] = rounded(widen::<8>(high[half], low[half]));
        }
    }
    out
}

/// Which of a block's positions a row sees, of its first 16 and of the rest.
#[inline]
pub(super) fn masks(row: &Row<'_>, block: usize) -> [__mmask16; 2] {
    let at = block * VALUES;
    let below = |position: usize| (1u64 << position.saturating_sub(at).min(VALUES)) - 1;
    let mask = below(row.seen.end) & !below(row.seen.start);
    [mask, mask >> 16].map(|half| __mmask16::try_from(half & 0xffff).unwrap_or(0))
}

/// Adds a block's values, each times its coefficient of at most 2^21.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
fn weigh<const G: usize>(
    values: &[i16],
    (stride, first): (usize, usize),
    coefficients: &Coefficients,
    sums: &mut [[i64; 8]],
) {
    let (mut high, mut low) = ([_mm512_setzero_si512(); G], [_mm512_setzero_si512(); G]);
    let rows = values.chunks_exact(2 * stride);
    let words = coefficients.high.iter().zip(&coefficients.low);
    for (row, (of_high, of_low)) in rows.zip(words) {
        let (of_high, of_low) = (_mm512_set1_epi32(*of_high), _mm512_set1_epi32(*of_low));
        let row = &row.as_chunks::<32>().0[first..first + G];
        for g in 0..G {
            let values = shorts(&row[g]);
            high[g] = _mm512_dpwssd_epi32(high[g], values, of_high);
            low[g] = _mm512_dpwssd_epi32(low[g], values, of_low);
        }
    }
    for (g, sums) in sums.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        for (sums, more) in sums.iter_mut().zip(widen::<11>(high[g], low[g])) {
            // SAFETY: the array has the 64 bytes that are read and written, at any alignment.
            unsafe {
                let before = _mm512_loadu_si512(sums.as_ptr().cast());
                _mm512_storeu_si512(sums.as_mut_ptr().cast(), _mm512_add_epi64(before, more));
            }
        }
    }
}

/// Coefficients of 22 bits as c = 2^11 · high + low, two positions a word: 32 products of 11 and 16 bits fit 32 bits.
struct Coefficients {
    high: [i32; VALUES / 2],
    low: [i32; VALUES / 2],
}

impl Coefficients {
    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "vector stores take pointers")]
    fn of(coefficients: [__m512i; 2]) -> Self {
        let mut out = Self {
            high: [0; VALUES / 2],
            low: [0; VALUES / 2],
        };
        let halves = out.high.as_chunks_mut::<8>().0.iter_mut();
        let halves = halves.zip(out.low.as_chunks_mut::<8>().0);
        for (vector, (high, low)) in coefficients.into_iter().zip(halves) {
            let highs = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<11>(vector));
            let lows = _mm512_cvtepi32_epi16(_mm512_and_si512(vector, _mm512_set1_epi32(2047)));
            // SAFETY: the arrays have the 32 bytes that are written, at any alignment.
            unsafe {
                _mm256_storeu_si256(high.as_mut_ptr().cast(), highs);
                _mm256_storeu_si256(low.as_mut_ptr().cast(), lows);
            }
        }
        out
    }
}

/// Asks for values that are soon needed.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch(values: &[i16]) {
    for line in values.as_chunks::<32>().0 {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
}

/// What the first pass over the positions finds of each row.
struct Found<const R: usize> {
    /// Whether all scores that count are finite.
    fine: [bool; R],
    most: [f32; R],
    /// The largest of the values' exponents.
    largest: [i32; R],
}

/// Scores of all positions, in parts of 32, and the largest ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn score<const R: usize>(
    rows: &[Row<'_>; R],
    (blocks, first): (&[Block<'_>], usize),
    scale: ScoreScale,
    scores: &mut [[[f32; VALUES]; R]],
) -> Found<R> {
    let mut queries = [const { Halves::ZERO }; R];
    let mut powers = [_mm512_setzero_si512(); R];
    let (power, factor) = match scale {
        ScoreScale::Power(power) => (power, None),
        ScoreScale::Factor(factor) => (0, Some(_mm512_set1_ps(factor))),
    };
    for (r, row) in rows.iter().enumerate() {
        queries[r] = Halves::of(row.query);
        powers[r] = _mm512_set1_epi32(row.exponent - power);
    }
    let size = rows.first().map_or(0, |row| row.query.len());
    let mut most = [_mm512_set1_ps(f32::MIN); R];
    let mut magnitude = [_mm512_setzero_si512(); R];
    let mut largest = [_mm512_set1_epi32(i32::MIN); R];
    for (index, (block, scores)) in blocks.iter().zip(scores).enumerate() {
        // The hardware's look-ahead ends with the block's page.
        if let Some(next) = blocks.get(index + 1) {
            prefetch(next.keys);
        }
        prefetch(block.values);
        let products = products(&queries, block.keys, size);
        for (r, row) in rows.iter().enumerate() {
            let masks = masks(row, first + index);
            let scores = scores[r].as_chunks_mut::<KEYS>().0;
            for half in 0..2 {
                let exponents = words(&block.key_exponents.as_chunks::<KEYS>().0[half]);
                let powers = _mm512_add_epi32(exponents, powers[r]);
                let mut score = scale2(products[r][half], powers);
                if let Some(factor) = factor {
                    score = flush(_mm512_mul_ps(score, factor));
                }
                // SAFETY: the array has the 64 bytes that are written, at any alignment.
                unsafe { _mm512_storeu_ps(scores[half].as_mut_ptr(), score) };
                let mask = masks[half];
                let bits = _mm512_castps_si512(_mm512_abs_ps(score));
                magnitude[r] = _mm512_mask_max_epu32(magnitude[r], mask, magnitude[r], bits);
                most[r] = _mm512_mask_max_ps(most[r], mask, most[r], score);
                let exponents = words(&block.value_exponents.as_chunks::<KEYS>().0[half]);
                largest[r] = _mm512_mask_max_epi32(largest[r], mask, largest[r], exponents);
            }
        }
    }
    let mut found = Found {
        fine: [false; R],
        most: [0.0; R],
        largest: [0; R],
    };
    for r in 0..R {
        found.fine[r] = _mm512_reduce_max_epu32(magnitude[r]) < NOT_FINITE;
        found.most[r] = _mm512_reduce_max_ps(most[r]);
        found.largest[r] = _mm512_reduce_max_epi32(largest[r]);
    }
    found
}

/// Blocks whose weights, as integers of 2^21 at most, 32 bits can add up.
const BLOCKS_OF_TOTAL: usize = 16;
/// Rows that share the loads of keys.
const ROWS_AT_ONCE: usize = 4;

/// Rule 7 for rows that have keys and values in common: of one query head, or of those of one kv head.
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

/// Weights of the positions that a row sees in a block: as integers of 2^21 for their sum, and with the values'
/// exponents, `powers` being 21 less the largest of them.
#[inline]
#[target_feature(enable = "avx512f")]
fn weights(
    scores: &[f32; VALUES],
    (most, powers): (__m512, __m512i),
    masks: [__mmask16; 2],
    exponents: &[i32; VALUES],
) -> (__m512i, [__m512i; 2]) {
    let mut total = _mm512_setzero_si512();
    let mut coefficients = [_mm512_setzero_si512(); 2];
    for half in 0..2 {
        let scores = floats(&scores.as_chunks::<KEYS>().0[half]);
        let weights = _mm512_maskz_mov_ps(masks[half], exp(_mm512_sub_ps(scores, most)));
        let whole = _mm512_mul_ps(weights, _mm512_set1_ps(2_097_152.0));
        total = _mm512_add_epi32(total, nearest(whole));
        let exponents = words(&exponents.as_chunks::<KEYS>().0[half]);
        let powers = _mm512_cvtepi32_ps(_mm512_add_epi32(exponents, powers));
        coefficients[half] = nearest(_mm512_scalef_ps(weights, powers));
    }
    (total, coefficients)
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
    let size = rows.first().map_or(0, |row| row.query.len());
    let mut totals = [0i64; R];
    let mut parts = [_mm512_setzero_si512(); R];
    let mut sums = [[[0i64; 8]; HEAD_SIZE_MAX / 8]; R];
    for (index, (block, scores)) in blocks.iter().zip(scores).enumerate() {
        for (r, row) in rows.iter().enumerate() {
            let (most, below) = (found.most[r], 21i32.wrapping_sub(found.largest[r]));
            let of_row = (_mm512_set1_ps(most), _mm512_set1_epi32(below));
            let masks = masks(row, first + index);
            let (part, coefficients) = weights(&scores[r], of_row, masks, block.value_exponents);
            parts[r] = _mm512_add_epi32(parts[r], part);
            if index % BLOCKS_OF_TOTAL == BLOCKS_OF_TOTAL - 1 {
                totals[r] += i64::from(_mm512_reduce_add_epi32(parts[r]));
                parts[r] = _mm512_setzero_si512();
            }
            let coefficients = Coefficients::of(coefficients);
            let (mut first, groups) = (0, size / KEYS);
            while first + 4 <= groups {
                let sums = &mut sums[r][2 * first..][..8];
                weigh::<4>(block.values, (size, first), &coefficients, sums);
                first += 4;
            }
            while first < groups {
                let sums = &mut sums[r][2 * first..][..2];
                weigh::<1>(block.values, (size, first), &coefficients, sums);
                first += 1;
            }
        }
    }
    for (r, row) in rows.iter_mut().enumerate() {
        row.fine = found.fine[r];
        if row.fine {
            let total = totals[r] + i64::from(_mm512_reduce_add_epi32(parts[r]));
            finish(row.out, &sums[r], total, found.largest[r]);
        }
    }
}

/// Sums of values times weights, divided by the weights' sum.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
fn finish(out: &mut [f32], sums: &[[i64; 8]], total: i64, largest: i32) {
    let total = _mm512_set1_ps(int_to_float(total));
    let sums = sums.as_chunks::<2>().0.iter();
    for (out, sums) in out.as_chunks_mut::<KEYS>().0.iter_mut().zip(sums) {
        // SAFETY: the arrays have the 64 bytes that are read and written, at any alignment.
        unsafe {
            let [first, second] = [0, 1].map(|i| _mm512_loadu_si512(sums[i].as_ptr().cast()));
            let mean = flush(_mm512_div_ps(rounded([first, second]), total));
            _mm512_storeu_ps(out.as_mut_ptr(), scale2(mean, _mm512_set1_epi32(largest)));
        }
    }
}
