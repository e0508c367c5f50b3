//! Prices, credit and quotas through the started daemon and its commands.

use serde_json::{Value, json};

use super::{Daemon, deploy};
use crate::{fixture::Sandbox, worker::ECHO};

#[test]
fn credit_is_spent_by_receipts_and_refused_when_it_is_used_up() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let prices = ["--price-base", "400000000", "--price-fuel", "0"];
    let daemon = Daemon::start_with(&sandbox, "shop", &prices);
    let credit = |change: &str| -> Value {
        let changed = sandbox.run(&["serve", "credit", "shop", change, "--json"]);
        changed.expect(0).json()
    };
    assert_eq!(credit("1")["left_nanograms"], "1000000000");
    let ask = |input: &str| {
        let body = json!({"model": "echo", "input": input}).to_string();
        daemon.ask("POST", "/v1/jobs", &body, "*/*")
    };
    for input in ["one", "two"] {
        let job = ask(input).expect(202).json()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(daemon.wait_for(&job)["price_nanograms"], "400000000");
        let receipt = daemon.verified(&sandbox, &job);
        assert_eq!(receipt["consensus"]["price_nanograms"], "400000000");
    }
    // 0.2 GRAM are left of one, and a job may cost 0.4.
    let refused = ask("three").expect(402).json();
    assert_eq!(refused["error"]["type"], "insufficient_quota");
    assert_eq!(refused["error"]["code"], "insufficient_quota");
    let quote = json!({"model": "echo"}).to_string();
    let quote = daemon
        .ask("POST", "/v1/quote", &quote, "*/*")
        .expect(200)
        .json();
    assert_eq!(quote["credit_left_nanograms"], "200000000");
    assert_eq!(quote["credit_reaches"], false);
    // More credit counts at once, without a restart.
    assert_eq!(credit("+0.2GRAM")["left_nanograms"], "400000000");
    let job = ask("three").expect(202).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    daemon.wait_for(&job);
    let listed = sandbox
        .run(&["serve", "account", "list", "--json"])
        .expect(0)
        .json();
    assert_eq!(listed[0]["spent_nanograms"], "1200000000");
    assert_eq!(listed[0]["left_nanograms"], "0");
    let low = json!({"model": "echo", "input": "x", "max_price_nanograms": "399999999"});
    let low = daemon
        .ask("POST", "/v1/jobs", &low.to_string(), "*/*")
        .expect(400);
    assert_eq!(low.json()["error"]["code"], "price_too_low");

    let set = [
        "serve",
        "account",
        "set",
        "shop",
        "--credit",
        "none",
        "--per-minute-max",
        "1",
    ];
    sandbox.run(&set).expect(0);
    let often = ask("four").json();
    let code = &often["error"]["code"];
    assert!(
        often["id"].is_string() || code == "rate_limit_exceeded",
        "{often}"
    );
    assert_eq!(
        ask("five").expect(429).json()["error"]["code"],
        "rate_limit_exceeded"
    );
    daemon.terminate().expect(0);
}

#[test]
fn a_key_comes_with_limits_and_what_is_no_amount_is_refused() {
    let sandbox = Sandbox::new();
    let add = [
        "serve",
        "key",
        "add",
        "bot",
        "--credit",
        "5GRAM",
        "--jobs-max",
        "2",
        "--json",
    ];
    sandbox.run(&add).expect(0);
    let account = sandbox
        .run(&["serve", "credit", "bot", "--json"])
        .expect(0)
        .json();
    assert_eq!(account["credit_nanograms"], "5000000000");
    assert_eq!(account["jobs_max"], 2);
    assert_eq!(account["per_minute_max"], Value::Null);
    for (arguments, words) in [
        (
            &["serve", "credit", "bot", "5TON"][..],
            "is no amount in GRAM",
        ),
        (
            &["serve", "credit", "bot", "+5000000000"],
            "more than there is",
        ),
        (&["serve", "credit", "nobody", "1"], "no account `nobody`"),
        (
            &["serve", "account", "set", "bot", "--jobs-max", "0"],
            "from 1 on",
        ),
        (
            &["serve", "--price-base", "1.5"],
            "from 0 to 5000000000000000000",
        ),
        (
            &["serve", "--price-fuel", "5000000000000000001"],
            "from 0 to 5000000000000000000",
        ),
    ] {
        sandbox.run(arguments).expect(2).says(words);
    }
    sandbox.run(&["serve", "credit", "bot", "none"]).expect(0);
    sandbox
        .run(&["serve", "credit", "bot", "+1"])
        .expect(2)
        .says("no credit limit to raise or lower");
}
