//! What every exact engine takes from the host: rule 10's embeddings, rule 6's angles, rule 7's scale.
//! In: a plan and its file. Out: F values that are the same for every device. No device is known here.

use crate::arithmetic::{flush, mul};
use crate::gguf::Gguf;
use crate::model::ModelError;
use crate::model::plan::{Plan, Rope};
use crate::tokenizer::TokenId;

/// The largest head: up to here the 32-bit sums of attention cannot overflow.
pub(crate) const HEAD_SIZE_MAX: usize = 256;

/// What rows are made of: a matrix has whole blocks of so many columns.
const COLUMNS: usize = 32;

/// The shapes that the kernels take.
pub(crate) fn check_sizes(plan: &Plan) -> Result<(), ModelError> {
    let size = |what: &str, value: usize, fits: bool, wanted: &'static str| {
        let what = what.to_owned();
        if fits {
            Ok(())
        } else {
            Err(ModelError::UnsupportedSize {
                what,
                value,
                wanted,
            })
        }
    };
    let head = plan.head_size;
    let fits = head.is_multiple_of(16) && head <= HEAD_SIZE_MAX;
    size(
        "the size of a head",
        head,
        fits,
        "a multiple of 16 up to 256",
    )?;
    for (what, value) in [
        ("the embedding length", plan.embedding_length),
        ("the feed-forward length", plan.feed_forward_length),
        ("the length of all query heads together", plan.heads * head),
    ] {
        size(
            what,
            value,
            value.is_multiple_of(COLUMNS),
            "a multiple of 32",
        )?;
    }
    Ok(())
}

/// The values of a vector of the file, as F.
pub(crate) fn flushed(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| flush(*value)).collect()
}

/// Rule 10: the token's row of the embedding matrix, one rounding a value, and one more where the plan
/// scales it.
pub(crate) fn embed(plan: &Plan, gguf: &Gguf, token: TokenId, out: &mut [f32]) {
    let matrix = &plan.token_embedding;
    matrix
        .quant()
        .dequantize(matrix.row(gguf, token.index()), out);
    for value in out {
        *value = flush(*value);
        if let Some(scale) = plan.embedding_scale {
            *value = mul(*value, scale);
        }
    }
}

/// Rule 6's angles of a position, but for the position.
#[derive(Debug)]
pub(crate) struct Angles {
    /// base^(-2i/n) / divisor for each rope and, in it, each pair of rotated dimensions.
    frequencies: Vec<f64>,
}

impl Angles {
    pub(crate) fn of(plan: &Plan) -> Self {
        let of_rope = |rope| frequencies(rope, plan.rope_dimensions);
        Self {
            frequencies: plan.ropes.iter().flat_map(of_rope).collect(),
        }
    }

    /// Cosine and sine of the angle of each pair of each rope at a position.
    pub(crate) fn at(&self, position: usize, out: &mut [(f32, f32)]) {
        for (turn, frequency) in out.iter_mut().zip(&self.frequencies) {
            let angle = position as f64 * frequency;
            #[expect(clippy::cast_possible_truncation, reason = "the one rounding to F")]
            let rounded = (libm::cos(angle) as f32, libm::sin(angle) as f32);
            *turn = (flush(rounded.0), flush(rounded.1));
        }
    }
}

/// base^(-2i/n) / divisor of each pair.
fn frequencies(rope: &Rope, dimensions: usize) -> Vec<f64> {
    let frequency = |(pair, divisor): (usize, &f64)| {
        let power = -2.0 * pair as f64 / dimensions as f64;
        libm::pow(f64::from(rope.base), power) / divisor
    };
    rope.divisors.iter().enumerate().map(frequency).collect()
}

/// How scores are scaled by a length, the size of a head nearly everywhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScoreScale {
    /// Length 4^m: 2^-m, in the exponent.
    Power(i32),
    /// Any other: multiplied by F(1/√d).
    Factor(f32),
}

impl ScoreScale {
    /// 1/√length.
    pub(crate) fn of(length: usize) -> Self {
        if length.is_power_of_two() && length.trailing_zeros().is_multiple_of(2) {
            return Self::Power(length.trailing_zeros().cast_signed() / 2);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the one rounding to F")]
        let factor = (1.0 / libm::sqrt(length as f64)) as f32;
        Self::Factor(factor)
    }

    /// It as a factor.
    pub(crate) fn factor(self) -> f32 {
        match self {
            Self::Power(power) => f32::exp2(-(power as f32)),
            Self::Factor(factor) => factor,
        }
    }
}
