//! Products and attention with AVX2.
//! The integers are those of `scalar.rs`. 4-bit weights times 8-bit planes fit the 16-bit sums of
//! `vpmaddubsw`; 8-bit weights are widened and multiplied with the 16-bit activations themselves.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm_set1_epi8, _mm_xor_si128, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_add_epi64, _mm256_and_si256, _mm256_cvtepi8_epi16, _mm256_cvtph_ps, _mm256_cvtps_epi32,
    _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_epi32, _mm256_mul_ps, _mm256_permute4x64_epi64,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi16, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_sub_epi32,
};

use super::activations::{ActivationBlock, Activations, Tile};
use super::attention::{self, Head, HeadCache};
use super::generic::finish;
use super::pack::{ByteBlock, Group, Layout, NibbleBlock, Packed, ROWS};

/// One group of rows times all tokens.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn product(packed: &Packed, group: usize, x: &Activations, out: &mut [f32]) {
    let range = group * packed.blocks..(group + 1) * packed.blocks;
    let info = &packed.groups[group];
    let mut token = 0;
    while let Some(tile) = x.tile(token) {
        for offset in 0..tile.width {
            let mut sums = Sums([_mm256_setzero_si256(); 4]);
            let range = range.clone();
            match &packed.layout {
                Layout::NibbleMinimum(b) => {
                    nibbles::<true>(&b[range], info, &tile, offset, &mut sums);
                }
                Layout::Nibble(b) => nibbles::<false>(&b[range], info, &tile, offset, &mut sums),
                Layout::Byte(b) => bytes(&b[range], &tile, offset, false, &mut sums),
                Layout::ByteMinimum(b) => bytes(&b[range], &tile, offset, false, &mut sums),
                Layout::ByteHalves(b) => bytes(&b[range], &tile, offset, true, &mut sums),
            }
            let out = &mut out[(token + offset) * ROWS..][..ROWS];
            finish(&sums.rows(), info, tile.exponents[offset], out);
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
fn bytes32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn words(words: &[i32; ROWS], half: usize) -> __m256i {
    let words = words.as_chunks::<8>().0[half];
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Rule 3: RTE(scale · 2^-E) of the lanes of a half; the rounding mode is the one Rust runs with.
#[inline]
#[target_feature(enable = "avx2,f16c")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn coefficients(scales: &[u16; ROWS], group: &Group, half: usize) -> __m256i {
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

/// Four columns of a plane, for every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn four(plane: &[i8; 32], index: usize) -> __m256i {
    let bytes = plane.as_chunks::<4>().0[index];
    _mm256_set1_epi32(i32::from_le_bytes(bytes.map(i8::cast_unsigned)))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn nibbles<const MINIMUM: bool>(
    blocks: &[NibbleBlock],
    group: &Group,
    tile: &Tile<'_>,
    offset: usize,
    sums: &mut Sums,
) {
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    for (index, block) in blocks.iter().enumerate() {
        let at = index * tile.width + offset;
        let (x, total) = (&tile.data[at], tile.sums[at][0] + tile.sums[at][1]);
        for half in 0..2 {
            // Eight sums of pairs of at most 2 · 15 · 128 fit 16 bits.
            let (mut high, mut low) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for (j, line) in block.weights.iter().enumerate() {
                let both = bytes32(&line.as_chunks::<32>().0[half]);
                let first = _mm256_and_si256(both, mask);
                let second = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
                let pairs = |plane| {
                    _mm256_add_epi16(
                        _mm256_maddubs_epi16(first, four(plane, 2 * j)),
                        _mm256_maddubs_epi16(second, four(plane, 2 * j + 1)),
                    )
                };
                high = _mm256_add_epi16(high, pairs(&x.high));
                low = _mm256_add_epi16(low, pairs(&x.low));
            }
            let high = _mm256_slli_epi32::<8>(_mm256_madd_epi16(high, ones));
            let mut dot = _mm256_add_epi32(high, _mm256_madd_epi16(low, ones));
            if !MINIMUM {
                dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(8 * total));
            }
            sums.add(half, coefficients(&block.scale, group, half), dot);
            if MINIMUM {
                let minimum = coefficients(&block.minimum, group, half);
                sums.add(half, minimum, _mm256_set1_epi32(total));
            }
        }
    }
}

/// Σ w·q of the lanes of a half over some lines.
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn dot(lines: &[[u8; 64]], x: &ActivationBlock, first: usize, half: usize) -> __m256i {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (index, line) in lines.iter().enumerate() {
        let q = x.q.as_chunks::<4>().0[first + index];
        let q = q.map(|q| u64::from(q.cast_unsigned()));
        let q = _mm256_set1_epi64x((q[0] | q[1] << 16 | q[2] << 32 | q[3] << 48).cast_signed());
        for (sum, bytes) in sums.iter_mut().zip(&line.as_chunks::<16>().0[2 * half..]) {
            // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
            let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            let weights = _mm256_cvtepi8_epi16(_mm_xor_si128(bytes, _mm_set1_epi8(-128)));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, q));
        }
    }
    // Each lane's sum is in two neighbouring words; adding them shuffles quarters, which goes back.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(sums[0], sums[1]))
}

#[inline]
#[target_feature(enable = "avx2")]
fn bytes<const C: usize>(
    blocks: &[ByteBlock<C>],
    tile: &Tile<'_>,
    offset: usize,
    by_halves: bool,
    sums: &mut Sums,
) {
    for (index, block) in blocks.iter().enumerate() {
        let at = index * tile.width + offset;
        let x = &tile.data[at];
        let total = _mm256_set1_epi32(tile.sums[at][0] + tile.sums[at][1]);
        for half in 0..2 {
            let coefficient = |which: usize| words(&block.coefficients[which], half);
            if by_halves {
                sums.add(half, coefficient(0), dot(&block.weights[..4], x, 0, half));
                sums.add(
                    half,
                    coefficient(C - 1),
                    dot(&block.weights[4..], x, 4, half),
                );
            } else {
                sums.add(half, coefficient(0), dot(&block.weights, x, 0, half));
                if C == 2 {
                    sums.add(half, coefficient(1), total);
                }
            }
        }
    }
}

/// Rule 7 for one query head: the plain loops, which the compiler widens to this level.
#[target_feature(enable = "avx2")]
pub(super) fn attend(
    head: &Head<'_>,
    cache: &HeadCache<'_>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) -> bool {
    attention::attend(head, cache, scratch, out, attention::dots, attention::weigh)
}
