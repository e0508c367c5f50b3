//! How random weights are stored: the quantized formats' blocks, filled from a keystream.
//! In: a tensor's description and the seed. Out: its bytes, chunk by chunk; each tensor has a stream
//! of its own, so that bytes depend neither on chunks nor on other tensors.
//! Block layouts are those of ggml's `ggml-common.h`.

use chacha20::ChaCha8;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use super::writer::{Content, Tensor};
use crate::quant::QuantType;

/// What llama.cpp's quantizer takes where rows are no multiple of 256.
fn fitting(weights: QuantType, columns: u64) -> QuantType {
    if columns.is_multiple_of(weights.block_elements() as u64) {
        return weights;
    }
    match weights {
        QuantType::Q4K => QuantType::Q5_0,
        QuantType::Q5K => QuantType::Q5_1,
        QuantType::Q6K => QuantType::Q8_0,
        other => other,
    }
}

/// Which storage type each kind of matrix has; norms and biases are F32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightMix {
    /// The token embedding, also where it is the head.
    pub embedding: QuantType,
    /// The head, where it has a matrix of its own.
    pub head: QuantType,
    /// Queries and keys.
    pub query_key: QuantType,
    /// Values.
    pub value: QuantType,
    /// The attention's output.
    pub attention_output: QuantType,
    /// The feed-forward part's gate and up matrices.
    pub gate_up: QuantType,
    /// The feed-forward part's down matrix.
    pub down: QuantType,
    /// Value and down in the layers that llama.cpp's `_M` mixes store with more bits.
    pub more_bits: QuantType,
    /// Whether a type whose blocks do not fit the rows gives way to the next larger one, as
    /// llama.cpp's quantizer does; otherwise it is an error.
    pub fall_back: bool,
}

impl WeightMix {
    /// One type for all.
    pub fn all(weights: QuantType) -> Self {
        Self {
            embedding: weights,
            head: weights,
            query_key: weights,
            value: weights,
            attention_output: weights,
            gate_up: weights,
            down: weights,
            more_bits: weights,
            fall_back: false,
        }
    }

    /// Names of the mixes that are more than one type.
    pub const PRESETS: [&str; 4] = ["Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M"];

    /// By the name of a type or of a mix, such as `Q8_0` or `Q4_K_M`; capitals do not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        if let Some(weights) = QuantType::ALL.into_iter().find(|it| it.name() == name) {
            return Some(Self::all(weights));
        }
        let (base, more_bits) = match name.as_str() {
            "Q4_K_S" => (QuantType::Q4K, QuantType::Q5K),
            "Q4_K_M" => (QuantType::Q4K, QuantType::Q6K),
            "Q5_K_S" => (QuantType::Q5K, QuantType::Q5K),
            "Q5_K_M" => (QuantType::Q5K, QuantType::Q6K),
            _ => return None,
        };
        Some(Self {
            embedding: QuantType::Q6K,
            head: QuantType::Q6K,
            more_bits,
            fall_back: true,
            ..Self::all(base)
        })
    }

    /// Whether llama.cpp's `_M` mixes store this layer with more bits: the first and the last eighth,
    /// and every third between.
    pub(super) fn has_more_bits(layer: u32, layers: u32) -> bool {
        let eighth = layers / 8;
        layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
    }

    pub(super) fn fit(&self, weights: QuantType, columns: u64) -> QuantType {
        if self.fall_back {
            fitting(weights, columns)
        } else {
            weights
        }
    }
}

/// Makes one tensor's bytes.
pub(super) struct Filler<'a> {
    tensor: &'a Tensor,
    keystream: ChaCha8,
    blocks_left: u64,
    /// Wanted standard deviation of the values.
    deviation: f32,
}

impl<'a> Filler<'a> {
    pub(super) fn new(tensor: &'a Tensor, seed: u64, index: usize) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(index as u64).to_le_bytes());
        let deviation = match tensor.content {
            // A product of such a row with a vector of size 1 has size 1.
            Content::Matrix => 1.0 / (tensor.dimensions[0] as f32).sqrt(),
            Content::Norm | Content::Bias => 0.05,
        };
        Self {
            tensor,
            keystream: ChaCha8::new(&key.into(), &nonce.into()),
            blocks_left: tensor.elements() / tensor.weights.block_elements() as u64,
            deviation,
        }
    }

    /// The next whole blocks, about `bytes` of them; `false` when there are none left.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>, bytes: usize) -> bool {
        let block_bytes = self.tensor.weights.block_bytes();
        let blocks = (bytes / block_bytes).max(1);
        let blocks = blocks.min(usize::try_from(self.blocks_left).unwrap_or(usize::MAX));
        buffer.clear();
        buffer.resize(blocks * block_bytes, 0);
        self.keystream.apply_keystream(buffer);
        self.blocks_left -= blocks as u64;
        let middle = if self.tensor.content == Content::Norm {
            1.0
        } else {
            0.0
        };
        for block in buffer.chunks_exact_mut(block_bytes) {
            shape_block(self.tensor.weights, block, self.deviation, middle);
        }
        blocks > 0
    }
}

/// √3: a uniform value from -1 to 1 has a standard deviation of 1/√3.
const SQRT_3: f32 = 1.732_050_8;

/// Turns random bits into a block whose values have this standard deviation, around `middle` for the
/// unquantized types and around 0 (or half a step beside it) for the others.
fn shape_block(weights: QuantType, block: &mut [u8], deviation: f32, middle: f32) {
    // The deviation of `steps` equally likely neighbours.
    let per_step = |steps: f32| deviation / ((steps * steps - 1.0) / 12.0).sqrt();
    let half = |block: &mut [u8], at: usize, value: f32| {
        block[at..at + 2].copy_from_slice(&f16(value).to_le_bytes());
    };
    match weights {
        QuantType::F32 => {
            let value = middle + uniform(block) * deviation * SQRT_3;
            block.copy_from_slice(&value.to_le_bytes());
        }
        QuantType::F16 => {
            let value = middle + uniform(block) * deviation * SQRT_3;
            half(block, 0, value);
        }
        QuantType::BF16 => {
            let value = middle + uniform(block) * deviation * SQRT_3;
            let [_, _, low, high] = value.to_le_bytes();
            block.copy_from_slice(&[low, high]);
        }
        QuantType::Q4_0 => half(block, 0, per_step(16.0)),
        QuantType::Q5_0 => half(block, 0, per_step(32.0)),
        QuantType::Q8_0 => half(block, 0, per_step(256.0)),
        QuantType::Q4_1 | QuantType::Q5_1 => {
            let steps = if weights == QuantType::Q4_1 {
                16.0
            } else {
                32.0
            };
            half(block, 0, per_step(steps));
            half(block, 2, per_step(steps) * (1.0 - steps) / 2.0);
        }
        QuantType::Q4K | QuantType::Q5K => {
            let steps = if weights == QuantType::Q4K {
                16.0
            } else {
                32.0
            };
            half(block, 0, per_step(steps) / SUBSCALE);
            half(block, 2, per_step(steps) / SUBSCALE * (steps - 1.0) / 2.0);
            six_bit_scales(&mut block[4..16]);
        }
        QuantType::Q6K => {
            half(block, 208, per_step(64.0) / SUBSCALE);
            for scale in &mut block[192..208] {
                *scale = 32 | (*scale & 31);
            }
        }
    }
}

/// About the middle of the sub-blocks' scales, 32 to 63.
const SUBSCALE: f32 = 48.0;

/// Q4_K's and Q5_K's eight 6-bit scales, 32 to 63, and eight minimums equal to them: the low six bits
/// of bytes 0–3 and 4–7 are the first four of each; bytes 8–11 have the low nibbles of the last four,
/// whose upper two bits are the top bits of bytes 0–7.
fn six_bit_scales(bytes: &mut [u8]) {
    for at in 0..4 {
        let first = 32 | (bytes[at] & 31);
        let last = 32 | (bytes[at + 4] & 31);
        bytes[at] = first | (last >> 4) << 6;
        bytes[at + 4] = bytes[at];
        bytes[at + 8] = (last & 15) | (last & 15) << 4;
    }
}

/// From -1 to 1, out of the first 16 random bits.
fn uniform(block: &[u8]) -> f32 {
    let bits = u16::from_le_bytes([block[0], block[1]]);
    (f32::from(bits) - 32_767.5) / 32_767.5
}

/// The nearest f16, ties to even; for normal values in its range, as all scales here are.
fn f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = u16::try_from(bits >> 31).unwrap_or(0) << 15;
    let magnitude = bits & 0x7fff_ffff;
    // Below 2^-14 the steps are 2^-24 wide.
    if magnitude < 0x3880_0000 {
        let steps = (f32::from_bits(magnitude) * 16_777_216.0).round_ties_even();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number up to 1024"
        )]
        return sign | steps as u16;
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    let half = (rounded - 0x3800_0000) >> 13;
    sign | u16::try_from(half).unwrap_or(0x7bff).min(0x7bff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::f16_to_f32;

    #[test]
    fn f16_is_the_nearest_one() {
        for bits in (0u16..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(f16(f16_to_f32(bits)), bits);
        }
        // Half-way between two: the even one.
        let between = |bits: u16| (f16_to_f32(bits) + f16_to_f32(bits + 1)) / 2.0;
        assert_eq!(f16(between(0x3c00)), 0x3c00);
        assert_eq!(f16(between(0x3c01)), 0x3c02);
        assert_eq!(f16(between(0x0001)), 0x0002);
        assert_eq!(f16(1e9), 0x7bff);
    }
}
