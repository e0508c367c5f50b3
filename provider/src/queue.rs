//! `Queue`: which accepted job runs next.
//!
//! In: jobs with who asks, what they offer, and how long they are worth anything. Out: the next
//! one, or why there is no place. Accounts take turns, so that one that asks for thousands of jobs
//! does not keep the others waiting; within an account the better price goes first, and of equal
//! prices the older job. Every number has a bound, and nothing here waits or reads a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tussah_manifest::{Digest, Nanograms};

use crate::ledger::AccountId;

/// The least and the most that anybody is told to wait before the next try.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_hours(1);
/// What a run is taken to last before any has ended.
const RUN_GUESS: Duration = Duration::from_secs(1);
/// Each run moves the estimate by an eighth of its distance, as TCP's round-trip time does
/// (RFC 6298).
const RUN_WEIGHT: u32 = 8;

/// How much may wait and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Jobs that run at a time, of all accounts.
    pub running_max: usize,
    /// Jobs that wait, of all accounts.
    pub queued_max: usize,
    /// Bytes of the inputs of jobs that wait or run, of all accounts.
    pub input_bytes_max: usize,
    /// Jobs of one account that run, unless the account has a limit of its own.
    pub account_running_max: usize,
    /// Jobs of one account that wait, unless the account has a limit of its own.
    pub account_queued_max: usize,
    /// Bytes of the inputs of one account's jobs.
    pub account_input_bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            running_max: 8,
            queued_max: 1024,
            input_bytes_max: 512 << 20,
            account_running_max: 8,
            account_queued_max: 256,
            account_input_bytes_max: 128 << 20,
        }
    }
}

/// Limits of one account, where they differ from all others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccountQueueLimits {
    /// Jobs that run at a time.
    pub running_max: Option<usize>,
    /// Jobs that wait.
    pub queued_max: Option<usize>,
}

/// A job that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its id.
    pub job: Digest,
    /// Who asked.
    pub account: AccountId,
    /// What it pays at most: more goes first, within its account.
    pub price_max: Nanograms,
    /// When it is worth nothing any more, in milliseconds since 1970.
    pub deadline_unix_ms: Option<u64>,
    /// Bytes of its input.
    pub input_bytes: usize,
}

/// Why there is no place for a job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    /// Too many wait.
    #[error("{waiting} jobs wait already, of at most {max}")]
    Everybody {
        /// How many wait.
        waiting: usize,
        /// How many can.
        max: usize,
        /// When another try may do.
        retry_after: Duration,
    },
    /// Too many of this account's wait.
    #[error("{waiting} of your jobs wait already, of at most {max}")]
    Account {
        /// How many wait.
        waiting: usize,
        /// How many can.
        max: usize,
        /// When another try may do.
        retry_after: Duration,
    },
    /// Their inputs take too much memory.
    #[error("the inputs of the jobs that wait take {waiting_bytes} bytes, of at most {max}")]
    Bytes {
        /// What they take.
        waiting_bytes: usize,
        /// What they can take.
        max: usize,
        /// When another try may do.
        retry_after: Duration,
    },
}

impl QueueFull {
    /// When another try may do.
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::Everybody { retry_after, .. }
            | Self::Account { retry_after, .. }
            | Self::Bytes { retry_after, .. } => *retry_after,
        }
    }
}

/// Where a job stands in its account's line: the better price, then the older.
type Place = (Reverse<Nanograms>, u64);

#[derive(Debug, Default)]
struct Line {
    limits: AccountQueueLimits,
    /// Places that were promised to jobs which are being written to the ledger.
    promised: usize,
    running: usize,
    input_bytes: usize,
    waiting: BTreeMap<Place, Waiting>,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.promised == 0 && self.running == 0 && self.waiting.is_empty()
    }
}

/// The jobs that wait, and how many run.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    lines: HashMap<AccountId, Line>,
    /// The accounts with waiting jobs, in the order of their turns.
    turns: VecDeque<AccountId>,
    /// Where each waiting job is.
    places: HashMap<Digest, (AccountId, Place)>,
    promised: usize,
    running: usize,
    input_bytes: usize,
    next: u64,
    run_estimate: Duration,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            places: HashMap::new(),
            promised: 0,
            running: 0,
            input_bytes: 0,
            next: 0,
            run_estimate: RUN_GUESS,
        }
    }

    /// Promises a place, before the job is written to the ledger. Whoever got one either
    /// [`Queue::push`]es the job or [`Queue::withdraw`]s.
    ///
    /// # Errors
    /// [`QueueFull`], with when to try again.
    pub fn promise(
        &mut self,
        account: AccountId,
        input_bytes: usize,
        limits: AccountQueueLimits,
    ) -> Result<(), QueueFull> {
        let waiting = self.places.len() + self.promised;
        let max = self.limits.queued_max;
        if waiting >= max {
            let retry_after = self.wait_estimate(waiting, self.limits.running_max);
            return Err(QueueFull::Everybody {
                waiting,
                max,
                retry_after,
            });
        }
        let (line_waiting, line_bytes, line_running) = match self.lines.get(&account) {
            Some(line) => {
                let waiting = line.waiting.len() + line.promised;
                (waiting, line.input_bytes, line.running)
            }
            None => (0, 0, 0),
        };
        let line_max = limits.queued_max.unwrap_or(self.limits.account_queued_max);
        if line_waiting >= line_max {
            let retry_after = self.wait_estimate(line_waiting, line_running);
            return Err(QueueFull::Account {
                waiting: line_waiting,
                max: line_max,
                retry_after,
            });
        }
        for (waiting_bytes, max) in [
            (self.input_bytes, self.limits.input_bytes_max),
            (line_bytes, self.limits.account_input_bytes_max),
        ] {
            if waiting_bytes.saturating_add(input_bytes) > max {
                let retry_after = self.wait_estimate(waiting, self.limits.running_max);
                return Err(QueueFull::Bytes {
                    waiting_bytes,
                    max,
                    retry_after,
                });
            }
        }
        self.hold(account, input_bytes, limits);
        Ok(())
    }

    /// Makes a place whatever the limits say: for jobs that were accepted before a restart.
    pub fn hold(&mut self, account: AccountId, input_bytes: usize, limits: AccountQueueLimits) {
        let line = self.lines.entry(account).or_default();
        line.limits = limits;
        line.promised += 1;
        line.input_bytes += input_bytes;
        self.promised += 1;
        self.input_bytes += input_bytes;
    }

    /// Gives a promised place back.
    pub fn withdraw(&mut self, account: AccountId, input_bytes: usize) {
        self.promised = self.promised.saturating_sub(1);
        self.input_bytes = self.input_bytes.saturating_sub(input_bytes);
        if let Some(line) = self.lines.get_mut(&account) {
            line.promised = line.promised.saturating_sub(1);
            line.input_bytes = line.input_bytes.saturating_sub(input_bytes);
        }
        self.forget_if_empty(account);
    }

    /// Puts a job at its promised place.
    pub fn push(&mut self, job: Waiting) {
        let place = (Reverse(job.price_max), self.next);
        self.next += 1;
        self.promised = self.promised.saturating_sub(1);
        let line = self.lines.entry(job.account).or_default();
        line.promised = line.promised.saturating_sub(1);
        if line.waiting.is_empty() {
            self.turns.push_back(job.account);
        }
        line.waiting.insert(place, job);
        self.places.insert(job.job, (job.account, place));
    }

    /// The next job to run, which counts as running from now on.
    pub fn pop(&mut self) -> Option<Waiting> {
        self.pop_where(|_| true)
    }

    /// The next of those jobs that may run now; the others keep their places.
    pub fn pop_where(&mut self, may_run: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        if self.running >= self.limits.running_max {
            return None;
        }
        // Each account is asked once: one that runs all it may keeps its turn for later.
        for _ in 0..self.turns.len() {
            let account = self.turns.pop_front()?;
            let Some(line) = self.lines.get_mut(&account) else {
                continue;
            };
            let max = line.limits.running_max;
            if line.running >= max.unwrap_or(self.limits.account_running_max) {
                self.turns.push_back(account);
                continue;
            }
            if line.waiting.is_empty() {
                continue;
            }
            let next = line.waiting.iter().find(|(_, job)| may_run(job));
            let next = next.map(|(place, _)| *place);
            let Some(job) = next.and_then(|place| line.waiting.remove(&place)) else {
                self.turns.push_back(account);
                continue;
            };
            line.running += 1;
            if !line.waiting.is_empty() {
                self.turns.push_back(account);
            }
            self.running += 1;
            self.places.remove(&job.job);
            return Some(job);
        }
        None
    }

    /// A job that [`Queue::pop`] gave has ended, after so long.
    pub fn finish(&mut self, job: &Waiting, took: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        self.input_bytes = self.input_bytes.saturating_sub(job.input_bytes);
        if let Some(line) = self.lines.get_mut(&job.account) {
            line.running = line.running.saturating_sub(1);
            line.input_bytes = line.input_bytes.saturating_sub(job.input_bytes);
        }
        if let Some(took) = took {
            let rest = self.run_estimate - self.run_estimate / RUN_WEIGHT;
            self.run_estimate = rest.saturating_add(took / RUN_WEIGHT);
        }
        self.forget_if_empty(job.account);
    }

    /// Takes a waiting job out; `None` if it does not wait.
    pub fn remove(&mut self, job: &Digest) -> Option<Waiting> {
        let (account, place) = self.places.remove(job)?;
        let line = self.lines.get_mut(&account)?;
        let removed = line.waiting.remove(&place)?;
        line.input_bytes = line.input_bytes.saturating_sub(removed.input_bytes);
        self.input_bytes = self.input_bytes.saturating_sub(removed.input_bytes);
        if line.waiting.is_empty() {
            self.turns.retain(|turn| *turn != account);
        }
        self.forget_if_empty(account);
        Some(removed)
    }

    /// Takes out all jobs whose deadline has passed.
    pub fn expire(&mut self, now_unix_ms: u64) -> Vec<Waiting> {
        let late = |job: &&Waiting| job.deadline_unix_ms.is_some_and(|at| at <= now_unix_ms);
        let waiting = self.lines.values().flat_map(|line| line.waiting.values());
        let expired: Vec<Digest> = waiting.filter(late).map(|job| job.job).collect();
        expired.iter().filter_map(|job| self.remove(job)).collect()
    }

    /// When the next waiting job's deadline passes.
    pub fn next_deadline(&self) -> Option<u64> {
        let waiting = self.lines.values().flat_map(|line| line.waiting.values());
        waiting.filter_map(|job| job.deadline_unix_ms).min()
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.places.len()
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How long so many jobs take, so many at a time.
    fn wait_estimate(&self, jobs: usize, at_a_time: usize) -> Duration {
        let rounds = jobs.div_ceil(at_a_time.max(1));
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        // Half of the line: what is asked is when there is a place, not when all is done.
        (self.run_estimate.saturating_mul(rounds) / 2).clamp(RETRY_MIN, RETRY_MAX)
    }

    fn forget_if_empty(&mut self, account: AccountId) {
        if self.lines.get(&account).is_some_and(Line::is_empty) {
            self.lines.remove(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        running_max: 3,
        queued_max: 20,
        input_bytes_max: 1000,
        account_running_max: 2,
        account_queued_max: 10,
        account_input_bytes_max: 500,
    };

    fn job(number: u8, account: i64, price: u64) -> Waiting {
        Waiting {
            job: Digest::of(&[number]),
            account: AccountId(account),
            price_max: Nanograms::new(price).unwrap(),
            deadline_unix_ms: None,
            input_bytes: 10,
        }
    }

    fn add(queue: &mut Queue, job: Waiting) {
        let limits = AccountQueueLimits::default();
        queue.promise(job.account, job.input_bytes, limits).unwrap();
        queue.push(job);
    }

    /// Runs everything, one job at a time, and says in which order.
    fn drain(queue: &mut Queue) -> Vec<Waiting> {
        let mut order = Vec::new();
        while let Some(job) = queue.pop() {
            queue.finish(&job, None);
            order.push(job);
        }
        order
    }

    #[test]
    fn accounts_take_turns_and_prices_count_within_one() {
        let mut queue = Queue::new(LIMITS);
        for number in 0..5 {
            add(&mut queue, job(number, 1, 0));
        }
        add(&mut queue, job(5, 1, 7));
        add(&mut queue, job(6, 2, 0));
        add(&mut queue, job(7, 3, 0));
        add(&mut queue, job(8, 2, 0));
        let order: Vec<_> = drain(&mut queue);
        let order: Vec<_> = order
            .iter()
            .map(|done| (0..9).find(|n| Digest::of(&[*n]) == done.job).unwrap())
            .collect();
        assert_eq!(order, [5, 6, 7, 0, 8, 1, 2, 3, 4]);
    }

    #[test]
    fn an_account_runs_no_more_than_it_may_and_holds_up_nobody() {
        let mut queue = Queue::new(LIMITS);
        for number in 0..4 {
            add(&mut queue, job(number, 1, 0));
        }
        add(&mut queue, job(4, 2, 0));
        let running: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let accounts: Vec<_> = running.iter().map(|job| job.account.0).collect();
        assert_eq!(accounts, [1, 2, 1]);
        queue.finish(&running[1], None);
        // A place is free, and the only account that waits runs its two.
        assert_eq!(queue.pop(), None);
        queue.finish(&running[0], None);
        assert_eq!(queue.pop().map(|job| job.account.0), Some(1));
    }

    #[test]
    fn what_may_not_run_yet_keeps_its_place_and_holds_up_nobody() {
        let mut queue = Queue::new(LIMITS);
        for number in 0..3 {
            add(&mut queue, job(number, 1, 0));
        }
        add(&mut queue, job(3, 2, 0));
        let first = queue.pop_where(|job| job.job != Digest::of(&[0]));
        assert_eq!(first.map(|job| job.job), Some(Digest::of(&[1])));
        let second = queue.pop_where(|job| job.account.0 != 1);
        assert_eq!(second.map(|job| job.job), Some(Digest::of(&[3])));
        assert_eq!(queue.pop_where(|_| false), None);
        assert_eq!(queue.pop().map(|job| job.job), Some(Digest::of(&[0])));
        assert_eq!((queue.waiting(), queue.running()), (1, 3));
    }

    #[test]
    fn each_bound_is_refused_by_name_and_says_when_to_come_back() {
        let none = AccountQueueLimits::default();
        let mut queue = Queue::new(LIMITS);
        for number in 0..10 {
            add(&mut queue, job(number, 1, 0));
        }
        let full = queue.promise(AccountId(1), 1, none).unwrap_err();
        assert_eq!(
            full.to_string(),
            "10 of your jobs wait already, of at most 10"
        );
        assert_eq!(full.retry_after(), Duration::from_secs(5));
        let one = AccountQueueLimits {
            queued_max: Some(1),
            ..none
        };
        add(&mut queue, job(10, 3, 0));
        assert!(matches!(
            queue.promise(AccountId(3), 1, one),
            Err(QueueFull::Account { max: 1, .. })
        ));
        assert!(matches!(
            queue.promise(AccountId(2), 501, none),
            Err(QueueFull::Bytes { max: 500, .. })
        ));
        // What is promised counts as what waits.
        for _ in 0..9 {
            queue.promise(AccountId(2), 1, none).unwrap();
        }
        let full = queue.promise(AccountId(4), 1, none).unwrap_err();
        assert_eq!(full.to_string(), "20 jobs wait already, of at most 20");
        queue.withdraw(AccountId(2), 1);
        queue.promise(AccountId(4), 1, none).unwrap();
    }

    #[test]
    fn what_is_late_or_cancelled_leaves_the_line() {
        let mut queue = Queue::new(LIMITS);
        let mut late = job(1, 1, 0);
        late.deadline_unix_ms = Some(100);
        add(&mut queue, late);
        add(&mut queue, job(2, 1, 0));
        assert_eq!(queue.next_deadline(), Some(100));
        assert_eq!(queue.expire(99), []);
        assert_eq!(queue.expire(100), [late]);
        assert_eq!(queue.next_deadline(), None);
        assert_eq!(
            queue.remove(&Digest::of(&[2])).map(|job| job.account.0),
            Some(1)
        );
        assert_eq!(queue.remove(&Digest::of(&[2])), None);
        assert_eq!((queue.waiting(), queue.pop()), (0, None));
        assert!(queue.lines.is_empty() && queue.turns.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_happens_the_counts_hold_and_nothing_is_lost(
            steps in prop::collection::vec((0u8..6, 0i64..4, 0u64..3), 0..300),
        ) {
            let mut queue = Queue::new(LIMITS);
            let (mut number, mut waiting, mut running) = (0u8, Vec::new(), Vec::new());
            for (step, account, price) in steps {
                match step {
                    0..=2 => {
                        let job = job(number, account, price);
                        let none = AccountQueueLimits::default();
                        if queue.promise(job.account, job.input_bytes, none).is_ok() {
                            queue.push(job);
                            waiting.push(job);
                            number = number.wrapping_add(1);
                        }
                    }
                    3 => if let Some(job) = queue.pop() {
                        waiting.retain(|other| other.job != job.job);
                        running.push(job);
                    },
                    4 => if let Some(job) = running.pop() {
                        queue.finish(&job, Some(Duration::from_secs(price)));
                    },
                    _ => if let Some(job) = waiting.pop() {
                        prop_assert_eq!(queue.remove(&job.job), Some(job));
                    },
                }
                prop_assert_eq!(queue.waiting(), waiting.len());
                prop_assert_eq!(queue.running(), running.len());
                prop_assert!(running.len() <= LIMITS.running_max);
                prop_assert_eq!(queue.input_bytes, (waiting.len() + running.len()) * 10);
                for line in queue.lines.values() {
                    prop_assert!(line.running <= LIMITS.account_running_max);
                    prop_assert!(line.waiting.len() <= LIMITS.account_queued_max);
                }
            }
            for job in running {
                queue.finish(&job, None);
            }
            prop_assert_eq!(drain(&mut queue).len(), waiting.len());
            prop_assert!(queue.lines.is_empty() && queue.turns.is_empty());
            prop_assert_eq!(queue.input_bytes, 0);
        }
    }
}
