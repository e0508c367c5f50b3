//! Texts → vectors, for models that are encoders.
//! In: texts, and what to do with those that are too long. Out: one vector a text, and what it cost.
//! It never mixes texts: a vector depends on its own text alone, whatever else is in the call.

use crate::backend::BackendError;
use crate::cancel::CancelToken;
use crate::model::Model;
use crate::tokenizer::TokenizeError;

/// One call embeds at most this many texts.
pub const EMBED_TEXTS_MAX: usize = 1024;

/// What to do with a text of more tokens than the model was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLong {
    /// The whole call is refused ([`EmbedError::TooLong`]).
    Refuse,
    /// As many of its first tokens as fit are embedded.
    Cut,
}

/// What [`Model::embed`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One vector a text, in the order of the texts; all of [`crate::ModelInfo::embeddings`] values.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were run, with those that the model puts around each text.
    pub tokens: u64,
    /// Multiply-accumulates, from shapes alone, so every re-run counts the same.
    pub inference_units: u64,
}

/// Why texts were not embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The model is no encoder.
    #[error("a model of architecture `{architecture}` makes no embeddings")]
    Unsupported {
        /// The model's architecture.
        architecture: String,
    },
    /// More texts than one call takes.
    #[error("{count} texts in one call, at most {EMBED_TEXTS_MAX} are allowed")]
    TooManyTexts {
        /// How many there are.
        count: usize,
    },
    /// A text has more tokens than the model was made for.
    #[error(
        "text {index} has {tokens} tokens, the model takes {max}: cut it, or ask for it to be cut"
    )]
    TooLong {
        /// Which text, from 0.
        index: usize,
        /// Its tokens, with those that the model puts around it.
        tokens: u64,
        /// What the model takes.
        max: u32,
    },
    /// A text has no token ids.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// The call's token was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Memory ran out, or a value stopped being finite.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Model {
    /// Embeds texts: one vector of length 1 each, in their order. No texts give no vectors.
    ///
    /// The vector of a text has the same bits whatever the other texts, the threads and the width of SIMD.
    /// `cancel` is looked at between batches.
    ///
    /// # Errors
    /// - [`EmbedError::Unsupported`] if the model is no encoder.
    /// - [`EmbedError::TooManyTexts`], [`EmbedError::TooLong`]: nothing was run.
    /// - [`EmbedError::Cancelled`], [`EmbedError::Backend`]: the work done so far is lost.
    pub fn embed(
        &self,
        texts: &[&str],
        over_long: OverLong,
        cancel: &CancelToken,
    ) -> Result<Embeddings, EmbedError> {
        let _ = (texts, over_long, cancel);
        Err(self.no_embeddings())
    }

    /// What [`Model::embed`] will count for these texts, without running them.
    ///
    /// # Errors
    /// As [`Model::embed`] before it runs anything.
    pub fn embed_units(&self, texts: &[&str], over_long: OverLong) -> Result<u64, EmbedError> {
        let _ = (texts, over_long);
        Err(self.no_embeddings())
    }

    /// The memory that [`Model::embed`] holds at most for so many texts, its result included;
    /// 0 if the model makes no embeddings.
    pub fn embed_memory_bytes(&self, texts: usize) -> u64 {
        let _ = texts;
        0
    }

    fn no_embeddings(&self) -> EmbedError {
        EmbedError::Unsupported {
            architecture: self.info().architecture.clone(),
        }
    }
}
