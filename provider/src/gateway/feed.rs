//! `Feed`: what a job says while it runs, for any number of listeners.
//!
//! In: output, progress, the end. Out: the same to each listener, at its own pace and from the
//! start, however late it came. The output is kept once, bounded by the job's own limit, so a slow
//! listener stalls nobody; once the ledger has it, who is far behind gets the rest from there, and
//! holds no more than a piece of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tussah_manifest::{Channel, Digest, Receipt};

use super::Live;
use crate::ledger::{Fault, JobState, JobSummary, Ledger};
use crate::wire::WhoseFault;

/// The most bytes of output that a listener gets at a time.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// The most bytes of output that a listener keeps in memory once its job has ended: what an ended
/// job's feed has, or what was read from the ledger at a time.
const LATE_BYTES_MAX: u32 = 1 << 20;

/// How far a job is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all, if it knows.
    pub total: Option<u64>,
    /// What it is doing.
    pub note: String,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// With a receipt, which is on the disk.
    Receipt {
        /// The receipt.
        receipt: Box<Receipt>,
        /// Why, if it is not done.
        fault: Option<Fault>,
        /// When it ended, in milliseconds since 1970.
        finished_unix_ms: Option<u64>,
        /// Bytes of output.
        output_bytes: u64,
    },
    /// Without a run.
    NotRun {
        /// Whose change would make a retry succeed.
        fault: WhoseFault,
        /// Why.
        message: String,
    },
    /// It ended, and that could not be written down: it will run again after a restart.
    Unrecorded,
    /// The provider shuts down before it ran: it waits in the ledger for the next start.
    Postponed,
}

impl JobEnd {
    /// The end of a job as the ledger has it; `None` if it has not ended.
    pub fn of(job: &JobSummary) -> Option<Self> {
        match (job.state, &job.receipt) {
            (JobState::Accepted, _) => None,
            (_, Some(receipt)) => Some(Self::Receipt {
                receipt: receipt.clone(),
                fault: job.fault.clone(),
                finished_unix_ms: job.finished_unix_ms,
                output_bytes: job.output_bytes,
            }),
            (_, None) => Some(Self::NotRun {
                fault: job.whose_fault.unwrap_or(WhoseFault::Provider),
                message: job
                    .fault
                    .as_ref()
                    .map_or_else(String::new, |f| f.message.clone()),
            }),
        }
    }

    /// What the ledger has of a job on credit that this gateway ran to this end.
    pub(super) fn summary(&self, live: &Live) -> Option<JobSummary> {
        let Self::Receipt {
            receipt,
            fault,
            finished_unix_ms,
            output_bytes,
        } = self
        else {
            return None;
        };
        if live.request.body.channel != Channel::Local {
            return None;
        }
        Some(JobSummary {
            id: live.id,
            state: JobState::Finished,
            account: live.waiting.account,
            manifest: live.request.body.manifest,
            deployment: live.deployment.clone(),
            accepted_unix_ms: live.accepted_unix_ms,
            finished_unix_ms: *finished_unix_ms,
            price: Some(receipt.consensus.price_nanograms),
            fault: fault.clone(),
            whose_fault: None,
            receipt: Some(receipt.clone()),
            output_bytes: *output_bytes,
            pruned_unix_ms: None,
            opening: None,
        })
    }
}

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// It runs from now on.
    Started,
    /// More output; provisional until the end says what all of it was.
    Output(Bytes),
    /// How far it is. Who listens slowly is told the newest.
    Progress(Progress),
    /// It is over; nothing comes after.
    Ended(Arc<JobEnd>),
}

/// An output in the ledger.
#[derive(Debug, Clone)]
struct Kept {
    ledger: Arc<Ledger>,
    job: Digest,
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    output: Vec<u8>,
    /// Where all the output is, if it is not above.
    kept: Option<Kept>,
    /// How many there were, and the last.
    progress: (u64, Option<Progress>),
    end: Option<Arc<JobEnd>>,
}

/// What a job says, kept for as long as it is not over and somebody listens.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Feed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    pub(crate) fn start(&self) {
        self.change(|state| state.started = true);
    }

    /// Adds output; whether it is still within `bytes_max`. What goes past it is not kept.
    pub(crate) fn output(&self, bytes: &[u8], bytes_max: u64) -> bool {
        let mut fits = false;
        self.change(|state| {
            let length = state.output.len().saturating_add(bytes.len());
            fits = u64::try_from(length).is_ok_and(|length| length <= bytes_max);
            if fits {
                state.output.extend_from_slice(bytes);
            }
        });
        fits
    }

    pub(crate) fn progress(&self, progress: Progress) {
        self.change(|state| state.progress = (state.progress.0 + 1, Some(progress)));
    }

    pub(crate) fn end(&self, end: Arc<JobEnd>) {
        self.change(|state| state.end = Some(end));
    }

    /// The same for a job whose output the ledger has by now: much of it is not kept here too.
    pub(crate) fn end_in(&self, ledger: &Arc<Ledger>, job: Digest, end: Arc<JobEnd>) {
        self.change(|state| {
            let bytes = state.output.len();
            if u32::try_from(bytes).is_ok_and(|bytes| bytes <= LATE_BYTES_MAX) {
                state.end = Some(end);
                return;
            }
            state.output = Vec::new();
            state.kept = Some(Kept {
                ledger: Arc::clone(ledger),
                job,
                bytes,
            });
            state.end = Some(end);
        });
    }

    /// All the output so far.
    pub(crate) fn output_so_far(&self) -> Vec<u8> {
        self.lock().output.clone()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.lock().started
    }

    pub(crate) fn listen(self: &Arc<Self>) -> Listener {
        Listener {
            changed: self.changed.subscribe(),
            feed: Arc::clone(self),
            started: false,
            at: 0,
            late: Bytes::new(),
            progress: 0,
            ended: false,
        }
    }
}

/// One listener, and how much it has heard.
#[derive(Debug)]
pub struct Listener {
    feed: Arc<Feed>,
    changed: watch::Receiver<()>,
    started: bool,
    at: usize,
    /// What was read of the ledger from there on.
    late: Bytes,
    progress: u64,
    ended: bool,
}

/// What there is for a listener.
enum Ready {
    Event(JobEvent),
    InLedger(Kept),
    Nothing,
}

impl Listener {
    /// Leaves out the first so many bytes of output, which were heard before.
    pub fn skip_output(&mut self, bytes: usize) {
        self.at = bytes;
    }

    /// How many bytes of output there were with what was told so far.
    pub fn output_heard(&self) -> usize {
        self.at
    }

    /// What comes next; `None` after the end, and where output that was not heard yet is gone. Can be
    /// dropped and asked again without loss.
    pub async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if self.ended {
                return None;
            }
            self.changed.mark_unchanged();
            match self.ready() {
                Ready::Event(event) => return Some(event),
                Ready::InLedger(kept) => {
                    self.late = self.read(kept).await?;
                    continue;
                }
                Ready::Nothing => {}
            }
            // The feed is ours to keep, so its sender is there.
            self.changed.changed().await.ok()?;
        }
    }

    /// How the job ended, without what comes before.
    pub async fn end(&mut self) -> Option<Arc<JobEnd>> {
        // Output that nobody wants is neither copied nor read from the ledger.
        self.at = usize::MAX;
        self.late = Bytes::new();
        loop {
            match self.next().await? {
                JobEvent::Ended(end) => return Some(end),
                JobEvent::Started | JobEvent::Output(_) | JobEvent::Progress(_) => {}
            }
        }
    }

    /// More of the output, from the ledger.
    async fn read(&self, kept: Kept) -> Option<Bytes> {
        let read = kept.ledger.output_from(kept.job, self.at, LATE_BYTES_MAX);
        match read.await {
            // Removed for its age: who asks again is told so.
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                let error = crate::with_causes(&error);
                tracing::error!(job = %kept.job, error, "an output cannot be read");
                None
            }
        }
    }

    fn ready(&mut self) -> Ready {
        let state = self.feed.lock();
        if state.started && !self.started {
            self.started = true;
            return Ready::Event(JobEvent::Started);
        }
        if !self.late.is_empty() {
            let piece = self.late.split_to(self.late.len().min(PIECE_BYTES_MAX));
            self.at += piece.len();
            return Ready::Event(JobEvent::Output(piece));
        }
        if let Some(kept) = state.kept.as_ref().filter(|kept| self.at < kept.bytes) {
            return Ready::InLedger(kept.clone());
        }
        let rest = state.output.get(self.at..).unwrap_or_default();
        if !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE_BYTES_MAX)];
            self.at += piece.len();
            return Ready::Event(JobEvent::Output(Bytes::copy_from_slice(piece)));
        }
        if let (count, Some(progress)) = &state.progress
            && *count > self.progress
        {
            self.progress = *count;
            return Ready::Event(JobEvent::Progress(progress.clone()));
        }
        match state.end.clone() {
            Some(end) => {
                self.ended = true;
                Ready::Event(JobEvent::Ended(end))
            }
            None => Ready::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    async fn all(mut listener: Listener) -> Vec<JobEvent> {
        let mut events = Vec::new();
        while let Some(event) = listener.next().await {
            events.push(event);
        }
        events
    }

    #[test]
    fn whoever_listens_gets_all_from_the_start_at_its_own_pace() {
        let feed = Feed::new();
        let mut early = feed.listen();
        feed.start();
        assert_eq!(wait(early.next()), Some(JobEvent::Started));
        assert!(feed.output(b"one ", 1 << 20));
        assert_eq!(
            wait(early.next()),
            Some(JobEvent::Output(Bytes::from_static(b"one ")))
        );
        let large = vec![7; PIECE_BYTES_MAX + 1];
        assert!(feed.output(&large, 1 << 20));
        for done in 0..3 {
            let note = String::new();
            feed.progress(Progress {
                done,
                total: None,
                note,
            });
        }
        feed.end(Arc::new(JobEnd::Unrecorded));
        // Output in pieces, the newest progress alone, the end.
        assert_eq!(wait(all(early)).len(), 4);
        let late = wait(all(feed.listen()));
        let output: usize = late
            .iter()
            .map(|event| match event {
                JobEvent::Output(bytes) => bytes.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(output, PIECE_BYTES_MAX + 5);
        assert_eq!(late.first(), Some(&JobEvent::Started));
        assert!(matches!(late.last(), Some(JobEvent::Ended(_))));
    }

    #[test]
    fn who_comes_back_hears_the_rest() {
        let feed = Feed::new();
        feed.start();
        assert!(feed.output(b"one two", 1 << 20));
        let mut back = feed.listen();
        back.skip_output(4);
        assert_eq!(wait(back.next()), Some(JobEvent::Started));
        let rest = JobEvent::Output(Bytes::from_static(b"two"));
        assert_eq!(wait(back.next()), Some(rest));
        assert_eq!(back.output_heard(), 7);
        // A job that runs again after a crash has to come as far first.
        let mut early = feed.listen();
        early.skip_output(9);
        assert!(feed.output(b" three", 1 << 20));
        assert_eq!(wait(early.next()), Some(JobEvent::Started));
        let rest = JobEvent::Output(Bytes::from_static(b"hree"));
        assert_eq!(wait(early.next()), Some(rest));
    }

    #[test]
    fn an_output_that_the_ledger_has_is_not_kept_for_who_is_late() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&folder.path().join("l.sqlite")).unwrap());
        let end = Arc::new(JobEnd::Unrecorded);
        let limit = usize::try_from(LATE_BYTES_MAX).unwrap();
        for (bytes, is_kept) in [(limit, true), (limit + 1, false)] {
            let feed = Feed::new();
            let early = feed.listen();
            assert!(feed.output(&vec![7; bytes], u64::MAX));
            feed.end_in(&ledger, Digest::of(b"none"), Arc::clone(&end));
            assert_eq!(!feed.output_so_far().is_empty(), is_kept, "{bytes}");
            // Of this job the ledger has nothing (any more): the end would say that this was all.
            let heard = wait(all(early));
            let has_end = heard.contains(&JobEvent::Ended(Arc::clone(&end)));
            assert_eq!(has_end, is_kept, "{bytes}");
            // Who has heard everything needs nothing more.
            let mut done = feed.listen();
            done.skip_output(bytes);
            assert_eq!(wait(all(done)), [JobEvent::Ended(Arc::clone(&end))]);
        }
    }

    #[test]
    fn output_past_the_limit_is_not_kept() {
        let feed = Feed::new();
        assert!(feed.output(b"12345", 5));
        assert!(!feed.output(b"6", 5));
        assert_eq!(feed.output_so_far(), b"12345");
    }

    #[test]
    fn who_waits_is_woken() {
        wait(async {
            let feed = Feed::new();
            let mut listener = feed.listen();
            let (end, ()) = tokio::join!(listener.end(), async {
                tokio::task::yield_now().await;
                feed.output(b"x", 1);
                tokio::task::yield_now().await;
                feed.end(Arc::new(JobEnd::Unrecorded));
            });
            assert_eq!(end.as_deref(), Some(&JobEnd::Unrecorded));
            assert_eq!(listener.next().await, None);
        });
    }
}
