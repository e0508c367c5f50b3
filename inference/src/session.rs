//! One sequence of tokens on a model: context, sampling state, usage.
//! In: prompt tokens. Out: one token after the other. Steps are shared with other sessions of the model and run on
//! the thread of whoever leads them; it never outgrows its context, and stops between steps when its token is
//! cancelled.

mod error;
mod scores;

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{BackendError, Opening, Sequence, zeroed};
use crate::cancel::CancelToken;
use crate::model::{Decoder, Model};
use crate::sampler::{Sampler, Sampling, likeliest, logit_of, token_of};
use crate::scheduler::Scope;
use crate::tokenizer::TokenId;
pub use error::SessionError;
use scores::Scores;

/// How to open a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The most tokens, prompt and generated together; memory for them is promised at once, and taken
    /// as they come.
    pub context_tokens_max: u32,
    /// How to pick tokens.
    pub sampling: Sampling,
    /// Where the sampler's random numbers come from; equal seeds give equal texts.
    pub seed: [u8; 32],
    /// Stops the session from another thread.
    pub cancel: CancelToken,
}

/// What a session has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens that were appended.
    pub prompt_tokens: u64,
    /// Tokens that were picked or accepted.
    pub generated_tokens: u64,
    /// Multiply-accumulates, from shapes alone, so every re-run counts the same. A token at position p costs
    /// the sizes of all layers' matrices + 2 · layers · heads · head size · (p + 1), where a layer with a
    /// sliding window counts no more than its window for (p + 1); each computation of logits adds the size
    /// of the head. They are counted when they run.
    pub inference_units: u64,
}

/// A possible next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: TokenId,
    /// Its logit, before any penalty or temperature.
    pub logit: f32,
}

/// Tokens in a row that the likeliest may leave undecided before all logits are asked for at once.
const UNDECIDED_MAX: u32 = 2;

/// One sequence on a model.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    decoder: Arc<Decoder>,
    sequence: Box<dyn Sequence>,
    sampler: Sampler,
    cancel: CancelToken,
    context_tokens_max: u32,
    /// Tokens that have been through the model.
    run: u32,
    /// An accepted token that has not: its step is taken when its logits are wanted.
    pending: Option<TokenId>,
    scores: Scores,
    /// Whether somebody wanted more than the likeliest tokens.
    wants_all: bool,
    /// Tokens in a row that the likeliest could not decide.
    undecided: u32,
    at_end: bool,
    failed: bool,
    usage: Usage,
    /// Tokens that were taken over from others of the scope.
    shared: u32,
}

impl Session {
    /// Opens an empty session and takes its memory.
    ///
    /// # Errors
    /// [`SessionError`]: the context size or a sampling parameter is out of range, or there is not enough memory.
    pub fn open(model: &Arc<Model>, options: SessionOptions) -> Result<Self, SessionError> {
        Self::open_with(model, options, None)
    }

    /// As [`Session::open`], for a session that shares with others of a scope what they have computed of equal
    /// beginnings. Results and usage are those of a session alone; only the time that a prompt takes tells.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_in(
        model: &Arc<Model>,
        options: SessionOptions,
        scope: &Scope,
    ) -> Result<Self, SessionError> {
        Self::open_with(model, options, Some(scope.clone()))
    }

    fn open_with(
        model: &Arc<Model>,
        options: SessionOptions,
        scope: Option<Scope>,
    ) -> Result<Self, SessionError> {
        let SessionOptions {
            context_tokens_max,
            sampling,
            seed,
            cancel,
        } = options;
        sampling.check()?;
        let decoder = model.decoder().ok_or_else(|| SessionError::Unsupported {
            architecture: model.info().architecture.clone(),
        })?;
        let max = model.info().context_tokens_max;
        if !(1..=max).contains(&context_tokens_max) {
            return Err(SessionError::ContextSize {
                wanted: context_tokens_max,
                max,
            });
        }
        let opening = Opening {
            context_tokens: context_tokens_max as usize,
            cancel: cancel.clone(),
            scope,
        };
        Ok(Self {
            sequence: decoder.backend.open(opening)?,
            sampler: Sampler::new(sampling, &seed, decoder.plan.vocabulary()),
            model: Arc::clone(model),
            decoder: Arc::clone(decoder),
            cancel,
            context_tokens_max,
            run: 0,
            pending: None,
            scores: Scores::None,
            wants_all: false,
            undecided: 0,
            at_end: false,
            failed: false,
            usage: Usage::default(),
            shared: 0,
        })
    }

    /// The model it runs on.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Appends tokens to the sequence and computes the logits of the next position.
    ///
    /// Long prompts run in chunks. An empty list changes nothing.
    ///
    /// # Errors
    /// [`SessionError::ContextFull`] and [`SessionError::UnknownToken`] before anything is run;
    /// [`SessionError::Cancelled`] between chunks; after a backend's error the session is of no more use.
    pub fn append(&mut self, tokens: &[TokenId]) -> Result<(), SessionError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let all = self.note_appended(tokens)?;
        let batch = self.decoder.backend.batch_tokens_max();
        let mut at = self.share(&all)?;
        while at < all.len() {
            // Chunks end where they would if nothing were shared.
            let end = all.len().min((at / batch + 1) * batch);
            self.step(&all[at..end], end == all.len())?;
            at = end;
        }
        Ok(())
    }

    /// Takes over what others of the scope have computed; counts it as if it were run.
    fn share(&mut self, tokens: &[TokenId]) -> Result<usize, SessionError> {
        let position = self.begin()?;
        let shared = self.sequence.share(tokens, position);
        self.finish(shared, 0);
        self.shared += u32::try_from(shared).unwrap_or(u32::MAX);
        Ok(shared)
    }

    /// Tokens that needed no computing, since others of the scope had computed them; part of no usage.
    pub fn shared_tokens(&self) -> u32 {
        self.shared
    }

    /// As [`Session::append`], and gives the logits after each of the tokens: `tokens.len()` rows of one value
    /// a token of the vocabulary. What [`Session::logits`] gives afterwards is the last row.
    ///
    /// Where several values are not finite, the error names one of them, on different devices not always the same.
    ///
    /// # Errors
    /// As [`Session::append`]; without memory for the rows before anything is run.
    pub fn append_scored(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, SessionError> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        self.check_appended(tokens)?;
        let vocabulary = self.decoder.plan.vocabulary();
        let mut rows = zeroed(tokens.len().saturating_mul(vocabulary), "logits")?;
        let mut last = self.room_for_logits()?;
        let all = self.note_appended(tokens)?;
        let before = all.len() - tokens.len();
        let mut at = 0;
        for chunk in all.chunks(self.decoder.backend.batch_tokens_max()) {
            // A token that was accepted before has its logits computed by nobody.
            let skipped = before.saturating_sub(at).min(chunk.len());
            let from = (at + skipped - before) * vocabulary;
            let count = chunk.len() - skipped;
            let of_chunk = zeroed(count * vocabulary, "logits")?;
            let of_chunk = self.run_step(chunk, of_chunk)?;
            rows[from..][..of_chunk.len()].copy_from_slice(&of_chunk);
            at += chunk.len();
        }
        last.copy_from_slice(&rows[rows.len() - vocabulary..]);
        self.scores = Scores::All(last);
        Ok(rows)
    }

    fn check_appended(&self, tokens: &[TokenId]) -> Result<(), SessionError> {
        self.check_room(tokens.len() as u64)?;
        tokens.iter().try_for_each(|token| self.check_token(*token))
    }

    /// Checks tokens and takes them into the sampler's account; gives what is to be run.
    fn note_appended(&mut self, tokens: &[TokenId]) -> Result<Vec<TokenId>, SessionError> {
        self.check_appended(tokens)?;
        self.at_end = false;
        for token in tokens {
            self.sampler.note(*token);
        }
        let mut all = Vec::with_capacity(tokens.len() + 1);
        all.extend(self.pending.take());
        all.extend_from_slice(tokens);
        self.usage.prompt_tokens += tokens.len() as u64;
        Ok(all)
    }

    /// Picks the next token by the session's sampling and accepts it; `None` where the model ends its text.
    ///
    /// The ending token is not accepted: the sequence stays as it was, and so does the answer until
    /// something is appended.
    ///
    /// # Errors
    /// [`SessionError::Empty`] before the first append, [`SessionError::ContextFull`] without room for the
    /// token, [`SessionError::Cancelled`].
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot say why it stopped"
    )]
    pub fn next(&mut self) -> Result<Option<TokenId>, SessionError> {
        if self.at_end {
            return Ok(None);
        }
        self.check_room(1)?;
        self.settle()?;
        let of_best = match &self.scores {
            Scores::Best { keys, .. } => self.sampler.pick_of_best(keys),
            _ => None,
        };
        let picked = match of_best {
            Some(picked) => {
                self.undecided = 0;
                picked
            }
            None => {
                if matches!(self.scores, Scores::Best { .. }) {
                    // Running a token twice is dearer than all logits: who needs them again gets them at once.
                    self.undecided += 1;
                    self.wants_all |= self.undecided >= UNDECIDED_MAX;
                }
                self.score_all()?;
                match &self.scores {
                    Scores::All(logits) => self.sampler.pick(logits),
                    _ => return Err(SessionError::Empty),
                }
            }
        };
        let token = picked.map_err(|_| BackendError::NotFinite {
            what: "a logit or its scaled value".to_owned(),
            position: self.run as usize - 1,
        })?;
        if self.model.tokenizer().is_end(token) {
            self.at_end = true;
            return Ok(None);
        }
        self.take(token);
        Ok(Some(token))
    }

    /// The `k` most likely next tokens, the likeliest first, lower ids first on ties.
    ///
    /// # Errors
    /// [`SessionError::Empty`] before the first append; [`SessionError::Cancelled`].
    pub fn candidates(&mut self, k: usize) -> Result<Vec<Candidate>, SessionError> {
        self.settle()?;
        let candidate = |key: u64| Candidate {
            token: token_of(key),
            logit: logit_of(key),
        };
        if let Scores::Best { keys, .. } = &self.scores
            && k <= keys.len()
        {
            return Ok(keys.iter().take(k).map(|key| candidate(*key)).collect());
        }
        let mut order = Vec::new();
        likeliest(self.all_logits()?, k, &mut order);
        Ok(order.into_iter().map(candidate).collect())
    }

    /// Accepts a token of the caller's choice as the next generated one.
    ///
    /// # Errors
    /// [`SessionError::UnknownToken`], [`SessionError::ContextFull`], [`SessionError::Cancelled`].
    pub fn accept(&mut self, token: TokenId) -> Result<(), SessionError> {
        self.check_token(token)?;
        self.check_room(1)?;
        self.settle_pending()?;
        self.at_end = false;
        self.take(token);
        Ok(())
    }

    /// A second session that goes on from here by itself, sampling state included.
    ///
    /// # Errors
    /// [`SessionError::Backend`] if there is not enough memory.
    pub fn fork(&self) -> Result<Self, SessionError> {
        if self.failed {
            return Err(SessionError::Failed);
        }
        let scores = match &self.scores {
            Scores::None => Scores::None,
            Scores::All(of) => {
                let mut logits = zeroed(of.len(), "logits")?;
                logits.copy_from_slice(of);
                Scores::All(logits)
            }
            Scores::Best { keys, last } => Scores::Best {
                keys: keys.clone(),
                last: *last,
            },
        };
        Ok(Self {
            model: Arc::clone(&self.model),
            decoder: Arc::clone(&self.decoder),
            sequence: self.sequence.fork(self.run as usize)?,
            sampler: self.sampler.fork(),
            cancel: self.cancel.clone(),
            context_tokens_max: self.context_tokens_max,
            run: self.run,
            pending: self.pending,
            scores,
            wants_all: self.wants_all,
            undecided: self.undecided,
            at_end: self.at_end,
            failed: false,
            usage: self.usage,
            shared: self.shared,
        })
    }

    /// The logits of the next position, one a token of the vocabulary.
    ///
    /// # Errors
    /// [`SessionError::Empty`] before the first append; [`SessionError::Cancelled`].
    pub fn logits(&mut self) -> Result<&[f32], SessionError> {
        self.settle()?;
        self.all_logits()
    }

    /// Tokens in the sequence.
    pub fn position(&self) -> u32 {
        self.run + u32::from(self.pending.is_some())
    }

    /// The most tokens the sequence can have.
    pub fn context_tokens_max(&self) -> u32 {
        self.context_tokens_max
    }

    /// Whether the model ended its text at the last [`Session::next`].
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// What has been used so far; a fork begins with what its origin had used.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Time that this session's steps took on a GPU, by the GPU's own clock; of a step that it shared with
    /// others its share by tokens. `None` on a CPU, where the adapter counts no time, or after a step that
    /// could not be timed. Not part of [`Usage`]: it is another at every run. A fork begins at zero.
    pub fn gpu_time(&self) -> Option<Duration> {
        self.sequence.gpu_time()
    }

    /// What [`Session::append`] of so many tokens will add to [`Usage::inference_units`], from shapes alone:
    /// the way of the tokens, and of one that was accepted and not run yet, through all layers, and one
    /// computation of logits. 0 for no tokens, which change nothing; [`u64::MAX`] where it is larger still.
    pub fn inference_units_for(&self, tokens: usize) -> u64 {
        if tokens == 0 {
            return 0;
        }
        let tokens = (tokens as u64).saturating_add(u64::from(self.pending.is_some()));
        let plan = &self.decoder.plan;
        let layers = plan.units(u64::from(self.run), tokens);
        layers.saturating_add(plan.units_of_head())
    }

    /// What the next [`Session::next`], [`Session::candidates`], [`Session::accept`] or [`Session::logits`]
    /// will add to [`Usage::inference_units`]: the step of a token that was accepted and not run yet, or 0.
    pub fn inference_units_of_next(&self) -> u64 {
        if self.pending.is_none() {
            return 0;
        }
        let plan = &self.decoder.plan;
        let layers = plan.units(u64::from(self.run), 1);
        layers.saturating_add(plan.units_of_head())
    }

    /// The memory this session holds.
    pub fn memory_bytes(&self) -> u64 {
        Self::memory_bytes_for(&self.model, self.context_tokens_max)
    }

    /// The memory a session of this size would hold: KV cache, buffers of a step, logits and sampling;
    /// 0 on an encoder, which has no sessions.
    pub fn memory_bytes_for(model: &Model, context_tokens: u32) -> u64 {
        let Some(decoder) = model.decoder() else {
            return 0;
        };
        // Logits, and in the sampler at most a copy of them, a key of 8 bytes and a weight of 4.
        let sampling = decoder.plan.vocabulary() as u64 * (4 + 4 + 8 + 4);
        decoder
            .backend
            .sequence_bytes(context_tokens as usize)
            .saturating_add(sampling)
    }

    fn check_token(&self, token: TokenId) -> Result<(), SessionError> {
        let vocabulary = self.model.info().vocabulary_size;
        if token.0 < vocabulary {
            Ok(())
        } else {
            Err(SessionError::UnknownToken { token, vocabulary })
        }
    }

    fn check_room(&self, wanted: u64) -> Result<(), SessionError> {
        let (used, max) = (self.position(), self.context_tokens_max);
        if u64::from(used) + wanted > u64::from(max) {
            return Err(SessionError::ContextFull { used, max, wanted });
        }
        Ok(())
    }

    fn take(&mut self, token: TokenId) {
        self.sampler.note(token);
        self.pending = Some(token);
        self.usage.generated_tokens += 1;
    }

    /// Runs the pending token, if there is one.
    fn settle_pending(&mut self) -> Result<(), SessionError> {
        match self.pending {
            None => Ok(()),
            Some(token) => {
                self.check_cancelled()?;
                self.pending = None;
                self.step(&[token], true)
            }
        }
    }

    /// Makes `logits` those of the next position.
    fn settle(&mut self) -> Result<(), SessionError> {
        if self.failed {
            return Err(SessionError::Failed);
        }
        self.check_cancelled()?;
        self.settle_pending()?;
        match self.scores {
            Scores::None => Err(SessionError::Empty),
            Scores::All(_) | Scores::Best { .. } => Ok(()),
        }
    }

    fn check_cancelled(&self) -> Result<(), SessionError> {
        if self.cancel.is_cancelled() {
            Err(SessionError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Runs tokens that were checked, for the last one's logits or for none; an error leaves the sequence of no
    /// use.
    fn step(&mut self, tokens: &[TokenId], wants_logits: bool) -> Result<(), SessionError> {
        if !wants_logits {
            return self.run_step(tokens, Vec::new()).map(|_| ());
        }
        if let Some(best) = self.run_ranked(tokens)? {
            self.scores = best;
            return Ok(());
        }
        let logits = match self.room_for_logits() {
            Ok(logits) => logits,
            Err(error) => {
                self.failed = true;
                return Err(error.into());
            }
        };
        self.scores = Scores::All(self.run_step(tokens, logits)?);
        Ok(())
    }

    /// Before a step; gives where its first token stands. An error before [`Session::finish`] leaves the
    /// sequence of no use.
    fn begin(&mut self) -> Result<usize, SessionError> {
        if self.failed {
            return Err(SessionError::Failed);
        }
        self.failed = true;
        self.check_cancelled()?;
        Ok(self.run as usize)
    }

    /// After a step of so many tokens, of which so many had their logits computed.
    fn finish(&mut self, tokens: usize, scored: usize) {
        let plan = &self.decoder.plan;
        self.usage.inference_units += plan.units(u64::from(self.run), tokens as u64);
        self.usage.inference_units += plan.units_of_head() * scored as u64;
        // The context has at most 2^20 tokens.
        self.run += u32::try_from(tokens).unwrap_or(u32::MAX);
        self.failed = false;
    }

    /// Runs tokens, for the logits of as many of the last of them as there is room for.
    fn run_step(&mut self, tokens: &[TokenId], logits: Vec<f32>) -> Result<Vec<f32>, SessionError> {
        let position = self.begin()?;
        let rows = logits.len() / self.decoder.plan.vocabulary();
        let logits = self.sequence.run(tokens, position, logits)?;
        self.finish(tokens.len(), rows);
        Ok(logits)
    }
}
