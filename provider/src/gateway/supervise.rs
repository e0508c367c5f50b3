//! Supervision: a worker that does not answer, and runs that do not end.
//!
//! In: the worker's answers, how long each run has gone on. Out: the reason to end the worker, or
//! the end of a run that never began. Time is counted in beats that this process saw, so that a
//! machine that slept ends nothing when it wakes. A worker's own limits come first: these here
//! are for one that does not keep them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tussah_manifest::Digest;

use super::{AboutToEnd, Gateway, Live, State, WorkerError};
use crate::wire::{ToWorker, WhoseFault};

/// Runs that were given up before they began, and that a worker may still be at: their threads
/// cannot be stopped. One more, and the worker is started anew.
pub(super) const GIVEN_UP_MAX: usize = 4;
/// How long a module that took too long to prepare is not tried again.
pub(super) const SLOW_PAUSE: Duration = Duration::from_secs(600);
/// Modules that are remembered as too slow to prepare.
const SLOW_MAX: usize = 1024;

/// When a worker is taken for hung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supervision {
    /// How often it is asked whether it is there.
    pub beat: Duration,
    /// Questions in a row that it may leave without an answer.
    pub unanswered_max: u32,
    /// How long a run may take to begin: its module is compiled meanwhile.
    pub prepare_max: Duration,
    /// How long a run may go on past the time at which the worker has to end it: its manifest's
    /// `wall_ms_max`, its client's longest time, or its cancellation.
    pub margin: Duration,
}

impl Supervision {
    /// A worker is hung that answers nothing for so long.
    pub fn silent(time: Duration) -> Self {
        let default = Self::default();
        Self {
            beat: time / default.unanswered_max,
            ..default
        }
    }
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(5),
            unanswered_max: 6,
            prepare_max: Duration::from_secs(120),
            margin: Duration::from_secs(30),
        }
    }
}

/// What a run has used of its time.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When the worker said that it began.
    pub(super) started: Option<Instant>,
    /// Beats past the end of its time.
    overdue: Duration,
}

impl Clock {
    /// Counts a beat; whether the run had to be over before the margin.
    fn is_over(&mut self, live: &Live, since: Instant, rules: &Supervision) -> bool {
        let Some(started) = self.started else {
            let is_late = since.elapsed() > rules.prepare_max;
            self.overdue += if is_late { rules.beat } else { Duration::ZERO };
            // A machine that woke has seen one beat since.
            return self.overdue > rules.beat;
        };
        let wall = Duration::from_millis(live.manifest.job.limits.wall_ms_max);
        let time_max = live.time_max_ms.map(Duration::from_millis);
        let is_late = started.elapsed() > wall
            || time_max.is_some_and(|time| since.elapsed() > time)
            || live.cancelled.load(Ordering::Acquire);
        if is_late {
            self.overdue += rules.beat;
        }
        self.overdue > rules.margin
    }
}

impl Gateway {
    /// Watches the worker that is there; returns why it has to be ended.
    pub(super) async fn supervise(&self) -> WorkerError {
        let rules = self.inner.config.supervision;
        loop {
            tokio::time::sleep(rules.beat).await;
            let (slow, error) = self.beat(&rules);
            let any = !slow.is_empty();
            for (live, ending) in slow {
                self.end_slow(live, &rules);
                drop(ending);
            }
            if any {
                self.dispatch();
            }
            if let Some(error) = error {
                return error;
            }
        }
    }

    /// Takes out the runs that did not begin in time; whether the worker has to go.
    fn beat(&self, rules: &Supervision) -> (Vec<(Arc<Live>, AboutToEnd)>, Option<WorkerError>) {
        let mut state = self.lock();
        let State {
            worker,
            runs,
            queue,
            given_up,
            slow,
            ..
        } = &mut *state;
        let Some(worker) = worker else {
            return (Vec::new(), None);
        };
        let silent = worker.unanswered >= rules.unanswered_max;
        if silent {
            let time = rules.beat * rules.unanswered_max;
            return (Vec::new(), Some(WorkerError::Silent { time }));
        }
        worker.unanswered += 1;
        worker.say(ToWorker::Ping);
        let over: Vec<u64> = runs
            .iter_mut()
            .filter_map(|(run, running)| {
                let (clock, live) = (&mut running.clock, &running.live);
                let is_over = clock.is_over(live, running.since, rules);
                is_over.then_some(*run)
            })
            .collect();
        let mut never_began = Vec::new();
        for run in over {
            let Some(running) = runs.get_mut(&run) else {
                continue;
            };
            if running.clock.started.is_some() {
                running.is_stuck = true;
                let job = running.live.id;
                return (never_began, Some(WorkerError::Stuck { job }));
            }
            worker.cancel(run);
            given_up.insert(run);
            let Some(running) = runs.remove(&run) else {
                continue;
            };
            queue.finish(&running.live.waiting, None);
            slow.retain(|_, since| since.elapsed() < SLOW_PAUSE);
            if slow.len() < SLOW_MAX {
                slow.insert(running.live.manifest.module.digest, Instant::now());
            }
            never_began.push((running.live, self.about_to_end()));
        }
        let error = (given_up.len() > GIVEN_UP_MAX).then_some(WorkerError::Busy {
            runs: given_up.len(),
        });
        (never_began, error)
    }

    fn end_slow(&self, live: Arc<Live>, rules: &Supervision) {
        let seconds = rules.prepare_max.as_secs();
        let message = format!("its module could not be made ready to run in {seconds} s");
        tracing::warn!(job = %live.id, module = %live.manifest.module.digest, message);
        self.end_without_run(live, WhoseFault::Provider, 4, &message);
    }

    /// Ends the worker that is there, and with an honest receipt each run that has begun: they
    /// were waited for long enough.
    pub fn give_up_runs(&self) {
        // Whoever attached the worker listens; without one there is nothing to end.
        self.inner.giving_up.send_replace(true);
    }

    /// How long a module is not tried, because it took too long to prepare.
    pub(super) fn is_slow(&self, module: &Digest) -> Option<Duration> {
        let state = self.lock();
        let since = state.slow.get(module)?.elapsed();
        SLOW_PAUSE.checked_sub(since).filter(|left| !left.is_zero())
    }
}
