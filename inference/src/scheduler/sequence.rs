//! A sequence of a scheduled device.
//! In: its tokens, step by step. Out: what was asked for. It has its pages until it is dropped.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{BackendError, Opening, Ranked, Sequence};
use crate::tokenizer::TokenId;

use super::pages::{PAGE, Table};
use super::request::{Asked, Request};
use super::{Shared, State, lost_before};

/// A sequence on a device.
#[derive(Debug)]
pub(super) struct Scheduled {
    shared: Arc<Shared>,
    /// The scheduler's name for it.
    number: u64,
    table: Table,
    opening: Opening,
    /// How often the device had been opened again when it was opened.
    reopened: u64,
    /// Of its steps on the device; `None` once one is not known.
    time: Option<Duration>,
    /// The tokens that it has run, where it shares them.
    tokens: Vec<TokenId>,
    /// Its first pages that are known to others of its scope.
    known: usize,
    /// Memory of the request before.
    spare: (Vec<TokenId>, Vec<u32>),
}

impl Scheduled {
    pub(super) fn new(shared: &Arc<Shared>, table: Table, reopened: u64, opening: Opening) -> Self {
        Self {
            number: shared.lock().number(),
            table,
            opening,
            reopened,
            time: shared.limits.timed.then_some(Duration::ZERO),
            tokens: Vec::new(),
            known: 0,
            spare: (Vec::new(), Vec::new()),
            shared: Arc::clone(shared),
        }
    }

    pub(super) fn reopened(&self) -> u64 {
        self.reopened
    }

    pub(super) fn context_tokens(&self) -> usize {
        self.opening.context_tokens
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    fn ask(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        asked: Asked,
        logits: Vec<f32>,
    ) -> Result<Request, BackendError> {
        let (mut to_run, mut pages) = std::mem::take(&mut self.spare);
        to_run.clear();
        to_run.extend_from_slice(tokens);
        // Not known if a step fails.
        let time = self.time.take();
        let shared = &*self.shared;
        let mut state = shared.lock();
        if state.reopened != self.reopened {
            return Err(lost_before());
        }
        state.pages.extend(&mut self.table, position + tokens.len());
        pages.clear();
        pages.extend_from_slice(self.table.pages());
        let request = Request {
            number: state.number(),
            sequence: self.number,
            tokens: to_run,
            start: position,
            pages,
            asked,
            reopened: self.reopened,
            cancel: self.opening.cancel.clone(),
            ran: 0,
            passed_over: 0,
            part: 0,
            logits,
            best: Vec::new(),
            time: Some(Duration::ZERO),
            wrong: None,
        };
        let mut done = shared.run(state, request)?;
        self.make_known(tokens, position);
        self.time = time.zip(done.time).map(|(before, steps)| before + steps);
        self.spare = (
            std::mem::take(&mut done.tokens),
            std::mem::take(&mut done.pages),
        );
        Ok(done)
    }
}

impl Scheduled {
    /// Notes tokens that were run, and makes pages that they have filled known to the scope.
    fn make_known(&mut self, tokens: &[TokenId], position: usize) {
        let Some(scope) = &self.opening.scope else {
            return;
        };
        self.tokens.truncate(position);
        self.tokens.extend_from_slice(tokens);
        let full = self.tokens.as_chunks::<PAGE>().0;
        if full.len() <= self.known {
            return;
        }
        scope.keep(&self.shared);
        let mut state = self.shared.lock();
        if state.reopened != self.reopened {
            return;
        }
        let State {
            pages, prefixes, ..
        } = &mut *state;
        for (at, page_tokens) in full.iter().enumerate().skip(self.known) {
            let before = at.checked_sub(1).map(|before| self.table.pages()[before]);
            match prefixes.find(scope, before, page_tokens) {
                // Somebody was faster.
                Some(page) => pages.swap(&mut self.table, at, page),
                None => {
                    let page = self.table.pages()[at];
                    prefixes.insert(pages, (scope, before, page), page_tokens);
                }
            }
        }
        self.known = full.len();
        prefixes.touch(&self.table.pages()[..self.known]);
    }
}

impl Sequence for Scheduled {
    fn run(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        logits: Vec<f32>,
    ) -> Result<Vec<f32>, BackendError> {
        let rows = logits.len() / self.shared.plan.vocabulary();
        let asked = Asked::Logits { rows };
        Ok(self.ask(tokens, position, asked, logits)?.logits)
    }

    fn fork(&self, positions: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let shared = &self.shared;
        let table = shared.lease().fork(self, positions)?;
        let opening = self.opening.clone();
        let mut fork = Self::new(shared, table, self.reopened, opening);
        fork.tokens.extend(self.tokens.iter().take(positions));
        fork.known = self.known.min(positions / PAGE);
        Ok(Box::new(fork))
    }

    fn share(&mut self, tokens: &[TokenId], position: usize) -> usize {
        let Some(scope) = &self.opening.scope else {
            return 0;
        };
        let mut state = self.shared.lock();
        let table = &mut self.table;
        let whole = position == self.known * PAGE && table.pages().len() == self.known;
        if self.reopened != state.reopened || !whole {
            return 0;
        }
        let State {
            pages, prefixes, ..
        } = &mut *state;
        // The last token's logits are computed by whoever wants them.
        let before_last = &tokens[..tokens.len().saturating_sub(1)];
        let mut shared = 0;
        for page_tokens in before_last.as_chunks::<PAGE>().0 {
            let before = table.pages().last().copied();
            let Some(page) = prefixes.find(scope, before, page_tokens) else {
                break;
            };
            if !table.has_room() {
                break;
            }
            pages.share(table, page);
            self.known += 1;
            self.tokens.extend_from_slice(page_tokens);
            shared += PAGE;
        }
        prefixes.touch(table.pages());
        shared
    }

    fn gpu_time(&self) -> Option<Duration> {
        self.time
    }

    fn ranked(&mut self) -> Option<&mut dyn Ranked> {
        self.shared.limits.best.is_some().then_some(self)
    }
}

impl Ranked for Scheduled {
    fn best_max(&self) -> usize {
        self.shared.limits.best.unwrap_or(0)
    }

    fn run_ranked(
        &mut self,
        tokens: &[TokenId],
        position: usize,
    ) -> Result<Vec<u64>, BackendError> {
        Ok(self.ask(tokens, position, Asked::Best, Vec::new())?.best)
    }
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.came(self.number) {
            self.shared.arrived.notify_all();
        }
        if state.reopened == self.reopened {
            state.pages.close(&mut self.table);
            state.let_go(&self.shared.limits);
        }
        // The scope goes after the lock: its last one lets go of what was kept for it.
    }
}
