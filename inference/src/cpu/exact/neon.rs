//! Dot products by what every aarch64 has: products of bytes in 16 bits, and of 16 bits in 32.

use std::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vaddq_s32, vdupq_n_s16, vdupq_n_s32, vdupq_n_s64, vget_low_s8,
    vget_low_s16, vget_low_u8, vmlal_high_s8, vmlal_high_s16, vmlal_s8, vmlal_s16, vmovl_high_u8,
    vmovl_u8, vmull_high_s8, vmull_s8, vpadalq_s16, vpaddlq_s16, vpaddq_s32, vreinterpretq_s8_s32,
    vreinterpretq_s16_s64, vreinterpretq_s16_u16, vreinterpretq_u8_s8, vshlq_n_s32,
};

use super::activations::{Bytes, Planes, Shorts};
use super::neon_products::products_at;
use super::neon_weights::are_wide;

/// Four columns of a plane, for every lane.
#[inline]
#[target_feature(enable = "neon")]
fn four(plane: &Bytes, index: usize) -> int8x16_t {
    let bytes = plane.as_chunks::<4>().0[index];
    let word = i32::from_le_bytes(bytes.map(i8::cast_unsigned));
    vreinterpretq_s8_s32(vdupq_n_s32(word))
}

/// Four columns in 16 bits, twice.
#[inline]
#[target_feature(enable = "neon")]
fn four_shorts(x: &Shorts, index: usize) -> int16x8_t {
    let q = x.as_chunks::<4>().0[index].map(|q| u64::from(q.cast_unsigned()));
    let long = q[0] | q[1] << 16 | q[2] << 32 | q[3] << 48;
    vreinterpretq_s16_s64(vdupq_n_s64(long.cast_signed()))
}

/// Weights of up to 6 bits: sums of 16 bits hold 8 products with 5 bits, 8 · 31 · 128, or 4 with 6, 4 · 63 · 128.
#[inline]
#[target_feature(enable = "neon")]
fn of_plane(weights: &[int8x16_t], plane: &Bytes, first: usize) -> int32x4_t {
    let mut sums = [vdupq_n_s16(0); 2];
    for (index, weights) in (first..).zip(weights) {
        let x = four(plane, index);
        sums[0] = vmlal_s8(sums[0], vget_low_s8(*weights), vget_low_s8(x));
        sums[1] = vmlal_high_s8(sums[1], *weights, x);
    }
    let [low, high] = sums.map(|sums| vpaddlq_s16(sums));
    vpaddq_s32(low, high)
}

/// Weights of 8 bits, unsigned, with activations in 16.
#[inline]
#[target_feature(enable = "neon")]
fn of_shorts(weights: &[int8x16_t], x: &Shorts, first: usize) -> int32x4_t {
    let mut sums = [vdupq_n_s32(0); 4];
    for (index, weights) in (first..).zip(weights) {
        let x = four_shorts(x, index);
        let weights = vreinterpretq_u8_s8(*weights);
        let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(weights)));
        let high = vreinterpretq_s16_u16(vmovl_high_u8(weights));
        sums[0] = vmlal_s16(sums[0], vget_low_s16(low), vget_low_s16(x));
        sums[1] = vmlal_high_s16(sums[1], low, x);
        sums[2] = vmlal_s16(sums[2], vget_low_s16(high), vget_low_s16(x));
        sums[3] = vmlal_high_s16(sums[3], high, x);
    }
    vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]))
}

/// The products of quads of weights, the first of which is quad `first` of its block, with a token, and what is
/// missing.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dot<const BIAS: i32>(
    weights: &[int8x16_t],
    (planes, shorts): (&Planes, &Shorts),
    first: usize,
    missing: i32,
) -> int32x4_t {
    let dot = if are_wide(BIAS) {
        of_shorts(weights, shorts, first)
    } else {
        let high = vshlq_n_s32::<8>(of_plane(weights, &planes.high, first));
        vaddq_s32(high, of_plane(weights, &planes.low, first))
    };
    match BIAS {
        0 => dot,
        _ => vaddq_s32(dot, vdupq_n_s32(missing)),
    }
}

/// The products of quads of weights with a token in 8 bits, none of which is -128: so two of signed bytes fit 16
/// bits, 2 · 128 · 127.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn fast_dot<const BIAS: i32>(
    weights: &[int8x16_t],
    x: &Bytes,
    first: usize,
) -> int32x4_t {
    if !are_wide(BIAS) {
        return of_plane(weights, x, first);
    }
    let mut sums = [vdupq_n_s32(0); 2];
    for (index, [a, b]) in (first..).step_by(2).zip(weights.as_chunks::<2>().0) {
        let (x, y) = (four(x, index), four(x, index + 1));
        let low = vmull_s8(vget_low_s8(*a), vget_low_s8(x));
        let low = vmlal_s8(low, vget_low_s8(*b), vget_low_s8(y));
        let high = vmlal_high_s8(vmull_high_s8(*a, x), *b, y);
        sums = [vpadalq_s16(sums[0], low), vpadalq_s16(sums[1], high)];
    }
    vpaddq_s32(sums[0], sums[1])
}

products_at!(#[target_feature(enable = "neon")], dot, false, fast_dot);
