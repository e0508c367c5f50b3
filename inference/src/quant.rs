//! The quantized number formats of GGUF: block sizes, and blocks → f32.
//! In: checked bytes of whole blocks. Out: values, or where a scale is not finite.
//! Another format is one more row of the tables here; kernels have their own layouts (`cpu/exact/pack.rs`).

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum QuantType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q6K,
}

impl QuantType {
    /// By the code in a GGUF file.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            14 => Self::Q6K,
            _ => return None,
        })
    }

    /// The name llama.cpp prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in one block.
    pub(crate) fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `elements` values; `elements` is a whole number of blocks.
    pub(crate) fn bytes_for(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }

    /// The first block whose scale or value is NaN or infinite.
    pub(crate) fn first_nonfinite_block(self, bytes: &[u8]) -> Option<usize> {
        let mut blocks = bytes.chunks_exact(self.block_bytes());
        let half = |block: &[u8], at: usize| f16_is_finite(u16_at(block, at));
        match self {
            Self::F32 => blocks.position(|block| !f32_at(block, 0).is_finite()),
            Self::F16 | Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => {
                blocks.position(|block| !half(block, 0))
            }
            Self::Q4_1 | Self::Q5_1 => blocks.position(|block| !(half(block, 0) && half(block, 2))),
            Self::Q6K => blocks.position(|block| !half(block, 208)),
        }
    }

    /// Values of a run of whole blocks, by the plain formula of each format.
    ///
    /// `bytes` and `out` have the lengths of the same number of blocks; both come from checked tensors.
    pub(crate) fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        let blocks = bytes.chunks_exact(self.block_bytes());
        for (block, out) in blocks.zip(out.chunks_exact_mut(self.block_elements())) {
            match self {
                Self::F32 => out[0] = f32_at(block, 0),
                Self::F16 => out[0] = f16_to_f32(u16_at(block, 0)),
                Self::Q6K => {
                    let d = f16_to_f32(u16_at(block, 208));
                    let mut weights = [0i8; 256];
                    unpack_q6_k(block, &mut weights);
                    for (i, value) in out.iter_mut().enumerate() {
                        let scale = f32::from(block[192 + i / 16].cast_signed());
                        *value = d * scale * f32::from(weights[i]);
                    }
                }
                _ => {
                    let (d, m) = self.scales32(block);
                    let mut weights = [0i8; 32];
                    self.unpack32(block, &mut weights);
                    for (value, weight) in out.iter_mut().zip(weights) {
                        *value = d * f32::from(weight) + m;
                    }
                }
            }
        }
    }

    /// Scale and minimum of a block of 32; the minimum is 0 where the format has none.
    pub(crate) fn scales32(self, block: &[u8]) -> (f32, f32) {
        let d = f16_to_f32(u16_at(block, 0));
        match self {
            Self::Q4_1 | Self::Q5_1 => (d, f16_to_f32(u16_at(block, 2))),
            _ => (d, 0.0),
        }
    }

    /// The integer weights of a block of 32, in the order of the columns.
    pub(crate) fn unpack32(self, block: &[u8], out: &mut [i8; 32]) {
        match self {
            Self::Q8_0 => {
                for (weight, byte) in out.iter_mut().zip(&block[2..34]) {
                    *weight = byte.cast_signed();
                }
            }
            Self::Q4_0 => unpack_nibbles(&block[2..18], 0, 8, out),
            Self::Q4_1 => unpack_nibbles(&block[4..20], 0, 0, out),
            Self::Q5_0 => unpack_nibbles(&block[6..22], u32_at(block, 2), 16, out),
            Self::Q5_1 => unpack_nibbles(&block[8..24], u32_at(block, 4), 0, out),
            // These have no blocks of 32; callers go by `block_elements`.
            Self::F32 | Self::F16 | Self::Q6K => out.fill(0),
        }
    }
}

/// Low nibbles are columns 0 to 15, high ones 16 to 31; `fifth` has one bit a column.
fn unpack_nibbles(nibbles: &[u8], fifth: u32, offset: i8, out: &mut [i8; 32]) {
    for (i, byte) in nibbles.iter().enumerate() {
        let bit = |at: usize| if fifth >> at & 1 == 1 { 16 } else { 0 };
        out[i] = ((byte & 15) | bit(i)).cast_signed() - offset;
        out[i + 16] = ((byte >> 4) | bit(i + 16)).cast_signed() - offset;
    }
}

/// The 256 weights of a Q6_K block, from -32 to 31.
pub(crate) fn unpack_q6_k(block: &[u8], out: &mut [i8; 256]) {
    for (i, weight) in out.iter_mut().enumerate() {
        let (half, quarter, lane) = (i / 128, i % 128 / 32, i % 32);
        let low = block[half * 64 + (quarter & 1) * 32 + lane] >> ((quarter >> 1) * 4) & 15;
        let high = block[128 + half * 32 + lane] >> (quarter * 2) & 3;
        *weight = (low | high << 4).cast_signed() - 32;
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_bits(u32_at(bytes, at))
}

fn f16_is_finite(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}

/// Exact: every f16 is an f32, and its subnormals are normal there.
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10 & 31);
    let mantissa = u32::from(half & 0x3ff);
    match exponent {
        0 => {
            let magnitude = mantissa as f32 * f32::from_bits(0x3380_0000); // 2^-24
            f32::from_bits(sign | magnitude.to_bits())
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | mantissa << 13),
    }
}
