//! `serve --require-verified`: a provider runs modules that somebody it trusts has built again, and
//! no others.
#![cfg(unix)]

use std::{fs, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;

use crate::{
    fixture::{Ended, Sandbox},
    serve::{Daemon, deploy},
    verify::Tiny,
    worker::ECHO,
};

#[test]
fn a_provider_runs_verified_modules_alone() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    tiny.check("out/manifest.toml", &["--sign", "claim.cbor"], "match", "");
    let shown = tiny.sandbox.run(&["provider", "key", "--json"]).expect(0);
    let shown = shown.json();
    let verifier = shown["provider_key"].as_str().or(shown["key"].as_str());
    let verifier = verifier.unwrap();

    let provider = Sandbox::new();
    let keys = provider.file("verifiers", format!("# trusted here\n\n{verifier}\n"));
    let claim = tiny.at("claim.cbor");
    deploy(&provider, "echo", ECHO);
    let manifest = tiny.at("out/manifest.toml");
    let deployed = [
        "deploy",
        manifest.to_str().unwrap(),
        "--as",
        "tiny",
        "--shape",
        "raw",
    ];
    // A claim is of one module.
    let echo = provider.work().join("echo.wasm");
    let of_another = [
        "deploy",
        echo.to_str().unwrap(),
        "--as",
        "x",
        "--shape",
        "raw",
    ];
    let with_claim = ["--claim", claim.to_str().unwrap()];
    provider
        .run(&[&of_another[..], &with_claim].concat())
        .expect(3)
        .says("the claim is of the module");

    let options = ["--require-verified", keys.to_str().unwrap()];
    let daemon = Daemon::start_with(&provider, "alice", &options);
    let submit = |more: &[&str]| -> Ended {
        let arguments = ["submit", "out/manifest.toml"];
        let mut command: Command = tiny.command(&[&arguments[..], more].concat());
        command.env("TUSSAH_API_KEY", &daemon.key);
        command.env("TUSSAH_PROVIDER", format!("http://{}", daemon.address));
        command.output().unwrap().into()
    };
    let refused = submit(&[]).expect(2).says("runs verified modules alone");
    refused.says(verifier).says("--claim FILE");
    let accepted = || daemon.health().to_string();
    assert!(!accepted().contains("\"jobs_waiting\":1"), "{}", accepted());
    let done = submit(&["--claim", "claim.cbor"]).expect(0);
    assert!(done.stdout.starts_with("hello "), "{}", done.stdout);

    // By the API, as anybody may call it.
    let post = |body: serde_json::Value| daemon.ask("POST", "/v1/jobs", &body.to_string(), "*/*");
    let refusal = post(json!({"model": "echo", "input": "x"}))
        .expect(403)
        .json();
    assert_eq!(refusal["error"]["code"], "module_not_verified", "{refusal}");
    assert_eq!(refusal["error"]["param"], "claim");
    let bytes = fs::read(&claim).unwrap();
    let of_another = json!({"model": "echo", "input": "x", "claim": BASE64.encode(&bytes)});
    let refusal = post(of_another).expect(403).json();
    let message = refusal["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the claim is of the module"),
        "{message}"
    );
    let mut broken = bytes;
    let at = broken.len() / 2;
    broken[at] ^= 1;
    let broken = json!({"model": "echo", "input": "x", "claim": BASE64.encode(&broken)});
    let refusal = post(broken).expect(400).json();
    assert_eq!(refusal["error"]["code"], "invalid_claim", "{refusal}");

    // What the provider deployed itself needs a claim too, which it keeps; no restart.
    provider.run(&deployed).expect(0);
    let by_name = json!({"model": "tiny", "input": ""});
    post(by_name.clone()).expect(403);
    provider
        .run(&[&deployed[..], &with_claim].concat())
        .expect(0);
    let job = daemon.submit(&by_name);
    daemon.wait_for(&job);
}

#[test]
fn whose_claims_are_wanted_has_to_be_said() {
    let sandbox = Sandbox::new();
    let any = "127.0.0.1:0";
    let serve = |keys: &str| {
        let listen = ["serve", "--listen", any, "--metrics-listen", any];
        let arguments = [&listen[..], &["--require-verified", keys]].concat();
        sandbox.run(&arguments).expect(2)
    };
    serve("ed25519:zz").says("is no public key");
    serve("nowhere").says("nowhere");
    sandbox.file("empty", "# nobody\n");
    serve("empty").says("name 1 to 256 keys");
    sandbox.file("wrong", "\nssh-ed25519 AAAA\n");
    serve("wrong").says("line 2");
}
