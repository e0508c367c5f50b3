//! Weights of the file → layouts for integer kernels.
//! In: a quantized matrix. Out: groups of 16 rows whose weights lie interleaved, with the integer
//! coefficients of rule 3 or the f16 scales they are made of. Values do not change: the layouts are
//! permutations, and a coefficient is one stated rounding of a scale.

use crate::arithmetic::{exponent_of, round_small};
use crate::cpu::buffer::{Arena, Buffer, Plain};
use crate::cpu::pool::{Parts, Pool};
use crate::gguf::Gguf;
use crate::model::ModelError;
use crate::model::plan::Matrix;
use crate::quant::{QuantType, f16_to_f32, u16_at, unpack_q6_k};

/// Rows of a group.
pub(super) const ROWS: usize = 16;
/// Columns of a block.
pub(super) const COLUMNS: usize = 32;

/// The row that stands in a lane of a group: even lanes have rows 0 to 7 and odd ones 8 to 15, so that
/// the products of even and of odd lanes are runs of rows.
pub(super) fn row_of_lane(lane: usize) -> usize {
    lane / 2 + lane % 2 * 8
}

/// 16 rows × 32 columns of 4-bit weights with scale and minimum.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct NibbleBlock {
    /// f16 scales, one a lane.
    pub(super) scale: [u16; ROWS],
    /// f16 minima, one a lane; 0 where the format has none.
    pub(super) minimum: [u16; ROWS],
    /// Line j, byte 4·lane + c: column 8j + c in the low half, 8j + 4 + c in the high half.
    pub(super) weights: [[u8; 64]; 4],
}

/// 16 rows × 32 columns of 8-bit weights, with `C` coefficients a row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct ByteBlock<const C: usize> {
    /// One a lane.
    pub(super) coefficients: [[i32; ROWS]; C],
    /// Line j, byte 4·lane + c: column 4j + c, plus 128.
    pub(super) weights: [[u8; 64]; 8],
}

#[expect(unsafe_code, reason = "a block is plain integers")]
// SAFETY: arrays of integers, 320 bytes without padding, aligned to 64.
unsafe impl Plain for NibbleBlock {}
#[expect(unsafe_code, reason = "a block is plain integers")]
// SAFETY: arrays of integers whose sizes are multiples of 64 bytes, so without padding; aligned to 64.
unsafe impl<const C: usize> Plain for ByteBlock<C> {}

/// The layout of a matrix; blocks run along a group's columns, then from group to group.
#[derive(Debug)]
pub(super) enum Layout {
    /// Q4_1: coefficients of scale and minimum.
    NibbleMinimum(Buffer<NibbleBlock>),
    /// Q4_0: weights are 8 less than their bits.
    Nibble(Buffer<NibbleBlock>),
    /// Q5_0, Q8_0: one coefficient for 32 columns.
    Byte(Buffer<ByteBlock<1>>),
    /// Q5_1: coefficients of scale and minimum.
    ByteMinimum(Buffer<ByteBlock<2>>),
    /// Q6_K: one coefficient for 16 columns each.
    ByteHalves(Buffer<ByteBlock<2>>),
}

/// What the rows of a group have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// 2^-E of each lane's row: scale · this, rounded, is the coefficient.
    pub(super) unit: [f32; ROWS],
    /// E of each row.
    pub(super) exponent: [i32; ROWS],
}

/// A matrix ready for the kernels.
#[derive(Debug)]
pub(super) struct Packed {
    /// Blocks of 32 columns in a row.
    pub(super) blocks: usize,
    pub(super) groups: Vec<Group>,
    pub(super) layout: Layout,
}

impl Packed {
    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Packs a matrix of the file. Rows beyond the last, up to a whole group, are zeros.
    pub(super) fn new(
        gguf: &Gguf,
        matrix: &Matrix,
        pool: &Pool,
        arena: &mut Arena,
    ) -> Result<Self, ModelError> {
        let quant = matrix.quant();
        let blocks = matrix.columns / COLUMNS;
        let count = matrix.rows.div_ceil(ROWS);
        if !matrix.columns.is_multiple_of(COLUMNS) {
            return Err(unsupported(matrix));
        }
        let groups = (0..count)
            .map(|group| Group::new(gguf, matrix, group))
            .collect::<Vec<_>>();
        let total = count * blocks;
        let source = Source {
            gguf,
            matrix,
            groups: &groups,
            blocks,
            pool,
        };
        let layout = match quant {
            QuantType::Q4_1 => {
                Layout::NibbleMinimum(source.fill(arena.zeroed(total, WEIGHTS)?, nibbles))
            }
            QuantType::Q4_0 => Layout::Nibble(source.fill(arena.zeroed(total, WEIGHTS)?, nibbles)),
            QuantType::Q8_0 | QuantType::Q5_0 => {
                Layout::Byte(source.fill(arena.zeroed(total, WEIGHTS)?, bytes))
            }
            QuantType::Q5_1 => {
                Layout::ByteMinimum(source.fill(arena.zeroed(total, WEIGHTS)?, bytes_minimum))
            }
            QuantType::Q6K => {
                Layout::ByteHalves(source.fill(arena.zeroed(total, WEIGHTS)?, bytes_q6_k))
            }
            QuantType::F32 | QuantType::F16 => return Err(unsupported(matrix)),
        };
        Ok(Self {
            blocks,
            groups,
            layout,
        })
    }
}

/// What an error calls this memory.
const WEIGHTS: &str = "weights";

fn unsupported(matrix: &Matrix) -> ModelError {
    let (tensor, quant) = (matrix.name.clone(), matrix.quant());
    ModelError::UnsupportedQuant {
        tensor,
        quant,
        what: "a matrix of the exact engine",
    }
}

/// Rule 3's exponent of a row: of its largest scale, less 21 or 14.
pub(super) fn row_exponent(quant: QuantType, row: &[u8]) -> i32 {
    let scales = row
        .chunks_exact(quant.block_bytes())
        .map(|block| match quant {
            QuantType::Q6K => f16_to_f32(u16_at(block, 208)).abs(),
            _ => {
                let (scale, minimum) = quant.scales32(block);
                scale.abs().max(minimum.abs())
            }
        });
    let largest = scales.fold(0.0, f32::max);
    let bits = if quant == QuantType::Q6K { 14 } else { 21 };
    if largest == 0.0 {
        0
    } else {
        exponent_of(largest) - bits
    }
}

impl Group {
    fn new(gguf: &Gguf, matrix: &Matrix, group: usize) -> Self {
        let mut exponent = [0; ROWS];
        for (offset, exponent) in exponent.iter_mut().enumerate() {
            let row = group * ROWS + offset;
            if row < matrix.rows {
                *exponent = row_exponent(matrix.quant(), matrix.row(gguf, row));
            }
        }
        let unit = |lane| power(-exponent[row_of_lane(lane)]);
        Self {
            unit: std::array::from_fn(unit),
            exponent,
        }
    }
}

/// 2^power; the exponents of f16 scales keep it from 2^6 to 2^45.
#[expect(
    clippy::cast_sign_loss,
    reason = "the biased exponent is positive for those powers"
)]
fn power(power: i32) -> f32 {
    f32::from_bits(((127 + power) as u32) << 23)
}

/// A matrix being packed.
struct Source<'a> {
    gguf: &'a Gguf,
    matrix: &'a Matrix,
    groups: &'a [Group],
    blocks: usize,
    pool: &'a Pool,
}

/// One row's place in a block.
struct Place<'a> {
    quant: QuantType,
    /// The whole row in the file's format.
    row: &'a [u8],
    /// Which block of 32 columns.
    block: usize,
    lane: usize,
    unit: f32,
}

impl Place<'_> {
    /// This block of a format of 32 columns.
    fn bytes(&self) -> &[u8] {
        let size = self.quant.block_bytes();
        &self.row[self.block * size..][..size]
    }

    fn coefficient(&self, scale: f32) -> i32 {
        round_small(scale * self.unit)
    }
}

impl Source<'_> {
    fn fill<B: Plain + Send>(
        &self,
        mut buffer: Buffer<B>,
        put: fn(&mut B, &Place<'_>),
    ) -> Buffer<B> {
        let parts = Parts::new(&mut buffer);
        let matrix = self.matrix;
        self.pool.run(self.groups.len(), |group| {
            #[expect(unsafe_code, reason = "each chunk writes its own group")]
            // SAFETY: chunk `group` takes the blocks of group `group` and no others.
            let blocks = unsafe { parts.part(group * self.blocks, self.blocks) };
            for lane in 0..ROWS {
                let row = group * ROWS + row_of_lane(lane);
                if row >= matrix.rows {
                    continue;
                }
                let (quant, unit) = (matrix.quant(), self.groups[group].unit[lane]);
                let row = matrix.row(self.gguf, row);
                for (block, out) in blocks.iter_mut().enumerate() {
                    put(
                        out,
                        &Place {
                            quant,
                            row,
                            block,
                            lane,
                            unit,
                        },
                    );
                }
            }
        });
        buffer
    }
}

fn nibbles(out: &mut NibbleBlock, place: &Place<'_>) {
    let (block, lane) = (place.bytes(), place.lane);
    let (minimum, packed) = match place.quant {
        QuantType::Q4_1 => (u16_at(block, 2), &block[4..20]),
        _ => (0, &block[2..18]),
    };
    out.scale[lane] = u16_at(block, 0);
    out.minimum[lane] = minimum;
    let column = |k: usize| {
        if k < 16 {
            packed[k] & 15
        } else {
            packed[k - 16] >> 4
        }
    };
    for (line, bytes) in out.weights.iter_mut().enumerate() {
        for (c, byte) in bytes[4 * lane..][..4].iter_mut().enumerate() {
            *byte = column(8 * line + c) | column(8 * line + 4 + c) << 4;
        }
    }
}

fn put_bytes<const C: usize>(out: &mut ByteBlock<C>, lane: usize, weights: &[i8]) {
    for (line, four) in weights.chunks_exact(4).enumerate() {
        for (c, weight) in four.iter().enumerate() {
            out.weights[line][4 * lane + c] = weight.cast_unsigned() ^ 0x80;
        }
    }
}

fn bytes(out: &mut ByteBlock<1>, place: &Place<'_>) {
    let mut weights = [0; COLUMNS];
    place.quant.unpack32(place.bytes(), &mut weights);
    put_bytes(out, place.lane, &weights);
    let (scale, _) = place.quant.scales32(place.bytes());
    out.coefficients[0][place.lane] = place.coefficient(scale);
}

fn bytes_minimum(out: &mut ByteBlock<2>, place: &Place<'_>) {
    let mut weights = [0; COLUMNS];
    place.quant.unpack32(place.bytes(), &mut weights);
    put_bytes(out, place.lane, &weights);
    let (scale, minimum) = place.quant.scales32(place.bytes());
    out.coefficients[0][place.lane] = place.coefficient(scale);
    out.coefficients[1][place.lane] = place.coefficient(minimum);
}

fn bytes_q6_k(out: &mut ByteBlock<2>, place: &Place<'_>) {
    let block = &place.row[place.block / 8 * 210..][..210];
    let mut weights = [0; 256];
    unpack_q6_k(block, &mut weights);
    let part = place.block % 8;
    put_bytes(out, place.lane, &weights[part * COLUMNS..][..COLUMNS]);
    let scale = place.coefficient(f16_to_f32(u16_at(block, 208)));
    for (half, coefficients) in out.coefficients.iter_mut().enumerate() {
        let sub_scale = block[192 + part * 2 + half].cast_signed();
        coefficients[place.lane] = scale * i32::from(sub_scale);
    }
}
