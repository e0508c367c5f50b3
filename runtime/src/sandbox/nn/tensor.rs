//! Tensors as guests pass them: checked sizes, and typed reading.
//!
//! In: dimensions, a type and bytes that need not belong together. Out: numbers and text, or
//! what is wrong with them. Nothing is allocated by what the dimensions claim.

use super::Refusal;
use crate::sandbox::bindings::wasi::nn::{errors::ErrorCode as NnCode, tensor::TensorType};

/// The most dimensions a tensor may have; models in the field have up to 6.
pub(crate) const RANK_MAX: usize = 16;

/// A tensor: row-major, little-endian.
#[derive(Debug, Clone)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Tensor {
    pub(crate) dimensions: Vec<u32>,
    pub(crate) ty: TensorType,
    pub(crate) data: Vec<u8>,
}

/// Bytes of one element.
pub(crate) fn element_bytes(ty: TensorType) -> u64 {
    match ty {
        TensorType::U8 => 1,
        TensorType::Fp16 | TensorType::Bf16 => 2,
        TensorType::Fp32 | TensorType::I32 => 4,
        TensorType::Fp64 | TensorType::I64 => 8,
    }
}

/// The standard's name of a type.
fn type_name(ty: TensorType) -> &'static str {
    match ty {
        TensorType::Fp16 => "FP16",
        TensorType::Fp32 => "FP32",
        TensorType::Fp64 => "FP64",
        TensorType::Bf16 => "BF16",
        TensorType::U8 => "U8",
        TensorType::I32 => "I32",
        TensorType::I64 => "I64",
    }
}

impl Tensor {
    /// A row of values that the host made.
    pub(crate) fn row(ty: TensorType, data: Vec<u8>) -> Self {
        let elements = data.len() as u64 / element_bytes(ty);
        Self {
            dimensions: vec![u32::try_from(elements).unwrap_or(u32::MAX)],
            ty,
            data,
        }
    }

    /// The memory it is charged for: its data and its dimensions.
    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.data.len() + 4 * self.dimensions.len()) as u64
    }

    /// How many elements it has, once dimensions, type and data are known to belong together.
    ///
    /// # Errors
    /// `invalid-argument` if they do not, `too-large` if the dimensions' product has no
    /// place in 64 bits.
    pub(crate) fn elements(&self, name: &str) -> Result<u64, Refusal> {
        if self.dimensions.len() > RANK_MAX {
            return Err(Refusal::invalid(format!(
                "tensor `{name}` has {} dimensions, at most {RANK_MAX} are allowed",
                self.dimensions.len()
            )));
        }
        // Zeros first: [huge, huge, 0] is empty, not too large.
        let elements = if self.dimensions.contains(&0) {
            Some(0)
        } else {
            let sizes = self.dimensions.iter();
            sizes
                .copied()
                .try_fold(1_u64, |product, size| product.checked_mul(u64::from(size)))
        };
        let bytes = elements.and_then(|elements| elements.checked_mul(element_bytes(self.ty)));
        let (Some(elements), Some(bytes)) = (elements, bytes) else {
            return Err(Refusal::new(
                NnCode::TooLarge,
                format!(
                    "tensor `{name}` has the dimensions {:?}: their product has no place in 64 bits",
                    self.dimensions
                ),
            ));
        };
        if bytes != self.data.len() as u64 {
            return Err(Refusal::invalid(format!(
                "tensor `{name}` has {} bytes of data, its dimensions {:?} of {} call for {bytes}",
                self.data.len(),
                self.dimensions,
                type_name(self.ty),
            )));
        }
        Ok(elements)
    }

    fn wrong_type(&self, name: &str, wanted: &str) -> Refusal {
        Refusal::invalid(format!(
            "tensor `{name}` is {}, wanted {wanted}",
            type_name(self.ty)
        ))
    }

    /// UTF-8 text.
    pub(crate) fn text(self, name: &str) -> Result<String, Refusal> {
        self.elements(name)?;
        if self.ty != TensorType::U8 {
            return Err(self.wrong_type(name, "U8, the bytes of a text"));
        }
        String::from_utf8(self.data).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Refusal::new(
                NnCode::InvalidEncoding,
                format!("tensor `{name}` is not UTF-8: byte {at} begins no character"),
            )
        })
    }

    /// Whole numbers.
    pub(crate) fn integers(&self, name: &str) -> Result<Vec<i64>, Refusal> {
        self.elements(name)?;
        Ok(match self.ty {
            TensorType::U8 => self.data.iter().map(|byte| i64::from(*byte)).collect(),
            TensorType::I32 => self
                .chunks()
                .map(|bytes| i64::from(i32::from_le_bytes(bytes)))
                .collect(),
            TensorType::I64 => self.chunks().map(i64::from_le_bytes).collect(),
            _ => return Err(self.wrong_type(name, "I32, I64 or U8")),
        })
    }

    /// The one whole number.
    pub(crate) fn integer(&self, name: &str) -> Result<i64, Refusal> {
        match self.integers(name)?.as_slice() {
            [number] => Ok(*number),
            numbers => Err(one_wanted(name, numbers.len())),
        }
    }

    /// The one number with a fraction.
    pub(crate) fn float(&self, name: &str) -> Result<f32, Refusal> {
        self.elements(name)?;
        let numbers: Vec<f32> = match self.ty {
            TensorType::Fp16 => self
                .chunks()
                .map(|bytes| half(u16::from_le_bytes(bytes)))
                .collect(),
            TensorType::Bf16 => self
                .chunks()
                .map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
                .collect(),
            TensorType::Fp32 => self.chunks().map(f32::from_le_bytes).collect(),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounds to the nearest float"
            )]
            TensorType::Fp64 => self
                .chunks()
                .map(|bytes| f64::from_le_bytes(bytes) as f32)
                .collect(),
            _ => return Err(self.wrong_type(name, "FP32, FP64, FP16 or BF16")),
        };
        match numbers.as_slice() {
            [number] => Ok(*number),
            numbers => Err(one_wanted(name, numbers.len())),
        }
    }

    fn chunks<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        self.data.as_chunks().0.iter().copied()
    }
}

fn one_wanted(name: &str, found: usize) -> Refusal {
    Refusal::invalid(format!("tensor `{name}` has {found} elements, wanted 1"))
}

/// IEEE 754 binary16 to binary32, exactly.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: fraction × 2^-24, which a float holds exactly.
        0 => (fraction as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(ty: TensorType, dimensions: &[u32], data: &[u8]) -> Tensor {
        Tensor {
            dimensions: dimensions.to_vec(),
            ty,
            data: data.to_vec(),
        }
    }

    #[test]
    fn sizes_are_checked_at_their_edges() {
        use TensorType::{Fp32, Fp64, I64, U8};
        const MAX: u32 = u32::MAX;
        for (ty, dimensions, bytes, expected) in [
            (U8, &[][..], 1, "1"),
            (U8, &[0], 0, "0"),
            (U8, &[3], 3, "3"),
            (Fp32, &[2, 3], 24, "6"),
            (
                Fp32,
                &[2, 3],
                23,
                "tensor `t` has 23 bytes of data, its dimensions [2, 3] of FP32 call for 24",
            ),
            (
                U8,
                &[],
                0,
                "tensor `t` has 0 bytes of data, its dimensions [] of U8 call for 1",
            ),
            (
                U8,
                &[0],
                1,
                "tensor `t` has 1 bytes of data, its dimensions [0] of U8 call for 0",
            ),
            (U8, &[MAX, MAX, 0], 0, "0"),
            (
                U8,
                &[MAX, MAX, 2],
                8,
                "tensor `t` has the dimensions [4294967295, 4294967295, 2]: their product has no place in 64 bits",
            ),
            (
                I64,
                &[MAX, MAX],
                8,
                "tensor `t` has the dimensions [4294967295, 4294967295]: their product has no place in 64 bits",
            ),
            (
                Fp64,
                &[1 << 29, 1],
                8,
                "tensor `t` has 8 bytes of data, its dimensions [536870912, 1] of FP64 call for 4294967296",
            ),
            (U8, &[1; 16], 1, "1"),
            (
                U8,
                &[1; 17],
                1,
                "tensor `t` has 17 dimensions, at most 16 are allowed",
            ),
        ] {
            let found = tensor(ty, dimensions, &vec![0; bytes]).elements("t");
            let found = found.map_or_else(|refusal| refusal.message, |count| count.to_string());
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn every_float_type_is_read() {
        use TensorType::{Bf16, Fp16, Fp32, Fp64, U8};
        for (ty, data, expected) in [
            (Fp16, &0x3c00_u16.to_le_bytes()[..], 1.0_f32),
            (Fp16, &0xc500_u16.to_le_bytes(), -5.0),
            (Fp16, &1_u16.to_le_bytes(), 2_f32.powi(-24)),
            (Fp16, &0x8000_u16.to_le_bytes(), -0.0),
            (Fp16, &0x7c00_u16.to_le_bytes(), f32::INFINITY),
            (Fp16, &0x7bff_u16.to_le_bytes(), 65_504.0),
            (Bf16, &0x3fc0_u16.to_le_bytes(), 1.5),
            (Fp32, &0.7_f32.to_le_bytes(), 0.7),
            (Fp64, &0.7_f64.to_le_bytes(), 0.7),
        ] {
            let found = tensor(ty, &[1], data).float("t").unwrap();
            assert_eq!(found.to_bits(), expected.to_bits(), "{ty:?}");
        }
        assert!(tensor(Fp16, &[1], &[0, 0x7e]).float("t").unwrap().is_nan());
        let refused = tensor(U8, &[1], &[1]).float("t").unwrap_err();
        assert_eq!(
            refused.message,
            "tensor `t` is U8, wanted FP32, FP64, FP16 or BF16"
        );
        let refused = tensor(Fp32, &[0], &[]).float("t").unwrap_err();
        assert_eq!(refused.message, "tensor `t` has 0 elements, wanted 1");
    }

    #[test]
    fn every_integer_type_and_text_is_read() {
        use TensorType::{Fp32, I32, I64, U8};
        assert_eq!(tensor(U8, &[2], &[7, 255]).integers("t").unwrap(), [7, 255]);
        let negative = (-2_i32).to_le_bytes();
        assert_eq!(tensor(I32, &[1], &negative).integer("t").unwrap(), -2);
        let large = i64::MAX.to_le_bytes();
        assert_eq!(tensor(I64, &[1, 1], &large).integer("t").unwrap(), i64::MAX);
        assert!(tensor(Fp32, &[1], &[0; 4]).integer("t").is_err());
        assert_eq!(tensor(U8, &[2], "é".as_bytes()).text("t").unwrap(), "é");
        let refused = tensor(U8, &[3], b"ab\xc3").text("t").unwrap_err();
        assert_eq!(refused.code, NnCode::InvalidEncoding);
        assert_eq!(
            refused.message,
            "tensor `t` is not UTF-8: byte 2 begins no character"
        );
        let refused = tensor(I32, &[1], &[0; 4]).text("t").unwrap_err();
        assert_eq!(
            refused.message,
            "tensor `t` is I32, wanted U8, the bytes of a text"
        );
    }
}
