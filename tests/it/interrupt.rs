//! Ctrl-C: what was asked for ends, a receipt says so, and nothing is left behind.
#![cfg(unix)]

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, Command},
};

use crate::fixture::{Ended, MODEL, SAMPLE, Sandbox, repository};

/// Waits for the first byte of output, then presses Ctrl-C.
fn interrupt(mut child: Child) -> Ended {
    let mut first = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let mut ended = Ended::from(child.wait_with_output().unwrap());
    ended.stdout.insert(0, char::from(first[0]));
    ended
}

#[test]
fn generation_stops_with_130() {
    let Some(sandbox) = Sandbox::with_model() else {
        return;
    };
    let arguments = [
        "model",
        "generate",
        MODEL,
        "--prompt",
        "Once upon a time",
        "--raw",
        "--max-tokens",
        "4000",
    ];
    let ended = interrupt(sandbox.command(&arguments).spawn().unwrap());
    ended.expect(130);
}

#[test]
fn a_cancelled_job_has_a_receipt_that_says_so() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let manifest = sandbox.summarize();
    let article = repository().join(SAMPLE);
    let article = article.to_str().unwrap();
    let manifest = manifest.to_str().unwrap();
    let arguments = ["run", manifest, "--input", article, "--receipt", "r.cbor"];
    let ended = interrupt(sandbox.command(&arguments).spawn().unwrap());
    ended.expect(130).says("cancelled");
    let shown = sandbox
        .run(&["receipt", "show", "r.cbor", "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["consensus"]["exit"]["kind"], "cancelled");
    assert_eq!(shown["consensus"]["determinism"], "not-rerunnable");
    sandbox
        .run(&["audit", "r.cbor", "--input", article])
        .expect(2)
        .says("not-rerunnable: it can be neither confirmed nor refuted");
    assert_eq!(sandbox.leftovers(), Vec::<PathBuf>::new());
}
