//! `tussah audit`: run it again and compare.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use serde::Serialize;
use tussah_manifest::{
    Consensus, Determinism, Difference, Document, Manifest, ModuleRef, Opening, Receipt,
};
use tussah_runtime::{NoEvents, SignedRun};

use super::{
    receipt,
    run::{ModelArgument, Sources, model_argument},
};
use crate::{
    blobs::Blobs,
    device::{Caches, DeviceArgument, Devices, Need},
    exit_code::Exit,
    failure::Failure,
    home::Home,
    input,
    interrupt::Interrupt,
    models::Models,
    onnx::OnnxArguments,
    road::{self, Job, Settings},
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah audit r.cbor --input article.txt
  tussah audit r.cbor --input article.txt --opening other/r.cbor.opening
  tussah audit r.cbor --input article.txt --model smollm2=model.gguf

Finds module, manifest and model by their digests in TUSSAH_HOME, where `tussah run` left
them, runs the job again under the same request and compares all that a receipt promises.
Exit code 0: the same in every field. Exit code 3: what differs is named.";

/// Run a receipt's job again, and compare.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The receipt.
    receipt: PathBuf,
    /// The input of the run; `-` is standard input. Nothing if not given.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The opening; RECEIPT.opening if not given.
    #[arg(long, value_name = "FILE")]
    opening: Option<PathBuf>,
    /// Where a model is that the store lacks; it must have the receipt's digest.
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
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// One thing that the receipt and what was found here say differently.
#[derive(Serialize)]
struct DifferenceView<'a> {
    field: &'a str,
    receipt: &'a str,
    found: &'a str,
}

#[derive(Serialize)]
struct View<'a> {
    reproduced: bool,
    consensus_digest: String,
    differences: Vec<DifferenceView<'a>>,
    /// The first host call, counted from 0, in which the two runs differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_host_call: Option<usize>,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let receipt = receipt::read(&self.receipt)?;
        let opening = self.read_opening(&receipt)?;
        check_rerunnable(&receipt)?;
        let interrupt = Interrupt::install()?;
        let home = Home::open()?;
        let blobs = Blobs::open(&home)?;
        let sources = Sources {
            models: Models::open(&home)?,
            blobs,
            home,
            interrupt: interrupt.clone(),
            seen: std::sync::Mutex::default(),
        };
        let (manifest, module) = documents(&sources.blobs, &receipt.consensus)?;

        let mut differences = Vec::new();
        let input = self.input.as_deref();
        let most = manifest.job.limits.input_bytes_max;
        let input = input.map_or(Ok(Vec::new()), |path| {
            // What is over the limit cannot be the receipt's input, which was within it.
            input::bytes_up_to(path, most.saturating_add(1))
        })?;
        if !opening.request.body.is_for_input(&input) {
            differences.push(Difference {
                field: "input".to_owned(),
                this: opening.request.body.input.to_string(),
                other: input_digest(&opening, &input),
            });
        }
        self.compare_models(&sources, &receipt.consensus, ui, &mut differences)?;
        if !differences.is_empty() {
            // Another input or model is another job: running it would compare nothing.
            return self.answer(ui, &receipt, &differences, None);
        }

        let job = Job {
            manifest,
            module,
            input,
        };
        let need = Need::anywhere(!job.manifest.job.models.is_empty());
        let settings = Settings {
            placement: Devices::new(self.device.clone(), Caches::Home(sources.home.clone()))
                .place(need, ui)?,
            threads: self.threads,
            onnx: self.onnx.clone(),
            time_max: None,
        };
        let request = opening.request.clone();
        let events = Arc::new(NoEvents);
        let again = {
            let _spinner = ui.spinner("running it again");
            road::run(
                &sources.home,
                &sources.blobs,
                request,
                job,
                settings,
                events,
                &interrupt,
            )?
        };
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        differences.extend(compare(&receipt, &opening, &again));
        let first_host_call = opening.first_difference(&again.opening.host_calls);
        self.answer(ui, &receipt, &differences, first_host_call)
    }

    fn read_opening(&self, receipt: &Receipt) -> Result<Opening, Failure> {
        let path = self
            .opening
            .clone()
            .unwrap_or_else(|| road::opening_path(&self.receipt));
        if self.opening.is_none() && !path.exists() {
            let message = format!("the opening {} is not there", path.display());
            return Err(Failure::usage(message).help(
                "name it with --opening FILE: without the request in it nothing can be run again",
            ));
        }
        let most = u64::try_from(Opening::BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = input::bytes_up_to(&path, most.saturating_add(1))?;
        let wrong = |failure: Failure| {
            failure.context(format!(
                "{} is not the opening of this receipt",
                path.display()
            ))
        };
        let opening =
            Opening::from_bytes(&bytes).map_err(|error| wrong(Failure::not_verified(error)))?;
        opening
            .matches(receipt)
            .map_err(|error| wrong(Failure::not_verified(error)))?;
        Ok(opening)
    }

    /// The models that the user names must be the receipt's.
    fn compare_models(
        &self,
        sources: &Sources,
        consensus: &Consensus,
        ui: &Ui,
        differences: &mut Vec<Difference>,
    ) -> Result<(), Failure> {
        for argument in &self.model {
            let Some(expected) = consensus.models.get(&argument.name) else {
                let message = format!("the receipt names no model `{}`", argument.name);
                return Err(Failure::usage(message));
            };
            let found = sources.model(&argument.source, ui)?;
            if found != *expected {
                differences.push(Difference {
                    field: format!("models.{}", argument.name),
                    this: expected.to_string(),
                    other: found.to_string(),
                });
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        ui: &Ui,
        receipt: &Receipt,
        differences: &[Difference],
        first_host_call: Option<usize>,
    ) -> Result<Exit, Failure> {
        let reproduced = differences.is_empty();
        let exit = if reproduced {
            Exit::DONE
        } else {
            Exit::NOT_VERIFIED
        };
        let consensus = &receipt.consensus;
        if ui.json() {
            let consensus_digest = consensus.digest().to_string();
            ui.document(&View {
                reproduced,
                consensus_digest,
                differences: differences.iter().map(view).collect(),
                first_host_call,
            })?;
            return Ok(exit);
        }
        if reproduced {
            ui.line("reproduced: the same job gave the same result in every field")?;
            ui.line(&format!("output     {}", consensus.output))?;
            ui.line(&format!("consensus  {}", consensus.digest()))?;
            ui.line(&format!(
                "           {}, fuel {}, inference units {}",
                consensus.exit,
                ui::count(consensus.fuel_used),
                ui::count(consensus.inference_units_used)
            ))?;
            return Ok(exit);
        }
        for difference in differences {
            ui.line(&format!("{} differs", difference.field))?;
            ui.line(&format!("  receipt  {}", difference.this))?;
            ui.line(&format!("  found    {}", difference.other))?;
        }
        if let Some(call) = first_host_call {
            ui.line(&format!("the runs part at host call {call}"))?;
        }
        let names: Vec<&str> = differences
            .iter()
            .map(|difference| difference.field.as_str())
            .collect();
        let failure =
            Failure::not_verified(format!("not reproduced: {} differs", names.join(", ")));
        Err(match receipt.consensus.determinism {
            Determinism::Tolerant => failure.help(
                "the receipt is tolerant: an honest run on another CPU, or with another version \
                 of the library, may differ in the last digits of what its models computed",
            ),
            Determinism::Exact | Determinism::NotRerunnable => failure,
        })
    }
}

/// A run that was stopped from outside cannot be told from a false one.
fn check_rerunnable(receipt: &Receipt) -> Result<(), Failure> {
    let consensus = &receipt.consensus;
    if consensus.determinism != Determinism::NotRerunnable {
        return Ok(());
    }
    let message = format!(
        "this receipt is of a run that ended as {} and is not-rerunnable: it can be neither \
         confirmed nor refuted",
        consensus.exit
    );
    Err(Failure::usage(message)
        .help("run the job again to its end; `tussah receipt verify` still checks the signature"))
}

/// What the receipt is about, by digest.
fn documents(blobs: &Blobs, consensus: &Consensus) -> Result<(Manifest, Vec<u8>), Failure> {
    let missing = |what: &str, failure: Failure| {
        let failure = failure.context(format!("the receipt's {what} cannot be had"));
        match failure.help {
            Some(_) => failure,
            None => failure.help("run the job once with this TUSSAH_HOME, which keeps it"),
        }
    };
    let most = u64::try_from(Manifest::BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = blobs
        .read(&consensus.manifest, most)
        .map_err(|error| missing("manifest", error.into()))?;
    let manifest = Manifest::from_bytes(&bytes).map_err(Failure::not_verified)?;
    let module = blobs
        .read(&consensus.module, ModuleRef::SIZE_BYTES_MAX)
        .map_err(|error| missing("module", error.into()))?;
    Ok((manifest, module))
}

fn input_digest(opening: &Opening, input: &[u8]) -> String {
    tussah_manifest::RequestBody::input_digest(&opening.request.body.nonce, input).to_string()
}

fn view(difference: &Difference) -> DifferenceView<'_> {
    DifferenceView {
        field: &difference.field,
        receipt: &difference.this,
        found: &difference.other,
    }
}

/// All fields of the consensus part, one by one. Where the profiles differ, which of their
/// settings it is says more than two digests.
fn compare(receipt: &Receipt, opening: &Opening, again: &SignedRun) -> Vec<Difference> {
    let settings = opening.profile.differences(&again.opening.profile);
    let mut differences = receipt.consensus.differences(&again.receipt.consensus);
    // A re-run has no price: what a run costs is the provider's price sheet, up to the client's cap.
    differences.retain(|difference| difference.field != "price_nanograms");
    let price_max = opening.request.body.price_nanograms_max;
    if receipt.consensus.price_nanograms > price_max {
        differences.push(Difference {
            field: "price_nanograms".to_owned(),
            this: receipt.consensus.price_nanograms.to_string(),
            other: format!("at most {price_max}"),
        });
    }
    if !settings.is_empty() {
        differences.retain(|difference| difference.field != "profile");
    }
    let settings = settings.into_iter().map(|difference| Difference {
        field: format!("profile.{}", difference.field),
        ..difference
    });
    differences.extend(settings);
    differences
}
