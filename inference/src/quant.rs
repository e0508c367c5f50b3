//! The quantized number formats of GGUF: block sizes, and blocks → f32.
//! In: checked bytes of whole blocks. Out: values, bits and scales of 32 columns, or where one is not finite.
//! Another format is one more row of the tables here; kernels have their own layouts (`cpu/exact/pack.rs`).

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum QuantType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// The scales of 32 columns: weight w of column i is
/// `scale · factors[i / 16] · w`, plus `minimum · minimum_factor` if there is one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scales32 {
    /// f16.
    pub(crate) scale: u16,
    /// f16; 0 where the format has none.
    pub(crate) minimum: u16,
    /// Of the first and the last 16 columns; 1 where a block has no sub-scales.
    pub(crate) factors: [i32; 2],
    /// `None` where the format has no minimum.
    pub(crate) minimum_factor: Option<i32>,
}

impl QuantType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// By the code in a GGUF file.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|quant| quant.code() == code)
    }

    /// The code in a GGUF file.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
        }
    }

    /// The name llama.cpp prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in one block.
    pub(crate) fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `elements` values; `elements` is a whole number of blocks.
    pub(crate) fn bytes_for(self, elements: usize) -> usize {
        elements / self.block_elements() * self.block_bytes()
    }

    /// Whether each value stands for itself, without blocks and scales.
    pub(crate) fn is_float(self) -> bool {
        self.block_elements() == 1
    }

    /// What is taken from a weight's bits to get its value.
    pub(crate) fn bias(self) -> i32 {
        match self {
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            Self::Q8_0 => 128,
            _ => 0,
        }
    }

    /// Where the f16 scales of a block stand; empty for plain values.
    pub(crate) fn scales_at(self) -> &'static [usize] {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => &[],
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q6K => &[208],
        }
    }

    /// The first block whose scale or value is NaN or infinite.
    pub(crate) fn first_nonfinite_block(self, bytes: &[u8]) -> Option<usize> {
        let mut blocks = bytes.chunks_exact(self.block_bytes());
        if self.is_float() {
            return blocks.position(|block| !self.float(block).is_finite());
        }
        let finite = |block: &[u8], at: &usize| u16_at(block, *at) & 0x7c00 != 0x7c00;
        blocks.position(|block| !self.scales_at().iter().all(|at| finite(block, at)))
    }

    /// A plain value; 0 for the types of blocks, which callers tell apart by [`QuantType::is_float`].
    fn float(self, bytes: &[u8]) -> f32 {
        match self {
            Self::F32 => f32::from_bits(u32_at(bytes, 0)),
            Self::F16 => f16_to_f32(u16_at(bytes, 0)),
            Self::BF16 => f32::from_bits(u32::from(u16_at(bytes, 0)) << 16),
            _ => 0.0,
        }
    }

    /// Values of a run of whole blocks, by the plain formula of each format, rounded once.
    ///
    /// `bytes` and `out` have the lengths of the same number of blocks; both come from checked tensors.
    pub(crate) fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        if self.is_float() {
            for (block, out) in bytes.chunks_exact(self.block_bytes()).zip(out) {
                *out = self.float(block);
            }
            return;
        }
        let mut weights = [0; 32];
        for (index, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scales = self.scales32(bytes, index);
            self.unpack32(bytes, index, &mut weights);
            let minimum = f16_to_f32(scales.minimum) * scales.minimum_factor.unwrap_or(0) as f32;
            // Products of 11 and at most 6 bits, times weights of at most 8: exact before the addition.
            let scale = scales
                .factors
                .map(|factor| f16_to_f32(scales.scale) * factor as f32);
            for (i, (value, weight)) in out.iter_mut().zip(weights).enumerate() {
                let weight = i32::from(weight) - self.bias();
                *value = scale[i / 16] * weight as f32 + minimum;
            }
        }
    }

    /// The block of a row in which 32 columns stand, and which part of it they are.
    fn part(self, row: &[u8], index: usize) -> (&[u8], usize) {
        let parts = self.block_elements() / 32;
        let size = self.block_bytes();
        (&row[index / parts * size..][..size], index % parts)
    }

    /// The scales of columns `32 · index` and after of a row in blocks.
    pub(crate) fn scales32(self, row: &[u8], index: usize) -> Scales32 {
        let (block, part) = self.part(row, index);
        let half = |at| u16_at(block, at);
        let (scale, minimum, factors, minimum_factor) = match self {
            Self::Q4_1 | Self::Q5_1 => (half(0), half(2), [1; 2], Some(1)),
            Self::Q4K | Self::Q5K => {
                let (scale, minimum) = six_bits(&block[4..16], part);
                (half(0), half(2), [scale; 2], Some(-minimum))
            }
            Self::Q6K => {
                let factor = |at: usize| i32::from(block[192 + 2 * part + at].cast_signed());
                (half(208), 0, [factor(0), factor(1)], None)
            }
            _ => (half(0), 0, [1; 2], None),
        };
        Scales32 {
            scale,
            minimum,
            factors,
            minimum_factor,
        }
    }

    /// The bits of the weights of columns `32 · index` and after, [`QuantType::bias`] more than their values.
    pub(crate) fn unpack32(self, row: &[u8], index: usize, out: &mut [u8; 32]) {
        let (block, part) = self.part(row, index);
        match self {
            Self::Q8_0 => {
                for (weight, byte) in out.iter_mut().zip(&block[2..34]) {
                    *weight = byte ^ 0x80;
                }
            }
            Self::Q4_0 => unpack_nibbles(&block[2..18], 0, out),
            Self::Q4_1 => unpack_nibbles(&block[4..20], 0, out),
            Self::Q5_0 => unpack_nibbles(&block[6..22], u32_at(block, 2), out),
            Self::Q5_1 => unpack_nibbles(&block[8..24], u32_at(block, 4), out),
            Self::Q4K => unpack_part(&block[16..144], part, |_| 0, out),
            Self::Q5K => {
                let fifth = &block[16..48];
                unpack_part(&block[48..176], part, |i| fifth[i] >> part & 1, out);
            }
            Self::Q6K => {
                let (half, quarter) = (part / 4, part % 4);
                for (i, weight) in out.iter_mut().enumerate() {
                    let low = block[half * 64 + (quarter & 1) * 32 + i] >> ((quarter >> 1) * 4);
                    let high = block[128 + half * 32 + i] >> (quarter * 2) & 3;
                    *weight = low & 15 | high << 4;
                }
            }
            // Plain values have no bits to unpack; callers go by `is_float`.
            Self::F32 | Self::F16 | Self::BF16 => out.fill(0),
        }
    }
}

/// Low nibbles are columns 0 to 15, high ones 16 to 31; `fifth` has one bit a column.
fn unpack_nibbles(nibbles: &[u8], fifth: u32, out: &mut [u8; 32]) {
    for (i, byte) in nibbles.iter().enumerate() {
        let bit = |at: usize| if fifth >> at & 1 == 1 { 16 } else { 0 };
        out[i] = (byte & 15) | bit(i);
        out[i + 16] = (byte >> 4) | bit(i + 16);
    }
}

/// Columns `32 · part` and after of a block of 256: two parts share 32 bytes, the second has the high
/// nibbles; `fifth` gives each column's fifth bit.
fn unpack_part(nibbles: &[u8], part: usize, fifth: impl Fn(usize) -> u8, out: &mut [u8; 32]) {
    let bytes = &nibbles[part / 2 * 32..][..32];
    for (i, (weight, byte)) in out.iter_mut().zip(bytes).enumerate() {
        *weight = byte >> (part % 2 * 4) & 15 | fifth(i) << 4;
    }
}

/// The 6-bit scale and minimum of a part of a Q4_K or Q5_K block; the first four parts' bits stand
/// whole, the rest's are split between the low and the high ends of bytes.
fn six_bits(bytes: &[u8], part: usize) -> (i32, i32) {
    let (scale, minimum) = if part < 4 {
        (bytes[part] & 63, bytes[part + 4] & 63)
    } else {
        (
            bytes[part + 4] & 15 | bytes[part - 4] >> 6 << 4,
            bytes[part + 4] >> 4 | bytes[part] >> 6 << 4,
        )
    };
    (i32::from(scale), i32::from(minimum))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
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
