//! The whole road, from submission to receipt, with the binary as a user runs it.
//!
//! Tests that need the model or std for wasm say so in one line and return where it is
//! missing; under `REQUIRE_MODEL=1` or `REQUIRE_WASM=1` they fail instead. `cargo xtask test`
//! sets up both. What needs a GPU does the same with `REQUIRE_GPU=1`, on llvmpipe or on the adapter
//! that `TUSSAH_TEST_GPU` names.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

mod bank;
mod fixture;

mod bad_input;
mod bench;
mod build;
mod channel;
mod device;
mod disk;
mod docs;
mod generate;
mod guide;
mod interrupt;
mod jobs;
mod ledger;
mod models;
mod nn;
mod onnx;
mod pull;
mod receipt;
mod refused;
mod road;
mod schemas;
mod serve;
mod server;
mod status;
mod submit;
mod supervision;
mod templates;
mod usage;
mod verified;
mod verify;
mod verify_causes;
mod verify_fetch;
mod wallets;
mod watch;
mod weights;
mod worker;
