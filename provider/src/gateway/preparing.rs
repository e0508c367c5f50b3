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

#[derive(Debug)]
struct GivenUp {
    account: AccountId,
    module: Digest,
}

impl Preparing {
    /// Whether a job of this account and module may go to the worker beside these runs.
    pub(super) fn may_begin(
        &self,
        runs: &HashMap<u64, Running>,
        account: AccountId,
        module: &Digest,
    ) -> bool {
        if self.ready.contains(module) {
            return true;
        }
        let under_way = runs.values().filter(|run| {
            run.clock.started.is_none()
                && run.live.waiting.account == account
                && !self.ready.contains(&run.live.manifest.module.digest)
        });
        let given_up = self.given_up.values().filter(|run| run.account == account);
        !self.is_full() && under_way.count() + given_up.count() < ACCOUNT_MAX
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
