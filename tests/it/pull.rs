//! `tussah model pull`: what is printed, what is refused, and that a download goes on after a kill.

mod servers;
mod sources;

use std::{fs, path::PathBuf, process::Command};

use serde_json::json;

use crate::{
    fixture::{Ended, Sandbox},
    server::{Server, honest},
};
use servers::cut;

/// A small model's bytes, and its digests.
struct Model {
    bytes: Vec<u8>,
    digest: String,
    sha256: String,
}

fn model() -> Model {
    let sandbox = Sandbox::new();
    let made = sandbox.run(&["model", "random", "m", "--json"]).expect(0);
    let shown = sandbox.run(&["model", "show", "m", "--json"]).expect(0);
    let digest = made.json()["digest"].as_str().unwrap().to_owned();
    let blob = sandbox
        .home()
        .join("blobs")
        .join(&digest[7..9])
        .join(&digest[7..]);
    Model {
        bytes: fs::read(blob).unwrap(),
        digest,
        sha256: shown.json()["sha256"].as_str().unwrap().to_owned(),
    }
}

impl Sandbox {
    fn pull(&self, source: &str, more: &[&str]) -> Ended {
        self.run(&[&["model", "pull", "m", source], more].concat())
    }

    /// What downloads left behind.
    fn downloads(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home().join("downloads"));
        entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    fn is_clean(&self) {
        assert_eq!(self.blobs(), 0);
        assert_eq!(self.downloads(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_url_becomes_a_block_that_pins_it() {
    let (sandbox, model) = (Sandbox::new(), model());
    let bytes = model.bytes.clone();
    let server = Server::new(move |request| honest(request, &bytes, "\"a\""));
    let url = server.url("/models/m.gguf?download=true");
    let pulled = sandbox.pull(&url, &[]).expect(0);
    let block = format!(
        "[models.m]\ndigest = \"{}\"\nformat = \"gguf\"\n",
        model.digest
    );
    assert_eq!(pulled.stdout, block);
    assert_eq!(sandbox.downloads(), Vec::<PathBuf>::new());
    let shown = sandbox
        .run(&["model", "show", "m", "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["source"], json!(url));
    assert_eq!(shown["added_from"], "m.gguf");

    // What is here and pinned is not fetched again, under whatever name.
    let before = server.requests().len();
    for pin in [["--digest", &model.digest], ["--sha256", &model.sha256]] {
        let again = ["model", "pull", "again", &url, "--json", pin[0], pin[1]];
        let again = sandbox.run(&again).expect(0).json();
        assert_eq!(again["present"], true);
        assert_eq!(again["digest"], json!(model.digest));
        assert_eq!(
            again["toml"].as_str().unwrap(),
            block.replace("models.m]", "models.again]").trim_end()
        );
    }
    assert_eq!(server.requests().len(), before);
    // The first name keeps its model.
    let wrong = sandbox.run(&["model", "random", "m", "--seed", "9"]);
    wrong.expect(2).says("belongs to another model");
}

#[test]
fn any_other_file_than_the_pinned_one_is_refused() {
    let (sandbox, model) = (Sandbox::new(), model());
    let bytes = model.bytes.clone();
    let server = Server::new(move |request| honest(request, &bytes, "\"a\""));
    let url = server.url("/m.gguf");
    let zeros = "0".repeat(64);
    let blake3 = format!("blake3:{zeros}");
    for pin in [["--sha256", &zeros], ["--digest", &blake3]] {
        let ended = sandbox.pull(&url, &pin).expect(3).says(&zeros);
        ended.says("nothing was kept");
        sandbox.is_clean();
    }
    let both = ["--sha256", &model.sha256, "--digest", &blake3];
    sandbox.pull(&url, &both).expect(3);
    sandbox.is_clean();
    let right = ["--sha256", &model.sha256, "--digest", &model.digest];
    sandbox.pull(&url, &right).expect(0);
}

/// The download's file once it has so many bytes.
fn wait_for(sandbox: &Sandbox, bytes: usize) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let sizes = sandbox.downloads().into_iter().filter_map(|path| {
            let is_part = path.extension().is_some_and(|it| it == "part");
            is_part.then(|| path.metadata().map_or(0, |it| it.len()))
        });
        if sizes.max() >= Some(bytes as u64) {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the download stands still"
        );
        std::thread::yield_now();
    }
}

/// A server that sends half of the file and then falls silent, but only to the first.
fn stalls(file: Vec<u8>) -> Server {
    Server::new(move |request| match request.number {
        0 => cut(&file, file.len()).header("ETag", "\"a\"").holds(),
        _ => honest(request, &file, "\"a\""),
    })
}

#[cfg(unix)]
#[test]
fn a_killed_download_goes_on_where_it_ended() {
    for signal in ["-KILL", "-INT"] {
        let (sandbox, model) = (Sandbox::new(), model());
        let half = model.bytes.len() / 2;
        let server = stalls(model.bytes.clone());
        let url = server.url("/m.gguf");
        let child = sandbox
            .command(&["model", "pull", "m", &url])
            .spawn()
            .unwrap();
        wait_for(&sandbox, half);
        // Meanwhile nobody else writes the same file.
        sandbox
            .pull(&url, &[])
            .expect(5)
            .says("another tussah is downloading");
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let ended = Ended::from(child.wait_with_output().unwrap());
        if signal == "-INT" {
            ended.expect(130).says("are kept");
        }
        assert_eq!(sandbox.blobs(), 0);
        let pulled = sandbox.pull(&url, &[]).expect(0);
        assert!(pulled.stdout.contains(&model.digest));
        assert_eq!(server.requests()[1].from(), Some(half));
        assert_eq!(sandbox.downloads(), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_is_already_whole_is_not_sent_again() {
    let (sandbox, model) = (Sandbox::new(), model());
    let bytes = model.bytes.clone();
    let server = Server::new(move |request| honest(request, &bytes, "\"a\""));
    let url = server.url("/m.gguf");
    sandbox
        .run(&["model", "random", "m", "--seed", "5"])
        .expect(0);
    let taken = sandbox.pull(&url, &[]).expect(2);
    taken.says("belongs to another model");
    assert_eq!(sandbox.blobs(), 1);
    sandbox.run(&["model", "pull", "other", &url]).expect(0);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].from(), Some(model.bytes.len()));
    assert_eq!(sandbox.downloads(), Vec::<PathBuf>::new());
}

#[test]
fn sources_that_are_none() {
    let sandbox = Sandbox::new();
    for (source, says) in [
        ("http://example.invalid/m.gguf", "without https"),
        ("ftp://example.invalid/m.gguf", "wanted hf:"),
        ("https://", "names no host"),
        ("hf:only-owner", "wanted hf:OWNER/REPO"),
        ("pypi:--index-url", "is no package's name"),
        ("missing.gguf", "missing.gguf"),
        ("file:missing.gguf", "missing.gguf"),
        (".", "."),
    ] {
        let ended = sandbox.pull(source, &[]);
        assert_eq!(ended.code, 2, "{source}: {ended:?}");
        assert!(ended.stderr.contains(says), "{source}: {ended:?}");
    }
    assert_eq!(sandbox.blobs(), 0);
    let json = sandbox
        .pull("http://127.0.0.1:1/m.gguf", &["--json"])
        .expect(5);
    assert_eq!(json.json()["error"]["exit_code"], 5);
    assert_eq!(json.stderr, "");
}

#[test]
fn a_file_is_a_source_too() {
    let (sandbox, model) = (Sandbox::new(), model());
    let file = sandbox.file("m.gguf", &model.bytes);
    for source in ["m.gguf".to_owned(), format!("file:{}", file.display())] {
        let pulled = sandbox
            .pull(&source, &["--digest", &model.digest])
            .expect(0);
        assert!(pulled.stdout.contains(&model.digest));
        sandbox.run(&["model", "remove", "m"]).expect(0);
    }
    let zeros = "0".repeat(64);
    sandbox.pull("m.gguf", &["--sha256", &zeros]).expect(3);
    sandbox.is_clean();
}
