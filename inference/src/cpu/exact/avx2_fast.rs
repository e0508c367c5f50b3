//! The fast profile's products with AVX2: one plane of activations, sums in f32, 8 rows at a time.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi8, _mm256_add_epi32,
    _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps, _mm256_sub_epi32,
};

use crate::arithmetic::scale2;

use super::activations::{Activations, Bytes, Tile};
use super::avx2::{bytes32, four, line, words};
use super::fast::powers;
use super::pack::{
    BYTES, Block, Group, Kind, MINIMUM, PLANE_COEFFICIENTS, Packed, ROWS, Scales, View, excess,
    parts, row_of_lane, with_layout,
};

/// Groups of rows times all tokens.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn product(packed: &Packed, first: usize, x: &Activations, out: &mut [f32]) {
    let groups = out.chunks_exact_mut(x.tokens() * ROWS);
    for (group, out) in (first..).zip(groups) {
        product_of_group(packed, group, x, out);
    }
}

#[target_feature(enable = "avx2,f16c")]
fn product_of_group(packed: &Packed, group: usize, x: &Activations, out: &mut [f32]) {
    let range = group * packed.blocks..(group + 1) * packed.blocks;
    let info = &packed.groups[group];
    let mut token = 0;
    while let Some(tile) = x.tile(token) {
        for offset in 0..tile.width {
            let out = &mut out[(token + offset) * ROWS..][..ROWS];
            let range = range.clone();
            with_layout!(&packed.layout, range, row_values, info, &tile, offset, out);
        }
        token += tile.width;
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn halves(halves: &[u16; ROWS], half: usize) -> __m256 {
    let eight = &halves.as_chunks::<8>().0[half];
    // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(eight.as_ptr().cast()) })
}

/// The first and the last scale of the lanes of a half, in units of the row's exponent but for halves.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales(scales: &impl Scales, half: usize) -> [__m256; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [
            _mm256_cvtepi32_ps(words(first, half)),
            _mm256_cvtepi32_ps(words(last, half)),
        ],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| _mm256_set1_ps(coefficient as f32)),
        View::Half(scale) => [halves(scale, half); 2],
        View::Halves(both) => [halves(&both.scale, half), halves(&both.minimum, half)],
    }
}

/// Σ w·q of the lanes of a half over a quad. Products of unsigned bytes are added in pairs of 16 bits: weights of
/// 8 bits go in as their distance from 128, with its sign on the activations, and what that leaves out is added.
#[inline]
#[target_feature(enable = "avx2")]
fn dot<const W: usize>(
    lines: &[[u8; 64]; W],
    x: &Bytes,
    (quad, column): (usize, usize),
    half: usize,
) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let q = four(x, column);
    if W < BYTES {
        let pairs = _mm256_maddubs_epi16(line(lines, quad, half), q);
        return _mm256_madd_epi16(pairs, ones);
    }
    let weights = bytes32(&lines[quad].as_chunks::<32>().0[half]);
    let signed = _mm256_add_epi8(weights, _mm256_set1_epi8(i8::MIN));
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(q, signed));
    _mm256_madd_epi16(pairs, ones)
}

/// What 8-bit weights as distances from 128 leave out.
const fn distance<const W: usize>() -> i32 {
    if W < BYTES { 0 } else { 128 }
}

/// The products of a group's rows with one token of a tile.
#[inline]
#[target_feature(enable = "avx2,f16c")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn row_values<S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    group: &Group,
    tile: &Tile<'_>,
    offset: usize,
    out: &mut [f32],
) {
    let mut values = [_mm256_setzero_ps(); 2];
    for (index, block) in blocks.iter().enumerate() {
        let at = index * tile.width + offset;
        let (x, step, sums) = (&tile.bytes[at], tile.steps[at], tile.sums[at]);
        let (parts, quads) = parts(KIND);
        for (half, values) in values.iter_mut().enumerate() {
            let scales = scales(&block.scales, half);
            for (part, scale) in scales.iter().enumerate().take(parts) {
                let mut sum = _mm256_setzero_si256();
                for quad in part * quads..(part + 1) * quads {
                    let of_quad = dot(&block.lines, x, (quad, quad % 8), half);
                    sum = _mm256_add_epi32(sum, of_quad);
                }
                let of_part = match quads {
                    4 => sums[part],
                    _ => sums[0] + sums[1],
                };
                let above = excess::<KIND, BIAS>(part, sums) - distance::<W>() * of_part;
                let dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(above)));
                let factor = _mm256_mul_ps(*scale, _mm256_set1_ps(step.scale));
                *values = _mm256_add_ps(*values, _mm256_mul_ps(dot, factor));
            }
            if KIND == MINIMUM {
                let minimum = _mm256_mul_ps(scales[1], _mm256_set1_ps(step.sum));
                *values = _mm256_add_ps(*values, minimum);
            }
        }
    }
    let powers = powers(blocks, group);
    let mut lanes = [0.0f32; ROWS];
    for (lanes, values) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(values) {
        // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), values) };
    }
    for (lane, value) in lanes.into_iter().enumerate() {
        let row = row_of_lane(lane);
        out[row] = scale2(value, powers[row]);
    }
}
