//! What sequences ask for → steps on a device, the same for CPUs and GPUs.
//! In: tokens of many sequences, from many threads. Out: logits, or the likeliest tokens. Whoever asks while the
//! device is free leads a step with what all have asked for, on its own thread, and the others wait; so one
//! sequence alone is handed to nobody. Results do not depend on what else is in a step.
//!
//! ```text
//! sequence ── request ─┐
//! sequence ── request ─┼─ choice ── step ── device
//! sequence ── request ─┘            pages ─ prefixes
//! ```

mod choice;
mod device;
mod memory;
mod pages;
mod prefixes;
mod request;
mod sequence;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendError, Opening, Sequence};
use crate::model::plan::Plan;

use choice::take_step;
pub(crate) use device::{Device, Limits};
pub use memory::ContextMemory;
pub(crate) use memory::Taken;
pub(crate) use pages::PAGE;
use pages::{Pages, Table};
use prefixes::Prefixes;
pub use prefixes::Scope;
pub(crate) use request::{Asked, Request, place, stage};
use sequence::Scheduled;

/// Of the time of the step before, how much a step waits for those who were in that one: they come back with
/// their next tokens at nearly the same time, and a step for one costs nearly what one for all costs.
const WAIT_PART: u32 = 8;
/// And how long at most.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// Memory of pages that no sequence holds any more, kept for sequences that begin equally.
const IDLE_BYTES_MAX: u64 = 256 << 20;

/// A model on a device, shared by its sequences.
#[derive(Debug)]
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    limits: Limits,
    state: Mutex<State>,
    /// The device is free, or requests are done.
    turn: Condvar,
    /// All that a step waits for have asked.
    arrived: Condvar,
}

#[derive(Debug)]
struct State {
    /// Whoever has it runs the steps.
    device: Option<Box<dyn Device>>,
    queue: VecDeque<Request>,
    done: HashMap<u64, Result<Request, BackendError>>,
    pages: Pages,
    prefixes: Prefixes,
    /// Numbers of requests and sequences.
    next: u64,
    /// How often the device was opened again; sequences of before are lost.
    reopened: u64,
    /// Threads that want the device for something else than a step; they go first.
    leases: usize,
    /// Whether such a thread had the last turn: where somebody waits for a step, the next one is a step's.
    leased: bool,
    /// Sequences of the step before that have not asked again.
    awaited: Vec<u64>,
    /// How long that step took, and when it ended.
    before: Option<(Duration, Instant)>,
}

impl Scheduler {
    pub(crate) fn new(device: Box<dyn Device>, plan: Arc<Plan>) -> Self {
        let mut pages = Pages::default();
        pages.grow(device.pages());
        Self {
            shared: Arc::new(Shared {
                plan,
                limits: device.limits(),
                state: Mutex::new(State {
                    device: Some(device),
                    queue: VecDeque::new(),
                    done: HashMap::new(),
                    pages,
                    prefixes: Prefixes::default(),
                    next: 0,
                    reopened: 0,
                    leases: 0,
                    leased: false,
                    awaited: Vec::new(),
                    before: None,
                }),
                turn: Condvar::new(),
                arrived: Condvar::new(),
            }),
        }
    }
}

impl Backend for Scheduler {
    fn open(&self, opening: Opening) -> Result<Box<dyn Sequence>, BackendError> {
        let shared = &self.shared;
        // One row's scores must fit, whatever else is in the step.
        let scores = shared.limits.heads * opening.context_tokens;
        if scores > shared.limits.scores_max {
            return Err(BackendError::OutOfMemory {
                what: "attention scores",
                bytes: 4 * scores as u64,
            });
        }
        let (table, reopened) = shared.lease().open(opening.context_tokens)?;
        Ok(Box::new(Scheduled::new(shared, table, reopened, opening)))
    }

    fn sequence_bytes(&self, context_tokens: usize) -> u64 {
        crate::cpu::exact::sequence_bytes(&self.shared.plan, context_tokens)
    }

    fn batch_tokens_max(&self) -> usize {
        self.shared.limits.request_tokens_max
    }

    fn dispatches_per_token(&self) -> Option<usize> {
        self.shared.limits.dispatches_per_token
    }
}

/// What a sequence of before is told.
fn lost_before() -> BackendError {
    BackendError::DeviceLost {
        reason: "it was opened again since this sequence began".to_owned(),
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether the next turn is a step's, whoever else wants the device.
    fn owes_a_step(&self) -> bool {
        self.leased && !self.queue.is_empty()
    }

    /// Answers requests that no step is to run: of a device that is gone, or cancelled. Whether there were any.
    fn refuse(&mut self) -> bool {
        let reopened = self.reopened;
        let refuse = |request: &Request| {
            if request.reopened != reopened {
                Some(lost_before())
            } else {
                let cancelled = request.cancel.is_cancelled();
                cancelled.then_some(BackendError::Cancelled)
            }
        };
        if self.queue.iter().all(|request| refuse(request).is_none()) {
            return false;
        }
        for request in std::mem::take(&mut self.queue) {
            match refuse(&request) {
                Some(error) => drop(self.done.insert(request.number, Err(error))),
                None => self.queue.push_back(request),
            }
        }
        true
    }

    /// Notes that a sequence has asked again, or will not; whether it was the last one awaited.
    fn came(&mut self, sequence: u64) -> bool {
        match self.awaited.iter().position(|awaited| *awaited == sequence) {
            Some(at) => {
                self.awaited.swap_remove(at);
                self.awaited.is_empty()
            }
            None => false,
        }
    }

    /// Until when the next step waits for those of the step before.
    fn wait_until(&self) -> Option<Instant> {
        let (took, ended) = self.before?;
        (!self.awaited.is_empty()).then(|| ended + (took / WAIT_PART).min(WAIT_MAX))
    }

    /// Opens a device that something went wrong on; sequences of before are lost.
    fn reopen_if_lost(&mut self, device: &mut Box<dyn Device>) -> Result<(), BackendError> {
        let Err(fault) = device.check() else {
            return Ok(());
        };
        device.reopen(fault)?;
        self.pages = Pages::default();
        self.prefixes = Prefixes::default();
        self.pages.grow(device.pages());
        self.reopened += 1;
        Ok(())
    }

    /// Makes the device hold so many pages more than are taken or promised, and by half as much again where that
    /// fits; else those that are kept for nobody go.
    fn make_room(
        &mut self,
        limits: &Limits,
        device: &mut Box<dyn Device>,
        more: usize,
    ) -> Result<(), BackendError> {
        loop {
            let needed = self.pages.needed(more);
            if needed <= self.pages.capacity() {
                return Ok(());
            }
            let pages_max = device.pages_max();
            let grown = grow(limits, device, needed, more);
            self.pages.grow(device.pages());
            let Err(error) = grown else { continue };
            // What must go for these; nothing does where that would not be enough.
            let over = needed.saturating_sub(pages_max);
            if over > self.prefixes.idle(&self.pages) {
                return Err(error);
            }
            let missing = match over {
                0 => needed.saturating_sub(self.pages.capacity()),
                over => over,
            };
            if self.prefixes.evict(&mut self.pages, missing) == 0 {
                return Err(error);
            }
        }
    }

    /// Lets go of pages that are kept for nobody, or too many, and of the memory of all where none is left.
    fn let_go(&mut self, limits: &Limits) {
        let idle_max = IDLE_BYTES_MAX / limits.page_bytes.max(1);
        let idle_max = usize::try_from(idle_max).unwrap_or(usize::MAX);
        self.prefixes.trim(&mut self.pages, idle_max);
        if self.pages.unused()
            && let Some(device) = &mut self.device
        {
            device.release();
            self.pages = Pages::default();
            self.pages.grow(device.pages());
        }
    }
}

/// Makes the device hold so many pages, `more` of which are for somebody new.
fn grow(
    limits: &Limits,
    device: &mut Box<dyn Device>,
    needed: usize,
    more: usize,
) -> Result<(), BackendError> {
    let pages_max = device.pages_max();
    if needed > pages_max {
        let bytes = |pages: usize| (pages as u64).saturating_mul(limits.page_bytes);
        return Err(BackendError::NoRoom {
            wanted_bytes: bytes(more),
            taken_bytes: bytes(needed - more),
            bytes_max: bytes(pages_max),
        });
    }
    let ample = (needed + needed / 2).min(pages_max);
    device.grow(ample).or_else(|_| device.grow(needed))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.turn.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The state and the device, once nobody else has it.
    fn lease(&self) -> Lease<'_> {
        let mut state = self.lock();
        state.leases += 1;
        loop {
            if !state.owes_a_step()
                && let Some(device) = state.device.take()
            {
                state.leases -= 1;
                state.leased = true;
                return Lease {
                    shared: self,
                    state,
                    device: Some(device),
                };
            }
            state = self.wait(state);
        }
    }

    fn give_back(&self, state: &mut State, device: Box<dyn Device>) {
        state.device = Some(device);
        self.turn.notify_all();
    }

    /// Runs a request, in as many steps as it takes.
    fn run<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        request: Request,
    ) -> Result<Request, BackendError> {
        let number = request.number;
        if state.came(request.sequence) {
            self.arrived.notify_all();
        }
        state.queue.push_back(request);
        // Before the state, so that a panic lets go of that first.
        let waiting = Waiting {
            shared: self,
            number,
        };
        let mut state = state;
        loop {
            if let Some(done) = state.done.remove(&number) {
                drop(state);
                std::mem::forget(waiting);
                return done;
            }
            let device = match state.leases == 0 || state.owes_a_step() {
                true => state.device.take(),
                false => None,
            };
            let Some(device) = device else {
                state = self.wait(state);
                continue;
            };
            state = self.lead(state, device);
        }
    }

    /// Runs a step of what all have asked for.
    fn lead<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        device: Box<dyn Device>,
    ) -> MutexGuard<'a, State> {
        let mut lead = Lead {
            shared: self,
            device: Some(device),
            step: Vec::new(),
            result: None,
            began: Instant::now(),
        };
        // Behind it, so that a panic lets go of the state before the device is given back.
        let mut state = state;
        while let Some(until) = state.wait_until()
            && let Some(rest) = until.checked_duration_since(lead.began)
        {
            let waited = self.arrived.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            lead.began = Instant::now();
        }
        if state.refuse() {
            self.turn.notify_all();
        }
        lead.step = take_step(&mut state.queue, &self.limits);
        state.leased = false;
        drop(state);
        if let Some(device) = &mut lead.device {
            lead.result = Some(match lead.step.is_empty() {
                true => Ok(()),
                false => device.step(&mut lead.step),
            });
        }
        drop(lead);
        self.lock()
    }
}

/// A request whose owner waits for it: where that panics, nobody runs it over pages that are no longer its own.
struct Waiting<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.queue.retain(|request| request.number != self.number);
        state.done.remove(&self.number);
        // Nobody may be owed a step any more.
        self.shared.turn.notify_all();
    }
}

/// The state and the device between steps; whatever happens, the device is given back.
struct Lease<'a> {
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    device: Option<Box<dyn Device>>,
}

impl Lease<'_> {
    /// A table for a sequence of so many positions, and how often the device was opened again.
    fn open(&mut self, context_tokens: usize) -> Result<(Table, u64), BackendError> {
        let (state, Some(device)) = (&mut *self.state, &mut self.device) else {
            return Err(lost_before());
        };
        state.reopen_if_lost(device)?;
        let pages = context_tokens.div_ceil(PAGE);
        state.make_room(&self.shared.limits, device, pages)?;
        Ok((state.pages.open(context_tokens), state.reopened))
    }

    /// A table that shares the full pages of a sequence before a position.
    fn fork(&mut self, of: &Scheduled, positions: usize) -> Result<Table, BackendError> {
        let (state, Some(device)) = (&mut *self.state, &mut self.device) else {
            return Err(lost_before());
        };
        if state.reopened != of.reopened() {
            return Err(lost_before());
        }
        let pages = Pages::fork_needs(of.context_tokens(), positions);
        state.make_room(&self.shared.limits, device, pages)?;
        let (mut table, copy) = state.pages.fork(of.table(), of.context_tokens(), positions);
        if let Some((from, to)) = copy
            && let Err(error) = device.copy_page(from, to)
        {
            state.pages.close(&mut table);
            return Err(error);
        }
        Ok(table)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            self.shared.give_back(&mut self.state, device);
        }
    }
}

/// Whoever runs a step; whatever happens, the device is given back and everybody answered.
struct Lead<'a> {
    shared: &'a Shared,
    device: Option<Box<dyn Device>>,
    step: Vec<Request>,
    /// `None` until the device has said.
    result: Option<Result<(), BackendError>>,
    began: Instant,
}

impl Lead<'_> {
    /// What everybody is told where the device has said nothing.
    fn given_up(&self) -> BackendError {
        match self.device.as_ref().map(|device| device.check()) {
            Some(Err(fault)) => fault,
            _ => BackendError::Device {
                reason: "the step was given up half done".to_owned(),
            },
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(self.given_up()));
        let layers = self.shared.plan.layers.len();
        let ended = Instant::now();
        let mut state = self.shared.lock();
        state.awaited.clear();
        if !self.step.is_empty() {
            state.before = Some((ended - self.began, ended));
        }
        for mut request in self.step.drain(..) {
            request.ran += std::mem::take(&mut request.part);
            match &result {
                Err(error) => {
                    let error = Err(error.clone());
                    drop(state.done.insert(request.number, error));
                }
                // Who got a piece goes behind all others. One that is not finite is run to its end, so that
                // the error does not depend on the pieces.
                Ok(()) if request.left() > 0 => state.queue.push_back(request),
                Ok(()) => {
                    state.awaited.push(request.sequence);
                    let number = request.number;
                    drop(state.done.insert(number, request.outcome(layers)));
                }
            }
        }
        if let Some(device) = self.device.take() {
            self.shared.give_back(&mut state, device);
        }
    }
}
