//! Modules that are being made ready to run: how many of one account at a time, and which took too
//! long.
//!
//! In: runs that began, runs that were given up before they did. Out: whether a job may be handed
//! to the worker now. A compiler at work cannot be stopped, so that modules which take long could
//! take all of a worker: each account has few of them under way, and those that were given up count
//! until the worker is done with them. Jobs of modules that began once are held up by none of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use tussah_manifest::Digest;

use super::worker::Running;
use crate::ledger::AccountId;

/// Runs of one account whose modules have not begun anywhere yet, and which are being made ready.
const ACCOUNT_MAX: usize = 2;
/// Runs that were given up before they began, and that a worker may still be at. With one more, the
/// worker is started anew as soon as no run of it has begun.
pub(super) const GIVEN_UP_MAX: usize = 4;
/// How long a module that took too long to prepare is not tried again.
const SLOW_PAUSE: Duration = Duration::from_secs(600);
/// Modules that are remembered as too slow to prepare.
const SLOW_MAX: usize = 1024;
/// Modules that are remembered as ready in time.
const READY_MAX: usize = 4096;

/// What is known of how long modules take.
#[derive(Debug, Default)]
pub(super) struct Preparing {
    /// Runs that were given up, and that this worker is still at.
    given_up: BTreeMap<u64, GivenUp>,
    /// Since when there have been too many of them.
    full_since: Option<Instant>,
    /// Modules that took too long, and when that was.
    slow: HashMap<Digest, Instant>,
    /// Modules that began once: what they took then they take again at most.
    ready: HashSet<Digest>,
}

/// Runs whose modules are being made ready, of each account.
#[derive(Debug, Default)]
pub(super) struct UnderWay(HashMap<AccountId, usize>);

impl UnderWay {
    /// One more, if its module has not begun anywhere yet.
    pub(super) fn add(&mut self, preparing: &Preparing, account: AccountId, module: &Digest) {
        if !preparing.ready.contains(module) {
            *self.0.entry(account).or_default() += 1;
        }
    }
}

#[derive(Debug)]
struct GivenUp {
    account: AccountId,
    module: Digest,
}

impl Preparing {
    /// How many runs each account has under way whose modules have not begun anywhere yet, with those that
    /// were given up.
    pub(super) fn under_way(&self, runs: &HashMap<u64, Running>) -> UnderWay {
        let mut under_way = UnderWay::default();
        for run in runs.values().filter(|run| run.clock.started.is_none()) {
            under_way.add(
                self,
                run.live.waiting.account,
                &run.live.manifest.module.digest,
            );
        }
        for run in self.given_up.values() {
            *under_way.0.entry(run.account).or_default() += 1;
        }
        under_way
    }

    /// Whether a job of this account and module may go to the worker beside those. It is asked of every job
    /// that waits, with the gateway's state locked, and so looks at no run.
    pub(super) fn may_begin(
        &self,
        under_way: &UnderWay,
        account: AccountId,
        module: &Digest,
    ) -> bool {
        let of_account = under_way.0.get(&account).copied().unwrap_or_default();
        self.ready.contains(module) || (!self.is_full() && of_account < ACCOUNT_MAX)
    }

    /// Remembers that a module began; whether that is news.
    pub(super) fn began(&mut self, module: Digest) -> bool {
        self.slow.remove(&module);
        if self.ready.len() >= READY_MAX && !self.ready.contains(&module) {
            self.ready.clear();
        }
        self.ready.insert(module)
    }

    /// Gives a run up that did not begin, and leaves its module alone for a while; whether it does.
    /// One that was ready in time before is not to blame at once: the machine may have been busy.
    pub(super) fn give_up(&mut self, run: u64, account: AccountId, module: Digest) -> bool {
        self.given_up.insert(run, GivenUp { account, module });
        if self.is_full() {
            self.full_since.get_or_insert_with(Instant::now);
        }
        if self.ready.remove(&module) {
            return false;
        }
        self.slow.retain(|_, since| since.elapsed() < SLOW_PAUSE);
        if self.slow.len() < SLOW_MAX {
            self.slow.insert(module, Instant::now());
        }
        true
    }

    /// Whether nobody waits for this run any more.
    pub(super) fn is_given_up(&self, run: u64) -> bool {
        self.given_up.contains_key(&run)
    }

    /// A run that was given up has begun after all: its module is ready.
    pub(super) fn began_late(&mut self, run: u64) {
        if let Some(module) = self.given_up.get(&run).map(|run| run.module) {
            self.began(module);
        }
    }

    /// The worker is done with a run that was given up.
    pub(super) fn ended(&mut self, run: u64) {
        self.given_up.remove(&run);
        if !self.is_full() {
            self.full_since = None;
        }
    }

    /// There is another worker, or none.
    pub(super) fn worker_is_gone(&mut self) {
        self.given_up.clear();
        self.full_since = None;
    }

    /// How many runs the worker is at that were given up.
    pub(super) fn given_up(&self) -> usize {
        self.given_up.len()
    }

    /// Whether there are so many of them that the worker has to go.
    pub(super) fn is_full(&self) -> bool {
        self.given_up.len() > GIVEN_UP_MAX
    }

    /// Since when it has had to.
    pub(super) fn full_since(&self) -> Option<Instant> {
        self.full_since
    }

    /// How long a module is not tried, because it took too long.
    pub(super) fn is_slow(&self, module: &Digest) -> Option<Duration> {
        let since = self.slow.get(module)?.elapsed();
        SLOW_PAUSE.checked_sub(since).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_makes_few_modules_ready_at_a_time() {
        let mut preparing = Preparing::default();
        let (one, other) = (AccountId(1), AccountId(2));
        let (known, new) = (Digest::of(b"known"), Digest::of(b"new"));
        preparing.began(known);
        let mut under_way = preparing.under_way(&HashMap::new());
        for _ in 0..ACCOUNT_MAX {
            assert!(preparing.may_begin(&under_way, one, &new));
            // One that is ready takes no place of these.
            under_way.add(&preparing, one, &known);
            under_way.add(&preparing, one, &new);
        }
        assert!(!preparing.may_begin(&under_way, one, &new));
        assert!(preparing.may_begin(&under_way, one, &known));
        assert!(preparing.may_begin(&under_way, other, &new));
        // What was given up counts until the worker is done with it.
        for run in 0..2 {
            preparing.give_up(run, other, new);
        }
        let under_way = preparing.under_way(&HashMap::new());
        assert!(!preparing.may_begin(&under_way, other, &new));
        preparing.ended(0);
        let under_way = preparing.under_way(&HashMap::new());
        assert!(preparing.may_begin(&under_way, other, &new));
    }

    #[test]
    fn a_module_that_was_ready_before_is_slow_the_second_time_alone() {
        let mut preparing = Preparing::default();
        let (account, known, new) = (AccountId(1), Digest::of(b"known"), Digest::of(b"new"));
        assert!(preparing.began(known));
        assert!(!preparing.give_up(1, account, known));
        assert_eq!(preparing.is_slow(&known), None);
        assert!(preparing.give_up(2, account, known));
        assert!(preparing.is_slow(&known).is_some());
        assert!(preparing.give_up(3, account, new));
        assert!(preparing.is_slow(&new).is_some());
        // Late, and ready all the same.
        preparing.began_late(2);
        assert_eq!(preparing.is_slow(&known), None);
    }
}
