//! A sequence of a scheduled device.
//! In: its tokens, step by step. Out: what was asked for. It has its pages until it is dropped.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{BackendError, Opening, Ranked, Sequence};
use crate::tokenizer::TokenId;

use super::pages::Table;
use super::request::{Asked, Request};
use super::{Shared, lost_before};

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
            part: 0,
            logits,
            best: Vec::new(),
            time: Some(Duration::ZERO),
            wrong: None,
        };
        let mut done = shared.run(state, request)?;
        self.time = time.zip(done.time).map(|(before, steps)| before + steps);
        self.spare = (
            std::mem::take(&mut done.tokens),
            std::mem::take(&mut done.pages),
        );
        Ok(done)
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
        Ok(Box::new(Self::new(shared, table, self.reopened, opening)))
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
        if state.reopened != self.reopened {
            return;
        }
        state.pages.close(&mut self.table);
        if state.pages.unused()
            && let Some(mut device) = state.device.take()
        {
            device.release();
            state.pages = super::Pages::default();
            state.pages.grow(device.pages());
            state.device = Some(device);
        }
    }
}
