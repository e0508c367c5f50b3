//! A decoder on a GPU, as the scheduler sees it.
//! In: a plan and the file's weights. Out: a device that runs steps, and is opened again where it was lost.

use std::sync::Arc;

use crate::backend::BackendError;
use crate::gguf::Gguf;
use crate::model::plan::Plan;
use crate::model::{LoadProgress, ModelError};
use crate::scheduler::{Device, Limits, Request, Scheduler};

use super::best::BEST;
use super::device::Gpu;
use super::kernels::{Profile, ROWS_MAX};
use super::model::{Model, PAGES_MAX, Wants};
use super::runner::Runner;

/// Tokens of one prompt in one step: half a batch, so that others fit beside it.
const PROMPT_ROWS: usize = ROWS_MAX / 2;

/// Loads a model on a GPU.
pub(crate) fn load(
    gpu: &Arc<Gpu>,
    exact: bool,
    gguf: Arc<Gguf>,
    plan: Arc<Plan>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Scheduler, ModelError> {
    let gpu = gpu.healthy()?;
    let profile = match exact {
        true => Profile::exact(&gpu),
        false => Profile::Fast,
    };
    let model = Model::load(&gpu, profile, &gguf, &plan, progress)?;
    model.gpu.keep_pipelines();
    Ok(Scheduler::new(Box::new(Runner::new(model, gguf)), plan))
}

impl Device for Runner {
    fn limits(&self) -> Limits {
        let wants = Wants {
            head: true,
            best: true,
        };
        let model = &self.model;
        Limits {
            rows_max: ROWS_MAX,
            prompt_rows: PROMPT_ROWS,
            request_tokens_max: PROMPT_ROWS,
            numbers_max: PAGES_MAX,
            wanted_max: model.buffers.wanted_max,
            heads: model.plan.heads,
            scores_max: model.buffers.scores_max,
            pages_max: model.pages_max(),
            page_bytes: model.page_bytes(),
            best: Some(BEST),
            timed: true,
            dispatches_per_token: Some(model.ops(1, wants).count()),
        }
    }

    fn step(&mut self, requests: &mut [Request]) -> Result<(), BackendError> {
        self.run(requests)
    }

    fn pages(&self) -> usize {
        self.model.pages
    }

    fn grow(&mut self, pages: usize) -> Result<(), BackendError> {
        self.model.grow(pages)
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), BackendError> {
        self.model.copy_page(from, to)
    }

    fn check(&self) -> Result<(), BackendError> {
        self.model.gpu.check()
    }

    fn reopen(&mut self, fault: BackendError) -> Result<(), BackendError> {
        let gpu = self.model.gpu.healthy()?;
        let plan = Arc::clone(&self.model.plan);
        let profile = self.model.profile().on(&gpu);
        let model = Model::load(&gpu, profile, &self.gguf, &plan, &mut |_| {});
        self.replace(model.map_err(|error| BackendError::DeviceLost {
            reason: format!("{fault}; loading the model again: {error}"),
        })?);
        Ok(())
    }
}
