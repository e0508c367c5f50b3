//! `tussah serve`, its API keys, its page's password, and the hidden commands of its other two
//! processes.

mod accounts;
mod channels;
mod keys;
mod page;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};
use tussah_manifest::Nanograms;

use crate::{
    chain_option::ApiKeyOption,
    device::DeviceArgument,
    engine::WEIGHTS_CACHE_GB,
    exit_code::Exit,
    failure::Failure,
    home::Home,
    onnx::OnnxArguments,
    serve::{
        self,
        config::{self, Amount, Config, DeviceName, Origin, Place, Whole},
        log,
    },
    ui::Ui,
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
    #[command(subcommand)]
    Account(accounts::Command),
    Credit(accounts::CreditArguments),
    #[command(subcommand)]
    Channel(channels::Command),
    Page(page::Arguments),
}

#[derive(Debug, Args)]
struct Options {
    /// Settings to read in place of `serve.toml` in TUSSAH_HOME; `tussah init` writes that one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients reach it, 127.0.0.1:8899 if not set. An address that is not loopback serves the
    /// network.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where /healthz, /readyz, /metrics and /status are, 127.0.0.1:8898 if not set.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Another name by which clients reach it, such as `ai.example.org`: others are refused.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Take requests without a key, for this account.
    #[arg(long, value_name = "ACCOUNT")]
    anonymous: Option<String>,
    /// An origin, such as `https://app.example.org`, whose pages may use it from a browser.
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Option<Origin>,
    /// A chain of certificates in PEM, the provider's own first: clients come by TLS. SIGHUP reads
    /// it again.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Make a certificate, once, that clients have to be told to trust.
    #[arg(long)]
    tls_self_signed: bool,
    /// How much is logged: off, error, warn, info, debug or trace; info if not set.
    #[arg(long, value_name = "LEVEL")]
    log: Option<log::Level>,
    /// For whom it is logged: text for people, json for programs.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<log::Format>,
    #[command(flatten)]
    prices: PriceOptions,
    /// Jobs that run at a time, 8 if not set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs_max: Option<u32>,
    /// GB of models and modules from which on no more are uploaded, 100 if not set.
    #[arg(long, value_name = "GB", value_parser = clap::value_parser!(u32).range(1..))]
    blobs_max_gb: Option<u32>,
    /// Take jobs through payment channels on this chain, `mainnet`, `testnet` or the URL of a
    /// toncenter API v2; `tussah serve channel add` says through which.
    #[arg(long, value_name = "CHAIN")]
    chain: Option<String>,
    #[command(flatten)]
    chain_key: ApiKeyOption,
    #[command(flatten)]
    admission: AdmissionOptions,
    /// Seconds for what runs to end after SIGTERM or Ctrl-C. What takes longer ends with a receipt
    /// that says so, and the exit code is 4; 60 if not set.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    drain_s: Option<u32>,
    /// Seconds after which a worker that answers nothing is started anew, 30 if not set.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    hung_s: Option<u32>,
    /// Days for which inputs, outputs and logs of jobs that ended are kept; 0 is for ever. 30, if
    /// not set. Receipts stay.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=36_500))]
    keep_days: Option<u32>,
    #[command(flatten)]
    work: WorkOptions,
}

/// What work costs; nothing, where neither these nor the file say.
#[derive(Clone, Debug, Args)]
struct PriceOptions {
    /// Nanograms for each job that ran (10^9 are a GRAM); free if not set.
    #[arg(long, value_name = "NANOGRAMS", value_parser = nanograms)]
    price_base: Option<Nanograms>,
    /// Nanograms for each 10^9 units of fuel.
    #[arg(long, value_name = "NANOGRAMS", value_parser = nanograms)]
    price_fuel: Option<Nanograms>,
    /// Nanograms for each 10^12 units of inference.
    #[arg(long, value_name = "NANOGRAMS", value_parser = nanograms)]
    price_inference: Option<Nanograms>,
}

fn nanograms(text: &str) -> Result<Nanograms, String> {
    let amount = text.parse().ok().and_then(Nanograms::new);
    amount.ok_or_else(|| format!("write a whole number from 0 to {}", Nanograms::MAX.get()))
}

/// What jobs may ask for here: a manifest that asks for more is refused when it is submitted.
#[derive(Clone, Debug, Args)]
struct AdmissionOptions {
    /// The most seconds for which a manifest may let its job run, 3600 if not set.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    wall_max_s: Option<u32>,
    /// The most MiB of wasm memory that a manifest may give its job, 4096 if not set.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    memory_max_mib: Option<u32>,
    /// The most MiB that a manifest may let its job's sessions and tensors take besides the models,
    /// 8192 if not set.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    session_memory_max_mib: Option<u32>,
    /// A model that jobs may use, by its name of `tussah model list` or its digest; again for more.
    /// All that are in the store if not set.
    #[arg(long, value_name = "MODEL")]
    allow_model: Vec<String>,
    /// Run only modules for which this key, or one of this file's, has signed a claim of
    /// `tussah verify`; again for more. Any module if not set.
    #[arg(long, value_name = "KEY-FILE|PUBKEY")]
    require_verified: Vec<String>,
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
    /// Where inference runs: auto (a GPU, else the CPU), cpu, gpu, or a part of an adapter's name;
    /// auto if not set.
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceArgument>,
    /// CPU threads of inference; 0 is one a CPU. No result depends on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    threads: Option<u32>,
    #[command(flatten)]
    onnx: OnnxArguments,
    /// GB of models that stay loaded; the one that was not used for longest makes room. Three
    /// quarters of this machine's memory if it is left out, and on a GPU of the GPU's.
    #[arg(long, value_name = "GB", value_parser = clap::value_parser!(u32).range(1..))]
    model_memory_gb: Option<u32>,
    /// GB of compiled code that are kept; what was not used for longest makes room. 4, if not set.
    #[arg(long, value_name = "GB", value_parser = clap::value_parser!(u32).range(1..))]
    code_cache_gb: Option<u32>,
    /// GB of models' weights that are kept as the CPU computes with them, so that they load sooner; what was
    /// not used for longest makes room, 0 keeps none. 16, if not set.
    #[arg(long, value_name = "GB")]
    weights_cache_gb: Option<u32>,
    /// Do not start where the kernel cannot keep jobs from this machine's files and network.
    #[arg(long)]
    require_isolation: bool,
}

impl Arguments {
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Some(Command::Key(command)) => command.json(),
            Some(Command::Account(command)) => command.json(),
            Some(Command::Credit(arguments)) => arguments.json,
            Some(Command::Channel(command)) => command.json(),
            Some(Command::Page(arguments)) => arguments.json,
            None => false,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self.command {
            Some(Command::Key(command)) => return command.run(ui),
            Some(Command::Account(command)) => return command.run(ui),
            Some(Command::Credit(arguments)) => return arguments.run(ui),
            Some(Command::Channel(command)) => return command.run(ui),
            Some(Command::Page(arguments)) => return arguments.run(ui),
            None => {}
        }
        let config = self.options.over_file()?;
        let settings = serve::Settings::of(&config);
        if !settings.listen.ip().is_loopback() && settings.certificate.is_none() {
            ui.warn(&format!(
                "{} can be reached from other machines, and keys travel without TLS: give it a \
                 certificate by --tls-cert and --tls-key, or put a proxy with one in front",
                settings.listen
            ));
        }
        serve::run(&settings, ui)
    }
}

impl Options {
    /// The file's settings, with those of the command line in their places.
    fn over_file(self) -> Result<Config, Failure> {
        let found =
            match &self.config {
                Some(path) => Some(Config::read(path)?.ok_or_else(|| {
                    Failure::usage(format!("there is no file {}", path.display()))
                })?),
                None => Config::read(&Home::open()?.root().join(config::FILE))?,
            };
        let mut config = found.unwrap_or_default();
        let Config {
            listen,
            tls,
            connections: _,
            log,
            prices,
            limits,
            models,
            modules,
            channels,
            worker,
        } = &mut config;
        over(&mut channels.chain, self.chain);
        over(&mut channels.api_key_file, self.chain_key.into_file());
        over(&mut listen.address, self.listen.map(Place));
        over(&mut listen.metrics, self.metrics_listen.map(Place));
        over(
            &mut listen.hosts,
            (!self.host.is_empty()).then_some(self.host),
        );
        over(&mut listen.anonymous, self.anonymous);
        over(&mut listen.cors_origin, self.cors_origin);
        over(&mut tls.certificates, self.tls_cert);
        over(&mut tls.key, self.tls_key);
        over(&mut tls.self_signed, self.tls_self_signed.then_some(true));
        if let Some(problem) = tls.problem() {
            return Err(Failure::usage(problem));
        }
        over(&mut log.level, self.log);
        over(&mut log.format, self.log_format);
        let amount = |price: Option<Nanograms>| price.map(Amount);
        let given = self.prices;
        over(&mut prices.base_nanograms, amount(given.price_base));
        let fuel = &mut prices.nanograms_per_billion_fuel;
        over(fuel, amount(given.price_fuel));
        let inference = &mut prices.nanograms_per_trillion_inference_units;
        over(inference, amount(given.price_inference));
        over(&mut limits.jobs_max, self.jobs_max.map(Whole));
        over(&mut models.blobs_max_gb, self.blobs_max_gb.map(Whole));
        let asked = self.admission;
        over(&mut limits.wall_max_s, asked.wall_max_s.map(Whole));
        over(&mut limits.memory_max_mib, asked.memory_max_mib.map(Whole));
        let session = &mut limits.session_memory_max_mib;
        over(session, asked.session_memory_max_mib.map(Whole));
        let allow = (!asked.allow_model.is_empty()).then_some(asked.allow_model);
        over(&mut models.allow, allow);
        let verified = (!asked.require_verified.is_empty()).then_some(asked.require_verified);
        over(&mut modules.require_verified, verified);
        over(&mut worker.drain_s, self.drain_s.map(Whole));
        over(&mut worker.hung_s, self.hung_s.map(Whole));
        over(&mut limits.keep_days, self.keep_days.map(Whole));
        let work = self.work;
        over(&mut worker.device, work.device.map(DeviceName));
        over(&mut worker.threads, work.threads.map(Whole));
        over(&mut models.memory_gb, work.model_memory_gb.map(Whole));
        over(&mut worker.code_cache_gb, work.code_cache_gb.map(Whole));
        over(
            &mut worker.weights_cache_gb,
            work.weights_cache_gb.map(Whole),
        );
        let isolation = work.require_isolation.then_some(true);
        over(&mut worker.require_isolation, isolation);
        #[cfg(feature = "onnx")]
        over(&mut worker.onnxruntime, work.onnx.library());
        Ok(config)
    }
}

/// What was given wins.
fn over<T>(set: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *set = given;
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
            device: self.device.clone().unwrap_or_default(),
            threads: self.threads.unwrap_or_default(),
            onnx: self.onnx.clone(),
            model_memory_gb: self.model_memory_gb,
            code_cache_gb: self.code_cache_gb,
            weights_cache_gb: self.weights_cache_gb.unwrap_or(WEIGHTS_CACHE_GB),
            require_isolation: self.require_isolation,
        }
    }
}
