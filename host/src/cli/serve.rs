//! `tussah serve`, its API keys, and the hidden commands of its other two processes.

mod keys;

use std::{ffi::OsString, net::SocketAddr};

use clap::{Args, Subcommand};

use crate::{
    device::DeviceArgument, exit_code::Exit, failure::Failure, onnx::OnnxArguments, serve, ui::Ui,
    worker,
};

const EXAMPLES: &str = "\
Examples:
  tussah deploy jobs/chat --as chat --shape chat
  tussah serve key add alice           Shows a key, once
  tussah serve                         Serves it on 127.0.0.1:8899 until Ctrl-C
  curl http://127.0.0.1:8899/v1/models -H \"Authorization: Bearer $KEY\"

Any OpenAI client works with http://127.0.0.1:8899/v1 as its base URL and such a key. Jobs
run in a process without keys, ledger or network; every answer comes with a signed receipt.
SIGTERM or Ctrl-C: no more jobs are taken, those that run end, exit code 0.";

/// Run other people's jobs: an HTTP service with an API like OpenAI's.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Key(keys::Command),
}

#[derive(Debug, Args)]
struct Options {
    /// Where clients reach it. An address that is not loopback serves the network, without TLS.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8899")]
    listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8898")]
    metrics_listen: SocketAddr,
    /// Another name by which clients reach it, such as `ai.example.org`: others are refused.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Take requests without a key, for this account.
    #[arg(long, value_name = "ACCOUNT")]
    anonymous: Option<String>,
    /// Jobs that run at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs_max: u32,
    /// GB of models and modules from which on no more are uploaded.
    #[arg(long, value_name = "GB", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    blobs_max_gb: u32,
    #[command(flatten)]
    work: WorkOptions,
}

/// Runs jobs for a gateway, over the socket that is its standard input.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    work: WorkOptions,
}

/// How jobs are run here.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkOptions {
    /// Where inference runs: auto (a GPU, else the CPU), cpu, gpu, or a part of an adapter's name.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArgument,
    /// CPU threads of inference; 0 is one a CPU. No result depends on it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    threads: u32,
    #[command(flatten)]
    onnx: OnnxArguments,
    /// Do not start where the kernel cannot keep jobs from this machine's files and network.
    #[arg(long)]
    require_isolation: bool,
}

impl Arguments {
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Some(Command::Key(command)) => command.json(),
            None => false,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        if let Some(Command::Key(command)) = self.command {
            return command.run(ui);
        }
        let options = self.options;
        if !options.listen.ip().is_loopback() {
            ui.warn(&format!(
                "{} can be reached from other machines, and keys travel without TLS: put a proxy \
                 with TLS in front",
                options.listen
            ));
        }
        let settings = serve::Settings {
            listen: options.listen,
            metrics_listen: options.metrics_listen,
            hosts: options.host,
            anonymous: options.anonymous,
            jobs_max: options.jobs_max,
            blobs_bytes_max: u64::from(options.blobs_max_gb) * 1_000_000_000,
            worker: options.work.arguments(),
        };
        serve::run(&settings, ui)
    }
}

impl WorkerArguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        worker::serve(self.work.settings(), ui)
    }
}

impl WorkOptions {
    fn settings(&self) -> worker::Settings {
        worker::Settings {
            device: self.device.clone(),
            threads: self.threads,
            onnx: self.onnx.clone(),
            require_isolation: self.require_isolation,
        }
    }

    /// The same options, for the command of the worker.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--device".into(),
            self.device.to_string().into(),
            "--threads".into(),
            self.threads.to_string().into(),
        ];
        if let Some(library) = self.onnx.library() {
            arguments.extend(["--onnxruntime".into(), library.into()]);
        }
        if self.require_isolation {
            arguments.push("--require-isolation".into());
        }
        arguments
    }
}
