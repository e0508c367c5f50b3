//! Products and attention with AVX-512 VNNI.
//! The integers are those of `scalar.rs`. Weights are unsigned bytes and activations two signed planes,
//! so `vpdpbusd` takes both as they lie; 16 rows are the 16 lanes.

use std::arch::x86_64::{
    __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_prefetch,
    _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512,
    _mm512_castsi512_si256, _mm512_cvt_roundps_epi32, _mm512_cvtepi32_epi64, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_epi32, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_slli_epi32, _mm512_slli_epi64, _mm512_srli_epi16,
    _mm512_srli_epi64, _mm512_storeu_si512,
};

use super::HEAD_SIZE_MAX;
use super::activations::{ActivationBlock, Activations, TILE, Tile};
use super::attention::{self, Head, HeadCache, KEYS, VALUES};
use super::generic::finish;
use super::pack::{ByteBlock, Group, Layout, NibbleBlock, Packed, ROWS};

/// How far ahead of their use weights are asked for: the hardware's own look-ahead ends with each page.
const AHEAD_BYTES: usize = 2560;

/// Asks for the block that comes `AHEAD_BYTES` after this one.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch<B>(block: &B) {
    let ahead = std::ptr::from_ref(block).wrapping_byte_add(AHEAD_BYTES);
    for line in 0..size_of::<B>() / 64 {
        // A prefetch reads nothing that the program sees and cannot fault, wherever it points.
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_byte_add(64 * line).cast());
    }
}

/// How the bytes of a layout turn into sums.
const SCALE: u8 = 0;
const SCALE_AND_MINIMUM: u8 = 1;
const HALVES: u8 = 2;

/// One group of rows times all tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn product(packed: &Packed, group: usize, x: &Activations, out: &mut [f32]) {
    let range = group * packed.blocks..(group + 1) * packed.blocks;
    let info = &packed.groups[group];
    let mut token = 0;
    while let Some(tile) = x.tile(token) {
        let out = &mut out[token * ROWS..][..tile.width * ROWS];
        token += tile.width;
        if tile.width == TILE {
            run::<TILE>(&packed.layout, range.clone(), info, &tile, out);
        } else {
            run::<1>(&packed.layout, range.clone(), info, &tile, out);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run<const T: usize>(
    layout: &Layout,
    range: std::ops::Range<usize>,
    group: &Group,
    tile: &Tile<'_>,
    out: &mut [f32],
) {
    let sums = match layout {
        Layout::NibbleMinimum(blocks) => nibbles::<T, true>(&blocks[range], group, tile),
        Layout::Nibble(blocks) => nibbles::<T, false>(&blocks[range], group, tile),
        Layout::Byte(blocks) => bytes::<T, 1, SCALE>(&blocks[range], tile),
        Layout::ByteMinimum(blocks) => bytes::<T, 2, SCALE_AND_MINIMUM>(&blocks[range], tile),
        Layout::ByteHalves(blocks) => bytes::<T, 2, HALVES>(&blocks[range], tile),
    };
    for (t, out) in out.chunks_exact_mut(ROWS).enumerate() {
        finish(&sums[t], group, tile.exponents[t], out);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn line(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn words(words: &[i32; ROWS]) -> __m512i {
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
fn coefficients(scales: &[u16; ROWS], group: &Group) -> __m512i {
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

/// Four columns of a plane, for every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn four(plane: &[i8; 32], index: usize) -> __m512i {
    let bytes = plane.as_chunks::<4>().0[index];
    _mm512_set1_epi32(i32::from_le_bytes(bytes.map(i8::cast_unsigned)))
}

/// The dot products of a line of weights with four columns of each token, added to the two planes' sums.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot<const T: usize>(
    planes: &mut [[__m512i; 2]; T],
    weights: __m512i,
    x: &[ActivationBlock; T],
    index: usize,
) {
    for t in 0..T {
        planes[t][0] = _mm512_dpbusd_epi32(planes[t][0], weights, four(&x[t].high, index));
        planes[t][1] = _mm512_dpbusd_epi32(planes[t][1], weights, four(&x[t].low, index));
    }
}

/// Empty sums of the planes; the low one begins at `bias` times the sum of the token's activations.
#[inline]
#[target_feature(enable = "avx512f")]
fn planes<const T: usize>(bias: i32, totals: [i32; T]) -> [[__m512i; 2]; T] {
    totals.map(|total| [_mm512_setzero_si512(), _mm512_set1_epi32(bias * total)])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn join(planes: [__m512i; 2]) -> __m512i {
    _mm512_add_epi32(_mm512_slli_epi32::<8>(planes[0]), planes[1])
}

/// Sums of 64 bits: rows 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
struct Sums([__m512i; 2]);

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&mut self, coefficient: __m512i, dot: __m512i) {
        let odd = |vector| _mm512_srli_epi64::<32>(vector);
        let even = _mm512_mul_epi32(coefficient, dot);
        self.0[0] = _mm512_add_epi64(self.0[0], even);
        self.0[1] = _mm512_add_epi64(self.0[1], _mm512_mul_epi32(odd(coefficient), odd(dot)));
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rows(self) -> [i64; ROWS] {
        let (first, second) = (longs(self.0[0]), longs(self.0[1]));
        std::array::from_fn(|row| if row < 8 { first[row] } else { second[row - 8] })
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn nibbles<const T: usize, const MINIMUM: bool>(
    blocks: &[NibbleBlock],
    group: &Group,
    tile: &Tile<'_>,
) -> [[i64; ROWS]; T] {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [Sums([_mm512_setzero_si512(); 2]); T];
    let tokens = tile
        .data
        .as_chunks::<T>()
        .0
        .iter()
        .zip(tile.sums.as_chunks::<T>().0);
    for (block, (x, halves)) in blocks.iter().zip(tokens) {
        if T == 1 {
            prefetch(block);
        }
        let totals = halves.map(|[first, last]| first + last);
        let mut planes = planes(if MINIMUM { 0 } else { -8 }, totals);
        for (j, bytes) in block.weights.iter().enumerate() {
            let both = line(bytes);
            dot(&mut planes, _mm512_and_si512(both, mask), x, 2 * j);
            dot(
                &mut planes,
                _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask),
                x,
                2 * j + 1,
            );
        }
        let scale = coefficients(&block.scale, group);
        let minimum = coefficients(&block.minimum, group);
        for t in 0..T {
            sums[t].add(scale, join(planes[t]));
            if MINIMUM {
                sums[t].add(minimum, _mm512_set1_epi32(totals[t]));
            }
        }
    }
    sums.map(|sums| sums.rows())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn bytes<const T: usize, const C: usize, const KIND: u8>(
    blocks: &[ByteBlock<C>],
    tile: &Tile<'_>,
) -> [[i64; ROWS]; T] {
    // The weights are 128 too large.
    const BIAS: i32 = -128;
    let mut sums = [Sums([_mm512_setzero_si512(); 2]); T];
    let tokens = tile
        .data
        .as_chunks::<T>()
        .0
        .iter()
        .zip(tile.sums.as_chunks::<T>().0);
    for (block, (x, halves)) in blocks.iter().zip(tokens) {
        let first = words(&block.coefficients[0]);
        let last = words(&block.coefficients[C - 1]);
        if T == 1 {
            prefetch(block);
        }
        let totals = halves.map(|[first, last]| first + last);
        let begin = if KIND == HALVES {
            halves.map(|halves| halves[0])
        } else {
            totals
        };
        let mut sum_planes = planes(BIAS, begin);
        for (index, bytes) in block.weights.iter().enumerate() {
            if KIND == HALVES && index == 4 {
                for t in 0..T {
                    sums[t].add(first, join(sum_planes[t]));
                }
                sum_planes = planes(BIAS, halves.map(|halves| halves[1]));
            }
            dot(&mut sum_planes, line(bytes), x, index);
        }
        for t in 0..T {
            sums[t].add(
                if KIND == HALVES { last } else { first },
                join(sum_planes[t]),
            );
            if KIND == SCALE_AND_MINIMUM {
                sums[t].add(last, _mm512_set1_epi32(totals[t]));
            }
        }
    }
    sums.map(|sums| sums.rows())
}

/// Two 16-bit numbers in a word.
#[inline(always)]
fn pair(low: i32, high: i32) -> i32 {
    low & 0xffff | high << 16
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn shorts(values: &[i16; 32]) -> __m512i {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// `high · 2^SHIFT + low` of each lane, as 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen<const SHIFT: u32>(high: __m512i, low: __m512i) -> [__m512i; 2] {
    let join = |high, low| {
        let high = _mm512_slli_epi64::<SHIFT>(_mm512_cvtepi32_epi64(high));
        _mm512_add_epi64(high, _mm512_cvtepi32_epi64(low))
    };
    let upper = |vector| _mm512_extracti64x4_epi64::<1>(vector);
    [
        join(_mm512_castsi512_si256(high), _mm512_castsi512_si256(low)),
        join(upper(high), upper(low)),
    ]
}

/// Rule 7 for one query head.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn attend(
    head: &Head<'_>,
    cache: &HeadCache<'_>,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) -> bool {
    // The query's halves, two dimensions a word: see `attention::dots` for why halves.
    let mut halves = [(0, 0); HEAD_SIZE_MAX / 2];
    for (halves, two) in halves.iter_mut().zip(head.query.as_chunks::<2>().0) {
        let [a, b] = two.map(attention::split);
        *halves = (pair(a.0, b.0), pair(a.1, b.1));
    }
    let halves = &halves[..head.query.len() / 2];
    let dots = |_: &[i16], keys: &[i16]| -> [i64; KEYS] {
        let (mut high, mut low) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for (halves, keys) in halves.iter().zip(keys.as_chunks::<{ 2 * KEYS }>().0) {
            let keys = shorts(keys);
            high = _mm512_dpwssd_epi32(high, keys, _mm512_set1_epi32(halves.0));
            low = _mm512_dpwssd_epi32(low, keys, _mm512_set1_epi32(halves.1));
        }
        let [first, second] = widen::<8>(high, low).map(|vector| longs(vector));
        std::array::from_fn(|i| if i < 8 { first[i] } else { second[i - 8] })
    };
    let weigh = |values: &[i16], coefficients: &[i32], sums: &mut [i64]| {
        // Coefficients of 22 bits are c = 2^11 · high + low; 32 products of 11 and 16 bits fit 32 bits.
        let mut pairs = [(0, 0); VALUES / 2];
        for (out, [a, b]) in pairs.iter_mut().zip(coefficients.as_chunks::<2>().0) {
            *out = (pair(a >> 11, b >> 11), pair(a & 2047, b & 2047));
        }
        let stride = 2 * sums.len();
        for (index, sums) in sums.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let (mut high, mut low) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for (two, row) in pairs.iter().zip(values.chunks_exact(stride)) {
                let values = shorts(&row.as_chunks::<32>().0[index]);
                high = _mm512_dpwssd_epi32(high, values, _mm512_set1_epi32(two.0));
                low = _mm512_dpwssd_epi32(low, values, _mm512_set1_epi32(two.1));
            }
            let [first, second] = widen::<11>(high, low).map(|vector| longs(vector));
            for (sum, more) in sums.iter_mut().zip(first.into_iter().chain(second)) {
                *sum += more;
            }
        }
    };
    attention::attend(head, cache, scratch, out, dots, weigh)
}
