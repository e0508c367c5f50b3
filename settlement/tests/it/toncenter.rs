//! `Toncenter` against a server that says what it is told to: real answers, and all that can fail.
//!
//! `tests/vectors/toncenter.json` holds answers of real servers as public repositories quote them:
//! the JSON-RPC tests of a TON node in Rust, the documentation of a Python client of tonlib,
//! and of TON developers' chats. Waits pass at once, and are written down.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tussah_settlement::chain::toncenter::ToncenterError;
use tussah_settlement::chain::{StackValue, Toncenter, ToncenterConfig};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::{AccountStatus, Address, Cell, Chain, ChainError};
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, HashBytes};
use zeroize::Zeroizing;

use crate::server::{Say, Server, TestClock, ok};

fn sample(name: &str) -> Value {
    let samples = include_str!("../vectors/toncenter.json");
    serde_json::from_str::<Value>(samples).unwrap()[name].take()
}

fn status(code: u16, headers: &'static str) -> Say {
    Say::Http(code, headers, b"<html>a gateway's words</html>".to_vec())
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Parameter 19 as servers answer with it.
pub(crate) fn network(id: i32) -> Say {
    let mut cell = CellBuilder::new();
    cell.store_u32(id.cast_unsigned()).unwrap();
    let bytes = Boc::encode_base64(cell.build().unwrap());
    ok(&json!({ "@type": "configInfo", "config": { "@type": "tvm.cell", "bytes": bytes } }))
}

/// Connects to a server that says its network and then `script`; returns what came of `ask`,
/// what the server was asked, and the waits.
fn with<T>(
    script: impl IntoIterator<Item = Say>,
    ask: impl AsyncFnOnce(Toncenter<TestClock>) -> T,
) -> (T, Vec<Value>, Vec<Duration>) {
    let server = Server::start([network(-3)].into_iter().chain(script).collect());
    let clock = TestClock::default();
    let config = ToncenterConfig::new(&server.url, None);
    let answer = run(async {
        let chain = Toncenter::connect_with(config, clock.clone())
            .await
            .unwrap();
        ask(chain).await
    });
    let asked = server.asked().into_iter().skip(1).map(|(_, body)| body);
    let waits = clock.0.waits.lock().unwrap().clone();
    (answer, asked.collect(), waits)
}

fn address() -> Address {
    Address::new(0, HashBytes([7; 32]))
}

fn error_of(script: impl IntoIterator<Item = Say>) -> (String, usize) {
    let (error, asked, _) = with(script, async |chain| chain.account(&address()).await);
    let error = error.unwrap_err();
    let ChainError::Toncenter(_) = &error else {
        panic!("{error:?}")
    };
    (error.to_string().replace('\n', " "), asked.len())
}

#[test]
fn real_answers_are_read() {
    let real = |name| Say::Http(200, "", sample(name).to_string().into_bytes());
    let refused = Say::Http(500, "", sample("not_accepted").to_string().into_bytes());
    let owner = "0:ffbd85ffba92089f5263a510ae89b7a8b0bc8bbea7c76102fb7154a4e84de04b";
    let owner: Address = owner.parse().unwrap();
    let script = [
        real("account_missing"),
        real("account_missing"),
        real("get_jetton_data"),
        real("sent"),
        refused,
        real("transactions"),
    ];
    let ((), asked, waits) = with(script, async |chain| {
        assert_eq!(chain.network(), NetworkId::TESTNET);
        let account = chain.account(&address()).await.unwrap();
        assert_eq!(
            (account.status, account.balance.get()),
            (AccountStatus::Missing, 0)
        );
        assert_eq!(chain.time().await.unwrap(), 1_762_349_033);

        let stack = chain
            .run_get_method(&address(), "get_jetton_data", vec![])
            .await;
        let stack = stack.unwrap();
        assert_eq!(stack.len(), 5);
        assert_eq!(stack[0], StackValue::from(100_000_000_000_000));
        assert_eq!(stack[1], StackValue::Int((-1).into()));
        // A reference to a library's code: an exotic cell.
        let StackValue::Cell(code) = &stack[4] else {
            panic!("{stack:?}")
        };
        assert!(code.descriptor().is_exotic());

        chain.send_boc(Cell::default()).await.unwrap();
        let error = chain.send_boc(Cell::default()).await.unwrap_err();
        assert!(
            matches!(error, ChainError::NotAccepted { exit_code: Some(0) }),
            "{error:?}"
        );

        let transactions = chain
            .transactions(&owner, 46_762_307_000_000)
            .await
            .unwrap();
        let [transaction] = &transactions[..] else {
            panic!("{transactions:?}")
        };
        assert_eq!(
            (transaction.lt, transaction.now),
            (46_762_307_000_001, 1_716_874_922)
        );
        assert_eq!(transaction.fees.get(), 396_402);
        assert_eq!(
            (transaction.exit_code, transaction.aborted),
            (Some(0), false)
        );
        assert_eq!(transaction.external_hash, None);
    });
    let methods = asked.iter().map(|body| body["method"].as_str().unwrap());
    let methods: Vec<&str> = methods.collect();
    assert_eq!(
        methods,
        [
            "getAddressInformation",
            "getAddressInformation",
            "runGetMethod",
            "sendBoc",
            "sendBoc",
            "getTransactions"
        ]
    );
    assert_eq!(asked[0]["params"]["address"], address().to_string());
    assert_eq!(
        asked[3]["params"]["boc"],
        Boc::encode_base64(Cell::default())
    );
    assert_eq!(waits, [], "a server on this machine has no limit");
}

#[test]
fn what_may_pass_is_tried_again() {
    let good = || Say::Http(200, "", sample("account_missing").to_string().into_bytes());
    let ms = Duration::from_millis;
    let limited = Say::Http(
        429,
        "retry-after: 7\r\n",
        json!({ "ok": false, "code": 429, "error": "Ratelimit exceeded" })
            .to_string()
            .into(),
    );
    let wrapped = json!({ "ok": false, "code": 504, "error": "LITE_SERVER_NETWORK timeout" });
    let wrapped = Say::Http(200, "", wrapped.to_string().into_bytes());
    // Half of each wait is certain, and the clock's number is in the middle of the rest.
    for (say, wait) in [
        (limited, ms(7_000)),
        (status(429, ""), ms(375)),
        (status(500, ""), ms(375)),
        (status(503, "retry-after: 1\r\n"), ms(1_000)),
        (
            status(502, "retry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),
            ms(375),
        ),
        (wrapped, ms(375)),
        (Say::Truncated, ms(375)),
        (Say::Nothing, ms(375)),
    ] {
        let (account, asked, waits) =
            with([say, good()], async |chain| chain.account(&address()).await);
        assert_eq!(account.unwrap().status, AccountStatus::Missing);
        assert_eq!((asked.len(), waits), (2, vec![wait]));
    }
    // No longer than five times, and ever more slowly.
    let script = vec![status(500, ""); 6];
    let (error, asked, waits) = with(script, async |chain| chain.account(&address()).await);
    assert!(error.unwrap_err().is_transient());
    assert_eq!(asked.len(), 6);
    assert_eq!(
        waits,
        [375, 750, 1_500, 3_000, 6_000].map(Duration::from_millis)
    );
    // Nor for a server that wants too much patience.
    let (error, asked) = error_of([status(429, "retry-after: 3600\r\n")]);
    assert!(error.contains("429"), "{error}");
    assert_eq!(asked, 1);
}

#[test]
fn what_cannot_pass_is_an_error_at_once() {
    let missing = sample("account_missing")["result"].take();
    let changed = |field: &str, value: Value| {
        let mut result = missing.clone();
        *result.pointer_mut(field).unwrap() = value;
        ok(&result)
    };
    let without = |field: &str| {
        let mut result = missing.clone();
        result.as_object_mut().unwrap().remove(field);
        ok(&result)
    };
    let http = |status, body: &str| Say::Http(status, "", body.as_bytes().to_vec());
    let endless = Say::Http(200, "", vec![b' '; (4 << 20) + 1]);
    for (say, words) in [
        (http(200, "<html>"), "`the answer` is not JSON"),
        (http(200, ""), "`the answer` is not JSON"),
        (http(200, "{\"ok\":true}"), "`result` is not there"),
        (http(200, "[]"), "refused `getAddressInformation` with 200"),
        (
            http(
                200,
                "{\"ok\":false,\"code\":422,\"error\":\"no\\u0007 address\"}",
            ),
            "with 422: no address",
        ),
        (
            http(
                401,
                "{\"ok\":false,\"code\":401,\"error\":\"API key does not exist\"}",
            ),
            "with 401: API key does not exist",
        ),
        (http(301, ""), "with 301"),
        (endless, "larger than 4194304 bytes"),
        (ok(&json!([])), "`result.balance` is not there"),
        (without("balance"), "`result.balance` is not there"),
        (
            without("last_transaction_id"),
            "`result.last_transaction_id` is not there",
        ),
        (
            changed("/balance", json!(-1)),
            "`result.balance` is not a whole number that is not negative",
        ),
        (
            changed("/balance", json!("-1")),
            "`result.balance` is not a whole number",
        ),
        (
            changed("/balance", json!("1e9")),
            "`result.balance` is not a whole number",
        ),
        (
            changed("/balance", json!(1.5)),
            "`result.balance` is not a whole number",
        ),
        (
            changed("/balance", json!("18446744073709551616")),
            "`result.balance` is not a whole number",
        ),
        (
            changed("/balance", json!("18446744073709551615")),
            "`result.balance` is not an amount that there is",
        ),
        (
            changed("/state", json!("dead")),
            "`result.state` is not `active`, `uninitialized` or `frozen`",
        ),
        (
            changed("/state", json!(1)),
            "`result.state` is not a string",
        ),
        (
            changed("/state", json!("frozen")),
            "`result.frozen_hash` is not 32 bytes in base64",
        ),
        (
            changed("/last_transaction_id/lt", json!(null)),
            "`result.last_transaction_id.lt` is not a whole number",
        ),
    ] {
        let (error, asked) = error_of([say]);
        assert!(error.contains(words), "{error}\nlacks {words}");
        assert_eq!(asked, 1, "{error}");
    }
    let mut result = missing.clone();
    result["state"] = json!("active");
    result["code"] = json!("te6ccgEBAQEAAgAAAA=");
    let (error, _) = error_of([ok(&result)]);
    assert!(
        error.contains("`result.code` is not a bag of cells in base64"),
        "{error}"
    );
}

#[test]
fn another_network_is_refused() {
    for (say, words) in [
        (network(-239), "this server is on network -239, not on -3"),
        (
            ok(&json!({ "config": { "bytes": Boc::encode_base64(Cell::default()) } })),
            "`result` is not 32 bits of network id",
        ),
        (
            ok(&json!({ "config": {} })),
            "`result.config.bytes` is not there",
        ),
    ] {
        let server = Server::start(vec![say]);
        let mut config = ToncenterConfig::new(&server.url, None);
        config.network = Some(NetworkId::TESTNET);
        let error = run(Toncenter::connect(config)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        server.asked();
    }
}

#[test]
fn addresses_that_are_not_asked() {
    for (url, words) in [
        ("", "it is no URL"),
        ("toncenter.com/api/v2", "it is no URL"),
        ("ftp://toncenter.com/api/v2", "neither https nor http"),
        (
            "http://toncenter.com/api/v2",
            "only a server on this machine is asked without TLS",
        ),
        (
            "http://127.0.0.1.example/api/v2",
            "only a server on this machine",
        ),
        (
            "https://toncenter.com/api/v2?api_key=secret",
            "a key is given apart",
        ),
        ("https://me:secret@toncenter.com/api/v2", "a user's name"),
    ] {
        let error = run(Toncenter::connect(ToncenterConfig::new(url, None))).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

/// The key goes into a header, and nowhere else.
#[test]
fn the_key_is_sent_and_never_shown() {
    let server = Server::start(vec![status(403, "")]);
    let key = Zeroizing::new("0123456789abcdef".to_owned());
    let config = ToncenterConfig::new(&server.url, Some(key));
    let error = run(Toncenter::connect(config)).unwrap_err();
    let asked = server.asked();
    assert!(
        asked[0].0.contains("x-api-key: 0123456789abcdef\r\n"),
        "{}",
        asked[0].0
    );
    assert!(
        !format!("{error} {error:?}").contains("0123456789abcdef"),
        "{error:?}"
    );
    let config = ToncenterConfig::new("https://t.example", Some(Zeroizing::new("a\nb".into())));
    let error = run(Toncenter::connect(config)).unwrap_err().to_string();
    assert!(
        error.contains("the API key has characters that none has"),
        "{error}"
    );
}

#[test]
fn requests_keep_their_distance() {
    for (key, pause) in [(None, 1_000), (Some(Zeroizing::new("key".to_owned())), 100)] {
        let far = ToncenterConfig::new(ToncenterConfig::MAINNET, key);
        assert_eq!(far.pause, Duration::from_millis(pause));
        let good = || Say::Http(200, "", sample("account_missing").to_string().into_bytes());
        let server = Server::start(vec![network(-3), good(), good()]);
        let mut config = ToncenterConfig::new(&server.url, None);
        config.pause = far.pause;
        let clock = TestClock::default();
        run(async {
            let chain = Toncenter::connect_with(config, clock.clone())
                .await
                .unwrap();
            let (first, second) = (address(), address());
            let (first, second) = tokio::join!(chain.account(&first), chain.account(&second));
            assert!(first.is_ok() && second.is_ok());
        });
        server.asked();
        assert_eq!(*clock.0.waits.lock().unwrap(), [far.pause; 2]);
    }
}

/// A message whose first sending got lost on the way back is in the chain; that the account does
/// not take it again is no refusal.
#[test]
fn a_message_sent_twice_is_not_refused() {
    let refused = || Say::Http(500, "", sample("not_accepted").to_string().into_bytes());
    let (sent, asked, _) = with([Say::Nothing, refused()], async |chain| {
        chain.send_boc(Cell::default()).await
    });
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(asked.len(), 2);
    // Nor that somebody between turns the second one away.
    for code in [401, 403, 422, 522] {
        let (sent, asked, _) = with([Say::Nothing, status(code, "")], async |chain| {
            chain.send_boc(Cell::default()).await
        });
        assert!(sent.is_ok(), "{code}: {sent:?}");
        assert_eq!(asked.len(), 2);
    }
    let words = "cannot run message on account: inbound external message rejected by account AB before smart-contract execution";
    let early = json!({ "ok": false, "code": 500, "error": words });
    let early = Say::Http(500, "", early.to_string().into_bytes());
    let (sent, asked, _) = with([early], async |chain| chain.send_boc(Cell::default()).await);
    assert!(
        matches!(sent, Err(ChainError::NotAccepted { exit_code: None })),
        "{sent:?}"
    );
    assert_eq!(asked.len(), 1);
}

/// Strangers decide how many transactions an account has; who wants the newest reads no more.
#[test]
fn the_newest_transactions_are_one_page() {
    let real = sample("transactions")["result"].take();
    let owner: Address = "0:ffbd85ffba92089f5263a510ae89b7a8b0bc8bbea7c76102fb7154a4e84de04b"
        .parse()
        .unwrap();
    let one = Value::Array(vec![real[0].clone()]);
    let (found, asked, _) = with([ok(&one)], async |chain| {
        chain.newest_transactions(&owner, 1, 1).await
    });
    let found = found.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(real[0]["transaction_id"]["lt"], found[0].lt.to_string());
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["params"]["limit"], 1);
}

#[test]
fn transactions_that_are_not_the_accounts_are_refused() {
    let real = sample("transactions")["result"].take();
    let owner: Address = "0:ffbd85ffba92089f5263a510ae89b7a8b0bc8bbea7c76102fb7154a4e84de04b"
        .parse()
        .unwrap();
    let mut other_hash = real.clone();
    other_hash[0]["transaction_id"]["hash"] = json!(BASE64_STANDARD.encode([1; 32]));
    for (account, result, after, words) in [
        (
            &address(),
            &real,
            1,
            "do not lead to each other at 46762307000001",
        ),
        (
            &owner,
            &other_hash,
            1,
            "`result[0].transaction_id` is not the hash of `data`",
        ),
        (&owner, &json!({}), 1, "`result` is not a list"),
        (&owner, &json!([{}]), 1, "`result[0].data` is not there"),
        // It says that there is one before it, and then there is none.
        (&owner, &json!([]), 1, "do not lead to each other at"),
    ] {
        let first = if result == &json!([]) { &real } else { result };
        let script = [ok(first), ok(result)];
        let count = if result == &json!([]) { 2 } else { 1 };
        let (found, _, _) = with(script.into_iter().take(count), async |chain| {
            chain.transactions(account, after).await
        });
        let error = found.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // More than was asked for.
    let many = Value::Array(vec![real[0].clone(); 33]);
    let (found, _, _) = with([ok(&many)], async |chain| {
        chain.transactions(&owner, 1).await
    });
    let error = found.unwrap_err();
    assert!(
        matches!(&error, ChainError::Toncenter(ToncenterError::Answer { .. })),
        "{error:?}"
    );
}

#[test]
fn stacks_in_both_spellings() {
    let cell = Boc::encode_base64(Cell::default());
    let number = |text: &str| json!({ "@type": "tvm.stackEntryNumber", "number": { "@type": "tvm.numberDecimal", "number": text } });
    let stack = json!([
        ["num", "0x10"],
        ["num", "-12"],
        ["null"],
        ["list", { "@type": "tvm.list", "elements": [] }],
        ["slice", { "bytes": cell }],
        ["tuple", { "@type": "tvm.tuple", "elements": [number("7"), { "@type": "tvm.stackEntryCell", "cell": { "bytes": cell } }] }],
        number("115792089237316195423570985008687907853269984665640564039457584007913129639935"),
        { "@type": "tvm.stackEntryList", "list": { "elements": [number("1"), number("2")] } },
    ]);
    let int = |value: i32| StackValue::Int(value.into());
    let expected = vec![
        int(16),
        int(-12),
        StackValue::Null,
        StackValue::Null,
        StackValue::Slice(Cell::default()),
        StackValue::Tuple(vec![int(7), StackValue::Cell(Cell::default())]),
        StackValue::from_bytes32(&[255; 32]),
        StackValue::Tuple(vec![
            int(1),
            StackValue::Tuple(vec![int(2), StackValue::Null]),
        ]),
    ];
    let result = json!({ "exit_code": 1, "stack": stack });
    let failed = json!({ "exit_code": 404, "stack": [] });
    let none = json!({ "exit_code": -256, "stack": [] });
    let script = [ok(&result), ok(&failed), ok(&none)];
    let ((), asked, _) = with(script, async |chain| {
        let arguments = vec![int(-5), StackValue::Slice(Cell::default())];
        let read = chain.run_get_method(&address(), "both", arguments).await;
        assert_eq!(read.unwrap(), expected);
        let arguments = vec![StackValue::Null, StackValue::Tuple(vec![int(1)])];
        let error = chain
            .run_get_method(&address(), "both", arguments)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "get-method `both` failed: NotClient (exit code 404)"
        );
        let error = chain
            .run_get_method(&address(), "both", vec![])
            .await
            .unwrap_err();
        assert!(matches!(error, ChainError::NoCode(_)), "{error:?}");
    });
    assert_eq!(asked[0]["method"], "runGetMethod");
    assert_eq!(
        asked[0]["params"]["stack"],
        json!([["num", "-5"], ["tvm.Slice", cell]])
    );
    assert_eq!(asked[1]["method"], "runGetMethodStd");
    assert_eq!(
        asked[1]["params"]["stack"][0]["@type"],
        "tvm.stackEntryList"
    );
    for (wrong, words) in [
        (
            json!([["num", "0xg"]]),
            "`result.stack[0][1]` is not a number of 257 bits",
        ),
        (json!([["num", "--1"]]), "a number of 257 bits"),
        (json!([["num", ""]]), "a number of 257 bits"),
        (json!([["num", 5]]), "is not a string"),
        (
            json!([["num", format!("0x1{}", "0".repeat(64))]]),
            "a number of 257 bits",
        ),
        (json!([["num", "9".repeat(1_000)]]), "a number of 257 bits"),
        (
            json!([["builder", {}]]),
            "a kind of stack value that is known",
        ),
        (json!([[]]), "is not a pair"),
        (
            json!([{ "@type": "tvm.stackEntryUnsupported" }]),
            "a kind of stack value that is known",
        ),
        (json!("no"), "`result.stack` is not a list"),
    ] {
        let result = json!({ "exit_code": 0, "stack": wrong });
        let (read, _, _) = with([ok(&result)], async |chain| {
            chain.run_get_method(&address(), "wrong", vec![]).await
        });
        let error = read.unwrap_err().to_string();
        assert!(error.contains(words), "{error}\nlacks {words}");
    }
}
