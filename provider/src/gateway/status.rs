//! `Status`: the state of the daemon at one moment, for its owner.
//!
//! In: queue, counters, worker, the ledger's newest jobs. Out: one document without content: no
//! input, output, log, error or key is in it, and no account's name. Rates are of the last minute.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Gateway, Inner, Metrics, PriceSheet, millis, now_unix_ms};
use crate::ledger::{JobState, JobSummary, LedgerError};
use crate::wire::Isolation;

/// How often the counters are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// How far back rates look.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Looks that are kept: a quarter of an hour.
const SAMPLES_MAX: usize = 181;
/// The newest jobs that are shown.
const RECENT_MAX: u32 = 20;

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at: Instant,
    jobs: u64,
    prompt_tokens: u64,
    generated_tokens: u64,
}

impl Sample {
    fn of(metrics: &Metrics, at: Instant) -> Self {
        let ends = [&metrics.done, &metrics.failed, &metrics.not_run];
        Self {
            at,
            jobs: ends.iter().map(|counter| counter.get()).sum(),
            prompt_tokens: metrics.prompt_tokens.get(),
            generated_tokens: metrics.generated_tokens.get(),
        }
    }
}

/// The counters of the last quarter of an hour.
#[derive(Debug)]
pub(super) struct Samples {
    kept: VecDeque<Sample>,
}

impl Samples {
    pub(super) fn new() -> Self {
        let start = Sample::of(&Metrics::default(), Instant::now());
        Self {
            kept: [start].into(),
        }
    }

    fn add(&mut self, sample: Sample) {
        if self.kept.len() >= SAMPLES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(sample);
    }

    /// What happened each second, from the newest look that is a whole window old, or from the
    /// start, until now.
    fn rates(&self, now: Sample) -> Rates {
        let old = |sample: &&Sample| now.at.duration_since(sample.at) >= RATE_WINDOW;
        let from = self.kept.iter().rev().find(old).or(self.kept.front());
        from.map_or_else(Rates::default, |from| Rates::between(from, &now))
    }

    /// The same between each two looks, oldest first.
    fn history(&self) -> Vec<Rates> {
        let later = self.kept.iter().skip(1);
        let pairs = self.kept.iter().zip(later);
        pairs.map(|(from, to)| Rates::between(from, to)).collect()
    }
}

/// How much happens in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Jobs that ended.
    pub jobs: f64,
    /// Tokens of prompts that were read.
    pub prompt_tokens: f64,
    /// Tokens that were generated.
    pub generated_tokens: f64,
}

impl Rates {
    fn between(from: &Sample, to: &Sample) -> Self {
        let seconds = to.at.duration_since(from.at).as_secs_f64();
        // Counts of a quarter of an hour are far below 2^53.
        let rate = |from: u64, to: u64| match seconds > 0.0 {
            true => f64::from(u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)) / seconds,
            false => 0.0,
        };
        Self {
            jobs: rate(from.jobs, to.jobs),
            prompt_tokens: rate(from.prompt_tokens, to.prompt_tokens),
            generated_tokens: rate(from.generated_tokens, to.generated_tokens),
        }
    }

    fn to_json(self) -> Value {
        let round = |rate: f64| (rate * 1000.0).round() / 1000.0;
        json!({
            "jobs_per_second": round(self.jobs),
            "prompt_tokens_per_second": round(self.prompt_tokens),
            "generated_tokens_per_second": round(self.generated_tokens),
        })
    }
}

/// What runs jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The device, in the worker's own words.
    pub device: String,
    /// Bytes of the device's memory, if it says.
    pub memory_bytes: Option<u64>,
    /// What keeps jobs from the rest of this machine.
    pub isolation: Isolation,
}

/// A job as its provider's owner sees it: no content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentJob {
    /// All that the ledger has of it, but its content.
    pub summary: JobSummary,
    /// Whether it runs at this moment.
    pub is_running: bool,
}

/// The daemon at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Now, in milliseconds since 1970.
    pub now_unix_ms: u64,
    /// Since the start.
    pub uptime: Duration,
    /// Why no job would run now, if none would.
    pub not_ready: Option<&'static str>,
    /// Whether no more jobs are taken.
    pub is_draining: bool,
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that run.
    pub running: usize,
    /// The most that run at a time.
    pub running_max: usize,
    /// The most that wait.
    pub waiting_max: usize,
    /// Of the last minute.
    pub rates: Rates,
    /// Of the last quarter of an hour, a few seconds each, oldest first.
    pub history: Vec<Rates>,
    /// What runs jobs; `None` while nothing does.
    pub worker: Option<WorkerStatus>,
    /// Bytes of memory that this process holds, where the system says.
    pub resident_bytes: Option<u64>,
    /// What work costs.
    pub prices: PriceSheet,
    /// The newest jobs, newest first.
    pub recent: Vec<RecentJob>,
    counts: Value,
}

impl Gateway {
    /// The daemon at this moment.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger cannot be read.
    pub fn status(&self) -> Result<Status, LedgerError> {
        let recent = self.inner.ledger.recent_jobs(None, RECENT_MAX)?;
        let recent = recent
            .into_iter()
            .map(|summary| RecentJob {
                is_running: self.is_running(&summary.id),
                summary,
            })
            .collect();
        let metrics = self.metrics();
        let (rates, history) = {
            let samples = self.inner.samples();
            (
                samples.rates(Sample::of(metrics, Instant::now())),
                samples.history(),
            )
        };
        let (waiting, running) = self.load();
        let worker = {
            let state = self.lock();
            state.worker.as_ref().map(|worker| WorkerStatus {
                device: worker.ready.device.clone(),
                memory_bytes: worker.ready.memory_bytes,
                isolation: worker.ready.isolation.clone(),
            })
        };
        Ok(Status {
            now_unix_ms: now_unix_ms(),
            uptime: self.inner.since.elapsed(),
            not_ready: self.not_ready(),
            is_draining: self.is_draining(),
            waiting,
            running,
            running_max: self.inner.config.queue.running_max,
            waiting_max: self.inner.config.queue.queued_max,
            rates,
            history,
            worker,
            resident_bytes: resident_bytes(),
            prices: self.inner.config.prices,
            recent,
            counts: counts(metrics),
        })
    }
}

fn counts(metrics: &Metrics) -> Value {
    json!({
        "accepted": metrics.accepted.get(),
        "refused": metrics.refused.get(),
        "refused_full": metrics.refused_full.get(),
        "done": metrics.done.get(),
        "failed": metrics.failed.get(),
        "not_run": metrics.not_run.get(),
        "unrecorded": metrics.unrecorded.get(),
        "workers_lost": metrics.workers_lost.get(),
        "prompt_tokens": metrics.prompt_tokens.get(),
        "generated_tokens": metrics.generated_tokens.get(),
        "earned_nanograms": metrics.earned_nanograms.get().to_string(),
        "connections_open": metrics.connections_open.get(),
        "connections_refused": metrics.connections_refused.get(),
        "connections_slow": metrics.connections_slow.get(),
    })
}

fn prices(prices: &PriceSheet) -> Value {
    json!({
        "base_nanograms": prices.base.get().to_string(),
        "nanograms_per_billion_fuel": prices.fuel.get().to_string(),
        "nanograms_per_trillion_inference_units": prices.inference.get().to_string(),
    })
}

impl Status {
    /// One word for what the daemon does.
    pub fn state(&self) -> &'static str {
        match (self.is_draining, self.not_ready) {
            (true, _) => "draining",
            (false, Some(_)) => "not-ready",
            (false, None) => "ready",
        }
    }

    /// The document that `/status` answers. Amounts are strings of nanograms, times are
    /// milliseconds.
    pub fn to_json(&self) -> Value {
        let worker = self.worker.as_ref().map(|worker| {
            json!({
                "device": worker.device,
                "memory_bytes": worker.memory_bytes,
                "isolation": worker.isolation.to_string(),
                "is_isolated": matches!(worker.isolation, Isolation::Full { .. }),
            })
        });
        let recent: Vec<Value> = self.recent.iter().map(RecentJob::to_json).collect();
        let history: Vec<Value> = self.history.iter().map(|rates| rates.to_json()).collect();
        json!({
            "object": "status",
            "version": env!("CARGO_PKG_VERSION"),
            "now_unix_ms": self.now_unix_ms,
            "uptime_ms": millis(self.uptime),
            "state": self.state(),
            "reason": self.not_ready,
            "jobs_waiting": self.waiting,
            "jobs_waiting_max": self.waiting_max,
            "jobs_running": self.running,
            "jobs_running_max": self.running_max,
            "rates": self.rates.to_json(),
            "rates_window_ms": millis(RATE_WINDOW),
            "history": history,
            "history_step_ms": millis(SAMPLE_EVERY),
            "since_start": self.counts,
            "worker": worker,
            "resident_bytes": self.resident_bytes,
            "prices": prices(&self.prices),
            "recent_jobs": recent,
        })
    }
}

impl JobSummary {
    /// The word for how it stands, which the ledger alone cannot say of one that has not ended.
    pub fn status_name(&self, is_running: bool) -> &'static str {
        match (self.state, &self.receipt) {
            (JobState::Accepted, _) if is_running => "running",
            (JobState::Accepted, _) => "queued",
            (JobState::NotRun, _) => "not-run",
            (JobState::Finished, Some(receipt)) => receipt.consensus.exit.name(),
            (JobState::Finished, None) => "finished",
        }
    }
}

impl RecentJob {
    fn to_json(&self) -> Value {
        let job = &self.summary;
        json!({
            "id": job.id.to_string(),
            "model": job.deployment,
            "status": job.status_name(self.is_running),
            "ended": job.state != JobState::Accepted,
            "accepted_unix_ms": job.accepted_unix_ms,
            "finished_unix_ms": job.finished_unix_ms,
            "price_nanograms": job.price.map(|price| price.get().to_string()),
            "receipt": job.receipt.as_ref().map(|receipt| receipt.digest().to_string()),
        })
    }
}

/// Looks at the counters from time to time, for as long as there is a gateway.
pub(super) async fn sample(watched: Weak<Inner>) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    every.tick().await;
    loop {
        every.tick().await;
        let Some(inner) = watched.upgrade() else {
            return;
        };
        let sample = Sample::of(&inner.metrics, Instant::now());
        inner.samples().add(sample);
    }
}

/// What this process holds, as Linux counts it: `VmRSS` of
/// <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>, in kilobytes.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_minute_or_of_all_there_is() {
        let start = Instant::now();
        let at = |seconds: u64, jobs: u64| Sample {
            at: start + Duration::from_secs(seconds),
            jobs,
            prompt_tokens: jobs * 10,
            generated_tokens: 0,
        };
        let mut samples = Samples {
            kept: [at(0, 0)].into(),
        };
        // Nothing has passed: no rate, and no division by nothing.
        assert_eq!(samples.rates(at(0, 5)), Rates::default());
        assert_eq!(samples.rates(at(10, 5)).jobs, 0.5);
        for step in 1..=24 {
            samples.add(at(step * 5, step * 5));
        }
        // 120 seconds of one job each, then a burst: a minute back is 60.
        let rates = samples.rates(at(120, 240));
        assert_eq!((rates.jobs, rates.prompt_tokens), (3.0, 30.0));
        assert_eq!(samples.history().len(), 24);
        assert!(samples.history().iter().all(|rates| rates.jobs == 1.0));
        for step in 25..1000 {
            samples.add(at(step * 5, 240));
        }
        assert_eq!(samples.history().len(), SAMPLES_MAX - 1);
        assert_eq!(samples.rates(at(5000, 240)).jobs, 0.0);
    }

    #[test]
    fn linux_says_what_a_process_holds() {
        let bytes = resident_bytes();
        assert_eq!(bytes.is_some(), cfg!(target_os = "linux"));
        assert!(bytes.is_none_or(|bytes| bytes > 100 << 10), "{bytes:?}");
    }
}
