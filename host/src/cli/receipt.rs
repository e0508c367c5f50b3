//! `tussah receipt`: what a receipt says, whether its provider signed it, whether a chain holds it.

mod inclusion;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use tussah_manifest::{Document, Evidence, PublicKey, Receipt, SigningKey};

use crate::{
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    home::Home,
    input,
    keys::{self, KeyName},
    ui::{self, Ui},
};
use inclusion::{Inclusion, InclusionOption};

/// Show and verify receipts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(ShowArguments),
    Verify(VerifyArguments),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  tussah receipt show r.cbor
  tussah receipt show r.cbor --json | jq .consensus.output

Only a receipt whose signature is good is shown.";

/// Show what a receipt says.
#[derive(Debug, Args)]
#[command(after_long_help = SHOW_EXAMPLES)]
pub(crate) struct ShowArguments {
    /// The receipt; `-` is standard input.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  tussah receipt verify r.cbor
  tussah receipt verify r.cbor --key ed25519:3b6a27bc…   Only that provider's signature counts
  tussah receipt verify r.cbor --chain testnet     And the chain has to hold it
  tussah receipt verify r.cbor --chain testnet --json > proof.json
  tussah receipt verify r.cbor --chain testnet --proof proof.json
                                       The same on a machine without the channel's book

Exit code 0: every byte is as the provider signed it. Exit code 3: it is not, whatever
byte was changed. A good signature says who claims it; `tussah audit` says whether it is
true. With --chain, exit code 0 says that the receipt is in the root that its channel's
contract holds, by this program and by the contract itself.";

/// Check that a receipt is exactly what its provider signed.
#[derive(Debug, Args)]
#[command(after_long_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyArguments {
    /// The receipt; `-` is standard input.
    file: PathBuf,
    /// The provider's public key; any key if not given.
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
    #[command(flatten)]
    inclusion: InclusionOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verified {
    verified: bool,
    provider_key: String,
    /// Whether this machine's own key signed it.
    signed_here: bool,
    receipt_digest: String,
    consensus_digest: String,
    /// Where the chain has it, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    inclusion: Option<Inclusion>,
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Show(arguments) => arguments.json,
            Self::Verify(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        match self {
            Self::Show(arguments) => show(&arguments.file, ui),
            Self::Verify(arguments) => verify(&arguments, ui),
        }
    }
}

/// Reads a receipt and checks its signature; whatever is wrong with its bytes is exit code 3.
///
/// # Errors
/// A failure if it cannot be read or is not what was signed.
pub(super) fn read(path: &Path) -> Result<Receipt, Failure> {
    let most = u64::try_from(Receipt::BYTES_MAX).unwrap_or(u64::MAX);
    // One byte more, so that the decoder sees that it is too long.
    let bytes = input::bytes_up_to(path, most.saturating_add(1))?;
    Receipt::from_verified_bytes(&bytes).map_err(|error| {
        Failure::not_verified(error)
            .context(format!(
                "{} is not a receipt as its provider signed it",
                path.display()
            ))
            .help("ask the provider for the receipt again, or run the job again")
    })
}

fn show(path: &Path, ui: &Ui) -> Result<Exit, Failure> {
    let receipt = read(path)?;
    if ui.json() {
        ui.line(&receipt.to_json())?;
        return Ok(Exit::DONE);
    }
    for (label, value) in rows(&receipt) {
        ui.line(&format!("{label:<16}  {value}"))?;
    }
    Ok(Exit::DONE)
}

fn rows(receipt: &Receipt) -> Vec<(&'static str, String)> {
    let (consensus, evidence) = (&receipt.consensus, &receipt.evidence);
    let mut rows = vec![
        ("exit", consensus.exit.to_string()),
        ("determinism", consensus.determinism.to_string()),
        ("job", consensus.job.to_string()),
        ("module", consensus.module.to_string()),
        ("manifest", consensus.manifest.to_string()),
    ];
    rows.extend(
        consensus
            .models
            .iter()
            .map(|(name, digest)| ("model", format!("{digest} {name}"))),
    );
    rows.extend([
        ("output, salted", consensus.output.to_string()),
        ("profile", consensus.profile.to_string()),
        ("fuel", ui::count(consensus.fuel_used)),
        ("inference units", ui::count(consensus.inference_units_used)),
        ("price", grams(consensus.price_nanograms)),
        ("channel", consensus.channel.to_string()),
        ("consensus", consensus.digest().to_string()),
        ("host", evidence.host_build.to_string()),
        ("wasm engine", evidence.wasm_engine.to_string()),
        ("inference", evidence.inference_engine.to_string()),
        ("GPU", gpu(evidence)),
        ("GPU time", gpu_time(evidence)),
        ("threads", evidence.threads.to_string()),
        (
            "time",
            ui::duration(std::time::Duration::from_nanos(evidence.wall_ns)),
        ),
        ("signed by", receipt.provider_key.to_string()),
        ("receipt", receipt.digest().to_string()),
    ]);
    rows
}

fn gpu(evidence: &Evidence) -> String {
    match (&evidence.adapter, &evidence.driver) {
        (Some(adapter), Some(driver)) => format!("{adapter}, {driver}"),
        (Some(adapter), None) => adapter.to_string(),
        (None, _) => "none".to_owned(),
    }
}

fn gpu_time(evidence: &Evidence) -> String {
    match (evidence.gpu_ns, &evidence.adapter) {
        (Some(nanos), _) => ui::duration(std::time::Duration::from_nanos(nanos)),
        (None, Some(_)) => "not measured".to_owned(),
        (None, None) => "none".to_owned(),
    }
}

fn verify(arguments: &VerifyArguments, ui: &Ui) -> Result<Exit, Failure> {
    let receipt = read(&arguments.file)?;
    if let Some(expected) = arguments.key
        && expected != receipt.provider_key
    {
        let found = receipt.provider_key;
        let message = format!("the receipt is signed by {found}, not by {expected}");
        return Err(Failure::not_verified(message));
    }
    let verified = Verified {
        verified: true,
        provider_key: receipt.provider_key.to_string(),
        signed_here: own_key() == Some(receipt.provider_key),
        receipt_digest: receipt.digest().to_string(),
        consensus_digest: receipt.consensus.digest().to_string(),
        inclusion: arguments.inclusion.check(&receipt)?,
    };
    if ui.json() {
        ui.document(&verified)?;
    } else {
        let whose = if verified.signed_here {
            " (this machine's key)"
        } else {
            ""
        };
        ui.line(&format!("good: signed by {}{whose}", verified.provider_key))?;
        if let Some(Inclusion {
            channel,
            posted,
            proof,
        }) = &verified.inclusion
        {
            let (index, count, root) = (proof.index, posted.receipts, posted.root);
            ui.line(&format!(
                "on chain: receipt {index} of {count} in {root}, held by {channel}"
            ))?;
        }
    }
    Ok(Exit::DONE)
}

/// Verifying needs no home folder, so that anything wrong with it only means "not ours".
fn own_key() -> Option<PublicKey> {
    let secret = keys::load(&Home::open().ok()?, KeyName::Provider).ok()??;
    Some(SigningKey::from_bytes(&secret).public_key())
}
