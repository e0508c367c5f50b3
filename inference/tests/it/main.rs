//! What a user of the crate sees, in the order of the road: file, text, prompt, tokens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "a skipped test says why; figures show with --nocapture"
)]

mod architectures;
mod archive;
mod batches;
mod builder;
mod embed;
mod encoders;
mod exact;
mod fast;
mod files;
mod fixture;
mod generate;
mod goldens;
mod gpu;
mod gpu_cache;
mod gpu_likeliest;
mod gpu_time;
#[cfg(feature = "onnx")]
mod onnx;
mod onnx_files;
mod onnx_models;
mod packed_cache;
mod pages;
mod plans;
mod sessions;
mod spm;
mod tokens;
