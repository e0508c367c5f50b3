//! `Sights`: when each channel was last seen on its chain, and with which of them that is enough.
//!
//! In: what the watch saw, and of which second the chain's answer was. Out: whether a job may be
//! taken. A client that starts to close a channel is seen at the next look: no job is taken on a
//! sight so old that the window could be over before its voucher is posted.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tussah_commit::ChannelView;
use tussah_provider::gateway::ChannelCounts;
use tussah_settlement::{Address, channel::ChannelStatus, voucher::ChannelId};

use crate::clock;

/// A sight is good for a quarter of the window that a close leaves: what is left is for posting.
const WINDOW_PARTS: u32 = 4;
/// And for no longer than that.
const AGE_MAX: Duration = Duration::from_hours(6);

/// One opening of one channel.
type Key = (Address, [u8; 32]);

/// The channels that are not over, and what was seen of them.
#[derive(Debug, Default)]
pub(super) struct Sights(Mutex<HashMap<Key, Watched>>);

#[derive(Clone, Copy, Debug)]
struct Watched {
    /// None, until the chain has borne the book out since the start.
    seen: Option<Sight>,
    age_max: Duration,
}

/// A moment by both clocks of this machine: one stands still while it sleeps, the other is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    instant: Instant,
    second: u32,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            second: clock::seconds(),
        }
    }

    fn since(self, before: Self) -> Duration {
        let by_clock = Duration::from_secs(self.second.saturating_sub(before.second).into());
        let run = self.instant.saturating_duration_since(before.instant);
        run.max(by_clock)
    }
}

/// A look at a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    at: Moment,
    /// How old the chain's answer was: a server can be behind, or stand still.
    behind: Duration,
}

impl Sight {
    /// One that began at `at`, of a chain whose newest block was of the second `chain_time`.
    pub(super) fn new(at: Moment, chain_time: u32) -> Self {
        Self {
            at,
            behind: Duration::from_secs(at.second.saturating_sub(chain_time).into()),
        }
    }

    fn age(&self, now: Moment) -> Duration {
        now.since(self.at).saturating_add(self.behind)
    }
}

/// Why no job is taken through a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The chain has not borne the book out since the start.
    Never,
    /// It was so long ago.
    Since(Duration),
}

impl Sights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which channels there are by now; what was seen of them stays.
    pub(super) fn keep<'a>(&self, views: impl Iterator<Item = &'a ChannelView>) {
        let mut watched = self.lock();
        let before = std::mem::take(&mut *watched);
        for view in views {
            let key = key(&view.record.id);
            let known = before.get(&key);
            let age_max = age_max(view.record.terms.challenge_seconds);
            let seen = known.and_then(|known| known.seen);
            watched.insert(key, Watched { seen, age_max });
        }
    }

    /// The chain has borne the book out.
    pub(super) fn saw(&self, id: &ChannelId, sight: Sight) {
        if let Some(watched) = self.lock().get_mut(&key(id)) {
            watched.seen = Some(sight);
        }
    }

    /// The chain has something that the book lacks.
    pub(super) fn doubt(&self, id: &ChannelId) {
        if let Some(watched) = self.lock().get_mut(&key(id)) {
            watched.seen = None;
        }
    }

    /// Whether it was seen of late.
    pub(super) fn require(&self, id: &ChannelId, now: Moment) -> Result<(), Unseen> {
        match self.lock().get(&key(id)) {
            Some(watched) => watched.require(now),
            // It was taken in a moment ago.
            None => Err(Unseen::Never),
        }
    }

    /// How many there are, and how many of them were not seen of late.
    pub(super) fn counts(&self, now: Moment) -> ChannelCounts {
        let watched = self.lock();
        let unseen = |watched: &&Watched| watched.require(now).is_err();
        ChannelCounts {
            watched: watched.len(),
            unseen: watched.values().filter(unseen).count(),
        }
    }
}

impl Watched {
    fn require(&self, now: Moment) -> Result<(), Unseen> {
        let seen = self.seen.ok_or(Unseen::Never)?;
        let age = seen.age(now);
        match age <= self.age_max {
            true => Ok(()),
            false => Err(Unseen::Since(age)),
        }
    }
}

/// The newest opening of each channel that is not over.
pub(super) fn to_watch(views: Vec<ChannelView>) -> Vec<ChannelView> {
    let mut newest: HashMap<Address, ChannelView> = HashMap::new();
    for view in views {
        newest.insert(view.record.id.address.clone(), view);
    }
    let mut views: Vec<ChannelView> = newest.into_values().collect();
    views.retain(|view| view.status != ChannelStatus::Closed);
    views.sort_by(|one, other| one.record.id.address.cmp(&other.record.id.address));
    views
}

fn key(id: &ChannelId) -> Key {
    (id.address.clone(), id.incarnation)
}

fn age_max(challenge_seconds: u32) -> Duration {
    AGE_MAX.min(Duration::from_secs(
        (challenge_seconds / WINDOW_PARTS).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(moment: Moment, seconds: u32) -> Moment {
        Moment {
            instant: moment.instant + Duration::from_secs(seconds.into()),
            second: moment.second + seconds,
        }
    }

    #[test]
    fn a_sight_is_as_old_as_the_clock_that_went_on_says() {
        let start = Moment::now();
        let slept = Moment {
            second: start.second + 900,
            ..start
        };
        let set_back = Moment {
            second: start.second - 900,
            ..later(start, 30)
        };
        for (now, chain_time, expected, reason) in [
            (start, start.second, 0, "at once"),
            (later(start, 60), start.second, 60, "a minute later"),
            (slept, start.second, 900, "the machine slept"),
            (set_back, start.second, 30, "its clock was set"),
            (later(start, 5), start.second - 100, 105, "a server behind"),
            (later(start, 5), start.second + 9_999, 5, "a chain ahead"),
        ] {
            let age = Sight::new(start, chain_time).age(now);
            assert_eq!(age.as_secs(), expected, "{reason}");
        }
    }

    #[test]
    fn a_sight_is_good_for_a_quarter_of_the_window() {
        let start = Moment::now();
        for (challenge, good_seconds) in [
            (0, 0),
            (3_600, 900),
            (12 * 3_600, 3 * 3_600),
            (24 * 3_600, 6 * 3_600),
            (720 * 3_600, 6 * 3_600),
        ] {
            let watched = Watched {
                seen: Some(Sight::new(start, start.second)),
                age_max: age_max(challenge),
            };
            assert_eq!(watched.require(later(start, good_seconds)), Ok(()));
            let late = watched.require(later(start, good_seconds + 1));
            assert!(matches!(late, Err(Unseen::Since(_))), "{challenge}");
        }
    }
}
