//! Attention with NEON: rule 7 of `attention.rs` with the two integer products by intrinsics.
//! Its floats are the plain loops, which the compiler widens.

use std::arch::aarch64::{
    int16x8_t, int64x2_t, vaddq_s64, vdupq_n_s32, vdupq_n_s64, vget_low_s16, vld1q_s16, vld1q_s64,
    vmlal_high_s16, vmlal_s16, vmull_high_s16, vmull_s16, vpadalq_s32, vpaddlq_s32,
    vreinterpretq_s16_s32, vshlq_n_s64, vst1q_s64,
};

use super::attention::{self, Block, KEYS, Row, VALUES};
use crate::exact::ScoreScale;

/// Rule 7 for rows of one query head.
#[target_feature(enable = "neon")]
pub(super) fn attend(
    rows: &mut [Row<'_>],
    blocks: &[Block<'_>],
    scale: ScoreScale,
    scratch: &mut Vec<f32>,
) {
    attention::one_by_one(rows, blocks, scale, |head, cache, out| {
        let dots = |query: &[i16], keys: &[i16]| dots(query, keys);
        let weigh = |values: &[i16], coefficients: &[i32], sums: &mut [i64]| {
            weigh(values, coefficients, sums);
        };
        attention::attend(head, cache, scratch, out, dots, weigh)
    });
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn shorts(shorts: &[i16; 8]) -> int16x8_t {
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_s16(shorts.as_ptr()) }
}

/// Two numbers, four times.
#[inline]
#[target_feature(enable = "neon")]
fn pair([first, second]: [i16; 2]) -> int16x8_t {
    let word = i32::from(first) & 0xffff | i32::from(second) << 16;
    vreinterpretq_s16_s32(vdupq_n_s32(word))
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn put(vector: int64x2_t, out: &mut [i64; 2]) {
    // SAFETY: the array has the 16 bytes that are written.
    unsafe { vst1q_s64(out.as_mut_ptr(), vector) };
}

/// The products of a query with 16 positions of keys. Rule 2 bounds both by 32639, so two products fit 32 bits.
#[inline]
#[target_feature(enable = "neon")]
fn dots(query: &[i16], keys: &[i16]) -> [i64; KEYS] {
    let mut sums = [vdupq_n_s64(0); KEYS / 2];
    let keys = keys.as_chunks::<{ 4 * KEYS }>().0;
    for ([a, b, c, d], keys) in query.as_chunks::<4>().0.iter().zip(keys) {
        let (x, y) = (pair([*a, *b]), pair([*c, *d]));
        let (first, second) = keys.as_chunks::<8>().0.split_at(KEYS / 4);
        let sums = sums.as_chunks_mut::<2>().0.iter_mut();
        for ((first, second), sums) in first.iter().zip(second).zip(sums) {
            let (first, second) = (shorts(first), shorts(second));
            let low = vmull_s16(vget_low_s16(first), vget_low_s16(x));
            let low = vmlal_s16(low, vget_low_s16(second), vget_low_s16(y));
            let high = vmlal_high_s16(vmull_high_s16(first, x), second, y);
            *sums = [vpadalq_s32(sums[0], low), vpadalq_s32(sums[1], high)];
        }
    }
    let mut out = [0; KEYS];
    for (out, sums) in out.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
        put(sums, out);
    }
    out
}

/// Dimensions whose sums stay in registers.
const DIMENSIONS: usize = 16;

/// Adds 32 positions of values, each times its coefficient of at most 2^21: c = 2^11 · high + low, so that 16
/// products of 11 and 16 bits fit 32.
#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn weigh(values: &[i16], coefficients: &[i32], sums: &mut [i64]) {
    let mut halves = [(vdupq_n_s32(0), vdupq_n_s32(0)); VALUES / 2]
        .map(|(high, low)| (vreinterpretq_s16_s32(high), vreinterpretq_s16_s32(low)));
    for (halves, two) in halves.iter_mut().zip(coefficients.as_chunks::<2>().0) {
        *halves = (
            pair(two.map(|it| narrow(it >> 11))),
            pair(two.map(|it| narrow(it & 2047))),
        );
    }
    let size = sums.len();
    for (group, sums) in sums.as_chunks_mut::<DIMENSIONS>().0.iter_mut().enumerate() {
        let mut high = [vdupq_n_s32(0); DIMENSIONS / 2];
        let mut low = [vdupq_n_s32(0); DIMENSIONS / 2];
        for (row, (of_high, of_low)) in values.chunks_exact(2 * size).zip(&halves) {
            let row = &row.as_chunks::<{ 2 * DIMENSIONS }>().0[group];
            for (i, values) in row.as_chunks::<8>().0.iter().enumerate() {
                let values = shorts(values);
                let first = vget_low_s16(values);
                let (i, j) = (2 * i, 2 * i + 1);
                high[i] = vmlal_s16(high[i], first, vget_low_s16(*of_high));
                high[j] = vmlal_high_s16(high[j], values, *of_high);
                low[i] = vmlal_s16(low[i], first, vget_low_s16(*of_low));
                low[j] = vmlal_high_s16(low[j], values, *of_low);
            }
        }
        let both = high.into_iter().zip(low);
        for (sums, (high, low)) in sums.as_chunks_mut::<2>().0.iter_mut().zip(both) {
            let more = vpadalq_s32(vshlq_n_s64::<11>(vpaddlq_s32(high)), low);
            // SAFETY: the array has the 16 bytes that are read.
            let before = unsafe { vld1q_s64(sums.as_ptr()) };
            put(vaddq_s64(before, more), sums);
        }
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "halves of a coefficient have 11 bits"
)]
fn narrow(half: i32) -> i16 {
    half as i16
}
