//! What is loaded stays loaded while there is room: the least recently used goes first.
//!
//! In: keys, sizes, and how to load what is not there. Out: shared values. One that somebody
//! uses is never taken out. Each is loaded once however many ask for it, few at a time, and nobody
//! waits on when what it asked for is not wanted any more.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tussah_inference::CancelToken;

/// How often one that waits looks whether something is used no more, or it is to leave.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Values that are loaded at a time. A load goes on when nobody waits for it any more, and so holds
/// a thread that nobody can have back; the disk is busy with fewer.
const LOADS_MAX: usize = 4;

/// Values by key, of so many bytes in all.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    bytes_max: u64,
    /// How long to wait until something is used no more.
    wait_max: Duration,
    state: Mutex<State<K, V>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<K, V> {
    places: BTreeMap<K, Place<V>>,
    /// Places that are being filled.
    loads: usize,
    /// How often anything was asked for.
    asked: u64,
}

#[derive(Debug)]
struct Place<V> {
    bytes: u64,
    /// `None` while it is being loaded.
    value: Option<V>,
    /// At which question it was asked for last.
    last: u64,
}

/// Who can say whether a value is used besides where it is kept.
pub(crate) trait InUse: Clone {
    /// Whether it is.
    fn in_use(&self) -> bool;
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes {bytes} bytes, and models in use have {used} of the {bytes_max} bytes for models"
)]
pub(crate) struct NoRoom {
    bytes: u64,
    used: u64,
    bytes_max: u64,
}

/// Whoever asked left before it was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job ended before its model was loaded")]
pub(crate) struct Left;

/// How a load can fail.
pub(crate) trait LoadFailure: From<NoRoom> + From<Left> {
    /// Whether there may be room after all once nothing is kept that nobody uses.
    fn is_out_of_memory(&self) -> bool;
}

impl<K: Ord + Clone, V: InUse> Kept<K, V> {
    /// Room for so many bytes.
    pub(crate) fn new(bytes_max: u64, wait_max: Duration) -> Self {
        Self {
            bytes_max,
            wait_max,
            state: Mutex::new(State {
                places: BTreeMap::new(),
                loads: 0,
                asked: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// What is kept under a key, or what `load` gives, which takes so many bytes. Blocks while
    /// another thread loads it or too many load others, and for a while if there is no room; not
    /// after `cancel`. A load that runs out of memory is tried once more without what nobody uses.
    ///
    /// # Errors
    /// What `load` says, [`NoRoom`], or [`Left`].
    pub(crate) fn get<E: LoadFailure>(
        &self,
        key: &K,
        bytes: u64,
        cancel: &CancelToken,
        load: impl Fn() -> Result<V, E>,
    ) -> Result<V, E> {
        let begun = Instant::now();
        let mut state = self.lock();
        state.asked += 1;
        loop {
            let last = state.asked;
            let is_busy = state.loads >= LOADS_MAX;
            match state.places.get_mut(key) {
                Some(Place {
                    value: Some(value),
                    last: at,
                    ..
                }) => {
                    *at = last;
                    return Ok(value.clone());
                }
                _ if cancel.is_cancelled() => return Err(Left.into()),
                // If it fails for the other thread, we try.
                Some(_) => state = self.wait(state),
                None if is_busy => state = self.wait(state),
                None => match state.make_room(bytes, self.bytes_max) {
                    Ok(gone) => {
                        let place = Place {
                            bytes,
                            value: None,
                            last,
                        };
                        state.places.insert(key.clone(), place);
                        state.loads += 1;
                        drop(state);
                        drop(gone);
                        break;
                    }
                    Err(no_room) if bytes > self.bytes_max || begun.elapsed() > self.wait_max => {
                        return Err(no_room.into());
                    }
                    Err(_) => state = self.wait(state),
                },
            }
        }
        let mut loading = Loading {
            kept: self,
            key,
            value: None,
        };
        let value = match load() {
            Err(error) if error.is_out_of_memory() && self.drop_unused() => load()?,
            loaded => loaded?,
        };
        loading.value = Some(value.clone());
        Ok(value)
    }

    /// Drops all that nobody uses; whether there was anything.
    fn drop_unused(&self) -> bool {
        let gone = self.lock().take_out(|place| place.is_free());
        !gone.is_empty()
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<K, V>>) -> MutexGuard<'a, State<K, V>> {
        let waited = self.changed.wait_timeout(state, LOOK_INTERVAL);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: InUse> Place<V> {
    /// Whether it is loaded, and nobody uses it.
    fn is_free(&self) -> bool {
        self.value.as_ref().is_some_and(|value| !value.in_use())
    }
}

impl<K: Ord + Clone, V: InUse> State<K, V> {
    fn take_out(&mut self, mut goes: impl FnMut(&Place<V>) -> bool) -> Vec<V> {
        let gone = self.places.extract_if(.., |_, place| goes(place));
        gone.filter_map(|(_, place)| place.value).collect()
    }

    /// Takes out as many values that nobody uses as it takes, the oldest first; none if that is
    /// not enough.
    fn make_room(&mut self, bytes: u64, bytes_max: u64) -> Result<Vec<V>, NoRoom> {
        let mut used: u64 = self.places.values().map(|place| place.bytes).sum();
        let mut free: Vec<_> = self
            .places
            .iter()
            .filter(|(_, place)| place.is_free())
            .collect();
        free.sort_by_key(|(_, place)| place.last);
        let mut going = Vec::new();
        for (key, place) in free {
            if used.saturating_add(bytes) <= bytes_max {
                break;
            }
            used -= place.bytes;
            going.push(key.clone());
        }
        if used.saturating_add(bytes) > bytes_max {
            return Err(NoRoom {
                bytes,
                used,
                bytes_max,
            });
        }
        let gone = going
            .iter()
            .filter_map(|key| self.places.remove(key)?.value);
        Ok(gone.collect())
    }
}

/// A place that is being filled; empty again if that fails, whatever way.
struct Loading<'a, K: Ord + Clone, V: InUse> {
    kept: &'a Kept<K, V>,
    key: &'a K,
    value: Option<V>,
}

impl<K: Ord + Clone, V: InUse> Drop for Loading<'_, K, V> {
    fn drop(&mut self) {
        let mut state = self.kept.lock();
        state.loads = state.loads.saturating_sub(1);
        match (self.value.take(), state.places.get_mut(self.key)) {
            (Some(value), Some(place)) => place.value = Some(value),
            _ => {
                state.places.remove(self.key);
            }
        }
        drop(state);
        self.kept.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    impl InUse for Arc<String> {
        fn in_use(&self) -> bool {
            Arc::strong_count(self) > 1
        }
    }

    type Names = Kept<&'static str, Arc<String>>;

    #[derive(Debug, PartialEq)]
    enum Failed {
        Room(NoRoom),
        Left,
        Memory,
    }

    impl LoadFailure for Failed {
        fn is_out_of_memory(&self) -> bool {
            *self == Self::Memory
        }
    }

    impl From<NoRoom> for Failed {
        fn from(error: NoRoom) -> Self {
            Self::Room(error)
        }
    }

    impl From<Left> for Failed {
        fn from(_: Left) -> Self {
            Self::Left
        }
    }

    fn get(kept: &Names, key: &'static str, bytes: u64) -> Result<Arc<String>, Failed> {
        get_until(kept, key, bytes, &CancelToken::new())
    }

    fn get_until(
        kept: &Names,
        key: &'static str,
        bytes: u64,
        cancel: &CancelToken,
    ) -> Result<Arc<String>, Failed> {
        kept.get(&key, bytes, cancel, || Ok(Arc::new(key.to_owned())))
    }

    fn keys(kept: &Names) -> Vec<&'static str> {
        kept.lock().places.keys().copied().collect()
    }

    #[test]
    fn the_least_recently_used_makes_room_and_what_is_used_stays() {
        let kept = Names::new(100, Duration::ZERO);
        drop(get(&kept, "a", 40).unwrap());
        drop(get(&kept, "b", 40).unwrap());
        drop(get(&kept, "a", 40).unwrap());
        // No more goes than has to.
        drop(get(&kept, "c", 60).unwrap());
        assert_eq!(keys(&kept), ["a", "c"]);
        let held = get(&kept, "a", 40).unwrap();
        let held_too = get(&kept, "d", 60).unwrap();
        assert_eq!(keys(&kept), ["a", "d"]);
        let no_room = NoRoom {
            bytes: 1,
            used: 100,
            bytes_max: 100,
        };
        assert_eq!(get(&kept, "e", 1).unwrap_err(), Failed::Room(no_room));
        assert_eq!(keys(&kept), ["a", "d"]);
        drop(held_too);
        drop(get(&kept, "e", 1).unwrap());
        assert_eq!(keys(&kept), ["a", "e"]);
        // More than there is room for takes nothing out.
        assert!(matches!(get(&kept, "f", 101), Err(Failed::Room(_))));
        assert_eq!(keys(&kept), ["a", "e"]);
        drop(held);
    }

    #[test]
    fn each_is_loaded_once_and_others_do_not_wait_for_it() {
        let kept = Names::new(100, Duration::from_secs(600));
        let (loads, begun) = (AtomicU32::new(0), Barrier::new(2));
        std::thread::scope(|scope| {
            let slow = || {
                kept.get::<Failed>(&"slow", 10, &CancelToken::new(), || {
                    loads.fetch_add(1, Ordering::Relaxed);
                    begun.wait();
                    begun.wait();
                    Ok(Arc::new("slow".to_owned()))
                })
            };
            let first = scope.spawn(slow);
            begun.wait();
            let second = scope.spawn(slow);
            // While it loads, another one is loaded, and kept ones are to be had.
            for _ in 0..2 {
                assert_eq!(*get(&kept, "quick", 10).unwrap(), "quick");
            }
            begun.wait();
            assert_eq!(*first.join().unwrap().unwrap(), "slow");
            assert_eq!(*second.join().unwrap().unwrap(), "slow");
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn one_that_fails_leaves_its_room_and_is_tried_again() {
        let kept = Names::new(10, Duration::from_secs(600));
        let never = CancelToken::new();
        let failed = kept.get(&"a", 10, &never, || Err(Failed::Left));
        assert_eq!(failed, Err(Failed::Left));
        let panics = || kept.get::<Failed>(&"a", 10, &never, || panic!("a defect"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(keys(&kept), [""; 0]);
        assert_eq!(*get(&kept, "b", 10).unwrap(), "b");
    }

    #[test]
    fn what_runs_out_of_memory_is_tried_again_without_what_nobody_uses() {
        let kept = Names::new(100, Duration::ZERO);
        let (held, never) = (get(&kept, "held", 10).unwrap(), CancelToken::new());
        drop(get(&kept, "idle", 10).unwrap());
        let tries = AtomicU32::new(0);
        let get_third = |fails: u32| {
            kept.get(&"third", 10, &never, || {
                match tries.fetch_add(1, Ordering::Relaxed) < fails {
                    true => Err(Failed::Memory),
                    false => Ok(Arc::new("third".to_owned())),
                }
            })
        };
        assert_eq!(*get_third(1).unwrap(), "third");
        assert_eq!(
            (keys(&kept), tries.load(Ordering::Relaxed)),
            (vec!["held", "third"], 2)
        );
        // With nothing to drop there is no second try, and never a third one.
        let fails = || {
            tries.store(0, Ordering::Relaxed);
            let fourth = kept.get::<Failed>(&"fourth", 10, &never, || {
                tries.fetch_add(1, Ordering::Relaxed);
                Err(Failed::Memory)
            });
            assert_eq!(fourth, Err(Failed::Memory));
            tries.load(Ordering::Relaxed)
        };
        assert_eq!((fails(), fails()), (2, 1));
        assert_eq!(keys(&kept), ["held"]);
        drop(held);
    }

    #[test]
    fn whose_job_has_ended_waits_for_nothing() {
        let kept = Names::new(100, Duration::from_secs(600));
        let begun = Barrier::new(LOADS_MAX + 1);
        std::thread::scope(|scope| {
            let load = |key: &'static str| {
                let (kept, begun) = (&kept, &begun);
                let name = Arc::new(String::from(key));
                scope.spawn(move || {
                    kept.get::<Failed>(&key, 10, &CancelToken::new(), || {
                        begun.wait();
                        begun.wait();
                        Ok(Arc::clone(&name))
                    })
                })
            };
            let loads = ["a", "b", "c", "d"].map(load);
            begun.wait();
            // For another's load, for one load less, and for room.
            for (key, bytes) in [("a", 10), ("e", 10), ("f", 90)] {
                let cancel = CancelToken::new();
                let waits = scope.spawn({
                    let (kept, cancel) = (&kept, cancel.clone());
                    move || get_until(kept, key, bytes, &cancel)
                });
                assert!(!waits.is_finished());
                cancel.cancel();
                assert_eq!(waits.join().unwrap(), Err(Failed::Left));
            }
            begun.wait();
            for loaded in loads {
                loaded.join().unwrap().unwrap();
            }
        });
        // What is there is had all the same.
        let cancel = CancelToken::new();
        cancel.cancel();
        assert_eq!(*get_until(&kept, "a", 10, &cancel).unwrap(), "a");
        assert_eq!(get_until(&kept, "e", 10, &cancel), Err(Failed::Left));
    }

    #[test]
    fn who_finds_no_room_waits_until_there_is() {
        let kept = Names::new(10, Duration::from_secs(600));
        let held = get(&kept, "a", 10).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| get(&kept, "b", 10));
            assert!(!other.is_finished());
            drop(held);
            assert_eq!(*other.join().unwrap().unwrap(), "b");
        });
    }
}
