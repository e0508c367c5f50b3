//! `tussah run`: the road on this machine.

mod events;
mod limits;
mod source;
mod watch;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;
use serde::Serialize;
use tussah_manifest::{ExitStatus, Nanograms};
use tussah_runtime::SignedRun;
use tussah_settlement::Address;

use crate::{
    blobs::Blobs,
    chain_option::{ApiKeyOption, ChainOption, address},
    device::{Caches, DeviceArgument, Devices, Need},
    exit_code::Exit,
    failure::Failure,
    grams,
    home::Home,
    input,
    interrupt::Interrupt,
    models::Models,
    onnx::OnnxArguments,
    paid::{Cost, Payment},
    road::{self, Job, Settings},
    ui::{self, Ui},
};
pub(super) use events::Shown;
pub(super) use source::{ModelArgument, Sources, model_argument};

const EXAMPLES: &str = "\
Examples:
  tussah run . --input article.txt              Build this folder's job and run it
  tussah run jobs/summarize --input - < a.txt   Input from standard input
  tussah run manifests/summarize.toml --input article.txt --receipt r.cbor
                                                Run a manifest; keep a receipt
  tussah run job.wasm --model smollm2=model.gguf
                                                A module alone, with the default limits
  tussah run . --input article.txt --dry-run    Which limits does it need?
  tussah run . --input article.txt --watch      Again at each change of source or input
  tussah run . --input article.txt --device gpu Nowhere but on a GPU
  tussah run . --input article.txt --json | jq .receipt.consensus
  tussah run . --input article.txt --channel kQDx… --price-max 0.01 --chain testnet
                                                Pay for it through a channel of this host's

Output streams to standard output as the job emits it; everything else goes to standard
error. With --receipt FILE, FILE can be shown to anyone; FILE.opening is private: it holds
what lets you check the receipt against input and output. Ctrl-C cancels the job: its
receipt says so, and the exit code is 130.";

/// Run a job on this machine.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A manifest, a job's folder (built first), or a module.
    #[arg(value_name = "MANIFEST|DIR|FILE.wasm")]
    job: PathBuf,
    /// The job's input; `-` is standard input. Nothing if not given.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A model for the job: SOURCE is a name of `tussah model list`, a digest, or a GGUF file.
    #[arg(long, value_name = "NAME=SOURCE", value_parser = model_argument)]
    model: Vec<ModelArgument>,
    /// Where inference runs: auto (a GPU, else the CPU), cpu, gpu, or a part of an adapter's name.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArgument,
    /// CPU threads of inference; 0 is one a CPU. No result depends on it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    threads: u32,
    #[command(flatten)]
    onnx: OnnxArguments,
    /// Write the signed receipt here, and its opening beside it.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Print the limits that this run needs, in place of its output.
    #[arg(long, conflicts_with = "receipt")]
    dry_run: bool,
    /// Run again whenever source, manifest, module or input change; Ctrl-C ends it.
    #[arg(long, conflicts_with_all = ["json", "dry_run"])]
    watch: bool,
    /// Pay for the run through this channel, whose client and provider are both this host.
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "chain", conflicts_with_all = ["dry_run", "watch"])]
    channel: Option<Address>,
    /// The most that the run may cost; what the manifest allows if not given.
    #[arg(long, value_name = "GRAM", value_parser = grams::parse, requires = "channel")]
    price_max: Option<Nanograms>,
    /// The chain that the channel is on: `mainnet`, `testnet`, the URL of a toncenter API v2, or
    /// `embedded:FOLDER`.
    #[arg(long, value_name = "CHAIN", env = "TUSSAH_CHAIN")]
    chain: Option<String>,
    #[command(flatten)]
    api_key: ApiKeyOption,
    /// Print JSON when done: output, exit, usage, receipt.
    #[arg(long)]
    pub(super) json: bool,
}

/// A job's input, within its limit.
pub(super) fn read_input(path: &std::path::Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    input::bytes(path, bytes_max).map_err(|failure| match failure.exit {
        Exit::LIMIT => failure
            .context("the input is larger than the manifest allows (limits.input_bytes_max)")
            .help("shorten the input, or raise limits.input_bytes_max in the job's tussah.toml"),
        _ => failure,
    })
}

#[derive(Serialize)]
struct View<'a> {
    exit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The job's output as text, or nothing if it is not UTF-8.
    output: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_hex: Option<String>,
    job_id: String,
    consensus_digest: String,
    output_digest: String,
    used: UsedView,
    wall_ms: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    paid: Option<PaidView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_path: Option<&'a std::path::Path>,
    receipt: &'a tussah_manifest::Receipt,
}

/// What the run cost, where it was paid.
#[derive(Serialize)]
struct PaidView {
    index: String,
    price_nanograms: Nanograms,
    vouchered_nanograms: Nanograms,
    /// Why the voucher was not redeemed, where it was time for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    unredeemed: Option<String>,
}

/// A run that was paid.
struct Paid {
    cost: Cost,
    /// Why the voucher was not redeemed, where it was time for that.
    unredeemed: Option<String>,
}

#[derive(Serialize)]
struct UsedView {
    fuel: u64,
    memory_bytes: u64,
    model_memory_bytes: u64,
    inference_units: u64,
    output_bytes: u64,
    host_calls: u64,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let devices = Devices::new(self.device.clone(), Caches::Home(Home::open()?));
        let interrupt = Interrupt::install()?;
        if !self.watch {
            return self.once(ui, &Self::sources(&interrupt)?, &devices);
        }
        if self.input.as_deref() == Some(std::path::Path::new("-")) {
            let message = "--watch runs again and again, and standard input can be read once";
            return Err(Failure::usage(message).help("put the input into a file"));
        }
        watch::watch(
            &self.job,
            self.input.as_deref(),
            &interrupt,
            ui,
            |interrupt| {
                let sources = Self::sources(interrupt)?;
                let ended = self.once(ui, &sources, &devices);
                let seen = sources.seen.into_inner();
                Ok((ended, seen.unwrap_or_else(PoisonError::into_inner)))
            },
        )
    }

    fn sources(interrupt: &Interrupt) -> Result<Sources, Failure> {
        let home = Home::open()?;
        Ok(Sources {
            blobs: Blobs::open(&home)?,
            models: Models::open(&home)?,
            home,
            interrupt: interrupt.clone(),
            seen: Mutex::default(),
        })
    }

    /// One run, from the job's source to its last byte of output.
    fn once(&self, ui: &Ui, sources: &Sources, devices: &Devices) -> Result<Exit, Failure> {
        let (mut manifest, module) = sources.job(&self.job, &self.model, ui)?;
        if self.dry_run {
            manifest.job.limits = limits::generous(&manifest.job.limits);
        }
        let need = Need {
            request: manifest.job.device,
            models: !manifest.job.models.is_empty(),
        };
        let placement = devices.place(need, ui)?;
        let input_bytes_max = manifest.job.limits.input_bytes_max;
        let input = match &self.input {
            Some(path) => read_input(path, input_bytes_max)?,
            None => Vec::new(),
        };
        let job = Job {
            manifest,
            module,
            input,
        };
        if !self.dry_run {
            road::keep(&sources.blobs, &job)?;
        }
        if let Some(path) = &self.receipt {
            road::require_writable(path)?;
        }
        let payment = self.payment(sources)?;
        let (request, time_max) = match &payment {
            Some(payment) => {
                let admitted = payment.request(&sources.home, &job, self.price_max)?;
                (admitted.request, Some(admitted.time_max))
            }
            None => (road::local_request(&sources.home, &job)?, None),
        };
        let (input_bytes, limits) = (job.input.len(), job.manifest.job.limits);
        let settings = Settings {
            placement,
            threads: self.threads,
            onnx: self.onnx.clone(),
            time_max,
        };
        let events = Arc::new(Shown::new(*ui, self.json || self.dry_run));
        let shown: Arc<Shown> = Arc::clone(&events);
        let run = road::run(
            &sources.home,
            &sources.blobs,
            request.clone(),
            job,
            settings,
            events,
            &sources.interrupt,
        );
        let (run, cost) = match (run, &payment) {
            (Ok(run), None) => (run, None),
            (Ok(mut run), Some(payment)) => {
                let cost = payment.settle(&request, &mut run)?;
                (run, Some((payment, cost)))
            }
            (Err(failure), payment) => {
                // Its place in the channel is taken: a receipt says that nothing was run.
                if let Some(payment) = payment {
                    payment.give_up(&request)?;
                }
                return Err(failure);
            }
        };
        let delivered = shown.finish();
        if self.watch && sources.interrupt.requested() {
            return Ok(Exit::INTERRUPTED); // The next run has the word.
        }
        if self.dry_run {
            return limits::show(ui, &run, input_bytes, &limits);
        }
        if let Some(path) = &self.receipt {
            road::write_receipt(path, &run)?;
        }
        // Last, since it waits for a chain; all that is needed for it is on the disk.
        let paid = match cost {
            Some((payment, cost)) => Some(Paid {
                unredeemed: payment.redeem()?,
                cost,
            }),
            None => None,
        };
        delivered?;
        let is_late =
            run.receipt.consensus.exit == ExitStatus::Cancelled && !sources.interrupt.requested();
        let exit = match road::exit_of(&run.receipt.consensus.exit) {
            Exit::INTERRUPTED if is_late => {
                ui.warn("the run was stopped: its channel's deadline is near");
                Exit::LIMIT
            }
            exit => exit,
        };
        self.report(ui, &run, paid.as_ref(), exit)
    }

    fn payment(&self, sources: &Sources) -> Result<Option<Payment>, Failure> {
        match (&self.channel, &self.chain) {
            (Some(channel), Some(chain)) => {
                let chain = ChainOption::new(chain.clone(), self.api_key.clone());
                Payment::open(&sources.home, &chain, channel).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn report(
        &self,
        ui: &Ui,
        run: &SignedRun,
        paid: Option<&Paid>,
        exit: Exit,
    ) -> Result<Exit, Failure> {
        let consensus = &run.receipt.consensus;
        if ui.json() {
            ui.document(&self.view(run, paid))?;
            return Ok(exit);
        }
        if let Some(error) = &run.outcome.error {
            ui.fail(&Failure::new(exit, error.clone()));
        }
        let used = &run.outcome.used;
        ui.note(&format!(
            "{} in {}; fuel {}, inference units {}, memory {}",
            consensus.exit,
            ui::duration(run.outcome.wall),
            ui::count(used.fuel),
            ui::count(used.inference_units),
            ui::size(used.memory_bytes),
        ));
        if let Some(Paid { cost, unredeemed }) = paid {
            ui.note(&format!(
                "cost {}, receipt {} of the channel, {} vouchered in all",
                grams::grams(cost.price),
                cost.index,
                grams::grams(cost.vouchered),
            ));
            if let Some(reason) = unredeemed {
                ui.warn(reason);
            }
        }
        if let Some(path) = &self.receipt {
            ui.note(&format!(
                "receipt {}, {}",
                path.display(),
                consensus.determinism
            ));
            ui.note(&format!(
                "opening {} (private)",
                road::opening_path(path).display()
            ));
        }
        Ok(exit)
    }

    fn view<'a>(&'a self, run: &'a SignedRun, paid: Option<&Paid>) -> View<'a> {
        let consensus = &run.receipt.consensus;
        let output = std::str::from_utf8(&run.outcome.output).ok();
        let used = &run.outcome.used;
        View {
            exit: consensus.exit.name(),
            error: run.outcome.error.as_ref().map(ToString::to_string),
            output,
            output_hex: match output {
                Some(_) => None,
                None => Some(
                    run.outcome
                        .output
                        .iter()
                        .map(|b| format!("{b:02x}"))
                        .collect(),
                ),
            },
            job_id: consensus.job.to_string(),
            consensus_digest: consensus.digest().to_string(),
            output_digest: consensus.output.to_string(),
            used: UsedView {
                fuel: used.fuel,
                memory_bytes: used.memory_bytes,
                model_memory_bytes: used.model_memory_bytes,
                inference_units: used.inference_units,
                output_bytes: used.output_bytes,
                host_calls: used.host_calls,
            },
            wall_ms: run.outcome.wall.as_millis(),
            paid: paid.map(|paid| PaidView {
                index: paid.cost.index.to_string(),
                price_nanograms: paid.cost.price,
                vouchered_nanograms: paid.cost.vouchered,
                unredeemed: paid.unredeemed.clone(),
            }),
            receipt_path: self.receipt.as_deref(),
            receipt: &run.receipt,
        }
    }
}
