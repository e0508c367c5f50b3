//! The allocator's settings: what a large body took goes back to the system when it is freed, and
//! all threads share one heap.
//!
//! glibc raises the size from which it maps blocks of their own each time that one is freed, up to
//! 32 MiB; what is smaller then stays in the heap of whichever thread asked for it, so that a
//! daemon with large requests on many threads grows and grows
//! (<https://man7.org/linux/man-pages/man3/mallopt.3.html>, `M_MMAP_THRESHOLD`). A heap for each
//! thread (`M_ARENA_MAX`) grows likewise where what one thread asked for another frees, as a job's
//! documents on their way; small blocks come from a cache of each thread's own in any case.

/// Blocks from this size on are mapped, and unmapped when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: libc::c_int = 256 << 10;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: libc::c_int = 1;

/// Has large blocks go back to the system as soon as they are freed, and the rest come from one
/// heap, for the whole process; to be called before it has threads. Does nothing where the allocator is not glibc's.
pub fn keep_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes numbers, and touches nothing but the allocator's own settings.
    #[expect(unsafe_code, reason = "the C library has no safe way to say this")]
    unsafe {
        // They fail for sizes that are out of range alone.
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
}
