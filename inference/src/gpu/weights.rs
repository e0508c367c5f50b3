//! Matrices → planes of integers in buffers of the device.
//! In: a matrix in the file's format. Out: for runs of rows that fit a binding, one buffer with the weights,
//! their coefficients (rule 3) and the rows' exponents. Weights take what they take in the file, but for
//! Q4_K and Q5_K, whose six-bit scales become bytes: 3 % more. No value changes.

use wgpu::Buffer;

use crate::arithmetic::{flush, round_scaled};
use crate::backend::{BackendError, zeroed};
use crate::model::ModelError;
use crate::model::plan::Rows;
use crate::quant::QuantType;
use crate::weights::{coefficient, row_exponent, unit_of};

use super::device::Gpu;

/// Columns of a block.
pub(super) const COLUMNS: usize = 32;
/// Blocks that share the outer scales of Q4_K, Q5_K and Q6_K.
const SUPER: usize = 8;

/// How weights of a block lie, and how many bits they have.
///
/// Column c of a block is byte c mod 4 of quad c / 4; a quad is a word of four weights. Nibbles: word k of 4
/// has quad k in its low halves and quad k + 4 in its high ones. Fifth bits: bit 8c + k of a word of their
/// own is that of column c of quad k. Fifth and sixth bits: bits 8c + 2k and 8c + 2k + 1 of one of two words are those
/// of column c of quad k, or k + 4 in the second. Bytes: quads 0 to 7. Shorts: the quads of the high bytes,
/// then of the low ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Bits {
    Four,
    Five,
    Six,
    Eight,
    Sixteen,
}

/// What a block's sums are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Coefficients {
    /// None: the exponent says it all.
    One,
    /// c of 16 bits against Σ (w - bias)·q.
    Scale,
    /// c and m of 16 bits each, m against Σ q.
    Minimum,
    /// Bytes s and t of a block, 16-bit d and e of 8 blocks: d·s, and −e·t against Σ q.
    SuperMinimum,
    /// Signed bytes s and t of a block, for 16 columns each, and d of 8 blocks: d·s and d·t.
    SuperHalves,
}

/// A format as the device has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Format {
    pub(super) bits: Bits,
    pub(super) coefficients: Coefficients,
    /// What weights are too large by.
    pub(super) bias: i32,
}

impl Format {
    pub(super) fn of(quant: QuantType) -> Self {
        use Coefficients::{Minimum, One, Scale, SuperHalves, SuperMinimum};
        let (bits, coefficients) = match quant {
            QuantType::Q4_0 => (Bits::Four, Scale),
            QuantType::Q4_1 => (Bits::Four, Minimum),
            QuantType::Q4K => (Bits::Four, SuperMinimum),
            QuantType::Q5_0 => (Bits::Five, Scale),
            QuantType::Q5_1 => (Bits::Five, Minimum),
            QuantType::Q5K => (Bits::Five, SuperMinimum),
            QuantType::Q6K => (Bits::Six, SuperHalves),
            QuantType::Q8_0 => (Bits::Eight, Scale),
            QuantType::F16 | QuantType::BF16 | QuantType::F32 => (Bits::Sixteen, One),
        };
        // Bytes are signed on the device.
        let bias = if bits == Bits::Eight { 0 } else { quant.bias() };
        Self {
            bits,
            coefficients,
            bias,
        }
    }

    /// Words of a block in the first plane, a multiple of 4.
    pub(super) fn words(self) -> usize {
        match self.bits {
            Bits::Four | Bits::Five | Bits::Six => 4,
            Bits::Eight => 8,
            Bits::Sixteen => 16,
        }
    }

    /// Words of a row in each plane, in their order.
    fn row_words(self, blocks: usize) -> [usize; 5] {
        let extra = match self.bits {
            Bits::Five => blocks,
            Bits::Six => 2 * blocks,
            Bits::Four | Bits::Eight | Bits::Sixteen => 0,
        };
        let halves = blocks.div_ceil(2);
        let (coefficients, supers) = match self.coefficients {
            Coefficients::One => (0, 0),
            Coefficients::Scale => (halves, 0),
            Coefficients::Minimum => (blocks, 0),
            Coefficients::SuperMinimum | Coefficients::SuperHalves => {
                (halves, blocks.div_ceil(SUPER))
            }
        };
        [blocks * self.words(), extra, coefficients, supers, 1]
    }
}

/// Where the planes of a run begin, in words; the first is at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planes {
    pub(super) extra: u32,
    pub(super) coefficients: u32,
    pub(super) supers: u32,
    pub(super) exponents: u32,
}

/// Consecutive rows in one buffer.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) buffer: Buffer,
    pub(super) rows: usize,
    pub(super) planes: Planes,
}

/// A matrix on the device.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// All of one length but the last.
    pub(super) runs: Vec<Run>,
}

impl Matrix {
    /// Packs a matrix and sends it to the device, in runs of at most `rows_max` rows.
    pub(super) fn load(gpu: &Gpu, matrix: &Rows<'_>, rows_max: usize) -> Result<Self, ModelError> {
        if !matrix.columns.is_multiple_of(COLUMNS) {
            return Err(ModelError::UnsupportedSize {
                what: format!("the number of columns of `{}`", matrix.name),
                value: matrix.columns,
                wanted: "a multiple of 32",
            });
        }
        let format = Format::of(matrix.quant);
        let mut runs = Vec::new();
        let mut first = 0;
        while first < matrix.rows {
            let rows = rows_max.min(matrix.rows - first);
            runs.push(run(gpu, matrix, format, first, rows)?);
            first += rows;
        }
        Ok(Self {
            format,
            rows: matrix.rows,
            columns: matrix.columns,
            runs,
        })
    }
}

/// The most rows of a matrix that fit one binding.
pub(super) fn rows_max(gpu: &Gpu, quant: QuantType, columns: usize) -> usize {
    let words: usize = Format::of(quant).row_words(columns / COLUMNS).iter().sum();
    // Each plane begins at a multiple of four words.
    let bytes = gpu.binding_bytes_max().saturating_sub(4 * 5 * 4) / (4 * words as u64).max(1);
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}

fn run(
    gpu: &Gpu,
    matrix: &Rows<'_>,
    format: Format,
    first: usize,
    rows: usize,
) -> Result<Run, ModelError> {
    let row_words = format.row_words(matrix.columns / COLUMNS);
    let mut at = [0; 6];
    for (plane, words) in row_words.iter().enumerate() {
        at[plane + 1] = (at[plane] + rows * words).next_multiple_of(4);
    }
    let mut words: Vec<u32> = zeroed(at[5], "weights on their way to the GPU")?;
    for row in 0..rows {
        let bytes = matrix.row(first + row);
        let exponent = row_exponent(matrix.quant, bytes);
        let place = |plane: usize| at[plane] + row * row_words[plane];
        let mut row_out = RowOut {
            words: &mut words,
            weights: place(0),
            extra: place(1),
            coefficients: place(2),
            supers: place(3),
        };
        row_out.put(
            matrix.quant,
            format,
            bytes,
            exponent,
            matrix.columns / COLUMNS,
        );
        words[place(4)] = exponent.cast_unsigned();
    }
    let number = |words: usize| {
        u32::try_from(words).map_err(|_| BackendError::OutOfMemory {
            what: "weights in one binding",
            bytes: 4 * words as u64,
        })
    };
    let planes = Planes {
        extra: number(at[1])?,
        coefficients: number(at[2])?,
        supers: number(at[3])?,
        exponents: number(at[4])?,
    };
    Ok(Run {
        buffer: gpu.filled("weights", &words)?,
        rows,
        planes,
    })
}

/// A row's places in the planes.
struct RowOut<'a> {
    words: &'a mut [u32],
    weights: usize,
    extra: usize,
    coefficients: usize,
    supers: usize,
}

impl RowOut<'_> {
    fn put(&mut self, quant: QuantType, format: Format, row: &[u8], exponent: i32, blocks: usize) {
        for block in 0..blocks {
            if format.bits == Bits::Sixteen {
                self.put_shorts(quant, row, exponent, block);
                continue;
            }
            self.put_weights(quant, format, row, block);
            let scales = quant.scales32(row, block);
            let unit = unit_of(exponent);
            let [scale, minimum] =
                [scales.scale, scales.minimum].map(|half| coefficient(half, unit));
            let half = 16 * (block % 2);
            match format.coefficients {
                Coefficients::One => {}
                Coefficients::Scale => {
                    self.words[self.coefficients + block / 2] |= u32::from(compact(scale)) << half;
                }
                Coefficients::Minimum => {
                    self.words[self.coefficients + block] =
                        u32::from(compact(scale)) | u32::from(compact(minimum)) << 16;
                }
                Coefficients::SuperMinimum => {
                    // The format's sub-minima are taken from the weights.
                    let factors = [scales.factors[0], -scales.minimum_factor.unwrap_or(0)];
                    self.put_factors(block, factors);
                    self.words[self.supers + block / SUPER] =
                        low_half(scale) | low_half(minimum) << 16;
                }
                Coefficients::SuperHalves => {
                    self.put_factors(block, scales.factors);
                    self.words[self.supers + block / SUPER] = scale.cast_unsigned();
                }
            }
        }
    }

    fn put_factors(&mut self, block: usize, factors: [i32; 2]) {
        let [first, second] = factors.map(|factor| factor.cast_unsigned() & 0xff);
        self.words[self.coefficients + block / 2] |= (first | second << 8) << (16 * (block % 2));
    }

    fn put_weights(&mut self, quant: QuantType, format: Format, row: &[u8], block: usize) {
        let mut weights = [0; COLUMNS];
        quant.unpack32(row, block, &mut weights);
        let at = self.weights + block * format.words();
        for (column, weight) in weights.into_iter().enumerate() {
            let (quad, byte) = (column / 4, 8 * (column % 4));
            let weight = u32::from(weight);
            if format.bits == Bits::Eight {
                self.words[at + quad] |= (weight ^ 0x80) << byte;
                continue;
            }
            self.words[at + quad % 4] |= (weight & 15) << (byte + 4 * (quad / 4));
            match format.bits {
                Bits::Five => self.words[self.extra + block] |= (weight >> 4) << (byte + quad),
                Bits::Six => {
                    self.words[self.extra + 2 * block + quad / 4] |=
                        (weight >> 4) << (byte + 2 * (quad % 4));
                }
                Bits::Four | Bits::Eight | Bits::Sixteen => {}
            }
        }
    }

    fn put_shorts(&mut self, quant: QuantType, row: &[u8], exponent: i32, block: usize) {
        let size = quant.bytes_for(COLUMNS);
        let mut values = [0.0; COLUMNS];
        quant.dequantize(&row[block * size..][..size], &mut values);
        let at = self.weights + block * 16;
        for (column, value) in values.into_iter().enumerate() {
            let q = round_scaled(flush(value), exponent);
            let high = (q + 128) >> 8;
            let (quad, byte) = (column / 4, 8 * (column % 4));
            self.words[at + quad] |= (high.cast_unsigned() & 0xff) << byte;
            self.words[at + 8 + quad] |= (q.cast_unsigned() & 0xff) << byte;
        }
    }
}

fn low_half(value: i32) -> u32 {
    value.cast_unsigned() & 0xffff
}

/// A coefficient in 16 bits: 11 of its magnitude, how far they are shifted, and a sign. Nothing is lost,
/// since an f16 has 11 significant bits and a coefficient at most 22 bits.
fn compact(coefficient: i32) -> u16 {
    let mut magnitude = coefficient.unsigned_abs();
    let mut shift = 0u16;
    while magnitude > 0x7ff {
        magnitude >>= 1;
        shift += 1;
    }
    let sign = u16::from(coefficient < 0) << 15;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "11 bits, as the loop made sure"
    )]
    let low = magnitude as u16;
    sign | shift << 11 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernels read it.
    fn read(half: u16) -> i32 {
        let magnitude = i32::from(half & 0x7ff) << ((half >> 11) & 15);
        if half >> 15 == 1 {
            -magnitude
        } else {
            magnitude
        }
    }

    #[test]
    fn compact_coefficients_lose_nothing() {
        // Every f16 scale that is finite, in rows whose largest scale is from 1 to 2^16 times as large.
        for bits in 0..=u16::MAX {
            if bits & 0x7c00 == 0x7c00 {
                continue;
            }
            for wider in 0..=16 {
                let value = crate::quant::f16_to_f32(bits).abs();
                let exponent = match value {
                    0.0 => 0,
                    value => crate::arithmetic::exponent_of(value) - 21,
                };
                let found = coefficient(bits, unit_of((exponent + wider).min(-6)));
                assert_eq!(read(compact(found)), found, "{bits:04x} {wider}");
            }
        }
    }
}
