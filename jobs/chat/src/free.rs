//! Text that may be anything, token by token.
//!
//! In: a session with its prompt. Out: lines with pieces of text, each with how likely its tokens
//! were where that was asked for; and why it ended. It ends at a text to stop at, and where the
//! model begins to call a function.

use std::collections::BTreeSet;

use tussah_sdk::{Candidate, Error, IntoOutcome, Json, Sampler, Session};

use crate::logprobs::{self, Taken};
use crate::request::Request;
use crate::tail::Tail;
use crate::{Piece, temperature, tools, top_p};

/// The likeliest tokens, of which one is drawn. A GPU gives as many without all the others.
const DRAWN_OF: u32 = 64;
/// The tokens over which probabilities are taken: as many as a host gives.
const PROBABLE: u32 = 1024;
/// The least divisor of logits above 0, where an answer is drawn: a model this small goes in
/// circles otherwise.
const PENALTY: f32 = 1.1;

/// Why the text ended.
pub(crate) enum End {
    /// The model ended it, or a text to stop at did.
    Stop,
    /// Its tokens did.
    Length,
    /// The model began to call a function.
    Call,
}

/// Emits what the model writes; takes its tokens from those that are `left`.
pub(crate) fn generate(
    session: &mut Session,
    request: &Request,
    left: &mut u32,
) -> Result<End, Error> {
    let mut stops = request.stop.clone();
    let call = request.tools.as_ref().map(|_| stops.len());
    stops.extend(call.map(|_| tools::CALL.to_owned()));
    let mut writer = Writer {
        tail: Tail::new(stops),
        call,
        waiting: Vec::new(),
        logprobs: request.logprobs,
    };
    let mut picker = Picker {
        sampler: Sampler::new(temperature(request), top_p(request), request.seed),
        penalty: if temperature(request) > 0.0 {
            PENALTY
        } else {
            1.0
        },
        seen: BTreeSet::new(),
    };
    let count = match request.logprobs {
        Some(_) => PROBABLE,
        None => DRAWN_OF,
    };
    while *left > 0 {
        let candidates = session.candidates(count)?;
        let Some(taken) = picker.pick(&candidates, &writer) else {
            writer.end()?;
            return Ok(End::Stop);
        };
        session.accept(taken.token)?;
        *left -= 1;
        match writer.write(&candidates, &taken)? {
            None => {}
            stop if stop == call => return Ok(End::Call),
            Some(_) => return Ok(End::Stop),
        }
    }
    writer.end()?;
    Ok(End::Length)
}

/// Chooses tokens.
struct Picker {
    sampler: Sampler,
    penalty: f32,
    /// Tokens of the answer so far.
    seen: BTreeSet<u32>,
}

impl Picker {
    /// The next token; none where the model ends its turn.
    fn pick(&mut self, candidates: &[Candidate], writer: &Writer) -> Option<Candidate> {
        let first = candidates.iter().take(DRAWN_OF as usize);
        let mut kept: Vec<Candidate> = first.filter(|it| writer.takes(it)).cloned().collect();
        if self.penalty != 1.0 {
            for candidate in &mut kept {
                if self.seen.contains(&candidate.token) {
                    candidate.logit = match candidate.logit > 0.0 {
                        true => candidate.logit / self.penalty,
                        false => candidate.logit * self.penalty,
                    };
                }
            }
            kept.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
        }
        // Tokens without bytes are structure: the end of the turn.
        let picked = self.sampler.pick(kept).filter(|it| !it.bytes.is_empty())?;
        self.seen.insert(picked.token);
        Some(picked)
    }
}

/// Emits text as it becomes certain.
struct Writer {
    tail: Tail,
    /// Which of the stop texts begins a call.
    call: Option<usize>,
    /// Tokens of text that is not shown yet, and where each begins.
    waiting: Vec<(usize, Taken)>,
    logprobs: Option<usize>,
}

impl Writer {
    /// Nothing comes in one token with the beginning of a call: what is behind it follows a schema.
    fn takes(&self, candidate: &Candidate) -> bool {
        let call = self.call;
        !call.is_some_and(|call| self.tail.passes(call, &candidate.bytes))
    }

    /// Which stop text was reached, if one was.
    fn write(
        &mut self,
        candidates: &[Candidate],
        taken: &Candidate,
    ) -> Result<Option<usize>, Error> {
        if let Some(top) = self.logprobs {
            let begins = self.tail.end();
            let entry = logprobs::of(candidates, taken, top);
            self.waiting.push((begins, entry));
        }
        let (text, stop) = self.tail.push(&taken.bytes);
        self.show(&text)?;
        Ok(stop)
    }

    fn end(&mut self) -> Result<(), Error> {
        let text = self.tail.rest();
        self.show(&text)
    }

    fn show(&mut self, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let shown = self.tail.shown();
        let logprobs = self.logprobs.map(|_| {
            let count = self.waiting.partition_point(|(begins, _)| *begins < shown);
            self.waiting.drain(..count).map(|(_, it)| it).collect()
        });
        Json(Piece { text, logprobs }).into_outcome()
    }
}
