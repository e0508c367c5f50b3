//! Products at both NEON levels: the way through tiles, groups and blocks, with the dot products of a level.
//! The integers of the exact profile are those of `scalar.rs`; the fast profile's sums are in f32.

/// `product` and `fast_product` of a level. `$dot` gives the products of a part's weights with a token;
/// `$less` says whether it takes weights of 8 bits less 128. `$fast_dot` takes them so.
macro_rules! products_at {
    (#[$feature:meta], $dot:ident, $less:literal, $fast_dot:ident) => {
        use std::arch::aarch64::{
            float32x4_t, vcvtq_f32_s32, vdupq_n_f32, vfmaq_f32,
            vfmaq_n_f32, vmulq_n_f32, vst1q_f32,
        };

        use super::activations::{Activations, HALF_TILE, TILE, Tile};
        use super::fast::powers;
        use super::generic::finish;
        use super::neon_products::{by_tiles, products_of};
        use super::neon_weights::{
            LANES, Sums, coefficients, missing, scales, weights,
        };
        use super::pack::{
            Block, Group, Kind, MINIMUM, Packed, ROWS, SCALE, Scales, parts, row_of_lane,
            with_layout,
        };
        use crate::arithmetic::scale2;

        by_tiles!(#[$feature], product, of_tile, of_half, of_one);
        by_tiles!(#[$feature], fast_product, fast_of_tile, fast_of_half, fast_of_one);

        products_of!(#[$feature], of_tile, row_sums, fast_of_tile, row_values, TILE, 1);
        products_of!(#[$feature], of_half, row_sums, fast_of_half, row_values, HALF_TILE, 2);
        products_of!(#[$feature], of_one, row_sums, fast_of_one, row_values, 1, 4);

        /// Rule 4's sums of `Q` quarters of a group's rows over all blocks, for each token of a tile.
        #[inline]
        #[$feature]
        fn row_sums<
            const T: usize,
            const Q: usize,
            S: Scales,
            const W: usize,
            const KIND: Kind,
            const BIAS: i32,
        >(
            blocks: &[Block<S, W>],
            group: &Group,
            tile: &Tile<'_>,
            first: usize,
        ) -> [[Sums; Q]; T] {
            let mut sums = [[Sums::zero(); Q]; T];
            let tokens = tile.planes.as_chunks::<T>().0.iter();
            let tokens = tokens.zip(tile.shorts.as_chunks::<T>().0);
            let tokens = tokens.zip(tile.sums.as_chunks::<T>().0);
            for (block, ((planes, shorts), halves)) in blocks.iter().zip(tokens) {
                for q in 0..Q {
                    let coefficients = coefficients(&block.scales, group, first + q);
                    let (parts, quads) = parts(KIND);
                    for part in 0..parts {
                        // Unpacked once for all tokens of the tile.
                        let of_part = (part * quads, quads);
                        let weights =
                            weights::<W, BIAS, $less>(&block.lines, of_part, first + q);
                        for t in 0..T {
                            let dots = $dot::<BIAS>(
                                &weights[..quads],
                                (&planes[t], &shorts[t]),
                                part * quads % 8,
                                missing::<KIND, BIAS, $less>(part, halves[t]),
                            );
                            sums[t][q].add(coefficients[part], dots);
                            if KIND == MINIMUM {
                                let total = vdupq_n_s32(halves[t][0] + halves[t][1]);
                                sums[t][q].add(coefficients[1], total);
                            }
                        }
                    }
                }
            }
            sums
        }

        /// The fast profile's sums of `Q` quarters of a group's rows, for each token of a tile.
        #[inline]
        #[$feature]
        fn row_values<
            const T: usize,
            const Q: usize,
            S: Scales,
            const W: usize,
            const KIND: Kind,
            const BIAS: i32,
        >(
            blocks: &[Block<S, W>],
            tile: &Tile<'_>,
            first: usize,
        ) -> [[float32x4_t; Q]; T] {
            let mut values = [[vdupq_n_f32(0.0); Q]; T];
            let tokens = tile.bytes.as_chunks::<T>().0.iter();
            let tokens = tokens.zip(tile.steps.as_chunks::<T>().0);
            let tokens = tokens.zip(tile.sums.as_chunks::<T>().0);
            // What unsigned weights add too much is taken off as a minimum.
            let is_biased = KIND == SCALE && BIAS > 0 && BIAS < 128;
            for (block, ((x, steps), sums)) in blocks.iter().zip(tokens) {
                for q in 0..Q {
                    let mut scales = scales(&block.scales, first + q);
                    if is_biased {
                        scales[1] = vmulq_n_f32(scales[0], -(BIAS as f32));
                    }
                    let (parts, quads) = parts(KIND);
                    for part in 0..parts {
                        let of_part = (part * quads, quads);
                        let weights = weights::<W, BIAS, true>(&block.lines, of_part, first + q);
                        for t in 0..T {
                            let mut dots =
                                $fast_dot::<BIAS>(&weights[..quads], &x[t], part * quads % 8);
                            if KIND != SCALE && KIND != MINIMUM {
                                let missing = missing::<KIND, BIAS, true>(part, sums[t]);
                                dots = vaddq_s32(dots, vdupq_n_s32(missing));
                            }
                            let factor = vmulq_n_f32(scales[part], steps[t].scale);
                            values[t][q] = vfmaq_f32(values[t][q], vcvtq_f32_s32(dots), factor);
                            if KIND == MINIMUM || is_biased {
                                values[t][q] = vfmaq_n_f32(values[t][q], scales[1], steps[t].sum);
                            }
                        }
                    }
                }
            }
            values
        }
    };
}

/// `$product` at a level: groups of rows times all tokens, by what multiplies a tile of each width.
macro_rules! by_tiles {
    (#[$feature:meta], $product:ident, $of_tile:ident, $of_half:ident, $of_one:ident) => {
        #[$feature]
        pub(super) fn $product(packed: &Packed, first: usize, x: &Activations, out: &mut [f32]) {
            let groups = out.chunks_exact_mut(x.tokens() * ROWS);
            for (group, out) in (first..).zip(groups) {
                let range = group * packed.blocks..(group + 1) * packed.blocks;
                let (info, layout) = (&packed.groups[group], &packed.layout);
                let mut token = 0;
                while let Some(tile) = x.tile(token) {
                    let out = &mut out[token * ROWS..][..tile.width * ROWS];
                    let range = range.clone();
                    token += tile.width;
                    // With many tokens the sums of one quarter of the rows fill the registers.
                    match tile.width {
                        TILE => with_layout!(layout, range, $of_tile, info, &tile, out),
                        HALF_TILE => with_layout!(layout, range, $of_half, info, &tile, out),
                        _ => with_layout!(layout, range, $of_one, info, &tile, out),
                    }
                }
            }
        }
    };
}

/// The products of a group with a tile of `$width` tokens, by `$quarters` quarters at a time.
macro_rules! products_of {
    (#[$feature:meta], $of:ident, $sums:ident, $fast_of:ident, $values:ident, $width:expr, $quarters:literal) => {
        #[inline]
        #[$feature]
        fn $of<S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
            blocks: &[Block<S, W>],
            group: &Group,
            tile: &Tile<'_>,
            out: &mut [f32],
        ) {
            let mut rows = [[0; ROWS]; $width];
            for first in (0..4).step_by($quarters) {
                let sums =
                    $sums::<{ $width }, $quarters, S, W, KIND, BIAS>(blocks, group, tile, first);
                for (rows, sums) in rows.iter_mut().zip(sums) {
                    for (quarter, sums) in (first..).zip(sums) {
                        sums.put(quarter, rows);
                    }
                }
            }
            let out = out.as_chunks_mut::<ROWS>().0.iter_mut();
            for ((rows, out), exponent) in rows.iter().zip(out).zip(tile.exponents) {
                finish(rows, group, *exponent, out);
            }
        }

        #[inline]
        #[$feature]
        #[expect(unsafe_code, reason = "vector stores take pointers")]
        fn $fast_of<S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
            blocks: &[Block<S, W>],
            group: &Group,
            tile: &Tile<'_>,
            out: &mut [f32],
        ) {
            let mut lanes = [[0.0; ROWS]; $width];
            for first in (0..4).step_by($quarters) {
                let values =
                    $values::<{ $width }, $quarters, S, W, KIND, BIAS>(blocks, tile, first);
                for (lanes, values) in lanes.iter_mut().zip(values) {
                    let lanes = lanes.as_chunks_mut::<LANES>().0[first..].iter_mut();
                    for (lanes, values) in lanes.zip(values) {
                        // SAFETY: the array has the 16 bytes that are written.
                        unsafe { vst1q_f32(lanes.as_mut_ptr(), values) };
                    }
                }
            }
            let powers = powers(blocks, group);
            for (lanes, out) in lanes.iter().zip(out.as_chunks_mut::<ROWS>().0) {
                for (lane, value) in lanes.iter().enumerate() {
                    let row = row_of_lane(lane);
                    out[row] = scale2(*value, powers[row]);
                }
            }
        }
    };
}

pub(super) use {by_tiles, products_at, products_of};
