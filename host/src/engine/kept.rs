//! What is loaded stays loaded while there is room: the least recently used goes first.
//!
//! In: keys, sizes, and how to load what is not there. Out: shared values. One that somebody
//! uses is never taken out. Each is loaded once however many ask for it, and nobody who asks for
//! another one waits for that.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How often one that finds no room looks whether something is used no more.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

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

impl<K: Ord + Clone, V: InUse> Kept<K, V> {
    /// Room for so many bytes.
    pub(crate) fn new(bytes_max: u64, wait_max: Duration) -> Self {
        Self {
            bytes_max,
            wait_max,
            state: Mutex::new(State {
                places: BTreeMap::new(),
                asked: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// What is kept under a key, or what `load` gives, which takes so many bytes. Blocks while
    /// another thread loads it, and for a while if there is no room.
    ///
    /// # Errors
    /// What `load` says, or [`NoRoom`].
    pub(crate) fn get<E: From<NoRoom>>(
        &self,
        key: &K,
        bytes: u64,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let begun = Instant::now();
        let mut state = self.lock();
        state.asked += 1;
        loop {
            let last = state.asked;
            match state.places.get_mut(key) {
                Some(Place {
                    value: Some(value),
                    last: at,
                    ..
                }) => {
                    *at = last;
                    return Ok(value.clone());
                }
                // If it fails for the other thread, we try.
                Some(_) => state = self.wait(state),
                None => match state.make_room(bytes, self.bytes_max) {
                    Ok(gone) => {
                        let place = Place {
                            bytes,
                            value: None,
                            last,
                        };
                        state.places.insert(key.clone(), place);
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
        let value = load()?;
        loading.value = Some(value.clone());
        Ok(value)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<K, V>>) -> MutexGuard<'a, State<K, V>> {
        let waited = self.changed.wait_timeout(state, LOOK_INTERVAL);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone, V: InUse> State<K, V> {
    /// Takes out as many values that nobody uses as it takes, the oldest first; none if that is
    /// not enough.
    fn make_room(&mut self, bytes: u64, bytes_max: u64) -> Result<Vec<V>, NoRoom> {
        let mut used: u64 = self.places.values().map(|place| place.bytes).sum();
        let is_free = |place: &Place<V>| place.value.as_ref().is_some_and(|value| !value.in_use());
        let mut free: Vec<_> = self
            .places
            .iter()
            .filter(|(_, place)| is_free(place))
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

    fn get(kept: &Names, key: &'static str, bytes: u64) -> Result<Arc<String>, NoRoom> {
        kept.get(&key, bytes, || Ok(Arc::new(key.to_owned())))
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
        assert_eq!(get(&kept, "e", 1).unwrap_err(), no_room);
        assert_eq!(keys(&kept), ["a", "d"]);
        drop(held_too);
        drop(get(&kept, "e", 1).unwrap());
        assert_eq!(keys(&kept), ["a", "e"]);
        // More than there is room for takes nothing out.
        assert_eq!(get(&kept, "f", 101).unwrap_err().bytes_max, 100);
        assert_eq!(keys(&kept), ["a", "e"]);
        drop(held);
    }

    #[test]
    fn each_is_loaded_once_and_others_do_not_wait_for_it() {
        let kept = Names::new(100, Duration::from_secs(600));
        let (loads, begun) = (AtomicU32::new(0), Barrier::new(2));
        std::thread::scope(|scope| {
            let slow = || {
                kept.get::<NoRoom>(&"slow", 10, || {
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
        let failed = NoRoom {
            bytes: 7,
            used: 7,
            bytes_max: 7,
        };
        assert_eq!(kept.get(&"a", 10, || Err(failed)), Err(failed));
        let panics = || kept.get::<NoRoom>(&"a", 10, || panic!("a defect"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(keys(&kept), [""; 0]);
        assert_eq!(*get(&kept, "b", 10).unwrap(), "b");
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
