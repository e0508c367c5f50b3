//! What cannot be answered, and the status and words that come back instead.

use serde_json::{Value, json};
use tussah_localnet::{BODY_BYTES_MAX, Network, developer};
use tussah_settlement::Cell;

use crate::fixture::*;

#[test]
fn calls_that_are_refused() {
    let server = Running::in_memory();
    let wallet = raw(&developer().0.address());
    let run = |stack: Value| json!({ "address": wallet, "method": "seqno", "stack": stack });
    let block = |workchain: i64, shard: &str, seqno: i64| json!({ "workchain": workchain, "shard": shard, "seqno": seqno });
    let whole = "-9223372036854775808";
    let table: Vec<(&str, Value, u16, &str)> = vec![
        ("getMoney", json!({}), 404, "unknown method `getMoney`"),
        (
            "getTokenData",
            json!({}),
            501,
            "method `getTokenData` is not part of a localnet",
        ),
        (
            "getAddressInformation",
            json!({}),
            422,
            "parameter `address` is missing",
        ),
        (
            "getAddressInformation",
            json!({ "address": null }),
            422,
            "parameter `address` is missing",
        ),
        (
            "getAddressInformation",
            json!({ "address": 7 }),
            422,
            "failed to parse address: not a text",
        ),
        (
            "getAddressInformation",
            json!({ "address": "EQ" }),
            422,
            "failed to parse address",
        ),
        (
            "getAddressInformation",
            json!({ "address": wallet, "adress": wallet }),
            422,
            "unknown parameter `adress`",
        ),
        (
            "getAddressInformation",
            json!({ "address": wallet, "seqno": 1 }),
            501,
            "a localnet keeps the state of its last block, 2, not of block 1",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "limit": 0 }),
            422,
            "limit should be positive",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "limit": -1 }),
            422,
            "limit should be non-negative",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "limit": 1001 }),
            422,
            "limit should be less or equal 1000",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "limit": "ten" }),
            422,
            "failed to parse limit",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "lt": "5" }),
            422,
            "lt and hash should be used together",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "hash": "AA" }),
            422,
            "failed to parse hash",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "lt": "5", "hash": "00".repeat(32) }),
            500,
            "LITE_SERVER_UNKNOWN: cannot locate transaction with logical time 5",
        ),
        (
            "getTransactions",
            json!({ "address": wallet, "archival": "perhaps" }),
            422,
            "failed to parse archival",
        ),
        (
            "tryLocateTx",
            json!({ "source": wallet, "destination": wallet, "created_lt": 1 }),
            404,
            "transaction was not found",
        ),
        (
            "runGetMethod",
            json!({ "address": wallet, "method": "seqno" }),
            422,
            "parameter `stack` is missing",
        ),
        (
            "runGetMethod",
            json!({ "address": wallet, "method": {}, "stack": [] }),
            422,
            "failed to parse method",
        ),
        (
            "runGetMethod",
            run(json!("x")),
            422,
            "failed to parse stack: not a list",
        ),
        (
            "runGetMethod",
            run(json!([["num"]])),
            422,
            "expected 2 elements in a stack entry",
        ),
        (
            "runGetMethod",
            run(json!([[1, 2]])),
            422,
            "expected a text as first element of a stack entry",
        ),
        (
            "runGetMethod",
            run(json!([["num", "x"]])),
            422,
            "invalid number: \"x\"",
        ),
        (
            "runGetMethod",
            run(json!([["null", null]])),
            542,
            "unsupported stack entry type: null",
        ),
        (
            "runGetMethod",
            run(json!([["tvm.Cell", "!"]])),
            422,
            "a cell in a stack entry: it is not base64",
        ),
        (
            "runGetMethod",
            run(json!([["list", {}]])),
            422,
            "a tuple or list has no elements",
        ),
        (
            "runGetMethodStd",
            run(json!([{}])),
            422,
            "a stack entry has no @type",
        ),
        (
            "sendBoc",
            json!({ "boc": "!" }),
            422,
            "failed to parse boc: it is not base64",
        ),
        (
            "sendBoc",
            json!({ "boc": "te6ccgEBAQEAAgAAAA==" }),
            500,
            "boc is not an external message",
        ),
        (
            "shards",
            json!({ "seqno": 99 }),
            500,
            "LITE_SERVER_NOTREADY: block is not in db",
        ),
        (
            "shards",
            json!({ "seqno": -1 }),
            422,
            "seqno should be non-negative",
        ),
        (
            "getBlockHeader",
            block(7, whole, 1),
            422,
            "there is no workchain 7",
        ),
        (
            "getBlockHeader",
            block(0, "4611686018427387904", 1),
            422,
            "there is one shard only, -9223372036854775808",
        ),
        (
            "lookupBlock",
            json!({ "workchain": 0, "shard": whole }),
            422,
            "exactly one of seqno, lt and unixtime should be specified",
        ),
        (
            "getConfigParam",
            json!({}),
            422,
            "only one of config_id or param should be specified",
        ),
        (
            "getConfigParam",
            json!({ "param": -1 }),
            422,
            "param should be non-negative",
        ),
        (
            "getConfigParam",
            json!({ "param": 999 }),
            500,
            "there is no config param 999",
        ),
        ("detectHash", json!({ "hash": "" }), 422, "empty hash"),
    ];
    for (method, params, code, words) in table {
        let asked = format!("{method} {params}");
        let refused = server.rpc(method, params).expect_err(&asked);
        assert_eq!(refused, (code, words.to_owned()), "{asked}");
    }
}

#[test]
fn requests_that_are_refused() {
    let server = Running::in_memory();
    let json_header = "Content-Type: application/json\r\n";
    let table: [(&str, &str, &str, &str, u16); 14] = [
        ("GET /api/v2/getMasterchainInfo", "localhost", "", "", 200),
        (
            "GET /api/v2/getMasterchainInfo",
            "127.0.0.1:8081",
            "",
            "",
            200,
        ),
        (
            "GET /api/v2/getMasterchainInfo",
            "evil.example",
            "",
            "",
            403,
        ),
        (
            "GET /api/v2/getMasterchainInfo",
            "localhost.evil.example:80",
            "",
            "",
            403,
        ),
        (
            "GET /api/v2/getMasterchainInfo",
            "localhost",
            "Origin: http://evil.example\r\n",
            "",
            403,
        ),
        (
            "GET /api/v2/sendBoc?boc=te6ccgEBAQEAAgAAAA==",
            "localhost",
            "",
            "",
            405,
        ),
        ("GET /api/v2/jsonRPC", "localhost", "", "", 405),
        ("GET /localnet/faucet", "localhost", "", "", 405),
        ("GET /nowhere", "localhost", "", "", 404),
        (
            "DELETE /api/v2/getMasterchainInfo",
            "localhost",
            "",
            "",
            405,
        ),
        ("POST /api/v2/sendBoc", "localhost", "", "{}", 415),
        ("POST /api/v2/jsonRPC", "localhost", json_header, "{", 422),
        ("POST /api/v2/jsonRPC", "localhost", json_header, "[]", 422),
        (
            "POST /localnet/faucet",
            "localhost",
            json_header,
            r#"{"address":"x","amount":1}"#,
            422,
        ),
    ];
    for (line, host, headers, body, expected) in table {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, _, answer) = server.raw(request.as_bytes());
        assert_eq!(status, expected, "{request}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["ok"], json!(expected == 200), "{request}");
        if expected != 200 {
            assert_eq!(answer["code"], json!(expected), "{request}");
        }
    }
    let long = "x".repeat(BODY_BYTES_MAX + 1);
    let request = format!(
        "POST /api/v2/jsonRPC HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{json_header}\
         Content-Length: {}\r\n\r\n{long}",
        long.len()
    );
    assert_eq!(server.raw(request.as_bytes()).0, 413);
}

#[test]
fn a_message_that_is_not_accepted_says_why() {
    let server = Running::in_memory();
    let boc = transfer(server.seqno() + 1, &stranger(1), GRAM, Cell::default());
    let (code, words) = server.rpc("sendBoc", json!({ "boc": boc })).unwrap_err();
    assert_eq!(code, 500);
    // 133 is the wallet's own: the message is not the next one.
    assert_eq!(
        words,
        "LITE_SERVER_UNKNOWN: cannot apply external message to current state : \
         External message was not accepted\nCannot run message on account: \
         inbound external message rejected by transaction: exitcode=133"
    );
}

#[test]
fn the_giver_has_its_limits() {
    let server = Running::in_memory();
    let ask = |amount: Value| {
        let body = json!({ "address": raw(&stranger(1)), "amount": amount });
        server.post("/localnet/faucet", &body.to_string())
    };
    for amount in [
        json!(0),
        json!("1000000000000001"),
        json!(-5),
        json!("much"),
    ] {
        let (status, answer) = ask(amount.clone());
        assert_eq!(status, 422, "{amount}: {answer}");
    }
    assert_eq!(ask(json!("1000000000000000")).0, 200);
    assert_eq!(server.balance(&stranger(1)), 1_000_000 * GRAM);
    for seconds in [json!(-1), json!(u64::from(u32::MAX) + 1), json!(u32::MAX)] {
        let body = json!({ "seconds": seconds }).to_string();
        assert_eq!(server.post("/localnet/advance", &body).0, 422, "{seconds}");
    }
}

#[test]
fn a_page_that_was_allowed_is_answered() {
    let network = Network::in_memory(Box::new(|| START)).unwrap();
    let server = Running::with(network, &["http://localhost:3000"]);
    let request = "OPTIONS /api/v2/jsonRPC HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Origin: http://localhost:3000\r\n\r\n";
    let (status, head, _) = server.raw(request.as_bytes());
    assert_eq!(status, 200);
    assert!(
        head.contains("access-control-allow-origin: http://localhost:3000"),
        "{head}"
    );
    let (status, head, _) = server.raw(request.replace("3000", "3001").as_bytes());
    assert_eq!(status, 403);
    assert!(!head.contains("access-control-allow"), "{head}");
}
