//! The fast profile's products with AVX-512 VNNI: one plane of activations, sums in f32, 16 rows in the lanes.

use std::arch::x86_64::{
    __m512, __m512i, _mm_dpbusd_epi32, _mm_extract_epi32, _mm_hadd_epi32, _mm_set1_epi8,
    _mm_setzero_si128, _mm_storeu_si128, _mm256_loadu_si256, _mm512_abs_ps, _mm512_castps_si512,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_epu32, _mm512_mul_ps,
    _mm512_permutexvar_ps, _mm512_reduce_max_epu32, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::activations::{Activations, HALF_TILE, NOTHING, Step, TILE, Tile, Writer};
use super::avx512::{GROUPS, Place, four, line, words};
use super::avx512_attention::nearest;
use super::fast::powers;
use super::pack::{
    Block, COLUMNS, Group, Kind, MINIMUM, PLANE_COEFFICIENTS, Packed, ROWS, SCALE, Scales, View,
    excess, parts, with_layout,
};
use crate::arithmetic::NOT_FINITE;

/// Groups of rows times all tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn product(packed: &Packed, first: usize, x: &Activations, out: &mut [f32]) {
    let n = x.tokens();
    for (part, out) in out.chunks_mut(GROUPS * n * ROWS).enumerate() {
        let first = first + part * GROUPS;
        let mut token = 0;
        while let Some(tile) = x.tile(token) {
            let place = Place { token, n };
            token += tile.width;
            match tile.width {
                TILE => run::<TILE>(packed, first, &tile, place, out),
                HALF_TILE => run::<HALF_TILE>(packed, first, &tile, place, out),
                _ => run::<1>(packed, first, &tile, place, out),
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run<const T: usize>(
    packed: &Packed,
    first: usize,
    tile: &Tile<'_>,
    place: Place,
    out: &mut [f32],
) {
    let range = first * packed.blocks..;
    let groups = (packed.blocks, &packed.groups[first..]);
    with_layout!(
        &packed.layout,
        range,
        run_groups<T>,
        groups,
        tile,
        place,
        out
    );
}

/// A tile times groups one after the other, whose weights are one stream.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run_groups<const T: usize, S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    (of_group, groups): (usize, &[Group]),
    tile: &Tile<'_>,
    Place { token, n }: Place,
    out: &mut [f32],
) {
    let blocks = blocks.chunks_exact(of_group).zip(groups);
    for ((blocks, group), out) in blocks.zip(out.chunks_exact_mut(n * ROWS)) {
        let out = &mut out[token * ROWS..][..T * ROWS];
        row_values::<T, S, W, KIND, BIAS>(blocks, group, tile, out);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn halves(halves: &[u16; ROWS]) -> __m512 {
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// The first and the last scale of each lane, in units of the row's exponent but for halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn scales(scales: &impl Scales) -> [__m512; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [
            _mm512_cvtepi32_ps(words(first)),
            _mm512_cvtepi32_ps(words(last)),
        ],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| _mm512_set1_ps(coefficient as f32)),
        View::Half(scale) => [halves(scale); 2],
        View::Halves(both) => [halves(&both.scale), halves(&both.minimum)],
    }
}

/// Which lane has each row: the inverse of `pack::row_of_lane`.
const LANE_OF_ROW: [i32; ROWS] = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];

/// The products of a group's rows with the tokens of a tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
fn row_values<const T: usize, S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    group: &Group,
    tile: &Tile<'_>,
    out: &mut [f32],
) {
    let mut values = [_mm512_setzero_ps(); T];
    let tokens = tile.bytes.as_chunks::<T>().0.iter();
    let steps = tile.steps.as_chunks::<T>().0.iter();
    let sums = tile.sums.as_chunks::<T>().0.iter();
    for (block, ((x, steps), sums)) in blocks.iter().zip(tokens.zip(steps).zip(sums)) {
        let mut scales = scales(&block.scales);
        if KIND == SCALE && BIAS > 0 {
            // What unsigned weights add too much is taken off as a minimum.
            scales[1] = _mm512_mul_ps(scales[0], _mm512_set1_ps(-(BIAS as f32)));
        }
        let (parts, quads) = parts(KIND);
        for (part, scale) in scales.iter().enumerate().take(parts) {
            // Unpacked once for all tokens of the tile.
            let mut weights = [_mm512_setzero_si512(); 8];
            let weights = &mut weights[..quads];
            for (quad, weights) in weights.iter_mut().enumerate() {
                *weights = line(&block.lines, part * quads + quad);
            }
            for t in 0..T {
                let below = match KIND {
                    SCALE => 0,
                    _ => -excess::<KIND, BIAS>(part, sums[t]),
                };
                let mut dot = match below {
                    0 => _mm512_setzero_si512(),
                    below => _mm512_set1_epi32(below),
                };
                for (index, weights) in weights.iter().enumerate() {
                    let x = four(&x[t], (part * quads + index) % 8);
                    dot = _mm512_dpbusd_epi32(dot, *weights, x);
                }
                let factor = _mm512_mul_ps(*scale, _mm512_set1_ps(steps[t].scale));
                values[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, values[t]);
                if KIND == MINIMUM || KIND == SCALE && BIAS > 0 {
                    let sum = _mm512_set1_ps(steps[t].sum);
                    values[t] = _mm512_fmadd_ps(scales[1], sum, values[t]);
                }
            }
        }
    }
    let powers = powers(blocks, group);
    // SAFETY: the arrays have the 64 bytes that are read, and so have the chunks that are written.
    unsafe {
        let powers = _mm512_cvtepi32_ps(_mm512_loadu_si512(powers.as_ptr().cast()));
        let lanes: __m512i = _mm512_loadu_si512(LANE_OF_ROW.as_ptr().cast());
        for (out, values) in out.as_chunks_mut::<ROWS>().0.iter_mut().zip(values) {
            let rows = _mm512_scalef_ps(_mm512_permutexvar_ps(lanes, values), powers);
            _mm512_storeu_ps(out.as_mut_ptr(), rows);
        }
    }
}

/// Quantizes a part of a token's vector, from one of its blocks on, as `Writer::write_bytes` does.
///
/// # Safety
/// The CPU has the level, and no other thread writes these blocks at the time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[expect(
    unsafe_code,
    reason = "vector loads and stores take pointers, and the writer's promise is the caller's"
)]
pub(super) unsafe fn quantize(
    writer: &Writer<'_>,
    (token, first): (usize, usize),
    values: &[f32],
) -> bool {
    let mut most = 0;
    for (block, values) in (first..).zip(values.as_chunks::<COLUMNS>().0) {
        // SAFETY: the caller keeps blocks apart.
        let (bytes, step, sums) = unsafe { writer.block(token, block) };
        // SAFETY: the array has the 128 bytes that are read; the loads need no alignment.
        let values = unsafe { [0, ROWS].map(|first| _mm512_loadu_ps(values.as_ptr().add(first))) };
        let magnitudes = values.map(|half| _mm512_castps_si512(_mm512_abs_ps(half)));
        let largest = _mm512_max_epu32(magnitudes[0], magnitudes[1]);
        let largest = _mm512_reduce_max_epu32(largest);
        most = most.max(largest);
        if largest >= NOT_FINITE {
            (*bytes, *step, *sums) = NOTHING;
            continue;
        }
        let largest = f32::from_bits(largest);
        let scale = largest / 127.0;
        // Of values so small that the division would not be finite nothing is left.
        let inverse = _mm512_set1_ps(if scale > 1e-37 { 127.0 / largest } else { 0.0 });
        let mut halves = [_mm_setzero_si128(); 2];
        for ((values, bytes), sum) in values
            .iter()
            .zip(bytes.as_chunks_mut::<ROWS>().0)
            .zip(&mut halves)
        {
            let q = _mm512_cvtepi32_epi8(nearest(_mm512_mul_ps(*values, inverse)));
            // SAFETY: the array has the 16 bytes that are written, at any alignment.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), q) };
            *sum = _mm_dpbusd_epi32(*sum, _mm_set1_epi8(1), q);
        }
        let both = _mm_hadd_epi32(halves[0], halves[1]);
        let both = _mm_hadd_epi32(both, both);
        *sums = [_mm_extract_epi32::<0>(both), _mm_extract_epi32::<1>(both)];
        *step = Step {
            scale,
            sum: scale * (sums[0] + sums[1]) as f32,
        };
    }
    most < NOT_FINITE
}
