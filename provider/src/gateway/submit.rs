//! Submission: from what a client asks to a job on the disk and in the queue.
//!
//! In: an account, a manifest, an input, what it may cost. Out: a ticket for a durable job, or a
//! typed refusal after which nothing is left behind. A client that leaves does not stop this
//! half-way.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tussah_manifest::{Channel, Claim, Digest, Manifest, Nanograms, Request};

use super::{
    Gateway, Inner, JobEnd, LimitTooHigh, Listener, Live, ModelNotOffered, NotVerified, PayError,
    SignerError, TooOften, now_unix_ms, queue_limits,
};
use crate::ledger::{
    Acceptance, Accepted, Account, AccountId, JobState, JobSummary, LedgerError, NewJob,
};
use crate::queue::QueueFull;
use crate::wire::WhoseFault;

/// Nonces that are tried where an earlier run of the same call was cut short, before one is drawn
/// that no later call shares.
pub(super) const ATTEMPTS_MAX: u32 = 8;
/// How long a job that is being accepted by another task is looked for.
const RACE_TRIES: u32 = 1000;

/// What is to be run, and who signed for it.
#[derive(Debug, Clone)]
pub enum Ask {
    /// The client's own signed request.
    Signed(Box<Request>),
    /// A request that this host signs for a client without a key.
    House {
        /// What it pays at most; if it does not say, the manifest's own cap, or what it comes to.
        price_max: Option<Nanograms>,
        /// Calls of one account with equal seeds and inputs are one job.
        seed: Option<u64>,
    },
}

/// A job as a client asks for it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who asks.
    pub account: Account,
    /// Who signs.
    pub ask: Ask,
    /// What is run.
    pub manifest: Manifest,
    /// On what.
    pub input: Vec<u8>,
    /// That the module comes from its source, where the provider asks for that.
    pub claim: Option<Box<Claim>>,
    /// The name under which it was asked for, if any.
    pub deployment: Option<String>,
    /// After so many milliseconds from now the answer is worth nothing.
    pub deadline_ms: Option<u64>,
    /// The longest it may run.
    pub time_max_ms: Option<u64>,
    /// Whether it goes on when nobody waits for it.
    pub keep: bool,
}

/// What a job can cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// What its limits allow, at this provider's prices: set aside while it runs.
    pub price_max: Nanograms,
    /// What the client pays at most: no more than the manifest allows.
    pub cap: Nanograms,
}

impl Quote {
    /// Whether the client pays whatever the job may come to. Else it is not taken: a provider
    /// would work for nothing from some point on.
    pub fn is_covered(&self) -> bool {
        self.price_max <= self.cap
    }
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The gateway is shutting down.
    #[error("the provider is shutting down")]
    Draining,
    /// No place in the queue.
    #[error(transparent)]
    Full(#[from] QueueFull),
    /// The account brings too many.
    #[error(transparent)]
    Often(#[from] TooOften),
    /// More input than the job takes, or this provider.
    #[error("the input has {bytes} bytes, of at most {max}")]
    InputTooLarge {
        /// How many there are.
        bytes: u64,
        /// How many there can be.
        max: u64,
    },
    /// The manifest allows more than this provider.
    #[error(transparent)]
    Limit(#[from] LimitTooHigh),
    /// A model that this provider does not offer.
    #[error(transparent)]
    Model(#[from] ModelNotOffered),
    /// A module without the claim that this provider asks for.
    #[error(transparent)]
    NotVerified(#[from] NotVerified),
    /// The module took too long to prepare the last time.
    #[error(
        "the module {module} took too long to make ready to run; it is tried again in {} s",
        left.as_secs() + 1
    )]
    Slow {
        /// The module.
        module: Digest,
        /// How long until then.
        left: Duration,
    },
    /// A file that the job needs is not here.
    #[error("this provider does not have the {what} {digest}")]
    Missing {
        /// `module`, or which model.
        what: String,
        /// Its digest.
        digest: Digest,
    },
    /// It can cost more than the client pays.
    #[error(
        "a run within the manifest's limits can cost {needed}, and is paid with {cap} at most; \
         raise what is paid, max_price_nanograms or the manifest's own, or lower the limits"
    )]
    PriceTooLow {
        /// The most it can cost.
        needed: Nanograms,
        /// The client's cap.
        cap: Nanograms,
    },
    /// The request is not a good one.
    #[error("the request is not valid: {0}")]
    Request(String),
    /// It would be paid where this gateway takes no pay.
    #[error("the request is paid through a channel, and this provider takes jobs on credit only")]
    Channel,
    /// The channel's book.
    #[error(transparent)]
    Pay(#[from] PayError),
    /// Its deadline has passed.
    #[error("the deadline has passed")]
    Late,
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The signer.
    #[error("no request could be signed")]
    Signer(#[from] SignerError),
    /// The system has no random numbers, or a task of ours failed.
    #[error("the provider failed: {0}")]
    Internal(String),
}

/// A durable job.
#[derive(Debug)]
pub struct Ticket {
    /// Its id.
    pub id: Digest,
    /// Whether it was there before.
    pub known: bool,
    /// What it says; a job that ended before says only that.
    pub news: News,
    watch: Option<Watch>,
}

/// Where a ticket's job is.
#[derive(Debug)]
pub enum News {
    /// It has not ended.
    Live(Listener),
    /// It ended, and this is how.
    Ended(Box<JobSummary>),
}

impl Ticket {
    /// Whether it is being ended before its time.
    fn is_cancelled(&self) -> bool {
        let watch = self.watch.as_ref();
        watch.is_some_and(|watch| watch.live.cancelled.load(Ordering::Acquire))
    }

    /// The job as the ledger has it after this end, of which its listener was told; `None` where
    /// only the ledger can say.
    pub(crate) fn ended(&self, end: &JobEnd) -> Option<JobSummary> {
        end.summary(&self.watch.as_ref()?.live)
    }

    /// Lets the job go on without us.
    pub fn leave(mut self) {
        if let Some(watch) = &mut self.watch {
            watch.live.keep.store(true, Ordering::Release);
        }
    }
}

/// Somebody who waits. When the last one leaves a job that nobody wants to keep, it is cancelled.
#[derive(Debug)]
struct Watch {
    live: Arc<Live>,
    inner: Weak<Inner>,
}

impl Watch {
    fn new(gateway: &Gateway, live: Arc<Live>, keep: bool) -> Self {
        live.watchers.fetch_add(1, Ordering::AcqRel);
        if keep {
            live.keep.store(true, Ordering::Release);
        }
        Self {
            live,
            inner: Arc::downgrade(&gateway.inner),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let gateway = Gateway { inner };
        // A runtime that is being taken down leaves the job to the next start.
        let runs_on = tokio::runtime::Handle::try_current().is_ok();
        let cancels = {
            // Nobody joins between the last one's leaving and the word that it is cancelled.
            let _state = gateway.lock();
            let last = self.live.watchers.fetch_sub(1, Ordering::AcqRel) == 1;
            let cancels = last && runs_on && !self.live.keep.load(Ordering::Acquire);
            if cancels {
                self.live.cancelled.store(true, Ordering::Release);
            }
            cancels
        };
        if cancels && gateway.cancel(&self.live.id) {
            tracing::info!(job = %self.live.id, "cancelled: its client has left");
        }
    }
}

/// A place in the queue that was promised, given back if nothing comes of it.
struct Place {
    gateway: Gateway,
    account: AccountId,
    input_bytes: usize,
    is_taken: bool,
}

impl Place {
    /// Within what the account may bring.
    fn promise(gateway: &Gateway, submission: &Submission) -> Result<Self, SubmitError> {
        let (account, input_bytes) = (&submission.account, submission.input.len());
        let own = account.limits.per_minute_max;
        let max = own.or(gateway.inner.config.account_per_minute_max);
        let (limits, now) = (queue_limits(account), gateway.inner.since.elapsed());
        let mut state = gateway.lock();
        state.rates.check(account.id, max, now)?;
        state.queue.promise(account.id, input_bytes, limits)?;
        state.rates.count(account.id, max, now);
        drop(state);
        Ok(Self {
            gateway: gateway.clone(),
            account: account.id,
            input_bytes,
            is_taken: false,
        })
    }

    /// The job is put there.
    fn take(mut self) {
        self.is_taken = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_taken {
            let mut state = self.gateway.lock();
            state.queue.withdraw(self.account, self.input_bytes);
        }
    }
}

impl Gateway {
    /// What a job of this manifest can cost, and what a client pays for it at most: what it names
    /// as `price_max` and what the manifest allows, whichever is less. A manifest that says nothing
    /// leaves it to the client, and a client that says nothing pays what it comes to.
    pub fn quote(&self, manifest: &Manifest, price_max: Option<Nanograms>) -> Quote {
        let needed = self.inner.config.prices.price_max(&manifest.job.limits);
        let of_manifest = manifest.job.price_nanograms_max;
        let of_manifest = (of_manifest > Nanograms::ZERO).then_some(of_manifest);
        let cap = match (price_max, of_manifest) {
            (Some(client), Some(manifest)) => client.min(manifest),
            (Some(cap), None) | (None, Some(cap)) => cap,
            (None, None) => needed,
        };
        Quote {
            price_max: needed,
            cap,
        }
    }

    pub(super) fn covered_quote(
        &self,
        manifest: &Manifest,
        price_max: Option<Nanograms>,
    ) -> Result<Quote, SubmitError> {
        let quote = self.quote(manifest, price_max);
        if quote.is_covered() {
            Ok(quote)
        } else {
            Err(SubmitError::PriceTooLow {
                needed: quote.price_max,
                cap: quote.cap,
            })
        }
    }

    /// Takes a job: durable when this returns. A job that is known is answered as it is.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was taken.
    pub async fn submit(&self, submission: Submission) -> Result<Ticket, SubmitError> {
        let gateway = self.clone();
        // A client that leaves meanwhile must not leave half of it behind.
        let task = tokio::spawn(async move { gateway.submit_now(submission).await });
        let result = task
            .await
            .map_err(|error| SubmitError::Internal(error.to_string()))?;
        let metrics = &self.inner.metrics;
        match &result {
            Ok(ticket) if ticket.known => metrics.known.add(1),
            Ok(_) => metrics.accepted.add(1),
            Err(SubmitError::Full(_) | SubmitError::Often(_)) => metrics.refused_full.add(1),
            Err(_) => metrics.refused.add(1),
        }
        result
    }

    async fn submit_now(&self, submission: Submission) -> Result<Ticket, SubmitError> {
        if self.is_draining() {
            return Err(SubmitError::Draining);
        }
        if let Some(ticket) = self.known_signed(&submission).await? {
            return Ok(ticket);
        }
        let taken = self.submit_new(&submission).await;
        if let (Err(refused), Ask::Signed(request)) = (&taken, &submission.ask)
            && refused.is_before_a_place()
        {
            self.give_up_place(request).await;
        }
        taken
    }

    async fn submit_new(&self, submission: &Submission) -> Result<Ticket, SubmitError> {
        self.admit(submission)?;
        let now = now_unix_ms();
        let deadline = submission.deadline_ms.map(|ms| now.saturating_add(ms));
        let is_seeded = matches!(submission.ask, Ask::House { seed: Some(_), .. });
        for attempt in 0..=ATTEMPTS_MAX {
            let ticket = self.attempt(submission, attempt, deadline, now).await?;
            // An answer that was cut short, or is being cut short, is nobody's answer to the next call.
            let is_cut = match &ticket.news {
                News::Ended(job) => !is_answer(job),
                News::Live(_) => ticket.is_cancelled(),
            };
            if !(is_seeded && is_cut) {
                return Ok(ticket);
            }
        }
        let message = "a call with a nonce of its own was known";
        Err(SubmitError::Internal(message.to_owned()))
    }

    /// A client's own request that was taken before is that job, whatever would be said to a new
    /// one by now: that its deadline has passed, that prices rose, that there is no place.
    async fn known_signed(&self, submission: &Submission) -> Result<Option<Ticket>, SubmitError> {
        let Ask::Signed(request) = &submission.ask else {
            return Ok(None);
        };
        let id = request.body.job_id();
        match self.inner.ledger.job(&id)? {
            Some(_) => self.known(&id, submission).await.map(Some),
            None => Ok(None),
        }
    }

    /// Memory is promised before anybody signs, so that what finds no place costs nothing.
    async fn attempt(
        &self,
        submission: &Submission,
        attempt: u32,
        deadline: Option<u64>,
        now: u64,
    ) -> Result<Ticket, SubmitError> {
        let draft = self.draft(submission, attempt, deadline, now)?;
        let id = draft.body().job_id();
        if let Some(ticket) = self.known_live(&id, submission).await? {
            return Ok(ticket);
        }
        let place = Place::promise(self, submission)?;
        let (reserve, deadline_unix_ms) = (draft.quote.price_max, draft.deadline);
        let new = NewJob {
            request: self.signed(draft).await?,
            manifest: submission.manifest.clone(),
            input: submission.input.clone(),
            account: submission.account.id,
            deployment: submission.deployment.clone(),
            reserve,
            deadline_unix_ms,
            time_max_ms: submission.time_max_ms,
            keep: submission.keep,
            opening: None,
        };
        self.take(submission, new, place, now).await
    }

    /// Writes the job down, and puts it at its place.
    async fn take(
        &self,
        submission: &Submission,
        mut new: NewJob,
        place: Place,
        now: u64,
    ) -> Result<Ticket, SubmitError> {
        let id = new.request.body.job_id();
        let limits = queue_limits(&submission.account);
        let mut taken = None;
        if let Channel::Ton { address, .. } = new.request.body.channel {
            let turn = self.inner.turns.wait(&address).await;
            // A job that has ended has its place in the channel: to ask for it again would be
            // refused.
            if self.inner.ledger.job(&id)?.is_some() {
                drop(turn);
                return self.known(&id, submission).await;
            }
            // What the ledger would refuse must not get a place, where no receipt would ever come.
            new.check()?;
            taken = Some(self.take_place(&mut new, address, turn).await?);
        }
        let accepted = Accepted {
            request: new.request.clone(),
            manifest: new.manifest.clone(),
            input: new.input.clone(),
            account: new.account,
            deployment: new.deployment.clone(),
            accepted_unix_ms: now,
            deadline_unix_ms: new.deadline_unix_ms,
            time_max_ms: new.time_max_ms,
            reserve: new.reserve,
            keep: new.keep,
        };
        let live = Arc::new(Live::of(accepted, limits));
        let accepted = self.inner.ledger.accept(new, now).await;
        if let (Err(error), Some(place)) = (&accepted, taken) {
            self.give_back(place, error).await;
        }
        match accepted? {
            Acceptance::New => {
                place.take();
                let mut state = self.lock();
                if self.is_draining() {
                    // It is in the ledger, and nobody would end its feed any more.
                    live.feed.end(Arc::new(JobEnd::Postponed));
                }
                state.live.insert(id, Arc::clone(&live));
                state.queue.push(live.waiting);
                drop(state);
                let listener = live.feed.listen();
                let watch = Watch::new(self, live, submission.keep);
                self.inner.changed.notify_waiters();
                self.dispatch();
                Ok(Ticket {
                    id,
                    known: false,
                    news: News::Live(listener),
                    watch: Some(watch),
                })
            }
            Acceptance::Known(_) => {
                drop(place);
                self.known(&id, submission).await
            }
        }
    }

    /// A job that lives; kept from now on, also by the ledger, if this submission wants it so.
    async fn known_live(
        &self,
        id: &Digest,
        submission: &Submission,
    ) -> Result<Option<Ticket>, SubmitError> {
        let (watch, was_kept) = {
            let state = self.lock();
            let live = state.live.get(id);
            let live = live.filter(|live| live.waiting.account == submission.account.id);
            let Some(live) = live else {
                return Ok(None);
            };
            let was_kept = live.keep.load(Ordering::Acquire);
            let watch = Watch::new(self, Arc::clone(live), submission.keep);
            (watch, was_kept)
        };
        if submission.keep && !was_kept {
            self.inner.ledger.keep(*id).await?;
        }
        Ok(Some(Ticket {
            id: *id,
            known: true,
            news: News::Live(watch.live.feed.listen()),
            watch: Some(watch),
        }))
    }

    /// A job that the ledger knows: it lives, or it has ended, or another task is just putting it
    /// into the queue or taking it out.
    async fn known(&self, id: &Digest, submission: &Submission) -> Result<Ticket, SubmitError> {
        for _ in 0..RACE_TRIES {
            if let Some(ticket) = self.known_live(id, submission).await? {
                return Ok(ticket);
            }
            let job = self.inner.ledger.job(id)?.ok_or(LedgerError::NoJob(*id))?;
            if job.account != submission.account.id {
                let message = "another account has sent this request".to_owned();
                return Err(SubmitError::Request(message));
            }
            if job.state != JobState::Accepted {
                return Ok(Ticket {
                    id: *id,
                    known: true,
                    news: News::Ended(Box::new(job)),
                    watch: None,
                });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let message = "the job's end could not be written down; it runs again after a restart";
        Err(SubmitError::Internal(message.to_owned()))
    }
}

/// Whether a job's end is what another run of it would come to, and all of it is still here.
fn is_answer(job: &JobSummary) -> bool {
    if job.pruned_unix_ms.is_some() {
        return false;
    }
    match JobEnd::of(job) {
        Some(JobEnd::Receipt { receipt, .. }) => receipt.consensus.exit.is_rerunnable(),
        _ => false,
    }
}

/// Ends jobs that waited past their deadlines, for as long as the gateway is there.
pub(super) async fn expire(inner: Weak<Inner>) {
    /// How often to look for new deadlines, and whether the gateway is still there.
    const IDLE: Duration = Duration::from_millis(250);
    loop {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let pause = Gateway { inner }.expire_now();
        tokio::time::sleep(pause.map_or(IDLE, |pause| pause.min(IDLE))).await;
    }
}

impl Gateway {
    /// Ends what is late; how long until the next is.
    fn expire_now(&self) -> Option<Duration> {
        let now = now_unix_ms();
        let (late, next, _ending) = {
            let mut state = self.lock();
            let ending = self.about_to_end();
            let expired = state.queue.expire(now);
            let late: Vec<_> = expired
                .iter()
                .filter_map(|waiting| state.live.get(&waiting.job).cloned())
                .collect();
            (late, state.queue.next_deadline(), ending)
        };
        for live in late {
            let message = "its deadline passed before it ran";
            self.end_without_run(live, WhoseFault::Provider, 4, message);
        }
        next.map(|at| Duration::from_millis(at.saturating_sub(now).max(1)))
    }
}
