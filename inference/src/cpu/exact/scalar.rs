//! Products and attention in plain Rust, for every CPU.
//! The reference for the kernels of `avx2.rs` and `avx512.rs`: the same integers by the plainest way.

use crate::arithmetic::round_small;
use crate::quant::f16_to_f32;

use super::activations::{ActivationBlock, Activations};
use super::attention::{self, Head, HeadCache};
use super::generic::finish;
use super::pack::{ByteBlock, Group, Layout, NibbleBlock, Packed, ROWS, row_of_lane};

/// One group of rows times all tokens.
pub(super) fn product(packed: &Packed, group: usize, x: &Activations, out: &mut [f32]) {
    let range = group * packed.blocks..(group + 1) * packed.blocks;
    let info = &packed.groups[group];
    let mut token = 0;
    while let Some(tile) = x.tile(token) {
        for offset in 0..tile.width {
            let mut sums = [0i64; ROWS];
            for block in 0..packed.blocks {
                let at = block * tile.width + offset;
                let (data, halves) = (&tile.data[at], tile.sums[at]);
                let at = range.start + block;
                match &packed.layout {
                    Layout::NibbleMinimum(b) => nibble(&b[at], info, data, halves, 0, &mut sums),
                    Layout::Nibble(b) => nibble(&b[at], info, data, halves, 8, &mut sums),
                    Layout::Byte(b) => byte(&b[at], data, &mut sums),
                    Layout::ByteMinimum(b) => byte_minimum(&b[at], data, halves, &mut sums),
                    Layout::ByteHalves(b) => byte_halves(&b[at], data, &mut sums),
                }
            }
            let out = &mut out[(token + offset) * ROWS..][..ROWS];
            finish(&sums, info, tile.exponents[offset], out);
        }
        token += tile.width;
    }
}

fn nibble(
    block: &NibbleBlock,
    group: &Group,
    x: &ActivationBlock,
    halves: [i32; 2],
    bias: i32,
    sums: &mut [i64; ROWS],
) {
    let total = halves[0] + halves[1];
    let mut dots = [-bias * total; ROWS];
    for (line, weights) in block.weights.iter().enumerate() {
        for (dot, weights) in dots.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (c, weight) in weights.iter().enumerate() {
                *dot += i32::from(weight & 15) * i32::from(x.q[8 * line + c]);
                *dot += i32::from(weight >> 4) * i32::from(x.q[8 * line + 4 + c]);
            }
        }
    }
    for (lane, dot) in dots.iter().enumerate() {
        let coefficient = |half: u16| round_small(f16_to_f32(half) * group.unit[lane]);
        let scale = i64::from(coefficient(block.scale[lane])) * i64::from(*dot);
        let minimum = i64::from(coefficient(block.minimum[lane])) * i64::from(total);
        sums[row_of_lane(lane)] += scale + minimum;
    }
}

/// Dot products of the columns of some lines.
#[inline(always)]
fn dots<const C: usize>(
    block: &ByteBlock<C>,
    x: &ActivationBlock,
    lines: std::ops::Range<usize>,
) -> [i32; ROWS] {
    let mut dots = [0; ROWS];
    for line in lines {
        let weights = block.weights[line].as_chunks::<4>().0;
        for (dot, weights) in dots.iter_mut().zip(weights) {
            for (c, weight) in weights.iter().enumerate() {
                let weight = (weight ^ 0x80).cast_signed();
                *dot += i32::from(weight) * i32::from(x.q[4 * line + c]);
            }
        }
    }
    dots
}

fn add_scaled(sums: &mut [i64; ROWS], coefficients: &[i32; ROWS], dots: &[i32; ROWS]) {
    for (lane, (coefficient, dot)) in coefficients.iter().zip(dots).enumerate() {
        sums[row_of_lane(lane)] += i64::from(*coefficient) * i64::from(*dot);
    }
}

fn byte(block: &ByteBlock<1>, x: &ActivationBlock, sums: &mut [i64; ROWS]) {
    add_scaled(sums, &block.coefficients[0], &dots(block, x, 0..8));
}

fn byte_minimum(
    block: &ByteBlock<2>,
    x: &ActivationBlock,
    halves: [i32; 2],
    sums: &mut [i64; ROWS],
) {
    add_scaled(sums, &block.coefficients[0], &dots(block, x, 0..8));
    add_scaled(sums, &block.coefficients[1], &[halves[0] + halves[1]; ROWS]);
}

fn byte_halves(block: &ByteBlock<2>, x: &ActivationBlock, sums: &mut [i64; ROWS]) {
    add_scaled(sums, &block.coefficients[0], &dots(block, x, 0..4));
    add_scaled(sums, &block.coefficients[1], &dots(block, x, 4..8));
}

/// Rule 7 for one query head.
pub(super) fn attend(
    head: &Head<'_>,
    cache: &HeadCache<'_>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) -> bool {
    attention::attend(head, cache, scratch, out, attention::dots, attention::weigh)
}
