//! The exact engine as the scheduler sees it: weights, pages, and the buffers of one step.
//! In: requests that fit a step together. Out: logits in them, or what was not finite at which position.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::backend::BackendError;
use crate::model::plan::Plan;
use crate::scheduler::{ContextMemory, Device, Limits, PAGE, Request};

use super::Weights;
use super::cache::Cache;
use super::forward::Step;
use super::memory::Buffers;

/// Rows of one step, and tokens of one request: enough to share each weight that comes from memory, few enough to
/// stop soon.
pub(super) const ROWS_MAX: usize = 128;
/// Rows of prompts in a step that also generates. A row costs the same from a few of them on, so a piece is as
/// long as those who generate can bear: it holds them up four times less than a whole step of prompts.
const PROMPT_ROWS: usize = 32;
/// Query rows of one chunk of attention while a prompt is read.
const SPAN_ROWS: usize = 8;

/// A model on the CPU.
#[derive(Debug)]
pub(super) struct ExactDevice {
    weights: Weights,
    cache: Cache,
    buffers: Buffers,
    rows: Rows,
}

/// The rows of a step.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// The pages of all sequences, one after the other.
    pub(super) pages: Vec<u32>,
    /// Rows of one sequence, whose attention is one chunk a head; those that see most first.
    pub(super) spans: Vec<Span>,
    /// Rows that want logits, in the order of the requests.
    pub(super) wanted: Vec<usize>,
    /// The first stage at which a row was not finite, of every row.
    status: Vec<AtomicU32>,
}

/// One token of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) position: usize,
    /// Where the pages of its sequence begin.
    pub(super) pages: usize,
}

/// Neighbouring rows of one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) count: usize,
}

impl ExactDevice {
    pub(super) fn new(weights: Weights, memory: &ContextMemory) -> Result<Self, BackendError> {
        Ok(Self {
            cache: Cache::new(&weights.plan, memory.clone()),
            buffers: Buffers::new(&weights.plan, ROWS_MAX)?,
            rows: Rows {
                rows: Vec::with_capacity(ROWS_MAX),
                pages: Vec::new(),
                spans: Vec::with_capacity(ROWS_MAX),
                wanted: Vec::with_capacity(ROWS_MAX),
                status: (0..ROWS_MAX).map(|_| AtomicU32::new(FINE)).collect(),
            },
            weights,
        })
    }
}

/// What a sequence is charged: keys and values, and the buffers of a step as if it were alone.
pub(crate) fn sequence_bytes(plan: &Plan, context_tokens: usize) -> u64 {
    let buffers = Buffers::bytes(plan, ROWS_MAX.min(context_tokens));
    Cache::bytes(plan, context_tokens).saturating_add(buffers)
}

/// The status of a row that nothing went wrong at.
const FINE: u32 = u32::MAX;

impl Rows {
    fn fill(&mut self, requests: &[Request]) {
        self.rows.clear();
        self.pages.clear();
        self.spans.clear();
        self.wanted.clear();
        for request in requests {
            let (first, count) = (self.rows.len(), request.tokens().len());
            let pages = self.pages.len();
            self.pages.extend_from_slice(&request.pages);
            let row = |position| Row { position, pages };
            let positions = request.position()..request.sees();
            self.rows.extend(positions.map(row));
            let span = |offset| Span {
                first: first + offset,
                count: SPAN_ROWS.min(count - offset),
            };
            self.spans.extend((0..count).step_by(SPAN_ROWS).map(span));
            let end = first + count;
            self.wanted.extend(end - request.asked().rows()..end);
        }
        for status in &mut self.status[..self.rows.len()] {
            *status.get_mut() = FINE;
        }
        let rows = &self.rows;
        self.spans
            .sort_by_key(|span| std::cmp::Reverse(rows[span.first].position));
    }

    /// Notes whether a row's values were finite at a stage.
    #[inline]
    pub(super) fn note(&self, row: usize, stage: u32, finite: bool) {
        if !finite {
            self.status[row].fetch_min(stage, Ordering::Relaxed);
        }
    }

    /// The pages of a row's sequence.
    pub(super) fn pages_of(&self, row: usize) -> &[u32] {
        &self.pages[self.rows[row].pages..]
    }

    /// The page of a row's own position.
    pub(super) fn page_of(&self, row: usize) -> u32 {
        self.pages_of(row)[self.rows[row].position / PAGE]
    }

    /// Tells the requests which of their rows were not finite.
    fn report(&mut self, requests: &mut [Request]) {
        let mut row = 0;
        for request in requests {
            for position in request.position()..request.sees() {
                let stage = *self.status[row].get_mut();
                if stage != FINE {
                    request.note_wrong(stage, position);
                }
                row += 1;
            }
        }
    }
}

impl Device for ExactDevice {
    fn limits(&self) -> Limits {
        Limits {
            rows_max: ROWS_MAX,
            prompt_rows: PROMPT_ROWS,
            request_tokens_max: ROWS_MAX,
            numbers_max: usize::MAX,
            wanted_max: usize::MAX,
            heads: 0,
            scores_max: usize::MAX,
            pages_max: usize::MAX,
            page_bytes: Cache::bytes(&self.weights.plan, PAGE),
            best: None,
            timed: false,
            dispatches_per_token: None,
        }
    }

    fn step(&mut self, requests: &mut [Request]) -> Result<(), BackendError> {
        self.rows.fill(requests);
        let mut step = Step {
            weights: &self.weights,
            cache: &mut self.cache,
            buffers: &mut self.buffers,
            rows: &self.rows,
        };
        step.run(requests);
        self.rows.report(requests);
        Ok(())
    }

    fn pages(&self) -> usize {
        self.cache.pages()
    }

    fn pages_max(&self) -> usize {
        self.cache.pages_max()
    }

    fn grow(&mut self, pages: usize) -> Result<(), BackendError> {
        self.cache.grow(pages)
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), BackendError> {
        self.cache.copy_page(from, to);
        Ok(())
    }

    fn release(&mut self) {
        self.cache.clear();
    }
}
