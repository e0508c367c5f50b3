//! One batch, from tokens to logits.
//! In: requests that fit a step together. Out: each one's logits or likeliest tokens, or what was not finite
//! at which position.
//! It decides nothing of who goes first.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wgpu::{Buffer, BufferUsages, CommandEncoderDescriptor, ComputePassDescriptor};

use crate::arithmetic::{NOT_FINITE, magnitude_bits};
use crate::backend::BackendError;
use crate::exact::{Angles, embed};
use crate::gguf::Gguf;
use crate::scheduler::{Asked, Request, place, stage};

use super::best::{BEST, WORDS, keys};
use super::clock::{Clock, TIMES_BYTES, TIMES_WORDS, shares};
use super::kernels::{PAGES_AT, ROWS_AT, ROWS_MAX, WANTED_AT};
use super::model::{Model, Wants};

/// The status of a row that nothing went wrong at.
const FINE: u32 = u32::MAX;

/// What all requests of a step ask for together.
#[derive(Debug, Clone, Copy, Default)]
struct Asks {
    /// Rows that want logits computed.
    wanted: usize,
    /// Of those, rows whose logits come back.
    scored: usize,
    /// Whether the likeliest tokens of any come back; those of all are found then.
    best: bool,
}

impl Asks {
    fn of(requests: &[Request]) -> Self {
        requests.iter().fold(Self::default(), |asks, request| {
            let (rows, best) = (request.asked().rows(), request.asked() == Asked::Best);
            Self {
                wanted: asks.wanted + rows,
                scored: asks.scored + if best { 0 } else { rows },
                best: asks.best || best,
            }
        })
    }
}

/// What a step left where it can be read.
struct Read {
    status: Vec<u32>,
    time: Option<Duration>,
    /// Of all rows that want logits, where any wants them ordered.
    best: Vec<u32>,
    /// Of the rows that want them all.
    logits: Vec<f32>,
}

/// Where what is read back lies: the status, then the times, then the likeliest tokens, then logits.
struct Readback {
    status_bytes: u64,
    times_bytes: u64,
    best_bytes: u64,
    logits_bytes: u64,
}

impl Readback {
    fn best_at(&self) -> u64 {
        self.status_bytes + self.times_bytes
    }

    fn logits_at(&self) -> u64 {
        self.best_at() + self.best_bytes
    }

    fn bytes(&self) -> u64 {
        self.logits_at() + self.logits_bytes
    }
}

/// The device's side.
pub(super) struct Runner {
    pub(super) model: Model,
    pub(super) gguf: Arc<Gguf>,
    angles: Angles,
    readback: Option<Buffer>,
    /// Made with the first step, where the device has one.
    clock: Option<Option<Clock>>,
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

impl Runner {
    pub(super) fn new(model: Model, gguf: Arc<Gguf>) -> Self {
        Self {
            angles: Angles::of(&model.plan),
            model,
            gguf,
            readback: None,
            clock: None,
            batch: Vec::new(),
            states: Vec::new(),
            turns: Vec::new(),
        }
    }

    /// Goes on with a model that was loaded again.
    pub(super) fn replace(&mut self, model: Model) {
        self.model = model;
        self.readback = None;
        self.clock = None;
    }

    /// Runs one step; an error is everybody's.
    pub(super) fn run(&mut self, requests: &mut [Request]) -> Result<(), BackendError> {
        let asks = Asks::of(requests);
        let rows = self.upload(requests);
        self.model.gpu.check()?;
        self.compute(rows, asks, requests)?;
        let vocabulary = self.model.plan.vocabulary();
        let layers = self.model.plan.layers.len();
        let read = self.read(rows, asks)?;
        let counts: Vec<_> = requests.iter().map(|it| it.tokens().len()).collect();
        let mut times = read.time.map(|time| shares(time, &counts).into_iter());
        let (mut row, mut logits) = (0, &read.logits[..]);
        let mut best = read.best.chunks_exact(BEST * WORDS);
        for (request, count) in requests.iter_mut().zip(counts) {
            request.add_time(times.as_mut().and_then(Iterator::next));
            let wrong = read.status[row..row + count]
                .iter()
                .zip(request.position()..)
                .filter(|(status, _)| **status != FINE)
                .min();
            row += count;
            if let Some((stage, position)) = wrong {
                request.note_wrong(*stage, position);
            }
            let found = best.by_ref().take(request.asked().rows()).last();
            let scored = match request.asked() {
                Asked::Logits { rows } => rows,
                Asked::Best => {
                    request.best = found.map_or_else(Vec::new, keys);
                    0
                }
            };
            let (values, others) = logits.split_at(scored * vocabulary);
            logits = others;
            let not_finite = values
                .chunks_exact(vocabulary)
                .position(|row| magnitude_bits(row) >= NOT_FINITE);
            if let Some(of_wanted) = not_finite {
                let at = request.sees() - scored + of_wanted;
                request.note_wrong(stage(layers, place::LOGITS), at);
            }
            request.logits_mut(vocabulary).copy_from_slice(values);
        }
        Ok(())
    }

    /// Sends the batch, the embeddings and the angles; says how many rows there are.
    fn upload(&mut self, requests: &[Request]) -> usize {
        let plan = &self.model.plan;
        let length = plan.embedding_length;
        let turns = plan.ropes.len() * plan.rope_dimensions / 2;
        let rows: usize = requests.iter().map(|request| request.tokens().len()).sum();
        let pages: usize = requests.iter().map(|request| request.pages.len()).sum();
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        self.batch.clear();
        self.batch.resize(PAGES_AT + pages, 0);
        self.states.resize(rows * length, 0.0);
        self.turns.resize(rows * turns, (0.0, 0.0));
        let (mut row, mut page, mut wanted, mut sees) = (0, 0, 0, 0);
        for request in requests {
            for (token, position) in request.tokens().iter().zip(request.position()..) {
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
            for of_wanted in row - request.asked().rows()..row {
                self.batch[WANTED_AT + wanted] = number(of_wanted);
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
        rows
    }

    /// Runs all kernels, and copies what is wanted to where it can be read.
    fn compute(
        &mut self,
        rows: usize,
        asks: Asks,
        requests: &[Request],
    ) -> Result<(), BackendError> {
        let clock = match self.clock.take() {
            Some(clock) => clock,
            None => Clock::of(&self.model.gpu)?,
        };
        self.clock = Some(clock);
        let back = self.back(asks);
        let size = back.bytes();
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
        let clock = self.clock.as_ref().and_then(Option::as_ref);
        let (gpu, buffers) = (&self.model.gpu, &self.model.buffers);
        let mut encoder = gpu
            .device()
            .create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor {
                label: None,
                timestamp_writes: clock.map(Clock::writes),
            });
            let wants = Wants {
                head: asks.wanted > 0,
                best: asks.best,
            };
            for op in self.model.ops(rows, wants) {
                op.record(&mut pass, number(rows), number(asks.wanted));
            }
        }
        let status_bytes = back.status_bytes;
        encoder.copy_buffer_to_buffer(&buffers.status, 0, readback, 0, Some(status_bytes));
        if let Some(clock) = clock {
            clock.copy(&mut encoder, readback, status_bytes);
        }
        if asks.best {
            let (found, at) = (&self.model.best.found, back.best_at());
            encoder.copy_buffer_to_buffer(found, 0, readback, at, Some(back.best_bytes));
        }
        let of_row = (self.model.plan.vocabulary() * size_of::<f32>()) as u64;
        let (mut from, mut to) = (0, back.logits_at());
        for request in requests {
            let bytes = request.asked().rows() as u64 * of_row;
            if request.asked() != Asked::Best && bytes > 0 {
                encoder.copy_buffer_to_buffer(&buffers.logits, from, readback, to, Some(bytes));
                to += bytes;
            }
            from += bytes;
        }
        gpu.queue().submit([encoder.finish()]);
        Ok(())
    }

    fn back(&self, asks: Asks) -> Readback {
        let logits = asks.scored * self.model.plan.vocabulary() * size_of::<f32>();
        let best = match asks.best {
            true => asks.wanted * BEST * WORDS * size_of::<u32>(),
            false => 0,
        };
        Readback {
            status_bytes: (ROWS_MAX * size_of::<u32>()) as u64,
            times_bytes: TIMES_BYTES,
            best_bytes: best as u64,
            logits_bytes: logits as u64,
        }
    }

    /// Waits for the step.
    fn read(&self, rows: usize, asks: Asks) -> Result<Read, BackendError> {
        let Some(readback) = &self.readback else {
            return Ok(Read {
                status: Vec::new(),
                time: None,
                best: Vec::new(),
                logits: Vec::new(),
            });
        };
        let back = self.back(asks);
        let words = self.model.gpu.read(readback, back.bytes())?;
        let (status, rest) = words.split_at(ROWS_MAX);
        let (times, rest) = rest.split_at(TIMES_WORDS);
        let best_words = if asks.best {
            asks.wanted * BEST * WORDS
        } else {
            0
        };
        let (best, logits) = rest.split_at(best_words);
        let clock = self.clock.as_ref().and_then(Option::as_ref);
        Ok(Read {
            status: status[..rows].to_vec(),
            time: clock.and_then(|clock| clock.time(times)),
            best: best.to_vec(),
            logits: logits.iter().map(|bits| f32::from_bits(*bits)).collect(),
        })
    }
}
