//! The provider's daemon, all but the sandbox: what its three processes say to each other.
//!
//! ```text
//! clients --HTTP--> gateway --wire--> worker   (runs modules, owns the GPU, has no keys)
//!                      |------wire--> signer   (has the keys, runs nothing)
//! ```
//!
//! In: sockets, and the values that the host reads from its files. Out: messages. This crate
//! knows neither wasm nor models, reads no environment, and prints nothing.

pub mod blobs;
pub mod gateway;
pub mod http;
pub mod isolation;
pub mod ledger;
pub mod lost;
pub mod memory;
pub mod queue;
pub mod signer;
pub mod wire;

#[cfg(test)]
mod fixture;

/// An error with its causes, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
