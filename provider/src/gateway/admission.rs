//! Admission: what this provider takes, whatever a client pays.
//!
//! In: a manifest and the size of an input. Out: nothing, or the limit, model or file for which
//! the job is refused, by name.

use std::collections::BTreeSet;

use tussah_manifest::{Claim, Digest, LimitField, Limits, Manifest, ModelName, Unit};

use super::{Ask, Gateway, Submission, SubmitError, Verifiers};

/// What manifests may ask of this provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The most that each limit of a manifest may be. The bytes of input are not looked at here:
    /// inputs are.
    pub limits_max: Limits,
    /// The models that jobs may use; `None` is any that is here.
    pub models: Option<BTreeSet<Digest>>,
    /// Whose claim every module needs; `None` is nobody's.
    pub verified_by: Option<Verifiers>,
}

impl Default for Admission {
    /// Whatever the format of manifests allows, but for output, which is kept in memory while a job
    /// runs: at most 64 MiB of it.
    fn default() -> Self {
        let mut limits_max = Limits::DEFAULT;
        for field in Limits::FIELDS {
            *(field.get_mut)(&mut limits_max) = field.max;
        }
        limits_max.output_bytes_max = 64 << 20;
        Self {
            limits_max,
            models: None,
            verified_by: None,
        }
    }
}

/// A manifest asks for more than the provider allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the manifest's limits.{field} is {asked}{unit}, and this provider allows {max}{unit}")]
pub struct LimitTooHigh {
    /// Which limit.
    pub field: &'static str,
    /// What the manifest says.
    pub asked: u64,
    /// What the provider allows.
    pub max: u64,
    unit: &'static str,
}

/// A job uses a model that the provider does not offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this provider does not offer the model `{name}`, {digest}")]
pub struct ModelNotOffered {
    /// The job's own name for it.
    pub name: ModelName,
    /// The model.
    pub digest: Digest,
}

impl Admission {
    /// Whether jobs of this manifest are taken.
    ///
    /// # Errors
    /// The first limit or model for which they are not.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), SubmitError> {
        let asked = |field: &LimitField| (field.get)(&manifest.job.limits);
        let allowed = |field: &LimitField| (field.get)(&self.limits_max);
        let capped = Limits::FIELDS
            .iter()
            .filter(|field| field.name != "input_bytes_max");
        for field in capped {
            let (asked, max) = (asked(field), allowed(field));
            if asked > max {
                let unit = match field.unit {
                    Unit::Bytes => " bytes",
                    Unit::Milliseconds => " ms",
                    _ => "",
                };
                let field = field.name;
                return Err(LimitTooHigh {
                    field,
                    asked,
                    max,
                    unit,
                }
                .into());
            }
        }
        let Some(offered) = &self.models else {
            return Ok(());
        };
        for (name, digest) in manifest.model_digests() {
            if !offered.contains(&digest) {
                return Err(ModelNotOffered { name, digest }.into());
            }
        }
        Ok(())
    }
}

impl Gateway {
    /// Refuses what cannot be run here, before anything of it is kept.
    pub(super) fn admit(&self, submission: &Submission) -> Result<(), SubmitError> {
        let manifest = &submission.manifest;
        let bytes = u64::try_from(submission.input.len()).unwrap_or(u64::MAX);
        self.check_input(manifest, bytes)?;
        self.inner.config.admission.check(manifest)?;
        self.check_claim(manifest, submission.claim.as_deref())?;
        self.check_blobs(manifest)?;
        let module = manifest.module.digest;
        match self.is_slow(&module) {
            Some(left) => Err(SubmitError::Slow { module, left }),
            None => Ok(()),
        }
    }

    /// Whether a job would get as far as its pay: it is known already, or not refused for what it
    /// is.
    ///
    /// # Errors
    /// The ledger's.
    pub(crate) fn would_admit(&self, submission: &Submission) -> Result<bool, SubmitError> {
        if let Ask::Signed(request) = &submission.ask
            && self.inner.ledger.job(&request.body.job_id())?.is_some()
        {
            return Ok(true);
        }
        Ok(self.admit(submission).is_ok())
    }

    /// Whether a job of this manifest takes so much input here.
    ///
    /// # Errors
    /// [`SubmitError::InputTooLarge`].
    pub fn check_input(&self, manifest: &Manifest, bytes: u64) -> Result<(), SubmitError> {
        let ours = u64::try_from(self.inner.config.input_bytes_max).unwrap_or(u64::MAX);
        let max = manifest.job.limits.input_bytes_max.min(ours);
        match bytes > max {
            true => Err(SubmitError::InputTooLarge { bytes, max }),
            false => Ok(()),
        }
    }

    /// Whether the module has the claim that this provider asks for, where it asks for one.
    fn check_claim(&self, manifest: &Manifest, sent: Option<&Claim>) -> Result<(), SubmitError> {
        match &self.inner.config.admission.verified_by {
            None => Ok(()),
            Some(verifiers) => Ok(verifiers.check(manifest.module.digest, sent)?),
        }
    }

    /// Whether the files are there; the worker hashes them.
    fn check_blobs(&self, manifest: &Manifest) -> Result<(), SubmitError> {
        let models = manifest.model_digests().into_iter();
        let models = models.map(|(name, digest)| (format!("model `{name}`"), digest));
        let module = ("module".to_owned(), manifest.module.digest);
        for (what, digest) in std::iter::once(module).chain(models) {
            if !crate::blobs::path(&self.inner.config.blobs, &digest).is_file() {
                return Err(SubmitError::Missing { what, digest });
            }
        }
        Ok(())
    }
}
