//! How likely the model held each token, as lines of the output have it.
//!
//! In: the candidates of a position. Out: the token that was taken, and the likeliest others. The
//! numbers are the model's own: before temperature, penalty and top-p.

use serde::Serialize;
use tussah_sdk::{Candidate, log_probabilities};

/// What OpenAI gives for a token that is not among those that were looked at.
const UNLIKELY: f64 = -9999.0;

/// A token of the answer.
#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    #[serde(flatten)]
    token: Token,
    /// The likeliest tokens of the position, as many as were asked for.
    top: Vec<Token>,
}

/// A token and how likely it was.
#[derive(Debug, Serialize)]
struct Token {
    token: String,
    logprob: f64,
    /// Where they are not whole characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<u8>>,
}

/// The token `taken` of a position, with the `top` likeliest.
pub(crate) fn of(candidates: &[Candidate], taken: &Candidate, top: usize) -> Taken {
    let logprobs = log_probabilities(candidates);
    let known = candidates.iter().zip(&logprobs);
    let found = known.clone().find(|(it, _)| it.token == taken.token);
    let logprob = found.map_or(UNLIKELY, |(_, logprob)| *logprob);
    Taken {
        token: token(taken, logprob),
        // Tokens without bytes are structure, such as the end of a turn: they have no text to give.
        top: known
            .filter(|(it, _)| !it.bytes.is_empty())
            .take(top)
            .map(|(it, logprob)| token(it, *logprob))
            .collect(),
    }
}

fn token(candidate: &Candidate, logprob: f64) -> Token {
    // Six digits behind the point are more than the logits are good for; and no zero is negative.
    let logprob = (logprob * 1e6).round() / 1e6 + 0.0;
    match std::str::from_utf8(&candidate.bytes) {
        Ok(text) => Token {
            token: text.to_owned(),
            logprob,
            bytes: None,
        },
        Err(_) => Token {
            token: format!("bytes:{}", candidate.bytes.escape_ascii()),
            logprob,
            bytes: Some(candidate.bytes.clone()),
        },
    }
}
