//! The fast profile's operations: 8-bit activations with a scale for 32 values, sums in f32.
//! In: the exact profile's packed weights, other activations. Out: f32 values, the same on one machine whatever the
//! number of threads or the batch. Other CPUs round otherwise: nothing that has to be run again stands on it.

use super::activations::{Activations, Bytes, Step};
use super::pack::{
    Block, Group, Kind, MINIMUM, PLANE_COEFFICIENTS, Packed, ROWS, Scales, View, excess, parts,
    row_of_lane, with_layout,
};
use super::scalar::line;
use crate::arithmetic::{NOT_FINITE, magnitude_bits, scale2};
use crate::quant::f16_to_f32;

/// Groups of rows times all tokens, in plain Rust.
pub(super) fn product(packed: &Packed, first: usize, x: &Activations, out: &mut [f32]) {
    let groups = out.chunks_exact_mut(x.tokens() * ROWS);
    for (group, out) in (first..).zip(groups) {
        product_of_group(packed, group, x, out);
    }
}

fn product_of_group(packed: &Packed, group: usize, x: &Activations, out: &mut [f32]) {
    let range = group * packed.blocks..(group + 1) * packed.blocks;
    let info = &packed.groups[group];
    let mut token = 0;
    while let Some(tile) = x.tile(token) {
        for offset in 0..tile.width {
            let at = |block| block * tile.width + offset;
            let x = |block| {
                let at = at(block);
                (&tile.bytes[at], tile.steps[at], tile.sums[at])
            };
            let out = &mut out[(token + offset) * ROWS..][..ROWS];
            with_layout!(&packed.layout, range.clone(), row_values, info, x, out);
        }
        token += tile.width;
    }
}

/// The products of a group's rows with one token.
fn row_values<'a, S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    group: &Group,
    x: impl Fn(usize) -> (&'a Bytes, Step, [i32; 2]),
    out: &mut [f32],
) {
    let mut values = [0.0; ROWS];
    for (index, block) in blocks.iter().enumerate() {
        let (x, step, halves) = x(index);
        let scales = scales(&block.scales);
        let (parts, quads) = parts(KIND);
        for (part, scales) in scales.iter().enumerate().take(parts) {
            let mut dots = [-excess::<KIND, BIAS>(part, halves); ROWS];
            for quad in part * quads..(part + 1) * quads {
                let line = line(&block.lines, quad);
                for (dot, weights) in dots.iter_mut().zip(line.as_chunks::<4>().0) {
                    for (c, weight) in weights.iter().enumerate() {
                        *dot += i32::from(*weight) * i32::from(x[quad % 8 * 4 + c]);
                    }
                }
            }
            for lane in 0..ROWS {
                values[lane] += dots[lane] as f32 * (scales[lane] * step.scale);
            }
        }
        if KIND == MINIMUM {
            for (value, minimum) in values.iter_mut().zip(scales[1]) {
                *value += minimum * step.sum;
            }
        }
    }
    let powers = powers(blocks, group);
    for (lane, value) in values.into_iter().enumerate() {
        let row = row_of_lane(lane);
        out[row] = scale2(value, powers[row]);
    }
}

/// The first and the last scale of each lane, in units of the row's exponent but for halves.
fn scales(scales: &impl Scales) -> [[f32; ROWS]; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [first.map(|it| it as f32), last.map(|it| it as f32)],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| [coefficient as f32; ROWS]),
        View::Half(scale) => [scale.map(f16_to_f32); 2],
        View::Halves(halves) => [halves.scale.map(f16_to_f32), halves.minimum.map(f16_to_f32)],
    }
}

/// The power of two that each row's sums are to be multiplied with.
#[inline(always)]
pub(super) fn powers<S: Scales, const W: usize>(
    blocks: &[Block<S, W>],
    group: &Group,
) -> [i32; ROWS] {
    let first = blocks.first().map(|block| block.scales.view());
    match first {
        Some(View::Words(_)) => group.exponent,
        _ => [0; ROWS],
    }
}

/// RMSNorm in place, with sums in f32 lane by lane.
#[inline(always)]
pub(super) fn norm(values: &mut [f32], weights: &[f32], eps: f32) -> bool {
    let mut squares = [0.0f32; ROWS];
    let (blocks, rest) = values.as_chunks::<ROWS>();
    for block in blocks {
        for i in 0..ROWS {
            squares[i] += block[i] * block[i];
        }
    }
    for value in rest {
        squares[0] += value * value;
    }
    let mean = squares.iter().sum::<f32>() / values.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for (value, weight) in values.iter_mut().zip(weights) {
        *value = *value * scale * weight;
    }
    mean.to_bits() < NOT_FINITE && magnitude_bits(values) < NOT_FINITE
}
