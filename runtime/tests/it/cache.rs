//! The code cache: used when it is authentic, never when it is not, and never in the way.

use std::{fs, path::Path, sync::Arc};

use tussah_runtime::{CACHE_BYTES_MAX, Runtime, RuntimeConfig, run_job};

use crate::fixture::{self, LIMITS};

const NULL: &str = "(func $run (param i32 i32) (result i32) (i32.const 0))";

/// Runs the null job on a new runtime; what it was told of code.
fn told(folder: &Path, key: [u8; 32]) -> Vec<String> {
    told_of(NULL, folder, key, CACHE_BYTES_MAX)
}

/// The same of another job that does nothing, with a cache of so many bytes.
fn told_of(wat: &str, folder: &Path, key: [u8; 32], cache_bytes_max: u64) -> Vec<String> {
    let config = RuntimeConfig {
        cache_dir: Some(folder.to_owned()),
        cache_bytes_max,
        cache_key: key,
        ..fixture::config()
    };
    let runtime = Runtime::new(config).expect("the engine starts");
    let heard = Arc::new(fixture::Heard::default());
    let job = fixture::submit(fixture::component(wat), LIMITS, b"");
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
fn what_was_used_least_recently_makes_room_for_other_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let job = |number: u8| {
        format!(
            "(func $run (param i32 i32) (result i32) (drop (i32.const {number})) (i32.const 0))"
        )
    };
    let cached = |number: u8, bytes_max: u64| {
        let told = told_of(&job(number), folder, [7; 32], bytes_max);
        assert_eq!(told.len(), 1, "{told:?}");
        told[0] == "compiled, cached: true"
    };
    assert!(!cached(1, CACHE_BYTES_MAX));
    // What a process that was killed left behind goes as well.
    let file = files(folder).remove(0);
    let one = fs::metadata(&file).expect("the file").len();
    let left = folder.join(".1-0.part");
    fs::write(&left, vec![0; 1000]).expect("written");
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let old = |path: &Path, ago: u32| {
        let file = fs::File::options()
            .write(true)
            .open(path)
            .expect("it is there");
        file.set_modified(hour_ago - std::time::Duration::from_secs(ago.into()))
            .expect("set");
    };
    old(&left, 2);
    // Room for three, and a bit: sizes differ by some bytes.
    let bytes_max = one * 3 + one / 2;
    assert!(!cached(2, bytes_max) && !cached(3, bytes_max));
    // They were used long ago, in this order.
    old(&file, 1);
    let others: Vec<_> = files(folder)
        .into_iter()
        .filter(|other| *other != file)
        .collect();
    for other in others.iter().filter(|other| **other != left) {
        old(other, 0);
    }
    // The first is used again, and one of the others makes room for the fourth.
    assert!(cached(1, bytes_max));
    assert!(!cached(4, bytes_max));
    assert!(cached(1, bytes_max) && cached(4, bytes_max));
    assert!(!left.exists());
    assert_eq!(files(folder).len(), 3);
    let bytes: u64 = files(folder)
        .iter()
        .map(|file| fs::metadata(file).expect("a file").len())
        .sum();
    assert!(bytes <= bytes_max, "{bytes}");
    // Code for which there is no room at all runs, and is not kept.
    let told = told_of(&job(5), folder, [7; 32], one / 2);
    assert!(told[0].contains("could not be kept"), "{told:?}");
    assert_eq!(files(folder).len(), 3);
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
