//! Rule 3 of the exact arithmetic: weights of a row → one exponent and integer coefficients.
//! In: a row in the file's format. Out: what every device multiplies integers with. How a device lays
//! them out is its own business.

use crate::arithmetic::{
    NOT_FINITE, exponent_of, flush, magnitude_bits, q16_exponent, round_small,
};
use crate::quant::{QuantType, f16_to_f32};

/// Weights that share their scales in all formats that have any.
const WEIGHTS_OF_BLOCK: usize = 32;

/// Rule 3's exponent of a row: of its largest scale, less 21 or 14; of plain values, Q16's.
pub(crate) fn row_exponent(quant: QuantType, row: &[u8]) -> i32 {
    if quant.is_float() {
        let size = quant.bytes_for(WEIGHTS_OF_BLOCK);
        let largest = row.chunks_exact(size).map(|bytes| {
            let mut values = [0.0; WEIGHTS_OF_BLOCK];
            quant.dequantize(bytes, &mut values);
            magnitude_bits(&values.map(flush))
        });
        // The plan has refused what is not finite.
        let largest = largest.max().unwrap_or(0).min(NOT_FINITE - 1);
        return q16_exponent(f32::from_bits(largest));
    }
    let columns = row.len() / quant.block_bytes() * quant.block_elements();
    let scales = (0..columns / WEIGHTS_OF_BLOCK).map(|index| {
        let scales = quant.scales32(row, index);
        let magnitude = |half| f16_to_f32(half).abs();
        magnitude(scales.scale).max(magnitude(scales.minimum))
    });
    let largest = scales.fold(0.0, f32::max);
    let bits = if quant.block_elements() == WEIGHTS_OF_BLOCK {
        21
    } else {
        14
    };
    if largest == 0.0 {
        0
    } else {
        exponent_of(largest) - bits
    }
}

/// 2^-exponent; the exponents of f16 scales keep it from 2^-2 to 2^45.
#[expect(
    clippy::cast_sign_loss,
    reason = "the biased exponent is positive for those exponents"
)]
pub(crate) fn unit_of(exponent: i32) -> f32 {
    f32::from_bits(((127 - exponent) as u32) << 23)
}

/// The coefficient of a scale or minimum: the f16 times its row's [`unit_of`], rounded.
/// Its magnitude is under 2^22, of Q4_K, Q5_K and Q6_K under 2^15, and it has 11 significant bits.
#[inline(always)]
pub(crate) fn coefficient(half: u16, unit: f32) -> i32 {
    round_small(f16_to_f32(half) * unit)
}
