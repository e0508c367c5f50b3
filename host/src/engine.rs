//! Models from the blob store to memory.
//!
//! In: digests, and how many threads to use. Out: loaded models, hashed before they are
//! opened, each loaded once a process. It never falls back to another device or engine.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use clap::ValueEnum;
use tussah_inference::{Engine, LoadOptions, Model, ModelError};
use tussah_manifest::{Digest, ModelFormat, ModelRef};
use tussah_runtime::{Event, Events, LoadedModel, ModelSource, ModelSourceError};

use crate::{
    blobs::{BlobError, Blobs},
    exit_code::Exit,
    failure::Failure,
    ui::Ui,
};

/// Where inference runs, as the command line says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The best that this machine has, which this build takes to be the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU; an error where there is none.
    Gpu,
}

impl Device {
    /// Refuses a device that this build cannot use: asking for a GPU never gives a CPU.
    ///
    /// # Errors
    /// A host failure for [`Device::Gpu`].
    pub(crate) fn check(self) -> Result<(), Failure> {
        match self {
            Self::Auto | Self::Cpu => Ok(()),
            Self::Gpu => Err(no_gpu()),
        }
    }
}

/// What is said wherever a GPU is asked for.
pub(crate) fn no_gpu() -> Failure {
    Failure::host("a GPU was asked for, and this build of tussah has no GPU backend yet")
        .help("use `--device cpu`; a job whose manifest says `device = \"gpu\"` cannot run here")
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The file.
    #[error("the model file cannot be used")]
    Model(#[from] ModelError),
    /// The manifest's format is one that nothing here runs.
    #[error("its format is onnx, and this build of tussah runs gguf and safetensors")]
    NoOnnx,
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Blob(error) => error.into(),
            LoadError::NoOnnx => Self::new(exit_of(&error), error),
            LoadError::Model(_) => {
                let exit = exit_of(&error);
                Self::new(exit, error)
                    .help("the file must be a whole GGUF model that tussah supports")
            }
        }
    }
}

fn exit_of(error: &LoadError) -> Exit {
    match error {
        LoadError::Blob(BlobError::Damaged { .. }) => Exit::NOT_VERIFIED,
        LoadError::Blob(BlobError::Missing { .. }) => Exit::USAGE,
        LoadError::Model(ModelError::Spawn(_) | ModelError::Backend(_)) => Exit::HOST_FAILED,
        LoadError::Model(_) | LoadError::NoOnnx => Exit::USAGE,
        LoadError::Blob(_) => Exit::HOST_FAILED,
    }
}

/// The exit code of a model that a run could not get, and whether a file of the right bytes
/// would help.
pub(crate) fn exit_of_source(error: &ModelSourceError) -> (Exit, bool) {
    let reason = error.reason.downcast_ref::<LoadError>();
    let exit = reason.map_or(Exit::HOST_FAILED, exit_of);
    (exit, !matches!(reason, Some(LoadError::NoOnnx)))
}

/// Opens a model file outside the store, without preparing it for speed: to look at it.
///
/// # Errors
/// [`LoadError::Model`] if it is not a model that can be used.
pub(crate) fn inspect(path: &Path) -> Result<Arc<Model>, LoadError> {
    let options = LoadOptions {
        engine: Engine::Oracle,
        threads: 1,
        ..LoadOptions::default()
    };
    Ok(Arc::new(Model::open(path, &options, &mut |_| ())?))
}

/// Hashes and loads a model of the store, with progress on the terminal.
///
/// # Errors
/// [`LoadError`].
pub(crate) fn load(
    blobs: &Blobs,
    digest: &Digest,
    options: &LoadOptions,
    ui: &Ui,
) -> Result<Arc<Model>, LoadError> {
    let size = std::fs::metadata(blobs.path(digest)).map_or(0, |metadata| metadata.len());
    let hashing = ui.bytes_bar("checking", size);
    let path = blobs.verify(digest, &mut |read| hashing.add(read))?;
    drop(hashing);
    let loading = ui.bytes_bar("loading", size);
    let model = Model::open(&path, options, &mut |at| loading.set(at.done_bytes))?;
    Ok(Arc::new(model))
}

/// The store's models for jobs, in the exact profile.
#[derive(Debug)]
pub(crate) struct StoredModels {
    blobs: Blobs,
    threads: u32,
    /// Filled by the threads that load; a model stays as long as the process.
    loaded: Mutex<BTreeMap<Digest, LoadedModel>>,
}

impl StoredModels {
    /// Models of this store, run by so many threads; 0 is one a CPU.
    pub(crate) fn new(blobs: Blobs, threads: u32) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism()
                .ok()
                .and_then(|threads| u32::try_from(threads.get()).ok())
                .unwrap_or(1),
            threads => threads,
        };
        Self {
            blobs,
            threads,
            loaded: Mutex::default(),
        }
    }

    fn load_now(&self, digest: &Digest, events: &dyn Events) -> Result<LoadedModel, LoadError> {
        let path = self.blobs.verify(digest, &mut |_| ())?;
        let threads = usize::try_from(self.threads).unwrap_or(1);
        let options = LoadOptions {
            engine: exact(),
            threads,
            ..LoadOptions::default()
        };
        let model = Model::open(&path, &options, &mut |at| {
            events.event(Event::ModelLoading {
                done_bytes: at.done_bytes,
                total_bytes: at.total_bytes,
            });
        })?;
        Ok(LoadedModel::Text(Arc::new(model)))
    }
}

/// The engine whose results every machine reproduces.
pub(crate) fn exact() -> Engine {
    Engine::Exact
}

impl ModelSource for StoredModels {
    fn check(&self, model: &ModelRef) -> Result<(), ModelSourceError> {
        let refuse = |reason: LoadError| {
            Err(ModelSourceError {
                digest: model.digest,
                reason: Box::new(reason),
            })
        };
        match model.format {
            ModelFormat::Onnx => return refuse(LoadError::NoOnnx),
            ModelFormat::Gguf | ModelFormat::Safetensors => {}
        }
        if self.blobs.contains(&model.digest) {
            return Ok(());
        }
        refuse(LoadError::Blob(self.blobs.missing(&model.digest)))
    }

    fn threads(&self) -> u32 {
        self.threads
    }

    fn load(&self, model: &ModelRef, events: &dyn Events) -> Result<LoadedModel, ModelSourceError> {
        let digest = &model.digest;
        // Held while loading: two sessions that ask for one model wait for one load.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = loaded.get(digest) {
            return Ok(model.clone());
        }
        let model = self
            .load_now(digest, events)
            .map_err(|error| ModelSourceError {
                digest: *digest,
                reason: Box::new(error),
            })?;
        loaded.insert(*digest, model.clone());
        Ok(model)
    }
}
