//! OpenAI's shape, as OpenAI's own clients read it.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tussah_provider::ledger::{JobPart, JobState};

use super::*;

fn hello() -> Value {
    json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]})
}

fn with(mut body: Value, extra: Value) -> Value {
    let (Some(body_map), Value::Object(extra)) = (body.as_object_mut(), extra) else {
        panic!("no objects");
    };
    body_map.extend(extra);
    body
}

#[test]
fn models_are_what_is_deployed() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let list = server.get("/v1/models").await.json();
        let names: Vec<_> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["id"])
            .collect();
        assert!(names.contains(&&json!("chat")), "{list}");
        let one = server.get("/v1/models/chat").await.json();
        assert_eq!(one["tussah"]["shape"], "chat");
        assert_eq!(one["created"], NOW / 1000);
        let none = server.get("/v1/models/none").await;
        assert_eq!(
            (none.status, none.code().as_str()),
            (404, "model_not_found")
        );
    });
}

#[test]
fn a_chat_is_answered_at_once() {
    wait(async {
        let server = Server::with_worker().await;
        let answer = server.post("/v1/chat/completions", &hello()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["object"], "chat.completion");
        assert_eq!(json["choices"][0]["message"]["content"], "Hello, wörld");
        assert_eq!(json["choices"][0]["finish_reason"], "stop");
        let usage = json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8});
        assert_eq!(json["usage"], usage);
        // The answer says which job it came from, and the receipt is to be had.
        let id = json["tussah"]["job_id"].as_str().unwrap();
        assert_eq!(answer.header("tussah-receipt"), Some(id));
        let job = server.get(&format!("/v1/jobs/{id}")).await.json();
        assert_eq!(job["receipt"], json["tussah"]["receipt"]);
        assert_eq!(job["model"], "chat");
    });
}

#[test]
fn a_streamed_chat_comes_in_chunks_with_its_usage_last() {
    wait(async {
        let server = Server::with_worker().await;
        let options = json!({"stream": true, "stream_options": {"include_usage": true}});
        let answer = server
            .post("/v1/chat/completions", &with(hello(), options))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.text();
        let mut data: Vec<_> = events(&text).into_iter().map(|(_, data)| data).collect();
        assert_eq!(data.pop().as_deref(), Some("[DONE]"));
        let chunks: Vec<Value> = data
            .iter()
            .map(|d| serde_json::from_str(d).unwrap())
            .collect();
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let said: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(said, "Hello, wörld");
        let (usage, last) = (&chunks[chunks.len() - 1], &chunks[chunks.len() - 2]);
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert!(last["tussah"]["receipt"].is_string());
        assert_eq!(
            (&usage["choices"], &usage["usage"]["total_tokens"]),
            (&json!([]), &json!(8))
        );
        assert!(
            chunks[..chunks.len() - 1]
                .iter()
                .all(|chunk| chunk["usage"].is_null())
        );
        // Without being asked for, there is no usage at all.
        let plain = with(hello(), json!({"stream": true}));
        let text = server.post("/v1/chat/completions", &plain).await.text();
        assert!(!text.contains("usage"), "{text}");
    });
}

#[test]
fn equal_seeds_have_equal_answers_and_one_job() {
    wait(async {
        let server = Server::with_worker().await;
        let seeded = with(hello(), json!({"seed": 7}));
        let first = server.post("/v1/chat/completions", &seeded).await.json();
        let again = server.post("/v1/chat/completions", &seeded).await.json();
        assert_eq!(first["tussah"], again["tussah"]);
        let streamed = with(seeded.clone(), json!({"stream": true}));
        let text = server.post("/v1/chat/completions", &streamed).await.text();
        assert!(text.contains("wörld") && text.contains("[DONE]"), "{text}");
        let unseeded = server.post("/v1/chat/completions", &hello()).await.json();
        assert_ne!(first["tussah"]["job_id"], unseeded["tussah"]["job_id"]);
    });
}

#[test]
fn what_a_job_gets_is_the_convention_of_its_shape() {
    wait(async {
        let server = Server::with_worker().await;
        let body = json!({
            "model": "echo-chat",
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [
                    {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
            "max_completion_tokens": 5, "temperature": 0.5, "top_p": 1, "stop": "end",
            "n": 1, "logprobs": false, "tools": [], "user": "u1", "frequency_penalty": 0.0,
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "strict": true, "schema": "SCHEMA"}},
        });
        // The order of a schema's properties is the order of the answer.
        let schema =
            r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"null"}}}"#;
        let body = body.to_string().replace("\"SCHEMA\"", schema);
        // The peer's plain job says its input in capitals: no chat, so the answer is refused.
        let json = "Content-Type: application/json\r\n";
        let path = "/v1/chat/completions";
        let answer = server.send("POST", path, json, body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "bad_output"));
        let id = answer.header("tussah-receipt");
        assert_eq!(id, None);
        let jobs = server.gateway.ledger().recent_jobs(None, 1).unwrap();
        let ledger = server.gateway.ledger();
        let said = ledger.content(jobs[0].id, JobPart::Output).await.unwrap();
        let said = String::from_utf8(said.unwrap()).unwrap();
        let expected = r#"{"max_tokens":5,"messages":[{"content":"be brief","role":"system"},{"content":"ab","role":"user"}],"stop":["end"],"temperature":0.5,"top_p":1.0,"response_format":{"type":"json_schema","schema":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"null"}}}}}"#;
        assert_eq!(said, expected.to_uppercase());
    });
}

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "weather", "strict": true, "parameters": {
        "type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}})
}

/// The chunks of a stream, without the mark of its end.
fn chunks(text: &str) -> Vec<Value> {
    let data = events(text).into_iter().map(|(_, data)| data);
    let chunks = data.filter(|data| data != "[DONE]");
    chunks
        .map(|data| serde_json::from_str(&data).unwrap())
        .collect()
}

#[test]
fn a_called_function_comes_with_its_arguments_at_once_and_in_chunks() {
    wait(async {
        let server = Server::with_worker().await;
        let body = with(
            hello(),
            json!({"tools": [weather()], "tool_choice": "required"}),
        );
        let json = server.post("/v1/chat/completions", &body).await.json();
        let choice = &json["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{json}");
        assert_eq!(choice["message"]["content"], "Let me see.");
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(call["type"], "function");
        assert_eq!(
            call["function"],
            json!({"name": "weather", "arguments": "{\"place\":\"Rome\"}"})
        );
        let streamed = with(body, json!({"stream": true}));
        let text = server.post("/v1/chat/completions", &streamed).await.text();
        let chunks = chunks(&text);
        let deltas: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["delta"])
            .collect();
        let first = &deltas[2]["tool_calls"][0];
        assert_eq!(
            first["function"],
            json!({"name": "weather", "arguments": ""})
        );
        assert!(
            first["id"].as_str().unwrap().starts_with("call_"),
            "{first}"
        );
        let pieces = deltas[3..].iter().filter_map(|delta| {
            assert_eq!(delta["tool_calls"][0]["id"], Value::Null);
            delta["tool_calls"][0]["function"]["arguments"].as_str()
        });
        assert_eq!(pieces.collect::<String>(), "{\"place\":\"Rome\"}");
        assert_eq!(
            chunks.last().unwrap()["choices"][0]["finish_reason"],
            "tool_calls"
        );

        // What the function gave goes back, with the call it belongs to.
        let mut again = with(hello(), json!({"tools": [weather()]}));
        let turns = again["messages"].as_array_mut().unwrap();
        turns.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
        turns.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "warm"}));
        let answer = server.post("/v1/chat/completions", &again).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        again["messages"][2]["tool_call_id"] = json!("another");
        let answer = server.post("/v1/chat/completions", &again).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!("messages[2].tool_call_id"))
        );
    });
}

#[test]
fn what_a_job_gets_of_functions_has_their_schemas_in_order() {
    wait(async {
        let server = Server::with_worker().await;
        let mut tool = weather();
        tool["function"]["parameters"] = json!("SCHEMA");
        let call = json!({"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}});
        let body = json!({
            "model": "echo-chat",
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "warm"},
            ],
            "tools": [{"type": "function", "function": {"name": "now"}}, tool],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "logprobs": true, "top_logprobs": 3,
        });
        let schema = r#"{"type":"object","properties":{"z":{},"a":{}}}"#;
        let body = body.to_string().replace("\"SCHEMA\"", schema);
        let json = "Content-Type: application/json\r\n";
        let path = "/v1/chat/completions";
        let answer = server.send("POST", path, json, body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "bad_output"));
        let ledger = server.gateway.ledger();
        let jobs = ledger.recent_jobs(None, 1).unwrap();
        let said = ledger.content(jobs[0].id, JobPart::Output).await.unwrap();
        let said = String::from_utf8(said.unwrap()).unwrap();
        let expected = r#"{"logprobs":3,"messages":[{"content":"x","role":"user"},{"role":"assistant","tool_calls":[{"arguments":"{}","id":"c","name":"weather"}]},{"content":"warm","role":"tool","tool_call_id":"c"}],"tool_choice":{"function":"weather"},"tools":[{"name":"now"},{"name":"weather","parameters":{"type":"object","properties":{"z":{},"a":{}}}}]}"#;
        assert_eq!(said, expected.to_uppercase());
    });
}

#[test]
fn how_likely_tokens_were_comes_in_the_shape_of_each_api() {
    wait(async {
        let server = Server::with_worker().await;
        let body = with(hello(), json!({"logprobs": true, "top_logprobs": 1}));
        let json = server.post("/v1/chat/completions", &body).await.json();
        let content = &json["choices"][0]["logprobs"]["content"];
        let first = json!({
            "token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169],
            "top_logprobs": [{"token": "Ho", "logprob": -0.25, "bytes": [72, 111]}],
        });
        assert_eq!(content[0], first);
        let text = server
            .post("/v1/chat/completions", &with(body, json!({"stream": true})))
            .await
            .text();
        let chunks = chunks(&text);
        assert_eq!(
            chunks[1]["choices"][0]["logprobs"]["content"],
            json!([first])
        );
        let body = json!({"model": "completions", "prompt": "Once", "logprobs": 1});
        let json = server.post("/v1/completions", &body).await.json();
        let expected = json!({
            "tokens": ["Hé", "llo"], "token_logprobs": [-0.5, -1.5], "text_offset": [0, 2],
            "top_logprobs": [{"Ho": -0.25, "Hé": -0.5}, {"llo": -1.5}],
        });
        assert_eq!(json["choices"][0]["logprobs"], expected);
        // Who does not ask gets none.
        let json = server.post("/v1/chat/completions", &hello()).await.json();
        assert_eq!(json["choices"][0]["logprobs"], Value::Null);
    });
}

#[test]
fn completions_and_embeddings_have_their_own_shapes() {
    wait(async {
        let server = Server::with_worker().await;
        let body = json!({"model": "completions", "prompt": "Once"});
        let json = server.post("/v1/completions", &body).await.json();
        assert_eq!(json["object"], "text_completion");
        assert_eq!(json["choices"][0]["text"], "Hello, wörld");
        let streamed = with(body, json!({"stream": true}));
        let text = server.post("/v1/completions", &streamed).await.text();
        assert!(text.contains(r#""text":"Hello""#), "{text}");
        let body = json!({"model": "embeddings", "input": ["a", "b"]});
        let json = server.post("/v1/embeddings", &body).await.json();
        assert_eq!(json["data"][0]["embedding"], json!([1.0, -2.0]));
        assert_eq!(json["data"][1]["index"], 1);
        assert_eq!(
            json["usage"],
            json!({"prompt_tokens": 7, "total_tokens": 7})
        );
        let base64 = with(body.clone(), json!({"encoding_format": "base64"}));
        let json = server.post("/v1/embeddings", &base64).await.json();
        assert_eq!(json["data"][1]["embedding"], "AAAAPwAAQEA=");
        for (extra, code) in [
            (json!({"input": []}), "invalid_value"),
            (json!({"input": [[1, 2]]}), "invalid_value"),
            (json!({"dimensions": 5}), "unsupported_parameter"),
            (json!({"model": "chat"}), "model_shape"),
            // The peer answers two vectors, whatever it is asked.
            (json!({"input": "one"}), "bad_output"),
        ] {
            let answer = server
                .post("/v1/embeddings", &with(body.clone(), extra))
                .await;
            assert_eq!(answer.code(), code);
        }
    });
}

#[test]
fn what_a_job_says_is_wrong_is_the_clients_to_read() {
    wait(async {
        let server = Server::with_worker().await;
        let mut bad = hello();
        bad["messages"][0]["content"] = json!("error");
        for stream in [false, true] {
            let body = with(bad.clone(), json!({"stream": stream, "model": "chat"}));
            let answer = server.post("/v1/chat/completions", &body).await;
            if stream {
                // Some of it was out by then: the stream says what happened, and does not end well.
                let text = answer.text();
                assert!(
                    text.contains("no good input") && !text.contains("[DONE]"),
                    "{text}"
                );
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (400, "job_error"));
                assert_eq!(answer.json()["error"]["message"], "no good input");
            }
        }
        for (number, status) in [
            (65_536, 400),
            (65_537, 400),
            (65_540, 400),
            (65_542, 400),
            (65_545, 400),
            // What the client could change nothing about.
            (2, 500),
            (65_539, 500),
            (65_543, 500),
        ] {
            bad["messages"][0]["content"] = json!(format!("error {number}"));
            let answer = server.post("/v1/chat/completions", &bad).await;
            let found = (answer.status, answer.code());
            assert_eq!(found, (status, "job_error".to_owned()), "{number}");
        }
        let body = with(hello(), json!({"model": "nonsense", "stream": true}));
        let answer = server.post("/v1/chat/completions", &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "bad_output"));
        // OpenAI's clients would try again by themselves, and pay again.
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    });
}

#[test]
fn a_client_that_hangs_up_cancels_its_job() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        for stream in [false, true] {
            let body = with(hello(), json!({"stream": stream})).to_string();
            let json = "Content-Type: application/json\r\n";
            let path = "/v1/chat/completions";
            let head = server.head("POST", path, json, Some(body.len()));
            let mut client = TcpStream::connect(server.address).await.unwrap();
            client
                .write_all(&[head.as_bytes(), body.as_bytes()].concat())
                .await
                .unwrap();
            let ledger = server.gateway.ledger();
            // Without a worker it waits; its client does not.
            let id = loop {
                if let Some(job) = ledger.unfinished().unwrap().jobs.first() {
                    break job.request.body.job_id();
                }
                tokio::task::yield_now().await;
            };
            drop(client);
            let left = async {
                while ledger.job(&id).unwrap().unwrap().state == JobState::Accepted {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), left)
                .await
                .unwrap();
            assert_eq!(ledger.job(&id).unwrap().unwrap().state, JobState::NotRun);
        }
    });
}

#[test]
fn a_client_that_vanishes_mid_stream_frees_its_place() {
    wait(async {
        let server = server(|config, _, _| config.queue.running_max = 1).await;
        drop(peer::attach(&server.gateway));
        let mut body = with(hello(), json!({"stream": true}));
        body["messages"][0]["content"] = json!("wait here");
        let body = body.to_string();
        let json = "Content-Type: application/json\r\n";
        let head = server.head("POST", "/v1/chat/completions", json, Some(body.len()));
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let request = [head.as_bytes(), body.as_bytes()].concat();
        client.write_all(&request).await.unwrap();
        // It hears the first words, and goes.
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains("Hello") {
            assert!(
                client.read_buf(&mut heard).await.unwrap() > 0,
                "closed early"
            );
        }
        drop(client);
        // The only place is free again for the next.
        let next = server.post("/v1/chat/completions", &hello()).await;
        assert_eq!(next.status, 200, "{next:?}");
        let jobs = server.gateway.ledger().recent_jobs(None, 2).unwrap();
        let left = jobs[1].receipt.as_ref().unwrap();
        assert_eq!(left.consensus.exit, tussah_manifest::ExitStatus::Cancelled);
    });
}

#[test]
fn two_hundred_clients_at_once_are_answered_or_told_to_come_back() {
    /// Calls of each client, one after the other.
    const CALLS: u64 = 5;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = std::sync::Arc::new(Server::with_worker().await);
        let clients = (0..200).map(|_| {
            let server = std::sync::Arc::clone(&server);
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..CALLS {
                    let answer = server.post("/v1/chat/completions", &hello()).await;
                    statuses.push(answer.status);
                }
                statuses
            })
        });
        let (mut answered, mut refused) = (0, 0);
        for client in clients {
            for status in client.await.unwrap() {
                match status {
                    200 => answered += 1,
                    429 => refused += 1,
                    other => panic!("status {other}"),
                }
            }
        }
        assert!(answered >= 990, "{answered} answered, {refused} refused");
        let report = server.gateway.ledger().check(None).unwrap();
        assert_eq!(report.findings, []);
        assert_eq!((report.finished, report.accepted), (answered, 0));
        assert_eq!(server.gateway.load(), (0, 0));
    });
}
