//! The real models, where this machine has them.
//! `TUSSAH_TEST_SMOLLM2`, `TUSSAH_TEST_GEMMA3` and `TUSSAH_TEST_MINILM` name the files (the last may name
//! the model's folder), or `TUSSAH_HOME` (default: the user's data folder) has the blobs that
//! `models/smollm2.toml`, `models/gemma3.toml` and `models/minilm.toml` name. Without one a test says so
//! and returns; under `REQUIRE_MODEL=1` it fails.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use tussah_inference::archive::{Archive, write_folder};
use tussah_inference::{Engine, LoadOptions, Model, SimdLevel};

fn home() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(home) = set("TUSSAH_HOME") {
        return Some(home.into());
    }
    let user = |name: &str, rest: &str| set(name).map(|home| PathBuf::from(home).join(rest));
    if cfg!(windows) {
        user("APPDATA", "tussah")
    } else if cfg!(target_os = "macos") {
        user("HOME", "Library/Application Support/tussah")
    } else {
        user("XDG_DATA_HOME", "tussah").or_else(|| user("HOME", ".local/share/tussah"))
    }
}

/// A model that has goldens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Real {
    /// SmolLM2 135M Instruct, Q4_1.
    SmolLm2,
    /// Gemma 3 270M, Q4_K_M.
    Gemma3,
}

impl Real {
    /// The variable that names its file, and its name in a home.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::SmolLm2 => ("TUSSAH_TEST_SMOLLM2", "smollm2"),
            Self::Gemma3 => ("TUSSAH_TEST_GEMMA3", "gemma3"),
        }
    }
}

fn registered(name: &str) -> Option<PathBuf> {
    let home = home()?;
    let entry = std::fs::read_to_string(home.join(format!("models/{name}.toml"))).ok()?;
    let hex = entry.split("blake3:").nth(1)?.get(..64)?;
    let path = home.join("blobs").join(&hex[..2]).join(hex);
    path.is_file().then_some(path)
}

/// A model's file, or `None` with a line that says why.
pub(crate) fn path(model: Real) -> Option<PathBuf> {
    let (variable, name) = model.names();
    find(variable, name)
}

fn find(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let found = named.or_else(|| registered(name));
    if found.is_none() {
        assert!(
            std::env::var_os("REQUIRE_MODEL").is_none_or(|value| value != "1"),
            "REQUIRE_MODEL=1, but there is no {name}: run `cargo xtask setup` or set {variable}"
        );
        println!("skipped: no {name} here; `cargo xtask setup` fetches it");
    }
    found
}

/// all-MiniLM-L6-v2; `None` where this machine does not have it.
pub(crate) fn minilm(engine: Engine, simd: SimdLevel, threads: usize) -> Option<Model> {
    let path = find("TUSSAH_TEST_MINILM", "minilm")?;
    let options = LoadOptions {
        engine,
        threads,
        simd,
        ..LoadOptions::default()
    };
    if !path.is_dir() {
        return Some(Model::open(&path, &options, &mut |_| {}).unwrap());
    }
    let mut bytes = Vec::new();
    write_folder(&path, &mut bytes).unwrap();
    let archive = Archive::from_bytes(bytes).unwrap();
    Some(Model::from_archive(archive, &options, &mut |_| {}).unwrap())
}

/// Loads a model, once for each engine, level and number of threads.
pub(crate) fn real(
    model: Real,
    engine: Engine,
    simd: SimdLevel,
    threads: usize,
) -> Option<Arc<Model>> {
    type Loaded = Vec<(Real, LoadOptions, Arc<Model>)>;
    static LOADED: OnceLock<Mutex<Loaded>> = OnceLock::new();
    let path = path(model)?;
    let options = LoadOptions {
        engine,
        threads,
        simd,
        ..LoadOptions::default()
    };
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap();
    let have = loaded
        .iter()
        .find(|(which, have, _)| *which == model && *have == options);
    if let Some((_, _, model)) = have {
        return Some(Arc::clone(model));
    }
    let opened = Arc::new(Model::open(&path, &options, &mut |_| {}).unwrap());
    loaded.push((model, options, Arc::clone(&opened)));
    Some(opened)
}

/// SmolLM2.
pub(crate) fn smollm2(engine: Engine, simd: SimdLevel, threads: usize) -> Option<Arc<Model>> {
    real(Real::SmolLm2, engine, simd, threads)
}
