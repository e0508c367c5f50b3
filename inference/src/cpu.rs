//! Models on CPUs.
//! `oracle` is scalar f32, slow and obvious, for tests to compare with. `exact` keeps the exact profile:
//! the same bits at every width of SIMD and every number of threads.

mod buffer;
pub(crate) mod exact;
pub(crate) mod oracle;
pub(crate) mod pool;
pub(crate) mod simd;
