//! The same job without a daemon: `run_job`, from a request to a signed receipt, in this process.

use std::{sync::Arc, time::Instant};

use tussah_manifest::{
    Channel, JobDescription, JobName, Manifest, ModelRef, ModuleRef, Nanograms, Nonce, Request,
    RequestBody, SigningKey, Version,
};
use tussah_runtime::{
    Allocation, Cancel, Events, LoadedModel, ModelSource, ModelSourceError, NoEvents, Run, Runtime,
    RuntimeConfig, SubmittedJob, run_job,
};

use super::{Result, figures::Spread};

/// A component of the job's world around a function in text.
///
/// # Errors
/// The text is none.
pub(crate) fn component(function: &str) -> Result<Vec<u8>> {
    let world = include_str!("../../../runtime/tests/it/component.wat");
    Ok(wat::parse_str(world.replace(";; GUEST", function))?)
}

/// The null job has no models.
struct NoModels;

impl ModelSource for NoModels {
    fn check(&self, model: &ModelRef) -> std::result::Result<(), ModelSourceError> {
        Err(ModelSourceError {
            digest: model.digest,
            reason: "there are no models here".into(),
        })
    }

    fn threads(&self) -> u32 {
        1
    }

    fn load(
        &self,
        model: &ModelRef,
        _: &dyn Events,
    ) -> std::result::Result<LoadedModel, ModelSourceError> {
        Err(ModelSourceError {
            digest: model.digest,
            reason: "there are no models here".into(),
        })
    }
}

/// How long so many runs take, each with a request of its own, the module compiled before.
///
/// # Errors
/// A run failed.
pub(crate) fn road_times(module: &[u8], jobs: u32) -> Result<Spread> {
    let runtime = Runtime::new(RuntimeConfig {
        allocation: Allocation::Pooled { jobs_max: 4 },
        memory_bytes_max: 256 << 20,
        cache_dir: None,
        cache_bytes_max: tussah_runtime::CACHE_BYTES_MAX,
        cache_key: [7; 32],
        host_build: "tussah bench".to_owned(),
        arithmetic: "none".to_owned(),
    })?;
    let job = JobDescription::new(JobName::new("null")?);
    let manifest = job.with_module(ModuleRef::of(module));
    let (client, provider) = (
        SigningKey::from_bytes(&[1; 32]),
        SigningKey::from_bytes(&[2; 32]),
    );
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()?;
    let mut times = Vec::new();
    // The first one compiles.
    for number in 0..=jobs {
        let submitted = SubmittedJob {
            request: request(&manifest, number, &client)?,
            manifest: manifest.clone(),
            module: module.to_vec(),
            input: Vec::new(),
        };
        let run = Run {
            models: Arc::new(NoModels),
            events: Arc::new(NoEvents),
            cancel: Cancel::new(),
        };
        let begun = Instant::now();
        executor.block_on(run_job(&runtime, submitted, run, &provider))?;
        if number > 0 {
            times.push(begun.elapsed());
        }
    }
    Ok(Spread::of(&mut times))
}

fn request(manifest: &Manifest, number: u32, client: &SigningKey) -> Result<Request> {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    let nonce = Nonce::from_bytes(bytes);
    let body = RequestBody {
        version: Version::V1,
        manifest: manifest.digest(),
        module: manifest.module.digest,
        input: RequestBody::input_digest(&nonce, &[]),
        nonce,
        price_nanograms_max: Nanograms::ZERO,
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: client.public_key(),
    };
    Ok(body.sign(client)?)
}
