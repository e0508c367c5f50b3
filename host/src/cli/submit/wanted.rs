//! What is to be run on a provider: from a folder of this machine, a digest or a provider's name.
//!
//! In: one argument. Out: a manifest that is what its digest says, and the module where it is
//! ours to bring; what the provider says a run costs at most.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use tussah_manifest::{Claim, Digest, Document as _, Manifest, Nanograms, PublicKey, Request};

use crate::{
    cli::run::{ModelArgument, Sources},
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    remote::{Call, Remote, RemoteError},
    ui::Ui,
};

/// A job, wherever it was found.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) manifest: Manifest,
    /// Where it is this machine's to bring.
    pub(super) module: Option<Vec<u8>>,
}

impl Wanted {
    pub(super) fn find(
        job: &str,
        models: &[ModelArgument],
        sources: &Sources,
        remote: &Remote,
        ui: &Ui,
    ) -> Result<Self, Failure> {
        let path = Path::new(job);
        if path.exists() {
            let (manifest, module) = sources.job(path, models, ui)?;
            return Ok(Self {
                manifest,
                module: Some(module),
            });
        }
        if !models.is_empty() {
            let message = "--model is for a job of this machine, not for what a provider offers";
            return Err(Failure::usage(message));
        }
        let digest = match job.starts_with("blake3:") {
            true => job.parse::<Digest>().map_err(Failure::usage)?,
            false => offered(job, remote)?,
        };
        let most = u64::try_from(Manifest::BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = match sources.blobs.read(&digest, most) {
            Ok(bytes) => bytes,
            Err(_) => {
                remote
                    .ask_first(&Call::get(format!("/v1/manifests/{digest}")))?
                    .body
            }
        };
        if Digest::of(&bytes) != digest {
            let message = format!("what the provider gave is not the manifest {digest}");
            return Err(Failure::not_verified(message));
        }
        let manifest = Manifest::from_bytes(&bytes).map_err(Failure::not_verified)?;
        Ok(Self {
            manifest,
            module: None,
        })
    }

    /// What is paid at most: what the client says and what the manifest allows, whichever is less.
    /// Where neither says anything the job has to be free, since a signature binds.
    pub(super) fn price_max(&self, of_client: Option<Nanograms>) -> Nanograms {
        let of_manifest = self.manifest.job.price_nanograms_max;
        match of_client {
            Some(of_client) if of_manifest > Nanograms::ZERO => of_client.min(of_manifest),
            Some(of_client) => of_client,
            None => of_manifest,
        }
    }

    /// How a call names the job: the provider has the manifest of what it offers.
    fn fields(&self) -> Value {
        match self.module {
            Some(_) => json!({"manifest_toml": self.manifest.to_toml()}),
            None => json!({"manifest": self.manifest.digest().to_string()}),
        }
    }

    pub(super) fn submission(
        &self,
        request: &Request,
        claim: Option<&Claim>,
        input: &[u8],
    ) -> Call {
        let mut fields = self.fields();
        fields["request"] = BASE64.encode(request.to_bytes()).into();
        if let Some(claim) = claim {
            fields["claim"] = BASE64.encode(claim.to_bytes()).into();
        }
        match std::str::from_utf8(input) {
            Ok(text) => fields["input"] = text.into(),
            Err(_) => fields["input_base64"] = BASE64.encode(input).into(),
        }
        Call::post("/v1/jobs", &fields)
    }
}

/// The manifest of what a provider offers under a name.
fn offered(name: &str, remote: &Remote) -> Result<Digest, Failure> {
    let is_name = tussah_provider::ledger::check_name(name).is_ok();
    let nowhere = || {
        let message = format!(
            "`{name}` is no file or folder here, and {} offers none of that name",
            remote.base()
        );
        Failure::usage(message).help("look at the path, or at --to")
    };
    if !is_name {
        return Err(nowhere());
    }
    let answer = match remote.ask_first(&Call::get(format!("/v1/models/{name}"))) {
        Err(error) if error.is_refusal("model_not_found") => return Err(nowhere()),
        answer => answer?.json()?,
    };
    let digest = answer["tussah"]["manifest"].as_str();
    let digest = digest.and_then(|text| text.parse().ok());
    let nonsense = || RemoteError::Nonsense("its model has no manifest".to_owned()).into();
    digest.ok_or_else(nonsense)
}

/// What the provider says beforehand.
#[derive(Debug)]
pub(super) struct Quote {
    pub(super) provider_key: PublicKey,
    price_max: Nanograms,
    cap: Nanograms,
    is_covered: bool,
}

impl Quote {
    /// Asks what a run costs at most, and whether it is taken at `price_max`.
    pub(super) fn ask(
        remote: &Remote,
        wanted: &Wanted,
        price_max: Nanograms,
    ) -> Result<Self, Failure> {
        let mut fields = wanted.fields();
        fields["max_price_nanograms"] = price_max.get().to_string().into();
        let answer = remote
            .ask_first(&Call::post("/v1/quote", &fields))?
            .json()?;
        let nonsense = |what: &str| {
            let message = format!("its quote has no `{what}`");
            Failure::from(RemoteError::Nonsense(message))
        };
        let amount = |field: &str| {
            let number = answer[field].as_str().and_then(|text| text.parse().ok());
            number
                .and_then(Nanograms::new)
                .ok_or_else(|| nonsense(field))
        };
        let key = answer["provider_key"].as_str();
        let key = key.and_then(|text| text.parse().ok());
        Ok(Self {
            provider_key: key.ok_or_else(|| nonsense("provider_key"))?,
            price_max: amount("price_nanograms_max")?,
            cap: amount("cap_nanograms")?,
            is_covered: answer["covered"].as_bool().unwrap_or(false),
        })
    }

    /// Whether the job would be taken at what is offered for it.
    pub(super) fn check_price(&self) -> Result<(), Failure> {
        if self.is_covered {
            return Ok(());
        }
        let (price_max, cap) = (grams(self.price_max), grams(self.cap));
        let message = format!(
            "a run within the job's limits can cost {price_max} here, and {cap} at most is offered"
        );
        Err(Failure::new(Exit::LIMIT, message).help(
            "give --max-price, or raise it and the job's price_nanograms_max, or lower the job's \
             limits; nothing was sent",
        ))
    }
}
