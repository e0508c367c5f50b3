//! The road of a job on this machine: documents and blobs in, a signed run out.
//!
//! In: a manifest, a module and an input, from wherever the command found them. Out: what
//! `tussah_runtime::run_job` says, with the exit code that stands for it. Keys and the code
//! cache come from the home folder.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tussah_inference::exact_profile;
use tussah_manifest::{
    Channel, Digest, Document, ExitStatus, LocalSecret, Manifest, Nanograms, Nonce, Request,
    RequestBody, SigningKey, Version,
};
use tussah_runtime::{
    Allocation, CACHE_BYTES_MAX, Cancel, Events, PrepareError, Run, RunError, Runtime,
    RuntimeConfig, SignedRun, SubmittedJob, VerifyError,
};

use crate::{
    blobs::Blobs,
    device::Placement,
    engine::{self, Room, StoredModels},
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    interrupt::Interrupt,
    keys::{self, KeyName},
    onnx::OnnxArguments,
};

/// The most linear memory a job may ask for here: what 32-bit addresses reach.
pub(crate) const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// What this program calls itself in receipts.
pub(crate) const HOST_BUILD: &str = concat!("tussah ", env!("CARGO_PKG_VERSION"));
/// How often Ctrl-C is looked for while a job runs.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(20);

/// A job with all that its run needs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) manifest: Manifest,
    pub(crate) module: Vec<u8>,
    pub(crate) input: Vec<u8>,
}

/// How to run it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) placement: Placement,
    /// 0 is one a CPU.
    pub(crate) threads: u32,
    pub(crate) onnx: OnnxArguments,
    /// After so long the job is cancelled.
    pub(crate) time_max: Option<Duration>,
}

/// A request for a run on this machine that nobody pays for, signed with its client key.
///
/// # Errors
/// A host failure if a key cannot be used.
pub(crate) fn local_request(home: &Home, job: &Job) -> Result<Request, Failure> {
    let secret = LocalSecret::from_bytes(*keys::load_or_create(home, KeyName::LocalSecret)?);
    let (manifest, module) = (job.manifest.digest(), job.manifest.module.digest);
    let nonce = Nonce::local(&secret, &module, &manifest, &job.input);
    let price_max = job.manifest.job.price_nanograms_max;
    request(home, job, nonce, Channel::Local, price_max)
}

/// A request signed with this host's client key.
///
/// # Errors
/// A host failure if the key cannot be used.
pub(crate) fn request(
    home: &Home,
    job: &Job,
    nonce: Nonce,
    channel: Channel,
    price_nanograms_max: Nanograms,
) -> Result<Request, Failure> {
    let client = SigningKey::from_bytes(&*keys::load_or_create(home, KeyName::Client)?);
    let body = RequestBody {
        version: Version::V1,
        manifest: job.manifest.digest(),
        module: job.manifest.module.digest,
        input: RequestBody::input_digest(&nonce, &job.input),
        nonce,
        price_nanograms_max,
        channel,
        deadline_unix_ms: None,
        client_key: client.public_key(),
    };
    body.sign(&client).map_err(Failure::host)
}

/// Runs a job under a request, to whatever end.
///
/// # Errors
/// A failure if nothing was run; a run that ended badly is a [`SignedRun`].
pub(crate) fn run(
    home: &Home,
    blobs: &Blobs,
    request: Request,
    job: Job,
    settings: Settings,
    events: Arc<dyn Events>,
    interrupt: &Interrupt,
) -> Result<SignedRun, Failure> {
    let provider = SigningKey::from_bytes(&*keys::load_or_create(home, KeyName::Provider)?);
    let runtime = Runtime::new(RuntimeConfig {
        allocation: Allocation::OnDemand,
        memory_bytes_max: MEMORY_BYTES_MAX,
        cache_dir: Some(home.folder("cache/code")?),
        cache_bytes_max: CACHE_BYTES_MAX,
        cache_key: *keys::load_or_create(home, KeyName::Cache)?,
        host_build: HOST_BUILD.to_owned(),
        arithmetic: exact_profile().to_owned(),
    })
    .map_err(Failure::host)?;
    let cancel = Cancel::new();
    let (begun, time_max) = (Instant::now(), settings.time_max);
    let models = Arc::new(StoredModels::new(
        blobs.clone(),
        settings.placement,
        settings.threads,
        settings.onnx,
        Room::ANY,
    ));
    let run = Run {
        models,
        events,
        cancel: cancel.clone(),
    };
    let Job {
        manifest,
        module,
        input,
    } = job;
    let submitted = SubmittedJob {
        request,
        manifest,
        module,
        input,
    };
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .map_err(Failure::host)?;
    let interrupt = interrupt.clone();
    executor.block_on(async move {
        let watcher = tokio::spawn(async move {
            let is_over = || time_max.is_some_and(|time_max| begun.elapsed() >= time_max);
            while !interrupt.requested() && !is_over() {
                tokio::time::sleep(INTERRUPT_INTERVAL).await;
            }
            cancel.cancel();
        });
        let result = tussah_runtime::run_job(&runtime, submitted, run, &provider).await;
        watcher.abort();
        result.map_err(run_failure)
    })
}

/// The exit code of a run that has a receipt.
pub(crate) fn exit_of(exit: &ExitStatus) -> Exit {
    match exit {
        ExitStatus::Done => Exit::DONE,
        ExitStatus::JobError { .. } | ExitStatus::Trapped { .. } => Exit::JOB_FAILED,
        ExitStatus::LimitHit { .. } | ExitStatus::DeadlineExceeded => Exit::LIMIT,
        ExitStatus::Cancelled => Exit::INTERRUPTED,
        ExitStatus::DeviceLost | ExitStatus::HostFailure => Exit::HOST_FAILED,
    }
}

/// Why nothing was run, and what to do.
pub(crate) fn run_failure(error: RunError) -> Failure {
    match &error {
        RunError::Verify(reason) => {
            let (exit, help) = verify_help(reason);
            let failure = Failure::new(exit, error);
            match help {
                Some(help) => failure.help(help),
                None => failure,
            }
        }
        RunError::Prepare(PrepareError::Model { reason, name }) => {
            let (exit, help) = engine::exit_of_source(reason);
            let add = format!(
                "run `tussah model add {name} FILE.gguf` with the file of that digest, or give \
                 `--model {name}=FILE.gguf`"
            );
            let failure = Failure::new(exit, error);
            match help {
                Some(help) => failure.help(help),
                None => failure.help(add),
            }
        }
        RunError::Prepare(
            PrepareError::Compile(_) | PrepareError::World(_) | PrepareError::Command(_),
        ) => Failure::usage(error).help("build the module with `tussah build`"),
        RunError::Prepare(PrepareError::CompilerLost | PrepareError::CheckLost)
        | RunError::Sign(_) => Failure::host(error),
    }
}

fn verify_help(error: &VerifyError) -> (Exit, Option<&'static str>) {
    match error {
        VerifyError::ModuleSize { .. } | VerifyError::ModuleDigest { .. } => (
            Exit::NOT_VERIFIED,
            Some("the module is not the one that the manifest was made for: build it again"),
        ),
        VerifyError::InputSize { .. } => (
            Exit::LIMIT,
            Some("shorten the input, or raise limits.input_bytes_max in the job's tussah.toml"),
        ),
        VerifyError::OtherInput => (Exit::NOT_VERIFIED, None),
        VerifyError::Request(_)
        | VerifyError::OtherManifest { .. }
        | VerifyError::OtherModule { .. } => (Exit::NOT_VERIFIED, None),
        VerifyError::Module(_) => (
            Exit::USAGE,
            Some("build the module with `tussah build`; jobs have no files, network or threads"),
        ),
        VerifyError::LimitTooHigh { .. } => {
            (Exit::USAGE, Some("lower it in the job's tussah.toml"))
        }
        VerifyError::ModuleTooLarge { .. } | VerifyError::Manifest(_) => (Exit::USAGE, None),
    }
}

/// Keeps the documents of a run where `audit` finds them.
///
/// # Errors
/// The blob store's.
pub(crate) fn keep(blobs: &Blobs, job: &Job) -> Result<Digest, Failure> {
    blobs.put(&job.module)?;
    Ok(blobs.put(&job.manifest.to_bytes())?)
}

/// Where the opening of a receipt is, unless somebody says otherwise.
pub(crate) fn opening_path(receipt: &Path) -> PathBuf {
    let mut path = receipt.as_os_str().to_owned();
    path.push(".opening");
    path.into()
}

/// Makes sure that a receipt and its opening can be written, before anything is run or paid.
///
/// # Errors
/// A failure if the folder is not there or cannot be written to, or a name is a folder's.
pub(crate) fn require_writable(receipt: &Path) -> Result<(), Failure> {
    for path in [receipt, &opening_path(receipt)] {
        if path.is_dir() {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(file_failure("write", path, error));
        }
        // Gone again at once: a run can be killed, and would leave it behind.
        stage(path, &[], 0o600)?;
    }
    Ok(())
}

/// Writes a receipt and, for the owner alone, its opening. Both or neither.
///
/// # Errors
/// A failure if the disk is full or the folder cannot be written to; nothing is left behind.
pub(crate) fn write_receipt(path: &Path, run: &SignedRun) -> Result<(), Failure> {
    write_pair(path, &run.receipt.to_bytes(), &run.opening.to_bytes())
}

/// The same from their bytes.
///
/// # Errors
/// As [`write_receipt`].
pub(crate) fn write_pair(path: &Path, receipt: &[u8], opening: &[u8]) -> Result<(), Failure> {
    let opening_path = opening_path(path);
    let opening = stage(&opening_path, opening, 0o600)?;
    let receipt = stage(path, receipt, 0o644)?;
    for (file, path) in [(opening, opening_path.as_path()), (receipt, path)] {
        file.persist(path)
            .map_err(|error| file_failure("write", path, error.error))?;
    }
    Ok(())
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A whole file, synced, that has to be given its name yet.
///
/// # Errors
/// A failure if it cannot be written; nothing is left behind.
pub(crate) fn stage(
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<tempfile::NamedTempFile, Failure> {
    let folder = folder_of(path);
    let stage = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".tussah-");
        #[cfg(unix)]
        let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    stage().map_err(|error| file_failure("write", path, error))
}
