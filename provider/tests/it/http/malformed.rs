//! What nobody should send: each refused with the right status, and nothing left behind.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tussah_manifest::Digest;

use super::*;

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn malformed_requests_are_refused_by_name() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        let bomb = "[".repeat(500_000);
        let large = vec![b' '; (1 << 20) + 1];
        let digest = Digest::of(b"x").to_hex();
        let jobs = |body: &str| {
            (
                "POST",
                "/v1/jobs".to_owned(),
                JSON,
                body.as_bytes().to_vec(),
            )
        };
        let chat = |extra: &str| {
            let body = format!(
                r#"{{"model":"chat","messages":[{{"role":"user","content":"hi"}}]{extra}}}"#
            );
            (
                "POST",
                "/v1/chat/completions".to_owned(),
                JSON,
                body.into_bytes(),
            )
        };
        let get = |path: &str| ("GET", path.to_owned(), "", Vec::new());
        let put = |path: &str, headers| ("PUT", path.to_owned(), headers, b"x".to_vec());
        let cases = [
            (jobs(""), 400, "invalid_json"),
            (jobs("{"), 400, "invalid_json"),
            (jobs("[]"), 400, "invalid_json"),
            (jobs("{\"a\":\"\u{0}\"}"), 400, "invalid_json"),
            (jobs(&format!("{{\"model\":{deep}}}")), 400, "json_too_deep"),
            (jobs(&bomb), 400, "json_too_deep"),
            // Half a megabyte of text, and some fifty of values.
            (
                jobs(&format!("{{\"model\":[{}{{}}]}}", "{},".repeat(150_000))),
                400,
                "json_too_many_values",
            ),
            // Commas in a text are no values.
            (
                jobs(&format!("{{\"nobody\":\"{}\"}}", ",".repeat(250_000))),
                400,
                "missing_required_parameter",
            ),
            (jobs("{}"), 400, "missing_required_parameter"),
            (jobs(r#"{"model":1,"input":""}"#), 400, "invalid_value"),
            (
                jobs(r#"{"model":"none","input":""}"#),
                404,
                "model_not_found",
            ),
            (
                jobs(r#"{"model":"null"}"#),
                400,
                "missing_required_parameter",
            ),
            (
                jobs(r#"{"model":"null","input":"a","inptu":1}"#),
                400,
                "unknown_parameter",
            ),
            (
                jobs(r#"{"model":"null","input":"a","input_base64":"YQ=="}"#),
                400,
                "invalid_value",
            ),
            (
                jobs(r#"{"model":"null","input_base64":"?"}"#),
                400,
                "invalid_value",
            ),
            (
                jobs(r#"{"model":"null","input":"a","seed":-1}"#),
                400,
                "invalid_value",
            ),
            (
                jobs(r#"{"model":"null","input":"a","seed":1.5}"#),
                400,
                "invalid_value",
            ),
            (
                jobs(
                    r#"{"model":"null","input":"a","max_price_nanograms":"99999999999999999999"}"#,
                ),
                400,
                "invalid_value",
            ),
            (
                jobs(r#"{"model":"null","input":"a","request":"AAAA"}"#),
                400,
                "invalid_request",
            ),
            (
                jobs(r#"{"manifest":"blake3:../../x","input":"a"}"#),
                400,
                "invalid_digest",
            ),
            (
                jobs(r#"{"manifest_toml":"version = 1","input":"a"}"#),
                400,
                "invalid_manifest",
            ),
            (
                ("POST", "/v1/jobs".to_owned(), "", b"{}".to_vec()),
                415,
                "content_type",
            ),
            (
                (
                    "POST",
                    "/v1/jobs".to_owned(),
                    "Content-Type: text/plain\r\n",
                    b"{}".to_vec(),
                ),
                415,
                "content_type",
            ),
            (
                ("POST", "/v1/jobs".to_owned(), JSON, large),
                413,
                "body_too_large",
            ),
            (
                ("DELETE", "/v1/jobs".to_owned(), "", Vec::new()),
                405,
                "method_not_allowed",
            ),
            (get("/v1/nothing"), 404, "not_found"),
            (get("/v1/jobs/1"), 400, "invalid_digest"),
            (get(&format!("/v1/jobs/blake3:{digest}")), 404, "not_found"),
            (
                get("/v1/jobs/blake3:..%2f..%2fetc%2fpasswd"),
                400,
                "invalid_digest",
            ),
            (
                put("/v1/blobs/..%2f..%2fledger.sqlite", ""),
                400,
                "invalid_digest",
            ),
            (put("/v1/blobs/%2e%2e", ""), 400, "invalid_digest"),
            (
                put(&format!("/v1/blobs/{}", digest.to_uppercase()), ""),
                400,
                "invalid_digest",
            ),
            (
                put(&format!("/v1/blobs/{digest}%00"), ""),
                400,
                "invalid_digest",
            ),
            (
                put(
                    &format!("/v1/blobs/{digest}"),
                    "Content-Range: bytes 5-1/9\r\n",
                ),
                416,
                "invalid_range",
            ),
            (
                put(
                    &format!("/v1/blobs/{digest}"),
                    "Content-Range: bytes 0-0/2000\r\n",
                ),
                413,
                "blob_too_large",
            ),
            (
                put(
                    &format!("/v1/blobs/{digest}"),
                    "Content-Range: bytes 3-3/9\r\n",
                ),
                409,
                "wrong_offset",
            ),
            (chat(r#","n":2"#), 400, "unsupported_parameter"),
            (chat(r#","logprobs":1"#), 400, "invalid_value"),
            (chat(r#","top_logprobs":2"#), 400, "invalid_value"),
            (
                chat(r#","logprobs":true,"top_logprobs":21"#),
                400,
                "invalid_value",
            ),
            (
                chat(r#","tools":[{"type":"function"}]"#),
                400,
                "missing_required_parameter",
            ),
            (
                chat(r#","tools":[{"type":"function","function":{"name":"f g"}}]"#),
                400,
                "invalid_value",
            ),
            (
                chat(r#","tools":[{"type":"custom"}]"#),
                400,
                "unsupported_parameter",
            ),
            (chat(r#","tool_choice":"auto""#), 400, "invalid_value"),
            (chat(r#","functions":[{}]"#), 400, "unsupported_parameter"),
            (chat(r#","temperature":3"#), 400, "invalid_value"),
            (chat(r#","temperature":"hot""#), 400, "invalid_value"),
            (chat(r#","max_tokens":0"#), 400, "invalid_value"),
            (
                chat(r#","stop":["a","b","c","d","e"]"#),
                400,
                "invalid_value",
            ),
            (chat(r#","stream_options":{}"#), 400, "invalid_value"),
            (
                chat(r#","response_format":{"type":"xml"}"#),
                400,
                "invalid_value",
            ),
            (
                chat(r#","response_format":{"type":"json_schema"}"#),
                400,
                "missing_required_parameter",
            ),
            (chat(r#","who_knows":1"#), 400, "unknown_parameter"),
        ];
        assert!(cases.len() >= 30);
        for ((method, path, headers, body), status, code) in cases {
            let answer = server.send(method, &path, headers, &body).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            assert_eq!(answer.status, status, "{method} {path} {shown}: {answer:?}");
            assert_eq!(answer.code(), code, "{method} {path} {shown}");
            assert!(answer.header("x-request-id").is_some());
        }
        // An image, and a role that is none.
        let image = json!({"model": "chat", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "x"}}]}]});
        let answer = server.post("/v1/chat/completions", &image).await;
        let param = "messages[0].content[0].type";
        assert_eq!(answer.json()["error"]["param"], param);
        let role = json!({"model": "chat", "messages": [{"role": "robot", "content": "x"}]});
        let answer = server.post("/v1/chat/completions", &role).await;
        assert_eq!(answer.json()["error"]["param"], "messages[0].role");
        // Nothing of all this was taken.
        let report = server.gateway.ledger().check(None).unwrap();
        assert_eq!(
            (report.accepted, report.finished, report.not_run),
            (0, 0, 0)
        );
        assert_eq!(report.findings, []);
    });
}

#[test]
fn strangers_and_other_hosts_get_nothing() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let get =
            |lines: &str| format!("GET /v1/models HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        let key = format!("Authorization: Bearer {}\r\n", server.key);
        let cases = [
            ("Host: localhost\r\n".to_owned(), 401),
            (
                "Host: localhost\r\nAuthorization: Bearer tsk_00\r\n".to_owned(),
                401,
            ),
            (
                "Host: localhost\r\nAuthorization: Basic eDp5\r\n".to_owned(),
                401,
            ),
            (
                "Host: localhost\r\nAuthorization: Bearer\r\n".to_owned(),
                401,
            ),
            (format!("Host: evil.example\r\n{key}"), 421),
            (format!("Host: localhost.evil.example\r\n{key}"), 421),
            (format!("Host: localhost:80:80\r\n{key}"), 421),
            (
                format!("Host: localhost\r\nHost: evil.example\r\n{key}"),
                400,
            ),
            (key.clone(), 400),
            (format!("Host: \r\n{key}"), 421),
            (format!("Host: localhost\r\n{key}{key}"), 401),
            (
                format!("Host: localhost\r\nOrigin: https://evil.example\r\n{key}"),
                403,
            ),
            (format!("Host: localhost\r\nOrigin: null\r\n{key}"), 403),
            (format!("Host: LOCALHOST:8080\r\n{key}"), 200),
            (format!("Host: [::1]:8080\r\n{key}"), 200),
        ];
        for (lines, status) in cases {
            let answer = server.raw(get(&lines).as_bytes()).await;
            assert_eq!(answer.status, status, "{lines}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    });
}

#[test]
fn no_key_and_the_word_anonymous_are_the_anonymous_account_where_there_is_one() {
    wait(async {
        let open = server(|_, http, _| http.anonymous = Some("bot".to_owned())).await;
        let shut = server(|_, _, _| ()).await;
        for (key, when_open) in [
            ("", 200),
            ("Authorization: Bearer anonymous\r\n", 200),
            // A key that is wrong or was revoked is nobody's, not even here.
            ("Authorization: Bearer tsk_00\r\n", 401),
            ("Authorization: Bearer Anonymous\r\n", 401),
            ("Authorization: Basic anonymous\r\n", 401),
        ] {
            let get = format!(
                "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{key}Connection: close\r\n\r\n"
            );
            assert_eq!(open.raw(get.as_bytes()).await.status, when_open, "{key}");
            assert_eq!(shut.raw(get.as_bytes()).await.status, 401, "{key}");
        }
    });
}

#[test]
fn slow_and_broken_connections_end_and_others_are_answered_meanwhile() {
    wait(async {
        let server = server(|_, http, _| {
            http.head_time_max = Duration::from_secs(2);
            http.body_time_max = Duration::from_secs(2);
        })
        .await;
        // Half a head, and nothing more: closed without an answer, or with one that says so.
        let mut half = TcpStream::connect(server.address).await.unwrap();
        half.write_all(b"GET /v1/models HTTP/1.1\r\nHost: local")
            .await
            .unwrap();
        // A body that never comes, and one that stops half-way.
        let never = server.head("POST", "/v1/jobs", JSON, Some(100));
        let mut never_stream = TcpStream::connect(server.address).await.unwrap();
        never_stream.write_all(never.as_bytes()).await.unwrap();
        let path = format!("/v1/blobs/{}", Digest::of(b"0123456789").to_hex());
        let mut upload = TcpStream::connect(server.address).await.unwrap();
        let head = server.head("PUT", &path, "", Some(10));
        upload.write_all(head.as_bytes()).await.unwrap();
        upload.write_all(b"01234").await.unwrap();
        assert_eq!(server.get("/v1/models").await.status, 200);
        let mut bytes = Vec::new();
        let _ = half.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408"),
            "{text}"
        );
        let answer = read_answer(&mut never_stream).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (408, "body_too_slow")
        );
        let answer = read_answer(&mut upload).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (408, "body_too_slow")
        );
        // What came of the upload is kept.
        let answer = server.send("HEAD", &path, "", b"").await;
        assert_eq!(
            (answer.status, answer.header("upload-offset")),
            (204, Some("5"))
        );
        // Bytes that are no HTTP, a head without end, a chunk that is none.
        for (bytes, status) in [
            (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec(), 400),
            (b"GET / HTTP/9.9\r\n\r\n".to_vec(), 400),
            (
                [
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec(),
                    vec![b'a'; 40_000],
                ]
                .concat(),
                431,
            ),
            (
                [
                    server
                        .head("POST", "/v1/jobs", JSON, None)
                        .replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n")
                        .into_bytes(),
                    b"zz\r\n".to_vec(),
                ]
                .concat(),
                400,
            ),
        ] {
            let answer = server.raw(&bytes).await;
            assert_eq!(answer.status, status, "{:?}", &bytes[..20]);
        }
        assert_eq!(server.get("/v1/models").await.status, 200);
    });
}

/// Any JSON, and often of names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "stop",
        "seed",
        "stream",
        "stream_options",
        "response_format",
        "json_schema",
        "schema",
        "max_tokens",
        "temperature",
        "input",
        "prompt",
        "manifest",
        "manifest_toml",
        "request",
        "n",
        "tools",
        "tool_choice",
        "tool_calls",
        "tool_call_id",
        "function",
        "name",
        "arguments",
        "parameters",
        "logprobs",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "user|text|json_schema|none|blake3:.{0,5}|\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|pairs| {
                let pairs = pairs.into_iter();
                Value::Object(
                    pairs
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

#[test]
fn any_json_is_refused_without_harm() {
    let mut runner = TestRunner::deterministic();
    wait(async {
        let server = server(|_, _, _| ()).await;
        for _ in 0..400 {
            let body = any_json().new_tree(&mut runner).unwrap().current();
            for path in [
                "/v1/jobs",
                "/v1/quote",
                "/v1/chat/completions",
                "/v1/completions",
                "/v1/embeddings",
            ] {
                let answer = server.post(path, &body).await;
                // None names a model that is there, so nothing runs.
                assert!(
                    [400, 404, 409].contains(&answer.status),
                    "{path} {body}: {answer:?}"
                );
                answer.code();
            }
        }
        let report = server.gateway.ledger().check(None).unwrap();
        assert_eq!((report.accepted, report.not_run), (0, 0));
    });
}
