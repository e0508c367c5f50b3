//! The job as its user sees it, with scripted embeddings.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tussah_sdk::{ErrorCode, testing::Scripted};

use super::*;

const SAMPLE: &str = include_str!("../sample.json");

/// The vectors and the last line.
#[track_caller]
fn answer(script: Scripted, input: &str) -> (Vec<Vec<f32>>, Value) {
    let ran = script.run(run, input);
    ran.result.unwrap();
    let lines = ran.output.text().lines();
    let mut lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    let vector = |line: Value| {
        let bytes = STANDARD.decode(line["embedding"].as_str().unwrap());
        let bytes = bytes.unwrap();
        let (values, rest) = bytes.as_chunks();
        assert!(rest.is_empty());
        values
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect()
    };
    (lines.into_iter().map(vector).collect(), last)
}

#[test]
fn each_text_gets_its_vector_in_order() {
    let script = Scripted::model(MODEL)
        .embedding("a", &[1.0, 0.0])
        .embedding("b c", &[0.6, 0.8]);
    let (vectors, last) = answer(script, r#"{"input": ["b c", "a", "b c"]}"#);
    assert_eq!(vectors, [[0.6, 0.8], [1.0, 0.0], [0.6, 0.8]]);
    // 2, 1 and 2 tokens, and 2 around each.
    assert_eq!(last, json!({ "finish": "stop", "prompt_tokens": 11 }));
    let (vectors, _) = answer(Scripted::model(MODEL).embeds_words(), SAMPLE);
    assert_eq!(vectors.len(), 2);
}

#[test]
fn many_texts_come_in_batches() {
    let texts: Vec<String> = (0..TEXTS_MAX).map(|at| format!("text {at}")).collect();
    let input = json!({ "input": texts }).to_string();
    let script = Scripted::model(MODEL).embeds_words();
    let ran = script.run(run, &input);
    ran.result.unwrap();
    assert_eq!(ran.output.pieces.len(), TEXTS_MAX + 1, "a line each");
    assert_eq!(ran.output.progress.len(), TEXTS_MAX / BATCH);
    assert_eq!(ran.output.progress[1].done, 16);
}

#[test]
fn what_cannot_be_embedded_is_refused_by_its_place() {
    let many = json!({ "input": vec!["x"; TEXTS_MAX + 1] }).to_string();
    for (input, says) in [
        ("", "EOF while parsing"),
        ("[]", "expected an object with `input`"),
        ("{}", "missing field `input`"),
        (r#"{"input": "x"}"#, "`input`: invalid type: string"),
        (
            r#"{"input": ["x", 7]}"#,
            "`input[1]`: invalid type: integer",
        ),
        (r#"{"input": []}"#, "`input`: 0 texts, 1 to 1024 can be"),
        (&many, "`input`: 1025 texts"),
        (r#"{"input": ["x", ""]}"#, "`input[1]`: is empty"),
        (
            r#"{"input": ["x"], "dimensions": 2}"#,
            "unknown field `dimensions`",
        ),
    ] {
        let error = Scripted::nothing().run(run, input).result.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Job(1), "{input}");
        assert!(error.message().contains(says), "{input}: {error}");
    }
}

#[test]
fn no_text_is_cut() {
    let script = || Scripted::model(MODEL).context_tokens_max(10).embeds_words();
    let input = |words: usize| json!({ "input": ["x", " a".repeat(words)] }).to_string();
    script().run(run, input(8)).result.unwrap();
    let ran = script().run(run, input(9));
    let error = ran.result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Job(1));
    assert!(
        error.message().starts_with("`input[1]`: 11 tokens"),
        "{error}"
    );
    assert!(ran.output.bytes.is_empty());
}
