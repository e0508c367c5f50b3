//! Prices, quotes, credit and quotas, as clients meet them.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;
use tussah_manifest::{Channel, Digest, Document as _, Nanograms};
use tussah_provider::gateway::{PriceSheet, Verifiers};
use tussah_provider::ledger::{Change, CreditChange, LimitChanges};

use super::*;

fn sheet(base: u64, fuel: u64) -> PriceSheet {
    PriceSheet {
        base: nano(base),
        fuel: nano(fuel),
        inference: nano(0),
    }
}

#[test]
fn the_sheet_and_each_models_most_are_told() {
    wait(async {
        let server = server(|config, _, _| config.prices = sheet(100, 50)).await;
        let prices = server.get("/v1/prices").await.json();
        assert_eq!(prices["prices"]["base_nanograms"], "100");
        assert_eq!(prices["prices"]["nanograms_per_billion_fuel"], "50");
        let models = prices["models"].as_array().unwrap();
        let null = models
            .iter()
            .find(|model| model["model"] == "null")
            .unwrap();
        // The default limit is 10^10 units of fuel.
        assert_eq!(null["price_nanograms_max"], "600");
        assert_eq!(prices["credit_left_nanograms"], Value::Null);
        let nobody = b"GET /v1/prices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert_eq!(server.raw(nobody).await.status, 401);
    });
}

/// What a manifest allows, what the client names, what comes of it.
#[test]
fn a_job_is_taken_where_its_most_is_paid_for() {
    wait(async {
        let server = server(|config, _, _| config.prices = sheet(100, 50)).await;
        for (of_manifest, of_client, cap, taken, reason) in [
            (
                0,
                None,
                600,
                true,
                "nobody says anything: it costs what it comes to",
            ),
            (
                0,
                Some(600),
                600,
                true,
                "the manifest leaves it to the client",
            ),
            (
                0,
                Some(599),
                599,
                false,
                "the client pays less than it can cost",
            ),
            (0, Some(0), 0, false, "the client pays nothing"),
            (600, None, 600, true, "the manifest allows it"),
            (599, None, 599, false, "the manifest allows less"),
            (
                599,
                Some(600),
                599,
                false,
                "the client cannot allow more than the manifest",
            ),
            (700, Some(650), 650, true, "both allow it"),
            (
                700,
                Some(599),
                599,
                false,
                "the manifest allows it, the client does not",
            ),
            (
                Nanograms::MAX.get(),
                Some(Nanograms::MAX.get()),
                Nanograms::MAX.get(),
                true,
                "all there is",
            ),
        ] {
            let mut manifest = manifest("null");
            manifest.job.price_nanograms_max = nano(of_manifest);
            let mut ask = json!({"manifest_toml": toml(&manifest)});
            if let Some(max) = of_client {
                ask["max_price_nanograms"] = json!(max.to_string());
            }
            let quote = server.post("/v1/quote", &ask).await.json();
            assert_eq!(quote["price_nanograms_max"], "600", "{reason}");
            assert_eq!(quote["cap_nanograms"], cap.to_string(), "{reason}");
            assert_eq!(quote["covered"], taken, "{reason}");
            ask["input"] = json!("a");
            let answer = server.post("/v1/jobs", &ask).await;
            match taken {
                true => assert_eq!(answer.status, 202, "{reason}: {answer:?}"),
                false => {
                    assert_eq!(answer.status, 400, "{reason}");
                    assert_eq!(answer.code(), "price_too_low", "{reason}");
                    let param = &answer.json()["error"]["param"];
                    assert_eq!(param, "max_price_nanograms", "{reason}");
                }
            }
        }
        let over = json!({"model": "null", "max_price_nanograms": "5000000000000000001"});
        assert_eq!(server.post("/v1/quote", &over).await.status, 400);
        let large = json!({"model": "null", "input_bytes": u64::MAX});
        let refused = server.post("/v1/quote", &large).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (413, "input_too_large")
        );
        let small = json!({"model": "null", "input_bytes": 1});
        assert_eq!(server.post("/v1/quote", &small).await.status, 200);
    });
}

#[test]
fn the_dearest_sheet_there_is_refuses_and_does_not_overflow() {
    wait(async {
        let server = server(|config, _, _| {
            config.prices = PriceSheet {
                base: Nanograms::MAX,
                fuel: Nanograms::MAX,
                inference: Nanograms::MAX,
            };
        })
        .await;
        let quote = server.post("/v1/quote", &json!({"model": "null"})).await;
        let quote = quote.json();
        assert_eq!(quote["price_nanograms_max"], "5000000000000000000");
        assert_eq!(quote["covered"], false);
        let submit = json!({"model": "null", "input": "a"});
        assert_eq!(
            server.post("/v1/jobs", &submit).await.code(),
            "price_too_low"
        );
    });
}

#[test]
fn credit_is_set_aside_for_each_job_at_once_and_spent_by_what_they_cost() {
    wait(async {
        let server = server(|config, _, _| config.prices = sheet(100, 50)).await;
        let ledger = server.gateway.ledger();
        let credit = LimitChanges {
            credit: CreditChange::To(nano(1300)),
            ..LimitChanges::default()
        };
        ledger.change_limits("bot", credit).unwrap();
        // Of many at once two fit, since each may cost 600.
        let submit = |number: u32| json!({"model": "null", "input": format!("{number}")});
        let bodies: Vec<_> = (0..10).map(submit).collect();
        let posts = bodies.iter().map(|body| server.post("/v1/jobs", body));
        let answers = futures_util::future::join_all(posts).await;
        let taken = answers.iter().filter(|answer| answer.status == 202).count();
        assert_eq!(taken, 2);
        for refused in answers.iter().filter(|answer| answer.status != 202) {
            assert_eq!(refused.status, 402);
            let error = &refused.json()["error"];
            assert_eq!(error["type"], "insufficient_quota");
            assert_eq!(error["code"], "insufficient_quota");
        }
        let chat = json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]});
        let refused = server.post("/v1/chat/completions", &chat).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (402, "insufficient_quota")
        );
        let prices = server.get("/v1/prices").await.json();
        assert_eq!(prices["credit_left_nanograms"], "100");
        let quote = server
            .post("/v1/quote", &json!({"model": "null"}))
            .await
            .json();
        assert_eq!(quote["credit_reaches"], false);

        // A run used 10^9 units of fuel: 150 of the 600 that were set aside.
        drop(peer::attach(&server.gateway));
        for answer in answers.iter().filter(|answer| answer.status == 202) {
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            server.get(&format!("/v1/jobs/{id}/events")).await;
        }
        let account = &ledger.accounts().unwrap()[0];
        assert_eq!((account.spent, account.reserved), (nano(300), nano(0)));
        assert_eq!(account.credit_left(), Some(nano(1000)));
        assert_eq!(server.post("/v1/jobs", &submit(10)).await.status, 202);
        assert!(ledger.check(None).unwrap().findings.is_empty());
    });
}

#[test]
fn an_account_brings_so_many_jobs_a_minute() {
    wait(async {
        let server = server(|config, _, _| config.account_per_minute_max = Some(2)).await;
        let submit = |number: u32| json!({"model": "null", "input": format!("{number}")});
        let first = server.post("/v1/jobs", &submit(0)).await;
        assert_eq!(first.status, 202);
        assert_eq!(server.post("/v1/jobs", &submit(1)).await.status, 202);
        let refused = server.post("/v1/jobs", &submit(2)).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (429, "rate_limit_exceeded")
        );
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
        // An account's own limit counts in place of everybody's.
        let ledger = server.gateway.ledger();
        let own = LimitChanges {
            per_minute_max: Change::To(3),
            ..LimitChanges::default()
        };
        let key = ledger.new_api_key_with("own", "own", own, NOW).unwrap();
        let other = Server {
            key: key.reveal().to_owned(),
            ..server
        };
        for (number, status) in [(0, 202), (1, 202), (2, 202), (3, 429)] {
            let answer = other.post("/v1/jobs", &submit(number)).await;
            assert_eq!(answer.status, status, "{number}");
        }
    });
}

#[test]
fn an_account_uploads_so_many_bytes() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let ledger = server.gateway.ledger();
        let some = LimitChanges {
            upload_bytes_max: Change::To(5),
            ..LimitChanges::default()
        };
        ledger.change_limits("bot", some).unwrap();
        let path = |bytes: &[u8]| format!("/v1/blobs/{}", Digest::of(bytes));
        let put = async |bytes: &[u8]| server.send("PUT", &path(bytes), "", bytes).await;
        assert_eq!(put(b"abc").await.status, 201);
        // It is here: to send it again is no upload.
        assert_eq!(put(b"abc").await.status, 200);
        let refused = put(b"defg").await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (402, "upload_quota_exceeded")
        );
        // Two pieces are one blob.
        for (range, piece, status) in [("0-0", b"x", 202), ("1-1", b"y", 201)] {
            let range = format!("Content-Range: bytes {range}/2\r\n");
            let answer = server.send("PUT", &path(b"xy"), &range, piece).await;
            assert_eq!(answer.status, status, "{answer:?}");
        }
        assert_eq!(ledger.accounts().unwrap()[0].uploaded_bytes, 5);
        assert_eq!(put(b"z").await.status, 402);
    });
}

/// A voucher is promised for what was run; nothing is taken for a module that is not run here.
#[test]
fn a_module_without_a_claim_is_refused_before_its_voucher_is_taken() {
    wait(async {
        // There are no books here, which is what a voucher that comes to them is told.
        for (is_asked, status, code) in [
            (false, 404, "channel_not_found"),
            (true, 403, "module_not_verified"),
        ] {
            let server = server(|config, _, _| {
                let folder = config.blobs.join("claims");
                let keys = vec![key(9).public_key()];
                config.admission.verified_by = is_asked.then_some(Verifiers { keys, folder });
            })
            .await;
            let manifest = manifest("null");
            let mut body = request(1, &manifest, b"hello", 1000).body;
            let address = format!("0:{}", "11".repeat(32)).parse().unwrap();
            body.channel = Channel::Ton { address, index: 1 };
            let job = body.job_id();
            let request = body.sign(&client_key()).unwrap().to_bytes();
            let ask = json!({
                "manifest_toml": toml(&manifest),
                "input": "hello",
                "request": BASE64.encode(request),
                "voucher": {
                    "amount_nanograms": "1",
                    "receipts": "1",
                    "root": format!("sha256:{}", "22".repeat(32)),
                    "signature": "33".repeat(64),
                },
            });
            let answer = server.post("/v1/jobs", &ask).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code));
            assert_eq!(server.get(&format!("/v1/jobs/{job}")).await.status, 404);
        }
    });
}
