//! What the scheduler asks of a device.
//! Two implementations: the CPU's exact engine, and GPUs.

use std::fmt;

use crate::backend::BackendError;

use super::request::Request;

/// What a device can do; it does not change while a model is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of one step.
    pub(crate) rows_max: usize,
    /// Rows of prompts in a step that also has rows of those who generate: what such a step may cost them.
    pub(crate) prompt_rows: usize,
    /// Tokens of one request.
    pub(crate) request_tokens_max: usize,
    /// Page numbers of one step.
    pub(crate) numbers_max: usize,
    /// Rows of one step that may want logits.
    pub(crate) wanted_max: usize,
    /// Heads of a row's scores.
    pub(crate) heads: usize,
    /// Scores of one step: rows times heads times the positions that the last row sees.
    pub(crate) scores_max: usize,
    /// Pages that there may be.
    pub(crate) pages_max: usize,
    /// Memory of a page.
    pub(crate) page_bytes: u64,
    /// How many of the likeliest tokens it finds by itself; `None` where all logits are at hand anyway.
    pub(crate) best: Option<usize>,
    /// Whether it counts the time of its steps.
    pub(crate) timed: bool,
    /// How often it is asked to compute something for one generated token; `None` where nobody counts.
    pub(crate) dispatches_per_token: Option<usize>,
}

/// A model on a device, and pages of keys and values; in the hands of whoever runs a step.
pub(crate) trait Device: fmt::Debug + Send {
    fn limits(&self) -> Limits;

    /// Runs the parts of requests that fit a step together: writes what they ask for into them, and notes what
    /// is not finite. An error is that of the device, and everybody's.
    fn step(&mut self, requests: &mut [Request]) -> Result<(), BackendError>;

    /// Pages that exist.
    fn pages(&self) -> usize;

    /// Pages that there may be now, those that exist among them.
    fn pages_max(&self) -> usize {
        self.limits().pages_max
    }

    /// Makes room for so many pages; what is in those that exist stays.
    fn grow(&mut self, pages: usize) -> Result<(), BackendError>;

    /// Copies a page.
    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), BackendError>;

    /// Called when no sequence has a page any more, and none is kept for one: gives back memory that is better had anew.
    fn release(&mut self) {}

    /// What went wrong with the device itself.
    fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Opens a device that is gone, and loads the model again; no page of before is left.
    fn reopen(&mut self, fault: BackendError) -> Result<(), BackendError> {
        Err(fault)
    }
}
