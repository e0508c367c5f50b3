//! How likely tokens are to follow: all logits of a step, or the likeliest tokens that a device found.
//! In: steps of a session. Out: as much as its sampling needs, and all logits to whoever asks for them. What a
//! session gives and counts does not depend on which of the two a device left.

use super::{Session, SessionError};
use crate::backend::{BackendError, zeroed};
use crate::tokenizer::TokenId;

/// How likely tokens are after the last one that was run.
#[derive(Debug, Default)]
pub(super) enum Scores {
    /// Nothing was run, or nobody wanted to know.
    #[default]
    None,
    /// Logits of the whole vocabulary.
    All(Vec<f32>),
    /// The likeliest tokens as `sampler::order_key` has them, after this one.
    Best { keys: Vec<u64>, last: TokenId },
}

impl Session {
    /// Logits of the whole vocabulary, now and after the steps to come.
    pub(super) fn all_logits(&mut self) -> Result<&[f32], SessionError> {
        self.wants_all = true;
        self.score_all()?;
        match &self.scores {
            Scores::All(logits) => Ok(logits),
            Scores::None | Scores::Best { .. } => Err(SessionError::Empty),
        }
    }

    /// Makes sure of all logits: where the device kept to the likeliest tokens, the last one is run again, which
    /// changes nothing and counts nothing, since elsewhere they are at hand.
    pub(super) fn score_all(&mut self) -> Result<(), SessionError> {
        let Scores::Best { last, .. } = self.scores else {
            return Ok(());
        };
        let logits = self.room_for_logits()?;
        self.failed = true;
        let position = self.run as usize - 1;
        let logits = self.sequence.run(&[last], position, logits)?;
        self.failed = false;
        self.scores = Scores::All(logits);
        Ok(())
    }

    /// Memory for one value a token of the vocabulary, that of the logits before where there are any.
    pub(super) fn room_for_logits(&mut self) -> Result<Vec<f32>, BackendError> {
        match std::mem::take(&mut self.scores) {
            Scores::All(logits) => Ok(logits),
            before => {
                self.scores = before;
                zeroed(self.decoder.plan.vocabulary(), "logits")
            }
        }
    }

    /// Runs tokens for the likeliest to follow, where the device finds them and no more is wanted.
    pub(super) fn run_ranked(
        &mut self,
        tokens: &[TokenId],
    ) -> Result<Option<Scores>, SessionError> {
        let (Some(ranked), Some(last)) = (self.sequence.ranked(), tokens.last()) else {
            return Ok(None);
        };
        if self.wants_all || !self.sampler.best_suffices(ranked.best_max()) {
            return Ok(None);
        }
        let position = self.begin()?;
        let Some(ranked) = self.sequence.ranked() else {
            self.failed = false;
            return Ok(None);
        };
        let keys = ranked.run_ranked(tokens, position)?;
        self.finish(tokens.len(), 1);
        let last = *last;
        Ok(Some(Scores::Best { keys, last }))
    }
}
