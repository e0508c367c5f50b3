//! `Receipt`: what the provider says happened; a consensus part that a re-run must reproduce,
//! an evidence part that it need not, and a signature over both.
//!
//! In: the facts of a run. Out: signed bytes, or whether strangers' bytes are a signed receipt.
//! A receipt holds no input, no output and no nonce, only salted digests: it can be shown to
//! anyone. By itself it proves who said so, not that it is true; a re-run does that.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::channel::Channel;
use crate::difference::{Difference, Differences};
use crate::digest::{Digest, Domain, Hasher};
use crate::encoding::{Document, EncodingError, Version};
use crate::exit::{Determinism, ExitStatus};
use crate::keys::{PublicKey, Signature, SignatureError, SigningKey};
use crate::manifest::MODELS_MAX;
use crate::names::{Label, ModelName};
use crate::nanograms::Nanograms;

/// What a re-run has to reproduce to the bit, unless the run was not re-runnable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Consensus {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// The job id: the digest of the request's body.
    #[n(1)]
    pub job: Digest,
    /// Digest of the module's bytes.
    #[n(2)]
    pub module: Digest,
    /// Digest of the manifest's canonical bytes.
    #[n(3)]
    pub manifest: Digest,
    /// The models of the manifest, by the names it gives them.
    #[n(4)]
    #[cbor(with = "crate::encoding::pairs")]
    pub models: BTreeMap<ModelName, Digest>,
    /// Salted digest of all the output the job made before it ended.
    #[n(5)]
    pub output: Digest,
    /// How it ended.
    #[n(6)]
    pub exit: ExitStatus,
    /// How closely a re-run has to match.
    #[n(7)]
    pub determinism: Determinism,
    /// Digest of the [`crate::Profile`].
    #[n(8)]
    pub profile: Digest,
    /// Wasm fuel used.
    #[n(9)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub fuel_used: u64,
    /// Multiply-accumulates of inference used.
    #[n(10)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub inference_units_used: u64,
    /// What the job costs.
    #[n(11)]
    pub price_nanograms: Nanograms,
    /// Where it is paid.
    #[n(12)]
    pub channel: Channel,
}

impl Consensus {
    /// What differs between this run and another, field by field; empty if they are equal.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Differences::default();
        found.compare("version", &self.version.number(), &other.version.number());
        found.compare("job", &self.job, &other.job);
        found.compare("module", &self.module, &other.module);
        found.compare("manifest", &self.manifest, &other.manifest);
        let names: BTreeSet<_> = self.models.keys().chain(other.models.keys()).collect();
        for name in names {
            let digest = |run: &Self| match run.models.get(name) {
                Some(digest) => digest.to_string(),
                None => "none".to_owned(),
            };
            found.compare(&format!("models.{name}"), &digest(self), &digest(other));
        }
        found.compare("output", &self.output, &other.output);
        found.compare("exit", &self.exit, &other.exit);
        found.compare("determinism", &self.determinism, &other.determinism);
        found.compare("profile", &self.profile, &other.profile);
        found.compare("fuel_used", &self.fuel_used, &other.fuel_used);
        found.compare(
            "inference_units_used",
            &self.inference_units_used,
            &other.inference_units_used,
        );
        found.compare(
            "price_nanograms",
            &self.price_nanograms,
            &other.price_nanograms,
        );
        found.compare("channel", &self.channel, &other.channel);
        found.into()
    }

    /// What two runs of one job have in common.
    pub fn digest(&self) -> Digest {
        Digest::derive(Domain::Consensus, &self.to_bytes())
    }
}

impl Document for Consensus {
    const NAME: &'static str = "receipt consensus";
    const BYTES_MAX: usize = 8 * 1024;

    fn check(&self) -> Result<(), String> {
        if self.models.len() > MODELS_MAX {
            return Err(format!("models has more than {MODELS_MAX} entries"));
        }
        if self.price_nanograms > Nanograms::MAX {
            return Err(format!(
                "price_nanograms is more than there is: {}",
                Nanograms::MAX
            ));
        }
        if !self.exit.is_rerunnable() && self.determinism != Determinism::NotRerunnable {
            return Err(format!(
                "a run that ended as {} is not-rerunnable",
                self.exit.name()
            ));
        }
        Ok(())
    }
}

/// What the provider reports besides: signed, so that it can be held against it, but no part
/// of what a re-run is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Evidence {
    /// The host program and its version or build.
    #[n(0)]
    pub host_build: Label,
    /// The wasm engine and its version.
    #[n(1)]
    pub wasm_engine: Label,
    /// The inference engine and the kernels it chose, such as `cpu exact/0 avx2`.
    #[n(2)]
    pub inference_engine: Label,
    /// Digest of the kernels that were loaded at run time, if any were.
    #[n(3)]
    pub kernels: Option<Digest>,
    /// The GPU's name, if one was used.
    #[n(4)]
    pub adapter: Option<Label>,
    /// The GPU's driver and version, if one was used.
    #[n(5)]
    pub driver: Option<Label>,
    /// CPU threads that inference used.
    #[n(6)]
    pub threads: u32,
    /// Wall time of the run in nanoseconds.
    #[n(7)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub wall_ns: u64,
    /// Time on the GPU in nanoseconds, if one was used.
    #[n(8)]
    #[serde(serialize_with = "crate::json::u64_string_option")]
    pub gpu_ns: Option<u64>,
    /// Digest over the host-call digests: [`crate::Transcript::digest`].
    #[n(9)]
    pub transcript: Digest,
}

impl Evidence {
    /// What the signature covers of it.
    pub fn digest(&self) -> Digest {
        Digest::derive(Domain::Evidence, &self.to_bytes())
    }
}

impl Document for Evidence {
    const NAME: &'static str = "receipt evidence";
    const BYTES_MAX: usize = 4 * 1024;
}

/// A provider's signed account of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Receipt {
    /// What a re-run has to reproduce.
    #[n(0)]
    pub consensus: Consensus,
    /// What it need not.
    #[n(1)]
    pub evidence: Evidence,
    /// Who says so.
    #[n(2)]
    pub provider_key: PublicKey,
    /// By `provider_key`, over the digests of both parts and the key.
    #[n(3)]
    pub signature: Signature,
}

impl Document for Receipt {
    const NAME: &'static str = "receipt";
    const BYTES_MAX: usize = 16 * 1024;

    fn check(&self) -> Result<(), String> {
        self.consensus.check()?;
        self.evidence.check()
    }
}

impl Receipt {
    /// Signs a run's account.
    ///
    /// # Errors
    /// [`EncodingError::Invalid`] if the parts say something no receipt can say.
    pub fn sign(
        consensus: Consensus,
        evidence: Evidence,
        key: &SigningKey,
    ) -> Result<Self, EncodingError> {
        let provider_key = key.public_key();
        let signature = key.sign(&signed_digest(&consensus, &evidence, &provider_key));
        let receipt = Self {
            consensus,
            evidence,
            provider_key,
            signature,
        };
        receipt.check().map_err(|message| EncodingError::Invalid {
            document: Self::NAME,
            message,
        })?;
        Ok(receipt)
    }

    /// Whether the provider signed exactly this.
    ///
    /// # Errors
    /// [`ReceiptError`] if a field is out of its range or the signature does not fit.
    pub fn verify(&self) -> Result<(), ReceiptError> {
        self.check().map_err(|message| EncodingError::Invalid {
            document: Self::NAME,
            message,
        })?;
        let digest = signed_digest(&self.consensus, &self.evidence, &self.provider_key);
        self.provider_key.verify(&digest, &self.signature)?;
        Ok(())
    }

    /// Reads a receipt file and verifies it.
    ///
    /// # Errors
    /// [`ReceiptError`], whatever is wrong with the bytes.
    pub fn from_verified_bytes(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let receipt = Self::from_bytes(bytes)?;
        receipt.verify()?;
        Ok(receipt)
    }

    /// Digest of the whole receipt, signature included: what a commitment's leaf holds.
    pub fn digest(&self) -> Digest {
        Digest::derive(Domain::Receipt, &self.to_bytes())
    }

    /// The JSON view.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}

/// What the provider signs.
fn signed_digest(consensus: &Consensus, evidence: &Evidence, key: &PublicKey) -> Digest {
    let mut hasher = Hasher::derive(Domain::ReceiptSignature);
    hasher.update(consensus.digest().as_bytes());
    hasher.update(evidence.digest().as_bytes());
    hasher.update(key.as_bytes());
    hasher.finish()
}

/// Why a receipt is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The bytes or fields are wrong.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The signature does not fit.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}
