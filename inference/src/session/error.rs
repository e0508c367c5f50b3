//! Why a session ends early, in words for people.

use crate::backend::BackendError;
use crate::sampler::SamplingError;
use crate::tokenizer::TokenId;

/// Why a session could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The context has no room for more tokens.
    #[error("context is full: {used} of {max} tokens are used, {wanted} more were asked for")]
    ContextFull {
        /// Tokens in the context.
        used: u32,
        /// What fits.
        max: u32,
        /// How many more there should be.
        wanted: u64,
    },
    /// The context asked for is empty or longer than the model allows.
    #[error("a context of {wanted} tokens was asked for, this model allows 1 to {max}")]
    ContextSize {
        /// What was asked for.
        wanted: u32,
        /// What the model allows.
        max: u32,
    },
    /// A token id outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    UnknownToken {
        /// The token.
        token: TokenId,
        /// Size of the vocabulary.
        vocabulary: u32,
    },
    /// The model is an encoder: it makes vectors of whole texts, and no next token.
    #[error("a model of architecture `{architecture}` generates no text, it only embeds")]
    Unsupported {
        /// The model's architecture.
        architecture: String,
    },
    /// The next token was asked for before there was a first one.
    #[error("the session is empty: append a prompt first")]
    Empty,
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The session's token was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Memory ran out, or a value stopped being finite.
    #[error(transparent)]
    Backend(BackendError),
    /// An earlier error left the sequence half done; open another session.
    #[error("the session failed before and cannot go on")]
    Failed,
}

impl From<BackendError> for SessionError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Cancelled => Self::Cancelled,
            error => Self::Backend(error),
        }
    }
}
