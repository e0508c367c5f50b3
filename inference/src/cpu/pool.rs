//! Threads that share out the chunks of one step.
//! In: a number of chunks and what to do with each. Out: all of them done, on this thread and the workers.
//! Workers spin for a moment between steps, then sleep. A worker that the system has put aside holds up
//! nothing but the chunk it is on, and a caller that finds the pool busy does its chunks alone.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};

/// Turns of a waiting loop before the thread offers its CPU to others: some 20 µs.
const SPINS_BEFORE_YIELD: u32 = 500;
/// Turns after which a worker without work sleeps: some 200 µs, longer than the gap between two tokens.
const SPINS_BEFORE_SLEEP: u32 = 5_000;
/// Chunks of one step; the count has 16 bits in [`Shared::state`].
const CHUNKS_MAX: usize = 0xffff;

/// A step's work as a thin pointer to a closure and the function that calls it.
#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: fn(*const (), usize),
}

/// Keeps counters that different threads write off each other's cache lines.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    /// `step number << 32 | chunks << 16 | next chunk`; taking a chunk is one compare-and-swap, so a
    /// chunk is only ever taken of the step that is running.
    state: Apart<AtomicU64>,
    done: Apart<AtomicUsize>,
    /// Written by the caller while no chunk is out, read by whoever has taken a chunk.
    job: UnsafeCell<Job>,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[expect(
    unsafe_code,
    reason = "the job is shared by a protocol that the compiler cannot see"
)]
// SAFETY: `job` is the only field that is not Sync. It is written only in `Pool::start`, which runs under
// the lock of `Workers` and after every chunk of the step before is done, so nobody reads it then; it is
// read only after taking a chunk with Acquire from the state that was stored with Release after the write.
unsafe impl Sync for Shared {}
#[expect(unsafe_code, reason = "as for Sync")]
// SAFETY: the pointer in `job` is used only as `Sync` above says, whichever thread owns the struct.
unsafe impl Send for Shared {}

impl Shared {
    /// Takes the next chunk of the running step.
    fn take(&self) -> Option<usize> {
        let mut state = self.state.0.load(Ordering::Acquire);
        loop {
            let (chunks, next) = (state >> 16 & 0xffff, state & 0xffff);
            if next >= chunks {
                return None;
            }
            let swapped = self.state.0.compare_exchange_weak(
                state,
                state + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return usize::try_from(next).ok(),
                Err(now) => state = now,
            }
        }
    }

    /// Does chunks until there are none left to take.
    fn work(&self) {
        while let Some(chunk) = self.take() {
            #[expect(unsafe_code, reason = "reads what `Sync` above describes")]
            // SAFETY: a chunk is out, so the caller waits in `run` and the job and its closure are alive.
            let Job { data, call } = unsafe { *self.job.get() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(data, chunk))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.done.0.fetch_add(1, Ordering::Release);
        }
    }

    fn wait_for_work(&self, seen: u64) {
        let changed = || self.state.0.load(Ordering::SeqCst) >> 32 != seen;
        for turn in 0..SPINS_BEFORE_SLEEP {
            if changed() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            rest(turn);
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !changed() && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One turn of a waiting loop.
fn rest(turn: u32) {
    if turn < SPINS_BEFORE_YIELD {
        std::hint::spin_loop()
    } else {
        std::thread::yield_now()
    }
}

/// The workers, in the hands of whoever runs a step.
struct Workers {
    threads: Vec<Thread>,
}

/// Worker threads of one model.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Mutex<Workers>,
    handles: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `threads - 1` workers; the caller of a step is the last thread.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        fn nothing(_: *const (), _: usize) {}
        let shared = Arc::new(Shared {
            state: Apart(AtomicU64::new(0)),
            done: Apart(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job {
                data: std::ptr::null(),
                call: nothing,
            }),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self {
            shared,
            workers: Mutex::new(Workers { threads: vec![] }),
            handles: vec![],
        };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("inference-{index}"));
            let handle = builder.spawn(move || {
                while !shared.stop.load(Ordering::SeqCst) {
                    let seen = shared.state.0.load(Ordering::SeqCst) >> 32;
                    shared.work();
                    shared.wait_for_work(seen);
                }
            })?;
            let workers = pool
                .workers
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            workers.threads.push(handle.thread().clone());
            pool.handles.push(handle);
        }
        Ok(pool)
    }

    /// Threads of a step, the caller's among them.
    pub(crate) fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Calls `work` once for each chunk, on any threads and in any order, and returns when all are done.
    pub(crate) fn run<F: Fn(usize) + Sync>(&self, chunks: usize, work: F) {
        let alone = self.handles.is_empty() || chunks <= 1;
        let workers = if alone { None } else { self.lock() };
        match workers {
            Some(workers) => {
                for first in (0..chunks).step_by(CHUNKS_MAX) {
                    let count = CHUNKS_MAX.min(chunks - first);
                    self.run_shared(&workers, count, &|chunk| work(first + chunk));
                }
            }
            None => (0..chunks).for_each(work),
        }
    }

    fn lock(&self) -> Option<std::sync::MutexGuard<'_, Workers>> {
        match self.workers.try_lock() {
            Ok(workers) => Some(workers),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn run_shared<F: Fn(usize) + Sync>(&self, workers: &Workers, chunks: usize, work: &F) {
        fn call<F: Fn(usize)>(data: *const (), chunk: usize) {
            #[expect(
                unsafe_code,
                reason = "the closure's type is erased on the way to the workers"
            )]
            // SAFETY: `data` is the `&F` of the `run_shared` that stored this very function beside it, and
            // that call does not return before every chunk is done.
            let work = unsafe { &*data.cast::<F>() };
            work(chunk);
        }
        let shared = &self.shared;
        shared.done.0.store(0, Ordering::Relaxed);
        let job = Job {
            data: std::ptr::from_ref(work).cast(),
            call: call::<F>,
        };
        #[expect(unsafe_code, reason = "writes what `Sync` of Shared describes")]
        // SAFETY: the workers' lock is held and all chunks of the step before are done.
        unsafe {
            *shared.job.get() = job;
        }
        let step = (shared.state.0.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        shared
            .state
            .0
            .store(step << 32 | (chunks as u64) << 16, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            workers.threads.iter().for_each(Thread::unpark);
        }
        shared.work();
        let mut turn = 0;
        while shared.done.0.load(Ordering::Acquire) < chunks {
            rest(turn);
            turn = turn.saturating_add(1);
        }
        let panic = shared
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            // A worker catches panics, so there is nothing to learn here.
            let _ = handle.join();
        }
    }
}

/// A slice whose parts go to different chunks of a step.
#[derive(Debug)]
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    length: usize,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "hands out parts of a mutable slice to threads")]
// SAFETY: `Parts` stands for a `&mut [T]`, of which `part` hands out pieces that its callers keep disjoint;
// sending pieces to other threads is sound when T is Send.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        let (start, length) = (slice.as_mut_ptr(), slice.len());
        Self {
            start,
            length,
            slice: std::marker::PhantomData,
        }
    }

    /// The part from `begin` on with `length` elements.
    ///
    /// # Safety
    /// While the returned slice lives, no other part may be taken that shares an element with it.
    #[expect(
        unsafe_code,
        clippy::mut_from_ref,
        reason = "that the parts are disjoint is the caller's word"
    )]
    pub(crate) unsafe fn part(&self, begin: usize, length: usize) -> &mut [T] {
        assert!(
            begin <= self.length && length <= self.length - begin,
            "part outside its slice"
        );
        // SAFETY: the range was checked against the slice this was made of, which is borrowed for 'a; the
        // caller keeps the parts disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(begin), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_done_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            for chunks in [0, 1, 2, 7, 100, CHUNKS_MAX, CHUNKS_MAX + 1] {
                let done: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(chunks, |chunk| {
                    done[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn two_callers_share_a_pool() {
        let pool = Pool::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        pool.run(10, |chunk| {
                            sum.fetch_add(chunk, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 300 * 45);
    }

    /// The pool is busy with the step that they are chunks of, so each does its own alone.
    #[test]
    fn chunks_may_run_steps_themselves() {
        let pool = Pool::new(3).unwrap();
        let done = AtomicUsize::new(0);
        pool.run(6, |_| {
            pool.run(5, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(done.into_inner(), 30);
    }

    #[test]
    #[expect(unsafe_code, reason = "asks for parts, which are to be refused")]
    fn a_part_outside_its_slice_is_refused() {
        let mut slice = [0u8; 4];
        let parts = Parts::new(&mut slice);
        for (begin, length) in [(0, 5), (5, 0), (4, 1), (1, usize::MAX), (usize::MAX, 2)] {
            // SAFETY: none of these is handed out.
            let part = || unsafe { parts.part(begin, length) }.len();
            assert!(
                catch_unwind(AssertUnwindSafe(part)).is_err(),
                "{begin} {length}"
            );
        }
        // SAFETY: the only part.
        assert!(unsafe { parts.part(4, 0) }.is_empty());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, |chunk| assert!(chunk != 5, "five"));
        }));
        assert!(panicked.is_err());
        pool.run(8, |_| {});
    }
}
