//! Packed weights between two loads of a model: kept, taken when they are whole, and never taken on trust.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::fixture::{MODEL, Sandbox};
use crate::serve::Daemon;

/// The files of a cache below a sandbox's home.
fn packed(sandbox: &Sandbox, cache: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(sandbox.home().join(cache))
        .into_iter()
        .flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_second_command_takes_what_the_first_has_packed() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let generate = || {
        let options = ["--prompt", "Why is the sky blue?", "--max-tokens", "8"];
        let command = [
            &["model", "generate", MODEL, "--device", "cpu"],
            &options[..],
        ];
        let ended = sandbox.run(&command.concat()).expect(0);
        (ended.stdout, ended.stderr)
    };
    let (text, quiet) = generate();
    assert!(!quiet.contains("packed weights"), "{quiet}");
    let files = packed(&sandbox, "cache/weights");
    let [file] = &files[..] else {
        panic!("{files:?}")
    };
    let written = fs::read(file).unwrap();

    // The next one leaves the file as it is.
    let (again, quiet) = generate();
    assert_eq!((&again, quiet.contains("packed weights")), (&text, false));
    assert!(fs::read(file).unwrap() == written);

    // A flipped bit of a weight is found, said, and mended.
    let mut damaged = written.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(file, damaged).unwrap();
    let (mended, said) = generate();
    assert_eq!(mended, text);
    assert!(said.contains("are damaged; packing again"), "{said}");
    assert!(fs::read(file).unwrap() == written);
}

#[test]
fn the_worker_of_serve_keeps_its_own() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    // A worker follows no link that leads out of its home.
    for folder in fs::read_dir(sandbox.home().join("blobs")).unwrap() {
        for blob in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            if path.is_symlink() {
                let file = path.canonicalize().unwrap();
                fs::remove_file(&path).unwrap();
                fs::copy(file, &path).unwrap();
            }
        }
    }
    let manifest = sandbox.summarize();
    let deploy = [
        "deploy",
        manifest.to_str().unwrap(),
        "--as",
        "short",
        "--shape",
        "raw",
    ];
    sandbox.run(&deploy).expect(0);
    let article = "The ferry to the island leaves at nine. It is blue.";
    let summary = |name: &str, more: &[&str]| {
        let daemon = Daemon::start_with(&sandbox, name, more);
        let job = daemon.submit(&json!({"model": "short", "input": article}));
        let ended = daemon.wait_for(&job);
        assert_eq!(ended["status"], "done", "{ended}");
        let said = daemon.terminate().expect(0).stderr;
        assert!(!said.contains("packed weights"), "{said}");
        ended["output"].clone()
    };
    let none = summary("alice", &["--weights-cache-gb", "0"]);
    assert_eq!(packed(&sandbox, "cache/serve/weights").len(), 0);
    assert_eq!(summary("bob", &[]), none);
    let files = packed(&sandbox, "cache/serve/weights");
    assert_eq!(files.len(), 1, "{files:?}");
    let written = fs::metadata(&files[0]).unwrap().len();
    assert_eq!(summary("carol", &[]), none);
    assert_eq!(packed(&sandbox, "cache/serve/weights"), files);
    assert_eq!(fs::metadata(&files[0]).unwrap().len(), written);
    // Strangers' jobs could have written there: this host's own commands keep theirs elsewhere.
    assert_eq!(packed(&sandbox, "cache/weights").len(), 0);
}
