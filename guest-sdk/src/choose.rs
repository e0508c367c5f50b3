//! One of several answers, chosen by their probabilities.
//!
//! In: a session with a prompt, labels. Out: the likeliest label, and how likely each is.
//! No text is generated, so the answer is always one of the labels, and the same request
//! always gives the same one.

use std::collections::BTreeMap;

use crate::{Candidate, Error, ErrorCode, Session};

/// Labels of one choice.
const LABELS_MAX: usize = 1024;
/// Candidates over which probabilities are taken.
const CANDIDATES: u32 = 1024;

/// What was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The likeliest label, from 0; the first of equals.
    pub index: usize,
    /// How likely each label is, in their order; together 1.
    pub probabilities: Vec<f32>,
}

impl Session {
    /// Chooses the label that the model most likely writes next.
    ///
    /// Labels are compared token by token: where they part, the model's probabilities of
    /// the tokens that go on decide, scaled to a sum of 1. A label that another one begins
    /// with ends with the probability of all other tokens. The session stays as it was;
    /// where several labels share tokens, forks are made and dropped.
    ///
    /// ```
    /// # use tussah_sdk::{Error, Message, Model, testing::Scripted};
    /// fn sentiment(text: &str) -> Result<&'static str, Error> {
    ///     let labels = ["positive", "negative"];
    ///     let messages = [Message::system("Is it positive or negative?"), Message::user(text)];
    ///     let session = Model::load("smollm2")?.session().open_chat(&messages)?;
    ///     Ok(labels[session.choose(&labels)?.index])
    /// }
    ///
    /// let script = Scripted::model("smollm2").candidates([("negative", 3.0), ("positive", 1.0)]);
    /// assert_eq!(script.scope(|| sentiment("It broke.")).0?, "negative");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for no labels, more than 1,024, an empty one or one that is there
    /// twice; those of [`Session::candidates`] and [`Session::fork`].
    pub fn choose(&self, labels: &[impl AsRef<str>]) -> Result<Choice, Error> {
        let invalid = |message: String| Err(Error::with_code(ErrorCode::InvalidArgument, message));
        if labels.is_empty() || labels.len() > LABELS_MAX {
            return invalid(format!("{} labels, 1 to {LABELS_MAX} can be", labels.len()));
        }
        let mut written: Vec<Vec<u32>> = Vec::new();
        for (at, label) in labels.iter().enumerate() {
            let label = label.as_ref();
            let tokens = self.tokenize(label)?;
            if tokens.is_empty() {
                return invalid(format!("label {at} is empty"));
            }
            if written.contains(&tokens) {
                return invalid(format!("the label `{label}` is there twice"));
            }
            written.push(tokens);
        }
        let mut probabilities = vec![0.0; labels.len()];
        let all: Vec<usize> = (0..labels.len()).collect();
        split(self, &written, &all, 0, 1.0, &mut probabilities)?;
        let mut index = 0;
        for (at, probability) in probabilities.iter().enumerate() {
            if *probability > probabilities[index] {
                index = at;
            }
        }
        Ok(Choice {
            index,
            probabilities,
        })
    }
}

/// Shares `whole` among the labels in `open`, whose first `depth` tokens the session has.
fn split(
    session: &Session,
    written: &[Vec<u32>],
    open: &[usize],
    depth: usize,
    whole: f32,
    probabilities: &mut [f32],
) -> Result<(), Error> {
    if let [only] = open {
        probabilities[*only] = whole;
        return Ok(());
    }
    let mut next: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut ended = None;
    for label in open {
        match written[*label].get(depth) {
            Some(token) => next.entry(*token).or_default().push(*label),
            None => ended = Some(*label),
        }
    }
    let mut shares: Vec<f32> = vec![1.0];
    if next.len() > 1 || ended.is_some() {
        let tokens: Vec<u32> = next.keys().copied().collect();
        shares = likely(&session.candidates(CANDIDATES)?, &tokens);
        let sum: f32 = shares.iter().sum();
        match ended {
            Some(label) => probabilities[label] = whole * (1.0 - sum).max(0.0),
            None => shares.iter_mut().for_each(|share| *share /= sum),
        }
    }
    for ((token, labels), share) in next.into_iter().zip(shares) {
        if let [only] = labels.as_slice() {
            probabilities[*only] = whole * share;
            continue;
        }
        let mut fork = session.fork()?;
        fork.accept(token)?;
        split(
            &fork,
            written,
            &labels,
            depth + 1,
            whole * share,
            probabilities,
        )?;
    }
    Ok(())
}

/// The probability of each token among all candidates; of one that is not among them, what
/// the unlikeliest has at most.
fn likely(candidates: &[Candidate], tokens: &[u32]) -> Vec<f32> {
    let most = candidates.first().map_or(0.0, |first| first.logit);
    let weight = |logit: f32| (logit - most).exp();
    let least = candidates.last().map_or(0.0, |last| last.logit);
    let weights: Vec<f32> = tokens
        .iter()
        .map(|token| {
            let found = candidates
                .iter()
                .find(|candidate| candidate.token == *token);
            weight(found.map_or(least - 1.0, |candidate| candidate.logit))
        })
        .collect();
    let sum: f32 = candidates
        .iter()
        .map(|candidate| weight(candidate.logit))
        .sum();
    // Never 0: a sum of nothing could not be shared.
    weights
        .iter()
        .map(|weight| (weight / sum.max(1.0)).max(1e-30))
        .collect()
}
