//! `Gateway`: takes jobs in, has them run and signed, and says what came of them.
//!
//! In: submissions of known accounts, a worker's and a signer's sockets. Out: durable jobs, their
//! output while it comes, their signed end. It runs no module and holds no key. A job is on the
//! disk before its id is told, and its end is on the disk before it is told; between the two it
//! may run more than once, and says the same each time. One whose client was waiting when the
//! gateway ended is not run again, since nobody waits for it any more.

mod admission;
mod draft;
mod ending;
mod feed;
mod metrics;
mod paid;
mod preparing;
mod prices;
mod rate;
mod retention;
mod signer_link;
mod status;
mod submit;
mod supervise;
mod verified;
mod worker;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tussah_manifest::{Digest, Document as _, Manifest, Nanograms, PublicKey, Request};

use crate::ledger::{Accepted, Account, AccountId, Ending, Finding, Ledger, LedgerError};
use crate::queue::{AccountQueueLimits, Queue, QueueLimits, Waiting};
use crate::wire::{Isolation, Secret, WhoseFault};

pub use admission::{Admission, LimitTooHigh, ModelNotOffered};
pub use feed::{JobEnd, JobEvent, Listener, Progress};
pub use metrics::{Gauge, Held, Metrics};
pub use paid::{
    ChannelCounts, ClaimError, PayError, Paymaster, PlaceClaim, PlaceGrant, Standing, VoucherForm,
};
pub use prices::PriceSheet;
pub use rate::TooOften;
pub use signer_link::{SignerError, SignerLink};
pub use status::{Rates, RecentJob, Status, WorkerStatus};
pub use submit::{Ask, News, Quote, Submission, SubmitError, Ticket};
pub use supervise::Supervision;
pub use verified::{ClaimProblem, NotVerified, Verifiers, claim_path};
pub use worker::WorkerError;

/// How long contents are kept, unless somebody says otherwise.
const KEEP: Duration = Duration::from_hours(30 * 24);

/// What a gateway is told before it starts.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// What work costs.
    pub prices: PriceSheet,
    /// How much may wait and run.
    pub queue: QueueLimits,
    /// Jobs that one account may bring in a minute, unless it has a limit of its own.
    pub account_per_minute_max: Option<u32>,
    /// Keeps the books of payment channels; without one, jobs are taken on credit alone.
    pub paymaster: Option<Arc<dyn Paymaster>>,
    /// The most bytes of a job's input, whatever its manifest allows.
    pub input_bytes_max: usize,
    /// What manifests may ask for.
    pub admission: Admission,
    /// When a worker is taken for hung.
    pub supervision: Supervision,
    /// The folder of blobs, `<2 hex digits>/<64 hex digits>` by their digests.
    pub blobs: PathBuf,
    /// Passed on to the worker: authenticates what it keeps in its cache.
    pub cache_key: Secret,
    /// How long the ledger keeps inputs, outputs and logs of jobs that ended; `None` for ever.
    pub keep: Option<Duration>,
}

impl GatewayConfig {
    /// Free of charge, and as much at a time as the queue's defaults say.
    pub fn new(blobs: PathBuf, cache_key: Secret) -> Self {
        Self {
            prices: PriceSheet::default(),
            queue: QueueLimits::default(),
            account_per_minute_max: None,
            paymaster: None,
            input_bytes_max: 16 << 20,
            admission: Admission::default(),
            supervision: Supervision::default(),
            blobs,
            cache_key,
            keep: Some(KEEP),
        }
    }
}

/// The gateway. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: GatewayConfig,
    ledger: Arc<Ledger>,
    signer: SignerLink,
    /// From which the nonces of seeded requests come.
    nonce_secret: [u8; 32],
    /// From which rates count.
    since: Instant,
    state: Mutex<State>,
    metrics: Metrics,
    /// What the counters were of late.
    samples: Mutex<status::Samples>,
    draining: AtomicBool,
    /// Whether what still runs is to be ended with its worker.
    giving_up: watch::Sender<bool>,
    /// Whether any worker has been ready.
    had_worker: AtomicBool,
    /// Ends that are being signed and written, or are about to be.
    ending: AtomicUsize,
    /// Ends among them that could not be written down and are tried again.
    stuck: AtomicUsize,
    /// Rows of the ledger that could not be read at the start.
    set_aside: usize,
    /// Something ended, or a deadline came closer.
    changed: Notify,
    /// Whose turn it is to take a place in a channel.
    turns: paid::Turns,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    rates: rate::Rates,
    /// Every job that was accepted and has not ended.
    live: HashMap<Digest, Arc<Live>>,
    runs: HashMap<u64, worker::Running>,
    next_run: u64,
    worker: Option<worker::Handle>,
    /// What is known of how long modules take to prepare.
    preparing: preparing::Preparing,
}

/// A job that was accepted and has not ended.
#[derive(Debug)]
struct Live {
    id: Digest,
    request: Request,
    manifest: Manifest,
    input: Vec<u8>,
    deployment: Option<String>,
    accepted_unix_ms: u64,
    waiting: Waiting,
    limits: AccountQueueLimits,
    /// What it may cost: set aside in the ledger.
    reserve: Nanograms,
    time_max_ms: Option<u64>,
    /// When this gateway took it.
    since: Instant,
    feed: Arc<feed::Feed>,
    /// Callers that wait for it.
    watchers: AtomicUsize,
    /// Whether somebody wants it even when nobody waits for it any more.
    keep: AtomicBool,
    cancelled: AtomicBool,
    /// Times that a worker died before it started this.
    lost: AtomicUsize,
}

impl Gateway {
    /// Takes over where the ledger says that the last one ended: what was accepted and has not
    /// ended waits again, in its old order. To be called within a runtime.
    ///
    /// # Errors
    /// [`LedgerError`] if the ledger cannot be read.
    pub fn new(
        config: GatewayConfig,
        ledger: Arc<Ledger>,
        signer: SignerLink,
    ) -> Result<Self, LedgerError> {
        let nonce_secret = ledger.nonce_secret()?;
        let accounts = ledger.accounts()?;
        let limits: HashMap<AccountId, AccountQueueLimits> = accounts
            .iter()
            .map(|account| (account.id, queue_limits(account)))
            .collect();
        let mut queue = Queue::new(config.queue);
        let mut live = HashMap::new();
        let unfinished = ledger.unfinished()?;
        for Finding { place, problem } in &unfinished.set_aside {
            tracing::error!(
                place,
                problem,
                "set aside: it cannot be read, and does not run"
            );
        }
        let mut fleeting = Vec::new();
        for accepted in unfinished.jobs {
            let limits = limits.get(&accepted.account).copied().unwrap_or_default();
            let job = Live::of(accepted, limits);
            if !job.keep.load(Ordering::Acquire) {
                let job = Arc::new(job);
                live.insert(job.id, Arc::clone(&job));
                fleeting.push(job);
                continue;
            }
            queue.hold(job.waiting.account, job.waiting.input_bytes, limits);
            queue.push(job.waiting);
            live.insert(job.id, Arc::new(job));
        }
        if !live.is_empty() {
            tracing::info!(jobs = live.len(), "jobs from before wait again");
        }
        let gateway = Self {
            inner: Arc::new(Inner {
                config,
                ledger,
                signer,
                nonce_secret,
                since: Instant::now(),
                state: Mutex::new(State {
                    queue,
                    rates: rate::Rates::default(),
                    live,
                    runs: HashMap::new(),
                    next_run: 0,
                    worker: None,
                    preparing: preparing::Preparing::default(),
                }),
                metrics: Metrics::default(),
                samples: Mutex::new(status::Samples::new()),
                draining: AtomicBool::new(false),
                giving_up: watch::Sender::new(false),
                had_worker: AtomicBool::new(false),
                ending: AtomicUsize::new(0),
                stuck: AtomicUsize::new(0),
                set_aside: unfinished.set_aside.len(),
                changed: Notify::new(),
                turns: paid::Turns::default(),
            }),
        };
        for live in fleeting {
            let message = "the provider ended while its client waited, and did not run it again";
            gateway.end_without_run(live, WhoseFault::Provider, 5, message);
        }
        let watched = Arc::downgrade(&gateway.inner);
        tokio::spawn(submit::expire(Weak::clone(&watched)));
        tokio::spawn(status::sample(Weak::clone(&watched)));
        tokio::spawn(retention::prune(watched));
        let making_up = gateway.clone();
        tokio::spawn(async move { making_up.make_up_claims().await });
        Ok(gateway)
    }

    /// Whose key signs the receipts.
    pub fn provider_key(&self) -> PublicKey {
        self.inner.signer.provider_key
    }

    /// What was configured.
    pub fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.inner.ledger
    }

    /// Counters since the start.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Jobs that wait and jobs that run.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.waiting(), state.queue.running())
    }

    /// Why no job would run now; `None` if one would.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.inner.draining.load(Ordering::Acquire) {
            Some("the provider is shutting down")
        } else if !self.inner.signer.is_there() {
            Some("the signer has ended")
        } else if self.inner.stuck.load(Ordering::Acquire) > 0 {
            Some("the ledger cannot be written: jobs that ended wait for it")
        } else if self.lock().worker.is_none() {
            Some("no worker is ready")
        } else {
            None
        }
    }

    /// Jobs of the ledger that could not be read at the start, and so do not run; its check names
    /// them.
    pub fn set_aside(&self) -> usize {
        self.inner.set_aside
    }

    /// What runs jobs, in the worker's own words; `None` without a worker.
    pub fn device(&self) -> Option<String> {
        let state = self.lock();
        let worker = state.worker.as_ref();
        worker.map(|worker| worker.ready.device.clone())
    }

    /// What keeps jobs from the rest of this machine; `None` without a worker.
    pub fn isolation(&self) -> Option<Isolation> {
        let state = self.lock();
        let worker = state.worker.as_ref();
        worker.map(|worker| worker.ready.isolation.clone())
    }

    /// What a job has said and will say; `None` if it is none that has not ended.
    pub fn listen(&self, job: &Digest) -> Option<Listener> {
        let live = Arc::clone(self.lock().live.get(job)?);
        Some(live.feed.listen())
    }

    /// Whether a job runs at this moment.
    pub fn is_running(&self, job: &Digest) -> bool {
        let live = self.lock().live.get(job).cloned();
        live.is_some_and(|live| live.feed.is_started())
    }

    /// Ends a job before its time; whether there was anything to end. One that waits ends without
    /// a run, one that runs ends with a receipt that says so.
    pub fn cancel(&self, job: &Digest) -> bool {
        let mut state = self.lock();
        let Some(live) = state.live.get(job).cloned() else {
            return false;
        };
        live.cancelled.store(true, Ordering::Release);
        if state.queue.remove(job).is_some() {
            let _ending = self.about_to_end();
            drop(state);
            self.end_without_run(live, WhoseFault::Client, 130, "cancelled before it ran");
            return true;
        }
        if let Some(worker) = &state.worker {
            for (run, running) in &state.runs {
                if running.live.id == *job {
                    worker.cancel(*run);
                }
            }
        }
        true
    }

    /// Takes no more jobs and starts none; returns when what runs has ended and is on the disk.
    /// What waits stays in the ledger for the next start, but for what nobody wants once its client
    /// has been told: that ends without a run.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
        let (fleeting, ending) = {
            let mut state = self.lock();
            let State { live, queue, .. } = &mut *state;
            let fleeting = live.values().filter(|live| {
                !live.keep.load(Ordering::Acquire) && queue.remove(&live.id).is_some()
            });
            (fleeting.cloned().collect::<Vec<_>>(), self.about_to_end())
        };
        for live in fleeting {
            let message = "the provider is shutting down, and did not run it";
            self.end_without_run(live, WhoseFault::Provider, 5, message);
        }
        drop(ending);
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let running = self.lock().queue.running();
            if running == 0 && self.inner.ending.load(Ordering::Acquire) == 0 {
                break;
            }
            changed.await;
        }
        let state = self.lock();
        // Whoever listens to what waits would listen to the end of the process.
        for live in state.live.values() {
            live.feed.end(Arc::new(JobEnd::Postponed));
        }
        if let Some(worker) = &state.worker {
            worker.drain();
        }
    }

    /// Whether any worker has been ready since the start.
    pub fn has_had_worker(&self) -> bool {
        self.inner.had_worker.load(Ordering::Acquire)
    }

    /// Whether it takes no more jobs.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is whole: no step of a change can fail half-way.
        (self.inner.state.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held from the step that takes a job out of the queue or its run until its end is
    /// being written: in between nobody takes the gateway for drained.
    fn about_to_end(&self) -> AboutToEnd {
        self.inner.ending.fetch_add(1, Ordering::AcqRel);
        AboutToEnd {
            inner: Arc::clone(&self.inner),
        }
    }

    fn end_without_run(&self, live: Arc<Live>, fault: WhoseFault, exit_code: u8, message: &str) {
        let ending = Ending::NotRun {
            fault,
            exit_code,
            message: message.to_owned(),
        };
        self.spawn_end(live, ending::Unsigned::NotRun(ending));
    }
}

impl Inner {
    fn samples(&self) -> MutexGuard<'_, status::Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One more end to wait for.
#[derive(Debug)]
struct AboutToEnd {
    inner: Arc<Inner>,
}

impl Drop for AboutToEnd {
    fn drop(&mut self) {
        self.inner.ending.fetch_sub(1, Ordering::AcqRel);
        self.inner.changed.notify_waiters();
    }
}

impl Live {
    fn of(job: Accepted, limits: AccountQueueLimits) -> Self {
        let id = job.request.body.job_id();
        let waiting = Waiting {
            job: id,
            account: job.account,
            price_max: job.request.body.price_nanograms_max,
            deadline_unix_ms: job.deadline_unix_ms,
            input_bytes: job.input.len(),
        };
        Self {
            id,
            request: job.request,
            manifest: job.manifest,
            input: job.input,
            deployment: job.deployment,
            accepted_unix_ms: job.accepted_unix_ms,
            waiting,
            limits,
            reserve: job.reserve,
            time_max_ms: job.time_max_ms,
            since: Instant::now(),
            feed: feed::Feed::new(),
            watchers: AtomicUsize::new(0),
            keep: AtomicBool::new(job.keep),
            cancelled: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
        }
    }

    fn request_bytes(&self) -> Vec<u8> {
        self.request.to_bytes()
    }
}

fn queue_limits(account: &Account) -> AccountQueueLimits {
    let count = |limit: Option<u32>| limit.and_then(|limit| usize::try_from(limit).ok());
    AccountQueueLimits {
        running_max: count(account.limits.running_max),
        queued_max: count(account.limits.queued_max),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
