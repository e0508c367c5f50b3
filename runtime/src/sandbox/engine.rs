//! The wasmtime engine and its determinism settings, each with its why.
//!
//! In: how many jobs at once, how much memory each. Out: a [`Runtime`]: the engine, the
//! linker with everything a guest may import, and the code cache. Nothing here depends on
//! a job.

use std::{path::PathBuf, sync::Arc};

use tussah_manifest::{Digest, Domain};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    component::Linker,
};

use super::{
    Prepared,
    compile::CodeCache,
    guest::{self, Guest},
    imports, preview1,
};

/// The wasm stack of a guest, in bytes. Overflowing it is a trap.
const WASM_STACK_BYTES: usize = 512 * 1024;
/// The native stack on which a guest and the host calls it makes run.
const NATIVE_STACK_BYTES: usize = 2 * 1024 * 1024;
/// The largest module, in bytes: compiling takes memory in proportion.
const MODULE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The largest table, in elements; a Rust guest with LTO has some hundreds.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Memory of a slot that stays resident between two jobs, zeroed instead of unmapped.
const KEEP_RESIDENT_BYTES: usize = 64 * 1024;

/// What decides a result besides the module: one line each, in the profile of every receipt.
/// Whatever is changed in [`engine_config`] and can change a result changes a line here.
const SETTINGS: &[&str] = &[
    "async-host-calls",
    "fuel",
    "memory-growth-over-the-limit-traps",
    "nan-canonicalization",
    "wasm-stack-524288",
];

/// Where guests' memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// Reserved at start for so many jobs at once: starting a job takes microseconds.
    Pooled {
        /// Jobs at once; one more waits or is refused.
        jobs_max: u32,
    },
    /// Mapped for each job: no reservation, some more microseconds a start.
    OnDemand,
}

/// The most bytes of compiled code that are kept, unless somebody says otherwise: code of some
/// thousand modules.
pub const CACHE_BYTES_MAX: u64 = 4_000_000_000;

/// How a [`Runtime`] is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where guests' memory comes from.
    pub allocation: Allocation,
    /// The most linear memory a job may ask for, in bytes; at most 4 GiB.
    pub memory_bytes_max: u64,
    /// Where compiled code is kept; `None` compiles every module anew.
    pub cache_dir: Option<PathBuf>,
    /// The most bytes of compiled code that are kept there: what was used least recently makes
    /// room.
    pub cache_bytes_max: u64,
    /// The key under which compiled code is authenticated: secret, and of this host alone.
    pub cache_key: [u8; 32],
    /// What this host calls itself in receipts, such as `tussah 0.1.0`.
    pub host_build: String,
    /// What does the arithmetic of inference, such as `exact/0`: part of the profile.
    pub arithmetic: String,
}

/// The most that a job can ask of this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitsOffered {
    pub(crate) memory_bytes_max: u64,
    pub(crate) table_elements_max: u64,
    pub(crate) module_bytes_max: u64,
}

/// Why a runtime could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine refused its configuration, or could not reserve its memory.
    #[error("the wasm engine could not be set up")]
    Engine(#[source] wasmtime::Error),
}

/// The engine with all that jobs have in common; shared by all jobs of a process.
pub struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
    pub(crate) preview1_linker: wasmtime::Linker<Guest>,
    pub(crate) cache: Arc<CodeCache>,
    pub(crate) prepared: Prepared,
    pub(crate) config: RuntimeConfig,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The cache key is a secret.
        formatter
            .debug_struct("Runtime")
            .field("allocation", &self.config.allocation)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Sets up the engine. Takes some milliseconds; with [`Allocation::Pooled`] it reserves
    /// address space, not memory.
    ///
    /// # Errors
    /// [`RuntimeError`] if the engine cannot be had on this machine.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let engine = Engine::new(&engine_config(&config)).map_err(RuntimeError::Engine)?;
        let linker = guest::linker(&engine).map_err(RuntimeError::Engine)?;
        let preview1_linker = preview1::linker(&engine).map_err(RuntimeError::Engine)?;
        let cache = Arc::new(CodeCache::new(
            config.cache_dir.clone(),
            config.cache_bytes_max,
            &config.cache_key,
            &engine,
        ));
        Ok(Self {
            engine,
            linker,
            preview1_linker,
            cache,
            prepared: Prepared::default(),
            config,
        })
    }

    pub(crate) fn limits_offered(&self) -> LimitsOffered {
        LimitsOffered {
            memory_bytes_max: self.config.memory_bytes_max,
            table_elements_max: TABLE_ELEMENTS_MAX as u64,
            module_bytes_max: MODULE_BYTES_MAX,
        }
    }

    /// The wasmtime engine, for benchmarks that compare with it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// The name and version of the wasm engine, as in receipts. Fuel depends on it.
pub(crate) const WASM_ENGINE: &str = "wasmtime 48.0.8";

/// The settings and features that are on, for the profile.
pub(crate) fn features() -> impl Iterator<Item = &'static str> {
    imports::FEATURE_NAMES.iter().chain(SETTINGS).copied()
}

/// The digest of all settings that can change a result; the same on every machine.
pub(crate) fn config_digest() -> Digest {
    let mut text = String::from(WASM_ENGINE);
    for feature in features() {
        text.push('\n');
        text.push_str(feature);
    }
    Digest::derive(Domain::EngineConfig, text.as_bytes())
}

fn engine_config(config: &RuntimeConfig) -> Config {
    let mut engine = Config::new();
    engine
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed);
    // Deterministic metering; a limit on time alone would end runs at different places.
    engine.consume_fuel(true);
    // The bits of a NaN are the one thing in which conforming engines may differ.
    engine.cranelift_nan_canonicalization(true);
    // Everything off first: a new release of the engine must not turn anything on by itself.
    engine.wasm_features(wasmtime::WasmFeatures::all(), false);
    engine.wasm_features(imports::FEATURES, true);
    engine
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(NATIVE_STACK_BYTES);
    // Memory images are mapped, not copied: a job starts without touching its data segments.
    engine.memory_init_cow(true);
    if let Allocation::Pooled { jobs_max } = config.allocation {
        engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config, jobs_max)));
    }
    engine
}

fn pool(config: &RuntimeConfig, jobs_max: u32) -> PoolingAllocationConfig {
    /// A component made by Rust's linker has three core instances and two tables.
    const CORE_INSTANCES: u32 = 8;
    const TABLES: u32 = 4;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(jobs_max)
        .total_core_instances(jobs_max * CORE_INSTANCES)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_memories(jobs_max)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .total_tables(jobs_max * TABLES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS_MAX)
        .total_stacks(jobs_max)
        .max_memory_size(usize::try_from(config.memory_bytes_max).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    pool
}
