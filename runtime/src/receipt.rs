//! `Outcome` → `Account` → `Receipt`: what happened, then signed, with the opening beside it.
//!
//! In: a job's documents and what its run came to; then the provider's key, here or in another
//! process. Out: the account, whose two parts make the receipt, which anyone may see, and its
//! opening, which only client and provider may. Nothing in the consensus part depends on this
//! machine, the time or the build.

use std::time::Duration;

use tussah_manifest::{
    Consensus, Determinism, Digest, Domain, EncodingError, Evidence, ExitStatus, Label, LabelError,
    Limits, Manifest, ModelFormat, Nanograms, Opening, Profile, Receipt, Salt, SigningKey,
    Transcript, Trap, Version,
};

use crate::{
    Outcome, Runtime,
    sandbox::{CLOCK_POLICY, Documents, SEED_POLICY, WASM_ENGINE, config_digest, features},
};

/// What evidence says of inference where there was none.
const NO_INFERENCE: &str = "none";

/// A run with its account, which nobody has signed yet.
#[derive(Debug)]
pub struct Account {
    /// What a re-run has to reproduce; its price is zero, which whoever signs may change.
    pub consensus: Consensus,
    /// What it need not.
    pub evidence: Evidence,
    /// What lets the receipt's holder check it; private.
    pub opening: Opening,
    /// What happened; its transcript's digests went into the opening.
    pub outcome: Outcome,
}

impl Account {
    /// Signs it as it is.
    ///
    /// # Errors
    /// [`SignError::Encoding`] if the parts say something that no receipt can say.
    pub fn sign(self, key: &SigningKey) -> Result<SignedRun, SignError> {
        Ok(SignedRun {
            receipt: Receipt::sign(self.consensus, self.evidence, key)?,
            opening: self.opening,
            outcome: self.outcome,
        })
    }
}

/// A run with its signed account.
#[derive(Debug)]
pub struct SignedRun {
    /// What the provider says happened.
    pub receipt: Receipt,
    /// What lets its holder check that; private.
    pub opening: Opening,
    /// What happened; its transcript's digests went into the opening.
    pub outcome: Outcome,
}

/// Why no receipt could be made of a run.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A description of this host is no label.
    #[error("this host's description of itself does not fit a receipt")]
    Label(#[from] LabelError),
    /// The documents do not fit together.
    #[error("the receipt cannot be encoded")]
    Encoding(#[from] EncodingError),
}

impl Runtime {
    /// What accounts of this runtime have in common, for whoever has to account for a run that
    /// this process cannot: a profile with default limits, without graphs, and evidence of no
    /// time, no inference and no host call.
    ///
    /// # Errors
    /// [`SignError::Label`] if this host describes itself in a way that a receipt cannot hold.
    pub fn blank_account(&self) -> Result<(Profile, Evidence), SignError> {
        let evidence = Evidence {
            host_build: Label::new(self.config.host_build.as_str())?,
            wasm_engine: Label::new(WASM_ENGINE)?,
            inference_engine: Label::lossy(NO_INFERENCE),
            kernels: None,
            adapter: None,
            driver: None,
            threads: 0,
            wall_ns: 0,
            gpu_ns: None,
            transcript: Transcript::new(Salt::from_bytes([0; 32]), &Limits::DEFAULT).digest(),
        };
        let arithmetic = &self.config.arithmetic;
        Ok((profile(Limits::DEFAULT, arithmetic)?, evidence))
    }
}

/// Accounts for a run.
///
/// # Errors
/// [`SignError::Label`] if this host describes itself in a way that a receipt cannot hold.
pub(crate) fn account(
    runtime: &Runtime,
    documents: Documents,
    outcome: Outcome,
) -> Result<Account, SignError> {
    let Documents { request, manifest } = documents;
    let body = &request.body;
    let salt = body.nonce.derive_salt();
    let graphs = has_graphs(&manifest);
    let exact = runtime.config.arithmetic.as_str();
    let arithmetic = match outcome.graph_arithmetic.as_deref() {
        Some(library) if graphs => format!("{exact}, {library}"),
        _ => exact.to_owned(),
    };
    let profile = profile(manifest.job.limits, &arithmetic)?;
    let consensus = Consensus {
        version: Version::V1,
        job: body.job_id(),
        module: body.module,
        manifest: body.manifest,
        models: manifest.model_digests(),
        output: Digest::salted(&salt, Domain::Output, &outcome.output),
        exit: outcome.exit,
        determinism: determinism(&outcome.exit, graphs, outcome.memory_was_short),
        profile: profile.digest(),
        fuel_used: outcome.used.fuel,
        inference_units_used: outcome.used.inference_units,
        // A local run is nobody's expense; others are priced by who signs.
        price_nanograms: Nanograms::ZERO,
        channel: body.channel,
    };
    let engine = outcome.inference_engine.as_deref().unwrap_or(NO_INFERENCE);
    // Whatever a driver says of itself fits, cut where it must be.
    let gpu = outcome.gpu.as_ref();
    let evidence = Evidence {
        host_build: Label::new(runtime.config.host_build.as_str())?,
        wasm_engine: Label::new(WASM_ENGINE)?,
        inference_engine: Label::lossy(engine),
        kernels: None,
        adapter: gpu.map(|gpu| Label::lossy(&gpu.name)),
        driver: gpu.map(|gpu| Label::lossy(&format!("{} {}", gpu.interface, gpu.driver))),
        threads: outcome.inference_threads,
        wall_ns: nanos(outcome.wall),
        gpu_ns: outcome.gpu_time.map(nanos),
        transcript: outcome.transcript.digest(),
    };
    let opening = Opening {
        version: Version::V1,
        host_calls: outcome.transcript.calls().to_vec(),
        request,
        salt,
        profile,
    };
    Ok(Account {
        consensus,
        evidence,
        opening,
        outcome,
    })
}

/// 64 bits of nanoseconds are 584 years; no run is longer.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How closely a re-run must match.
///
/// Where the stack overflows depends on how large the frames are that this CPU's code has:
/// another machine may get further. What runs graphs of tensors is a library of this machine's,
/// with kernels for its CPU: other machines round differently. A job that heard that this machine's memory
/// was short may have gone on another way than it would elsewhere.
fn determinism(exit: &ExitStatus, graphs: bool, memory_was_short: bool) -> Determinism {
    match exit {
        _ if memory_was_short => Determinism::NotRerunnable,
        ExitStatus::Trapped {
            trap: Trap::StackOverflow,
        } => Determinism::NotRerunnable,
        exit if exit.is_rerunnable() && graphs => Determinism::Tolerant,
        exit if exit.is_rerunnable() => Determinism::Exact,
        _ => Determinism::NotRerunnable,
    }
}

/// Whether a job may load a graph of tensors, whether it does or not.
fn has_graphs(manifest: &Manifest) -> bool {
    let mut models = manifest.job.models.values();
    models.any(|model| model.format == ModelFormat::Onnx)
}

/// All that decides a result besides the documents.
fn profile(limits: Limits, arithmetic: &str) -> Result<Profile, LabelError> {
    Ok(Profile {
        version: Version::V1,
        wasm_engine: Label::new(WASM_ENGINE)?,
        wasm_features: features()
            .map(Label::new)
            .collect::<Result<_, LabelError>>()?,
        engine_config: config_digest(),
        arithmetic: Label::new(arithmetic)?,
        seed_policy: Label::new(SEED_POLICY)?,
        clock_policy: Label::new(CLOCK_POLICY)?,
        limits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_this_machine_promises_no_re_run() {
        let done = ExitStatus::Done;
        let overflow = ExitStatus::Trapped {
            trap: Trap::StackOverflow,
        };
        for (exit, graphs, memory_was_short, expected) in [
            (&done, false, false, Determinism::Exact),
            (&done, true, false, Determinism::Tolerant),
            // The guest heard that memory was short, and went on.
            (&done, false, true, Determinism::NotRerunnable),
            (&overflow, false, false, Determinism::NotRerunnable),
            (
                &ExitStatus::DeviceLost,
                false,
                false,
                Determinism::NotRerunnable,
            ),
            (
                &ExitStatus::HostFailure,
                true,
                false,
                Determinism::NotRerunnable,
            ),
        ] {
            let found = determinism(exit, graphs, memory_was_short);
            assert_eq!(found, expected, "{exit:?} {graphs} {memory_was_short}");
        }
    }
}
