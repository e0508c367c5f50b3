//! `tussah serve` and a worker that hangs, a drain that takes too long, jobs that ask for too much.
#![cfg(target_os = "linux")]

use std::fs;

use serde_json::json;

use crate::{
    fixture::Sandbox,
    serve::{Daemon, deploy, signal},
    worker::{ECHO, SPIN},
};

#[test]
fn a_hung_worker_is_started_anew_and_its_job_ends_honestly() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    deploy(&sandbox, "spin", SPIN);
    let daemon = Daemon::start_with(&sandbox, "alice", &["--hung-s", "2"]);
    let job = daemon.submit(&json!({"model": "spin", "input": "x"}));
    daemon.heard_of(&job);
    let worker = daemon.process("serve-worker").expect("there is a worker");
    // It has no terminal, and leads a session of its own.
    let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
    let (session, terminal) = (fields[4], fields[5]);
    assert_eq!((session, terminal), (&*worker.to_string(), "0"), "{stat}");
    let stderr = fs::read_link(format!("/proc/{worker}/fd/2")).unwrap();
    assert!(stderr.to_string_lossy().starts_with("pipe:"), "{stderr:?}");

    // Neither process has a file open that is not its business.
    let signer = daemon.process("serve-signer").expect("there is a signer");
    let home = sandbox.home().canonicalize().unwrap();
    for (process, may) in [
        (worker, &["blobs", "cache/serve"][..]),
        (signer, &["serve/ledger"]),
    ] {
        let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let open = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
        for file in open.filter(|file| file.starts_with(&home)) {
            let inside = file.strip_prefix(&home).unwrap().to_str().unwrap();
            let is_ours = may.iter().any(|begin| inside.starts_with(begin));
            assert!(is_ours, "{process} has {inside} open");
        }
    }

    signal("-STOP", worker);
    assert_eq!(daemon.wait_for(&job)["status"], "host-failure");
    let receipt = daemon.verified(&sandbox, &job);
    assert_eq!(receipt["consensus"]["price_nanograms"], "0");
    let next = daemon.submit(&json!({"model": "echo", "input": "again"}));
    assert_eq!(daemon.wait_for(&next)["status"], "done");
    let ended = daemon.terminate().expect(0);
    ended.says("the worker has not answered for 2 seconds");
}

#[test]
fn a_job_that_outlasts_the_drain_ends_with_a_receipt_and_the_exit_code_says_so() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "spin", SPIN);
    let daemon = Daemon::start_with(&sandbox, "alice", &["--drain-s", "1"]);
    let job = daemon.submit(&json!({"model": "spin", "input": "x"}));
    daemon.heard_of(&job);
    let ended = daemon.terminate().expect(4);
    ended.says("1 jobs did not end within 1 s");

    let daemon = Daemon::start(&sandbox, "bob");
    let view = daemon.get(&format!("/v1/jobs/{job}")).expect(200).json();
    assert_eq!(view["status"], "host-failure", "{view}");
    let message = view["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the provider shut down"), "{view}");
    let receipt = daemon.verified(&sandbox, &job);
    assert_eq!(receipt["consensus"]["price_nanograms"], "0");
    daemon.terminate().expect(0);
}

#[test]
fn a_manifest_that_asks_for_more_than_the_provider_allows_is_refused_by_name() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let daemon = Daemon::start_with(&sandbox, "alice", &["--wall-max-s", "599"]);
    let body = json!({"model": "echo", "input": "x"}).to_string();
    let refused = daemon
        .ask("POST", "/v1/jobs", &body, "*/*")
        .expect(400)
        .json();
    assert_eq!(refused["error"]["code"], "limit_too_high", "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    let expected = "limits.wall_ms_max is 600000 ms, and this provider allows 599000 ms";
    assert!(message.contains(expected), "{message}");
    daemon.terminate().expect(0);

    // A model that is not there cannot be offered.
    let unknown = ["serve", "--allow-model", "no-such-model"];
    sandbox.run(&unknown).expect(2).says("no-such-model");
}
