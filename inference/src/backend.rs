//! The seam between a layer plan and a device.
//! In: token ids and where they stand. Out: logits. Three implementations: the scalar f32 oracle, and the
//! exact engines on CPUs and GPUs, which share a scheduler. It knows nothing of text, sampling or files.

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::scheduler::Scope;
use crate::tokenizer::TokenId;

/// Why a device could not run a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Memory could not be had.
    #[error("out of memory: could not allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: u64,
    },
    /// The sequences of the model have all the memory that they may have together.
    #[error(
        "no room for another sequence: it takes {wanted_bytes} bytes, others have {taken_bytes} of {bytes_max}"
    )]
    NoRoom {
        /// What the sequence takes, as pages.
        wanted_bytes: u64,
        /// What others have or were promised.
        taken_bytes: u64,
        /// What they may have together.
        bytes_max: u64,
    },
    /// The sequence's token was cancelled before its step began.
    #[error("cancelled")]
    Cancelled,
    /// The device is gone: unplugged, reset, or its driver failed. Models on it must be loaded again.
    #[error("the GPU was lost: {reason}")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// The device refused a command or a kernel.
    #[error("the GPU refused: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// A value became NaN or infinite: the model is broken or does not fit the arithmetic.
    #[error("{what} of token position {position} is not a finite number")]
    NotFinite {
        /// Which values, with their layer.
        what: String,
        /// Where in the sequence.
        position: usize,
    },
}

/// What a sequence is opened with.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// The most tokens it may have.
    pub(crate) context_tokens: usize,
    /// Takes its steps out of the queue.
    pub(crate) cancel: CancelToken,
    /// Within which it may share what others have computed.
    pub(crate) scope: Option<Scope>,
}

/// A loaded model on a device; shared by all sequences.
pub(crate) trait Backend: fmt::Debug + Send + Sync {
    /// Makes room for a sequence; what it was promised is always there.
    fn open(&self, opening: Opening) -> Result<Box<dyn Sequence>, BackendError>;

    /// What a sequence is charged. Engines of the exact profile all say the same, since jobs can see it.
    fn sequence_bytes(&self, context_tokens: usize) -> u64;

    /// The most tokens one [`Sequence::run`] takes.
    fn batch_tokens_max(&self) -> usize;

    /// How often a GPU is asked to compute something for one generated token; `None` on CPUs.
    fn dispatches_per_token(&self) -> Option<usize> {
        None
    }
}

/// The state of one sequence on a device.
pub(crate) trait Sequence: fmt::Debug + Send {
    /// Runs `tokens`, which stand at `position` and after, writes the logits of as many of the last of them
    /// as `logits` has room for, in their order, and gives it back.
    ///
    /// The caller keeps `tokens` within the batch and the context, ids within the vocabulary, and `logits` at a
    /// multiple of the vocabulary.
    fn run(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        logits: Vec<f32>,
    ) -> Result<Vec<f32>, BackendError>;

    /// Takes over what others of its scope have computed of `tokens`, which stand at `position` and after: so
    /// many of the first of them need not be run, never the last one.
    fn share(&mut self, _tokens: &[TokenId], _position: usize) -> usize {
        0
    }

    /// Time that its steps took on a GPU, its share by rows where others were in them; `None` on CPUs, where
    /// the adapter counts no time, or after a step that could not be timed. A fork begins at zero.
    fn gpu_time(&self) -> Option<Duration> {
        None
    }

    /// Its other way to run, where the device finds the likeliest tokens itself; `None` where all logits are at
    /// hand anyway.
    fn ranked(&mut self) -> Option<&mut dyn Ranked> {
        None
    }

    /// A copy of the first `positions` positions that goes on by itself; pages that neither writes to any more are
    /// shared.
    fn fork(&self, positions: usize) -> Result<Box<dyn Sequence>, BackendError>;
}

/// A sequence whose device finds the likeliest tokens, so that not all logits need come back.
pub(crate) trait Ranked {
    /// How many tokens [`Ranked::run_ranked`] gives.
    fn best_max(&self) -> usize;

    /// As [`Sequence::run`] for the last token's logits, of which it gives [`Ranked::best_max`], or all where there
    /// are fewer: as `sampler::order_key` has them, the likeliest first.
    fn run_ranked(&mut self, tokens: &[TokenId], position: usize)
    -> Result<Vec<u64>, BackendError>;
}

/// A loaded encoder on a device: whole texts to vectors. Two implementations, as for decoders.
pub(crate) trait TextEncoder: fmt::Debug + Send + Sync {
    /// The vectors of a batch of texts, of length 1 each.
    ///
    /// The caller keeps each text within the model's positions, with a token at least, and ids within
    /// the vocabulary.
    fn encode(&self, texts: &[&[TokenId]]) -> Result<Vec<Vec<f32>>, BackendError>;

    /// What [`TextEncoder::encode`] takes for texts of so many tokens together, but for the vectors.
    fn batch_bytes(&self, tokens: usize) -> u64;
}

/// A zeroed vector, or an error that says what could not be had.
pub(crate) fn zeroed<T: Clone + Default>(
    length: usize,
    what: &'static str,
) -> Result<Vec<T>, BackendError> {
    let mut vector = Vec::new();
    let bytes = (length as u64).saturating_mul(size_of::<T>() as u64);
    let reserved = vector.try_reserve_exact(length);
    reserved.map_err(|_| BackendError::OutOfMemory { what, bytes })?;
    vector.resize(length, T::default());
    Ok(vector)
}
