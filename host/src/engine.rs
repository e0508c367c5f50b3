//! Models from the blob store to memory.
//!
//! In: digests, and how many threads to use. Out: loaded models, hashed before they are
//! opened, kept while there is room for them. It never falls back to another device or engine.

mod kept;
mod weights;

use std::{path::Path, sync::Arc, time::Duration};

use tussah_inference::{
    BackendError, CancelToken, ContextMemory, Device, Engine, GpuInfo, GpuKind, LoadOptions,
    LoadProgress, Model, ModelError, OnnxFile,
};
use tussah_manifest::{Digest, ModelFormat, ModelRef};
#[cfg(feature = "onnx")]
use tussah_runtime::NoEvents;
use tussah_runtime::{Event, Events, LoadedModel, ModelSource, ModelSourceError};

use crate::{
    blobs::{BlobError, Blobs},
    device::Placement,
    exit_code::Exit,
    failure::Failure,
    onnx::{self, OnnxArguments, OnnxUnusable},
    ui::Ui,
};
pub(crate) use kept::Left;
use kept::{InUse, Kept, LoadFailure, NoRoom};
pub(crate) use weights::{WEIGHTS_CACHE_GB, WeightsCache};

/// How long a job waits until models that others use make room for its own.
const ROOM_TIME_MAX: Duration = Duration::from_secs(60);
/// What to do where a GPU was asked for and cannot do it.
const CPU_ONLY: &str = "leave --device out or use `--device cpu`; a job with such a model must not say \
                        `device = \"gpu\"`";

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The store.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The file.
    #[error("the model file cannot be used")]
    Model(#[from] ModelError),
    /// The model is of the format onnx, and cannot be used here.
    #[error(transparent)]
    Onnx(#[from] OnnxUnusable),
    /// Models that others use leave no room.
    #[error("there is no room for the model")]
    Room(#[from] NoRoom),
    /// The job that asked for it has ended.
    #[error(transparent)]
    Left(#[from] Left),
    /// Text was asked of a graph of tensors.
    #[error("it is an ONNX model: a graph of tensors, which has no text")]
    Graph,
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Blob(error) => error.into(),
            LoadError::Onnx(ref reason) => {
                let (exit, help) = (reason.exit(), reason.help());
                Self::new(exit, error).help(help)
            }
            LoadError::Graph => Self::usage(error).help("jobs compute it through wasi:nn"),
            LoadError::Room(_) => Self::host(error).help("raise --model-memory-gb"),
            LoadError::Left(_) => Self::host(error),
            LoadError::Model(ref reason) => {
                let help = match reason {
                    ModelError::CpuOnly { .. } => CPU_ONLY,
                    _ => "the file must be a whole GGUF model that tussah supports",
                };
                let exit = exit_of(&error);
                Self::new(exit, error).help(help)
            }
        }
    }
}

impl LoadFailure for LoadError {
    fn is_out_of_memory(&self) -> bool {
        matches!(
            self,
            Self::Model(ModelError::Backend(BackendError::OutOfMemory { .. }))
        )
    }
}

fn exit_of(error: &LoadError) -> Exit {
    match error {
        LoadError::Blob(BlobError::Damaged { .. }) => Exit::NOT_VERIFIED,
        LoadError::Blob(BlobError::Missing { .. }) => Exit::USAGE,
        LoadError::Model(ModelError::Spawn(_) | ModelError::Backend(_))
        | LoadError::Room(_)
        | LoadError::Left(_) => Exit::HOST_FAILED,
        LoadError::Onnx(reason) => reason.exit(),
        LoadError::Model(_) | LoadError::Graph => Exit::USAGE,
        LoadError::Blob(_) => Exit::HOST_FAILED,
    }
}

/// The exit code of a model that a run could not get, and what to do where a file of the right
/// bytes would not help.
pub(crate) fn exit_of_source(error: &ModelSourceError) -> (Exit, Option<&'static str>) {
    let reason = error.reason.downcast_ref::<LoadError>();
    let exit = reason.map_or(Exit::HOST_FAILED, exit_of);
    let help = match reason {
        Some(LoadError::Onnx(reason)) => Some(reason.help()),
        Some(LoadError::Model(ModelError::CpuOnly { .. })) => Some(CPU_ONLY),
        _ => None,
    };
    (exit, help)
}

/// What a file is, by a look at it.
pub(crate) enum Inspected {
    /// A decoder or an encoder.
    Text(Arc<Model>),
    /// A graph of tensors.
    Graph(OnnxFile),
}

/// Opens a model file of any format outside the store, to look at it. No library looks at it.
///
/// # Errors
/// [`LoadError`] if it is not a model that this build can use.
pub(crate) fn inspect_any(path: &Path) -> Result<Inspected, LoadError> {
    match onnx::recognise(path)? {
        Some(file) => Ok(Inspected::Graph(file)),
        None => inspect(path).map(Inspected::Text),
    }
}

/// Opens a model of text outside the store, without preparing it for speed: to look at it.
///
/// # Errors
/// [`LoadError::Model`] if it is not a model that can be used, [`LoadError::Graph`] if it has
/// no text.
pub(crate) fn inspect(path: &Path) -> Result<Arc<Model>, LoadError> {
    text_alone(path)?;
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
    options: LoadOptions,
    placement: &Placement,
    ui: &Ui,
) -> Result<Arc<Model>, LoadError> {
    let size = std::fs::metadata(blobs.path(digest)).map_or(0, |metadata| metadata.len());
    let hashing = ui.bytes_bar("checking", size);
    let path = blobs.verify(digest, &mut |read| hashing.add(read))?;
    drop(hashing);
    text_alone(&path)?;
    let loading = ui.bytes_bar("loading", size);
    let mut progress = |at: LoadProgress| loading.set(at.done_bytes);
    Ok(Arc::new(open(
        (&path, digest),
        options,
        placement,
        &mut progress,
    )?))
}

/// Opens a model where it goes. What only a CPU can run goes there, unless somebody asked for a GPU.
fn open(
    (path, digest): (&Path, &Digest),
    options: LoadOptions,
    placement: &Placement,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Model, ModelError> {
    let there = LoadOptions {
        device: placement.device(),
        packed: placement.packed(digest),
        ..options.clone()
    };
    match Model::open(path, &there, progress) {
        // It is refused before anything is loaded.
        Err(ModelError::CpuOnly { .. }) if !placement.gpu_only() => {
            let here = LoadOptions {
                device: Device::Cpu,
                ..options
            };
            Model::open(path, &here, progress)
        }
        opened => opened,
    }
}

fn text_alone(path: &Path) -> Result<(), LoadError> {
    match onnx::recognise(path)? {
        Some(_) => Err(LoadError::Graph),
        None => Ok(()),
    }
}

/// Bytes of model files that stay loaded at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// For jobs that run on the CPU.
    pub(crate) cpu: u64,
    /// For jobs that run on a GPU; `None` where its memory is the processor's, so that both have one room.
    pub(crate) gpu: Option<u64>,
    /// For the sessions of all models on the CPU; `None` is as much as there is.
    pub(crate) sessions: Option<u64>,
}

impl Room {
    /// For one job, which has what it takes.
    pub(crate) const ANY: Self = Self {
        cpu: u64::MAX,
        gpu: None,
        sessions: None,
    };

    /// As many bytes as were asked for, else three quarters of the memory that there is; on a GPU with
    /// memory of its own that says how much that is, no more than that. Sessions on the CPU have a quarter of
    /// the machine's memory.
    pub(crate) fn of(asked: Option<u64>, machine: Option<u64>, gpu: Option<&GpuInfo>) -> Self {
        let part = |bytes: u64| bytes / 4 * 3;
        let cpu = asked.or(machine.map(part)).unwrap_or(u64::MAX);
        let own = gpu.filter(|gpu| matches!(gpu.kind, GpuKind::Discrete | GpuKind::Virtual));
        let gpu = own.map(|gpu| match (gpu.memory_bytes, asked) {
            (None, _) => cpu,
            (Some(memory), Some(asked)) => asked.min(memory),
            (Some(memory), None) => part(memory),
        });
        Self {
            cpu,
            gpu,
            sessions: machine.map(|bytes| bytes / 4),
        }
    }
}

/// A model and where it was loaded: once for the CPU, once for a GPU.
type Place = (Digest, bool);

/// The store's models for jobs, in the exact profile.
#[derive(Debug)]
pub(crate) struct StoredModels {
    blobs: Blobs,
    threads: u32,
    placement: Placement,
    #[cfg(feature = "onnx")]
    graphs: Arc<onnx::Graphs>,
    /// A graph stays as long as the process: its library keeps it.
    loaded: Arc<Kept<Place, LoadedModel>>,
    /// What was loaded where there was a GPU to put it on; the same where that has no memory of its own.
    on_gpu: Arc<Kept<Place, LoadedModel>>,
    /// Of sessions on the CPU.
    context_memory: ContextMemory,
    /// After which nothing is waited for.
    cancel: CancelToken,
}

impl StoredModels {
    /// Models of this store, where they go and how many stay; on the CPU by so many threads, 0 is one
    /// a CPU.
    #[cfg_attr(
        not(feature = "onnx"),
        expect(unused_variables, reason = "this build has no library to name")
    )]
    pub(crate) fn new(
        blobs: Blobs,
        placement: Placement,
        threads: u32,
        onnx: OnnxArguments,
        room: Room,
    ) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism()
                .ok()
                .and_then(|threads| u32::try_from(threads.get()).ok())
                .unwrap_or(1),
            threads => threads,
        };
        let loaded = Arc::new(Kept::new(room.cpu, ROOM_TIME_MAX));
        Self {
            blobs,
            threads,
            placement,
            #[cfg(feature = "onnx")]
            graphs: Arc::new(onnx::Graphs::new(onnx)),
            on_gpu: match room.gpu {
                Some(bytes) => Arc::new(Kept::new(bytes, ROOM_TIME_MAX)),
                None => Arc::clone(&loaded),
            },
            loaded,
            context_memory: room.sessions.map(ContextMemory::of).unwrap_or_default(),
            cancel: CancelToken::new(),
        }
    }

    /// The same models for a job, where it goes and until it ends; what is loaded is shared.
    pub(crate) fn placed(&self, placement: Placement, cancel: CancelToken) -> Self {
        Self {
            blobs: self.blobs.clone(),
            threads: self.threads,
            placement,
            #[cfg(feature = "onnx")]
            graphs: Arc::clone(&self.graphs),
            loaded: Arc::clone(&self.loaded),
            on_gpu: Arc::clone(&self.on_gpu),
            context_memory: self.context_memory.clone(),
            cancel,
        }
    }

    fn load_now(&self, model: &ModelRef, events: &dyn Events) -> Result<LoadedModel, LoadError> {
        let path = self.blobs.verify(&model.digest, &mut |_| ())?;
        let threads = usize::try_from(self.threads).unwrap_or(1);
        if model.format == ModelFormat::Onnx {
            return self.load_graph(&path, threads);
        }
        let options = LoadOptions {
            engine: exact(),
            threads,
            context_memory: self.context_memory.clone(),
            ..LoadOptions::default()
        };
        let mut progress = |at: LoadProgress| {
            events.event(Event::ModelLoading {
                done_bytes: at.done_bytes,
                total_bytes: at.total_bytes,
            });
        };
        let model = open(
            (&path, &model.digest),
            options,
            &self.placement,
            &mut progress,
        )?;
        Ok(LoadedModel::Text(Arc::new(model)))
    }

    #[cfg(feature = "onnx")]
    fn load_graph(&self, path: &Path, threads: usize) -> Result<LoadedModel, LoadError> {
        Ok(LoadedModel::Graph(self.graphs.load(path, threads)?))
    }

    #[cfg(not(feature = "onnx"))]
    #[expect(clippy::unused_self, reason = "the other build's shape")]
    fn load_graph(&self, _: &Path, _: usize) -> Result<LoadedModel, LoadError> {
        Err(OnnxUnusable::NotBuilt.into())
    }
}

impl InUse for LoadedModel {
    fn in_use(&self) -> bool {
        match self {
            Self::Text(model) => Arc::strong_count(model) > 1,
            Self::Graph(graph) => Arc::strong_count(graph) > 1,
        }
    }
}

/// What it is that no GPU runs, if models of that format are that.
fn cpu_only(format: ModelFormat) -> Option<&'static str> {
    match format {
        ModelFormat::Gguf => None,
        ModelFormat::Safetensors => Some("an encoder"),
        ModelFormat::Onnx => Some("an ONNX model"),
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
        if self.placement.gpu_only()
            && let Some(what) = cpu_only(model.format)
        {
            return refuse(ModelError::CpuOnly { what }.into());
        }
        #[cfg(not(feature = "onnx"))]
        if model.format == ModelFormat::Onnx {
            return refuse(OnnxUnusable::NotBuilt.into());
        }
        if !self.blobs.contains(&model.digest) {
            return refuse(LoadError::Blob(self.blobs.missing(&model.digest)));
        }
        // Only the library knows whether it takes a graph, and a job that it refuses is refused
        // before it runs.
        #[cfg(feature = "onnx")]
        if model.format == ModelFormat::Onnx {
            return self.load(model, &NoEvents).map(|_| ());
        }
        Ok(())
    }

    fn threads(&self) -> u32 {
        self.threads
    }

    #[cfg(feature = "onnx")]
    fn graph_arithmetic(&self) -> Option<String> {
        self.graphs.arithmetic()
    }

    fn load(&self, model: &ModelRef, events: &dyn Events) -> Result<LoadedModel, ModelSourceError> {
        let digest = &model.digest;
        let (kept, place) = match self.placement.device() {
            // What the CPU alone can run is in this machine's memory wherever the job is.
            Device::Gpu(_) if cpu_only(model.format).is_none() => (&self.on_gpu, (*digest, true)),
            Device::Gpu(_) | Device::Cpu => (&self.loaded, (*digest, false)),
        };
        // What is gone is told by the load itself.
        let size = std::fs::metadata(self.blobs.path(digest)).map_or(0, |file| file.len());
        let load = || self.load_now(model, events);
        let loaded = kept.get(&place, size, &self.cancel, load);
        loaded.map_err(|error: LoadError| ModelSourceError {
            digest: *digest,
            reason: Box::new(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(kind: GpuKind, memory_bytes: Option<u64>) -> GpuInfo {
        GpuInfo {
            name: "a GPU".to_owned(),
            kind,
            interface: "vulkan".to_owned(),
            driver: "a driver 1.0".to_owned(),
            binding_bytes_max: 1 << 30,
            memory_bytes,
            int64: true,
            subgroups: true,
            timestamps: true,
        }
    }

    #[test]
    fn models_on_a_gpu_have_the_gpus_memory_and_no_more() {
        let machine = Some(400);
        let room = |asked, found: GpuInfo| Room::of(asked, machine, Some(&found)).gpu;
        let card = |memory| gpu(GpuKind::Discrete, memory);
        assert_eq!(room(None, card(Some(80))), Some(60));
        assert_eq!(room(Some(70), card(Some(80))), Some(70));
        assert_eq!(room(Some(90), card(Some(80))), Some(80));
        assert_eq!(room(None, card(Some(800))), Some(600));
        // One that does not say.
        assert_eq!(room(None, card(None)), Some(300));
        // The processor's memory is there once, for jobs on both together.
        for kind in [GpuKind::Integrated, GpuKind::Software] {
            assert_eq!(room(None, gpu(kind, Some(800))), None);
            let both = Room::of(Some(70), machine, Some(&gpu(kind, Some(80))));
            assert_eq!((both.cpu, both.gpu), (70, None));
        }
        assert_eq!(Room::of(None, machine, None).cpu, 300);
        assert_eq!(Room::of(Some(1), machine, None).sessions, Some(100));
        assert_eq!(Room::of(Some(1), machine, None).cpu, 1);
    }
}
