//! One batch, from tokens to logits.
//! In: requests that fit a step together. Out: each one's logits, or what was not finite at which position.
//! It decides nothing of who goes first.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wgpu::{Buffer, BufferUsages, CommandEncoderDescriptor, ComputePassDescriptor};

use crate::arithmetic::{NOT_FINITE, magnitude_bits};
use crate::backend::BackendError;
use crate::exact::{Angles, embed};
use crate::gguf::Gguf;
use crate::tokenizer::TokenId;

use super::clock::{Clock, TIMES_BYTES, TIMES_WORDS, shares};
use super::kernels::{PAGES_AT, ROWS_AT, ROWS_MAX, WANTED_AT};
use super::model::{Model, stage_name};

/// The status of a row that nothing went wrong at.
const FINE: u32 = u32::MAX;

/// Tokens of one sequence for one step.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) tokens: Vec<TokenId>,
    pub(super) position: usize,
    pub(super) pages: Vec<u32>,
    /// How many of the last tokens want logits.
    pub(super) wanted: usize,
    /// How often the device had been opened again when its sequence was opened.
    pub(super) reopened: u64,
    /// Steps that it did not fit beside others.
    pub(super) passed_over: u32,
}

impl Request {
    /// Positions that its last row sees.
    pub(super) fn sees(&self) -> usize {
        self.position + self.tokens.len()
    }
}

/// What a request's part of a step came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    /// Empty where none were wanted.
    pub(super) logits: Vec<f32>,
    /// Its share of the step's time, by its rows; `None` where the device counts none.
    pub(super) time: Option<Duration>,
}

/// What a step left where it can be read.
struct Read {
    status: Vec<u32>,
    time: Option<Duration>,
    logits: Vec<f32>,
}

/// Where what is read back lies: the status, then the times, then the logits.
struct Readback {
    status_bytes: u64,
    times_bytes: u64,
    logits_bytes: u64,
}

impl Readback {
    fn bytes(&self) -> u64 {
        self.status_bytes + self.times_bytes + self.logits_bytes
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

    /// Runs one step; an error of the device is everybody's.
    pub(super) fn step(&mut self, requests: &[Request]) -> Vec<Result<Done, BackendError>> {
        match self.try_step(requests) {
            Ok(results) => results,
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn try_step(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Done, BackendError>>, BackendError> {
        let (rows, wanted) = self.upload(requests);
        self.model.gpu.check()?;
        self.compute(rows, wanted)?;
        let vocabulary = self.model.plan.vocabulary();
        let layers = self.model.plan.layers.len();
        let read = self.read(rows, wanted)?;
        let counts: Vec<_> = requests.iter().map(|it| it.tokens.len()).collect();
        let mut times = read.time.map(|time| shares(time, &counts).into_iter());
        let mut results = Vec::new();
        let (mut row, mut logits) = (0, &read.logits[..]);
        for request in requests {
            let time = times.as_mut().and_then(Iterator::next);
            let count = request.tokens.len();
            let wrong = read.status[row..row + count]
                .iter()
                .zip(request.position..)
                .filter(|(status, _)| **status != FINE)
                .min();
            row += count;
            let (values, others) = logits.split_at(request.wanted * vocabulary);
            logits = others;
            let not_finite = values
                .chunks_exact(vocabulary)
                .position(|row| magnitude_bits(row) >= NOT_FINITE);
            results.push(match wrong {
                Some((stage, position)) => Err(BackendError::NotFinite {
                    what: stage_name(*stage, layers),
                    position,
                }),
                None => match not_finite {
                    Some(of_wanted) => Err(BackendError::NotFinite {
                        what: "a logit".to_owned(),
                        position: request.sees() - request.wanted + of_wanted,
                    }),
                    None => Ok(Done {
                        logits: values.to_vec(),
                        time,
                    }),
                },
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
            for of_wanted in row - request.wanted..row {
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
        (rows, wanted)
    }

    /// Runs all kernels, and copies what is wanted to where it can be read.
    fn compute(&mut self, rows: usize, wanted: usize) -> Result<(), BackendError> {
        let clock = match self.clock.take() {
            Some(clock) => clock,
            None => Clock::of(&self.model.gpu)?,
        };
        self.clock = Some(clock);
        let back = self.back(wanted);
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
            for op in self.model.ops(rows, wanted > 0) {
                op.record(&mut pass, number(rows), number(wanted));
            }
        }
        let Readback {
            status_bytes,
            times_bytes,
            logits_bytes,
        } = back;
        encoder.copy_buffer_to_buffer(&buffers.status, 0, readback, 0, Some(status_bytes));
        if let Some(clock) = clock {
            clock.copy(&mut encoder, readback, status_bytes);
        }
        if logits_bytes > 0 {
            let at = status_bytes + times_bytes;
            let bytes = Some(logits_bytes);
            encoder.copy_buffer_to_buffer(&buffers.logits, 0, readback, at, bytes);
        }
        gpu.queue().submit([encoder.finish()]);
        Ok(())
    }

    fn back(&self, wanted: usize) -> Readback {
        let logits = wanted * self.model.plan.vocabulary() * size_of::<f32>();
        Readback {
            status_bytes: (ROWS_MAX * size_of::<u32>()) as u64,
            times_bytes: TIMES_BYTES,
            logits_bytes: logits as u64,
        }
    }

    /// Waits for the step.
    fn read(&self, rows: usize, wanted: usize) -> Result<Read, BackendError> {
        let Some(readback) = &self.readback else {
            return Ok(Read {
                status: Vec::new(),
                time: None,
                logits: Vec::new(),
            });
        };
        let words = self.model.gpu.read(readback, self.back(wanted).bytes())?;
        let (status, rest) = words.split_at(ROWS_MAX);
        let (times, logits) = rest.split_at(TIMES_WORDS);
        let clock = self.clock.as_ref().and_then(Option::as_ref);
        Ok(Read {
            status: status[..rows].to_vec(),
            time: clock.and_then(|clock| clock.time(times)),
            logits: logits.iter().map(|bits| f32::from_bits(*bits)).collect(),
        })
    }
}
