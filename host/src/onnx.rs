//! ONNX models on this machine: which library runs them, and whether this build can.
//!
//! In: the library's path, by option or environment. Out: loaded graphs, or what is missing.
//! It never looks for a library by itself: what the provider did not name is not loaded. A build
//! without the feature `onnx` has no option for it, and refuses such models by name.

use std::{io::Read as _, path::Path};

use clap::Args;
use tussah_inference::{OnnxFile, OnnxFileError};

use crate::exit_code::Exit;

/// Which library runs models of the format onnx.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OnnxArguments {
    /// The ONNX Runtime library that runs models of the format onnx.
    #[cfg(feature = "onnx")]
    #[arg(long, env = "TUSSAH_ONNXRUNTIME", value_name = "FILE")]
    pub(crate) onnxruntime: Option<std::path::PathBuf>,
}

impl OnnxArguments {
    /// The library that was named.
    #[cfg(feature = "onnx")]
    pub(crate) fn library(&self) -> Option<std::path::PathBuf> {
        self.onnxruntime.clone()
    }

    /// None: this build has no use for one.
    #[cfg(not(feature = "onnx"))]
    #[expect(clippy::unused_self, reason = "the other build's shape")]
    pub(crate) fn library(&self) -> Option<std::path::PathBuf> {
        None
    }
}

/// Why an ONNX model cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OnnxUnusable {
    /// Nothing in this build runs it.
    #[cfg(not(feature = "onnx"))]
    #[error("its format is onnx, and this build of tussah runs gguf and safetensors")]
    NotBuilt,
    /// The file is one that no library gets to see.
    #[error(transparent)]
    File(#[from] OnnxFileError),
    /// The provider named no library.
    #[cfg(feature = "onnx")]
    #[error("its format is onnx, and no ONNX Runtime library is named")]
    NoLibrary,
    /// The path that was named cannot be followed.
    #[cfg(feature = "onnx")]
    #[error("cannot find the ONNX Runtime library {}", path.display())]
    Missing {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The library is not one that can be used.
    #[cfg(feature = "onnx")]
    #[error(transparent)]
    Library(#[from] tussah_inference::onnx::OnnxLibraryError),
    /// The library does not take the model.
    #[cfg(feature = "onnx")]
    #[error(transparent)]
    Model(#[from] tussah_inference::onnx::OnnxError),
}

impl OnnxUnusable {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            #[cfg(feature = "onnx")]
            Self::NoLibrary | Self::Missing { .. } | Self::Library(_) => Exit::HOST_FAILED,
            _ => Exit::USAGE,
        }
    }

    /// What to do.
    pub(crate) fn help(&self) -> &'static str {
        match self {
            #[cfg(not(feature = "onnx"))]
            Self::NotBuilt => {
                "use a model in one of these formats, or a tussah built with `--features onnx`"
            }
            Self::File(_) => "export the model again as one file",
            #[cfg(feature = "onnx")]
            Self::NoLibrary | Self::Missing { .. } | Self::Library(_) => {
                "name one: `--onnxruntime FILE` or TUSSAH_ONNXRUNTIME; the Python package \
                 onnxruntime has it as capi/libonnxruntime.so.VERSION"
            }
            #[cfg(feature = "onnx")]
            Self::Model(_) => "docs/wasi-nn.md says which graphs can be run",
        }
    }
}

/// The file as an ONNX model; none if it is something else.
///
/// # Errors
/// [`OnnxUnusable`] if it is one that cannot be used, by this build or by any.
pub(crate) fn recognise(path: &Path) -> Result<Option<OnnxFile>, OnnxUnusable> {
    let mut first = [0];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut first));
    // Whoever opens it next says what is wrong with it.
    if !matches!(read, Ok(1)) || !OnnxFile::may_be(&first) {
        return Ok(None);
    }
    match OnnxFile::open(path) {
        #[cfg(feature = "onnx")]
        Ok(file) => Ok(Some(file)),
        #[cfg(not(feature = "onnx"))]
        Ok(_) => Err(OnnxUnusable::NotBuilt),
        Err(
            OnnxFileError::Malformed { .. } | OnnxFileError::NoGraph | OnnxFileError::Io { .. },
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(feature = "onnx")]
pub(crate) use library::Graphs;

#[cfg(feature = "onnx")]
mod library {
    use std::sync::{Arc, OnceLock};

    use sysinfo::{MemoryRefreshKind, RefreshKind, System};
    use tussah_inference::onnx::{OnnxGraph, OnnxRuntime};

    use super::{OnnxArguments, OnnxFile, OnnxUnusable, Path};

    /// What the graphs of a process get together, where the machine does not say how much it has.
    const MEMORY_BYTES_DEFAULT: u64 = 4 << 30;

    /// The library, loaded when the first job has a model for it.
    #[derive(Debug, Default)]
    pub(crate) struct Graphs {
        arguments: OnnxArguments,
        runtime: OnceLock<Arc<OnnxRuntime>>,
    }

    impl Graphs {
        pub(crate) fn new(arguments: OnnxArguments) -> Self {
            Self {
                arguments,
                runtime: OnceLock::new(),
            }
        }

        /// The library.
        ///
        /// # Errors
        /// [`OnnxUnusable`] if none is named, or it is none.
        pub(crate) fn runtime(&self) -> Result<&Arc<OnnxRuntime>, OnnxUnusable> {
            if let Some(runtime) = self.runtime.get() {
                return Ok(runtime);
            }
            let path = self.arguments.onnxruntime.as_ref();
            let path = path.ok_or(OnnxUnusable::NoLibrary)?;
            // With its whole path, so that no search path of the system has a say.
            let whole = path
                .canonicalize()
                .map_err(|source| OnnxUnusable::Missing {
                    path: path.clone(),
                    source,
                })?;
            let runtime = OnnxRuntime::load(&whole, memory_bytes_max())?;
            Ok(self.runtime.get_or_init(|| runtime))
        }

        /// The library with its version, as profiles say it; none before a job has a model for it.
        pub(crate) fn arithmetic(&self) -> Option<String> {
            let runtime = self.runtime.get()?;
            Some(format!("onnxruntime {}", runtime.version()))
        }

        /// Loads a model.
        ///
        /// # Errors
        /// [`OnnxUnusable`] if there is no library, or it does not take the model.
        pub(crate) fn load(
            &self,
            path: &Path,
            threads: usize,
        ) -> Result<Arc<OnnxGraph>, OnnxUnusable> {
            let runtime = self.runtime()?;
            let file = OnnxFile::open(path)?;
            Ok(Arc::new(OnnxGraph::open(runtime, &file, threads)?))
        }
    }

    /// Half of what the machine has.
    fn memory_bytes_max() -> u64 {
        let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        System::new_with_specifics(kind).map_or(MEMORY_BYTES_DEFAULT, |system| {
            match system.total_memory() {
                0 => MEMORY_BYTES_DEFAULT,
                bytes => bytes / 2,
            }
        })
    }
}
