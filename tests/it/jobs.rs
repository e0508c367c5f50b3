//! The example jobs on real models: sane answers, the same on any number of threads, and
//! receipts that hold.

use serde_json::Value;

use crate::fixture::{Ended, Sandbox, repository};

/// Runs a job's folder on its sample with 1 and 2 threads; its output, which is the same.
#[track_caller]
fn sample(sandbox: &Sandbox, job: &str) -> String {
    let folder = repository().join("jobs").join(job);
    let built = sandbox.build(&folder).expect(0).json();
    let manifest = built["manifest"]["path"].as_str().unwrap().to_owned();
    let sample = folder.join("sample.json");
    let run = |threads: &str| {
        let mut command = sandbox.command(&["run", &manifest, "--json", "--receipt", "r.cbor"]);
        command.args(["--threads", threads, "--input"]).arg(&sample);
        Ended::from(command.output().unwrap()).expect(0).json()
    };
    let (one, two) = (run("1"), run("2"));
    assert_eq!(one["output"], two["output"]);
    assert_eq!(one["consensus_digest"], two["consensus_digest"]);
    sandbox.run(&["receipt", "verify", "r.cbor"]).expect(0);
    one["output"].as_str().unwrap().to_owned()
}

/// What a job says of an input that it refuses.
#[track_caller]
fn refused(sandbox: &Sandbox, job: &str, input: &str, says: &str) {
    let folder = repository().join("jobs").join(job);
    let built = sandbox.build(&folder).expect(0).json();
    let manifest = built["manifest"]["path"].as_str().unwrap();
    let ended = sandbox.run_with_input(&["run", manifest, "--input", "-"], input.as_bytes());
    ended.expect(1).says(says);
}

#[test]
fn tickets_get_their_topics() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let output = sample(&sandbox, "classify");
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let labels: Vec<&str> = lines
        .iter()
        .map(|line| line["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["billing", "technical problem", "shipping"]);
    for line in &lines {
        let scores = line["scores"].as_object().unwrap();
        let sum: f64 = scores.values().map(|score| score.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 0.001, "{line}");
    }
    let twice = r#"{"text": "x", "labels": [{"name": "a"}, {"name": "a"}]}"#;
    refused(
        &sandbox,
        "classify",
        twice,
        "labels[1].name: \"a\" is there twice",
    );
    refused(&sandbox, "classify", "{}", "missing field `labels`");
}

#[test]
fn labels_of_every_kind_are_scored() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let folder = repository().join("jobs/classify");
    let built = sandbox.build(&folder).expect(0).json();
    let manifest = built["manifest"]["path"].as_str().unwrap();
    // Some begin others, some are not ASCII; then one alone, then thirty.
    let odd = ["bill", "billing", "billing address", "Größe", "配送", "🚚"];
    let many: Vec<String> = (0..30).map(|at| format!("topic {at}")).collect();
    for names in [odd.map(String::from).to_vec(), vec!["only".into()], many] {
        let labels: Vec<Value> = names
            .iter()
            .map(|name| serde_json::json!({ "name": name }))
            .collect();
        let input = serde_json::json!({ "text": "Where is my parcel?", "labels": labels });
        let arguments = ["run", manifest, "--input", "-"];
        let ended = sandbox.run_with_input(&arguments, input.to_string().as_bytes());
        let line = ended.expect(0).json();
        let scores = line["scores"].as_object().unwrap();
        assert_eq!(scores.len(), names.len());
        let best = scores[line["label"].as_str().unwrap()].as_f64().unwrap();
        assert!(scores.values().all(|score| score.as_f64().unwrap() <= best));
    }
}
