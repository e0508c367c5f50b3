//! How likely a model finds each of several texts as the continuation of a session.
//!
//! In: a session with the prompt behind it, and the token ids of each text. Out: the
//! logarithm of each text's probability. The session itself is never changed; texts that
//! begin with the same tokens share the inference of that beginning, by forks.

use std::collections::BTreeMap;

use tussah_sdk::{Candidate, Error, Session};

/// As many candidates as a call gives. The rest of the vocabulary is left out of the sum
/// that makes logits probabilities, where it would count for less than a thousandth.
const CANDIDATES: u32 = 1024;

/// Token sequences by their beginnings.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    children: BTreeMap<u32, Trie>,
    /// Which of the texts end here.
    ends: Vec<usize>,
    texts: usize,
}

impl Trie {
    /// One sequence a text, none empty; equal ones get equal scores.
    pub(crate) fn new(texts: &[Vec<u32>]) -> Self {
        let mut root = Self {
            texts: texts.len(),
            ..Self::default()
        };
        for (index, tokens) in texts.iter().enumerate() {
            let mut node = &mut root;
            for token in tokens {
                node = node.children.entry(*token).or_default();
            }
            node.ends.push(index);
        }
        root
    }

    /// The natural logarithm of the probability of each text after `session`.
    ///
    /// # Errors
    /// Those of [`Session::candidates`], [`Session::fork`] and [`Session::accept`].
    pub(crate) fn log_probabilities(&self, session: &Session) -> Result<Vec<f64>, Error> {
        let mut scores = vec![0.0; self.texts];
        self.visit(session, 0.0, &mut scores)?;
        Ok(scores)
    }

    fn visit(&self, session: &Session, so_far: f64, scores: &mut [f64]) -> Result<(), Error> {
        for text in &self.ends {
            scores[*text] = so_far;
        }
        if self.children.is_empty() {
            return Ok(());
        }
        let candidates = session.candidates(CANDIDATES)?;
        let total = log_sum_exp(
            candidates
                .iter()
                .map(|candidate| f64::from(candidate.logit)),
        );
        for (token, child) in &self.children {
            let here = so_far + logit(&candidates, *token) - total;
            if child.children.is_empty() {
                // Nothing comes after: no need to run the model.
                child.ends.iter().for_each(|text| scores[*text] = here);
                continue;
            }
            let mut fork = session.fork()?;
            fork.accept(*token)?;
            child.visit(&fork, here, scores)?;
        }
        Ok(())
    }
}

/// A token's logit; of one that is not among the candidates, the last one's, which it does
/// not exceed.
fn logit(candidates: &[Candidate], token: u32) -> f64 {
    let found = candidates.iter().find(|candidate| candidate.token == token);
    found
        .or(candidates.last())
        .map_or(0.0, |candidate| f64::from(candidate.logit))
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    largest
        + values
            .map(|value| (value - largest).exp())
            .sum::<f64>()
            .ln()
}

/// Logarithms to shares of one: `exp` of each over their sum.
pub(crate) fn normalized(logarithms: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(logarithms.iter().copied());
    logarithms
        .iter()
        .map(|value| (value - total).exp())
        .collect()
}
