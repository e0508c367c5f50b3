//! `Profile`: everything outside the documents that decides a run's result, in one document.
//!
//! A receipt holds the profile's digest, its opening the profile itself. An auditor whose own
//! profile has another digest prints both and sees what differs, instead of a re-run that
//! differs for no visible reason.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::difference::{Difference, Differences};
use crate::digest::{Digest, Domain};
use crate::encoding::{Document, Version};
use crate::limits::Limits;
use crate::names::Label;

/// The most feature names in a profile.
const FEATURES_MAX: usize = 128;

/// What a run's result depends on besides request, module, models and input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Profile {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// The wasm engine and its version, such as `wasmtime 48.0.8`: fuel depends on it.
    #[n(1)]
    pub wasm_engine: Label,
    /// The wasm features and determinism settings that are on, such as `nan-canonicalization`.
    #[n(2)]
    pub wasm_features: BTreeSet<Label>,
    /// Digest of the engine's whole configuration, stack sizes included.
    #[n(3)]
    pub engine_config: Digest,
    /// The arithmetic of inference, such as `exact/0`.
    #[n(4)]
    pub arithmetic: Label,
    /// How the guest's randomness comes from the seed.
    #[n(5)]
    pub seed_policy: Label,
    /// How the guest's clocks run.
    #[n(6)]
    pub clock_policy: Label,
    /// The limits that were enforced.
    #[n(7)]
    pub limits: Limits,
}

impl Document for Profile {
    const NAME: &'static str = "profile";
    const BYTES_MAX: usize = 64 * 1024;

    fn check(&self) -> Result<(), String> {
        if self.wasm_features.len() > FEATURES_MAX {
            return Err(format!(
                "wasm_features has more than {FEATURES_MAX} entries"
            ));
        }
        self.limits.check().map_err(|error| error.to_string())
    }
}

impl Profile {
    /// What a receipt names.
    pub fn digest(&self) -> Digest {
        Digest::derive(Domain::Profile, &self.to_bytes())
    }

    /// What differs between this profile and another, field by field; empty if they are equal.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Differences::default();
        found.compare("version", &self.version.number(), &other.version.number());
        found.compare("wasm_engine", &self.wasm_engine, &other.wasm_engine);
        for feature in self.wasm_features.union(&other.wasm_features) {
            let state = |profile: &Self| match profile.wasm_features.contains(feature) {
                true => "on",
                false => "off",
            };
            found.compare(
                &format!("wasm_features.{feature}"),
                &state(self),
                &state(other),
            );
        }
        found.compare("engine_config", &self.engine_config, &other.engine_config);
        found.compare("arithmetic", &self.arithmetic, &other.arithmetic);
        found.compare("seed_policy", &self.seed_policy, &other.seed_policy);
        found.compare("clock_policy", &self.clock_policy, &other.clock_policy);
        for field in &Limits::FIELDS {
            let value = |profile: &Self| (field.get)(&profile.limits);
            found.compare(
                &format!("limits.{}", field.name),
                &value(self),
                &value(other),
            );
        }
        found.into()
    }

    /// The JSON view.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}
