//! `tussah new --template`: each builds and runs at once, and its tests pass on this machine.

use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Ended, Sandbox, shared_target};

/// Makes a job of this template, runs it on its sample input and runs its tests natively.
#[track_caller]
fn check(sandbox: &Sandbox, template: &str) -> (Value, String) {
    let new = ["new", template, "--template", template, "--json"];
    let made = sandbox.run(&new).expect(0).json();
    let input = format!("{template}/{}", made["input"].as_str().unwrap());
    let mut run = sandbox.command(&["run", template, "--input", &input]);
    run.env("CARGO_TARGET_DIR", shared_target());
    let ran = Ended::from(run.output().unwrap()).expect(0);
    let mut test = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    test.current_dir(sandbox.work().join(template))
        .args(["test", "--lib", "--locked", "--color", "never"])
        .env("CARGO_TARGET_DIR", shared_target().join("native"));
    let tested = Ended::from(test.output().unwrap()).expect(0);
    assert!(tested.stdout.contains("test result: ok."), "{tested:?}");
    assert!(!tested.stdout.contains("running 0 tests"), "{tested:?}");
    (made, ran.stdout)
}

/// A job of a template that needs a model, and the model.
fn with_noise() -> Option<Sandbox> {
    let sandbox = Sandbox::with_wasm()?;
    // Of random weights, but with a chat template.
    let random = ["model", "random", "noise", "--parameters", "1M"];
    sandbox.run(&random).expect(0);
    Some(sandbox)
}

#[track_caller]
fn check_with_noise(sandbox: &Sandbox, template: &str) {
    let (made, output) = check(sandbox, template);
    assert_eq!(made["model"], "noise", "{template}");
    assert!(!output.trim().is_empty(), "{template}");
}

#[test]
fn the_json_template_needs_no_model() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    // Without a model the others say what to do.
    for template in ["chat", "openai", "nn", "embeddings"] {
        let new = ["new", "other", "--template", template];
        sandbox.run(&new).expect(2).says("tussah model pull");
        assert!(!sandbox.work().join("other").exists());
    }
    let (made, output) = check(&sandbox, "json");
    assert_eq!(made["model"], Value::Null);
    let counts: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(counts[0], json!({ "word": "the", "times": 3 }));
    // What is wrong with an input is said by its field.
    sandbox.file("bad.json", b"{\"text\": 7}");
    let mut bad = sandbox.command(&["run", "json", "--input", "bad.json"]);
    let bad = bad
        .env("CARGO_TARGET_DIR", shared_target())
        .output()
        .unwrap();
    Ended::from(bad).expect(1).says("`text`");
}

#[test]
fn the_text_template_runs_until_its_model_goes() {
    let Some(sandbox) = with_noise() else {
        return;
    };
    check_with_noise(&sandbox, "text");
    // A model that generates text makes no embeddings, whether it is found or named.
    for model in [&[][..], &["--model", "noise"]] {
        let mut new = vec!["new", "find", "--template", "embeddings"];
        new.extend(model);
        let refused = sandbox.run(&new).expect(2);
        refused.says("needs a model that makes embeddings");
    }
    // The model goes while a manifest needs it: the error says which, and what to do.
    sandbox.run(&["model", "remove", "noise"]).expect(0);
    let mut run = sandbox.command(&["run", "text", "--input", "text/input.txt"]);
    run.env("CARGO_TARGET_DIR", shared_target());
    let ended = Ended::from(run.output().unwrap()).expect(2);
    ended
        .says("`noise`")
        .says("help: run `tussah model add noise");
}

#[test]
fn the_chat_template_runs() {
    if let Some(sandbox) = with_noise() {
        check_with_noise(&sandbox, "chat");
    }
}

#[test]
fn the_openai_template_runs_and_can_be_deployed() {
    let Some(sandbox) = with_noise() else {
        return;
    };
    let (_, output) = check(&sandbox, "openai");
    let last: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    assert!(last["prompt_tokens"].as_u64() > Some(0), "{output}");
    if cfg!(unix) {
        let deploy = ["deploy", "openai", "--as", "mine", "--shape", "chat"];
        let mut deploy = sandbox.command(&deploy);
        deploy.env("CARGO_TARGET_DIR", shared_target());
        Ended::from(deploy.output().unwrap()).expect(0);
    }
}

#[test]
fn the_nn_template_runs() {
    if let Some(sandbox) = with_noise() {
        check_with_noise(&sandbox, "nn");
    }
}

#[test]
fn the_embeddings_template_runs() {
    let Some(sandbox) = with_noise() else {
        return;
    };
    if !sandbox.link_model_named("minilm") {
        crate::fixture::missing("the model minilm", "REQUIRE_MODEL");
        return;
    }
    // Found although it is not the only model.
    let (made, output) = check(&sandbox, "embeddings");
    assert_eq!(made["model"], "minilm");
    assert!(output.contains("score"), "{output}");
}
