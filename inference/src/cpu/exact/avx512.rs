//! Products with AVX-512 VNNI.
//! The integers are those of `scalar.rs`. Weights are unsigned bytes and activations two signed planes,
//! so `vpdpbusd` takes both as they lie; 16 rows are the 16 lanes.

use std::arch::x86_64::{
    __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_loadu_si256, _mm512_add_epi32,
    _mm512_add_epi64, _mm512_and_si512, _mm512_cvt_roundps_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_epi32, _mm512_mul_ps,
    _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi16,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_srli_epi64, _mm512_storeu_si512,
};

use super::activations::{Activations, HALF_TILE, Planes, TILE, Tile};
use super::generic::finish;
use super::pack::{
    BYTES, Block, FIVES, Group, Kind, MINIMUM, PLANE_COEFFICIENTS, Packed, ROWS, Scales, View,
    excess, parts, with_layout,
};

/// Groups whose weights stay in a core's cache from one tile to the next.
pub(super) const GROUPS: usize = 16;

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

/// Where a tile's products go in those of a group.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The tile's first token.
    pub(super) token: usize,
    /// Tokens of a group.
    pub(super) n: usize,
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
        let sums = row_sums::<T, S, W, KIND, BIAS>(blocks, group, tile);
        let out = &mut out[token * ROWS..][..T * ROWS];
        for (t, out) in out.chunks_exact_mut(ROWS).enumerate() {
            finish(&sums[t], group, tile.exponents[t], out);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn words(words: &[i32; ROWS]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector stores take pointers")]
fn longs(vector: __m512i) -> [i64; 8] {
    let mut out = [0; 8];
    // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), vector) };
    out
}

/// Rule 3: RTE(scale · 2^-E) of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn rounded(scales: &[u16; ROWS], group: &Group) -> __m512i {
    // SAFETY: the arrays have the 32 and 64 bytes that are read; the loads need no alignment.
    let (scales, unit) = unsafe {
        (
            _mm256_loadu_si256(scales.as_ptr().cast()),
            _mm512_loadu_ps(group.unit.as_ptr()),
        )
    };
    let scaled = _mm512_mul_ps(_mm512_cvtph_ps(scales), unit);
    _mm512_cvt_roundps_epi32::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(scaled)
}

/// The first and the last coefficient of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn coefficients(scales: &impl Scales, group: &Group) -> [__m512i; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [words(first), words(last)],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| _mm512_set1_epi32(coefficient)),
        View::Half(scale) => [rounded(scale, group); 2],
        View::Halves(halves) => [
            rounded(&halves.scale, group),
            rounded(&halves.minimum, group),
        ],
    }
}

/// The unsigned weights of a quad.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn line<const W: usize>(lines: &[[u8; 64]; W], quad: usize) -> __m512i {
    if W >= BYTES {
        return load(&lines[quad]);
    }
    let both = load(&lines[quad / 2]);
    let half = match quad % 2 {
        0 => both,
        _ => _mm512_srli_epi16::<4>(both),
    };
    let low = _mm512_and_si512(half, _mm512_set1_epi8(15));
    if W != FIVES {
        return low;
    }
    // Bit (quad + 4) mod 8 to bit 4; what shifts in from the neighbouring byte is masked off.
    let bits = load(&lines[W - 1]);
    let moved = match quad {
        0 => bits,
        1 => _mm512_srli_epi16::<1>(bits),
        2 => _mm512_srli_epi16::<2>(bits),
        3 => _mm512_srli_epi16::<3>(bits),
        4 => _mm512_slli_epi16::<4>(bits),
        5 => _mm512_slli_epi16::<3>(bits),
        6 => _mm512_slli_epi16::<2>(bits),
        _ => _mm512_slli_epi16::<1>(bits),
    };
    _mm512_or_si512(low, _mm512_and_si512(moved, _mm512_set1_epi8(16)))
}

/// Four columns of a plane, for every lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn four(plane: &[i8; 32], index: usize) -> __m512i {
    let bytes = plane.as_chunks::<4>().0[index];
    _mm512_set1_epi32(i32::from_le_bytes(bytes.map(i8::cast_unsigned)))
}

/// The dot products of a part's weights with a token's planes; the low plane's sums begin at `below`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(weights: &[__m512i], x: &Planes, first: usize, below: i32) -> __m512i {
    let mut planes = [_mm512_setzero_si512(), _mm512_set1_epi32(below)];
    for (index, weights) in weights.iter().enumerate() {
        let index = (first + index) % 8;
        planes[0] = _mm512_dpbusd_epi32(planes[0], *weights, four(&x.high, index));
        planes[1] = _mm512_dpbusd_epi32(planes[1], *weights, four(&x.low, index));
    }
    join(planes)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn join(planes: [__m512i; 2]) -> __m512i {
    _mm512_add_epi32(_mm512_slli_epi32::<8>(planes[0]), planes[1])
}

/// The odd lanes' words where a product of even lanes reads them.
#[inline]
#[target_feature(enable = "avx512f")]
fn odd(vector: __m512i) -> __m512i {
    _mm512_srli_epi64::<32>(vector)
}

/// A coefficient of each lane, for even and for odd ones.
#[derive(Clone, Copy)]
struct Coefficient([__m512i; 2]);

impl Coefficient {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of(vector: __m512i) -> Self {
        Self([vector, odd(vector)])
    }
}

/// Sums of 64 bits: rows 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
struct Sums([__m512i; 2]);

impl Sums {
    /// Adds a coefficient times the even words of a vector, and times those of another for the odd lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&mut self, coefficient: &Coefficient, even: __m512i, odd: __m512i) {
        let Coefficient([of_even, of_odd]) = *coefficient;
        self.0[0] = _mm512_add_epi64(self.0[0], _mm512_mul_epi32(of_even, even));
        self.0[1] = _mm512_add_epi64(self.0[1], _mm512_mul_epi32(of_odd, odd));
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rows(self) -> [i64; ROWS] {
        let (first, second) = (longs(self.0[0]), longs(self.0[1]));
        std::array::from_fn(|row| if row < 8 { first[row] } else { second[row - 8] })
    }
}

/// Rule 4's sums of a group's rows over all blocks, for each token of a tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn row_sums<const T: usize, S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    group: &Group,
    tile: &Tile<'_>,
) -> [[i64; ROWS]; T] {
    let mut sums = [Sums([_mm512_setzero_si512(); 2]); T];
    let tokens = tile.planes.as_chunks::<T>().0;
    let tokens = tokens.iter().zip(tile.sums.as_chunks::<T>().0);
    for (block, (x, halves)) in blocks.iter().zip(tokens) {
        let [first, last] = coefficients(&block.scales, group);
        let coefficients = [Coefficient::of(first), Coefficient::of(last)];
        let (parts, quads) = parts(KIND);
        for (part, coefficient) in coefficients.iter().enumerate().take(parts) {
            // Unpacked once for all tokens of the tile.
            let mut weights = [_mm512_setzero_si512(); 8];
            let weights = &mut weights[..quads];
            for (quad, weights) in weights.iter_mut().enumerate() {
                *weights = line(&block.lines, part * quads + quad);
            }
            for t in 0..T {
                // The sums of the low plane begin below zero by what unsigned weights add too much.
                let below = -excess::<KIND, BIAS>(part, halves[t]);
                let dot = dot(weights, &x[t], part * quads, below);
                sums[t].add(coefficient, dot, odd(dot));
                if KIND == MINIMUM {
                    let total = _mm512_set1_epi32(halves[t][0] + halves[t][1]);
                    sums[t].add(&coefficients[1], total, total);
                }
            }
        }
    }
    sums.map(|sums| sums.rows())
}
