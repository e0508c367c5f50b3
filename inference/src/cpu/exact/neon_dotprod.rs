//! Dot products by `sdot`, which adds four products of signed bytes to each of four sums.
//! A quad's weights lie in a register as it takes them, and an element of another has the activations.

use std::arch::aarch64::{int8x16_t, int32x4_t, vaddq_s32, vdupq_n_s32, vshlq_n_s32};
use std::arch::asm;

use super::activations::{Bytes, Planes, Shorts};
use super::neon_products::products_at;
use super::neon_weights::bytes;

/// Adds four quads times the 16 columns of a register. The intrinsics of `sdot` are not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
#[expect(unsafe_code, reason = "assembly")]
fn add(mut sums: int32x4_t, [a, b, c, d]: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic in registers, of an extension that the function has.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {x:v}.4b[0]",
            "sdot {sums:v}.4s, {b:v}.16b, {x:v}.4b[1]",
            "sdot {sums:v}.4s, {c:v}.16b, {x:v}.4b[2]",
            "sdot {sums:v}.4s, {d:v}.16b, {x:v}.4b[3]",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            c = in(vreg) c,
            d = in(vreg) d,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The products of quads of weights, the first of which is quad `first` of its block, with a plane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn of_plane(mut sums: int32x4_t, weights: &[int8x16_t], plane: &Bytes, first: usize) -> int32x4_t {
    let plane = &plane.as_chunks::<16>().0[first / 4..];
    for (weights, x) in weights.as_chunks::<4>().0.iter().zip(plane) {
        sums = add(sums, *weights, bytes(x));
    }
    sums
}

/// The products of quads of weights with a token in planes, and what is missing.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot<const BIAS: i32>(
    weights: &[int8x16_t],
    (planes, _): (&Planes, &Shorts),
    first: usize,
    missing: i32,
) -> int32x4_t {
    let high = of_plane(vdupq_n_s32(0), weights, &planes.high, first);
    if BIAS == 0 {
        return of_plane(vshlq_n_s32::<8>(high), weights, &planes.low, first);
    }
    let low = of_plane(vdupq_n_s32(missing), weights, &planes.low, first);
    vaddq_s32(vshlq_n_s32::<8>(high), low)
}

/// The products of quads of weights with a token in 8 bits.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn fast_dot<const BIAS: i32>(
    weights: &[int8x16_t],
    x: &Bytes,
    first: usize,
) -> int32x4_t {
    of_plane(vdupq_n_s32(0), weights, x, first)
}

products_at!(#[target_feature(enable = "neon,dotprod")], dot, true, fast_dot);
