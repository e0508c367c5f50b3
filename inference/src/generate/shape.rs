//! The sizes of a random model: given one by one, or found for a number of parameters.
//! In: numbers of a user. Out: sizes that fit each other and the limits of the format's readers.

use super::{GenerateError, RandomArchitecture};
use crate::model::plan::{COLUMNS_MAX, CONTEXT_MAX, HEAD_SIZE_MAX, LAYERS_MAX};
use crate::tokenizer::VOCABULARY_MAX;

/// The smallest vocabulary: each byte, what ends and frames a text, and the letters of SPM.
pub(super) const VOCABULARY_MIN: u32 = 512;
/// Published models have about this many times more columns than layers.
const COLUMNS_PER_LAYER: u64 = 96;

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomShape {
    /// Tokens in the vocabulary, 512 at least.
    pub vocabulary: u32,
    /// Transformer layers.
    pub layers: u32,
    /// Length of a token's vector.
    pub embedding_length: u32,
    /// Rows of the feed-forward part's first matrices.
    pub feed_forward_length: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Length of a head's vectors; even.
    pub head_size: u32,
    /// The longest sequence that the file states.
    pub context_tokens_max: u32,
    /// Whether the head is the embedding's matrix, not one of its own. Gemma 3 has no other form.
    pub tied_head: bool,
}

impl RandomShape {
    /// Sizes for about so many parameters, with the proportions of published models.
    ///
    /// # Errors
    /// [`GenerateError::Size`] outside 100 thousand to 2 trillion.
    pub fn for_parameters(
        architecture: RandomArchitecture,
        parameters: u64,
    ) -> Result<Self, GenerateError> {
        const RANGE: std::ops::RangeInclusive<u64> = 100_000..=2_000_000_000_000;
        if !RANGE.contains(&parameters) {
            return Err(GenerateError::Size {
                what: "the number of parameters",
                value: parameters,
                wanted: format!("{} to {}", RANGE.start(), RANGE.end()),
            });
        }
        let step = if parameters < 20_000_000 { 64 } else { 256 };
        // Those of 16,384 columns have more than 1 trillion parameters.
        let candidates = (1..=256u32).filter_map(|times| {
            let shape = Self::of_width(architecture, parameters, times * step);
            let fixed = shape.parameters_of(architecture, 0);
            let layer = shape.parameters_of(architecture, 1) - fixed;
            let layers = (parameters.checked_sub(fixed)? + layer / 2) / layer;
            let layers = u32::try_from(layers).ok()?;
            (1..=LAYERS_MAX)
                .contains(&layers)
                .then_some(Self { layers, ..shape })
        });
        let distance = |shape: &Self| {
            u64::from(shape.embedding_length).abs_diff(u64::from(shape.layers) * COLUMNS_PER_LAYER)
        };
        candidates.min_by_key(distance).ok_or(GenerateError::Size {
            what: "the number of parameters",
            value: parameters,
            wanted: "one that some width and depth have".to_owned(),
        })
    }

    fn of_width(architecture: RandomArchitecture, parameters: u64, width: u32) -> Self {
        let head_size = if width < 512 {
            32
        } else {
            64 * (1 + u32::from(width >= 2048))
        };
        let heads = (width / head_size).max(1);
        // Groups of four queries, where that goes.
        let group = [4, 3, 2]
            .into_iter()
            .find(|size| heads.is_multiple_of(*size));
        let kv_heads = heads / group.unwrap_or(1);
        let vocabulary = match parameters {
            0..2_000_000 => 512,
            2_000_000..50_000_000 => 4096,
            50_000_000..3_000_000_000 => 32_768,
            _ => 128_256,
        };
        Self {
            vocabulary,
            layers: 0,
            embedding_length: width,
            feed_forward_length: (width * 8 / 3).next_multiple_of(256),
            heads,
            kv_heads,
            head_size,
            context_tokens_max: 8192,
            tied_head: architecture == RandomArchitecture::Gemma3 || parameters < 3_000_000_000,
        }
    }

    /// Weights of the matrices, which are nearly all.
    fn parameters_of(&self, architecture: RandomArchitecture, layers: u64) -> u64 {
        let [vocabulary, embedding, feed_forward] = [
            self.vocabulary,
            self.embedding_length,
            self.feed_forward_length,
        ]
        .map(u64::from);
        let queries = u64::from(self.heads) * u64::from(self.head_size);
        let keys = u64::from(self.kv_heads) * u64::from(self.head_size);
        let tied = self.tied_head || architecture == RandomArchitecture::Gemma3;
        let tables = if tied { 1 } else { 2 } * vocabulary * embedding;
        let layer = embedding * (2 * queries + 2 * keys + 3 * feed_forward);
        tables + layers * layer
    }

    /// Refuses what no reader takes.
    pub(super) fn check(&self, architecture: RandomArchitecture) -> Result<(), GenerateError> {
        let check = |what, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(GenerateError::Size {
                what,
                value: u64::from(value),
                wanted: format!("{least} to {most}"),
            })
        };
        let vocabulary_max = u32::try_from(VOCABULARY_MAX).unwrap_or(u32::MAX);
        check(
            "the vocabulary",
            self.vocabulary,
            VOCABULARY_MIN,
            vocabulary_max,
        )?;
        check("the number of layers", self.layers, 1, LAYERS_MAX)?;
        check(
            "the embedding length",
            self.embedding_length,
            1,
            COLUMNS_MAX,
        )?;
        check(
            "the feed-forward length",
            self.feed_forward_length,
            1,
            COLUMNS_MAX,
        )?;
        check("the head size", self.head_size, 2, HEAD_SIZE_MAX)?;
        check(
            "the number of heads",
            self.heads,
            1,
            COLUMNS_MAX / self.head_size,
        )?;
        check(
            "the number of key and value heads",
            self.kv_heads,
            1,
            self.heads,
        )?;
        check("the context", self.context_tokens_max, 1, CONTEXT_MAX)?;
        let refuse = |what, value: u32, wanted: String| {
            Err(GenerateError::Size {
                what,
                value: u64::from(value),
                wanted,
            })
        };
        if !self.heads.is_multiple_of(self.kv_heads) {
            let wanted = format!("a divisor of the {} heads", self.heads);
            return refuse("the number of key and value heads", self.kv_heads, wanted);
        }
        if !self.head_size.is_multiple_of(2) {
            return refuse("the head size", self.head_size, "an even number".to_owned());
        }
        // Qwen2's file has no place for a head's size of its own.
        let width = self.embedding_length;
        if architecture == RandomArchitecture::Qwen2 && self.heads * self.head_size != width {
            let wanted = format!("{width} / heads, as Qwen2 has it");
            return refuse("the head size", self.head_size, wanted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_come_near_the_wanted_number() {
        for architecture in RandomArchitecture::ALL {
            for parameters in [
                100_000,
                1_000_000,
                20_000_000,
                135_000_000,
                1_000_000_000,
                8_000_000_000,
                70_000_000_000,
                2_000_000_000_000,
            ] {
                let shape = RandomShape::for_parameters(architecture, parameters).unwrap();
                shape.check(architecture).unwrap();
                let made = shape.parameters_of(architecture, u64::from(shape.layers));
                let off = made.abs_diff(parameters) * 100 / parameters;
                assert!(
                    off <= 25,
                    "{architecture:?} {parameters}: {made}, {shape:?}"
                );
            }
        }
        RandomShape::for_parameters(RandomArchitecture::Llama, 99_999).unwrap_err();
        RandomShape::for_parameters(RandomArchitecture::Llama, u64::MAX).unwrap_err();
    }
}
