//! `tussah logs`: how a job on a provider stands, what it says, and what is left of it.

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tussah_manifest::{Digest, Document as _, Opening, Receipt};
use tussah_runtime::{Event, Events as _};
use ureq::http::header;

use super::{run::Shown, submit::refuted};
use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    interrupt::Interrupt,
    remote::{
        Call, Remote, RemoteError,
        evidence::{EvidenceError, Expected, check_opening},
        follow::{Followed, Told},
        kept::Kept,
        option::{HERE, RemoteOption},
        printable,
    },
    road,
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah logs blake3:9a0c…             How it stands, its log, its output
  tussah logs blake3:9a0c… --follow    The output as it comes, until the job ends
  tussah logs blake3:9a0c… --to https://ai.example.org --json

Where the job was submitted from this machine, its provider is known. Output goes to
standard output, the rest to standard error. What is shown of a job that has ended is
checked against its receipt as `tussah submit` does it; exit codes are the job's.";

/// The most output that any job may have: what providers keep of one is less.
const OUTPUT_BYTES_MAX: usize = 1 << 30;
/// The most log that is shown.
const LOG_BYTES_MAX: usize = 64 << 20;

/// Show a job on a provider: its state, log and output.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The job's id.
    #[arg(value_name = "JOB-ID")]
    job: Digest,
    #[command(flatten)]
    remote: RemoteOption,
    /// Show the output as it comes, until the job ends.
    #[arg(long)]
    follow: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    /// The job as the provider shows it.
    job: &'a Value,
    /// Whether signature, job, module, manifest and output were checked; nothing of a job that
    /// has not ended, or has no receipt.
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a Receipt>,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let kept = Kept::find(&Home::open()?, &self.job)?;
        let usual = kept.as_ref().map_or(HERE, |kept| &kept.to);
        let remote = self.remote.open(usual, &interrupt, ui)?;
        let id = self.job;
        let mut view = remote
            .ask_first(&Call::get(format!("/v1/jobs/{id}")))?
            .json()?;
        let mut streamed = None;
        if self.follow && view["ended"] != true {
            state(&view, ui);
            let (ended, output) = self.follow(&remote, ui)?;
            (view, streamed) = (ended, Some(output));
        }
        if view["ended"] != true {
            state(&view, ui);
            ui.note("its output comes with --follow, its log when it has ended");
            if ui.json() {
                ui.document(&View {
                    job: &view,
                    verified: None,
                    output: None,
                    output_hex: None,
                    log: None,
                    receipt: None,
                })?;
            }
            return Ok(Exit::DONE);
        }
        self.ended(&remote, kept.as_ref(), &view, streamed, ui)
    }

    /// Follows the job to its end: the provider's view of it, and all its output. Ctrl-C leaves it
    /// alone.
    fn follow(&self, remote: &Remote, ui: &Ui) -> Result<(Value, Vec<u8>), Failure> {
        let most = u64::try_from(OUTPUT_BYTES_MAX).unwrap_or(u64::MAX);
        let mut followed = Followed::new(self.job, most);
        let shown = Shown::new(*ui, ui.json());
        let view = followed.until_end(remote, &mut |told| match told {
            Told::Started => {}
            Told::Output(bytes) => shown.event(Event::Output(bytes)),
            Told::Progress { note, done, total } => {
                shown.event(Event::Progress { note, done, total });
            }
        });
        shown.finish()?;
        Ok((view?, followed.output().to_owned()))
    }

    fn ended(
        &self,
        remote: &Remote,
        kept: Option<&Kept>,
        view: &Value,
        streamed: Option<Vec<u8>>,
        ui: &Ui,
    ) -> Result<Exit, Failure> {
        let part = |name: &str, most| -> Result<Vec<u8>, RemoteError> {
            let call = Call::get(format!("/v1/jobs/{}/{name}", self.job))
                .header(header::ACCEPT, "application/octet-stream");
            Ok(remote.ask_for(&call, most)?.body)
        };
        let log = part("log", LOG_BYTES_MAX)?;
        let is_streamed = streamed.is_some();
        let output = match streamed {
            Some(output) => output,
            None => part("output", OUTPUT_BYTES_MAX)?,
        };
        let receipt = match view["status"].as_str() {
            Some("not-run") => None,
            _ => {
                let receipt = part("receipt", Receipt::BYTES_MAX)?;
                let opening = part("opening", Opening::BYTES_MAX)?;
                let checked = self.check(kept, &receipt, &opening, &output);
                Some(checked.map_err(refuted)?)
            }
        };
        if ui.json() {
            let text = String::from_utf8(output);
            let (output, output_hex) = match text {
                Ok(text) => (Some(text), None),
                Err(error) => {
                    let bytes = error.into_bytes();
                    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    (None, Some(hex))
                }
            };
            ui.document(&View {
                job: view,
                verified: receipt.is_some().then_some(true),
                output,
                output_hex,
                log: Some(String::from_utf8_lossy(&log).into_owned()),
                receipt: receipt.as_ref(),
            })?;
        } else {
            state(view, ui);
            ui.log(&log);
            if !is_streamed {
                ui.out(&output)?;
            }
        }
        let Some(receipt) = receipt else {
            ui.note("it has no receipt, since nothing ran: this is the provider's word alone");
            return Ok(Exit::JOB_FAILED);
        };
        let whose = match kept {
            Some(_) => "verified",
            None => "verified, for whatever key it has: the job was not submitted from here",
        };
        ui.note(&format!("{whose}: signed by {}", receipt.provider_key));
        Ok(match road::exit_of(&receipt.consensus.exit) {
            Exit::INTERRUPTED => Exit::LIMIT,
            exit => exit,
        })
    }

    /// By the request that was sent from here, else by the opening's, whose id is the job's.
    fn check(
        &self,
        kept: Option<&Kept>,
        receipt: &[u8],
        opening: &[u8],
        output: &[u8],
    ) -> Result<Receipt, EvidenceError> {
        let signed = Receipt::from_verified_bytes(receipt)?;
        let opening = check_opening(opening, &signed, output)?;
        let expected = match kept {
            Some(kept) => Expected {
                request: &kept.request,
                manifest: None,
                provider_key: &kept.provider_key,
            },
            None => Expected {
                request: &opening.request,
                manifest: None,
                provider_key: &signed.provider_key,
            },
        };
        let receipt = expected.check(receipt, output)?;
        if receipt.consensus.job != self.job {
            return Err(EvidenceError::Differs {
                what: "job",
                expected: self.job.to_string(),
                found: receipt.consensus.job.to_string(),
            });
        }
        Ok(receipt)
    }
}

/// How the provider says that it stands.
fn state(view: &Value, ui: &Ui) {
    let status = printable(view["status"].as_str().unwrap_or("in an unknown state"));
    let error = match view["error"]["message"].as_str() {
        Some(message) => format!(": {}", printable(message)),
        None => String::new(),
    };
    let time = |field: &str| view[field].as_u64();
    let took = match (time("accepted_unix_ms"), time("finished_unix_ms")) {
        (Some(from), Some(to)) => {
            let took = std::time::Duration::from_millis(to.saturating_sub(from));
            format!(", {} after it was accepted", ui::duration(took))
        }
        _ => String::new(),
    };
    ui.note(&format!("{status}{error}{took}"));
}
