//! Vectors in Q16, laid out for the kernels.
//! In: vectors of F values. Out: 16-bit integers and one exponent a vector (rule 2), as two planes of
//! 8 bits, in tiles of tokens. A vector with NaN or infinity in it is refused.

use crate::arithmetic::{NOT_FINITE, magnitude_bits, q16_exponent, round_small};
use crate::backend::{BackendError, zeroed};
use crate::cpu::pool::Parts;

use super::pack::COLUMNS;

/// Tokens that a kernel takes at a time; what is left over it takes one by one.
pub(super) const TILE: usize = 4;

/// 32 values of one token: q = 256 · high + low.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "the scalar kernels read `q` alone")
)]
pub(super) struct ActivationBlock {
    pub(super) high: [i8; COLUMNS],
    pub(super) low: [i8; COLUMNS],
    pub(super) q: [i16; COLUMNS],
}

impl Default for ActivationBlock {
    fn default() -> Self {
        Self {
            high: [0; COLUMNS],
            low: [0; COLUMNS],
            q: [0; COLUMNS],
        }
    }
}

/// A batch of vectors of one length.
#[derive(Debug)]
pub(super) struct Activations {
    /// Blocks of 32 values in a vector.
    blocks: usize,
    tokens: usize,
    /// Tile after tile; in a tile block after block; in a block token after token.
    data: Vec<ActivationBlock>,
    /// The sums of the two halves of each block.
    sums: Vec<[i32; 2]>,
    exponents: Vec<i32>,
}

/// The tokens of a tile as a kernel sees them.
pub(super) struct Tile<'a> {
    /// [`TILE`] or 1.
    pub(super) width: usize,
    /// `blocks · width` of them.
    pub(super) data: &'a [ActivationBlock],
    pub(super) sums: &'a [[i32; 2]],
    /// One a token.
    pub(super) exponents: &'a [i32],
}

impl Activations {
    pub(super) fn new(columns: usize, tokens_max: usize) -> Result<Self, BackendError> {
        let blocks = columns / COLUMNS;
        Ok(Self {
            blocks,
            tokens: 0,
            data: zeroed(blocks * tokens_max, "activations")?,
            sums: zeroed(blocks * tokens_max, "activations")?,
            exponents: zeroed(tokens_max, "activations")?,
        })
    }

    /// Memory of a batch of that shape.
    pub(super) fn bytes(columns: usize, tokens_max: usize) -> usize {
        let block = size_of::<ActivationBlock>() + size_of::<[i32; 2]>();
        tokens_max * (columns / COLUMNS * block + size_of::<i32>())
    }

    /// Begins a batch; every token is then to be written once.
    pub(super) fn begin(&mut self, tokens: usize) -> Writer<'_> {
        self.tokens = tokens;
        Writer {
            blocks: self.blocks,
            tokens,
            data: Parts::new(&mut self.data),
            sums: Parts::new(&mut self.sums),
            exponents: Parts::new(&mut self.exponents),
        }
    }

    /// The tile that begins at a token: of [`TILE`] tokens while there are so many, then of one.
    #[inline(always)]
    pub(super) fn tile(&self, token: usize) -> Option<Tile<'_>> {
        if token >= self.tokens {
            return None;
        }
        let width = if token + TILE <= self.tokens { TILE } else { 1 };
        let range = token * self.blocks..(token + width) * self.blocks;
        Some(Tile {
            width,
            data: &self.data[range.clone()],
            sums: &self.sums[range],
            exponents: &self.exponents[token..token + width],
        })
    }
}

/// Where the tokens of a batch are written, from any thread.
pub(super) struct Writer<'a> {
    blocks: usize,
    tokens: usize,
    data: Parts<'a, ActivationBlock>,
    sums: Parts<'a, [i32; 2]>,
    exponents: Parts<'a, i32>,
}

impl Writer<'_> {
    /// Length of a vector.
    pub(super) fn columns(&self) -> usize {
        self.blocks * COLUMNS
    }

    /// Quantizes a token's vector; `false` if it is not finite.
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
        let in_tile = token / TILE * TILE + TILE <= self.tokens;
        let (first, stride, offset) = if in_tile {
            (token / TILE * TILE * self.blocks, TILE, token % TILE)
        } else {
            (token * self.blocks, 1, 0)
        };
        for (block, values) in values.as_chunks::<COLUMNS>().0.iter().enumerate() {
            let at = first + block * stride + offset;
            // SAFETY: each (token, block) has an index of its own, and the caller keeps tokens apart.
            let (out, sums) = unsafe { (&mut self.data.part(at, 1)[0], self.sums.part(at, 1)) };
            // Loops of one kind of operation each, which the compiler widens.
            let mut q = [0i32; COLUMNS];
            for (q, value) in q.iter_mut().zip(values) {
                *q = round_small(*value * one * two);
            }
            for (out, q) in out.q.iter_mut().zip(q) {
                *out = narrow(q);
            }
            for (out, q) in out.low.iter_mut().zip(q) {
                *out = low(q);
            }
            for (out, q) in out.high.iter_mut().zip(q) {
                *out = low((q + 128) >> 8);
            }
            let (first, last) = q.split_at(COLUMNS / 2);
            let halves = [first.iter().sum(), last.iter().sum()];
            sums[0] = halves;
        }
        // SAFETY: index `token` belongs to this token alone.
        unsafe { self.exponents.part(token, 1)[0] = exponent };
        true
    }
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
