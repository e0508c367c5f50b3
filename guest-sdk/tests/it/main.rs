//! What a job's author sees of the SDK, tried natively.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod constrained;
mod harness;
mod schemas;
mod world;
