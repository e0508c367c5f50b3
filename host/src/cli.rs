//! The command line: one file a command in `cli/`.
//!
//! In: arguments. Out: an exit code, after the command's result or its error was shown.

mod audit;
mod bench;
mod build;
#[cfg(unix)]
mod build_confined;
mod chain;
mod channel;
#[cfg(unix)]
mod deploy;
mod doctor;
mod earnings;
#[cfg(unix)]
mod init;
mod ledger;
mod logs;
mod model;
mod new;
mod provider;
mod receipt;
mod run;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod status;
mod submit;
mod verify;
mod wallet;

use clap::{Parser, Subcommand};

use crate::{exit_code::Exit, failure::Failure, ui::Ui};

const EXAMPLES: &str = "\
Examples:
  tussah new hello && cd hello         Start a job that builds and runs at once
  tussah run . --input input.txt       Build it, run it, stream its output
  tussah run . --input input.txt --receipt r.cbor
                                       The same, and keep a signed receipt
  tussah receipt verify r.cbor         Check the receipt's signature
  tussah audit r.cbor --input input.txt
                                       Run it again and compare, byte for byte
  tussah submit . --input input.txt --to URL
                                       The same on a provider, its receipt checked
  tussah model add smollm2 FILE.gguf   Give a model file a name
  tussah model generate smollm2 --prompt 'Why is the sky blue?'

Files are kept in TUSSAH_HOME, or in your data folder. `tussah doctor` shows where, and
what is missing. Exit codes: 0 done, 1 job failed, 2 usage, 3 not verified, 4 limit hit,
5 host failed, 6 and 7 of `verify`, 130 interrupted.";

/// Runs AI jobs in a sandbox, and keeps evidence of what ran.
#[derive(Debug, Parser)]
#[command(name = "tussah", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::Arguments),
    Build(build::Arguments),
    Verify(verify::Arguments),
    Run(run::Arguments),
    #[command(subcommand)]
    Receipt(receipt::Command),
    Audit(audit::Arguments),
    Submit(submit::Arguments),
    Logs(logs::Arguments),
    #[cfg(unix)]
    Init(init::Arguments),
    #[cfg(unix)]
    Deploy(deploy::Arguments),
    #[cfg(unix)]
    Serve(Box<serve::Arguments>),
    #[cfg(unix)]
    Status(status::Arguments),
    #[cfg(unix)]
    Earnings(earnings::Arguments),
    #[command(subcommand)]
    Ledger(ledger::Command),
    #[command(subcommand)]
    Model(model::Command),
    #[command(subcommand)]
    Chain(chain::Command),
    #[command(subcommand)]
    Channel(channel::Command),
    #[command(subcommand)]
    Wallet(wallet::Command),
    #[command(subcommand)]
    Provider(provider::Command),
    Doctor(doctor::Arguments),
    Bench(bench::Arguments),
    #[cfg(unix)]
    #[command(hide = true)]
    BuildConfined(build_confined::Arguments),
    #[cfg(unix)]
    #[command(hide = true)]
    ServeWorker(serve::WorkerArguments),
    #[cfg(unix)]
    #[command(hide = true)]
    ServeSigner,
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Self::New(arguments) => arguments.json,
            Self::Build(arguments) => arguments.json,
            Self::Verify(arguments) => arguments.json,
            Self::Run(arguments) => arguments.json,
            Self::Receipt(command) => command.json(),
            Self::Audit(arguments) => arguments.json,
            Self::Submit(arguments) => arguments.json,
            Self::Logs(arguments) => arguments.json,
            #[cfg(unix)]
            Self::Init(arguments) => arguments.json,
            #[cfg(unix)]
            Self::Deploy(arguments) => arguments.json,
            #[cfg(unix)]
            Self::Serve(arguments) => arguments.json(),
            #[cfg(unix)]
            Self::Status(arguments) => arguments.json,
            Self::Earnings(arguments) => arguments.json,
            Self::Ledger(command) => command.json(),
            Self::Model(command) => command.json(),
            Self::Chain(command) => command.json(),
            Self::Channel(command) => command.json(),
            Self::Wallet(command) => command.json(),
            Self::Provider(command) => command.json(),
            Self::Doctor(arguments) => arguments.json,
            Self::Bench(arguments) => arguments.json,
            #[cfg(unix)]
            Self::BuildConfined(_) | Self::ServeWorker(_) | Self::ServeSigner => false,
        }
    }

    fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self {
            Self::New(arguments) => arguments.run(ui),
            Self::Build(arguments) => arguments.run(ui),
            Self::Verify(arguments) => arguments.run(ui),
            Self::Run(arguments) => arguments.run(ui),
            Self::Receipt(command) => command.run(ui),
            Self::Audit(arguments) => arguments.run(ui),
            Self::Submit(arguments) => arguments.run(ui),
            Self::Logs(arguments) => arguments.run(ui),
            #[cfg(unix)]
            Self::Init(arguments) => arguments.run(ui),
            #[cfg(unix)]
            Self::Deploy(arguments) => arguments.run(ui),
            #[cfg(unix)]
            Self::Serve(arguments) => arguments.run(ui),
            #[cfg(unix)]
            Self::Status(arguments) => arguments.run(ui),
            Self::Earnings(arguments) => arguments.run(ui),
            Self::Ledger(command) => command.run(ui),
            Self::Model(command) => command.run(ui),
            Self::Chain(command) => command.run(ui),
            Self::Channel(command) => command.run(ui),
            Self::Wallet(command) => command.run(ui),
            Self::Provider(command) => command.run(ui),
            Self::Doctor(arguments) => arguments.run(ui),
            Self::Bench(arguments) => arguments.run(ui),
            #[cfg(unix)]
            Self::BuildConfined(arguments) => arguments.run(),
            #[cfg(unix)]
            Self::ServeWorker(arguments) => arguments.run(ui),
            #[cfg(unix)]
            Self::ServeSigner => crate::signer::serve(),
        }
    }
}

/// Runs the process's command line.
pub(crate) fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let ui = Ui::new(cli.command.json());
    match cli.command.run(&ui) {
        Ok(exit) => exit,
        Err(failure) => {
            ui.fail(&failure);
            failure.exit
        }
    }
}

/// Shows clap's own message: help and version are results, the rest is an error.
fn refuse(error: &clap::Error) -> Exit {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && error.use_stderr() {
        let message = error.to_string();
        let message = message.trim_start_matches("error: ").trim_end();
        let failure = Failure::usage(message.to_owned());
        Ui::new(true).fail(&failure);
        return failure.exit;
    }
    // Nobody is left to tell if the stream is gone.
    let _ = error.print();
    if error.use_stderr() {
        Exit::USAGE
    } else {
        Exit::DONE
    }
}
