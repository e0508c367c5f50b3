//! The float operations of the exact profile: rules 1, 2 and 8 of `docs/exact-arithmetic.md`.
//! In and out: `f32` values that are normal or +0 ("F"). One rounding each, to nearest, ties to even,
//! in the written order; results of magnitude up to 2^-126 become +0.
//! Nothing here may be reassociated or fused; Rust does neither.

/// The version of the arithmetic contract that the exact engine and the sampler keep.
pub const PROFILE_VERSION: u32 = 0;

/// Results this small become +0, so subnormals and -0 never appear.
pub(crate) const TINY: f32 = f32::MIN_POSITIVE;

/// Flushes a result.
#[inline(always)]
pub(crate) fn flush(value: f32) -> f32 {
    if value.abs() <= TINY { 0.0 } else { value }
}

#[inline(always)]
pub(crate) fn add(a: f32, b: f32) -> f32 {
    flush(a + b)
}

#[inline(always)]
pub(crate) fn sub(a: f32, b: f32) -> f32 {
    flush(a - b)
}

#[inline(always)]
pub(crate) fn mul(a: f32, b: f32) -> f32 {
    flush(a * b)
}

#[inline(always)]
pub(crate) fn div(a: f32, b: f32) -> f32 {
    flush(a / b)
}

#[inline(always)]
pub(crate) fn sqrt(a: f32) -> f32 {
    flush(a.sqrt())
}

/// One rounding of an integer.
#[inline(always)]
pub(crate) fn int_to_float(value: i64) -> f32 {
    value as f32
}

/// Adds `power` to the exponent: `value · 2^power`, flushed, infinite past the largest float.
#[inline(always)]
#[expect(
    clippy::cast_sign_loss,
    reason = "the exponent is from 1 to 254 where it is used"
)]
pub(crate) fn scale2(value: f32, power: i32) -> f32 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 + power;
    let (sign, mantissa) = (bits & 0x8000_0000, bits & 0x007f_ffff);
    if value == 0.0 || exponent < 1 || (exponent == 1 && mantissa == 0) {
        0.0
    } else if exponent > 254 {
        f32::from_bits(sign | 0x7f80_0000)
    } else {
        f32::from_bits(sign | (exponent as u32) << 23 | mantissa)
    }
}

/// `floor(log2(value))` of a positive normal float.
#[inline(always)]
pub(crate) fn exponent_of(value: f32) -> i32 {
    (value.to_bits() >> 23 & 0xff) as i32 - 127
}

/// `value · 2^-exponent` rounded to the nearest integer, ties to even.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "callers bound the result to 32 bits"
)]
pub(crate) fn round_scaled(value: f32, exponent: i32) -> i32 {
    (f64::from(value) * power_of_two(-exponent)).round_ties_even() as i32
}

/// `2^power` for powers from -1022 to 1023.
#[inline(always)]
#[expect(
    clippy::cast_sign_loss,
    reason = "the biased exponent is positive in the stated range"
)]
pub(crate) fn power_of_two(power: i32) -> f64 {
    f64::from_bits(((1023 + power) as u64) << 52)
}

/// Adding it rounds an `f32` of magnitude under 2^22 to an integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// Rounds a float of magnitude under 2^22 to an integer; the same as [`round_scaled`] with exponent 0.
#[inline(always)]
pub(crate) fn round_small(value: f32) -> i32 {
    ((value + ROUNDER).to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32)
}

/// Rule 8: e^x, clamped to [-87, 87].
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let n = (mul(x, f32::from_bits(0x3fb8_aa3b)) + ROUNDER) - ROUNDER;
    let r = sub(
        sub(x, mul(n, f32::from_bits(0x3f31_8000))),
        mul(n, f32::from_bits(0xb95e_8083)),
    );
    let mut p = f32::from_bits(0x3950_6967);
    for bits in [
        0x3ab7_43ce,
        0x3c08_8908,
        0x3d2a_a9c1,
        0x3e2a_aaaa,
        0x3f00_0000,
    ] {
        p = add(mul(p, r), f32::from_bits(bits));
    }
    let e = add(add(mul(p, mul(r, r)), r), 1.0);
    scale2(e, round_small(n))
}

/// The SiLU gate: `up · gate / (1 + e^-gate)`.
#[inline(always)]
pub(crate) fn silu_gate(gate: f32, up: f32) -> f32 {
    mul(div(gate, add(1.0, exp(sub(0.0, gate)))), up)
}

/// The bits of the largest magnitude; at or above [`NOT_FINITE`] if any value is NaN or infinite.
#[inline(always)]
pub(crate) fn magnitude_bits(values: &[f32]) -> u32 {
    values
        .iter()
        .fold(0, |most, value| most.max(value.to_bits() & 0x7fff_ffff))
}

/// Magnitude bits of infinity; those of NaN are larger.
pub(crate) const NOT_FINITE: u32 = 0x7f80_0000;

/// Rule 2: the exponent with which `Q16` rounds values up to the magnitude `largest`.
#[inline(always)]
pub(crate) fn q16_exponent(largest: f32) -> i32 {
    if largest == 0.0 {
        return 0;
    }
    let exponent = exponent_of(largest) - 14;
    if round_scaled(largest, exponent) > 32639 {
        exponent + 1
    } else {
        exponent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_has_the_bits_of_the_document() {
        // The table in docs/exact-arithmetic.md.
        let table: [(f32, u32); 10] = [
            (0.0, 0x3f80_0000),
            (1.0, 0),
            (-1.0, 0),
            (0.5, 0),
            (-0.001, 0),
            (10.0, 0),
            (-20.5, 0),
            (87.0, 0),
            (-87.0, 0),
            (-1000.0, 0),
        ];
        for (x, bits) in table {
            assert_eq!(
                exp(x).to_bits(),
                bits,
                "exp({x}) is {:#010x}",
                exp(x).to_bits()
            );
        }
    }
}
