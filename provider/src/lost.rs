//! The account of a run that nobody else can account for: its worker died, or failed within it.
//!
//! In: the job's documents, what its worker said of itself when it was ready, and the output that
//! had come until then. Out: the parts of a receipt that says so: the host's fault, nothing used,
//! nothing to pay, nothing that a re-run could be held against.

use std::collections::BTreeSet;

use tussah_manifest::{
    Consensus, Determinism, Digest, Document, Domain, EncodingError, Evidence, ExitStatus, Label,
    Manifest, Nanograms, Opening, Profile, Request, Version,
};

use crate::wire::Ready;

/// Whose end it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The GPU went away.
    Device,
    /// Anything else of the provider's own.
    Host,
}

/// The parts of a receipt, and its opening.
#[derive(Debug)]
pub struct LostAccount {
    /// For the signer.
    pub consensus: Consensus,
    /// For the signer.
    pub evidence: Evidence,
    /// For client and provider.
    pub opening: Opening,
}

/// Accounts for a run that was lost after it had put out `output`.
///
/// # Errors
/// [`EncodingError`] if what the worker said of itself is no profile or no evidence.
pub fn account(
    request: Request,
    manifest: &Manifest,
    worker: &Ready,
    output: &[u8],
    loss: Loss,
) -> Result<LostAccount, EncodingError> {
    let mut profile = Profile::from_bytes(&worker.profile.0)?;
    profile.limits = manifest.job.limits;
    let evidence = Evidence::from_bytes(&worker.evidence.0)?;
    let exit = match loss {
        Loss::Device => ExitStatus::DeviceLost,
        Loss::Host => ExitStatus::HostFailure,
    };
    let (consensus, opening) = nothing_used(request, manifest, profile, output, exit);
    Ok(LostAccount {
        consensus,
        evidence,
        opening,
    })
}

/// Accounts for a job that never ran and has a place in a channel, where only a receipt can stand:
/// nothing was used, so nothing is to be paid. No engine had a part in it, and the labels say so.
///
/// # Errors
/// [`EncodingError`] is for labels that are none, which these are not.
pub fn never_ran(
    request: Request,
    manifest: &Manifest,
    exit: ExitStatus,
) -> Result<LostAccount, EncodingError> {
    let none = || label("none");
    let profile = Profile {
        version: Version::V1,
        wasm_engine: none()?,
        wasm_features: BTreeSet::new(),
        engine_config: Digest::from_bytes([0; 32]),
        arithmetic: none()?,
        seed_policy: none()?,
        clock_policy: none()?,
        limits: manifest.job.limits,
    };
    let (consensus, opening) = nothing_used(request, manifest, profile, &[], exit);
    let evidence = Evidence {
        host_build: label(concat!("tussah ", env!("CARGO_PKG_VERSION")))?,
        wasm_engine: none()?,
        inference_engine: none()?,
        kernels: None,
        adapter: None,
        driver: None,
        threads: 0,
        wall_ns: 0,
        gpu_ns: None,
        transcript: opening.transcript(),
    };
    Ok(LostAccount {
        consensus,
        evidence,
        opening,
    })
}

/// What both sides agree on of a job that cannot be accounted for: no work, and so no price.
fn nothing_used(
    request: Request,
    manifest: &Manifest,
    profile: Profile,
    output: &[u8],
    exit: ExitStatus,
) -> (Consensus, Opening) {
    let body = &request.body;
    let salt = body.nonce.derive_salt();
    let consensus = Consensus {
        version: Version::V1,
        job: body.job_id(),
        module: body.module,
        manifest: body.manifest,
        models: manifest.model_digests(),
        output: Digest::salted(&salt, Domain::Output, output),
        exit,
        determinism: Determinism::NotRerunnable,
        profile: profile.digest(),
        fuel_used: 0,
        inference_units_used: 0,
        price_nanograms: Nanograms::ZERO,
        channel: body.channel,
    };
    let opening = Opening {
        version: Version::V1,
        request,
        salt,
        host_calls: Vec::new(),
        profile,
    };
    (consensus, opening)
}

fn label(text: &str) -> Result<Label, EncodingError> {
    Label::new(text).map_err(|error| EncodingError::Malformed {
        document: "label",
        at: None,
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use tussah_manifest::{JobDescription, JobName, Label, Limits, ModuleRef, Receipt, SigningKey};

    use super::*;
    use crate::{fixture, wire::Isolation};

    fn worker() -> Ready {
        let label = |text: &str| Label::new(text).unwrap();
        let digest = Digest::of(b"engine");
        let profile = Profile {
            version: Version::V1,
            wasm_engine: label("wasmtime"),
            wasm_features: [].into(),
            engine_config: digest,
            arithmetic: label("exact/0"),
            seed_policy: label("seed"),
            clock_policy: label("clock"),
            limits: Limits::DEFAULT,
        };
        Ready {
            device: "cpu".to_owned(),
            memory_bytes: None,
            isolation: Isolation::Full { abi: 1 },
            profile: profile.to_bytes().into(),
            evidence: fixture::evidence(0).to_bytes().into(),
        }
    }

    #[test]
    fn a_lost_run_has_a_receipt_that_says_so_and_an_opening_that_fits() {
        let limits = Limits {
            fuel_max: 77_777,
            ..Limits::DEFAULT
        };
        let job = JobDescription {
            limits,
            ..JobDescription::new(JobName::new("lost").unwrap())
        };
        let manifest = job.with_module(ModuleRef::of(b"module"));
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut body = fixture::body(1);
        body.manifest = manifest.digest();
        body.module = manifest.module.digest;
        let request = body.sign(&key).unwrap();
        for (loss, exit) in [
            (Loss::Host, ExitStatus::HostFailure),
            (Loss::Device, ExitStatus::DeviceLost),
        ] {
            let lost = account(request.clone(), &manifest, &worker(), b"so far", loss).unwrap();
            assert_eq!(lost.consensus.exit, exit);
            assert_eq!(lost.opening.profile.limits, limits);
            assert_eq!(lost.consensus.output, lost.opening.output_digest(b"so far"));
            let receipt = Receipt::sign(lost.consensus, lost.evidence, &key).unwrap();
            receipt.verify().unwrap();
            lost.opening.matches(&receipt).unwrap();
        }
    }

    #[test]
    fn a_job_that_never_ran_can_have_a_receipt_that_says_so() {
        let manifest = JobDescription::new(JobName::new("waited").unwrap())
            .with_module(ModuleRef::of(b"module"));
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut body = fixture::body(1);
        body.manifest = manifest.digest();
        body.module = manifest.module.digest;
        let request = body.sign(&key).unwrap();
        for exit in [ExitStatus::Cancelled, ExitStatus::HostFailure] {
            let account = never_ran(request.clone(), &manifest, exit).unwrap();
            assert_eq!(account.consensus.price_nanograms, Nanograms::ZERO);
            let receipt = Receipt::sign(account.consensus, account.evidence, &key).unwrap();
            receipt.verify().unwrap();
            account.opening.matches(&receipt).unwrap();
            assert_eq!(receipt.consensus.exit, exit);
        }
    }

    #[test]
    fn a_worker_that_said_nonsense_of_itself_is_not_believed() {
        let manifest = JobDescription::new(JobName::new("lost").unwrap())
            .with_module(ModuleRef::of(b"module"));
        let request = fixture::body(1)
            .sign(&SigningKey::from_bytes(&[1; 32]))
            .unwrap();
        let nonsense = Ready {
            profile: b"nonsense".to_vec().into(),
            ..worker()
        };
        account(request, &manifest, &nonsense, b"", Loss::Host).unwrap_err();
    }
}
