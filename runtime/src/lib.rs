//! Bytes in, receipt out: verifies a job, runs it in a sandbox, signs what happened.
//!
//! ```text
//! SubmittedJob --verify--> VerifiedJob --prepare--> SandboxedJob --run--> Outcome
//!     --account--> Account --sign--> Receipt
//! ```
//!
//! In: a request, a manifest, a module and an input, none of them trusted, and a
//! [`ModelSource`] that knows models by digest. Out: a signed receipt with its opening,
//! or the reason why nothing was run. What was not verified cannot be run, because the
//! types do not allow it. This crate opens no socket, knows no chain, and no clock of
//! this machine reaches a result.

mod receipt;
mod sandbox;
mod verify;

use std::sync::Arc;

use tussah_manifest::SigningKey;

pub use receipt::{Account, SignError, SignedRun};
pub use sandbox::imports::ModuleError;
pub use sandbox::{
    Allocation, CACHE_BYTES_MAX, Cancel, Event, Events, GuestError, JobError, LoadedModel,
    ModelSource, ModelSourceError, NoEvents, Outcome, PrepareError, Run, Runtime, RuntimeConfig,
    RuntimeError, SandboxedJob, Used,
};
pub use verify::{SubmittedJob, VerifiedJob, VerifyError, verify};

/// Whose change would make a retry succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The author of the module or its manifest.
    Developer,
    /// Who submitted the job.
    Client,
    /// The machine it should run on.
    Provider,
}

/// Why a job has no receipt.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The job is not what its documents say, or asks for what it may not have.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The module or its models cannot be made ready here.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The receipt could not be made.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl RunError {
    /// Whose change would make a retry succeed.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Verify(error) => error.fault(),
            Self::Prepare(error) => error.fault(),
            Self::Sign(_) => Fault::Provider,
        }
    }
}

/// The whole road for one job: verify, prepare, run, account, sign.
///
/// A job that traps, overruns a limit, is cancelled or runs out of time still has a
/// receipt, which says so.
///
/// # Errors
/// [`RunError`] if nothing was run, or no receipt could be made of it.
pub async fn run_job(
    runtime: &Runtime,
    job: SubmittedJob,
    run: Run,
    key: &SigningKey,
) -> Result<SignedRun, RunError> {
    job.request.verify().map_err(VerifyError::Request)?;
    Ok(run_unsigned(runtime, job, run).await?.sign(key)?)
}

/// The same road but for its ends, where the key is in another process: who signs the account
/// checks that its client signed the request.
///
/// # Errors
/// As [`run_job`].
pub async fn run_unsigned(
    runtime: &Runtime,
    job: SubmittedJob,
    run: Run,
) -> Result<Account, RunError> {
    let verified = verify(job, runtime)?;
    let sandboxed = runtime.prepare(verified, &run).await?;
    run.events.event(Event::Started);
    let outcome = sandboxed.run(runtime, run).await;
    Ok(receipt::account(runtime, sandboxed.documents, outcome)?)
}

/// Shared by the stages: who is told what happens.
pub(crate) type SharedEvents = Arc<dyn Events>;
