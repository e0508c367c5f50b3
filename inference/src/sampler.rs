//! Logits → token, seeded.
//! In: logits of the next position, the tokens so far, a seed. Out: the token that every re-run picks too:
//! the arithmetic is that of the exact profile and the steps have one fixed order.
//! It never reads a clock or the operating system's randomness.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use crate::arithmetic::{NOT_FINITE, add, div, exp, magnitude_bits, mul, sub};
use crate::tokenizer::TokenId;

/// How to pick the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 picks the most likely token always; otherwise from 0.001 to 100.
    pub temperature: f32,
    /// Only the so many most likely tokens; 0 is no limit.
    pub top_k: u32,
    /// Only the most likely tokens that have this much probability together, above 0; 1 is no limit.
    pub top_p: f32,
    /// Only tokens with this share of the most likely one's probability, 0 to 1; 0 is no limit.
    pub min_p: f32,
    /// Divides the positive logits of every token that has occurred in the session and multiplies
    /// the negative ones, from 0.001 to 100; 1 changes nothing.
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    /// Greedy: the most likely token always.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        }
    }
}

/// A parameter out of its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{parameter} is {value}, wanted {wanted}")]
pub struct SamplingError {
    /// Its name.
    pub parameter: &'static str,
    /// What it is.
    pub value: f32,
    /// What it may be.
    pub wanted: &'static str,
}

impl Sampling {
    /// Checks every parameter.
    ///
    /// # Errors
    /// [`SamplingError`] names the first one out of range; NaN always is.
    pub fn check(&self) -> Result<(), SamplingError> {
        let in_range = |value: f32| (0.001..=100.0).contains(&value);
        let checks = [
            (
                "temperature",
                self.temperature,
                self.temperature == 0.0 || in_range(self.temperature),
                "0 for the most likely token, or 0.001 to 100",
            ),
            (
                "top-p",
                self.top_p,
                (0.001..=1.0).contains(&self.top_p),
                "0.001 to 1",
            ),
            (
                "min-p",
                self.min_p,
                self.min_p == 0.0 || (0.000_001..=1.0).contains(&self.min_p),
                "0, or 0.000001 to 1",
            ),
            (
                "repetition penalty",
                self.repetition_penalty,
                in_range(self.repetition_penalty),
                "0.001 to 100",
            ),
        ];
        match checks.into_iter().find(|(_, _, fits, _)| !fits) {
            None => Ok(()),
            Some((parameter, value, _, wanted)) => Err(SamplingError {
                parameter,
                value,
                wanted,
            }),
        }
    }
}

/// A logit was NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogitNotFinite;

/// The state of one session's sampling.
pub(crate) struct Sampler {
    sampling: Sampling,
    seed: [u8; 32],
    /// Words of the seed's key stream that have been drawn.
    drawn: u64,
    /// One bit a token: has it occurred?
    seen: Vec<u64>,
    /// Scratch for the candidates, to allocate once.
    order: Vec<u64>,
    weights: Vec<f32>,
    penalised: Vec<f32>,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stream stays out of logs.
        f.debug_struct("Sampler")
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, seed: &[u8; 32], vocabulary: usize) -> Self {
        Self {
            sampling,
            seed: *seed,
            drawn: 0,
            seen: vec![0; vocabulary.div_ceil(64)],
            order: Vec::new(),
            weights: Vec::new(),
            penalised: Vec::new(),
        }
    }

    /// A second sampler that goes on from here by itself.
    pub(crate) fn fork(&self) -> Self {
        Self {
            sampling: self.sampling,
            seed: self.seed,
            drawn: self.drawn,
            seen: self.seen.clone(),
            order: Vec::new(),
            weights: Vec::new(),
            penalised: Vec::new(),
        }
    }

    /// The next word of the key stream: nonce 0, from block 0 on, little-endian.
    fn draw_word(&mut self) -> u32 {
        let mut keystream = ChaCha20::new(&self.seed.into(), &[0; 12].into());
        keystream.seek(self.drawn * 4);
        self.drawn += 1;
        let mut word = [0; 4];
        keystream.apply_keystream(&mut word);
        u32::from_le_bytes(word)
    }

    /// Notes that a token has occurred, for the repetition penalty.
    pub(crate) fn note(&mut self, token: TokenId) {
        if let Some(word) = self.seen.get_mut(token.index() / 64) {
            *word |= 1 << (token.index() % 64);
        }
    }

    /// Picks the next token; `logits` has one value a token of the vocabulary.
    pub(crate) fn pick(&mut self, logits: &[f32]) -> Result<TokenId, LogitNotFinite> {
        if magnitude_bits(logits) >= NOT_FINITE {
            return Err(LogitNotFinite);
        }
        let penalised = std::mem::take(&mut self.penalised);
        let penalised = self.penalise(logits, penalised);
        let logits = if penalised.is_empty() {
            logits
        } else {
            &penalised
        };
        let picked = if self.sampling.temperature == 0.0 {
            argmax(logits)
        } else {
            self.draw(logits)
        };
        self.penalised = penalised;
        if picked.is_none() {
            Err(LogitNotFinite)
        } else {
            Ok(picked.unwrap_or(TokenId(0)))
        }
    }

    /// A copy with the penalty applied; empty if it changes nothing.
    fn penalise(&self, logits: &[f32], mut out: Vec<f32>) -> Vec<f32> {
        out.clear();
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return out;
        }
        out.extend_from_slice(logits);
        for (index, logit) in out.iter_mut().enumerate() {
            if self
                .seen
                .get(index / 64)
                .is_some_and(|word| word >> (index % 64) & 1 == 1)
            {
                *logit = if *logit > 0.0 {
                    div(*logit, penalty)
                } else {
                    mul(*logit, penalty)
                };
            }
        }
        out
    }

    /// Everything after the penalty; `None` if a value leaves the floats on the way.
    fn draw(&mut self, logits: &[f32]) -> Option<TokenId> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        self.order.clear();
        let scaled = logits.iter().map(|logit| div(*logit, temperature));
        self.order.extend(
            scaled
                .zip(0u32..)
                .map(|(logit, token)| order_key(logit, token)),
        );
        let keep = if top_k == 0 {
            logits.len()
        } else {
            logits.len().min(top_k as usize)
        };
        if keep < self.order.len() {
            self.order.select_nth_unstable(keep);
            self.order.truncate(keep);
        }
        self.order.sort_unstable();
        let first = logit_of(*self.order.first()?);
        let last = logit_of(*self.order.last()?);
        if !(first.is_finite() && last.is_finite()) {
            return None;
        }
        let weights = &mut self.weights;
        weights.clear();
        weights.extend(self.order.iter().map(|key| exp(sub(logit_of(*key), first))));
        let sum = weights.iter().fold(0.0, |sum, weight| add(sum, *weight));
        for weight in &mut *weights {
            *weight = div(*weight, sum);
        }
        if top_p < 1.0 {
            let mut reached = 0.0;
            let prefix = weights.iter().position(|weight| {
                reached = add(reached, *weight);
                reached >= top_p
            });
            weights.truncate(prefix.map_or(weights.len(), |at| at + 1));
        }
        if min_p > 0.0 {
            let least = mul(min_p, weights[0]);
            weights.truncate(weights.partition_point(|weight| *weight >= least).max(1));
        }
        let total = weights.iter().fold(0.0, |sum, weight| add(sum, *weight));
        let u = uniform(self.draw_word());
        let mut reached = 0.0;
        let picked = self.weights.iter().position(|weight| {
            reached = add(reached, div(*weight, total));
            reached > u
        });
        let picked = picked.unwrap_or(self.weights.len() - 1);
        Some(token_of(self.order[picked]))
    }
}

/// The top 24 bits of a word as a number in [0, 1).
fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * f32::from_bits(0x3380_0000) // 2^-24
}

/// The most likely token, the lowest on ties.
pub(crate) fn argmax(logits: &[f32]) -> Option<TokenId> {
    let mut best: Option<(f32, u32)> = None;
    for (logit, token) in logits.iter().zip(0u32..) {
        if best.is_none_or(|(most, _)| *logit > most) {
            best = Some((*logit, token));
        }
    }
    best.map(|(_, token)| TokenId(token))
}

/// Sorts by higher logit first, then by lower token.
pub(crate) fn order_key(logit: f32, token: u32) -> u64 {
    let bits = logit.to_bits();
    let rising = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 0x8000_0000
    };
    u64::from(!rising) << 32 | u64::from(token)
}

pub(crate) fn logit_of(key: u64) -> f32 {
    let rising = !((key >> 32) as u32);
    f32::from_bits(if rising >> 31 == 1 {
        rising & 0x7fff_ffff
    } else {
        !rising
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "takes the lower half of the word"
)]
pub(crate) fn token_of(key: u64) -> TokenId {
    TokenId(key as u32)
}
