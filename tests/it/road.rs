//! From an article to a receipt that holds, by the real model.

use std::{fs, path::Path};

use crate::fixture::{Ended, SAMPLE, Sandbox, repository};

#[test]
fn an_article_is_summarized_and_audited() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let manifest = sandbox.summarize();
    let manifest = manifest.to_str().unwrap();
    let article = repository().join(SAMPLE);
    let article = article.to_str().unwrap();
    let run = |binary: &Path, threads: &str| {
        let arguments = [
            "run",
            manifest,
            "--input",
            article,
            "--threads",
            threads,
            "--json",
        ];
        Ended::from(sandbox.command_of(binary, &arguments).output().unwrap())
            .expect(0)
            .json()
    };
    let debug = crate::fixture::tussah();
    let first = run(debug, "1");
    let mut same = vec![run(debug, "2"), run(debug, "2")];
    if let Some(release) = std::env::var_os("TUSSAH_RELEASE_BIN") {
        same.push(run(Path::new(&release), "2"));
    }
    for other in same {
        assert_eq!(first["output"], other["output"]);
        assert_eq!(first["consensus_digest"], other["consensus_digest"]);
    }
    assert!(
        first["output"].as_str().unwrap().contains('.'),
        "{}",
        first["output"]
    );

    let arguments = ["run", manifest, "--input", article, "--receipt", "r.cbor"];
    let streamed = sandbox.run(&arguments).expect(0);
    assert_eq!(streamed.stdout.as_str(), first["output"].as_str().unwrap());
    sandbox.run(&["receipt", "verify", "r.cbor"]).expect(0);
    // Manifest and module come from the store by now.
    fs::remove_file(sandbox.work().join("module.wasm")).unwrap();
    fs::remove_file(sandbox.work().join("summarize.toml")).unwrap();
    let audit = sandbox
        .run(&["audit", "r.cbor", "--input", article, "--json"])
        .expect(0)
        .json();
    assert_eq!(audit["reproduced"], true);
    assert_eq!(audit["consensus_digest"], first["consensus_digest"]);

    // Another model under the same name is named as what differs.
    let digest = first["receipt"]["consensus"]["models"]["smollm2"]
        .as_str()
        .unwrap();
    let blob = sandbox
        .home()
        .join("blobs")
        .join(&digest[7..9])
        .join(&digest[7..]);
    let mut other = fs::read(blob).unwrap();
    let last = other.len() - 64;
    other[last] ^= 1; // A weight: the file is still a model.
    sandbox.file("other.gguf", other);
    let arguments = [
        "audit",
        "r.cbor",
        "--input",
        article,
        "--model",
        "smollm2=other.gguf",
    ];
    let ended = sandbox.run(&arguments).expect(3);
    assert!(ended.stdout.contains("models.smollm2 differs"), "{ended:?}");
}

#[test]
fn an_empty_article_is_the_jobs_own_error() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let manifest = sandbox.summarize();
    let ended = sandbox.run(&["run", manifest.to_str().unwrap()]);
    ended.expect(1).says("the article is empty");
}
