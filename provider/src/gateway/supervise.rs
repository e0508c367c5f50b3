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

    /// Takes out the runs that did not begin in time, and what waits for the same modules; whether
    /// the worker has to go.
    fn beat(&self, rules: &Supervision) -> (Vec<(Arc<Live>, AboutToEnd)>, Option<WorkerError>) {
        let mut state = self.lock();
        let State {
            worker,
            runs,
            queue,
            preparing,
            live,
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
            let Some(running) = runs.remove(&run) else {
                continue;
            };
            let module = running.live.manifest.module.digest;
            let is_slow = preparing.give_up(run, running.live.waiting.account, module);
            queue.finish(&running.live.waiting, None);
            never_began.push((running.live, self.about_to_end()));
            if !is_slow {
                continue;
            }
            let same = |job: &&Arc<Live>| job.manifest.module.digest == module;
            for job in live.values().filter(same) {
                if queue.remove(&job.id).is_some() {
                    never_began.push((Arc::clone(job), self.about_to_end()));
                }
            }
        }
        // Nobody's run ends for the modules of others: first what has begun comes to its end.
        let is_idle = runs.values().all(|run| run.clock.started.is_none());
        let error = (preparing.is_full() && is_idle).then_some(WorkerError::Busy {
            runs: preparing.given_up(),
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
        self.lock().preparing.is_slow(module)
    }
}
