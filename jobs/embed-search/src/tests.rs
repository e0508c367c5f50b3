//! The job as its user sees it, with scripted embeddings.

use serde_json::{Value, json};
use tussah_sdk::{
    ErrorCode,
    testing::{Ran, Scripted},
};

use super::*;

const SAMPLE: &str = include_str!("../sample.json");

/// A model by which texts are alike that have words in common.
fn script() -> Scripted {
    Scripted::model(MODEL)
        .context_tokens_max(256)
        .embeds_words()
}

#[track_caller]
fn hits(ran: &Ran) -> Vec<Value> {
    ran.result.as_ref().unwrap();
    ran.output.json()
}

/// The hits' documents, best first.
#[track_caller]
fn order(input: &Value) -> Vec<u64> {
    let hits = hits(&script().run(run, input.to_string()));
    hits.iter()
        .map(|hit| hit["index"].as_u64().unwrap())
        .collect()
}

#[test]
fn documents_are_ranked_most_alike_first() {
    let ran = script().run(run, SAMPLE);
    let hits = hits(&ran);
    assert_eq!(hits.len(), 2, "as many as were asked for");
    let scores: Vec<f64> = hits
        .iter()
        .map(|hit| hit["score"].as_f64().unwrap())
        .collect();
    assert!(scores[0] >= scores[1], "{scores:?}");
    assert!(ran.output.text().ends_with("]\n"));
}

#[test]
fn a_hit_of_a_short_document_is_all_of_it() {
    let input = json!({ "query": "wild silk", "documents": [" Größe: wild silk \n", { "id": "b", "text": "no" }] });
    let ran = script().run(run, input.to_string());
    assert_eq!(
        ran.output.text(),
        concat!(
            r#"[{"index":0,"score":0.8164966,"passage":{"bytes":[1,19],"characters":[1,17],"text":"Größe: wild silk"}},"#,
            r#"{"index":1,"id":"b","score":0.0,"passage":{"bytes":[0,2],"characters":[0,2],"text":"no"}}]"#,
            "\n"
        )
    );
}

#[test]
fn of_a_long_document_the_best_passage_is_named() {
    let mut text = String::new();
    for at in 0..200 {
        text.push_str(&format!(
            "Here is sentence number {at} about nothing at all. "
        ));
        if at == 120 {
            text.push_str("Züge nach Kolkata fahren um zwölf. ");
        }
    }
    let input = json!({ "query": "Züge nach Kolkata", "documents": [text, "Kolkata"] });
    let ran = script().run(run, input.to_string());
    let hits = hits(&ran);
    let hit = hits.iter().find(|hit| hit["index"] == 0).unwrap();
    let passage = hit["passage"]["text"].as_str().unwrap();
    assert!(
        passage.contains("Züge nach Kolkata fahren um zwölf."),
        "{passage}"
    );
    assert!(passage.len() < 1000, "{passage}");
    let place = |unit: &str, at: usize| {
        usize::try_from(hit["passage"][unit][at].as_u64().unwrap()).unwrap()
    };
    assert_eq!(&text[place("bytes", 0)..place("bytes", 1)], passage);
    let characters = text.chars().skip(place("characters", 0));
    let characters = characters.take(place("characters", 1) - place("characters", 0));
    assert_eq!(characters.collect::<String>(), passage);
    assert!(ran.output.progress.len() > 1, "{:?}", ran.output.progress);
}

#[test]
fn equals_keep_their_order() {
    let same = vec!["the same text"; 40];
    assert_eq!(
        order(&json!({ "query": "text", "documents": same })),
        (0..40).collect::<Vec<_>>()
    );
    // Twice the same passage: the first is named.
    let twice = "one two. ".repeat(60);
    let ran = script().run(
        run,
        json!({ "query": "one", "documents": [twice] }).to_string(),
    );
    assert_eq!(hits(&ran)[0]["passage"]["bytes"][0], 0);
}

#[test]
fn only_wanted_hits_are_given() {
    let documents = ["silk", "rust", "silk moth"];
    let all = json!({ "query": "silk", "documents": documents });
    assert_eq!(order(&all), [0, 2, 1]);
    for (field, value, expected) in [
        ("top_k", json!(1), &[0][..]),
        ("top_k", json!(9), &[0, 2, 1]),
        ("min_score", json!(0.5), &[0, 2]),
        ("min_score", json!(-1), &[0, 2, 1]),
        ("documents", json!([]), &[]),
    ] {
        let mut input = all.clone();
        input[field] = value;
        assert_eq!(order(&input), expected, "{field}");
    }
    let none = json!({ "query": "silk", "documents": ["rust"], "min_score": 0.5 });
    assert_eq!(script().run(run, none.to_string()).output.text(), "[]\n");
}

#[test]
fn what_cannot_be_searched_is_refused_before_a_model_is_loaded() {
    for (input, says) in [
        ("[]", "expected struct Search"),
        (r#"{"query": "", "documents": ["a"]}"#, "query is empty"),
        (
            r#"{"query": "q", "documents": [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]}"#,
            "documents[1].id: documents[0] has the same, \"x\"",
        ),
    ] {
        let error = Scripted::nothing().run(run, input).result.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadInput, "{input}");
        assert!(error.message().contains(says), "{input}: {error}");
    }
}

#[test]
fn a_query_that_the_model_does_not_read_whole_is_refused() {
    let input = json!({ "query": "long ".repeat(300), "documents": ["a"] });
    let error = script().run(run, input.to_string()).result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ContextFull);
    assert!(error.message().starts_with("query: "), "{error}");
}
