//! All automation of the workspace: `cargo xtask <task>`.
//!
//! In: a task's name and flags, and the machine it runs on.
//! Out: a ready machine, a demonstration, or a verdict on the checkout; the exit code says which.
//! Never: changes a tracked file (but `contracts --write` and `page --write`), or needs anything but
//! Rust, a C compiler and Python's pip; only `contracts` and `page` need node, and `page` Chromium.

mod aarch64;
mod bench;
mod ci;
mod command;
mod contracts;
mod demo;
mod home;
mod licences;
mod llama_cpp;
mod model;
mod onnx;
#[cfg(unix)]
mod openai;
mod package;
#[cfg(unix)]
mod page;
mod pip;
#[cfg(unix)]
mod provider;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod ui;
mod verify_all;
mod vulkan;
mod wasm_std;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "All automation of Tussah"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make this machine ready: Rust's wasm target, a Vulkan driver, models; safe to run twice
    Setup(setup::SetupArgs),
    /// Summarise a sample article with a real model, then check the receipt and run it again
    Demo,
    /// Run all tests, setting up what they need first
    Test,
    /// Check everything that a change must pass
    Ci,
    /// Measure this machine
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Compile the contracts, compare with the committed code, and ask TON's own machine
    Contracts(contracts::ContractsArgs),
    /// Have OpenAI's own packages and schemathesis talk to a provider
    #[cfg(unix)]
    Openai,
    /// Have a browser look at the owner's page and the examples' page of a provider
    #[cfg(unix)]
    Page(page::PageArgs),
    /// Make the Debian package, and check the systemd unit
    Package,
    /// Build every job in all surroundings, and `tussah` from two paths: the same bytes each time
    VerifyAll(verify_all::VerifyAllArgs),
    /// Run the NEON kernels and the committed bits on an emulated aarch64
    Aarch64,
    /// Check the house rules that no other tool checks; quick
    Tidy,
}

fn main() -> ExitCode {
    // While std is built, cargo calls this same program in rustc's place.
    if std::env::var_os(wasm_std::WRAPPER_SWITCH).is_some() {
        return wasm_std::run_as_rustc_wrapper();
    }
    let result = match Cli::parse().task {
        Task::Setup(args) => {
            vulkan::ensure(vulkan::Driver::Any);
            setup::run(&args, args.models())
        }
        Task::Demo => demo::run(),
        Task::Test => test::run(),
        Task::Ci => ci::run(),
        Task::Bench { what } => bench::run(&what),
        Task::Contracts(args) => contracts::run(&args),
        #[cfg(unix)]
        Task::Openai => openai::task(),
        #[cfg(unix)]
        Task::Page(args) => page::task(args),
        Task::Package => package::run(),
        Task::VerifyAll(args) => verify_all::run(&args),
        Task::Aarch64 => aarch64::task(),
        Task::Tidy => workspace::Workspace::ask().and_then(|workspace| tidy::check(&workspace)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
