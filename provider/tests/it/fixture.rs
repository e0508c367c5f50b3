//! Documents that fit together, without a run: what a client, a worker and a signer would make.

use std::collections::{BTreeMap, BTreeSet};

use tussah_manifest::{
    Channel, Consensus, Determinism, Digest, Document as _, Domain, Evidence, ExitStatus,
    JobDescription, JobName, Label, Limits, Manifest, ModuleRef, Nanograms, Nonce, Opening,
    Profile, Receipt, Request, RequestBody, SigningKey, Version,
};
use tussah_provider::ledger::{AccountId, Ending, NewJob};

pub(crate) const NOW: u64 = 1_795_000_000_000;
pub(crate) const MODULE: &[u8] = b"\0asm\x0d\0\x01\0";

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn client_key() -> SigningKey {
    key(1)
}

pub(crate) fn provider_key() -> SigningKey {
    key(2)
}

pub(crate) fn nano(amount: u64) -> Nanograms {
    Nanograms::new(amount).unwrap()
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn manifest(name: &str) -> Manifest {
    let mut job = JobDescription::new(JobName::new(name).unwrap());
    job.price_nanograms_max = nano(1_000_000);
    job.with_module(ModuleRef::of(MODULE))
}

pub(crate) fn request(number: u64, manifest: &Manifest, input: &[u8], price_max: u64) -> Request {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let nonce = Nonce::from_bytes(nonce);
    let body = RequestBody {
        version: Version::V1,
        manifest: manifest.digest(),
        module: manifest.module.digest,
        input: RequestBody::input_digest(&nonce, input),
        nonce,
        price_nanograms_max: nano(price_max),
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: client_key().public_key(),
    };
    body.sign(&client_key()).unwrap()
}

pub(crate) fn job(number: u64, account: AccountId, price_max: u64) -> NewJob {
    let manifest = manifest("null");
    let input = format!("input {number}").into_bytes();
    NewJob {
        request: request(number, &manifest, &input, price_max),
        manifest,
        input,
        account,
        deployment: None,
        reserve: nano(price_max),
        deadline_unix_ms: None,
        time_max_ms: None,
        keep: true,
        opening: None,
    }
}

pub(crate) fn profile(limits: Limits) -> Profile {
    let label = |text: &str| Label::new(text).unwrap();
    Profile {
        version: Version::V1,
        wasm_engine: label("no engine"),
        wasm_features: BTreeSet::new(),
        engine_config: Digest::of(b"none"),
        arithmetic: label("exact/0"),
        seed_policy: label("test"),
        clock_policy: label("test"),
        limits,
    }
}

/// The account of a run that was never made.
pub(crate) fn account_of(
    request: &Request,
    manifest: &Manifest,
    output: &[u8],
    exit: ExitStatus,
) -> (Consensus, Evidence, Opening) {
    let body = &request.body;
    let salt = body.nonce.derive_salt();
    let profile = profile(manifest.job.limits);
    let determinism = match exit.is_rerunnable() {
        true => Determinism::Exact,
        false => Determinism::NotRerunnable,
    };
    let consensus = Consensus {
        version: Version::V1,
        job: body.job_id(),
        module: body.module,
        manifest: body.manifest,
        models: BTreeMap::new(),
        output: Digest::salted(&salt, Domain::Output, output),
        exit,
        determinism,
        profile: profile.digest(),
        fuel_used: 1_000_000_000,
        inference_units_used: 0,
        price_nanograms: Nanograms::ZERO,
        channel: body.channel,
    };
    let opening = Opening {
        version: Version::V1,
        request: request.clone(),
        salt,
        host_calls: Vec::new(),
        profile,
    };
    let evidence = evidence(opening.transcript());
    (consensus, evidence, opening)
}

pub(crate) fn evidence(transcript: Digest) -> Evidence {
    let label = |text: &str| Label::new(text).unwrap();
    Evidence {
        host_build: label("test"),
        wasm_engine: label("no engine"),
        inference_engine: label("none"),
        kernels: None,
        adapter: None,
        driver: None,
        threads: 1,
        wall_ns: 1,
        gpu_ns: None,
        transcript,
    }
}

/// How a job ends that gives its input back in capitals, for a price.
pub(crate) fn ending(job: &NewJob, price: u64) -> Ending {
    let output = job.input.to_ascii_uppercase();
    let (mut consensus, evidence, opening) =
        account_of(&job.request, &job.manifest, &output, ExitStatus::Done);
    consensus.price_nanograms = nano(price);
    let receipt = Receipt::sign(consensus, evidence, &provider_key()).unwrap();
    Ending::Receipt {
        receipt: Box::new(receipt),
        opening: opening.to_bytes(),
        output,
        log: Vec::new(),
        fault: None,
    }
}
