//! `tussah status` with a daemon and without one.
#![cfg(unix)]

use serde_json::json;

use crate::{
    fixture::Sandbox,
    serve::{Daemon, deploy},
    worker::ECHO,
};

#[test]
fn status_says_how_the_daemon_is_and_that_there_is_none() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let daemon = Daemon::start(&sandbox, "alice");
    let job = daemon.submit(&json!({"model": "echo", "input": "x"}));
    daemon.wait_for(&job);
    let at = daemon.health.clone();
    let shown = sandbox.run(&["status", "--metrics", &at]).expect(0).stdout;
    for word in [
        "ready",
        "0 of 8 running",
        "1 done",
        "isolation",
        &job,
        "echo",
    ] {
        assert!(shown.contains(word), "no {word:?} in: {shown}");
    }
    let status = sandbox.run(&["status", "--metrics", &at, "--json"]);
    assert_eq!(status.expect(0).json()["state"], "ready");
    // What listens at all addresses is asked at loopback, whose name it answers to.
    let port = at.rsplit_once(':').unwrap().1;
    let everywhere = format!("0.0.0.0:{port}");
    sandbox.run(&["status", "--metrics", &everywhere]).expect(0);
    // Where the settings say another port, that one is asked.
    std::fs::write(
        sandbox.home().join("serve.toml"),
        format!("[listen]\nmetrics = \"{at}\"\n"),
    )
    .unwrap();
    sandbox.run(&["status"]).expect(0);
    daemon.terminate().expect(0);
    sandbox
        .run(&["status"])
        .expect(5)
        .says("no daemon answers at")
        .says("tussah serve");
}
