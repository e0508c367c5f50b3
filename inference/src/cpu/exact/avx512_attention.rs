//! Attention with AVX-512 VNNI: rule 7, 32 positions at a time.
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
    _mm512_set1_ps, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_slli_epi32, _mm512_slli_epi64,
    _mm512_srai_epi16, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi16,
    _mm512_sub_epi32, _mm512_sub_ps,
};

use super::HEAD_SIZE_MAX;
use super::attention::{Block, Head, HeadCache, KEYS, Row, VALUES, one_by_one};
use crate::arithmetic::{EXP_STEPS, NOT_FINITE, ROUNDER, TINY, int_to_float};
use crate::exact::ScoreScale;

/// A query's halves, q = 256 · high + low, two dimensions a word.
struct Halves {
    high: [i32; HEAD_SIZE_MAX / 2],
    low: [i32; HEAD_SIZE_MAX / 2],
}

impl Halves {
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

/// The products of a query with a block's keys, one rounding each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni")]
fn products(query: &Halves, keys: &[i16], size: usize) -> [__m512; 2] {
    let (first, second) = keys.split_at(KEYS * size);
    let pairs = first.as_chunks::<32>().0.iter();
    let pairs = pairs.zip(second.as_chunks::<32>().0);
    let mut high = [_mm512_setzero_si512(); 2];
    let mut low = [_mm512_setzero_si512(); 2];
    for ((first, second), (of_high, of_low)) in pairs.zip(query.high.iter().zip(&query.low)) {
        let (of_high, of_low) = (_mm512_set1_epi32(*of_high), _mm512_set1_epi32(*of_low));
        let (first, second) = (shorts(first), shorts(second));
        high[0] = _mm512_dpwssd_epi32(high[0], first, of_high);
        high[1] = _mm512_dpwssd_epi32(high[1], second, of_high);
        low[0] = _mm512_dpwssd_epi32(low[0], first, of_low);
        low[1] = _mm512_dpwssd_epi32(low[1], second, of_low);
    }
    [
        rounded(widen::<8>(high[0], low[0])),
        rounded(widen::<8>(high[1], low[1])),
    ]
}

/// Which positions of a block count, of its first 16 and of the rest.
fn masks(cache: &HeadCache<'_>, block: usize) -> [__mmask16; 2] {
    let at = block * VALUES;
    let (from, to) = (
        cache.first.saturating_sub(at).min(VALUES),
        (cache.positions - at).min(VALUES),
    );
    let below = |count: usize| (1u64 << count) - 1;
    let mask = below(to) & !below(from);
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

/// What the first pass over the positions finds.
struct Found {
    most: f32,
    /// The largest of the values' exponents.
    largest: i32,
}

/// Scores of all positions, and the largest ones; `None` if one that counts is not finite.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn scores(head: &Head<'_>, cache: &HeadCache<'_>, scores: &mut [[f32; KEYS]]) -> Option<Found> {
    let query = Halves::of(head.query);
    let (power, factor) = match head.scale {
        ScoreScale::Power(power) => (head.exponent - power, None),
        ScoreScale::Factor(factor) => (head.exponent, Some(_mm512_set1_ps(factor))),
    };
    let power = _mm512_set1_epi32(power);
    let mut most = _mm512_set1_ps(f32::MIN);
    let mut magnitude = _mm512_setzero_si512();
    let mut largest = _mm512_set1_epi32(i32::MIN);
    let blocks = cache.blocks.iter().zip(scores.as_chunks_mut::<2>().0);
    for (index, (block, scores)) in blocks.enumerate() {
        // The hardware's look-ahead ends with the block's page.
        if let Some(next) = cache.blocks.get(index + 1) {
            prefetch(next.keys);
        }
        prefetch(block.values);
        let products = products(&query, block.keys, head.query.len());
        let masks = masks(cache, index);
        for half in 0..2 {
            let exponents = words(&block.key_exponents.as_chunks::<KEYS>().0[half]);
            let mut score = scale2(products[half], _mm512_add_epi32(exponents, power));
            if let Some(factor) = factor {
                score = flush(_mm512_mul_ps(score, factor));
            }
            // SAFETY: the array has the 64 bytes that are written, at any alignment.
            unsafe { _mm512_storeu_ps(scores[half].as_mut_ptr(), score) };
            let mask = masks[half];
            let bits = _mm512_castps_si512(_mm512_abs_ps(score));
            magnitude = _mm512_mask_max_epu32(magnitude, mask, magnitude, bits);
            most = _mm512_mask_max_ps(most, mask, most, score);
            let exponents = words(&block.value_exponents.as_chunks::<KEYS>().0[half]);
            largest = _mm512_mask_max_epi32(largest, mask, largest, exponents);
        }
    }
    (_mm512_reduce_max_epu32(magnitude) < NOT_FINITE).then(|| Found {
        most: _mm512_reduce_max_ps(most),
        largest: _mm512_reduce_max_epi32(largest),
    })
}

/// Blocks whose weights, as integers of 2^21 at most, 32 bits can add up.
const BLOCKS_OF_TOTAL: usize = 16;

/// Rule 7 for rows of one query head.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn attend(
    rows: &mut [Row<'_>],
    blocks: &[Block<'_>],
    scale: ScoreScale,
    scratch: &mut Vec<f32>,
) {
    one_by_one(rows, blocks, scale, |head, cache, out| {
        attend_one(head, cache, scratch, out)
    });
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn attend_one(
    head: &Head<'_>,
    cache: &HeadCache<'_>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) -> bool {
    let size = head.query.len();
    let count = cache.blocks.len() * VALUES;
    if scratch.len() < count {
        scratch.resize(count, 0.0);
    }
    let of_scores = scratch[..count].as_chunks_mut::<KEYS>().0;
    let Some(Found { most, largest }) = scores(head, cache, of_scores) else {
        return false;
    };
    let most = _mm512_set1_ps(most);
    // 2^21 times the weight is its integer.
    let (one, below) = (_mm512_set1_ps(2_097_152.0), _mm512_set1_epi32(21 - largest));
    let mut total = 0i64;
    let mut sums = [[0i64; 8]; HEAD_SIZE_MAX / 8];
    let blocks = cache.blocks.iter().zip(of_scores.as_chunks::<2>().0);
    let mut part = _mm512_setzero_si512();
    for (index, (block, scores)) in blocks.enumerate() {
        let Block {
            values,
            value_exponents,
            ..
        } = block;
        let masks = masks(cache, index);
        let mut coefficients = [_mm512_setzero_si512(); 2];
        for half in 0..2 {
            let weights = exp(_mm512_sub_ps(floats(&scores[half]), most));
            let weights = _mm512_maskz_mov_ps(masks[half], weights);
            part = _mm512_add_epi32(part, nearest(_mm512_mul_ps(weights, one)));
            let exponents = words(&value_exponents.as_chunks::<KEYS>().0[half]);
            let powers = _mm512_cvtepi32_ps(_mm512_add_epi32(exponents, below));
            coefficients[half] = nearest(_mm512_scalef_ps(weights, powers));
        }
        if index % BLOCKS_OF_TOTAL == BLOCKS_OF_TOTAL - 1 {
            total += i64::from(_mm512_reduce_add_epi32(part));
            part = _mm512_setzero_si512();
        }
        let coefficients = Coefficients::of(coefficients);
        let (mut first, groups) = (0, size / KEYS);
        while first + 4 <= groups {
            let sums = &mut sums[2 * first..][..8];
            weigh::<4>(values, (size, first), &coefficients, sums);
            first += 4;
        }
        while first < groups {
            let sums = &mut sums[2 * first..][..2];
            weigh::<1>(values, (size, first), &coefficients, sums);
            first += 1;
        }
    }
    total += i64::from(_mm512_reduce_add_epi32(part));
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
    true
}
