//! `Metrics`: counters since the start, written in Prometheus' text format.
//!
//! In: events without content. Out: text. No name of an account, a job or a model is in it.
//! The format is <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ledger::LedgerWrites;

/// Upper bounds of the histogram's buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [
    1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 60_000, 300_000, 600_000,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of something there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more, for as long as what this gives is kept.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(self))
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what a [`Gauge`] counts.
#[derive(Debug)]
pub struct Held(Arc<Gauge>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Adds one.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bound, bucket) in BUCKETS_MS.iter().zip(&self.buckets) {
            if us <= bound * 1000 {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Jobs that were accepted.
    pub accepted: Counter,
    /// Submissions of jobs that were known.
    pub known: Counter,
    /// Submissions refused because a queue was full.
    pub refused_full: Counter,
    /// Submissions refused for another reason.
    pub refused: Counter,
    /// Jobs that ended with a receipt that says done.
    pub done: Counter,
    /// Jobs that ended with a receipt that says otherwise.
    pub failed: Counter,
    /// Jobs that ended without a run.
    pub not_run: Counter,
    /// Ends that could not be written down.
    pub unrecorded: Counter,
    /// Workers that ended while they had runs.
    pub workers_lost: Counter,
    /// Nanograms that finished jobs cost.
    pub earned_nanograms: Counter,
    /// Tokens of prompts.
    pub prompt_tokens: Counter,
    /// Tokens that were generated.
    pub generated_tokens: Counter,
    /// HTTP answers by the hundreds of their status, from 1 to 5.
    pub http_answers: [Counter; 5],
    /// Clients' connections that are open.
    pub connections_open: Arc<Gauge>,
    /// Connections that were closed because their address had its most already.
    pub connections_refused: Counter,
    /// Connections that were closed because nothing came, or was read, in time.
    pub connections_slow: Counter,
    /// From accepted to ended.
    pub job_time: Histogram,
}

impl Metrics {
    /// All of it, with how many jobs wait and run now, and what the ledger wrote.
    pub fn to_prometheus(&self, waiting: usize, running: usize, ledger: LedgerWrites) -> String {
        let mut text = String::new();
        let jobs = [
            ("accepted", &self.accepted),
            ("known", &self.known),
            ("refused_full", &self.refused_full),
            ("refused", &self.refused),
        ];
        let ends = [
            ("done", &self.done),
            ("failed", &self.failed),
            ("not_run", &self.not_run),
            ("unrecorded", &self.unrecorded),
        ];
        let tokens = [
            ("prompt", &self.prompt_tokens),
            ("generated", &self.generated_tokens),
        ];
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let answers: Vec<_> = classes.into_iter().zip(&self.http_answers).collect();
        labelled(
            &mut text,
            "submissions",
            "What came of submissions.",
            "result",
            &jobs,
        );
        labelled(&mut text, "job_ends", "How jobs ended.", "result", &ends);
        labelled(
            &mut text,
            "tokens",
            "Tokens of language models.",
            "kind",
            &tokens,
        );
        labelled(
            &mut text,
            "http_answers",
            "HTTP answers.",
            "status",
            &answers,
        );
        for (name, help, counter) in [
            (
                "workers_lost",
                "Workers that died with runs.",
                &self.workers_lost,
            ),
            (
                "earned_nanograms",
                "What finished jobs cost.",
                &self.earned_nanograms,
            ),
            (
                "connections_refused",
                "Connections beyond an address's most.",
                &self.connections_refused,
            ),
            (
                "connections_slow",
                "Connections that were too slow.",
                &self.connections_slow,
            ),
        ] {
            head(&mut text, &format!("{name}_total"), help, "counter");
            line(&mut text, &format!("{name}_total"), counter.get());
        }
        for (name, help, count) in [
            ("ledger_writes", "Durable changes.", ledger.writes),
            (
                "ledger_commits",
                "Transactions that they took.",
                ledger.commits,
            ),
            (
                "ledger_syncs",
                "Syncs of the disk for them, at most.",
                ledger.syncs,
            ),
        ] {
            head(&mut text, &format!("{name}_total"), help, "counter");
            line(&mut text, &format!("{name}_total"), count);
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("jobs_waiting", "Jobs that wait.", count(waiting)),
            ("jobs_running", "Jobs that run.", count(running)),
            (
                "connections_open",
                "Clients' open connections.",
                self.connections_open.get(),
            ),
        ] {
            head(&mut text, name, help, "gauge");
            line(&mut text, name, value);
        }
        histogram(
            &mut text,
            "job_seconds",
            "From accepted to ended.",
            &self.job_time,
        );
        text
    }
}

// Writing to a string cannot fail, which is why the results are dropped.
fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(
        text,
        "# HELP tussah_{name} {help}\n# TYPE tussah_{name} {kind}"
    );
}

fn line(text: &mut String, name: &str, value: u64) {
    let _ = writeln!(text, "tussah_{name} {value}");
}

fn labelled(text: &mut String, name: &str, help: &str, label: &str, all: &[(&str, &Counter)]) {
    head(text, &format!("{name}_total"), help, "counter");
    for (value, counter) in all {
        line(
            text,
            &format!("{name}_total{{{label}=\"{value}\"}}"),
            counter.get(),
        );
    }
}

fn histogram(text: &mut String, name: &str, help: &str, histogram: &Histogram) {
    head(text, name, help, "histogram");
    for (bound, bucket) in BUCKETS_MS.iter().zip(&histogram.buckets) {
        let seconds = Duration::from_millis(*bound).as_secs_f64();
        let count = bucket.load(Ordering::Relaxed);
        line(text, &format!("{name}_bucket{{le=\"{seconds}\"}}"), count);
    }
    let count = histogram.count.load(Ordering::Relaxed);
    line(text, &format!("{name}_bucket{{le=\"+Inf\"}}"), count);
    let sum = Duration::from_micros(histogram.sum_us.load(Ordering::Relaxed)).as_secs_f64();
    let _ = writeln!(text, "tussah_{name}_sum {sum}");
    line(text, &format!("{name}_count"), count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_buckets_are_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.accepted.add(3);
        metrics.http_answers[1].add(2);
        let held = metrics.connections_open.hold();
        drop(metrics.connections_open.hold());
        metrics.job_time.record(Duration::from_millis(7));
        metrics.job_time.record(Duration::from_secs(700));
        let text = metrics.to_prometheus(
            4,
            5,
            LedgerWrites {
                writes: 6,
                commits: 2,
                syncs: 3,
            },
        );
        for expected in [
            "tussah_submissions_total{result=\"accepted\"} 3\n",
            "tussah_http_answers_total{status=\"2xx\"} 2\n",
            "tussah_ledger_writes_total 6\n",
            "tussah_ledger_commits_total 2\n",
            "tussah_ledger_syncs_total 3\n",
            "tussah_jobs_waiting 4\n",
            "tussah_jobs_running 5\n",
            "tussah_connections_open 1\n",
            "# TYPE tussah_job_seconds histogram\n",
            "tussah_job_seconds_bucket{le=\"0.005\"} 0\n",
            "tussah_job_seconds_bucket{le=\"0.01\"} 1\n",
            "tussah_job_seconds_bucket{le=\"600\"} 1\n",
            "tussah_job_seconds_bucket{le=\"+Inf\"} 2\n",
            "tussah_job_seconds_sum 700.007\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        drop(held);
        assert_eq!(metrics.connections_open.get(), 0);
    }
}
