//! Answers under JSON schemas, by the real model in the sandbox: each parses and validates,
//! also where its tokens run out in the middle.

use std::fs;

use serde_json::{Value, json};

use crate::fixture::{Sandbox, repository};

/// Tokens enough for an answer to end by itself, and too few for most.
const TOKENS: [(u32, f32); 2] = [(64, 0.0), (5, 1.5)];

#[test]
fn a_small_model_keeps_to_twenty_schemas() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let built = sandbox.build(&repository().join("tests/guests/schemas"));
    let built = built.expect(0).json();
    let manifest = built["manifest"]["path"].as_str().unwrap();
    let text = fs::read(repository().join("tests/it/schemas.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    assert!(cases.len() >= 20);
    for (tokens_max, temperature) in TOKENS {
        let input: Vec<Value> = cases
            .iter()
            .map(|case| {
                json!({
                    "prompt": case["prompt"],
                    "schema": case["schema"],
                    "tokens_max": tokens_max,
                    "temperature": temperature,
                })
            })
            .collect();
        let input = serde_json::to_vec(&input).unwrap();
        let ended = sandbox.run_with_input(&["run", manifest, "--input", "-"], &input);
        let answers = ended.expect(0).stdout;
        assert_eq!(answers.lines().count(), cases.len(), "{answers}");
        for (case, answer) in cases.iter().zip(answers.lines()) {
            let name = &case["name"];
            let value: Value = serde_json::from_str(answer)
                .unwrap_or_else(|error| panic!("{name}: {error} in {answer}"));
            let valid = jsonschema::options()
                .should_validate_formats(true)
                .build(&case["schema"])
                .unwrap();
            assert!(valid.is_valid(&value), "{name}: {answer}");
        }
    }
}
