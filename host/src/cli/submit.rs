//! `tussah submit`: a job on a provider, whose receipt is checked before it counts as done.

mod end;
mod wanted;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tussah_manifest::{
    Channel, Claim, Digest, Manifest, Nanograms, Nonce, PublicKey, Request, RequestBody,
    SigningKey, Version,
};
use tussah_runtime::{Event, Events as _};
use ureq::http::StatusCode;

use super::run::{ModelArgument, Shown, Sources, model_argument, read_input};
use crate::{
    blobs::Blobs,
    exit_code::Exit,
    failure::Failure,
    grams,
    home::Home,
    interrupt::Interrupt,
    keys::{self, KeyName},
    models::Models,
    pull::http::HttpError,
    remote::{
        Call, Remote, RemoteError,
        follow::{Followed, Told},
        kept::Kept,
        option::{HERE, RemoteOption},
        upload::upload,
    },
    road,
    serve::verified::read_claim,
    ui::{self, Ui},
};
pub(super) use end::refuted;
use end::{Ended, Place};
use wanted::{Quote, Wanted};

const EXAMPLES: &str = "\
Examples:
  tussah submit . --input article.txt --to https://ai.example.org
                                                This folder's job, on that provider
  tussah submit chat --input chat.json          A job that is deployed on this machine's provider
  tussah submit blake3:5d41… --input a.txt --max-price 0.01 --receipt r.cbor
  tussah submit . --input a.txt --detach        Do not wait; `tussah logs JOB-ID` looks again
  tussah submit . --input a.txt --job-id blake3:9a0c…
                                                The same request again: it runs once

The API key stands in --key-file or TUSSAH_API_KEY. What the provider lacks of the job is
uploaded; a full queue and a broken line are waited out. Output streams to standard output
and is provisional until the receipt came: exit code 0 says that it is signed by the
provider's key, and is of this module, manifest and input and of exactly these bytes; exit
code 3 that it is not. With --output or --json nothing is shown before that. Ctrl-C cancels
the job.";

/// Run a job on a provider.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A job's folder (built first), a module or a manifest; a manifest's digest; or the name
    /// of a job that the provider offers.
    #[arg(value_name = "JOB|MANIFEST|DIGEST|MODEL")]
    job: String,
    /// The job's input; `-` is standard input. Nothing if not given.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A model for the job: SOURCE is a name of `tussah model list`, a digest, or a GGUF file.
    #[arg(long, value_name = "NAME=SOURCE", value_parser = model_argument)]
    model: Vec<ModelArgument>,
    #[command(flatten)]
    remote: RemoteOption,
    /// The key that has to sign the receipt; the one that the provider names beforehand if not
    /// given.
    #[arg(long, value_name = "KEY")]
    provider: Option<PublicKey>,
    /// The most that the job may cost; what its manifest allows if not given, else nothing.
    #[arg(long, value_name = "GRAM", value_parser = grams::parse)]
    max_price: Option<Nanograms>,
    /// A claim of `tussah verify --sign` on the job's module, for a provider that asks for one.
    #[arg(long, value_name = "FILE")]
    claim: Option<PathBuf>,
    /// End when the job is accepted; it goes on without us.
    #[arg(long, conflicts_with_all = ["receipt", "output"])]
    detach: bool,
    /// Write the signed receipt here, and its opening beside it.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Write the output here, once it is verified, and not to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Send the request of this job again, which was made here before.
    #[arg(long, value_name = "ID")]
    job_id: Option<Digest>,
    /// Print JSON when done: output, exit, usage, receipt.
    #[arg(long)]
    pub(super) json: bool,
}

/// A job that was accepted and left alone.
#[derive(Serialize)]
struct Detached<'a> {
    job_id: String,
    provider: &'a str,
    provider_key: String,
    /// Whether the provider had the job before.
    known: bool,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let home = Home::open()?;
        let sources = Sources {
            blobs: Blobs::open(&home)?,
            models: Models::open(&home)?,
            home,
            interrupt: interrupt.clone(),
            seen: std::sync::Mutex::default(),
        };
        let kept = self.kept(&sources.home)?;
        let usual = kept.as_ref().map_or(HERE, |kept| &kept.to);
        let remote = self.remote.open(usual, &interrupt, ui)?;
        let wanted = Wanted::find(&self.job, &self.model, &sources, &remote, ui)?;
        let manifest = &wanted.manifest;
        let claim = match &self.claim {
            Some(path) => Some(read_claim(path, &manifest.module.digest)?),
            None => None,
        };
        let input = match &self.input {
            Some(path) => read_input(path, manifest.job.limits.input_bytes_max)?,
            None => Vec::new(),
        };
        if let Some(path) = &self.receipt {
            road::require_writable(path)?;
        }
        if let Some(path) = &self.output {
            drop(road::stage(path, &[], 0o644)?);
        }
        let price_max = match &kept {
            Some(kept) => kept.request.body.price_nanograms_max,
            None => wanted.price_max(self.max_price),
        };
        let quote = Quote::ask(&remote, &wanted, price_max)?;
        let kept = match kept {
            Some(kept) => check_same(kept, manifest, &input)?,
            None => Kept {
                request: request(&sources.home, manifest, &input, price_max)?,
                to: remote.base().to_owned(),
                provider_key: quote.provider_key,
            },
        };
        self.check_key(&kept, &quote)?;
        quote.check_price()?;
        // Before anything is sent, so that whatever happens the same request can be sent again.
        kept.keep(&sources.home)?;
        sources
            .blobs
            .put(&tussah_manifest::Document::to_bytes(manifest))?;
        let id = kept.request.body.job_id();
        if let Some(module) = &wanted.module {
            sources.blobs.put(module)?;
            let sent = upload(&remote, "uploading", module, ui)?;
            if sent.bytes > 0 {
                ui.note(&format!("uploaded the module, {}", ui::size(sent.bytes)));
            }
        }
        let known = match submit(&remote, &wanted, &kept.request, claim.as_ref(), &input) {
            Ok(known) => known,
            Err(error) => return Err(not_submitted(&remote, &id, error, ui)),
        };
        let again = if known {
            ", which the provider had"
        } else {
            ""
        };
        ui.note(&format!("job {id}{again}"));
        if self.detach {
            return detached(&remote, &kept, known, ui);
        }
        let followed = self.follow(&remote, &kept, manifest, ui)?;
        let place = Place {
            receipt: self.receipt.as_deref(),
            output: self.output.as_deref(),
        };
        followed.finish(&remote, &kept, manifest, place, ui)
    }

    fn kept(&self, home: &Home) -> Result<Option<Kept>, Failure> {
        let Some(id) = &self.job_id else {
            return Ok(None);
        };
        let kept = Kept::find(home, id)?;
        let missing = || {
            let message = format!("no request of the job {id} was made here");
            Failure::usage(message).help("leave --job-id out, and a new request is made")
        };
        kept.map(Some).ok_or_else(missing)
    }

    /// The provider has to be the one that is meant, before it gets the input.
    fn check_key(&self, kept: &Kept, quote: &Quote) -> Result<(), Failure> {
        let meant = self.provider.as_ref().unwrap_or(&kept.provider_key);
        if *meant == quote.provider_key && *meant == kept.provider_key {
            return Ok(());
        }
        let found = quote.provider_key;
        let message = format!("the provider signs with {found}, and {meant} is expected");
        Err(Failure::not_verified(message)
            .help("nothing was sent: ask the provider about its key, or look at --to"))
    }

    /// Listens to the job's end; Ctrl-C cancels it and waits for what the receipt says then.
    fn follow(
        &self,
        remote: &Remote,
        kept: &Kept,
        manifest: &Manifest,
        ui: &Ui,
    ) -> Result<Ended, Failure> {
        let id = kept.request.body.job_id();
        let silent = ui.json() || self.output.is_some();
        let shown = Shown::new(*ui, silent);
        let mut tell = |told: Told<'_>| match told {
            Told::Started => {}
            Told::Output(bytes) => shown.event(Event::Output(bytes)),
            Told::Progress { note, done, total } => {
                shown.event(Event::Progress { note, done, total });
            }
        };
        let mut followed = Followed::new(id, manifest.job.limits.output_bytes_max);
        let waiting = ui.spinner("waiting for the provider");
        let (view, was_interrupted) = match followed.until_end(remote, &mut tell) {
            Err(RemoteError::Http(HttpError::Interrupted)) => {
                ui.note("cancelling the job at the provider; Ctrl-C again leaves at once");
                let remote = remote.unhurried();
                remote.ask(&cancel(&id)).map_err(|error| left(&id, error))?;
                (followed.until_end(&remote, &mut tell), true)
            }
            ended => (ended, false),
        };
        drop(waiting);
        let delivered = shown.finish();
        let view = view.map_err(|error| left(&id, error))?;
        delivered?;
        Ok(Ended {
            view,
            output: followed.output().to_owned(),
            was_interrupted,
        })
    }
}

/// A new request, signed with this host's client key.
fn request(
    home: &Home,
    manifest: &Manifest,
    input: &[u8],
    price_nanograms_max: Nanograms,
) -> Result<Request, Failure> {
    let client = SigningKey::from_bytes(&*keys::load_or_create(home, KeyName::Client)?);
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(Failure::host)?;
    let nonce = Nonce::from_bytes(nonce);
    let body = RequestBody {
        version: Version::V1,
        manifest: manifest.digest(),
        module: manifest.module.digest,
        input: RequestBody::input_digest(&nonce, input),
        nonce,
        price_nanograms_max,
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: client.public_key(),
    };
    body.sign(&client).map_err(Failure::host)
}

fn cancel(id: &Digest) -> Call {
    Call::post(format!("/v1/jobs/{id}/cancel"), &serde_json::Value::Null)
}

/// The request that is sent again has to be of this job and this input.
fn check_same(kept: Kept, manifest: &Manifest, input: &[u8]) -> Result<Kept, Failure> {
    let body = &kept.request.body;
    let what = match () {
        () if body.manifest != manifest.digest() => "manifest",
        () if !body.is_for_input(input) => "input",
        () => return Ok(kept),
    };
    let message = format!("the request of --job-id is for another {what}");
    Err(Failure::usage(message).help("leave --job-id out, and a new request is made"))
}

/// Sends the request; whether the provider had it before.
fn submit(
    remote: &Remote,
    wanted: &Wanted,
    request: &Request,
    claim: Option<&Claim>,
    input: &[u8],
) -> Result<bool, RemoteError> {
    let answer = remote.ask(&wanted.submission(request, claim, input))?;
    let id = request.body.job_id().to_string();
    let view = answer.json()?;
    if view["id"].as_str() != Some(&id) {
        let message = "it speaks of another job".to_owned();
        return Err(RemoteError::Nonsense(message));
    }
    Ok(answer.status == StatusCode::OK)
}

/// Why the job was not submitted, and whether that is certain.
fn not_submitted(remote: &Remote, id: &Digest, error: RemoteError, ui: &Ui) -> Failure {
    match &error {
        RemoteError::Http(HttpError::Interrupted) => {
            // It may have arrived.
            let cancelled = remote.unhurried().ask_once(&cancel(id), 1 << 20);
            match cancelled {
                Ok(_) => ui.note(&format!("the job {id} was cancelled at the provider")),
                Err(RemoteError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {}
                Err(_) => ui.warn(&format!("it is not known whether {id} was accepted")),
            }
            Failure::interrupted()
        }
        RemoteError::Http(_) => Failure::from(error).help(format!(
            "it may have been accepted: the same command with `--job-id {id}` sends the same \
             request, which runs once"
        )),
        _ => error.into(),
    }
}

/// The job was accepted, and what became of it is not known.
fn left(id: &Digest, error: RemoteError) -> Failure {
    let is_line = matches!(error, RemoteError::Http(_));
    let failure = Failure::from(error);
    if !is_line {
        return failure;
    }
    failure.help(format!(
        "the job goes on at the provider: `tussah logs {id} --follow` takes it up again"
    ))
}

fn detached(remote: &Remote, kept: &Kept, known: bool, ui: &Ui) -> Result<Exit, Failure> {
    let id = kept.request.body.job_id();
    if ui.json() {
        ui.document(&Detached {
            job_id: id.to_string(),
            provider: remote.base(),
            provider_key: kept.provider_key.to_string(),
            known,
        })?;
        return Ok(Exit::DONE);
    }
    ui.line(&id.to_string())?;
    ui.note(&format!("`tussah logs {id} --follow` takes it up again"));
    Ok(Exit::DONE)
}
