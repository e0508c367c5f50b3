//! `Profile`: everything outside the documents that decides a run's result, in one document.
//!
//! A receipt holds the profile's digest, its opening the profile itself. An auditor whose own
//! profile has another digest prints both and sees what differs, instead of a re-run that
//! differs for no visible reason.

use std::collections::BTreeSet;

use serde::Serialize;

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
        let mut found = Vec::new();
        let mut compare = |field: &str, this: String, other: String| {
            if this != other {
                found.push(Difference {
                    field: field.to_owned(),
                    this,
                    other,
                });
            }
        };
        let number = |profile: &Self| profile.version.number().to_string();
        compare("version", number(self), number(other));
        compare(
            "wasm_engine",
            self.wasm_engine.to_string(),
            other.wasm_engine.to_string(),
        );
        for feature in self.wasm_features.union(&other.wasm_features) {
            let state = |p: &Self| {
                if p.wasm_features.contains(feature) {
                    "on"
                } else {
                    "off"
                }
                .to_owned()
            };
            compare(
                &format!("wasm_features.{feature}"),
                state(self),
                state(other),
            );
        }
        compare(
            "engine_config",
            self.engine_config.to_string(),
            other.engine_config.to_string(),
        );
        compare(
            "arithmetic",
            self.arithmetic.to_string(),
            other.arithmetic.to_string(),
        );
        compare(
            "seed_policy",
            self.seed_policy.to_string(),
            other.seed_policy.to_string(),
        );
        compare(
            "clock_policy",
            self.clock_policy.to_string(),
            other.clock_policy.to_string(),
        );
        for field in &Limits::FIELDS {
            let value = |p: &Self| (field.get)(&p.limits).to_string();
            compare(&format!("limits.{}", field.name), value(self), value(other));
        }
        found
    }

    /// The JSON view.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}

/// A field in which two profiles differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// Its value in the profile that was asked.
    pub this: String,
    /// Its value in the other.
    pub other: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} here, {} there",
            self.field, self.this, self.other
        )
    }
}
