//! Products and attention with AVX2.
//! The integers are those of `scalar.rs`. Weights of 4 and 5 bits times 8-bit planes fit the 16-bit sums
//! of `vpmaddubsw`; bytes are widened and multiplied with the 16-bit activations themselves.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_epi64,
    _mm256_and_si256, _mm256_cvtepu8_epi16, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_hadd_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_epi32,
    _mm256_mul_ps, _mm256_or_si256, _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_slli_epi16,
    _mm256_slli_epi32, _mm256_srli_epi16, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi32,
};

use crate::exact::ScoreScale;

use super::activations::{Activations, Planes, Shorts, Tile};
use super::attention::{self, Row};
use super::generic::finish;
use super::pack::{
    BYTES, Block, FIVES, Group, Kind, MINIMUM, PLANE_COEFFICIENTS, Packed, ROWS, Scales, View,
    excess, parts, with_layout,
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
            let sums = with_layout!(&packed.layout, range.clone(), row_sums, info, &tile, offset);
            let out = &mut out[(token + offset) * ROWS..][..ROWS];
            finish(&sums, info, tile.exponents[offset], out);
        }
        token += tile.width;
    }
}

/// Sums of 64 bits: rows 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
struct Sums([__m256i; 4]);

impl Sums {
    /// Adds coefficient · dot of the lanes 8·half and after.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, half: usize, coefficient: __m256i, dot: __m256i) {
        let odd = |vector| _mm256_srli_epi64::<32>(vector);
        let (even, odd) = (
            _mm256_mul_epi32(coefficient, dot),
            _mm256_mul_epi32(odd(coefficient), odd(dot)),
        );
        self.0[half] = _mm256_add_epi64(self.0[half], even);
        self.0[2 + half] = _mm256_add_epi64(self.0[2 + half], odd);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "vector stores take pointers")]
    fn rows(&self) -> [i64; ROWS] {
        let mut out = [0; ROWS];
        for (four, sums) in out.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
            unsafe { _mm256_storeu_si256(four.as_mut_ptr().cast(), sums) };
        }
        out
    }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn bytes32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn words(words: &[i32; ROWS], half: usize) -> __m256i {
    let words = words.as_chunks::<8>().0[half];
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Rule 3: RTE(scale · 2^-E) of the lanes of a half; the rounding mode is the one Rust runs with.
#[inline]
#[target_feature(enable = "avx2,f16c")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn rounded(scales: &[u16; ROWS], group: &Group, half: usize) -> __m256i {
    let scales = scales.as_chunks::<8>().0[half];
    let unit = group.unit.as_chunks::<8>().0[half];
    // SAFETY: the arrays have the 16 and 32 bytes that are read; the loads need no alignment.
    let (scales, unit) = unsafe {
        (
            _mm_loadu_si128(scales.as_ptr().cast()),
            _mm256_loadu_ps(unit.as_ptr()),
        )
    };
    _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtph_ps(scales), unit))
}

/// The first and the last coefficient of the lanes of a half.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn coefficients(scales: &impl Scales, group: &Group, half: usize) -> [__m256i; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [words(first, half), words(last, half)],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| _mm256_set1_epi32(coefficient)),
        View::Half(scale) => [rounded(scale, group, half); 2],
        View::Halves(halves) => [
            rounded(&halves.scale, group, half),
            rounded(&halves.minimum, group, half),
        ],
    }
}

/// Four columns of a plane, for every lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four(plane: &[i8; 32], index: usize) -> __m256i {
    let bytes = plane.as_chunks::<4>().0[index];
    _mm256_set1_epi32(i32::from_le_bytes(bytes.map(i8::cast_unsigned)))
}

/// The unsigned weights of a quad, of 4 or 5 bits, in the lanes of a half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn line<const W: usize>(lines: &[[u8; 64]; W], quad: usize, half: usize) -> __m256i {
    let both = bytes32(&lines[quad / 2].as_chunks::<32>().0[half]);
    let low = match quad % 2 {
        0 => both,
        _ => _mm256_srli_epi16::<4>(both),
    };
    let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    if W != FIVES {
        return low;
    }
    // Bit (quad + 4) mod 8 to bit 4; what shifts in from the neighbouring byte is masked off.
    let bits = bytes32(&lines[W - 1].as_chunks::<32>().0[half]);
    let moved = match quad {
        0 => bits,
        1 => _mm256_srli_epi16::<1>(bits),
        2 => _mm256_srli_epi16::<2>(bits),
        3 => _mm256_srli_epi16::<3>(bits),
        4 => _mm256_slli_epi16::<4>(bits),
        5 => _mm256_slli_epi16::<3>(bits),
        6 => _mm256_slli_epi16::<2>(bits),
        _ => _mm256_slli_epi16::<1>(bits),
    };
    _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(16)))
}

/// Σ w·q of the lanes of a half over a block of weights of 4 or 5 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_planes<const W: usize>(lines: &[[u8; 64]; W], x: &Planes, half: usize) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let mut dot = _mm256_setzero_si256();
    // Sums of 16 bits hold 8 quads of 4 bits, 8 · 2 · 15 · 128, or 4 of 5 bits, 4 · 2 · 31 · 128.
    let quads = if W == FIVES { 4 } else { 8 };
    for first in (0..8).step_by(quads) {
        let (mut high, mut low) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for quad in first..first + quads {
            let weights = line(lines, quad, half);
            high = _mm256_add_epi16(high, _mm256_maddubs_epi16(weights, four(&x.high, quad)));
            low = _mm256_add_epi16(low, _mm256_maddubs_epi16(weights, four(&x.low, quad)));
        }
        let high = _mm256_slli_epi32::<8>(_mm256_madd_epi16(high, ones));
        dot = _mm256_add_epi32(dot, _mm256_add_epi32(high, _mm256_madd_epi16(low, ones)));
    }
    dot
}

/// Σ w·q of the lanes of a half over some lines of 8-bit weights.
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn dot_bytes(lines: &[[u8; 64]], x: &Shorts, first: usize, half: usize) -> __m256i {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (index, line) in lines.iter().enumerate() {
        let q = x.as_chunks::<4>().0[(first + index) % 8];
        let q = q.map(|q| u64::from(q.cast_unsigned()));
        let q = _mm256_set1_epi64x((q[0] | q[1] << 16 | q[2] << 32 | q[3] << 48).cast_signed());
        for (sum, bytes) in sums.iter_mut().zip(&line.as_chunks::<16>().0[2 * half..]) {
            // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
            let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), q));
        }
    }
    // Each lane's sum is in two neighbouring words; adding them shuffles quarters, which goes back.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(sums[0], sums[1]))
}

/// Rule 4's sums of a group's rows over all blocks.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn row_sums<S: Scales, const W: usize, const KIND: Kind, const BIAS: i32>(
    blocks: &[Block<S, W>],
    group: &Group,
    tile: &Tile<'_>,
    offset: usize,
) -> [i64; ROWS] {
    let mut sums = Sums([_mm256_setzero_si256(); 4]);
    for (index, block) in blocks.iter().enumerate() {
        let at = index * tile.width + offset;
        let halves = tile.sums[at];
        let (parts, quads) = parts(KIND);
        for half in 0..2 {
            let coefficients = coefficients(&block.scales, group, half);
            for (part, coefficient) in coefficients.iter().enumerate().take(parts) {
                let dot = if W < BYTES {
                    dot_planes(&block.lines, &tile.planes[at], half)
                } else {
                    let first = part * quads;
                    let lines = &block.lines[first..first + quads];
                    dot_bytes(lines, &tile.shorts[at], first, half)
                };
                let excess = _mm256_set1_epi32(excess::<KIND, BIAS>(part, halves));
                sums.add(half, *coefficient, _mm256_sub_epi32(dot, excess));
            }
            if KIND == MINIMUM {
                let total = _mm256_set1_epi32(halves[0] + halves[1]);
                sums.add(half, coefficients[1], total);
            }
        }
    }
    sums.rows()
}

/// Rule 7 for rows of one query head: the plain loops, which the compiler widens to this level.
#[target_feature(enable = "avx2")]
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
