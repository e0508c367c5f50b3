//! Tokens of one sequence on their way through the steps that it takes to run them.
//! In: tokens, where they stand, and what is wanted of the last ones. Out: the part of them that a step runs, and
//! what came of it.

use std::time::Duration;

use crate::backend::BackendError;
use crate::cancel::CancelToken;
use crate::tokenizer::TokenId;

/// What is wanted of a part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The logits of so many of its last tokens.
    Logits {
        /// How many.
        rows: usize,
    },
    /// The likeliest tokens to follow the last one.
    Best,
}

impl Asked {
    /// Tokens that want logits computed.
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::Logits { rows } => rows,
            Self::Best => 1,
        }
    }
}

/// Tokens of one sequence; a step runs the part that the scheduler chose.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) number: u64,
    /// Of the sequence.
    pub(super) sequence: u64,
    pub(super) tokens: Vec<TokenId>,
    /// Where the first of them stands.
    pub(super) start: usize,
    /// The sequence's pages, up to the last token's at least.
    pub(crate) pages: Vec<u32>,
    /// Of all tokens.
    pub(super) asked: Asked,
    /// How often the device had been opened again when the sequence was opened.
    pub(super) reopened: u64,
    pub(super) cancel: CancelToken,
    /// Tokens that have been run.
    pub(super) ran: usize,
    /// Tokens of the step that is being run.
    pub(super) part: usize,
    /// Steps in a row that had no room for it.
    pub(super) passed_over: u32,
    /// Those that were asked for.
    pub(super) logits: Vec<f32>,
    /// The likeliest tokens as the sampler orders them; empty where they were not asked for.
    pub(crate) best: Vec<u64>,
    /// Its share of its steps' time, by its rows; `None` where the device counts none.
    pub(super) time: Option<Duration>,
    /// The first stage at which a value was not finite, and at which position.
    pub(super) wrong: Option<(u32, usize)>,
}

impl Request {
    /// The tokens of this step.
    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens[self.ran..][..self.part]
    }

    /// Where the first of them stands.
    pub(crate) fn position(&self) -> usize {
        self.start + self.ran
    }

    /// Positions that the last of them sees.
    pub(crate) fn sees(&self) -> usize {
        self.position() + self.part
    }

    /// Tokens that are left to run, those of this step among them.
    pub(super) fn left(&self) -> usize {
        self.tokens.len() - self.ran
    }

    /// What is wanted of the next `part` tokens.
    pub(super) fn asked_of(&self, part: usize) -> Asked {
        let later = self.left() - part;
        match self.asked {
            Asked::Best if later == 0 => Asked::Best,
            Asked::Best => Asked::Logits { rows: 0 },
            Asked::Logits { rows } => Asked::Logits {
                rows: rows.saturating_sub(later).min(part),
            },
        }
    }

    /// What is wanted of this step.
    pub(crate) fn asked(&self) -> Asked {
        self.asked_of(self.part)
    }

    /// Where the logits of this step go, a row of `vocabulary` each.
    pub(crate) fn logits_mut(&mut self, vocabulary: usize) -> &mut [f32] {
        let (Asked::Logits { rows: all }, Asked::Logits { rows }) = (self.asked, self.asked())
        else {
            return &mut [];
        };
        let later = self.left() - self.part;
        let from = all - rows - later.min(all - rows);
        &mut self.logits[from * vocabulary..][..rows * vocabulary]
    }

    /// Notes a value that is not finite, as [`stage_name`] numbers where.
    pub(crate) fn note_wrong(&mut self, stage: u32, position: usize) {
        let found = (stage, position);
        self.wrong = Some(self.wrong.map_or(found, |before| before.min(found)));
    }

    /// Adds a share of a step's time.
    pub(crate) fn add_time(&mut self, time: Option<Duration>) {
        self.time = self.time.zip(time).map(|(before, step)| before + step);
    }

    /// What came of it, after its last step.
    pub(super) fn outcome(self, layers: usize) -> Result<Self, BackendError> {
        match self.wrong {
            Some((stage, position)) => Err(BackendError::NotFinite {
                what: stage_name(stage, layers),
                position,
            }),
            None => Ok(self),
        }
    }
}

/// Places of a layer in a stage's number, which is `8 · layer + place`.
pub(crate) mod place {
    pub(crate) const INPUT: u32 = 0;
    pub(crate) const HEADS: u32 = 1;
    pub(crate) const SCORES: u32 = 2;
    pub(crate) const ATTENTION: u32 = 3;
    pub(crate) const MIDDLE: u32 = 4;
    pub(crate) const FEED_FORWARD: u32 = 5;
    /// After the last layer.
    pub(crate) const OUTPUT: u32 = 0;
    /// After the last layer.
    pub(crate) const LOGITS: u32 = 1;
}

/// The number of a place in a layer, or after the last one.
pub(crate) fn stage(layer: usize, place: u32) -> u32 {
    u32::try_from(layer).map_or(u32::MAX - 1, |layer| 8 * layer + place)
}

/// What went wrong at a row: a layer and a place in it.
fn stage_name(stage: u32, layers: usize) -> String {
    let (layer, at) = (stage as usize / 8, stage % 8);
    if layer >= layers {
        return match at {
            place::LOGITS => "a logit".to_owned(),
            _ => "the output of the last layer".to_owned(),
        };
    }
    match at {
        place::INPUT => format!("the input of layer {layer}"),
        place::HEADS => format!("a query, key or value of layer {layer}"),
        place::SCORES => format!("an attention score of layer {layer}"),
        place::ATTENTION => format!("the attention of layer {layer}"),
        place::MIDDLE => format!("the middle of layer {layer}"),
        _ => format!("the feed-forward of layer {layer}"),
    }
}
