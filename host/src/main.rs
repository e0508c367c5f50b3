//! `tussah`, the one binary: developers and providers run AI jobs with it.
//!
//! In: a command line. Out: results on standard output, everything else on standard error,
//! and an exit code of `docs/exit-codes.md`. It never calls `exit`: every command returns,
//! so that temporary files go.

mod cli;

mod build;
mod road;

mod device;
mod engine;
mod onnx;
mod toolchain;
mod tools;

mod chain_option;
mod channels;
mod clock;
mod paid;
mod wallets;

// The daemon's processes talk over Unix sockets.
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod signer;
#[cfg(unix)]
mod worker;

mod blobs;
mod home;
mod keys;
mod models;
mod partial;
mod pull;
mod remote;

mod exit_code;
mod failure;
mod grams;
mod input;
mod interrupt;
mod ui;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    device::quiet_drivers();
    cli::main().into()
}
