//! What a daemon takes: limits, models, and modules that somebody has verified.
//!
//! In: settings and this home's models. Out: what the gateway holds manifests against.

use std::collections::BTreeSet;

use tussah_manifest::{Digest, Limits, ModelName};
use tussah_provider::gateway::Admission;

use super::{
    Settings,
    config::{self, Whole},
    verified,
};
use crate::{failure::Failure, home::Home, models::Models};

/// What jobs have to be like.
///
/// # Errors
/// A usage failure if a model, key or file of keys that was named is none.
pub(super) fn admission(settings: &Settings, home: &Home) -> Result<Admission, Failure> {
    let offered = settings.models.as_ref();
    let offered = offered.map(|named| digests(&Models::open(home)?, named));
    Ok(Admission {
        limits_max: settings.limits_max,
        models: offered.transpose()?,
        verified_by: verified::verifiers(settings.require_verified.as_deref(), home)?,
    })
}

/// The most that manifests may ask for.
pub(super) fn limits_max(limits: &config::Limits) -> Limits {
    const MIB: u64 = 1 << 20;
    let wall_s = limits.wall_max_s.map_or(3600, |Whole(time)| time);
    let memory = limits.memory_max_mib.map_or(4096, |Whole(mib)| mib);
    let session = limits.session_memory_max_mib.map_or(8192, |Whole(mib)| mib);
    Limits {
        wall_ms_max: u64::from(wall_s) * 1000,
        memory_bytes_max: u64::from(memory) * MIB,
        model_memory_bytes_max: u64::from(session) * MIB,
        ..Admission::default().limits_max
    }
}

/// The digests of models that were named, or written as digests.
///
/// # Errors
/// A usage failure if one is neither.
fn digests(models: &Models, named: &[String]) -> Result<BTreeSet<Digest>, Failure> {
    let digest = |text: &String| -> Result<Digest, Failure> {
        if let Ok(digest) = text.parse() {
            return Ok(digest);
        }
        let name: ModelName = text.parse().map_err(Failure::usage)?;
        Ok(models.get(&name)?.digest)
    };
    named.iter().map(digest).collect()
}
