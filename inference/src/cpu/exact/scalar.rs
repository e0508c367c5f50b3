//! Products and attention in plain Rust, for every CPU.
//! The reference for the kernels of `avx2.rs`, `avx512.rs` and `neon.rs`: the same integers by the plainest way.

use crate::arithmetic::round_small;
use crate::exact::ScoreScale;
use crate::quant::f16_to_f32;

use super::activations::{Activations, Shorts};
use super::attention::{self, Row};
use super::generic::finish;
use super::pack::{
    BYTES, Block, FIVES, Group, Kind, MINIMUM, PLANE_COEFFICIENTS, Packed, ROWS, Scales, View,
    excess, parts, row_of_lane, with_layout,
};

/// Groups of rows times all tokens.
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
            let x = |block| (&tile.shorts[at(block)], tile.sums[at(block)]);
            let sums = with_layout!(&packed.layout, range.clone(), row_sums, info, x);
            let out = &mut out[(token + offset) * ROWS..][..ROWS];
            finish(&sums, info, tile.exponents[offset], out);
        }
        token += tile.width;
    }
}

/// Rule 4's sums of a group's rows over all blocks.
fn row_sums<'a, S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    group: &Group,
    x: impl Fn(usize) -> (&'a Shorts, [i32; 2]),
) -> [i64; ROWS] {
    let mut sums = [0; ROWS];
    for (index, block) in blocks.iter().enumerate() {
        let (x, halves) = x(index);
        let coefficients = coefficients(&block.scales, group);
        let (parts, quads) = parts(KIND);
        for (part, coefficients) in coefficients.iter().enumerate().take(parts) {
            let mut dots = [-excess::<KIND, BIAS>(part, halves); ROWS];
            for quad in part * quads..(part + 1) * quads {
                let line = line(&block.lines, quad);
                for (dot, weights) in dots.iter_mut().zip(line.as_chunks::<4>().0) {
                    for (c, weight) in weights.iter().enumerate() {
                        *dot += i32::from(*weight) * i32::from(x[quad % 8 * 4 + c]);
                    }
                }
            }
            add(&mut sums, coefficients, &dots);
        }
        if KIND == MINIMUM {
            add(&mut sums, &coefficients[1], &[halves[0] + halves[1]; ROWS]);
        }
    }
    sums
}

/// The first and the last coefficient of each lane.
fn coefficients(scales: &impl Scales, group: &Group) -> [[i32; ROWS]; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [*first, *last],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| [coefficient; ROWS]),
        View::Half(scale) => [rounded(scale, group); 2],
        View::Halves(halves) => [&halves.scale, &halves.minimum].map(|it| rounded(it, group)),
    }
}

/// Rule 3: RTE(scale · 2^-E) of each lane.
fn rounded(scales: &[u16; ROWS], group: &Group) -> [i32; ROWS] {
    std::array::from_fn(|lane| round_small(f16_to_f32(scales[lane]) * group.unit[lane]))
}

/// The unsigned weights of a quad.
pub(super) fn line<const W: usize>(lines: &[[u8; 64]; W], quad: usize) -> [u8; 64] {
    if W >= BYTES {
        return lines[quad];
    }
    std::array::from_fn(|i| {
        let low = lines[quad / 2][i] >> (quad % 2 * 4) & 15;
        let fifth = if W == FIVES {
            lines[W - 1][i] >> ((quad + 4) % 8) & 1
        } else {
            0
        };
        low | fifth << 4
    })
}

fn add(sums: &mut [i64; ROWS], coefficients: &[i32; ROWS], dots: &[i32; ROWS]) {
    for (lane, (coefficient, dot)) in coefficients.iter().zip(dots).enumerate() {
        sums[row_of_lane(lane)] += i64::from(*coefficient) * i64::from(*dot);
    }
}

/// Rule 7 for rows of one query head.
pub(super) fn attend(
    rows: &mut [Row<'_>],
    blocks: &[attention::Block<'_>],
    scale: ScoreScale,
    scratch: &mut Vec<f32>,
) {
    attention::one_by_one(rows, blocks, scale, |head, cache, out| {
        attention::attend(head, cache, scratch, out, attention::dots, attention::weigh)
    });
}
