//! The jobs API, from an uploaded module to an opened receipt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tussah_manifest::{Digest, Document as _, ModuleRef, Opening, Receipt};
use tussah_provider::gateway::PriceSheet;
use tussah_provider::http::serve_health;
use tussah_provider::ledger::PruneStep;
use tussah_provider::queue::QueueLimits;

use super::*;

async fn ended(server: &Server, id: &str) -> Value {
    let stream = server.get(&format!("/v1/jobs/{id}/events")).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let (name, data) = events(&stream.text()).pop().unwrap();
    assert_eq!(name, "ended", "{data}");
    serde_json::from_str(&data).unwrap()
}

#[test]
fn a_job_goes_from_upload_to_receipt() {
    wait(async {
        let server = Server::with_worker().await;
        let module = b"\0asm another module";
        let digest = Digest::of(module);
        let mut manifest = manifest("null");
        manifest.module = ModuleRef::of(module);
        let submit = json!({"manifest_toml": toml(&manifest), "input": "hello"});
        let refused = server.post("/v1/jobs", &submit).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "blob_missing")
        );
        // In two pieces, asked in between.
        let path = format!("/v1/blobs/{digest}");
        let head = server.send("HEAD", &path, "", b"").await;
        assert_eq!(
            (head.status, head.header("upload-offset")),
            (404, Some("0"))
        );
        let total = module.len();
        let range = format!("Content-Range: bytes 0-6/{total}\r\n");
        let first = server.send("PUT", &path, &range, &module[..7]).await;
        assert_eq!(
            (first.status, first.header("upload-offset")),
            (202, Some("7"))
        );
        let range = format!("Content-Range: bytes 7-{}/{total}\r\n", total - 1);
        let second = server.send("PUT", &path, &range, &module[7..]).await;
        assert_eq!(second.status, 201, "{second:?}");
        assert_eq!(server.send("HEAD", &path, "", b"").await.status, 200);
        let accepted = server.post("/v1/jobs", &submit).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        let id = accepted.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(
            accepted.header("location"),
            Some(format!("/v1/jobs/{id}").as_str())
        );
        let end = ended(&server, &id).await;
        // Whoever comes back says what was heard, and gets the rest.
        let path = format!("/v1/jobs/{id}/events");
        for (heard, expected) in [("0", "HELLO"), ("2", "LLO"), ("5", ""), ("99", "")] {
            let header = format!("Last-Event-ID: {heard}\r\n");
            let back = server.send("GET", &path, &header, b"").await.text();
            let told: Vec<u8> = events(&back)
                .into_iter()
                .filter(|(name, _)| name == "output")
                .flat_map(|(_, data)| {
                    let data: Value = serde_json::from_str(&data).unwrap();
                    BASE64.decode(data["base64"].as_str().unwrap()).unwrap()
                })
                .collect();
            assert_eq!(String::from_utf8_lossy(&told), expected, "{back}");
            assert_eq!(back.contains("id: 5\n"), !expected.is_empty(), "{back}");
        }
        let wrong = server.send("GET", &path, "Last-Event-ID: x\r\n", b"").await;
        assert_eq!(wrong.status, 400, "{wrong:?}");
        let path = format!("/v1/manifests/{}", manifest.digest());
        let stored = server.get(&path).await;
        assert_eq!(stored.body, manifest.to_bytes());
        assert_eq!(
            (end["status"].as_str(), end["ended"].as_bool()),
            (Some("done"), Some(true))
        );
        // By then all of it can be had, by its owner.
        let output = server.get(&format!("/v1/jobs/{id}/output")).await;
        assert_eq!(output.body, b"HELLO");
        let accept = "Accept: application/octet-stream\r\n";
        let receipt = server
            .send("GET", &format!("/v1/jobs/{id}/receipt"), accept, b"")
            .await;
        let receipt = Receipt::from_verified_bytes(&receipt.body).unwrap();
        let opening = server.get(&format!("/v1/jobs/{id}/opening")).await;
        let opening = Opening::from_bytes(&opening.body).unwrap();
        opening.matches(&receipt).unwrap();
        assert_eq!(opening.output_digest(b"HELLO"), receipt.consensus.output);
        let view = server.get(&format!("/v1/jobs/{id}/receipt")).await.json();
        assert_eq!(view["consensus"]["job"], id.as_str());
        // Who comes after the end hears the same.
        let text = server.get(&format!("/v1/jobs/{id}/events")).await.text();
        let output = &events(&text)[0];
        assert_eq!(
            output.1,
            json!({"base64": BASE64.encode("HELLO")}).to_string()
        );
        // To another account the job is not there.
        let other = server
            .gateway
            .ledger()
            .new_api_key("other", "other", NOW)
            .unwrap();
        let other = Server {
            key: other.reveal().to_owned(),
            ..server
        };
        for what in ["", "/events", "/output", "/receipt", "/opening", "/log"] {
            let answer = other.get(&format!("/v1/jobs/{id}{what}")).await;
            assert_eq!(answer.status, 404, "{what}");
        }
        let cancel = other
            .post(&format!("/v1/jobs/{id}/cancel"), &json!({}))
            .await;
        assert_eq!(cancel.status, 404);
    });
}

#[test]
fn a_signed_request_is_one_job_however_often_it_is_sent() {
    wait(async {
        let server = Server::with_worker().await;
        let signed = request(9, &manifest("null"), b"hello", 10);
        let submit = json!({
            "model": "null",
            "input_base64": BASE64.encode("hello"),
            "request": BASE64.encode(signed.to_bytes()),
        });
        let first = server.post("/v1/jobs", &submit).await;
        assert_eq!(first.status, 202);
        let id = signed.body.job_id().to_string();
        assert_eq!(first.json()["id"], id.as_str());
        ended(&server, &id).await;
        let again = server.post("/v1/jobs", &submit).await;
        assert_eq!(again.status, 200);
        assert_eq!(again.json()["status"], "done");
    });
}

#[test]
fn cancelling_ends_what_runs_and_what_waits() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let submit = json!({"model": "null", "input": "wait"});
        let id_of = |answer: Answer| answer.json()["id"].as_str().unwrap().to_owned();
        let waiting = id_of(server.post("/v1/jobs", &submit).await);
        assert_eq!(
            server.get(&format!("/v1/jobs/{waiting}")).await.json()["status"],
            "queued"
        );
        for part in ["output", "log", "receipt", "claim", "opening"] {
            let early = server.get(&format!("/v1/jobs/{waiting}/{part}")).await;
            let refused = (early.status, early.code());
            assert_eq!(refused, (409, "job_not_ended".to_owned()), "{part}");
        }
        let cancel = |id: &str| format!("/v1/jobs/{id}/cancel");
        assert_eq!(server.post(&cancel(&waiting), &json!({})).await.status, 202);
        let end = ended(&server, &waiting).await;
        assert_eq!(end["status"], "not-run");
        assert_eq!(end["error"]["fault"], "client");
        drop(peer::attach(&server.gateway));
        let running = id_of(server.post("/v1/jobs", &submit).await);
        assert_eq!(server.post(&cancel(&running), &json!({})).await.status, 202);
        assert_eq!(ended(&server, &running).await["ended"], true);
        // It has ended: that is no error, and changes nothing.
        assert_eq!(server.post(&cancel(&running), &json!({})).await.status, 200);
        // It was not paid through a channel.
        let claim = server.get(&format!("/v1/jobs/{running}/claim")).await;
        assert_eq!((claim.status, claim.code().as_str()), (404, "not_found"));
    });
}

#[test]
fn a_name_in_a_path_that_is_no_text_is_refused_as_all_is() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        for (method, path) in [
            ("GET", "/v1/jobs/%ff"),
            ("GET", "/v1/jobs/%ff/claim"),
            ("GET", "/v1/channels/%ff"),
            ("POST", "/v1/channels/%ff/vouchers"),
            ("GET", "/v1/models/%ff"),
        ] {
            let answer = server.send(method, path, "", b"").await;
            let refused = (answer.status, answer.code());
            assert_eq!(refused, (400, "invalid_path".to_owned()), "{method} {path}");
        }
    });
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    wait(async {
        let server = server(|config, _, _| config.queue.account_queued_max = 1).await;
        let submit = json!({"model": "null", "input": "hello"});
        assert_eq!(server.post("/v1/jobs", &submit).await.status, 202);
        let full = server.post("/v1/jobs", &submit).await;
        assert_eq!((full.status, full.code().as_str()), (429, "queue_full"));
        let seconds: u64 = full.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds >= 1);
        assert_eq!(full.json()["error"]["type"], "rate_limit_error");
    });
}

#[test]
fn quotes_and_credit_are_in_nanograms() {
    wait(async {
        let server = server(|config, _, _| {
            config.prices = PriceSheet {
                base: nano(100),
                fuel: nano(50),
                inference: nano(0),
            };
        })
        .await;
        let quote = server
            .post("/v1/quote", &json!({"model": "null"}))
            .await
            .json();
        // The default limit is 10^10 units of fuel.
        assert_eq!(quote["price_nanograms_max"], "600");
        assert_eq!(quote["cap_nanograms"], "1000000");
        assert_eq!(quote["covered"], true);
        let cheap = json!({"model": "null", "max_price_nanograms": "599"});
        let quote = server.post("/v1/quote", &cheap).await.json();
        assert_eq!(
            (&quote["cap_nanograms"], &quote["covered"]),
            (&json!("599"), &json!(false))
        );
        let low = json!({"model": "null", "input": "a", "max_price_nanograms": 599});
        let refused = server.post("/v1/jobs", &low).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "price_too_low")
        );
        let limits = tussah_provider::ledger::AccountLimits {
            credit_nanograms: Some(nano(1000)),
            ..Default::default()
        };
        server.gateway.ledger().set_limits("bot", limits).unwrap();
        let submit = json!({"model": "null", "input": "hello"});
        assert_eq!(server.post("/v1/jobs", &submit).await.status, 202);
        let refused = server.post("/v1/jobs", &submit).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (402, "insufficient_quota")
        );
    });
}

#[test]
fn health_is_on_its_own_port_and_says_nothing_of_anybody() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = server.gateway.clone();
        tokio::spawn(async {
            let hosts = HttpConfig::default().hosts;
            serve_health(gateway, &hosts, listener, std::future::pending()).await
        });
        let health = Server { address, ..server };
        assert_eq!(health.get("/healthz").await.body, b"ok\n");
        let ready = health.get("/readyz").await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["reason"], "no worker is ready");
        let metrics = health.get("/metrics").await.text();
        assert!(metrics.contains("tussah_jobs_waiting 0\n"), "{metrics}");
        assert!(!metrics.contains("bot"), "{metrics}");
        let status = health.get("/status").await.json();
        assert_eq!(
            (
                &status["state"],
                &status["reason"],
                &status["jobs_running_max"]
            ),
            (
                &json!("not-ready"),
                &json!("no worker is ready"),
                &json!(QueueLimits::default().running_max)
            )
        );
        // No page and no name that somebody pointed here reads any of it.
        for (lines, expected) in [
            ("Host: evil.example:8898\r\n", 421),
            ("Host: localhost\r\nHost: localhost\r\n", 400),
            ("", 400),
            ("Host: localhost\r\nOrigin: http://localhost\r\n", 403),
            ("Host: 127.0.0.1:8898\r\n", 200),
        ] {
            let request = format!("GET /status HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
            let answer = health.raw(request.as_bytes()).await;
            assert_eq!(answer.status, expected, "{lines}");
        }
        assert_eq!(health.get("/v1/models").await.status, 404);
    });
}

#[test]
fn uploads_are_held_to_the_allow_list_the_quota_and_their_digest() {
    wait(async {
        let allowed = [Digest::of(b"good"), Digest::of(&[0; 900])];
        let server = server(|_, _, rules| {
            rules.allowed = Some(allowed.into());
            rules.quota_bytes = 100;
        })
        .await;
        let put = async |digest: Digest, body: &[u8]| {
            server
                .send("PUT", &format!("/v1/blobs/{digest}"), "", body)
                .await
        };
        let answer = put(Digest::of(b"bad"), b"bad").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "blob_not_allowed")
        );
        let answer = put(Digest::of(b"good"), b"evil").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "other_digest")
        );
        let answer = put(Digest::of(&[0; 900]), &[0; 900]).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (507, "quota_exceeded")
        );
        assert_eq!(put(Digest::of(b"good"), b"good").await.status, 201);
        // Once more is no work and no error.
        assert_eq!(put(Digest::of(b"good"), b"good").await.status, 200);
    });
}

#[test]
fn a_client_that_would_wait_is_answered_with_the_end() {
    wait(async {
        let server = Server::with_worker().await;
        let ask = async |prefer: &str, input: &str| {
            let body = json!({"model": "null", "input": input}).to_string();
            let head = format!("Content-Type: application/json\r\n{prefer}");
            server
                .send("POST", "/v1/jobs", &head, body.as_bytes())
                .await
        };
        for prefer in [
            "Prefer: wait=60\r\n",
            "Prefer: respond-async, Wait=\"60\"; x=1\r\n",
            "Prefer: respond-async\r\nPrefer: wait=60\r\n",
        ] {
            let answer = ask(prefer, "hello").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("preference-applied"), Some("wait=60"));
            assert_eq!(answer.json()["status"], "done");
        }
        // One that takes longer is answered as it stands, and goes on.
        let answer = ask("Prefer: wait=0\r\n", "wait").await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        // What is no such preference changes nothing.
        for prefer in ["Prefer: wait\r\n", "Prefer: wait=soon\r\n", "Prefer: \r\n"] {
            let answer = ask(prefer, "hello").await;
            assert_eq!(answer.status, 202, "{answer:?}");
            assert_eq!(answer.header("preference-applied"), None);
        }
        let view = server.get(&format!("/v1/jobs/{id}")).await.json();
        assert_eq!(view["ended"], false, "{view}");
    });
}

#[test]
fn what_was_removed_for_its_age_says_so_and_leaves_the_receipt() {
    wait(async {
        let server = Server::with_worker().await;
        let submit = json!({"model": "null", "input": "hello"});
        let accepted = server.post("/v1/jobs", &submit).await.json();
        let id = accepted["id"].as_str().unwrap().to_owned();
        ended(&server, &id).await;
        let all = PruneStep {
            ended_before_unix_ms: u64::MAX / 2,
            jobs_max: 10,
            pages_max: 10,
        };
        server.gateway.ledger().prune(all, NOW).await.unwrap();
        for part in ["output", "log", "events"] {
            let gone = server.get(&format!("/v1/jobs/{id}/{part}")).await;
            let found = (gone.status, gone.code());
            assert_eq!(found, (410, "content_removed".to_owned()), "{part}");
        }
        for part in ["receipt", "opening"] {
            let here = server.get(&format!("/v1/jobs/{id}/{part}")).await;
            assert_eq!(here.status, 200, "{part}: {here:?}");
        }
        let view = server.get(&format!("/v1/jobs/{id}")).await.json();
        assert_eq!(view["removed_unix_ms"], NOW);
    });
}

#[test]
fn bodies_take_no_more_memory_than_they_may_together() {
    wait(async {
        let server = server(|_, http, _| {
            http.bodies_bytes_max = 5000;
            http.account_bodies_bytes_max = 3000;
        })
        .await;
        let head = |key: &str, bytes: usize| {
            format!(
                "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
                 Content-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
            )
        };
        // Most of a body, and then nothing for a while.
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        let sent = head(&server.key, 2900) + &" ".repeat(2800);
        slow.write_all(sent.as_bytes()).await.unwrap();
        let submit = json!({"model": "null", "input": "x".repeat(500)});
        // The same account finds no room once those bytes were read, and is told when to try again.
        let refused = loop {
            let answer = server.post("/v1/jobs", &submit).await;
            if answer.status != 202 {
                break answer;
            }
        };
        assert_eq!(
            (
                refused.status,
                refused.code().as_str(),
                refused.header("retry-after")
            ),
            (429, "bodies_full", Some("1"))
        );
        // Another account has room.
        let ledger = server.gateway.ledger();
        let key = ledger.new_api_key("other", "other", NOW).unwrap();
        let body = submit.to_string();
        let other = head(key.reveal(), body.len()).replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let answer = server.raw((other + &body).as_bytes()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        // The room comes back with the end of the slow one.
        drop(slow);
        while server.post("/v1/jobs", &submit).await.status != 202 {}
    });
}
