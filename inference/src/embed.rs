//! Texts → vectors, for models that are encoders.
//! In: texts, and what to do with those that are too long. Out: one vector a text, and what it cost.
//! It never mixes texts: a vector depends on its own text alone, whatever else is in the call.

use crate::backend::BackendError;
use crate::cancel::CancelToken;
use crate::model::{Encoder, Model};
use crate::tokenizer::{AddBos, EncodeOptions, TokenId, TokenizeError};

/// One call embeds at most this many texts.
pub const EMBED_TEXTS_MAX: usize = 1024;

/// Texts run together while they have at most this many tokens; a longer one runs alone.
const BATCH_TOKENS: usize = 512;

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
        let encoder = self.encoder_needed()?;
        let texts = self.embed_tokens(encoder, texts, over_long)?;
        let mut embeddings = Embeddings {
            vectors: Vec::with_capacity(texts.len()),
            tokens: texts.iter().map(|tokens| tokens.len() as u64).sum(),
            inference_units: units(encoder, &texts),
        };
        let mut rest: Vec<&[TokenId]> = texts.iter().map(Vec::as_slice).collect();
        while !rest.is_empty() {
            if cancel.is_cancelled() {
                return Err(EmbedError::Cancelled);
            }
            let mut tokens = 0;
            let fits = rest.iter().take_while(|text| {
                tokens += text.len();
                tokens <= BATCH_TOKENS
            });
            let count = fits.count().max(1);
            embeddings
                .vectors
                .extend(encoder.backend.encode(&rest[..count])?);
            rest.drain(..count);
        }
        Ok(embeddings)
    }

    /// What [`Model::embed`] will count for these texts, without running them.
    ///
    /// # Errors
    /// As [`Model::embed`] before it runs anything.
    pub fn embed_units(&self, texts: &[&str], over_long: OverLong) -> Result<u64, EmbedError> {
        let encoder = self.encoder_needed()?;
        let texts = self.embed_tokens(encoder, texts, over_long)?;
        Ok(units(encoder, &texts))
    }

    /// The memory that [`Model::embed`] holds at most for so many texts, its result included;
    /// 0 if the model makes no embeddings.
    pub fn embed_memory_bytes(&self, texts: usize) -> u64 {
        let Some(Encoder { plan, backend }) = self.encoder() else {
            return 0;
        };
        let a_text = 4 * (plan.length + plan.tokens_max) + 3 * size_of::<Vec<f32>>();
        let batch = backend.batch_bytes(BATCH_TOKENS.max(plan.tokens_max));
        batch.saturating_add(a_text as u64 * texts as u64)
    }

    fn encoder_needed(&self) -> Result<&Encoder, EmbedError> {
        self.encoder().ok_or_else(|| EmbedError::Unsupported {
            architecture: self.info().architecture.clone(),
        })
    }

    /// The tokens of each text, with those around it, none longer than the model takes.
    fn embed_tokens(
        &self,
        encoder: &Encoder,
        texts: &[&str],
        over_long: OverLong,
    ) -> Result<Vec<Vec<TokenId>>, EmbedError> {
        let count = texts.len();
        if count > EMBED_TEXTS_MAX {
            return Err(EmbedError::TooManyTexts { count });
        }
        // Text from outside: `[SEP]` written out in it is text.
        let options = EncodeOptions {
            add_bos: AddBos::ByMetadata,
            parse_special: false,
        };
        let max = encoder.plan.tokens_max;
        let one = |(index, text): (usize, &&str)| {
            let mut tokens = self.tokenizer().encode(text, options)?;
            if tokens.len() > max {
                if over_long == OverLong::Refuse {
                    let (tokens, max) = (tokens.len() as u64, self.info().context_tokens_max);
                    return Err(EmbedError::TooLong { index, tokens, max });
                }
                let last = tokens.pop();
                tokens.truncate(max - 1);
                tokens.extend(last);
                tokens.shrink_to_fit();
            }
            Ok(tokens)
        };
        texts.iter().enumerate().map(one).collect()
    }
}

/// Multiply-accumulates of texts.
fn units(encoder: &Encoder, texts: &[Vec<TokenId>]) -> u64 {
    let units = texts
        .iter()
        .map(|text| encoder.plan.units(text.len() as u64));
    units.fold(0, u64::saturating_add)
}
