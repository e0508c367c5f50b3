//! The end of a submitted job: its receipt is fetched, checked, and only then is it done.
//!
//! In: what was heard, and the provider's word on how it ended. Out: files, a report and an exit
//! code, from the receipt alone; where it does not fit, exit code 3 and what does not.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tussah_manifest::{Document as _, ExitStatus, Manifest, Nanograms, Opening, Receipt};
use ureq::http::header;

use crate::{
    exit_code::Exit,
    failure::{Failure, file_failure},
    grams::grams,
    remote::{
        Call, Remote,
        evidence::{EvidenceError, Expected, check_opening},
        kept::Kept,
        printable,
    },
    road,
    ui::{self, Ui},
};

/// Where results go besides standard output.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Place<'a> {
    pub(in crate::cli) receipt: Option<&'a Path>,
    pub(in crate::cli) output: Option<&'a Path>,
}

/// A job that has ended, by the provider's word.
#[derive(Debug)]
pub(in crate::cli) struct Ended {
    /// The job as the provider shows it.
    pub(in crate::cli) view: Value,
    /// All the output that came.
    pub(in crate::cli) output: Vec<u8>,
    /// Whether we cancelled it.
    pub(in crate::cli) was_interrupted: bool,
}

#[derive(Serialize)]
struct View<'a> {
    exit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// The job's output as text, or nothing if it is not UTF-8.
    output: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_hex: Option<String>,
    job_id: String,
    provider: &'a str,
    /// The receipt's signature, job, module, manifest, models, price and output were checked.
    verified: bool,
    price_nanograms: Nanograms,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_path: Option<&'a Path>,
    receipt: &'a Receipt,
}

impl Ended {
    /// Checks the receipt, writes what was asked for, and says how the job ended.
    ///
    /// # Errors
    /// Exit code 3 where the evidence does not fit; what the provider says of a job without a run.
    pub(in crate::cli) fn finish(
        self,
        remote: &Remote,
        kept: &Kept,
        manifest: &Manifest,
        place: Place<'_>,
        ui: &Ui,
    ) -> Result<Exit, Failure> {
        let remote = remote.unhurried();
        let id = kept.request.body.job_id();
        if self.view["status"] == "not-run" {
            return Err(self.not_run());
        }
        let call = Call::get(format!("/v1/jobs/{id}/receipt"))
            .header(header::ACCEPT, "application/octet-stream");
        let bytes = remote.ask(&call)?.body;
        let expected = Expected {
            request: &kept.request,
            manifest: Some(manifest),
            provider_key: &kept.provider_key,
        };
        let receipt = expected.check(&bytes, &self.output).map_err(refuted)?;
        let told = self.view["error"]["message"].as_str();
        expected
            .check_message(&receipt, told.unwrap_or_default())
            .map_err(refuted)?;
        if let Some(path) = place.receipt {
            let call = Call::get(format!("/v1/jobs/{id}/opening"));
            let opening = remote.ask_for(&call, Opening::BYTES_MAX)?.body;
            check_opening(&opening, &receipt, &self.output).map_err(refuted)?;
            road::write_pair(path, &bytes, &opening)?;
        }
        if let Some(path) = place.output {
            let staged = road::stage(path, &self.output, 0o644)?;
            staged
                .persist(path)
                .map_err(|error| file_failure("write", path, error.error))?;
        }
        let exit = self.exit_of(&receipt);
        self.report(ui, &remote, &receipt, place, exit)?;
        Ok(exit)
    }

    fn exit_of(&self, receipt: &Receipt) -> Exit {
        match road::exit_of(&receipt.consensus.exit) {
            // Somebody else cancelled it, or the provider did.
            Exit::INTERRUPTED if !self.was_interrupted => Exit::LIMIT,
            exit => exit,
        }
    }

    /// There is no receipt, so this is the provider's word alone.
    fn not_run(&self) -> Failure {
        let error = &self.view["error"];
        let said = printable(error["message"].as_str().unwrap_or("it gave no reason"));
        let exit = match (error["fault"].as_str(), self.was_interrupted) {
            (_, true) => Exit::INTERRUPTED,
            (Some("developer"), _) => Exit::USAGE,
            (Some("client"), _) => Exit::LIMIT,
            _ => Exit::HOST_FAILED,
        };
        let message = format!("the provider did not run the job: {said}");
        Failure::new(exit, message).help("it cost nothing, and left no receipt")
    }

    fn report(
        &self,
        ui: &Ui,
        remote: &Remote,
        receipt: &Receipt,
        place: Place<'_>,
        exit: Exit,
    ) -> Result<(), Failure> {
        let consensus = &receipt.consensus;
        let error = self.view["error"]["message"].as_str();
        if ui.json() {
            let output = std::str::from_utf8(&self.output).ok();
            return ui.document(&View {
                exit: consensus.exit.name(),
                error,
                output,
                output_hex: match output {
                    Some(_) => None,
                    None => Some(self.output.iter().map(|b| format!("{b:02x}")).collect()),
                },
                job_id: consensus.job.to_string(),
                provider: remote.base(),
                verified: true,
                price_nanograms: consensus.price_nanograms,
                receipt_path: place.receipt,
                receipt,
            });
        }
        if consensus.exit != ExitStatus::Done {
            let said = match (&consensus.exit, error) {
                (ExitStatus::JobError { .. }, Some(text)) => printable(text),
                // No receipt has a digest of these words.
                (_, Some(text)) => format!("the provider says: {}", printable(text)),
                (exit, None) => exit.to_string(),
            };
            ui.fail(&Failure::new(exit, said));
        }
        ui.note(&format!(
            "{}, verified: signed by {}; cost {}, fuel {}, inference units {}",
            consensus.exit,
            receipt.provider_key,
            grams(consensus.price_nanograms),
            ui::count(consensus.fuel_used),
            ui::count(consensus.inference_units_used),
        ));
        if let Some(path) = place.receipt {
            let opening = road::opening_path(path);
            ui.note(&format!(
                "receipt {}, {}",
                path.display(),
                consensus.determinism
            ));
            ui.note(&format!("opening {} (private)", opening.display()));
        }
        Ok(())
    }
}

/// What the provider gave is no evidence of this job.
pub(in crate::cli) fn refuted(error: EvidenceError) -> Failure {
    Failure::not_verified(error)
        .context("the provider's receipt does not prove this job")
        .help("do not use the output, and do not pay for it; ask another provider")
}
