//! Floating point of 16 bits.
//!
//! In: single precision. Out: IEEE 754 binary16 or the upper half of binary32, rounded to
//! the nearest, ties to even; and back without loss.

/// binary32 to binary16.
pub(super) fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = upper(bits) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    // 65,520 is half-way from the largest to what would come next.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    // Below 2^-14 the steps have one size, 2^-24: adding 0.5 leaves that many bits.
    if magnitude < 0x3880_0000 {
        let shifted = (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits();
        return sign | lower(shifted);
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - (112 << 23);
    sign | lower(rounded >> 13)
}

/// binary16 to binary32.
pub(super) fn from_f16(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    sign * match exponent {
        // Whole multiples of 2^-24: exact in single precision.
        0 => f32::from(half & 0x3ff) / 16_777_216.0,
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    }
}

/// binary32 to its upper half.
pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return upper(bits) | 0x40;
    }
    upper(bits + 0x7fff + (bits >> 16 & 1))
}

/// The upper half of binary32 to binary32.
pub(super) fn from_bf16(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

fn upper(bits: u32) -> u16 {
    lower(bits >> 16)
}

fn lower(bits: u32) -> u16 {
    let [low, high, ..] = bits.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_there_and_back() {
        for half in 0..=u16::MAX {
            let value = from_f16(half);
            if !value.is_nan() {
                assert_eq!(to_f16(value), half, "{value}");
            }
            let value = from_bf16(half);
            if !value.is_nan() {
                assert_eq!(to_bf16(value), half, "{value}");
            }
        }
        assert!(from_f16(to_f16(f32::NAN)).is_nan() && from_bf16(to_bf16(f32::NAN)).is_nan());
    }

    #[test]
    fn known_values_round_to_the_nearest_even() {
        for (value, half) in [
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65_504.0, 0x7bff),
            (65_519.9, 0x7bff),
            (65_520.0, 0x7c00),
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (f32::from_bits(0x3380_0000), 1), // 2^-24
            (f32::from_bits(0x3300_0000), 0), // 2^-25, a tie
            (0.0, 0),
        ] {
            assert_eq!(to_f16(value), half, "{value}");
        }
        assert_eq!(to_bf16(1.0 + 1.0 / 256.0), 0x3f80);
        assert_eq!(to_bf16(f32::MAX), 0x7f80);
    }
}
