//! What sequences ask for → batches on the device.
//! In: tokens of many sequences, from many threads. Out: logits. Whoever asks while the device is free runs
//! what all have asked for as one batch, and the others wait; a step takes single tokens before prompts, so
//! that a long prompt does not hold up those who generate. Results do not depend on what else is in a batch.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use wgpu::{Buffer, BufferUsages, CommandEncoderDescriptor, ComputePassDescriptor};

use crate::arithmetic::{NOT_FINITE, magnitude_bits};
use crate::backend::{Backend, BackendError, Sequence};
use crate::exact::{Angles, embed};
use crate::gguf::Gguf;
use crate::model::plan::Plan;
use crate::model::{LoadProgress, ModelError};
use crate::tokenizer::TokenId;

use super::device::Gpu;
use super::kernels::{PAGES_AT, ROWS_AT, ROWS_MAX, WANTED_AT};
use super::model::{Model, PAGES_MAX, stage_name};
use super::pages::{PAGE, Pages, Table};

/// Tokens of one prompt in one step: half a batch, so that others fit beside it.
const PROMPT_ROWS: usize = ROWS_MAX / 2;
/// The status of a row that nothing went wrong at.
const FINE: u32 = u32::MAX;

/// A model on a GPU in the exact profile.
#[derive(Debug)]
pub(crate) struct GpuExact {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    page_bytes: u64,
    dispatches_per_token: usize,
    pages_max: usize,
    /// Rows that one prompt may have in a step, by what its longest context leaves of the scores' memory.
    scores_max: usize,
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Debug)]
struct State {
    /// Whoever has it runs the steps.
    runner: Option<Runner>,
    queue: VecDeque<Request>,
    done: HashMap<u64, Result<Vec<f32>, BackendError>>,
    pages: Pages,
    next: u64,
    /// How often the device was opened again; sequences of before are lost.
    reopened: u64,
}

/// Tokens of one sequence for one step.
#[derive(Debug)]
struct Request {
    number: u64,
    tokens: Vec<TokenId>,
    position: usize,
    pages: Vec<u32>,
    wants_logits: bool,
    /// [`State::reopened`] when its sequence was opened.
    reopened: u64,
}

impl Request {
    /// Positions that its last row sees.
    fn sees(&self) -> usize {
        self.position + self.tokens.len()
    }
}

/// The device's side.
struct Runner {
    model: Model,
    gguf: Arc<Gguf>,
    angles: Angles,
    readback: Option<Buffer>,
    batch: Vec<u32>,
    states: Vec<f32>,
    turns: Vec<(f32, f32)>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl GpuExact {
    pub(crate) fn load(
        gpu: &Arc<Gpu>,
        gguf: Arc<Gguf>,
        plan: Arc<Plan>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        let model = Model::load(gpu, &gguf, &plan, progress)?;
        let mut pages = Pages::default();
        pages.grow(1);
        let shared = Shared {
            page_bytes: model.page_bytes(),
            dispatches_per_token: model.ops(1, true).count(),
            pages_max: model.pages_max(),
            scores_max: model.buffers.scores_max,
            state: Mutex::new(State {
                runner: Some(Runner {
                    angles: Angles::of(&plan),
                    model,
                    gguf,
                    readback: None,
                    batch: Vec::new(),
                    states: Vec::new(),
                    turns: Vec::new(),
                }),
                queue: VecDeque::new(),
                done: HashMap::new(),
                pages,
                next: 0,
                reopened: 0,
            }),
            turn: Condvar::new(),
            plan,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Backend for GpuExact {
    fn open(&self, context_tokens: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let shared = &self.shared;
        // One row's scores must fit, whatever else is in the step.
        if shared.plan.heads * context_tokens > shared.scores_max {
            return Err(BackendError::OutOfMemory {
                what: "scores on the GPU",
                bytes: 4 * (shared.plan.heads * context_tokens) as u64,
            });
        }
        let (mut state, mut runner) = shared.runner();
        let ready = reopen_if_lost(&mut state, &mut runner).and_then(|()| {
            let needed = state.pages.needed(context_tokens.div_ceil(PAGE));
            make_room(shared, &mut state, &mut runner, needed)
        });
        let table = ready.map(|()| state.pages.open(context_tokens));
        let reopened = state.reopened;
        shared.give_back(&mut state, runner);
        drop(state);
        Ok(Box::new(GpuSequence {
            shared: Arc::clone(shared),
            table: table?,
            context_tokens,
            reopened,
        }))
    }

    fn sequence_bytes(&self, context_tokens: usize) -> u64 {
        self.shared.page_bytes * context_tokens.div_ceil(PAGE) as u64
    }

    fn batch_tokens_max(&self) -> usize {
        PROMPT_ROWS
    }

    fn dispatches_per_token(&self) -> Option<usize> {
        Some(self.shared.dispatches_per_token)
    }
}

/// Opens a device that something went wrong on, and loads the model again; sequences of before are lost.
fn reopen_if_lost(state: &mut State, runner: &mut Runner) -> Result<(), BackendError> {
    let Err(fault) = runner.model.gpu.check() else {
        return Ok(());
    };
    let lost = |reason: &dyn fmt::Display| BackendError::DeviceLost {
        reason: format!("{fault}; opening it again: {reason}"),
    };
    let gpu = Gpu::open(runner.model.gpu.options()).map_err(|error| lost(&error))?;
    let plan = Arc::clone(&runner.model.plan);
    let model = Model::load(&gpu, &runner.gguf, &plan, &mut |_| {});
    runner.model = model.map_err(|error| lost(&error))?;
    runner.readback = None;
    state.pages = Pages::default();
    state.pages.grow(1);
    state.reopened += 1;
    Ok(())
}

/// What a sequence of before is told.
fn lost_before() -> BackendError {
    BackendError::DeviceLost {
        reason: "it was opened again since this sequence began".to_owned(),
    }
}

/// Makes the caches hold so many pages, by half as much again where that fits.
fn make_room(
    shared: &Shared,
    state: &mut State,
    runner: &mut Runner,
    needed: usize,
) -> Result<(), BackendError> {
    if needed <= state.pages.capacity() {
        return Ok(());
    }
    let ample = (needed + needed / 2).min(shared.pages_max);
    let mut capacity = ample.max(needed);
    if let Err(error) = runner.model.grow(capacity) {
        if capacity == needed {
            return Err(error);
        }
        capacity = needed;
        runner.model.grow(needed)?;
    }
    state.pages.grow(capacity);
    Ok(())
}

impl State {
    /// Answers what was asked for on a device that is gone.
    fn refuse_lost(&mut self) {
        let reopened = self.reopened;
        let of_before = |request: &Request| request.reopened != reopened;
        let (lost, queue): (VecDeque<_>, VecDeque<_>) = self.queue.drain(..).partition(of_before);
        self.queue = queue;
        for request in lost {
            self.done.insert(request.number, Err(lost_before()));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state and the device, once nobody else has it.
    fn runner(&self) -> (MutexGuard<'_, State>, Runner) {
        let mut state = self.lock();
        loop {
            if let Some(runner) = state.runner.take() {
                return (state, runner);
            }
            state = self
                .turn
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, state: &mut State, runner: Runner) {
        state.runner = Some(runner);
        self.turn.notify_all();
    }

    /// Runs a request, in whichever step it falls.
    fn run(&self, request: Request) -> Result<Vec<f32>, BackendError> {
        let number = request.number;
        let mut state = self.lock();
        state.queue.push_back(request);
        loop {
            if let Some(done) = state.done.remove(&number) {
                return done;
            }
            let Some(mut runner) = state.runner.take() else {
                state = self
                    .turn
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.refuse_lost();
            let step = take_step(&mut state.queue, &runner.model);
            drop(state);
            let results = runner.step(&step);
            state = self.lock();
            for (request, result) in step.iter().zip(results) {
                state.done.insert(request.number, result);
            }
            self.give_back(&mut state, runner);
        }
    }
}

/// The requests of the next step: those of one token first, then prompts, while rows, page numbers, scores
/// and logits have room.
fn take_step(queue: &mut VecDeque<Request>, model: &Model) -> Vec<Request> {
    let (singles, prompts): (Vec<_>, Vec<_>) = queue
        .drain(..)
        .partition(|request| request.tokens.len() == 1);
    let (mut rows, mut pages, mut wanted, mut sees) = (0, 0, 0, 0);
    let mut step = Vec::new();
    let mut first = true;
    for request in singles.into_iter().chain(prompts) {
        let after = (
            rows + request.tokens.len(),
            pages + request.pages.len(),
            wanted + usize::from(request.wants_logits),
            request.sees().max(sees),
        );
        let scores = after.0 * model.plan.heads * after.3;
        let fits = after.0 <= ROWS_MAX
            && after.1 <= PAGES_MAX
            && after.2 <= model.buffers.wanted_max
            && scores <= model.buffers.scores_max;
        if fits || first {
            first = false;
            (rows, pages, wanted, sees) = after;
            step.push(request);
        } else {
            queue.push_back(request);
        }
    }
    step
}

impl Runner {
    /// Runs one step; an error of the device is everybody's.
    fn step(&mut self, requests: &[Request]) -> Vec<Result<Vec<f32>, BackendError>> {
        match self.try_step(requests) {
            Ok(results) => results,
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn try_step(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Vec<f32>, BackendError>>, BackendError> {
        let (rows, wanted) = self.upload(requests);
        self.model.gpu.check()?;
        self.compute(rows, wanted)?;
        let vocabulary = self.model.plan.vocabulary();
        let layers = self.model.plan.layers.len();
        let (status, logits) = self.read(rows, wanted)?;
        let mut results = Vec::new();
        let (mut row, mut logits) = (0, logits.chunks_exact(vocabulary));
        for request in requests {
            let count = request.tokens.len();
            let wrong = status[row..row + count]
                .iter()
                .zip(request.position..)
                .filter(|(status, _)| **status != FINE)
                .min();
            row += count;
            let values = if request.wants_logits {
                logits.next()
            } else {
                None
            };
            let values = values.unwrap_or_default();
            results.push(match wrong {
                Some((stage, position)) => Err(BackendError::NotFinite {
                    what: stage_name(*stage, layers),
                    position,
                }),
                None if magnitude_bits(values) >= NOT_FINITE => Err(BackendError::NotFinite {
                    what: "a logit".to_owned(),
                    position: request.sees() - 1,
                }),
                None => Ok(values.to_vec()),
            });
        }
        Ok(results)
    }

    /// Sends the batch, the embeddings and the angles; says how many rows there are and how many want logits.
    fn upload(&mut self, requests: &[Request]) -> (usize, usize) {
        let plan = &self.model.plan;
        let length = plan.embedding_length;
        let turns = plan.ropes.len() * plan.rope_dimensions / 2;
        let rows: usize = requests.iter().map(|request| request.tokens.len()).sum();
        let pages: usize = requests.iter().map(|request| request.pages.len()).sum();
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        self.batch.clear();
        self.batch.resize(PAGES_AT + pages, 0);
        self.states.resize(rows * length, 0.0);
        self.turns.resize(rows * turns, (0.0, 0.0));
        let (mut row, mut page, mut wanted, mut sees) = (0, 0, 0, 0);
        for request in requests {
            for (token, position) in request.tokens.iter().zip(request.position..) {
                embed(
                    plan,
                    &self.gguf,
                    *token,
                    &mut self.states[row * length..][..length],
                );
                self.angles
                    .at(position, &mut self.turns[row * turns..][..turns]);
                self.batch[ROWS_AT + 2 * row] = number(position);
                self.batch[ROWS_AT + 2 * row + 1] = number(page);
                row += 1;
            }
            self.batch[PAGES_AT + page..][..request.pages.len()].copy_from_slice(&request.pages);
            page += request.pages.len();
            sees = sees.max(request.sees());
            if request.wants_logits {
                self.batch[WANTED_AT + wanted] = number(row - 1);
                wanted += 1;
            }
        }
        self.batch[0] = number(rows);
        self.batch[1] = number(wanted);
        self.batch[2] = number(sees);
        let (queue, buffers) = (self.model.gpu.queue(), &self.model.buffers);
        queue.write_buffer(&buffers.batch, 0, bytemuck::cast_slice(&self.batch));
        queue.write_buffer(&buffers.status, 0, bytemuck::cast_slice(&[FINE; ROWS_MAX]));
        queue.write_buffer(&buffers.states, 0, bytemuck::cast_slice(&self.states));
        let turns: Vec<[f32; 2]> = self.turns.iter().map(|turn| [turn.0, turn.1]).collect();
        queue.write_buffer(&buffers.turns, 0, bytemuck::cast_slice(&turns));
        (rows, wanted)
    }

    /// Runs all kernels, and copies what is wanted to where it can be read.
    fn compute(&mut self, rows: usize, wanted: usize) -> Result<(), BackendError> {
        let (status_bytes, logits_bytes) = self.readback_bytes(wanted);
        let size = status_bytes + logits_bytes;
        if self
            .readback
            .as_ref()
            .is_none_or(|buffer| buffer.size() < size)
        {
            let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            self.readback = Some(self.model.gpu.buffer_for(
                "logits on their way back",
                size,
                usage,
            )?);
        }
        let Some(readback) = &self.readback else {
            return Ok(());
        };
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let (gpu, buffers) = (&self.model.gpu, &self.model.buffers);
        let mut encoder = gpu
            .device()
            .create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            for op in self.model.ops(rows, wanted > 0) {
                op.record(&mut pass, number(rows), number(wanted));
            }
        }
        encoder.copy_buffer_to_buffer(&buffers.status, 0, readback, 0, Some(status_bytes));
        if logits_bytes > 0 {
            encoder.copy_buffer_to_buffer(
                &buffers.logits,
                0,
                readback,
                status_bytes,
                Some(logits_bytes),
            );
        }
        gpu.queue().submit([encoder.finish()]);
        Ok(())
    }

    fn readback_bytes(&self, wanted: usize) -> (u64, u64) {
        let logits = wanted * self.model.plan.vocabulary() * size_of::<f32>();
        ((ROWS_MAX * size_of::<u32>()) as u64, logits as u64)
    }

    /// Waits for the step.
    fn read(&self, rows: usize, wanted: usize) -> Result<(Vec<u32>, Vec<f32>), BackendError> {
        let (status_bytes, logits_bytes) = self.readback_bytes(wanted);
        let Some(readback) = &self.readback else {
            return Ok((Vec::new(), Vec::new()));
        };
        let words = self.model.gpu.read(readback, status_bytes + logits_bytes)?;
        let (status, logits) = words.split_at(ROWS_MAX);
        let logits = logits.iter().map(|bits| f32::from_bits(*bits)).collect();
        Ok((status[..rows].to_vec(), logits))
    }
}

/// A sequence on a GPU.
#[derive(Debug)]
struct GpuSequence {
    shared: Arc<Shared>,
    table: Table,
    context_tokens: usize,
    /// [`State::reopened`] when it was opened.
    reopened: u64,
}

impl Sequence for GpuSequence {
    fn run(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        logits: Option<&mut [f32]>,
    ) -> Result<(), BackendError> {
        let mut state = self.shared.lock();
        if state.reopened != self.reopened {
            return Err(lost_before());
        }
        state.pages.extend(&mut self.table, position + tokens.len());
        let number = state.next;
        state.next += 1;
        drop(state);
        let found = self.shared.run(Request {
            number,
            tokens: tokens.to_vec(),
            position,
            pages: self.table.pages().to_vec(),
            wants_logits: logits.is_some(),
            reopened: self.reopened,
        })?;
        if let Some(logits) = logits {
            logits.copy_from_slice(&found);
        }
        Ok(())
    }

    fn fork(&self, positions: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let shared = &self.shared;
        let (mut state, mut runner) = shared.runner();
        if state.reopened != self.reopened {
            shared.give_back(&mut state, runner);
            return Err(lost_before());
        }
        let needed = state
            .pages
            .needed(Pages::fork_needs(self.context_tokens, positions));
        let forked = make_room(shared, &mut state, &mut runner, needed).map(|()| {
            state
                .pages
                .fork(&self.table, self.context_tokens, positions)
        });
        let copied = match forked {
            Err(error) => Err(error),
            Ok((table, None)) => Ok(table),
            Ok((mut table, Some((from, to)))) => match runner.model.copy_page(from, to) {
                Ok(()) => Ok(table),
                Err(error) => {
                    state.pages.close(&mut table);
                    Err(error)
                }
            },
        };
        shared.give_back(&mut state, runner);
        drop(state);
        Ok(Box::new(GpuSequence {
            shared: Arc::clone(shared),
            table: copied?,
            context_tokens: self.context_tokens,
            reopened: self.reopened,
        }))
    }
}

impl Drop for GpuSequence {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.reopened == self.reopened {
            state.pages.close(&mut self.table);
        }
    }
}
