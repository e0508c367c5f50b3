//! One of several tokens, drawn from a seed; and how likely the model held each.
//!
//! In: candidates, the likeliest first. Out: one of them, or their log-probabilities. The
//! draws follow from the request and a seed, and the arithmetic is the module's own: the same
//! request gives the same token on every machine.

use crate::{Candidate, host};

/// Draws tokens for a job that chooses by itself.
///
/// ```
/// use tussah_sdk::{Candidate, Error, Model, Sampler, testing::Scripted};
///
/// /// The next token, but none that has a digit.
/// fn no_digit(prompt: &str) -> Result<Option<Candidate>, Error> {
///     let session = Model::load("smollm2")?.session().open_text(prompt)?;
///     let mut candidates = session.candidates(64)?;
///     candidates.retain(|candidate| !candidate.bytes.iter().any(u8::is_ascii_digit));
///     Ok(Sampler::new(0.0, 1.0, 0).pick(candidates))
/// }
///
/// let script = Scripted::model("smollm2").candidates([(" 42", 3.0), (" many", 1.0)]);
/// assert_eq!(script.scope(|| no_digit("It has")).0?.unwrap().bytes, b" many");
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    state: u64,
    temperature: f32,
    top_p: f32,
}

impl Sampler {
    /// A temperature of 0 takes the likeliest token, larger draws; of the smallest set of tokens
    /// whose probabilities together reach `top_p`, one at least. `seed` is mixed into the
    /// request's own: another number gives other draws.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        let request = if temperature > 0.0 { host::random() } else { 0 };
        Self {
            state: request ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            temperature,
            top_p,
        }
    }

    /// Takes one of the candidates, which stand with the largest logit first; none of none.
    pub fn pick(&mut self, candidates: Vec<Candidate>) -> Option<Candidate> {
        match self.temperature > 0.0 {
            true => self.draw(candidates),
            false => candidates.into_iter().next(),
        }
    }

    /// From 0 to below 1, in steps of 2^-53: SplitMix64 (Steele, Lea, Flood 2014).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn draw(&mut self, candidates: Vec<Candidate>) -> Option<Candidate> {
        let most = f64::from(candidates.first()?.logit);
        let mut weights: Vec<f64> = candidates
            .iter()
            .map(|candidate| {
                ((f64::from(candidate.logit) - most) / f64::from(self.temperature)).exp()
            })
            .collect();
        let nucleus = f64::from(self.top_p) * weights.iter().sum::<f64>();
        let mut all = 0.0;
        // The likeliest first: as many as reach `top_p`, one at least.
        let before = weights.iter().take_while(|weight| {
            all += **weight;
            all < nucleus
        });
        let kept = before.count() + 1;
        weights.truncate(kept);
        let mut left = self.next() * weights.iter().sum::<f64>();
        let mut picked = None;
        for (candidate, weight) in candidates.into_iter().zip(weights) {
            picked = Some(candidate);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        picked
    }
}

/// The natural logarithm of each candidate's probability among all of them.
///
/// `log p(i) = l(i) - m - ln(sum over j of exp(l(j) - m))`, where `l` are the logits and `m` is the
/// largest: a softmax in 64-bit floats, summed in the order of the candidates, without temperature
/// or penalty. Tokens that are not among the candidates are left out of the sum, so that over the
/// 1,024 likeliest the numbers are an upper bound, and close where the model is sure of anything.
///
/// ```
/// use tussah_sdk::{Candidate, log_probabilities};
///
/// let candidates = [3.0, 3.0, 0.0].map(|logit| Candidate { token: 0, bytes: vec![], logit });
/// let [first, second, last] = log_probabilities(&candidates)[..] else { panic!() };
/// assert_eq!(first, second);
/// assert!((first - last - 3.0).abs() < 1e-12);
/// assert!((2.0 * first.exp() + last.exp() - 1.0).abs() < 1e-12);
/// ```
pub fn log_probabilities(candidates: &[Candidate]) -> Vec<f64> {
    let logit = |candidate: &Candidate| f64::from(candidate.logit);
    let most = candidates.iter().map(logit).fold(f64::MIN, f64::max);
    let sum: f64 = candidates.iter().map(|it| (logit(it) - most).exp()).sum();
    let norm = sum.ln();
    candidates
        .iter()
        .map(|it| logit(it) - most - norm)
        .collect()
}
