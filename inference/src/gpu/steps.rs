//! What sequences ask for → batches on the device.
//! In: tokens of many sequences, from many threads. Out: logits, or the likeliest tokens. Whoever asks while the device is free runs
//! what all have asked for as one batch, and the others wait; a step takes single tokens before prompts, so
//! that a long prompt does not hold up those who generate. Results do not depend on what else is in a batch.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{Backend, BackendError, Ranked, Sequence};
use crate::gguf::Gguf;
use crate::model::plan::Plan;
use crate::model::{LoadProgress, ModelError};
use crate::tokenizer::TokenId;

use super::best::BEST;
use super::device::Gpu;
use super::kernels::{Profile, ROWS_MAX};
use super::model::{Model, PAGES_MAX, Wants};
use super::pages::{PAGE, Pages, Table};
use super::runner::{Asked, Done, Request, Runner};

/// Steps that a prompt lets others go before it.
const PASSED_OVER_MAX: u32 = 4;
/// Tokens of one prompt in one step: half a batch, so that others fit beside it.
const PROMPT_ROWS: usize = ROWS_MAX / 2;

/// A model on a GPU.
#[derive(Debug)]
pub(crate) struct GpuDecoder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    dispatches_per_token: usize,
    pages_max: usize,
    /// Rows that may want logits in one step.
    wanted_max: usize,
    /// Scores that a step has room for: rows times heads times the positions that the last row sees.
    scores_max: usize,
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Debug)]
struct State {
    /// Whoever has it runs the steps.
    runner: Option<Runner>,
    queue: VecDeque<Request>,
    done: HashMap<u64, Result<Done, BackendError>>,
    pages: Pages,
    next: u64,
    /// How often the device was opened again; sequences of before are lost.
    reopened: u64,
}

impl GpuDecoder {
    pub(crate) fn load(
        gpu: &Arc<Gpu>,
        exact: bool,
        gguf: Arc<Gguf>,
        plan: Arc<Plan>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        let gpu = gpu.healthy()?;
        let profile = match exact {
            true => Profile::exact(&gpu),
            false => Profile::Fast,
        };
        let model = Model::load(&gpu, profile, &gguf, &plan, progress)?;
        model.gpu.keep_pipelines();
        let mut pages = Pages::default();
        pages.grow(1);
        let shared = Shared {
            dispatches_per_token: {
                let wants = Wants {
                    head: true,
                    best: true,
                };
                model.ops(1, wants).count()
            },
            pages_max: model.pages_max(),
            wanted_max: model.buffers.wanted_max,
            scores_max: model.buffers.scores_max,
            state: Mutex::new(State {
                runner: Some(Runner::new(model, gguf)),
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

impl Backend for GpuDecoder {
    fn open(&self, context_tokens: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let shared = &self.shared;
        // One row's scores must fit, whatever else is in the step.
        if shared.plan.heads * context_tokens > shared.scores_max {
            return Err(BackendError::OutOfMemory {
                what: "scores on the GPU",
                bytes: 4 * (shared.plan.heads * context_tokens) as u64,
            });
        }
        let (table, reopened) = shared.lease().open(context_tokens)?;
        Ok(Box::new(GpuSequence {
            shared: Arc::clone(shared),
            table,
            context_tokens,
            reopened,
            time: Some(Duration::ZERO),
        }))
    }

    fn sequence_bytes(&self, context_tokens: usize) -> u64 {
        crate::cpu::exact::sequence_bytes(&self.shared.plan, context_tokens)
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
    let gpu = runner.model.gpu.healthy()?;
    let plan = Arc::clone(&runner.model.plan);
    let profile = runner.model.profile().on(&gpu);
    let model = Model::load(&gpu, profile, &runner.gguf, &plan, &mut |_| {});
    runner.replace(model.map_err(|error| BackendError::DeviceLost {
        reason: format!("{fault}; loading the model again: {error}"),
    })?);
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
    fn lease(&self) -> Lease<'_> {
        let mut state = self.lock();
        loop {
            if let Some(runner) = state.runner.take() {
                return Lease {
                    shared: self,
                    state,
                    runner: Some(runner),
                };
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
    fn run(&self, request: Request) -> Result<Done, BackendError> {
        let number = request.number;
        let mut state = self.lock();
        state.queue.push_back(request);
        loop {
            if let Some(done) = state.done.remove(&number) {
                return done;
            }
            let Some(runner) = state.runner.take() else {
                state = self
                    .turn
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.refuse_lost();
            let step = take_step(&mut state.queue, &runner.model);
            drop(state);
            let mut lead = Lead {
                shared: self,
                runner: Some(runner),
                step,
                results: Vec::new(),
            };
            if let Some(runner) = &mut lead.runner {
                lead.results = runner.step(&lead.step);
            }
            drop(lead);
            state = self.lock();
        }
    }
}

/// The state and the device between steps; whatever happens, the device is given back.
struct Lease<'a> {
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    runner: Option<Runner>,
}

impl Lease<'_> {
    /// A table for a sequence of so many positions, and how often the device was opened again.
    fn open(&mut self, context_tokens: usize) -> Result<(Table, u64), BackendError> {
        let (state, Some(runner)) = (&mut *self.state, &mut self.runner) else {
            return Err(lost_before());
        };
        reopen_if_lost(state, runner)?;
        let needed = state.pages.needed(context_tokens.div_ceil(PAGE));
        make_room(self.shared, state, runner, needed)?;
        Ok((state.pages.open(context_tokens), state.reopened))
    }

    /// A table that shares the full pages of a sequence before a position.
    fn fork(&mut self, of: &GpuSequence, positions: usize) -> Result<Table, BackendError> {
        let (state, Some(runner)) = (&mut *self.state, &mut self.runner) else {
            return Err(lost_before());
        };
        if state.reopened != of.reopened {
            return Err(lost_before());
        }
        let more = Pages::fork_needs(of.context_tokens, positions);
        let needed = state.pages.needed(more);
        make_room(self.shared, state, runner, needed)?;
        let (mut table, copy) = state.pages.fork(&of.table, of.context_tokens, positions);
        if let Some((from, to)) = copy
            && let Err(error) = runner.model.copy_page(from, to)
        {
            state.pages.close(&mut table);
            return Err(error);
        }
        Ok(table)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(runner) = self.runner.take() {
            self.shared.give_back(&mut self.state, runner);
        }
    }
}

/// Whoever runs a step; whatever happens, the device is given back and everybody answered.
struct Lead<'a> {
    shared: &'a Shared,
    runner: Option<Runner>,
    step: Vec<Request>,
    results: Vec<Result<Done, BackendError>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let fault = self.runner.as_ref().map(|runner| runner.model.gpu.check());
        let given_up = match fault {
            Some(Err(fault)) => fault,
            _ => BackendError::Device {
                reason: "the step was given up half done".to_owned(),
            },
        };
        let mut results = self.results.drain(..);
        for request in &self.step {
            let result = results.next().unwrap_or_else(|| Err(given_up.clone()));
            state.done.insert(request.number, result);
        }
        if let Some(runner) = self.runner.take() {
            self.shared.give_back(&mut state, runner);
        }
    }
}

/// The requests of the next step: those of one token first, then prompts, but for who was passed over too
/// often, while rows, page numbers, scores
/// and logits have room.
fn take_step(queue: &mut VecDeque<Request>, model: &Model) -> Vec<Request> {
    let mut order: Vec<_> = queue.drain(..).collect();
    // A stable order: among those of one kind whoever asked first goes first.
    order.sort_by_key(|request| match request.passed_over >= PASSED_OVER_MAX {
        true => 0,
        false => 1 + usize::from(request.tokens.len() > 1),
    });
    let (mut rows, mut pages, mut wanted, mut sees) = (0, 0, 0, 0);
    let mut step = Vec::new();
    let mut first = true;
    for mut request in order {
        let after = (
            rows + request.tokens.len(),
            pages + request.pages.len(),
            wanted + request.asked.rows(),
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
            request.passed_over += 1;
            queue.push_back(request);
        }
    }
    step
}

/// A sequence on a GPU.
#[derive(Debug)]
struct GpuSequence {
    shared: Arc<Shared>,
    table: Table,
    context_tokens: usize,
    /// [`State::reopened`] when it was opened.
    reopened: u64,
    /// Of its steps on the device; `None` once one is not known.
    time: Option<Duration>,
}

impl Sequence for GpuSequence {
    fn run(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        logits: Option<&mut [f32]>,
    ) -> Result<(), BackendError> {
        let shared = Arc::clone(&self.shared);
        let vocabulary = shared.plan.vocabulary();
        let mut logits = logits.unwrap_or_default();
        // Tokens before the first one that wants logits.
        let mut unwanted = tokens.len() - logits.len() / vocabulary;
        let (mut rest, mut position) = (tokens, position);
        while !rest.is_empty() {
            // So many rows that the scores of all of them have room, and the logits of those that want them.
            let seen = shared.plan.heads * (position + rest.len());
            let rows = (shared.scores_max / seen).clamp(1, rest.len());
            let rows = rows.min(unwanted + shared.wanted_max);
            let wanted = rows.saturating_sub(unwanted);
            let (now, later) = rest.split_at(rows);
            // Not known if the step fails.
            let before = self.time.take();
            let done = self.part(now, position, Asked::Logits { rows: wanted })?;
            self.time = before.zip(done.time).map(|(before, step)| before + step);
            let (out, others) = logits.split_at_mut(wanted * vocabulary);
            out.copy_from_slice(&done.logits);
            logits = others;
            unwanted -= rows - wanted;
            position += rows;
            rest = later;
        }
        Ok(())
    }

    fn fork(&self, positions: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let shared = &self.shared;
        let table = shared.lease().fork(self, positions)?;
        Ok(Box::new(Self {
            shared: Arc::clone(shared),
            table,
            context_tokens: self.context_tokens,
            reopened: self.reopened,
            time: Some(Duration::ZERO),
        }))
    }

    fn gpu_time(&self) -> Option<Duration> {
        self.time
    }

    fn ranked(&mut self) -> Option<&mut dyn Ranked> {
        Some(self)
    }
}

impl Ranked for GpuSequence {
    fn best_max(&self) -> usize {
        BEST
    }

    fn run_ranked(
        &mut self,
        tokens: &[TokenId],
        position: usize,
    ) -> Result<Vec<u64>, BackendError> {
        let (rest, last) = tokens.split_at(tokens.len().saturating_sub(1));
        let shared = Arc::clone(&self.shared);
        // All in one step where their scores have room.
        let seen = shared.plan.heads * (position + tokens.len());
        let (before, now, at) = match tokens.len() <= shared.scores_max / seen {
            true => (&tokens[..0], tokens, position),
            false => (rest, last, position + rest.len()),
        };
        if !before.is_empty() {
            self.run(before, position, None)?;
        }
        let time = self.time.take();
        let done = self.part(now, at, Asked::Best)?;
        self.time = time.zip(done.time).map(|(before, step)| before + step);
        Ok(done.best)
    }
}

impl GpuSequence {
    /// Runs tokens whose scores have room.
    fn part(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        asked: Asked,
    ) -> Result<Done, BackendError> {
        let mut state = self.shared.lock();
        if state.reopened != self.reopened {
            return Err(lost_before());
        }
        state.pages.extend(&mut self.table, position + tokens.len());
        let number = state.next;
        state.next += 1;
        drop(state);
        self.shared.run(Request {
            number,
            tokens: tokens.to_vec(),
            position,
            pages: self.table.pages().to_vec(),
            asked,
            reopened: self.reopened,
            passed_over: 0,
        })
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
