//! What the kernels of both NEON levels share: weights, coefficients and sums of a quarter of a group.
//! A line's 64 bytes are four registers: a quarter has four lanes of four columns each.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, int64x2_t, uint8x16_t, vandq_u8, vbslq_u8, vcvt_f32_f16,
    vcvtnq_s32_f32, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32, vdupq_n_s64, vdupq_n_u8, veorq_u8,
    vget_low_s32, vld1_u16, vld1q_f32, vld1q_s8, vld1q_s32, vld1q_u8, vmlal_high_s32, vmlal_s32,
    vmulq_f32, vreinterpret_f16_u16, vreinterpretq_s8_u8, vshlq_n_u8, vshrq_n_u8, vst1q_s64,
    vzip1q_s64, vzip2q_s64,
};

use super::pack::{
    BYTES, FIVES, Group, Kind, PLANE_COEFFICIENTS, PLANES, ROWS, SIXTEENS, Scales, View, excess,
};

/// Lanes of a quarter.
pub(super) const LANES: usize = 4;

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
pub(super) fn bytes(bytes: &[i8; 16]) -> int8x16_t {
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn words(words: &[i32; ROWS], quarter: usize) -> int32x4_t {
    let words = &words.as_chunks::<LANES>().0[quarter];
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_s32(words.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn halves(halves: &[u16; ROWS], quarter: usize) -> float32x4_t {
    let halves = &halves.as_chunks::<LANES>().0[quarter];
    // SAFETY: the array has the 8 bytes that are read.
    vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(halves.as_ptr()) }))
}

/// Rule 3: RTE(scale · 2^-E) of the lanes of a quarter.
#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn rounded(scales: &[u16; ROWS], group: &Group, quarter: usize) -> int32x4_t {
    let unit = &group.unit.as_chunks::<LANES>().0[quarter];
    // SAFETY: the array has the 16 bytes that are read.
    let unit = unsafe { vld1q_f32(unit.as_ptr()) };
    vcvtnq_s32_f32(vmulq_f32(halves(scales, quarter), unit))
}

/// The first and the last coefficient of the lanes of a quarter.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn coefficients(scales: &impl Scales, group: &Group, quarter: usize) -> [int32x4_t; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [words(first, quarter), words(last, quarter)],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| vdupq_n_s32(coefficient)),
        View::Half(scale) => [rounded(scale, group, quarter); 2],
        View::Halves(halves) => [
            rounded(&halves.scale, group, quarter),
            rounded(&halves.minimum, group, quarter),
        ],
    }
}

/// The first and the last scale of the lanes of a quarter, in units of the row's exponent but for halves.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn scales(scales: &impl Scales, quarter: usize) -> [float32x4_t; 2] {
    match scales.view() {
        View::Words([first, .., last]) => [
            vcvtq_f32_s32(words(first, quarter)),
            vcvtq_f32_s32(words(last, quarter)),
        ],
        View::Words(_) => PLANE_COEFFICIENTS.map(|coefficient| vdupq_n_f32(coefficient as f32)),
        View::Half(scale) => [halves(scale, quarter); 2],
        View::Halves(both) => [halves(&both.scale, quarter), halves(&both.minimum, quarter)],
    }
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector loads take pointers")]
fn load(line: &[u8; 64], quarter: usize) -> uint8x16_t {
    let bytes = &line.as_chunks::<16>().0[quarter];
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// The unsigned weights of a quad in the lanes of a quarter.
#[inline]
#[target_feature(enable = "neon")]
fn line<const W: usize>(lines: &[[u8; 64]; W], quad: usize, quarter: usize) -> uint8x16_t {
    if W >= BYTES {
        return load(&lines[quad], quarter);
    }
    let both = load(&lines[quad / 2], quarter);
    let low = match quad % 2 {
        0 => vandq_u8(both, vdupq_n_u8(15)),
        _ => vshrq_n_u8::<4>(both),
    };
    if W != FIVES {
        return low;
    }
    // Bit (quad + 4) mod 8 to bit 4.
    let bits = load(&lines[W - 1], quarter);
    let moved = match quad {
        0 => bits,
        1 => vshrq_n_u8::<1>(bits),
        2 => vshrq_n_u8::<2>(bits),
        3 => vshrq_n_u8::<3>(bits),
        4 => vshlq_n_u8::<4>(bits),
        5 => vshlq_n_u8::<3>(bits),
        6 => vshlq_n_u8::<2>(bits),
        _ => vshlq_n_u8::<1>(bits),
    };
    vbslq_u8(vdupq_n_u8(16), moved, low)
}

/// Whether weights have 8 bits, so that they are no signed bytes as they lie.
pub(super) const fn are_wide(bias: i32) -> bool {
    bias == 128
}

/// The weights of some quads as bytes for signed products: those of 8 bits, if `LESS`, less 128.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn weights<const W: usize, const BIAS: i32, const LESS: bool>(
    lines: &[[u8; 64]; W],
    (first, quads): (usize, usize),
    quarter: usize,
) -> [int8x16_t; 8] {
    let mut weights = [vreinterpretq_s8_u8(vdupq_n_u8(0)); 8];
    for (quad, weights) in (first..).zip(&mut weights[..quads]) {
        let line = line(lines, quad, quarter);
        let line = match LESS && are_wide(BIAS) {
            true => veorq_u8(line, vdupq_n_u8(128)),
            false => line,
        };
        *weights = vreinterpretq_s8_u8(line);
    }
    weights
}

/// What is to be added to the products of a part with these weights and no [`excess`].
#[inline]
pub(super) fn missing<const KIND: Kind, const BIAS: i32, const LESS: bool>(
    part: usize,
    sums: [i32; 2],
) -> i32 {
    let of_part = match KIND {
        SIXTEENS => sums[part],
        _ => sums[0] + sums[1],
    };
    let less = if LESS && are_wide(BIAS) { 128 } else { 0 };
    match (KIND, part) {
        (PLANES, 1) => less * of_part,
        _ if less == BIAS => 0,
        _ => less * of_part - excess::<KIND, BIAS>(part, sums),
    }
}

/// Sums of 64 bits of a quarter's lanes: the first two and the last two.
#[derive(Clone, Copy)]
pub(super) struct Sums([int64x2_t; 2]);

impl Sums {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn zero() -> Self {
        Self([vdupq_n_s64(0); 2])
    }

    /// Adds coefficients times dots.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn add(&mut self, coefficients: int32x4_t, dots: int32x4_t) {
        let (low, of_low) = (vget_low_s32(dots), vget_low_s32(coefficients));
        self.0[0] = vmlal_s32(self.0[0], of_low, low);
        self.0[1] = vmlal_high_s32(self.0[1], coefficients, dots);
    }

    /// Puts the sums where their rows stand: lane 4k has row 2k, then come 2k + 8, 2k + 1 and 2k + 9.
    #[inline]
    #[target_feature(enable = "neon")]
    #[expect(unsafe_code, reason = "vector stores take pointers")]
    pub(super) fn put(self, quarter: usize, rows: &mut [i64; ROWS]) {
        let pairs = rows.as_chunks_mut::<2>().0;
        let (first, second) = (
            vzip1q_s64(self.0[0], self.0[1]),
            vzip2q_s64(self.0[0], self.0[1]),
        );
        // SAFETY: the arrays have the 16 bytes that are written.
        unsafe {
            vst1q_s64(pairs[quarter].as_mut_ptr(), first);
            vst1q_s64(pairs[quarter + 4].as_mut_ptr(), second);
        }
    }
}
