//! The ONNX Runtime library: loaded once a process, from the file that it is told.
//! In: a path, and how much memory all graphs together may take. Out: the library with its version.
//! It never looks at `ORT_DYLIB_PATH`, `ORT_LOG` or a search path, which `ort` would do if it had to.

use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use libloading::{Library, Symbol};
use ort::AsPointer as _;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

use super::{OnnxLibraryError, one_line};

/// The oldest version that has what is needed here: `ort`'s own minimum.
pub const VERSION_MIN: &str = "1.17";

/// ONNX Runtime, ready for graphs.
#[derive(Debug)]
pub struct OnnxRuntime {
    environment: Environment,
    version: String,
    path: PathBuf,
}

/// A process has one: the library keeps its state in variables of its own.
static LOADED: Mutex<Option<Arc<OnnxRuntime>>> = Mutex::new(None);

impl OnnxRuntime {
    /// Loads the library; a second call with the same file gives the same again.
    ///
    /// # Limits
    /// All graphs of this process together, weights, inputs and what they compute, take at most
    /// `memory_bytes_max`; the first call's number holds. What would pass it fails with the library's error.
    ///
    /// # Errors
    /// [`OnnxLibraryError`].
    pub fn load(path: &Path, memory_bytes_max: u64) -> Result<Arc<Self>, OnnxLibraryError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            if runtime.path == path {
                return Ok(Arc::clone(runtime));
            }
            return Err(OnnxLibraryError::Second {
                path: path.to_owned(),
                loaded: runtime.path.clone(),
            });
        }
        let version = version_of(path)?;
        let start = |reason: String| OnnxLibraryError::Start { reason };
        let environment = ort::init_from(path)
            .map_err(|error| start(error.to_string()))?
            .with_name("tussah")
            .with_telemetry(false)
            // What goes wrong is said by errors; without this the library writes to standard error.
            .with_logger(Arc::new(|_, _, _, _, _| ()))
            .build()
            .map_err(|error| start(one_line(error.message())))?;
        environment.set_log_level(LogLevel::Fatal);
        let memory = limit_memory(&environment, memory_bytes_max);
        memory.map_err(|error| start(one_line(error.message())))?;
        let runtime = Arc::new(Self {
            environment,
            version,
            path: path.to_owned(),
        });
        *loaded = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    /// Whether a library of this version has what is needed: [`VERSION_MIN`] or newer, of the same major.
    pub fn supports(version: &str) -> bool {
        let parse = |text: &str| -> Option<(u32, u32)> {
            let mut parts = text.split('.').map(|part| part.parse().ok());
            Some((parts.next()??, parts.next()??))
        };
        match (parse(version), parse(VERSION_MIN)) {
            (Some(found), Some(min)) => found.0 == min.0 && found >= min,
            _ => false,
        }
    }

    /// Its version, such as `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// The library's version, asked of the library itself before anything else is.
fn version_of(path: &Path) -> Result<String, OnnxLibraryError> {
    let load = |source| OnnxLibraryError::Load {
        path: path.to_owned(),
        source,
    };
    let other = || OnnxLibraryError::OtherLibrary {
        path: path.to_owned(),
    };
    #[expect(unsafe_code, reason = "the library is code that is not ours")]
    // SAFETY: loading a library runs its initialisers. Which one it is, is the provider's word, as with any
    // library of the system.
    let library = unsafe { Library::new(path) }.map_err(load)?;
    #[expect(unsafe_code, reason = "the library is code that is not ours")]
    // SAFETY: onnxruntime_c_api.h declares `const OrtApiBase* OrtGetApiBase(void)`, since version 1.0.
    let base: Symbol<'_, unsafe extern "C" fn() -> *const ort::sys::OrtApiBase> =
        unsafe { library.get(b"OrtGetApiBase") }.map_err(|_| other())?;
    #[expect(unsafe_code, reason = "the library is code that is not ours")]
    // SAFETY: it takes nothing and gives a pointer to a structure that lives as long as the library, which
    // is still loaded here; its second member gives a string of the same life that ends in a zero.
    let version: &CStr = unsafe {
        let Some(base) = base().as_ref() else {
            return Err(other());
        };
        let text: *const c_char = (base.GetVersionString)();
        if text.is_null() {
            return Err(other());
        }
        CStr::from_ptr(text)
    };
    let version = version.to_string_lossy().into_owned();
    if OnnxRuntime::supports(&version) {
        return Ok(version);
    }
    Err(OnnxLibraryError::Version {
        path: path.to_owned(),
        version,
    })
}

/// Gives all sessions one arena of memory with a ceiling.
fn limit_memory(environment: &Environment, bytes_max: u64) -> ort::Result<()> {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let info = MemoryInfo::new(
        AllocationDevice::CPU,
        0,
        AllocatorType::Arena,
        MemoryType::Default,
    )?;
    let api = ort::api();
    // Grown by what is asked for (1), not to powers of two; the rest is as the library has it (-1).
    let (strategy, default) = (1, -1);
    let mut arena = ptr::null_mut();
    #[expect(unsafe_code, reason = "`ort` has no function for it")]
    // SAFETY: the pointers come from `ort`, which keeps what is behind them alive until after these calls,
    // and `arena` is written by the first call, read by the second, which copies it, and freed once.
    unsafe {
        let status = (api.CreateArenaCfg)(bytes_max, strategy, default, default, &raw mut arena);
        ort::Error::result_from_status(status)?;
        let environment = environment.ptr().cast_mut();
        let status = (api.CreateAndRegisterAllocator)(environment, info.ptr(), arena);
        (api.ReleaseArenaCfg)(arena);
        ort::Error::result_from_status(status)
    }
}
