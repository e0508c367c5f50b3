//! The network over HTTP, as programs on this machine see it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;
mod malformed;
mod methods;
mod official_client;
mod our_client;
mod persistence;
