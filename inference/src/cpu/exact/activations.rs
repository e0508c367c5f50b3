//! Vectors as the kernels take them: in Q16 for the exact profile, in 8 bits a block for the fast one.
//! In: vectors of F values. Out: 16-bit integers and one exponent a vector (rule 2), also as two planes of
//! 8 bits; or 8-bit integers and one scale for 32 values; in tiles of tokens. A vector with NaN or infinity in it
//! is refused.

use crate::arithmetic::{NOT_FINITE, magnitude_bits, q16_exponent, round_small};
use crate::backend::BackendError;
use crate::cpu::buffer::{Buffer, Plain};
use crate::cpu::pool::Parts;

use super::pack::COLUMNS;

/// Tokens that a kernel takes at a time; of what is left over it takes [`HALF_TILE`], then one by one.
pub(super) const TILE: usize = 8;
pub(super) const HALF_TILE: usize = 4;

/// 32 values of one token in planes: q = 256 · high + low.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Planes {
    pub(super) high: [i8; COLUMNS],
    pub(super) low: [i8; COLUMNS],
}

/// 32 values of one token in 16 bits.
pub(super) type Shorts = [i16; COLUMNS];
/// 32 values of one token in 8 bits, to be multiplied with a [`Step`].
pub(super) type Bytes = [i8; COLUMNS];

/// What 32 values in 8 bits are to be multiplied with, and that times their sum.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Step {
    pub(super) scale: f32,
    pub(super) sum: f32,
}

#[expect(unsafe_code, reason = "planes are plain integers")]
// SAFETY: 64 bytes of integers, aligned to 64.
unsafe impl Plain for Planes {}
#[expect(unsafe_code, reason = "plain integers")]
// SAFETY: any bits are an i16; no padding, aligned to 2.
unsafe impl Plain for Shorts {}
#[expect(unsafe_code, reason = "plain integers")]
// SAFETY: any bits are an i8; no padding.
unsafe impl Plain for Bytes {}
#[expect(unsafe_code, reason = "plain floats")]
// SAFETY: any bits are an f32; no padding, aligned to 4.
unsafe impl Plain for Step {}
#[expect(unsafe_code, reason = "plain integers")]
// SAFETY: any bits are an i32; no padding, aligned to 4.
unsafe impl Plain for [i32; 2] {}

/// A batch of vectors of one length. Memory of a form that no kernel writes is never touched.
#[derive(Debug)]
pub(super) struct Activations {
    /// Blocks of 32 values in a vector.
    blocks: usize,
    tokens: usize,
    /// Of all forms: tile after tile; in a tile block after block; in a block token after token.
    planes: Buffer<Planes>,
    shorts: Buffer<Shorts>,
    bytes: Buffer<Bytes>,
    steps: Buffer<Step>,
    /// The sums of the two halves of each block's integers.
    sums: Buffer<[i32; 2]>,
    exponents: Buffer<i32>,
}

/// The tokens of a tile as a kernel sees them: `blocks · width` of each but the exponents.
pub(super) struct Tile<'a> {
    /// [`TILE`], [`HALF_TILE`] or 1.
    pub(super) width: usize,
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(dead_code, reason = "the scalar kernels read shorts and bytes alone")
    )]
    pub(super) planes: &'a [Planes],
    pub(super) shorts: &'a [Shorts],
    pub(super) bytes: &'a [Bytes],
    pub(super) steps: &'a [Step],
    pub(super) sums: &'a [[i32; 2]],
    /// One a token.
    pub(super) exponents: &'a [i32],
}

/// The first token and the width of the tile that a token of a batch is in.
#[inline(always)]
fn tile_of(token: usize, tokens: usize) -> (usize, usize) {
    let whole = tokens / TILE * TILE;
    if token < whole {
        (token / TILE * TILE, TILE)
    } else if token < whole + HALF_TILE && whole + HALF_TILE <= tokens {
        (whole, HALF_TILE)
    } else {
        (token, 1)
    }
}

impl Activations {
    pub(super) fn new(columns: usize, tokens_max: usize) -> Result<Self, BackendError> {
        let (blocks, what) = (columns / COLUMNS, "activations");
        let count = blocks * tokens_max;
        Ok(Self {
            blocks,
            tokens: 0,
            planes: Buffer::zeroed(count, what)?,
            shorts: Buffer::zeroed(count, what)?,
            bytes: Buffer::zeroed(count, what)?,
            steps: Buffer::zeroed(count, what)?,
            sums: Buffer::zeroed(count, what)?,
            exponents: Buffer::zeroed(tokens_max, what)?,
        })
    }

    /// What a batch of that shape is charged: planes, shorts, sums and exponents.
    pub(super) fn bytes(columns: usize, tokens_max: usize) -> usize {
        let block = size_of::<Planes>() + size_of::<Shorts>() + size_of::<[i32; 2]>();
        tokens_max * (columns / COLUMNS * block + size_of::<i32>())
    }

    /// Begins a batch; every token is then to be written once.
    pub(super) fn begin(&mut self, tokens: usize) -> Writer<'_> {
        self.tokens = tokens;
        Writer {
            blocks: self.blocks,
            tokens,
            planes: Parts::new(&mut self.planes),
            shorts: Parts::new(&mut self.shorts),
            bytes: Parts::new(&mut self.bytes),
            steps: Parts::new(&mut self.steps),
            sums: Parts::new(&mut self.sums),
            exponents: Parts::new(&mut self.exponents),
        }
    }

    /// Vectors of the batch.
    #[inline(always)]
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tile that begins at a token.
    #[inline(always)]
    pub(super) fn tile(&self, token: usize) -> Option<Tile<'_>> {
        if token >= self.tokens {
            return None;
        }
        let (_, width) = tile_of(token, self.tokens);
        let range = token * self.blocks..(token + width) * self.blocks;
        Some(Tile {
            width,
            planes: &self.planes[range.clone()],
            shorts: &self.shorts[range.clone()],
            bytes: &self.bytes[range.clone()],
            steps: &self.steps[range.clone()],
            sums: &self.sums[range],
            exponents: &self.exponents[token..token + width],
        })
    }
}

/// What is written for values that are not finite: whoever multiplies it meanwhile must not overflow.
pub(super) const NOTHING: (Bytes, Step, [i32; 2]) = (
    [0; COLUMNS],
    Step {
        scale: 0.0,
        sum: 0.0,
    },
    [0; 2],
);

/// Where the tokens of a batch are written, from any thread.
pub(super) struct Writer<'a> {
    blocks: usize,
    tokens: usize,
    planes: Parts<'a, Planes>,
    shorts: Parts<'a, Shorts>,
    bytes: Parts<'a, Bytes>,
    steps: Parts<'a, Step>,
    sums: Parts<'a, [i32; 2]>,
    exponents: Parts<'a, i32>,
}

impl Writer<'_> {
    /// Length of a vector.
    pub(super) fn columns(&self) -> usize {
        self.blocks * COLUMNS
    }

    /// Where a token's block `b` is: the first, and how many lie from one to the next.
    #[inline(always)]
    fn place(&self, token: usize) -> (usize, usize) {
        let (first, width) = tile_of(token, self.tokens);
        (first * self.blocks + token - first, width)
    }

    /// Where a block of a token's vector in 8 bits is written.
    ///
    /// # Safety
    /// While the references live, nobody else may ask for the same block.
    #[inline(always)]
    #[expect(
        unsafe_code,
        clippy::mut_from_ref,
        reason = "tokens of one tile interleave, so slices cannot be handed out"
    )]
    pub(super) unsafe fn block(
        &self,
        token: usize,
        block: usize,
    ) -> (&mut Bytes, &mut Step, &mut [i32; 2]) {
        let (first, stride) = self.place(token);
        let at = first + block * stride;
        // SAFETY: each (token, block) has an index of its own, and the caller keeps them apart.
        unsafe {
            (
                &mut self.bytes.part(at, 1)[0],
                &mut self.steps.part(at, 1)[0],
                &mut self.sums.part(at, 1)[0],
            )
        }
    }

    /// Quantizes a token's vector to Q16; `false` if it is not finite.
    ///
    /// # Safety
    /// No two threads may write the same token at a time.
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "tokens of one tile interleave, so slices cannot be handed out"
    )]
    pub(super) unsafe fn write(&self, token: usize, values: &[f32]) -> bool {
        let Some(exponent) = exponent(values) else {
            return false;
        };
        let (one, two) = factors(exponent);
        let (first, stride) = self.place(token);
        for (block, values) in values.as_chunks::<COLUMNS>().0.iter().enumerate() {
            let at = first + block * stride;
            // SAFETY: each (token, block) has an index of its own, and the caller keeps tokens apart.
            let (planes, shorts, sums) = unsafe {
                (
                    &mut self.planes.part(at, 1)[0],
                    &mut self.shorts.part(at, 1)[0],
                    self.sums.part(at, 1),
                )
            };
            // Loops of one kind of operation each, which the compiler widens.
            let mut q = [0i32; COLUMNS];
            for (q, value) in q.iter_mut().zip(values) {
                *q = round_small(*value * one * two);
            }
            for (out, q) in shorts.iter_mut().zip(q) {
                *out = narrow(q);
            }
            for (out, q) in planes.low.iter_mut().zip(q) {
                *out = low(q);
            }
            for (out, q) in planes.high.iter_mut().zip(q) {
                *out = low((q + 128) >> 8);
            }
            sums[0] = halves(&q);
        }
        // SAFETY: index `token` belongs to this token alone.
        unsafe { self.exponents.part(token, 1)[0] = exponent };
        true
    }

    /// Quantizes a part of a token's vector, from one of its blocks on, to 8 bits, with a scale for each 32 values;
    /// `false` if it is not finite.
    ///
    /// # Safety
    /// No two threads may write the same block of a token at a time.
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "tokens of one tile interleave, so slices cannot be handed out"
    )]
    pub(super) unsafe fn write_bytes(
        &self,
        (token, first): (usize, usize),
        values: &[f32],
    ) -> bool {
        let mut most = 0;
        for (block, values) in (first..).zip(values.as_chunks::<COLUMNS>().0) {
            // SAFETY: the caller keeps blocks apart.
            let (bytes, step, sums) = unsafe { self.block(token, block) };
            let largest = magnitude_bits(values);
            most = most.max(largest);
            if largest >= NOT_FINITE {
                (*bytes, *step, *sums) = NOTHING;
                continue;
            }
            let largest = f32::from_bits(largest);
            let scale = largest / 127.0;
            // Of values so small that the division would not be finite nothing is left.
            let inverse = if scale > 1e-37 { 127.0 / largest } else { 0.0 };
            let mut q = [0i32; COLUMNS];
            for (q, value) in q.iter_mut().zip(values) {
                *q = round_small(*value * inverse);
            }
            for (out, q) in bytes.iter_mut().zip(q) {
                *out = low(q);
            }
            let halves = halves(&q);
            *sums = halves;
            *step = Step {
                scale,
                sum: scale * (halves[0] + halves[1]) as f32,
            };
        }
        most < NOT_FINITE
    }
}

/// The sums of the two halves of a block.
#[inline(always)]
fn halves(q: &[i32; COLUMNS]) -> [i32; 2] {
    let (first, last) = q.split_at(COLUMNS / 2);
    [first.iter().sum(), last.iter().sum()]
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "takes the low byte on purpose"
)]
fn low(q: i32) -> i8 {
    q as i8
}

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "rule 2 bounds |q| by 32639"
)]
fn narrow(q: i32) -> i16 {
    q as i16
}

/// Rule 2's exponent, or `None` if a value is not finite.
#[inline(always)]
pub(super) fn exponent(values: &[f32]) -> Option<i32> {
    let largest = magnitude_bits(values);
    (largest < NOT_FINITE).then(|| q16_exponent(f32::from_bits(largest)))
}

/// 2^-exponent as a product of two floats, since it can be as large as 2^140.
#[inline(always)]
#[expect(
    clippy::cast_sign_loss,
    reason = "the exponents are from -140 to 114, so both are positive"
)]
pub(super) fn factors(exponent: i32) -> (f32, f32) {
    let power = -exponent;
    let first = power.min(127);
    let float = |power: i32| f32::from_bits(((127 + power) as u32) << 23);
    (float(first), float(power - first))
}

/// Q16 of a short vector such as a head; `None` if a value is not finite.
#[inline(always)]
pub(super) fn q16(values: &[f32], out: &mut [i16]) -> Option<i32> {
    let exponent = exponent(values)?;
    let (one, two) = factors(exponent);
    for (out, value) in out.iter_mut().zip(values) {
        *out = narrow(round_small(*value * one * two));
    }
    Some(exponent)
}
