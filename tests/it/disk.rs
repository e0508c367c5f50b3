//! A full disk: a clear error, and nothing left behind.
#![cfg(unix)]

use std::{fs, path::Path, process::Command};

use crate::fixture::{Ended, Sandbox, tussah};

/// Runs the binary where no file can have more than so many KiB, which writes meet as they
/// meet a full disk. A small tmpfs would need rights that tests do not have.
fn run_limited(sandbox: &Sandbox, kib: u32, arguments: &str) -> Ended {
    // Ignored, the signal becomes an error of `write`.
    let script = format!(
        "trap '' XFSZ; ulimit -f {kib}; exec '{}' {arguments}",
        tussah().display()
    );
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .current_dir(sandbox.work())
        .env("TUSSAH_HOME", sandbox.home());
    shell.output().unwrap().into()
}

#[test]
fn a_model_that_does_not_fit_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file("model.gguf", vec![7; 3 << 20]);
    run_limited(&sandbox, 1024, "model add m model.gguf")
        .expect(5)
        .says("no space left")
        .says("help:");
    assert_eq!(sandbox.blobs(), 0);
    assert!(!sandbox.home().join("models/m.toml").exists());
}

#[test]
fn code_that_cannot_be_cached_is_no_obstacle() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = sandbox.plain_job();
    let module = manifest.with_file_name("module.wasm");
    // Room for the module's own blob, and less than its native code takes.
    let kib = fs::metadata(module).unwrap().len().div_ceil(1024) + 4;
    let arguments = format!("run '{}' --receipt r.cbor", manifest.display());
    run_limited(&sandbox, u32::try_from(kib).unwrap(), &arguments).expect(0);
    assert_eq!(sandbox.leftovers(), Vec::<std::path::PathBuf>::new());
    assert_eq!(whole_files(&sandbox.home().join("cache")), 0);
    sandbox.run(&["run", manifest.to_str().unwrap()]).expect(0);
    assert_eq!(whole_files(&sandbox.home().join("cache")), 1);
}

#[test]
fn a_receipt_that_does_not_fit_is_an_error() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let manifest = sandbox.plain_job();
    let arguments = [
        "run",
        manifest.to_str().unwrap(),
        "--receipt",
        "/dev/full/r.cbor",
    ];
    sandbox.run(&arguments).expect(2).says("/dev/full/r.cbor");
}

fn whole_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| {
            if entry.path().is_dir() {
                whole_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}
