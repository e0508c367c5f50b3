//! The exact profile on GPUs, through wgpu: Vulkan, Metal or DX12.
//! In: a plan, the file's weights, steps of tokens. Out: logits whose bits are those of the CPU's exact
//! engine; `docs/exact-arithmetic.md` says why they can be. It never falls back to a CPU: what a device
//! cannot do is an error, and an adapter that is no GPU is taken only when asked for by name.
//!
//! ```text
//! device ── opened adapter, its limits, what went wrong
//! self_test ─ whether it keeps the arithmetic
//! weights ─ matrices, as integers, in planes of a buffer
//! product ─ WGSL for matrices times vectors      kernels ─ WGSL for all else
//! compiler ─ kernels and their bindings → dispatches
//! builder ─ layers → dispatches              model ─ one model: buffers, cache, order
//! steps ─── what sequences ask for → batches      pages ─ where their keys and values stand
//! ```

mod builder;
mod compiler;
mod device;
mod kernels;
mod model;
mod pages;
mod product;
mod self_test;
mod steps;
mod weights;

pub use device::{Gpu, GpuChoice, GpuError, GpuInfo, GpuKind, GpuLayout, GpuOptions};
pub(crate) use steps::GpuExact;
