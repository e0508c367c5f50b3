//! A channel whose client and provider are one host, with a daemon and `tussah run` beside it.

use serde_json::json;

use super::{Client, PRICE, post, wait_until_seen};
use crate::{
    bank::Bank,
    fixture::Sandbox,
    serve::{Daemon, signal},
    worker::{SPIN, component},
};

#[test]
fn a_run_leaves_the_places_of_jobs_that_the_daemon_accepted() {
    let sandbox = Sandbox::new();
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let module = sandbox.file("spin.wasm", component(SPIN));
    let module = module.to_str().unwrap();
    let deploy = ["deploy", module, "--as", "spin", "--shape", "raw", "--json"];
    let spin = sandbox.run(&deploy).expect(0).json();
    let opened = bank.json(&["channel", "open", "main", "--deposit", "5"]);
    let address = opened["raw_address"].as_str().unwrap();
    let provider = bank.json(&["provider", "key"])["key"].clone();
    let provider = provider.as_str().unwrap();
    let options = ["--chain", &bank.chain, "--price-base", "100000000"];

    let daemon = Daemon::start_with(&sandbox, "one", &options);
    wait_until_seen(&daemon, address);
    let mut client = Client::new(&sandbox, provider, address, &daemon);
    let job = daemon.submit(&client.body(&spin, 0, "spin"));
    daemon.heard_of(&job);
    signal("-KILL", daemon.child.id());
    drop(daemon);
    // It was accepted, and runs again: another receipt at its place would be a second one.
    let run = ["run", module, "--channel", address];
    let run = [&run[..], &["--price-max", "0.1"]].concat();
    let close = ["channel", "close", address, "--wallet", "main"];
    for command in [&run[..], &close] {
        let refused = bank.run(command).expect(5);
        refused.says(&job).says("start `tussah serve`");
    }

    let daemon = Daemon::start_with(&sandbox, "two", &options);
    daemon.heard_of(&job);
    post(&daemon, &format!("/v1/jobs/{job}/cancel"), &json!({})).expect(202);
    daemon.wait_for(&job);
    let ended = ("cancelled".to_owned(), PRICE);
    assert_eq!(client.take(&daemon, &job, 0), ended);
    daemon.terminate().expect(0);
}
