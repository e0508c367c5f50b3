//! The code cache: used when it is authentic, never when it is not, and never in the way.

use std::{fs, path::Path, sync::Arc};

use tussah_runtime::{Runtime, RuntimeConfig, run_job};

use crate::fixture::{self, LIMITS};

const NULL: &str = "(func $run (param i32 i32) (result i32) (i32.const 0))";

/// Runs the null job on a new runtime; what it was told of code.
fn told(folder: &Path, key: [u8; 32]) -> Vec<String> {
    let config = RuntimeConfig {
        cache_dir: Some(folder.to_owned()),
        cache_key: key,
        ..fixture::config()
    };
    let runtime = Runtime::new(config).expect("the engine starts");
    let heard = Arc::new(fixture::Heard::default());
    let job = fixture::submit(fixture::component(NULL), LIMITS, b"");
    let run = fixture::run_with(Arc::clone(&heard) as _);
    let result = fixture::block_on(run_job(&runtime, job, run, &fixture::key(2)));
    assert_eq!(fixture::ended(result), r#"done [exact] """#);
    heard.0.lock().expect("the run is over").clone()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn code_is_compiled_once() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(told(folder.path(), [7; 32]), ["compiled, cached: false"]);
    assert_eq!(told(folder.path(), [7; 32]), ["compiled, cached: true"]);
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn code_that_was_changed_or_made_with_another_key_is_not_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    told(folder.path(), [7; 32]);
    let file = files(folder.path()).remove(0);
    let good = fs::read(&file).expect("the file");
    for at in [0, 31, 32, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, bad).expect("written");
        let told = told(folder.path(), [7; 32]);
        assert!(told[0].starts_with("warning compiled code in"), "{told:?}");
        assert_eq!(told[1], "compiled, cached: false");
    }
    for length in [0, 31, 32, 33, good.len() - 1] {
        fs::write(&file, &good[..length]).expect("written");
        assert_eq!(told(folder.path(), [7; 32])[1], "compiled, cached: false");
    }
    assert_eq!(told(folder.path(), [7; 32]), ["compiled, cached: true"]);
    assert_eq!(told(folder.path(), [8; 32])[1], "compiled, cached: false");
}

#[test]
fn a_cache_that_cannot_be_written_fails_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").expect("written");
    let told = told(&blocked.join("cache"), [7; 32]);
    // Neither reading nor writing works, and both are told.
    let [read, kept, compiled] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(read.contains("could not be read"), "{read}");
    assert!(kept.contains("could not be kept in"), "{kept}");
    assert_eq!(compiled, "compiled, cached: false");
    assert_eq!(files(folder.path()), [blocked]);
}
