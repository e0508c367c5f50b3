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
    /// Logits divided by the temperature.
    scaled: Vec<f32>,
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
            scaled: Vec::new(),
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
            scaled: Vec::new(),
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

    /// Whether [`Sampler::pick_of_best`] mostly can do with so many tokens.
    pub(crate) fn best_suffices(&self, most: usize) -> bool {
        let Sampling {
            temperature,
            top_k,
            repetition_penalty,
            ..
        } = self.sampling;
        // A penalty under 1 raises tokens that did not come; a probability needs the sum over all of them.
        let few = (1..=most / 2).contains(&(top_k as usize));
        repetition_penalty >= 1.0 && (temperature == 0.0 || few)
    }

    /// As [`Sampler::pick`], of the likeliest tokens as [`order_key`] has them, the likeliest first; all logits
    /// are finite. `None`, and nothing drawn, where another token might have been picked had it been there.
    pub(crate) fn pick_of_best(&mut self, best: &[u64]) -> Option<Result<TokenId, LogitNotFinite>> {
        let Sampling {
            temperature,
            top_k,
            repetition_penalty,
            ..
        } = self.sampling;
        if !self.best_suffices(best.len()) {
            return None;
        }
        // What did not come is no likelier than the last, and penalties only lower it.
        let least = logit_of(*best.last()?);
        let mut order = std::mem::take(&mut self.order);
        let penalised = best.iter().map(|key| {
            let token = token_of(*key);
            (self.penalised(token.index(), logit_of(*key)), token)
        });
        if temperature == 0.0 {
            // As `argmax`: zeros of both signs are equal there, and not in the order of keys.
            let (logit, token) = penalised.reduce(|a, b| {
                let better = b.0 > a.0 || (b.0 == a.0 && b.1.0 < a.1.0);
                if better { b } else { a }
            })?;
            let decided = logit > least || (repetition_penalty == 1.0 && logit != 0.0);
            return decided.then_some(Ok(token));
        }
        let scaled = penalised.map(|(logit, token)| order_key(div(logit, temperature), token.0));
        order.clear();
        order.extend(scaled);
        order.sort_unstable();
        self.order = order;
        let last_kept = logit_of(*self.order.get((top_k as usize).checked_sub(1)?)?);
        if last_kept > div(least, temperature) {
            self.order.truncate(top_k as usize);
            Some(self.draw_of_order().ok_or(LogitNotFinite))
        } else {
            None
        }
    }

    /// A token's logit after the penalty.
    fn penalised(&self, token: usize, logit: f32) -> f32 {
        let penalty = self.sampling.repetition_penalty;
        let seen = self.seen.get(token / 64);
        let is_seen = seen.is_some_and(|word| word >> (token % 64) & 1 == 1);
        match is_seen && penalty != 1.0 {
            false => logit,
            true if logit > 0.0 => div(logit, penalty),
            true => mul(logit, penalty),
        }
    }

    /// A copy with the penalty applied; empty if it changes nothing.
    fn penalise(&self, logits: &[f32], mut out: Vec<f32>) -> Vec<f32> {
        out.clear();
        if self.sampling.repetition_penalty == 1.0 {
            return out;
        }
        let penalised = logits.iter().enumerate();
        out.extend(penalised.map(|(token, logit)| self.penalised(token, *logit)));
        out
    }

    /// Everything after the penalty; `None` if a value leaves the floats on the way.
    fn draw(&mut self, logits: &[f32]) -> Option<TokenId> {
        let Sampling {
            temperature, top_k, ..
        } = self.sampling;
        let mut scaled = std::mem::take(&mut self.scaled);
        scaled.clear();
        scaled.extend(logits.iter().map(|logit| div(*logit, temperature)));
        let keep = match top_k {
            0 => logits.len(),
            top_k => top_k as usize,
        };
        likeliest(&scaled, keep, &mut self.order);
        self.scaled = scaled;
        self.draw_of_order()
    }

    /// Everything after the cut to the top k, whose scaled logits `order` has.
    fn draw_of_order(&mut self) -> Option<TokenId> {
        let Sampling { top_p, min_p, .. } = self.sampling;
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

/// Values of which [`likeliest`] looks at the largest first.
const LIKELIEST_PART: usize = 32;

/// The keys of the `k` likeliest tokens, the likeliest first; of all if there are no more.
pub(crate) fn likeliest(logits: &[f32], k: usize, out: &mut Vec<u64>) {
    out.clear();
    let parts = logits.chunks(LIKELIEST_PART);
    if k > 0 && k <= parts.len() / 2 {
        // The largest of k parts at least are no less than the k-th largest of all parts, so nothing below that
        // is among the k likeliest.
        let most_of = |part: &[f32]| part.iter().fold(i32::MIN, |most, it| most.max(rising(*it)));
        let most: Vec<i32> = parts.clone().map(most_of).collect();
        let mut order = most.clone();
        let (_, bound, _) = order.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        let bound = *bound;
        for ((part, most), first) in parts.zip(most).zip((0u32..).step_by(LIKELIEST_PART)) {
            if most >= bound {
                let keys = part.iter().zip(first..).filter(|it| rising(*it.0) >= bound);
                out.extend(keys.map(|(logit, token)| order_key(*logit, token)));
            }
        }
    } else {
        out.extend(
            logits
                .iter()
                .zip(0u32..)
                .map(|(logit, token)| order_key(*logit, token)),
        );
    }
    if k < out.len() {
        out.select_nth_unstable(k);
        out.truncate(k);
    }
    out.sort_unstable();
}

/// Integers in the order of floats.
fn rising(logit: f32) -> i32 {
    let bits = logit.to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

/// Sorts by higher logit first, then by lower token.
pub(crate) fn order_key(logit: f32, token: u32) -> u64 {
    let rising = rising(logit).cast_unsigned() ^ 0x8000_0000;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Logits that often are equal, with zeros of both signs.
    fn logit() -> impl Strategy<Value = f32> {
        prop_oneof![
            (-6i8..6).prop_map(f32::from),
            Just(-0.0),
            -30.0f32..30.0,
            // Neighbours, which a division can make equal.
            (0u32..4).prop_map(|up| f32::from_bits(0x4120_0000 + up)),
        ]
    }

    proptest! {
        #[test]
        fn the_likeliest_tokens_decide_as_all_do_or_do_not_decide(
            logits in prop::collection::vec(logit(), 16..200),
            seen in prop::collection::vec(0u32..200, 0..20),
            temperature in prop_oneof![Just(0.0f32), 0.1f32..3.0],
            top_k in 0u32..12,
            top_p in prop_oneof![Just(1.0f32), 0.1f32..1.0],
            min_p in prop_oneof![Just(0.0f32), 0.01f32..0.5],
            penalty in prop_oneof![Just(1.0f32), 0.8f32..1.5],
            seed in any::<[u8; 32]>(),
        ) {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty: penalty,
            };
            let mut of_all = Sampler::new(sampling, &seed, logits.len());
            for token in seen {
                of_all.note(TokenId(token));
            }
            let mut of_best = of_all.fork();
            let keys = logits.iter().zip(0..).map(|(logit, token)| order_key(*logit, token));
            let mut keys: Vec<u64> = keys.collect();
            keys.sort_unstable();
            keys.truncate(16);
            for _ in 0..4 {
                match of_best.pick_of_best(&keys) {
                    Some(picked) => prop_assert_eq!(picked, of_all.pick(&logits)),
                    // Nothing was drawn: both go on from the same place.
                    None => prop_assert_eq!(of_best.pick(&logits), of_all.pick(&logits)),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_likeliest_are_the_first_of_all_in_order(
            logits in prop::collection::vec(prop_oneof![logit(), any::<f32>()], 0..3000),
            k in 0usize..100,
        ) {
            let keys = logits.iter().zip(0..).map(|(logit, token)| order_key(*logit, token));
            let mut keys: Vec<u64> = keys.collect();
            keys.sort_unstable();
            keys.truncate(k);
            let mut found = Vec::new();
            likeliest(&logits, k, &mut found);
            prop_assert_eq!(found, keys);
        }
    }

    #[test]
    fn the_likeliest_tokens_mostly_decide() {
        let logits: Vec<f32> = (0..1000)
            .map(|i| ((i * 7919 % 1000) as f32) / 50.0)
            .collect();
        let mut keys: Vec<u64> = logits
            .iter()
            .zip(0..)
            .map(|(l, t)| order_key(*l, t))
            .collect();
        keys.sort_unstable();
        keys.truncate(64);
        let with = |temperature, top_k, repetition_penalty| Sampling {
            temperature,
            top_k,
            repetition_penalty,
            ..Sampling::default()
        };
        for (sampling, decides, why) in [
            (with(0.0, 0, 1.0), true, "the likeliest came"),
            (with(0.0, 0, 1.1), true, "a penalty raises nothing"),
            (
                with(0.0, 0, 0.9),
                false,
                "tokens that did not come may be raised",
            ),
            (with(0.8, 32, 1.1), true, "32 are kept"),
            (
                with(0.8, 33, 1.0),
                false,
                "no more than half of them, so that penalties leave enough",
            ),
            (
                with(0.8, 0, 1.0),
                false,
                "probabilities need the sum over all",
            ),
        ] {
            let mut sampler = Sampler::new(sampling, &[1; 32], logits.len());
            assert_eq!(sampler.pick_of_best(&keys).is_some(), decides, "{why}");
            assert_eq!(sampler.best_suffices(64), decides, "{why}");
        }
    }
}
