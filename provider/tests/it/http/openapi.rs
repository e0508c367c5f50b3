//! The document at `/openapi.json` against the server that it describes.

use jsonschema::Validator;
use serde_json::json;
use tussah_manifest::Digest;

use super::*;

/// A schema of the document, by its name.
fn schema(document: &Value, name: &str) -> Validator {
    let schema = json!({
        "$ref": format!("#/components/schemas/{name}"),
        "components": document["components"],
    });
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_path_and_method_of_it_is_there_and_errors_are_as_it_says() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let answer = server
            .raw(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let document = answer.await.json();
        let error = schema(&document, "Error");
        let mut operations = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            let digest = Digest::of(b"none").to_string();
            let concrete = path
                .replace("{id}", &digest)
                .replace("{digest}", &digest)
                .replace("{address}", &format!("0:{}", "11".repeat(32)))
                .replace("{name}", "none");
            for (method, operation) in methods.as_object().unwrap() {
                operations += 1;
                let json = "Content-Type: application/json\r\n";
                let method = method.to_uppercase();
                let answer = server.send(&method, &concrete, json, b"{}").await;
                let shown = format!("{method} {path}: {answer:?}");
                // What is not there at all says so in other words than what has nothing to show.
                assert_ne!(answer.status, 405, "{shown}");
                assert!(!answer.text().contains("no such path"), "{shown}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(
                    responses.contains_key(&answer.status.to_string()),
                    "{shown}"
                );
                if answer.status >= 400 && method != "HEAD" {
                    let found = answer.json();
                    assert!(error.is_valid(&found), "{shown}");
                }
            }
        }
        assert_eq!(operations, 22);
    });
}

#[test]
fn answers_are_what_it_says() {
    wait(async {
        let server = Server::with_worker().await;
        let document = server.get("/openapi.json").await.json();
        let check = |name: &str, answer: &Answer| {
            let found = answer.json();
            let errors: Vec<_> = schema(&document, name)
                .iter_errors(&found)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{name}: {errors:?} in {found}");
        };
        let hi = json!([{"role": "user", "content": "hi"}]);
        for (path, asked, body, name) in [
            (
                "/v1/jobs",
                "Submission",
                json!({"model": "null", "input": "a"}),
                "Job",
            ),
            (
                "/v1/quote",
                "QuoteRequest",
                json!({"model": "null"}),
                "Quote",
            ),
            (
                "/v1/chat/completions",
                "Chat",
                json!({"model": "chat", "messages": hi}),
                "Answer",
            ),
            (
                "/v1/completions",
                "Completion",
                json!({"model": "completions", "prompt": "a", "stop": "b", "seed": 1}),
                "Answer",
            ),
            (
                "/v1/embeddings",
                "EmbeddingsRequest",
                json!({"model": "embeddings", "input": ["a", "b"]}),
                "Embeddings",
            ),
        ] {
            assert!(schema(&document, asked).is_valid(&body), "{asked}: {body}");
            let answer = server.post(path, &body).await;
            assert!(answer.status < 300, "{path}: {answer:?}");
            check(name, &answer);
        }
        check("Prices", &server.get("/v1/prices").await);
        check("Models", &server.get("/v1/models").await);
        check("Model", &server.get("/v1/models/chat").await);
        let blob = format!("/v1/blobs/{}", Digest::of(b"x"));
        check("Blob", &server.send("PUT", &blob, "", b"x").await);
    });
}

#[test]
fn what_it_does_not_allow_the_server_refuses() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let document = server.get("/openapi.json").await.json();
        let hi = json!([{"role": "user", "content": "hi"}]);
        for (path, name, body) in [
            ("/v1/jobs", "Submission", json!({"input": "a"})),
            ("/v1/jobs", "Submission", json!({"model": "null"})),
            (
                "/v1/jobs",
                "Submission",
                json!({"model": "null", "manifest_toml": "", "input": "a"}),
            ),
            ("/v1/quote", "QuoteRequest", json!({})),
            (
                "/v1/chat/completions",
                "Chat",
                json!({"model": "chat", "messages": hi, "n": 2}),
            ),
            (
                "/v1/chat/completions",
                "Chat",
                json!({"model": "chat", "messages": hi, "stream_options": {}}),
            ),
            (
                "/v1/chat/completions",
                "Chat",
                json!({"model": "chat", "messages": hi, "whatever": 1}),
            ),
            (
                "/v1/embeddings",
                "EmbeddingsRequest",
                json!({"model": "embeddings", "input": "a", "dimensions": 3}),
            ),
        ] {
            assert!(!schema(&document, name).is_valid(&body), "{name}: {body}");
            let answer = server.post(path, &body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
        }
    });
}
