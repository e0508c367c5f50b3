//! The real model, where this machine has it.
//! `TUSSAH_TEST_SMOLLM2` names the file, or `TUSSAH_HOME` (default: the user's data folder) has the
//! blob that `models/smollm2.toml` names. Without it a test says so and returns; under
//! `REQUIRE_MODEL=1` it fails.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

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

fn registered() -> Option<PathBuf> {
    let home = home()?;
    let entry = std::fs::read_to_string(home.join("models/smollm2.toml")).ok()?;
    let hex = entry.split("blake3:").nth(1)?.get(..64)?;
    let path = home.join("blobs").join(&hex[..2]).join(hex);
    path.is_file().then_some(path)
}

/// The model's file, or `None` with a line that says why.
pub(crate) fn smollm2_path() -> Option<PathBuf> {
    let named = std::env::var_os("TUSSAH_TEST_SMOLLM2").map(PathBuf::from);
    let found = named.or_else(registered);
    if found.is_none() {
        assert!(
            std::env::var_os("REQUIRE_MODEL").is_none_or(|value| value != "1"),
            "REQUIRE_MODEL=1, but there is no SmolLM2: run `cargo xtask setup` or set TUSSAH_TEST_SMOLLM2"
        );
        println!("skipped: no SmolLM2 here; `cargo xtask setup` fetches it");
    }
    found
}

/// Loads the model, once for each engine, level and number of threads.
pub(crate) fn smollm2(engine: Engine, simd: SimdLevel, threads: usize) -> Option<Arc<Model>> {
    type Loaded = Vec<(LoadOptions, Arc<Model>)>;
    static LOADED: OnceLock<Mutex<Loaded>> = OnceLock::new();
    let path = smollm2_path()?;
    let options = LoadOptions {
        engine,
        threads,
        simd,
    };
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap();
    if let Some((_, model)) = loaded.iter().find(|(have, _)| *have == options) {
        return Some(Arc::clone(model));
    }
    let model = Arc::new(Model::open(&path, &options, &mut |_| {}).unwrap());
    loaded.push((options, Arc::clone(&model)));
    Some(model)
}
