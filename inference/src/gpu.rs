//! Decoders on GPUs, through wgpu: Vulkan, Metal or DX12; in the exact profile, or in f32 to compare it with.
//! In: a plan, the file's weights, steps of tokens. Out: logits whose bits are those of the CPU's exact
//! engine, in the exact profile; `docs/exact-arithmetic.md` says why they can be. It never falls back to a CPU: what a device
//! cannot do is an error, and an adapter that is no GPU is taken only when asked for by name.
//!
//! ```text
//! scheduler ─ decoder ─ runner ── one step, from tokens to logits
//!                          └ model ── one model: its buffers, its cache, the order of dispatches
//! plan ─ builder ─ compiler ─┘  layers → dispatches, kernels → pipelines
//!                  ├ weights ── matrices, as integers, in planes of a buffer
//!                  ├ product ── WGSL for matrices times vectors; unpack ── how it reads weights
//!                  ├ tile ── the same for many vectors at once, in the exact profile
//!                  ├ best ── the likeliest tokens of a row of logits
//!                  └ kernels ── WGSL for all else
//! clock ── how long a step took; bandwidth ── how fast the device's memory is
//! pipelines ── compiled kernels on disk, checked by a MAC
//! adapter ── which there are; device ── the one that was opened, and what went wrong; self_test ── whether it keeps the arithmetic
//! ```

mod adapter;
mod bandwidth;
mod best;
mod builder;
mod clock;
mod compiler;
mod decoder;
mod device;
mod kernels;
mod model;
mod pipelines;
mod product;
mod runner;
mod self_test;
mod tile;
mod unpack;
mod weights;

pub use adapter::{
    GpuChoice, GpuError, GpuInfo, GpuKind, GpuLayout, GpuOptions, GpuSubgroups, GpuTiles,
};
pub(crate) use decoder::load;
pub use device::Gpu;
pub use pipelines::GpuCache;
