//! Weights of the file → layouts for integer kernels.
//! In: a matrix in any format. Out: groups of 16 rows whose weights lie interleaved in lines of unsigned
//! bytes, with the integer coefficients of rule 3 or the f16 scales they are made of. Values do not
//! change: the layouts are permutations, and a coefficient is one stated rounding of a scale.

use crate::arithmetic::{flush, round_scaled};
use crate::cpu::buffer::{Arena, Buffer, Plain, bytes, bytes_mut};
use crate::cpu::pool::{Parts, Pool};
use crate::model::ModelError;
use crate::model::plan::Rows;
use crate::quant::{QuantType, Scales32};
use crate::weights::{coefficient, row_exponent, unit_of};

use super::stored::Stored;

/// Rows of a group.
pub(super) const ROWS: usize = 16;
/// Columns of a block.
pub(super) const COLUMNS: usize = 32;

/// The row that stands in a lane of a group: even lanes have rows 0 to 7 and odd ones 8 to 15, so that
/// the products of even and of odd lanes are runs of rows.
pub(super) fn row_of_lane(lane: usize) -> usize {
    lane / 2 + lane % 2 * 8
}

/// 16 rows × 32 columns of weights in `W` lines of 64 bytes, with their scales.
///
/// Weights are unsigned, [`QuantType::bias`] too large. Columns 4v to 4v + 3 of all lanes are quad v, whose
/// byte 4 · lane + c is column 4v + c. With 8 lines ([`BYTES`]) each is a quad. With 4 ([`NIBBLES`]) line j
/// has quad 2j in its low halves and 2j + 1 in its high ones. With 5 ([`FIVES`]) the last line has the
/// fifth bits: that of quad v is bit (v + 4) mod 8. With 16 ([`SHORTS`]) lines 0 to 7 are the high bytes of
/// 16-bit weights and 8 to 15 the low ones.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Block<S, const W: usize> {
    pub(super) scales: S,
    pub(super) lines: [[u8; 64]; W],
}

pub(super) const NIBBLES: usize = 4;
pub(super) const FIVES: usize = 5;
pub(super) const BYTES: usize = 8;
pub(super) const SHORTS: usize = 16;

/// `C` coefficients a lane.
pub(super) type Words<const C: usize> = [[i32; ROWS]; C];

/// f16 scales, one a lane; their coefficients are computed where they are used. Lines behind them lie across two
/// cache lines each, which costs less than 32 bytes more from memory.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Half {
    pub(super) scale: [u16; ROWS],
}

/// f16 scales and minima, one a lane; their coefficients are computed where they are used.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Halves {
    pub(super) scale: [u16; ROWS],
    pub(super) minimum: [u16; ROWS],
}

/// The scales of a block as a kernel reads them.
pub(super) enum View<'a> {
    Words(&'a [[i32; ROWS]]),
    Half(&'a [u16; ROWS]),
    Halves(&'a Halves),
}

/// Either kind of scales.
pub(super) trait Scales: Copy + Send + Sync {
    fn view(&self) -> View<'_>;
    fn put(&mut self, lane: usize, scales: &Scales32, unit: f32);
}

impl<const C: usize> Scales for Words<C> {
    #[inline(always)]
    fn view(&self) -> View<'_> {
        View::Words(self)
    }

    /// One coefficient is the scale's, a second the minimum's or, without minima, the last 16 columns'.
    fn put(&mut self, lane: usize, scales: &Scales32, unit: f32) {
        let rounded = |half| coefficient(half, unit);
        let scale = rounded(scales.scale);
        let last = match scales.minimum_factor {
            None => scale * scales.factors[1],
            Some(factor) => rounded(scales.minimum) * factor,
        };
        for (words, word) in self.iter_mut().zip([scale * scales.factors[0], last]) {
            words[lane] = word;
        }
    }
}

impl Scales for Half {
    #[inline(always)]
    fn view(&self) -> View<'_> {
        View::Half(&self.scale)
    }

    fn put(&mut self, lane: usize, scales: &Scales32, _unit: f32) {
        self.scale[lane] = scales.scale;
    }
}

impl Scales for Halves {
    #[inline(always)]
    fn view(&self) -> View<'_> {
        View::Halves(self)
    }

    fn put(&mut self, lane: usize, scales: &Scales32, _unit: f32) {
        self.scale[lane] = scales.scale;
        self.minimum[lane] = scales.minimum;
    }
}

#[expect(unsafe_code, reason = "a block is plain integers")]
// SAFETY: arrays of integers; the scales take 0, 64 or 128 bytes and lines 64 each, so there is no
// padding; aligned to 32.
unsafe impl<const C: usize, const W: usize> Plain for Block<Words<C>, W> {}
#[expect(unsafe_code, reason = "a block is plain integers")]
// SAFETY: arrays of integers in multiples of 32 bytes without padding, aligned to 32.
unsafe impl<const W: usize> Plain for Block<Half, W> {}
#[expect(unsafe_code, reason = "a block is plain integers")]
// SAFETY: arrays of integers in multiples of 64 bytes without padding, aligned to 64.
unsafe impl<const W: usize> Plain for Block<Halves, W> {}

/// How the sums of a block's lines become the row's.
pub(super) type Kind = u8;
/// The coefficient times Σ w·q.
pub(super) const SCALE: Kind = 0;
/// And a second one times Σ q.
pub(super) const MINIMUM: Kind = 1;
/// One for each 16 columns.
pub(super) const SIXTEENS: Kind = 2;
/// 256 times the sum over high bytes, and the sum over low ones.
pub(super) const PLANES: Kind = 3;

/// The layout of a matrix; blocks run along a group's columns, then from group to group.
#[derive(Debug)]
pub(super) enum Layout {
    Q4_0(Buffer<Block<Half, NIBBLES>>),
    Q4_1(Buffer<Block<Halves, NIBBLES>>),
    Q4K(Buffer<Block<Words<2>, NIBBLES>>),
    Q5_0(Buffer<Block<Half, FIVES>>),
    Q5_1(Buffer<Block<Halves, FIVES>>),
    Q5K(Buffer<Block<Words<2>, FIVES>>),
    Q8_0(Buffer<Block<Half, BYTES>>),
    Q6K(Buffer<Block<Words<2>, BYTES>>),
    /// F16, BF16 and F32, as 16-bit integers: 2 bytes a weight, which rule 3 leaves no way to shorten. Q4_1 takes
    /// 0.625, so where memory is the limit, as it is for one token at a time, these take 3.2 times its time.
    Shorts(Buffer<Block<Words<0>, SHORTS>>),
}

/// Runs `$kernel::<scales, lines, kind, bias>(&blocks[range], ...)` of a matrix's layout; the bias is what
/// unsigned weights are too large by (of 16-bit ones: their high bytes).
macro_rules! with_layout {
    ($layout:expr, $range:expr, $kernel:ident $(<$tile:ident>)?, $($argument:expr),*) => {{
        use super::pack::{
            BYTES, FIVES, Half, Halves, Layout, MINIMUM, NIBBLES, PLANES, SCALE, SHORTS, SIXTEENS, Words,
        };
        let range = $range;
        match $layout {
            Layout::Q4_0(b) => $kernel::<$($tile,)? Half, NIBBLES, SCALE, 8>(&b[range], $($argument),*),
            Layout::Q4_1(b) => $kernel::<$($tile,)? Halves, NIBBLES, MINIMUM, 0>(&b[range], $($argument),*),
            Layout::Q4K(b) => $kernel::<$($tile,)? Words<2>, NIBBLES, MINIMUM, 0>(&b[range], $($argument),*),
            Layout::Q5_0(b) => $kernel::<$($tile,)? Half, FIVES, SCALE, 16>(&b[range], $($argument),*),
            Layout::Q5_1(b) => $kernel::<$($tile,)? Halves, FIVES, MINIMUM, 0>(&b[range], $($argument),*),
            Layout::Q5K(b) => $kernel::<$($tile,)? Words<2>, FIVES, MINIMUM, 0>(&b[range], $($argument),*),
            Layout::Q8_0(b) => $kernel::<$($tile,)? Half, BYTES, SCALE, 128>(&b[range], $($argument),*),
            Layout::Q6K(b) => $kernel::<$($tile,)? Words<2>, BYTES, SIXTEENS, 32>(&b[range], $($argument),*),
            Layout::Shorts(b) => $kernel::<$($tile,)? Words<0>, SHORTS, PLANES, 128>(&b[range], $($argument),*),
        }
    }};
}
pub(super) use with_layout;

/// How many parts of a block have a coefficient of their own, and how many quads each part has.
pub(super) const fn parts(kind: Kind) -> (usize, usize) {
    match kind {
        SIXTEENS => (2, 4),
        PLANES => (2, 8),
        _ => (1, 8),
    }
}

/// The sum of the activations that the bias of a part stands against, times that bias.
#[inline(always)]
pub(super) fn excess<const KIND: Kind, const BIAS: i32>(part: usize, halves: [i32; 2]) -> i32 {
    match (KIND, part) {
        (SIXTEENS, part) => BIAS * halves[part],
        // Low bytes of 16-bit weights are unsigned in truth.
        (PLANES, 1) => 0,
        _ => BIAS * (halves[0] + halves[1]),
    }
}

/// The coefficients of the parts of [`PLANES`].
pub(super) const PLANE_COEFFICIENTS: [i32; 2] = [256, 1];

/// What the rows of a group have in common.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
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

#[expect(unsafe_code, reason = "plain numbers")]
// SAFETY: any bits are an f32 or an i32; no padding, aligned to 4.
unsafe impl Plain for Group {}

impl Packed {
    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Packs a matrix, or takes it from the file of a load before. Rows beyond the last, up to a whole group, are
    /// zeros.
    pub(super) fn new(
        matrix: &Rows<'_>,
        pool: &Pool,
        arena: &mut Arena,
        stored: Option<&mut Stored<'_>>,
    ) -> Result<Self, ModelError> {
        let blocks = matrix.columns / COLUMNS;
        let count = matrix.rows.div_ceil(ROWS);
        if !matrix.columns.is_multiple_of(COLUMNS) {
            return Err(ModelError::UnsupportedSize {
                what: format!("the number of columns of `{}`", matrix.name),
                value: matrix.columns,
                wanted: "a multiple of 32",
            });
        }
        let mut layout = Layout::zeroed(matrix.quant, count * blocks, arena)?;
        if let Some(stored) = stored {
            let mut groups = vec![Group::NONE; count];
            if stored.fill(bytes_mut(&mut groups), layout.bytes_mut(), pool) {
                return Ok(Self {
                    blocks,
                    groups,
                    layout,
                });
            }
            layout.bytes_mut().fill(0);
        }
        let groups = (0..count)
            .map(|group| Group::new(matrix, group))
            .collect::<Vec<_>>();
        let source = Source {
            matrix,
            groups: &groups,
            blocks,
            pool,
        };
        match &mut layout {
            Layout::Q4_0(blocks) => source.fill(blocks, put_weights),
            Layout::Q4_1(blocks) => source.fill(blocks, put_weights),
            Layout::Q4K(blocks) => source.fill(blocks, put_weights),
            Layout::Q5_0(blocks) => source.fill(blocks, put_weights),
            Layout::Q5_1(blocks) => source.fill(blocks, put_weights),
            Layout::Q5K(blocks) => source.fill(blocks, put_weights),
            Layout::Q8_0(blocks) => source.fill(blocks, put_weights),
            Layout::Q6K(blocks) => source.fill(blocks, put_weights),
            Layout::Shorts(blocks) => source.fill(blocks, put_shorts),
        }
        Ok(Self {
            blocks,
            groups,
            layout,
        })
    }

    /// The memory of the groups, and of the blocks.
    pub(super) fn bytes(&self) -> (&[u8], &[u8]) {
        (bytes(&self.groups), self.layout.bytes())
    }
}

impl Layout {
    fn zeroed(quant: QuantType, length: usize, arena: &mut Arena) -> Result<Self, ModelError> {
        let what = "weights";
        Ok(match quant {
            QuantType::Q4_0 => Self::Q4_0(arena.zeroed(length, what)?),
            QuantType::Q4_1 => Self::Q4_1(arena.zeroed(length, what)?),
            QuantType::Q4K => Self::Q4K(arena.zeroed(length, what)?),
            QuantType::Q5_0 => Self::Q5_0(arena.zeroed(length, what)?),
            QuantType::Q5_1 => Self::Q5_1(arena.zeroed(length, what)?),
            QuantType::Q5K => Self::Q5K(arena.zeroed(length, what)?),
            QuantType::Q8_0 => Self::Q8_0(arena.zeroed(length, what)?),
            QuantType::Q6K => Self::Q6K(arena.zeroed(length, what)?),
            QuantType::F32 | QuantType::F16 | QuantType::BF16 => {
                Self::Shorts(arena.zeroed(length, what)?)
            }
        })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Q4_0(blocks) => bytes(blocks),
            Self::Q4_1(blocks) => bytes(blocks),
            Self::Q4K(blocks) => bytes(blocks),
            Self::Q5_0(blocks) => bytes(blocks),
            Self::Q5_1(blocks) => bytes(blocks),
            Self::Q5K(blocks) => bytes(blocks),
            Self::Q8_0(blocks) => bytes(blocks),
            Self::Q6K(blocks) => bytes(blocks),
            Self::Shorts(blocks) => bytes(blocks),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Q4_0(blocks) => bytes_mut(blocks),
            Self::Q4_1(blocks) => bytes_mut(blocks),
            Self::Q4K(blocks) => bytes_mut(blocks),
            Self::Q5_0(blocks) => bytes_mut(blocks),
            Self::Q5_1(blocks) => bytes_mut(blocks),
            Self::Q5K(blocks) => bytes_mut(blocks),
            Self::Q8_0(blocks) => bytes_mut(blocks),
            Self::Q6K(blocks) => bytes_mut(blocks),
            Self::Shorts(blocks) => bytes_mut(blocks),
        }
    }
}

impl Group {
    const NONE: Self = Self {
        unit: [0.0; ROWS],
        exponent: [0; ROWS],
    };

    fn new(matrix: &Rows<'_>, group: usize) -> Self {
        let mut exponent = [0; ROWS];
        for (offset, exponent) in exponent.iter_mut().enumerate() {
            let row = group * ROWS + offset;
            if row < matrix.rows {
                *exponent = row_exponent(matrix.quant, matrix.row(row));
            }
        }
        let unit = |lane| match matrix.quant.is_float() {
            true => 0.0,
            false => unit_of(exponent[row_of_lane(lane)]),
        };
        Self {
            unit: std::array::from_fn(unit),
            exponent,
        }
    }
}

/// A matrix being packed.
struct Source<'a> {
    matrix: &'a Rows<'a>,
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
    exponent: i32,
}

impl Source<'_> {
    fn fill<S: Scales, const W: usize>(
        &self,
        blocks: &mut [Block<S, W>],
        put: fn(&mut Block<S, W>, &Place<'_>),
    ) where
        Block<S, W>: Plain,
    {
        let parts = Parts::new(blocks);
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
                let mut place = Place {
                    quant: matrix.quant,
                    row: matrix.row(row),
                    block: 0,
                    lane,
                    unit: self.groups[group].unit[lane],
                    exponent: self.groups[group].exponent[row_of_lane(lane)],
                };
                for out in blocks.iter_mut() {
                    put(out, &place);
                    place.block += 1;
                }
            }
        });
    }
}

/// Puts the weights of a format in blocks.
fn put_weights<S: Scales, const W: usize>(out: &mut Block<S, W>, place: &Place<'_>) {
    let scales = place.quant.scales32(place.row, place.block);
    out.scales.put(place.lane, &scales, place.unit);
    let mut weights = [0; COLUMNS];
    place.quant.unpack32(place.row, place.block, &mut weights);
    for (column, weight) in weights.into_iter().enumerate() {
        let (quad, at) = (column / 4, 4 * place.lane + column % 4);
        if W == BYTES {
            out.lines[quad][at] = weight;
            continue;
        }
        out.lines[quad / 2][at] |= (weight & 15) << (quad % 2 * 4);
        if W == FIVES {
            out.lines[W - 1][at] |= weight >> 4 << ((quad + 4) % 8);
        }
    }
}

/// Puts plain values, as 16-bit integers of the row's exponent, 2^15 too large.
fn put_shorts<const W: usize>(out: &mut Block<Words<0>, W>, place: &Place<'_>) {
    let size = place.quant.bytes_for(COLUMNS);
    let mut values = [0.0; COLUMNS];
    place
        .quant
        .dequantize(&place.row[place.block * size..][..size], &mut values);
    for (column, value) in values.into_iter().enumerate() {
        let rounded = round_scaled(flush(value), place.exponent) + 0x8000;
        let [low, high, ..] = rounded.to_le_bytes();
        let at = 4 * place.lane + column % 4;
        out.lines[column / 4][at] = high;
        out.lines[W / 2 + column / 4][at] = low;
    }
}
