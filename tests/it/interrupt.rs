//! Ctrl-C: what was asked for ends, a receipt says so, and nothing is left behind.
#![cfg(unix)]

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, Command},
};

use crate::fixture::{Ended, MODEL, SAMPLE, Sandbox, repository, shared_target};

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

/// A build script that goes on until the test is over, whatever the signal.
const HOLD: &str = r#"
fn main() {
    std::fs::write("started", "").unwrap();
    while std::path::Path::new("hold").exists() {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}
"#;

#[test]
fn the_second_ctrl_c_kills() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_source();
    sandbox.file("plain/build.rs", HOLD);
    let hold = sandbox.file("plain/hold", "");
    let started = sandbox.work().join("plain/started");
    let mut build = sandbox.command(&["build", "plain"]);
    let mut child = build
        .env("CARGO_TARGET_DIR", shared_target())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    let wait = |what: &str, child: &mut Child, done: &mut dyn FnMut(&mut Child) -> bool| {
        while !done(child) {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    };
    wait("the build script does not start", &mut child, &mut |_| {
        started.exists()
    });
    let press = |child: &Child| {
        let mut kill = Command::new("kill");
        kill.args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
    };
    // The first asks: cargo is waited for, and it does not end.
    assert!(press(&child).success());
    assert!(child.try_wait().unwrap().is_none());
    // A second one that comes before the first was seen is the same one to the system.
    wait("Ctrl-C does not kill", &mut child, &mut |child| {
        press(child);
        child.try_wait().unwrap().is_some()
    });
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(2)
    );
    std::fs::remove_file(hold).unwrap();
    assert_eq!(sandbox.leftovers(), Vec::<PathBuf>::new());
}
