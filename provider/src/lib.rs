//! The provider's daemon, all but the sandbox: what its three processes say to each other.
//!
//! ```text
//! clients --HTTP--> gateway --wire--> worker   (runs modules, owns the GPU, has no keys)
//!                      |------wire--> signer   (has the keys, runs nothing)
//! ```
//!
//! In: sockets, and the values that the host reads from its files. Out: messages. This crate
//! knows neither wasm nor models, reads no environment, and prints nothing.

pub mod isolation;
pub mod ledger;
pub mod lost;
pub mod queue;
pub mod signer;
pub mod wire;

#[cfg(test)]
mod fixture;
