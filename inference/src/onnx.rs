//! ONNX models, run by the ONNX Runtime library of this machine.
//! In: the library's path, and files that [`crate::OnnxFile`] checked. Out: [`TensorGraph`]s on the CPU.
//! It never looks for a library by itself, reads no environment, follows no path in a model, and falls back
//! to no other device. What parses and runs a model is a large C++ library: whoever turns this feature on
//! trusts it with the models of strangers; `docs/wasi-nn.md` says what is checked before it sees one.

mod library;
mod run;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, ValueType};

use crate::cancel::CancelToken;
use crate::graph::{ElementType, GraphError, NamedTensors, Port, TENSOR_RANK_MAX, TensorGraph};
use crate::onnx_file::OnnxFile;
pub use library::{OnnxRuntime, VERSION_MIN};

/// Inputs, and outputs, that a graph may have.
const PORTS_MAX: usize = 256;

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum OnnxLibraryError {
    /// The file is no library, or one for another machine.
    #[error("cannot load the library {}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: libloading::Error,
    },
    /// The library is another one.
    #[error("{} is not ONNX Runtime: it has no `OrtGetApiBase`", path.display())]
    OtherLibrary {
        /// The file.
        path: PathBuf,
    },
    /// A version without what is needed.
    #[error("{} is ONNX Runtime {version}, {VERSION_MIN} or newer is needed", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version, by its own word.
        version: String,
    },
    /// A process has one library.
    #[error("{} cannot be loaded beside {}", path.display(), loaded.display())]
    Second {
        /// The file.
        path: PathBuf,
        /// What is loaded already.
        loaded: PathBuf,
    },
    /// The library did not start.
    #[error("ONNX Runtime does not start: {reason}")]
    Start {
        /// What it says.
        reason: String,
    },
}

/// Why a file did not become a graph.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The library does not take it.
    #[error("ONNX Runtime does not take the model: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// An input or output that wasi-nn has no tensors for.
    #[error(
        "`{port}` is of the type {found}, wasi-nn has tensors of FP16, FP32, FP64, BF16, U8, I32 and I64"
    )]
    Port {
        /// The input or output.
        port: String,
        /// Its type.
        found: String,
    },
    /// Too many of them, or one with too many dimensions.
    #[error("{what}: {found}, at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
}

impl From<ort::Error> for OnnxError {
    fn from(error: ort::Error) -> Self {
        Self::Refused {
            reason: one_line(error.message()),
        }
    }
}

/// The library's messages have lines and paths of its sources in them.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A model in ONNX Runtime.
pub struct OnnxGraph {
    /// `Session::run` wants it alone: of two jobs that share a model one waits.
    session: Mutex<Session>,
    engine: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    parameters: u64,
    /// Keeps the library's environment.
    _runtime: Arc<OnnxRuntime>,
}

impl std::fmt::Debug for OnnxGraph {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OnnxGraph")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl OnnxGraph {
    /// Loads a model for the CPU, with so many threads for one computation.
    ///
    /// # Errors
    /// [`OnnxError`] if the library does not take it, or wasi-nn has no tensors for what goes in or out.
    pub fn open(
        runtime: &Arc<OnnxRuntime>,
        file: &OnnxFile,
        threads: usize,
    ) -> Result<Self, OnnxError> {
        let threads = threads.max(1);
        let mut builder = session_builder(runtime, threads)?;
        let session = builder.commit_from_memory(file.bytes())?;
        let inputs = ports("inputs", session.inputs())?;
        let outputs = ports("outputs", session.outputs())?;
        let version = runtime.version();
        Ok(Self {
            session: Mutex::new(session),
            engine: format!("onnxruntime {version} cpu, {threads} threads"),
            inputs,
            outputs,
            parameters: file.parameters(),
            _runtime: Arc::clone(runtime),
        })
    }
}

fn session_builder(runtime: &OnnxRuntime, threads: usize) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(runtime.environment())?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // An idle thread sleeps: others work on this machine.
        .with_intra_op_spinning(false)?
        .with_deterministic_compute(true)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        // It would compute what the model calls constant while it loads, where no limit holds.
        .with_disabled_optimizers("ConstantFolding")?
        // The memory of this process's graphs has one ceiling.
        .with_env_allocators()?
        // Never the library's own format, which has not been checked.
        .with_config_entry("session.load_model_format", "ONNX")?)
}

impl TensorGraph for OnnxGraph {
    fn engine(&self) -> &str {
        &self.engine
    }

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn compute(
        &self,
        inputs: NamedTensors,
        output_bytes_max: u64,
        cancel: &CancelToken,
    ) -> Result<NamedTensors, GraphError> {
        run::compute(
            &self.session,
            &self.outputs,
            inputs,
            output_bytes_max,
            cancel,
        )
    }
}

fn ports(what: &str, outlets: &[ort::value::Outlet]) -> Result<Vec<Port>, OnnxError> {
    let too_many = |what: String, found, max| OnnxError::TooMany { what, found, max };
    if outlets.len() > PORTS_MAX {
        return Err(too_many(what.to_owned(), outlets.len(), PORTS_MAX));
    }
    outlets
        .iter()
        .map(|outlet| {
            let other = || OnnxError::Port {
                port: outlet.name().to_owned(),
                found: outlet.dtype().to_string(),
            };
            let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
                return Err(other());
            };
            if shape.len() > TENSOR_RANK_MAX {
                let what = format!("dimensions of `{}`", outlet.name());
                return Err(too_many(what, shape.len(), TENSOR_RANK_MAX));
            }
            Ok(Port {
                name: outlet.name().to_owned(),
                element: element(*ty).ok_or_else(other)?,
                dimensions: shape.iter().map(|size| u32::try_from(*size).ok()).collect(),
            })
        })
        .collect()
}

/// The library's types that wasi-nn has.
fn element(ty: TensorElementType) -> Option<ElementType> {
    ElementType::ALL
        .into_iter()
        .find(|known| ort_type(*known) == ty)
}

fn ort_type(element: ElementType) -> TensorElementType {
    match element {
        ElementType::Fp16 => TensorElementType::Float16,
        ElementType::Fp32 => TensorElementType::Float32,
        ElementType::Fp64 => TensorElementType::Float64,
        ElementType::Bf16 => TensorElementType::Bfloat16,
        ElementType::U8 => TensorElementType::Uint8,
        ElementType::I32 => TensorElementType::Int32,
        ElementType::I64 => TensorElementType::Int64,
    }
}
