//! The gateway's end of the connection to a worker.
//!
//! In: a socket behind which a worker is. Out: runs, until it is gone. What it says is a
//! stranger's word: a module may have taken it over. Its numbers, sizes and documents are checked,
//! and one that breaks the rules loses its connection. A run that a lost worker had started ends
//! with an account that says so; one that it had not started waits again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::mpsc;
use tussah_manifest::{Digest, Document as _, EncodingError, Evidence, Profile};

use super::ending::Unsigned;
use super::preparing::GIVEN_UP_MAX;
use super::supervise::Clock;
use super::{AboutToEnd, Gateway, Live, Progress, State, now_unix_ms};
use crate::ledger::Ending;
use crate::queue::Waiting;
use crate::wire::{
    Content, FrameReader, FrameWriter, FromWorker, Hello, Ready, RunDone, RunRequest, ToWorker,
    WhoseFault, WireError,
};

/// The most bytes of a progress note that is passed on.
const NOTE_BYTES_MAX: usize = 1024;
/// The most bytes of what it says of a run that failed.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How long a worker may take to open its device and say that it is ready.
const READY_TIME_MAX: Duration = Duration::from_secs(300);
/// Workers that may die before they have started a job, before it is given up.
const LOST_MAX: usize = 2;

/// Why a worker's connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It was not ready in time.
    #[error("the worker was not ready after {} seconds", READY_TIME_MAX.as_secs())]
    NotReady,
    /// There is one already.
    #[error("there is a worker already")]
    Second,
    /// The connection.
    #[error("the connection to the worker failed")]
    Wire(#[from] WireError),
    /// It closed the connection.
    #[error("the worker ended with {runs} runs under way")]
    Ended {
        /// How many there were.
        runs: usize,
    },
    /// It broke the rules.
    #[error("the worker broke the rules: {0}")]
    Rules(String),
    /// It left questions unanswered.
    #[error("the worker has not answered for {:.0} seconds", time.as_secs_f64())]
    Silent {
        /// For how long.
        time: Duration,
    },
    /// A run went on past its time, and past being told to end.
    #[error("the worker does not end the run of job {job}, whose time is over")]
    Stuck {
        /// Of which job.
        job: Digest,
    },
    /// Too many runs never began.
    #[error("the worker is still at {runs} runs that never began")]
    Busy {
        /// How many.
        runs: usize,
    },
    /// The provider shuts down, and does not wait any longer.
    #[error("the worker was ended with the provider")]
    GivenUp,
    /// Its own description is none.
    #[error("the worker's description of itself is none")]
    Description(#[from] EncodingError),
}

impl WorkerError {
    /// What became of the worker, for the clients whose jobs it ran.
    fn in_receipts(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "did not answer any more, and was ended",
            Self::Stuck { .. } | Self::Busy { .. } => "was ended, since another job hung",
            Self::GivenUp => "was ended before the job had: the provider shut down",
            _ => "ended",
        }
    }

    /// Whether any job that it had may have been the reason.
    fn may_be_of_any_job(&self) -> bool {
        !matches!(self, Self::Stuck { .. } | Self::Busy { .. } | Self::GivenUp)
    }
}

/// How the rest of the gateway reaches the worker. Its queue holds a message for each run and each
/// cancellation, and runs are bounded.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) ready: Arc<Ready>,
    sender: mpsc::UnboundedSender<ToWorker>,
    /// Questions since its last answer.
    pub(super) unanswered: u32,
}

impl Handle {
    // A worker that is gone ends its runs on its own way.
    pub(super) fn say(&self, message: ToWorker) {
        let _ = self.sender.send(message);
    }

    pub(super) fn cancel(&self, run: u64) {
        self.say(ToWorker::Cancel { run });
    }

    pub(super) fn drain(&self) {
        self.say(ToWorker::Drain);
    }
}

/// A run that the worker was given.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) live: Arc<Live>,
    log: Vec<u8>,
    pub(super) since: Instant,
    pub(super) clock: Clock,
    /// It does not end though its time is over.
    pub(super) is_stuck: bool,
}

impl Gateway {
    /// Has jobs run by the worker behind this socket, until it is gone. There is one at a time;
    /// after it another may come.
    ///
    /// # Errors
    /// [`WorkerError`] says how it ended; `Ok` if it was drained.
    pub async fn attach_worker<S>(&self, stream: S) -> Result<(), WorkerError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let mut reader = FrameReader::<_, FromWorker>::new(BufReader::new(read));
        let mut writer = FrameWriter::new(write);
        // Runs that were given up hold their places in the worker for a while.
        let runs_max = self.inner.config.queue.running_max + GIVEN_UP_MAX;
        let hello = Hello {
            cache_key: self.inner.config.cache_key.clone(),
            runs_max: u32::try_from(runs_max).unwrap_or(u32::MAX),
        };
        writer.write(&ToWorker::Hello(hello)).await?;
        let first = tokio::time::timeout(READY_TIME_MAX, reader.read());
        let ready = match first.await.map_err(|_| WorkerError::NotReady)?? {
            Some(FromWorker::Ready(ready)) => ready,
            Some(_) => return Err(WorkerError::Rules("it was not ready first".to_owned())),
            None => return Err(WorkerError::Ended { runs: 0 }),
        };
        // From these the accounts of runs are made that it can no longer account for.
        Profile::from_bytes(&ready.profile.0)?;
        Evidence::from_bytes(&ready.evidence.0)?;
        let ready = Arc::new(ready);
        let (sender, mut messages) = mpsc::unbounded_channel::<ToWorker>();
        {
            let mut state = self.lock();
            if state.worker.is_some() {
                return Err(WorkerError::Second);
            }
            tracing::info!(device = ready.device, isolation = ?ready.isolation, "a worker is ready");
            self.inner.had_worker.store(true, Ordering::Release);
            state.worker = Some(Handle {
                ready: Arc::clone(&ready),
                sender,
                unanswered: 0,
            });
        }
        let sending = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let mut room = writer.put(&message);
                // What waits already goes with it.
                while let (Ok(true), Ok(message)) = (&room, messages.try_recv()) {
                    room = writer.put(&message);
                }
                if room.is_err() || writer.send().await.is_err() {
                    // The reading side sees it too.
                    break;
                }
            }
        });
        self.dispatch();
        let mut giving_up = self.inner.giving_up.subscribe();
        let result = tokio::select! {
            result = self.read_worker(&mut reader) => result,
            error = self.supervise() => Err(error),
            _ = giving_up.wait_for(|given_up| *given_up) => Err(WorkerError::GivenUp),
        };
        sending.abort();
        let why = result.as_ref().err();
        let runs = self.worker_is_gone(&ready, why);
        match result {
            Ok(()) if runs == 0 && self.is_draining() => Ok(()),
            Ok(()) => Err(WorkerError::Ended { runs }),
            Err(error) => Err(error),
        }
    }

    /// Gives the worker as many jobs as may run.
    pub(super) fn dispatch(&self) {
        // What ends now could not be written down, and would be kept in memory.
        if self.is_draining() || self.inner.stuck.load(Ordering::Acquire) > 0 {
            return;
        }
        let mut state = self.lock();
        let State {
            worker,
            queue,
            runs,
            live,
            preparing,
            next_run,
            ..
        } = &mut *state;
        let Some(worker) = worker else {
            return;
        };
        // It has to go, and had time to come to a moment without runs: now it gets one.
        let prepare_max = self.inner.config.supervision.prepare_max;
        if (preparing.full_since()).is_some_and(|since| since.elapsed() > prepare_max) {
            return;
        }
        // Runs that were given up hold their places in the worker for a while.
        let places = self.inner.config.queue.running_max + GIVEN_UP_MAX;
        let mut under_way = preparing.under_way(runs);
        while runs.len() + preparing.given_up() < places {
            let may_begin = |waiting: &Waiting| {
                let job = live.get(&waiting.job);
                job.is_none_or(|job| {
                    preparing.may_begin(&under_way, waiting.account, &job.manifest.module.digest)
                })
            };
            let Some(waiting) = queue.pop_where(may_begin) else {
                break;
            };
            let Some(live) = live.get(&waiting.job) else {
                // It cannot be: what waits lives. The place is given back all the same.
                queue.finish(&waiting, None);
                continue;
            };
            under_way.add(preparing, waiting.account, &live.manifest.module.digest);
            let run = *next_run;
            *next_run += 1;
            // A worker that is just going leaves the run to `worker_is_gone`.
            worker.say(ToWorker::Run(run_request(run, live)));
            let running = Running {
                live: Arc::clone(live),
                log: Vec::new(),
                since: Instant::now(),
                clock: Clock::default(),
                is_stuck: false,
            };
            runs.insert(run, running);
        }
    }

    async fn read_worker(
        &self,
        reader: &mut FrameReader<impl AsyncRead + Unpin, FromWorker>,
    ) -> Result<(), WorkerError> {
        while let Some(message) = reader.read().await? {
            self.hear(message)?;
        }
        Ok(())
    }

    fn hear(&self, message: FromWorker) -> Result<(), WorkerError> {
        let rules = |text: &str| WorkerError::Rules(text.to_owned());
        if self.is_of_given_up(&message) {
            return Ok(());
        }
        match message {
            FromWorker::Ready(_) => return Err(rules("it was ready twice")),
            FromWorker::Pong => {
                if let Some(worker) = &mut self.lock().worker {
                    worker.unanswered = 0;
                }
            }
            FromWorker::Started { run } => {
                let mut state = self.lock();
                let running = state.runs.get_mut(&run);
                let running = running.ok_or_else(|| rules("it spoke of a run it has not"))?;
                running.clock.started.get_or_insert_with(Instant::now);
                running.live.feed.start();
                let module = running.live.manifest.module.digest;
                let is_news = state.preparing.began(module);
                drop(state);
                if is_news {
                    // What waited for it may go on.
                    self.dispatch();
                }
            }
            FromWorker::Output { run, bytes } => {
                let live = self.live_of(run)?;
                if !live.feed.is_started() {
                    return Err(rules("a run made output before it started"));
                }
                let max = live.manifest.job.limits.output_bytes_max;
                if !live.feed.output(&bytes.0, max) {
                    return Err(rules("a run made more output than its job may"));
                }
            }
            FromWorker::Log { run, bytes } => {
                let mut state = self.lock();
                let running = state.runs.get_mut(&run);
                let running = running.ok_or_else(|| rules("it spoke of a run it has not"))?;
                let max = running.live.manifest.job.limits.log_bytes_max;
                let length = running.log.len().saturating_add(bytes.0.len());
                if u64::try_from(length).unwrap_or(u64::MAX) > max {
                    return Err(rules("a run wrote more log than its job may"));
                }
                running.log.extend_from_slice(&bytes.0);
            }
            FromWorker::Progress {
                run,
                done,
                total,
                note,
            } => {
                let note = &note.0[..note.0.len().min(NOTE_BYTES_MAX)];
                let note = String::from_utf8_lossy(note).into_owned();
                let progress = Progress { done, total, note };
                self.live_of(run)?.feed.progress(progress);
            }
            FromWorker::Tokens {
                run: _,
                prompt,
                generated,
            } => {
                self.inner.metrics.prompt_tokens.add(prompt);
                self.inner.metrics.generated_tokens.add(generated);
            }
            FromWorker::Done(done) => self.run_done(*done)?,
            FromWorker::Refused(refused) => {
                let (running, _ending) = self.run_over(refused.run)?;
                if running.live.feed.is_started() {
                    // It was heard: there has to be a receipt.
                    let message = "the process that ran the job could not account for it";
                    self.end_lost(running.live, running.log, running.since, message);
                    return Ok(());
                }
                let mut message = refused.message;
                message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
                let ending = Ending::NotRun {
                    fault: refused.fault,
                    exit_code: refused.exit_code,
                    message,
                };
                self.spawn_end(running.live, Unsigned::NotRun(ending));
            }
            FromWorker::Lost { run, message } => {
                let (running, _ending) = self.run_over(run)?;
                let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
                tracing::error!(job = %running.live.id, message, "a run was lost");
                self.end_lost(running.live, running.log, running.since, message);
            }
            FromWorker::Warning { text } => {
                let text = &text[..text.floor_char_boundary(NOTE_BYTES_MAX)];
                tracing::warn!(?text, "the worker warns");
            }
        }
        Ok(())
    }

    /// Whether it is about a run that nobody waits for any more.
    fn is_of_given_up(&self, message: &FromWorker) -> bool {
        let Some(run) = message.run() else {
            return false;
        };
        let mut state = self.lock();
        if !state.preparing.is_given_up(run) {
            return false;
        }
        match message {
            FromWorker::Started { .. } => state.preparing.began_late(run),
            FromWorker::Done(_) | FromWorker::Refused(_) | FromWorker::Lost { .. } => {
                state.preparing.ended(run);
            }
            _ => return true,
        }
        drop(state);
        self.dispatch();
        true
    }

    fn run_done(&self, done: RunDone) -> Result<(), WorkerError> {
        let (running, _ending) = self.run_over(done.run)?;
        let live = running.live;
        match Unsigned::of_worker(&live, done, &running.log) {
            Ok(account) => self.spawn_end(live, account),
            Err(problem) => {
                // What it streamed may have been heard: the run is not made again.
                let message = "the process that ran the job gave a wrong account of it";
                self.end_lost(live, running.log, running.since, message);
                return Err(WorkerError::Rules(problem));
            }
        }
        Ok(())
    }

    /// Ends a run of the worker that is there, which has no account of it.
    fn end_lost(&self, live: Arc<Live>, log: Vec<u8>, since: Instant, message: &str) {
        let ready = self
            .lock()
            .worker
            .as_ref()
            .map(|worker| Arc::clone(&worker.ready));
        if let Some(ready) = ready {
            self.end_lost_run(&ready, live, log, since, message);
        }
    }

    fn end_lost_run(
        &self,
        ready: &Ready,
        live: Arc<Live>,
        log: Vec<u8>,
        since: Instant,
        message: &str,
    ) {
        match Unsigned::of_lost_run(&live, ready, log, since.elapsed(), message) {
            Ok(account) => self.spawn_end(live, account),
            // It was looked at when the worker came.
            Err(error) => {
                tracing::error!(%error, "no account can be made of a lost run");
                self.end_without_run(live, WhoseFault::Provider, 5, message);
            }
        }
    }

    fn live_of(&self, run: u64) -> Result<Arc<Live>, WorkerError> {
        let state = self.lock();
        let running = state.runs.get(&run);
        let live = running.map(|running| Arc::clone(&running.live));
        live.ok_or_else(|| WorkerError::Rules("it spoke of a run it has not".to_owned()))
    }

    /// Takes a run out, whose end is to be written; its place is free for the next.
    fn run_over(&self, run: u64) -> Result<(Running, AboutToEnd), WorkerError> {
        let mut state = self.lock();
        let running = state.runs.remove(&run);
        let running = running
            .ok_or_else(|| WorkerError::Rules("it ended a run that it has not".to_owned()))?;
        let took = running.since.elapsed();
        let ending = self.about_to_end();
        state.queue.finish(&running.live.waiting, Some(took));
        drop(state);
        self.dispatch();
        Ok((running, ending))
    }

    /// Ends or queues again what a lost worker had; how many runs that were.
    fn worker_is_gone(&self, ready: &Ready, why: Option<&WorkerError>) -> usize {
        let how = why.map_or("ended", WorkerError::in_receipts);
        let mut state = self.lock();
        state.worker = None;
        state.preparing.worker_is_gone();
        let _ending = self.about_to_end();
        let runs: Vec<_> = state.runs.drain().collect();
        for (_, running) in &runs {
            state.queue.finish(&running.live.waiting, None);
        }
        drop(state);
        let count = runs.len();
        if count > 0 {
            self.inner.metrics.workers_lost.add(1);
            tracing::error!(runs = count, "the worker ended with runs under way");
        }
        for (_, running) in runs {
            let live = running.live;
            if live.feed.is_started() {
                let message = match running.is_stuck {
                    true => "the job did not end when its time was over".to_owned(),
                    false => format!("the process that ran the job {how}"),
                };
                self.end_lost_run(ready, live, running.log, running.since, &message);
            } else if live.cancelled.load(Ordering::Acquire) {
                self.end_without_run(live, WhoseFault::Client, 130, "cancelled before it ran");
            } else {
                let may_be_it = why.is_none_or(WorkerError::may_be_of_any_job);
                if may_be_it && live.lost.fetch_add(1, Ordering::AcqRel) + 1 >= LOST_MAX {
                    let message = "workers failed with this job, twice";
                    self.end_without_run(live, WhoseFault::Provider, 5, message);
                } else {
                    self.wait_again(&live);
                }
            }
        }
        self.inner.changed.notify_waiters();
        count
    }

    /// Puts a job that did not get to run back into the queue.
    fn wait_again(&self, live: &Live) {
        let mut state = self.lock();
        let waiting = &live.waiting;
        state
            .queue
            .hold(waiting.account, waiting.input_bytes, live.limits);
        state.queue.push(live.waiting);
    }
}

fn run_request(run: u64, live: &Live) -> RunRequest {
    let left = live.waiting.deadline_unix_ms;
    let left = left.map(|at| at.saturating_sub(now_unix_ms()).max(1));
    RunRequest {
        run,
        request: Content(live.request_bytes()),
        manifest: Content(live.manifest.to_bytes()),
        input: Content(live.input.clone()),
        time_max_ms: match (live.time_max_ms, left) {
            (Some(longest), Some(left)) => Some(longest.min(left)),
            (longest, left) => longest.or(left),
        },
    }
}
