//! `Manifest`: what the developer asks to have run, and with what; TOML for people, canonical
//! bytes for digests.
//!
//! In: TOML text. Out: a checked [`Manifest`], or an error that names line, column and field and
//! says what to write instead. `tussah.toml` in a job's source folder is a [`JobDescription`];
//! `tussah build` adds the module and makes a [`Manifest`] of it.

mod error;
mod nearest;
mod read;
mod table;
mod write;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::build_info::BuildRecord;
use crate::codes::codes;
use crate::digest::Digest;
use crate::encoding::{Document, Version};
use crate::limits::Limits;
use crate::names::{JobName, ModelName};
use crate::nanograms::Nanograms;

pub use error::{ManifestError, Position};

/// The most bytes of a manifest's text.
pub const MANIFEST_TEXT_BYTES_MAX: usize = 64 * 1024;
/// The most models a job can name.
pub const MODELS_MAX: usize = 16;

/// What a job is, before it is built: `tussah.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct JobDescription {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// The job's name.
    #[n(1)]
    pub name: JobName,
    /// The models it uses, by the names it calls them.
    #[n(2)]
    #[cbor(with = "crate::encoding::pairs")]
    pub models: BTreeMap<ModelName, ModelRef>,
    /// What it may use at most.
    #[n(3)]
    pub limits: Limits,
    /// The most a run may cost.
    #[n(4)]
    pub price_nanograms_max: Nanograms,
    /// Where it may run.
    #[n(5)]
    pub device: DeviceRequest,
    /// How exact its receipts have to be.
    #[n(6)]
    pub determinism: DeterminismRequest,
    /// What its module imports and exports.
    #[n(7)]
    pub abi: Abi,
}

impl JobDescription {
    /// A job with a name and the defaults.
    pub const fn new(name: JobName) -> Self {
        Self {
            version: Version::V1,
            name,
            models: BTreeMap::new(),
            limits: Limits::DEFAULT,
            price_nanograms_max: Nanograms::ZERO,
            device: DeviceRequest::Any,
            determinism: DeterminismRequest::Exact,
            abi: Abi::Component,
        }
    }

    /// Reads a `tussah.toml`.
    ///
    /// # Errors
    /// [`ManifestError`], with line, column and field.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        read::job_description(text)
    }

    /// Reads the bytes of a `tussah.toml`.
    ///
    /// # Errors
    /// [`ManifestError`], also if the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::parse(read::text_of(bytes)?)
    }

    /// The manifest of this job with a module of which nobody says how it was built.
    pub const fn with_module(self, module: ModuleRef) -> Manifest {
        Manifest {
            job: self,
            module,
            build: None,
        }
    }

    /// The one TOML spelling of it, which parses to the same value.
    pub fn to_toml(&self) -> String {
        write::to_toml(self, None, None)
    }

    fn check(&self) -> Result<(), String> {
        if self.models.len() > MODELS_MAX {
            return Err(format!("models has more than {MODELS_MAX} entries"));
        }
        let class = self.determinism;
        if let Some((name, _)) = (self.models.iter()).find(|(_, model)| !model.format.allows(class))
        {
            return Err(format!(
                "models.{name} is of a format whose results are not exact, and determinism is exact"
            ));
        }
        if self.price_nanograms_max > Nanograms::MAX {
            return Err(format!(
                "price_nanograms_max is more than there is: {}",
                Nanograms::MAX
            ));
        }
        self.limits.check().map_err(|error| error.to_string())
    }
}

/// What is to be run: a job and its module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Manifest {
    /// What the developer wrote.
    #[n(0)]
    #[serde(flatten)]
    pub job: JobDescription,
    /// What was built of it.
    #[n(1)]
    pub module: ModuleRef,
    /// How it was built, as its builder says; `tussah verify` tells whether it is so.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildRecord>,
}

impl Document for Manifest {
    const NAME: &'static str = "manifest";
    const BYTES_MAX: usize = 16 * 1024;

    fn check(&self) -> Result<(), String> {
        self.job.check()?;
        self.module
            .check()
            .map_err(|max| format!("module.size_bytes can be 8 to {max}"))?;
        (self.build.as_ref()).map_or(Ok(()), |build| build.info.check())
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`], with line, column and field.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        read::manifest(text)
    }

    /// Reads the bytes of a manifest.
    ///
    /// # Errors
    /// [`ManifestError`], also if the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        Self::parse(read::text_of(bytes)?)
    }

    /// The one TOML spelling of it, which parses to the same value.
    pub fn to_toml(&self) -> String {
        write::to_toml(&self.job, Some(&self.module), self.build.as_ref())
    }

    /// Plain BLAKE3 of the canonical bytes ([`Document::to_bytes`]): the blob store keeps those
    /// bytes under this digest, like a module or a model. Comments, order and spacing of the
    /// TOML text do not matter to it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The digests of the models by name, as a receipt holds them.
    pub fn model_digests(&self) -> BTreeMap<ModelName, Digest> {
        self.job
            .models
            .iter()
            .map(|(name, model)| (name.clone(), model.digest))
            .collect()
    }

    /// The JSON view.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}

/// The module of a job: exact bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ModuleRef {
    /// Plain BLAKE3 of the bytes.
    #[n(0)]
    pub digest: Digest,
    /// How many there are.
    #[n(1)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub size_bytes: u64,
}

impl ModuleRef {
    /// The fewest bytes of a module: its magic number and version.
    pub const SIZE_BYTES_MIN: u64 = 8;
    /// The most bytes of a module, 256 MiB: what any provider has to be ready to compile.
    pub const SIZE_BYTES_MAX: u64 = 256 << 20;

    /// The reference to these bytes.
    pub fn of(module: &[u8]) -> Self {
        Self {
            digest: Digest::of(module),
            size_bytes: module.len() as u64,
        }
    }

    fn check(&self) -> Result<(), u64> {
        let good = (Self::SIZE_BYTES_MIN..=Self::SIZE_BYTES_MAX).contains(&self.size_bytes);
        if good {
            Ok(())
        } else {
            Err(Self::SIZE_BYTES_MAX)
        }
    }
}

/// A model that a job uses: exact bytes in a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ModelRef {
    /// Plain BLAKE3 of the model file's bytes.
    #[n(0)]
    pub digest: Digest,
    /// How the file is to be read.
    #[n(1)]
    pub format: ModelFormat,
}

codes! {
    /// The format of a model file.
    ModelFormat("model format") {
        /// GGUF, version 3.
        Gguf = 0 "gguf",
        /// The folder of an encoder whose weights are in safetensors, as one archive.
        Safetensors = 1 "safetensors",
        /// ONNX, which is run by a library of the provider's: no receipt of it is exact.
        Onnx = 2 "onnx",
    }
}

impl ModelFormat {
    /// Whether receipts of a job with such a model can be of the class that it asks for.
    pub fn allows(self, class: DeterminismRequest) -> bool {
        match self {
            Self::Gguf | Self::Safetensors => true,
            Self::Onnx => class != DeterminismRequest::Exact,
        }
    }
}

codes! {
    /// What a module imports and exports, and how its input and output reach it.
    Abi("abi") {
        /// A component of the world `tussah:job/job`.
        Component = 0 "component",
        /// A core module of WASI preview 1 with `wasi_ephemeral_nn`: input on standard input,
        /// output on standard output, `_start` is its entry.
        Preview1 = 1 "preview1",
    }
}

codes! {
    /// Where a job may run. There is no fallback: a job that asks for a GPU is refused by a
    /// provider that has none.
    DeviceRequest("device request") {
        /// On CPUs only.
        Cpu = 0 "cpu",
        /// On a GPU only.
        Gpu = 1 "gpu",
        /// Wherever the provider likes.
        Any = 2 "any",
    }
}

codes! {
    /// Which determinism classes a job's receipts may have.
    DeterminismRequest("determinism request") {
        /// A re-run anywhere gives the same bits.
        Exact = 0 "exact",
        /// At least tolerant: a re-run gives the same up to rounding.
        Tolerant = 1 "tolerant",
        /// Whatever is fastest.
        Any = 2 "any",
    }
}
