//! The gateway's parts as their users see them: the ledger on a disk, the queue, HTTP on loopback.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;
mod gateway;
mod http;
mod kill;
mod ledger;
mod paid;
mod peer;
mod supervise;
