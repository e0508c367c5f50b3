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
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// Rounds a float of magnitude under 2^22 to an integer; the same as [`round_scaled`] with exponent 0.
#[inline(always)]
pub(crate) fn round_small(value: f32) -> i32 {
    ((value + ROUNDER).to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32)
}

/// The coefficients of rule 8's polynomial, the highest power's first.
pub(crate) const EXP_STEPS: [u32; 6] = [
    0x3950_6967,
    0x3ab7_43ce,
    0x3c08_8908,
    0x3d2a_a9c1,
    0x3e2a_aaaa,
    0x3f00_0000,
];

/// Rule 8: e^x, clamped to [-87, 87].
///
/// The rule flushes each step, and this none but the last: n · 0.69 is 0 or not small, so r is x or far above
/// 2^-126; what p · r and p · r² lose to a flush is below half a unit of what they are added to.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let rounded = x * f32::from_bits(0x3fb8_aa3b) + ROUNDER;
    let n = rounded - ROUNDER;
    let r = (x - n * f32::from_bits(0x3f31_8000)) - n * f32::from_bits(0xb95e_8083);
    let mut p = f32::from_bits(EXP_STEPS[0]);
    for bits in &EXP_STEPS[1..] {
        p = p * r + f32::from_bits(*bits);
    }
    let e = (p * (r * r) + r) + 1.0;
    // From 0.7 to 1.42, so the exponent's field stays positive but for n = -126, whose results below 2^-126 have
    // the field 0.
    let power = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()) << 23;
    let bits = e.to_bits().wrapping_add(power);
    f32::from_bits(if bits <= TINY.to_bits() { 0 } else { bits })
}

/// The SiLU gate: `up · gate / (1 + e^-gate)`. The sum is 1 at least, so no flush can touch it.
#[inline(always)]
pub(crate) fn silu_gate(gate: f32, up: f32) -> f32 {
    mul(div(gate, 1.0 + exp(-gate)), up)
}

/// The GELU gate by its approximation with tanh: `up · gate / (1 + e^-z)`, z = gate · (1.5957691 +
/// 0.0713548 · gate²), which is 2 · √(2/π) · (gate + 0.044715 · gate³). Small squares and z do not show in the
/// sums, so their flushes are left out.
#[inline(always)]
pub(crate) fn gelu_gate(gate: f32, up: f32) -> f32 {
    let inner = f32::from_bits(0x3fcc_422a) + f32::from_bits(0x3d92_2279) * (gate * gate);
    mul(div(gate, 1.0 + exp(-(gate * inner))), up)
}

/// Rule 12: GELU by the error function, x · Φ(x), for encoders.
///
/// With z = |x|/√2 and t = 1/(1 + 0.3275911·z), h = ½ · t · (a1 + t · (a2 + t · (a3 + t · (a4 + t · a5)))) · e^(−z²)
/// is Φ(−|x|) to 8e-8; x · (1 − h) above 0, x · h below. Source: Abramowitz and Stegun, 7.1.26.
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    let z = mul(
        f32::from_bits(x.to_bits() & 0x7fff_ffff),
        f32::from_bits(0x3f35_04f3),
    );
    let t = div(1.0, add(1.0, mul(f32::from_bits(0x3ea7_ba05), z)));
    let mut p = f32::from_bits(0x3f87_dc22);
    for bits in [0xbfba_00e3, 0x3fb5_f0e3, 0xbe91_a98e, 0x3e82_7906] {
        p = add(mul(p, t), f32::from_bits(bits));
    }
    let tail = mul(mul(mul(p, t), exp(sub(0.0, mul(z, z)))), 0.5);
    mul(x, if x > 0.0 { sub(1.0, tail) } else { tail })
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
    fn results_are_normal_or_plus_zero() {
        let tiny = f32::MIN_POSITIVE;
        for value in [-0.0, tiny, -tiny, tiny / 2.0, -tiny / 4.0] {
            assert_eq!(flush(value).to_bits(), 0);
        }
        assert_eq!(sub(1.0, 1.0).to_bits(), 0);
        assert_eq!(mul(-1e-30, 1e-30).to_bits(), 0);
        assert_eq!(flush(tiny * 1.000_000_1), tiny * 1.000_000_1);
        assert!(flush(f32::NAN).is_nan());
    }

    #[test]
    fn scaling_by_a_power_of_two_flushes_and_overflows() {
        assert_eq!(scale2(1.5, 3), 12.0);
        assert_eq!(scale2(1.0, -126).to_bits(), 0, "2^-126 itself is flushed");
        assert_eq!(scale2(1.5, -126), 1.5 * f32::MIN_POSITIVE);
        assert_eq!(scale2(1.5, -127).to_bits(), 0);
        assert_eq!(scale2(-1.0, 127), -f32::MAX / (2.0 - f32::EPSILON));
        assert_eq!(scale2(-1.0, 128), f32::NEG_INFINITY);
        assert_eq!(scale2(0.0, 500).to_bits(), 0);
    }

    #[test]
    fn wide_integers_are_rounded_once() {
        // Just past the middle between two floats: an f64 in between would end up on the middle itself.
        let middle = (1i64 << 60) + (1 << 36);
        let values: [i64; 16] = std::array::from_fn(|i| middle + 1 + i as i64);
        let found = std::hint::black_box(values).map(int_to_float);
        assert_eq!(found, [1.000_000_1 * (1i64 << 60) as f32; 16]);
        let found = std::hint::black_box(values.map(|it| -it)).map(int_to_float);
        assert_eq!(found, [-1.000_000_1 * (1i64 << 60) as f32; 16]);
    }

    /// Rules 8 and 9 step by step, as the document has them.
    mod by_the_rule {
        use super::super::{ROUNDER, add, div, mul, round_small, scale2, sub};

        fn float(bits: u32) -> f32 {
            f32::from_bits(bits)
        }

        pub(super) fn exp(x: f32) -> f32 {
            let x = x.clamp(-87.0, 87.0);
            let n = (mul(x, float(0x3fb8_aa3b)) + ROUNDER) - ROUNDER;
            let r = sub(
                sub(x, mul(n, float(0x3f31_8000))),
                mul(n, float(0xb95e_8083)),
            );
            let mut p = float(0x3950_6967);
            for bits in [
                0x3ab7_43ce,
                0x3c08_8908,
                0x3d2a_a9c1,
                0x3e2a_aaaa,
                0x3f00_0000,
            ] {
                p = add(mul(p, r), float(bits));
            }
            let e = add(add(mul(p, mul(r, r)), r), 1.0);
            scale2(e, round_small(n))
        }

        pub(super) fn silu(gate: f32, up: f32) -> f32 {
            mul(div(gate, add(1.0, exp(sub(0.0, gate)))), up)
        }

        pub(super) fn gelu(gate: f32, up: f32) -> f32 {
            let square = mul(gate, gate);
            let inner = add(float(0x3fcc_422a), mul(float(0x3d92_2279), square));
            let z = mul(gate, inner);
            mul(div(gate, add(1.0, exp(sub(0.0, z)))), up)
        }
    }

    /// Every `stride`th F value, of either sign.
    fn floats(stride: u32) -> impl Iterator<Item = f32> {
        let normal = (0x0080_0001..0x7f80_0000u32).step_by(stride as usize);
        let both = normal.flat_map(|bits| [bits, bits | 0x8000_0000]);
        both.chain([0]).map(f32::from_bits)
    }

    #[test]
    fn steps_whose_flush_is_left_out_give_the_rules_bits() {
        // Every 101st float; all of them were compared once, in some 15 minutes.
        for x in floats(101) {
            assert_eq!(exp(x).to_bits(), by_the_rule::exp(x).to_bits(), "{x:e}");
            for up in [1.0, -3e-37] {
                let (found, wanted) = (silu_gate(x, up), by_the_rule::silu(x, up));
                assert_eq!(found.to_bits(), wanted.to_bits(), "silu {x:e} {up:e}");
                let (found, wanted) = (gelu_gate(x, up), by_the_rule::gelu(x, up));
                assert_eq!(found.to_bits(), wanted.to_bits(), "gelu {x:e} {up:e}");
            }
        }
    }

    #[test]
    fn q16_stays_within_its_bound() {
        // 32639 = 127 * 256 + 127 is the largest that two planes of 8 bits hold.
        for bits in [
            0x3f7f_ffff,
            0x3f80_0000,
            0x3f7f_0000,
            0x3f7f_8000,
            0x3f7e_ffff,
            0x7f7f_ffff,
        ] {
            let largest = f32::from_bits(bits);
            assert!(
                round_scaled(largest, q16_exponent(largest)) <= 32639,
                "{largest}"
            );
        }
        assert_eq!(q16_exponent(0.0), 0);
    }

    proptest::proptest! {
        #[test]
        fn small_rounding_is_to_even(value in -4_000_000.0f32..4_000_000.0) {
            assert_eq!(round_small(value), round_scaled(value, 0));
        }

        #[test]
        fn gelu_is_close(x in -20.0f32..20.0) {
            let wide = f64::from(x);
            let wanted = 0.5 * wide * (1.0 + libm::erf(wide * std::f64::consts::FRAC_1_SQRT_2));
            let error = (f64::from(gelu_erf(x)) - wanted).abs();
            assert!(error <= 2.5e-7 * wide.abs().max(0.1), "{x}: off by {error}");
        }

        #[test]
        fn exp_is_close(x in -87.0f32..87.0) {
            let (found, wanted) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - wanted).abs() <= wanted * 3e-7, "{x}: {found} for {wanted}");
        }
    }
}
