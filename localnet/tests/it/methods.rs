//! Each method's answer.

use serde_json::{Value, json};
use tussah_localnet::{developer, giver};
use tussah_settlement::Cell;
use tycho_types::cell::CellBuilder;

use crate::fixture::*;

fn comment(text: &str) -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_u32(0).unwrap();
    let bits = u16::try_from(text.len() * 8).unwrap();
    builder.store_raw(text.as_bytes(), bits).unwrap();
    builder.build().unwrap()
}

#[test]
fn money_moves_and_is_conserved() {
    let server = Running::in_memory();
    let (status, before) = server.get("/localnet/status");
    assert_eq!(status, 200);
    let friend = stranger(1);
    server.pay(&friend, 3 * GRAM, comment("for the tea"));
    assert_eq!(server.balance(&friend), 3 * GRAM);
    let faucet = json!({ "address": raw(&friend), "amount": "2500000000" });
    let (status, given) = server.post("/localnet/faucet", &faucet.to_string());
    assert_eq!((status, &given["balance"]), (200, &json!("5500000000")));
    let (_, after) = server.get("/localnet/status");
    let total = |status: &Value| -> u128 {
        let number = |name: &str| -> u128 { status[name].as_str().unwrap().parse().unwrap() };
        number("held_nanograms") + number("fees_nanograms")
    };
    assert_eq!(total(&before), total(&after));
    assert_eq!(total(&after), 1_000_000_000 * u128::from(GRAM));
    // Two blocks more: one for each message from outside.
    let seqno = |status: &Value| status["seqno"].as_u64().unwrap();
    assert_eq!(seqno(&after), seqno(&before) + 2);
}

#[test]
fn an_account_as_it_grows() {
    let server = Running::in_memory();
    let friend = stranger(2);
    let asked = json!({ "address": raw(&friend) });
    let nobody = server.ask("getAddressInformation", asked.clone());
    assert_eq!(nobody["@type"], "raw.fullAccountState");
    assert_eq!(nobody["balance"], "0");
    assert_eq!(nobody["state"], "uninitialized");
    assert_eq!((&nobody["code"], &nobody["data"]), (&json!(""), &json!("")));
    let zeros = base64(&[0; 32]);
    let never = json!({ "@type": "internal.transactionId", "lt": "0", "hash": zeros });
    assert_eq!(nobody["last_transaction_id"], never);
    server.pay(&friend, GRAM, Cell::default());
    let somebody = server.ask("getAddressInformation", asked.clone());
    assert_eq!(
        (&somebody["balance"], &somebody["state"]),
        (&json!("1000000000"), &json!("uninitialized"))
    );
    assert_eq!(
        server.ask("getAddressState", asked.clone()),
        "uninitialized"
    );
    let extended = server.ask("getExtendedAddressInformation", asked);
    assert_eq!(extended["account_state"]["@type"], "uninited.accountState");
    let (wallet, _) = developer();
    let asked = json!({ "address": raw(&wallet.address()) });
    let information = server.ask("getWalletInformation", asked);
    assert_eq!(information["wallet"], json!(true));
    assert_eq!(information["wallet_type"], "wallet v5 r1");
    assert_eq!(information["seqno"], 1);
}

#[test]
fn the_same_answer_by_get_by_post_and_by_rpc() {
    let server = Running::in_memory();
    let address = raw(&giver().0.address());
    let by_rpc = server.ask("getAddressInformation", json!({ "address": address }));
    let (_, by_get) = server.get(&format!(
        "/api/v2/getAddressInformation?address={address}&api_key=k"
    ));
    let body = json!({ "address": address }).to_string();
    let (_, by_post) = server.post("/api/v2/getAddressInformation", &body);
    assert_eq!(by_get["result"], by_rpc);
    assert_eq!(by_post["result"], by_rpc);
    assert!(by_get["@extra"].is_string() && by_get["id"].is_null());
}

#[test]
fn transactions_page_by_page() {
    let server = Running::in_memory();
    let friend = stranger(3);
    for number in 1..=7_u64 {
        server.pay(
            &friend,
            number * GRAM,
            comment(&format!("payment {number}")),
        );
    }
    let address = raw(&friend);
    let all = server.ask(
        "getTransactions",
        json!({ "address": address, "limit": 100 }),
    );
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 7);
    assert_eq!(all[0]["in_msg"]["message"], "payment 7");
    assert_eq!(all[0]["in_msg"]["msg_data"]["@type"], "msg.dataText");
    assert_eq!(all[0]["in_msg"]["value"], "7000000000");
    // Page after page from the last one's id, which is in both.
    let mut seen = Vec::new();
    let mut from: Option<Value> = None;
    loop {
        let mut asked = json!({ "address": address, "limit": 3 });
        if let Some(id) = &from {
            asked["lt"] = id["lt"].clone();
            asked["hash"] = id["hash"].clone();
        }
        let page = server.ask("getTransactions", asked);
        let page = page.as_array().unwrap();
        let new = &page[usize::from(from.is_some())..];
        seen.extend(new.iter().cloned());
        if new.is_empty() {
            break;
        }
        from = Some(page[page.len() - 1]["transaction_id"].clone());
    }
    assert_eq!(&seen, all);
    // Down to a logical time, which is not in it.
    let third = &all[4]["transaction_id"]["lt"];
    let newer = server.ask(
        "getTransactions",
        json!({ "address": address, "to_lt": third }),
    );
    assert_eq!(newer.as_array().unwrap(), &all[..4]);
    let standard = server.ask(
        "getTransactionsStd",
        json!({ "address": address, "limit": 7 }),
    );
    assert_eq!(standard["@type"], "raw.transactions");
    let destination = &standard["transactions"][0]["in_msg"]["destination"];
    assert_eq!(destination["@type"], "accountAddress");
}

#[test]
fn a_message_is_found_at_both_ends() {
    let server = Running::in_memory();
    let (wallet, friend) = (developer().0.address(), stranger(4));
    server.pay(&friend, GRAM, Cell::default());
    let received = server.ask("getTransactions", json!({ "address": raw(&friend) }));
    let created_lt = &received[0]["in_msg"]["created_lt"];
    let route =
        json!({ "source": raw(&wallet), "destination": raw(&friend), "created_lt": created_lt });
    assert_eq!(server.ask("tryLocateTx", route.clone()), received[0]);
    assert_eq!(server.ask("tryLocateResultTx", route.clone()), received[0]);
    let sent = server.ask("tryLocateSourceTx", route);
    let last = server.ask(
        "getTransactions",
        json!({ "address": raw(&wallet), "limit": 1 }),
    );
    assert_eq!(sent, last[0]);
    assert_eq!(sent["out_msgs"][0]["created_lt"], *created_lt);
}

#[test]
fn blocks_hold_every_transaction_once() {
    let server = Running::in_memory();
    server.pay(&stranger(5), GRAM, Cell::default());
    server.pay(&stranger(6), GRAM, Cell::default());
    let info = server.ask("getMasterchainInfo", json!({}));
    assert_eq!(info["@type"], "blocks.masterchainInfo");
    let last = info["last"]["seqno"].as_u64().unwrap();
    assert_eq!(last, 4);
    let mut counts = Vec::new();
    for seqno in 0..=last {
        let shards = server.ask("shards", json!({ "seqno": seqno }));
        let shard = &shards["shards"][0];
        assert_eq!(
            (&shard["workchain"], &shard["seqno"]),
            (&json!(0), &json!(seqno))
        );
        let block = json!({ "workchain": 0, "shard": shard["shard"], "seqno": seqno });
        let content = server.ask("getBlockTransactions", block.clone());
        assert_eq!(content["id"], *shard);
        counts.push(content["transactions"].as_array().unwrap().len());
        let header = server.ask("getBlockHeader", block.clone());
        assert_eq!(header["id"], *shard);
        let mut by_lt = block;
        by_lt.as_object_mut().unwrap().remove("seqno");
        by_lt["lt"] = header["end_lt"].clone();
        assert_eq!(server.ask("lookupBlock", by_lt), *shard);
    }
    // The giver is deployed; it pays the developer; two payments.
    assert_eq!(counts, [0, 1, 2, 2, 2]);
}

#[test]
fn addresses_in_every_form() {
    let server = Running::in_memory();
    let address = raw(&stranger(7));
    let packed = server.ask("packAddress", json!({ "address": address }));
    assert_eq!(
        server.ask("unpackAddress", json!({ "address": packed })),
        address.to_uppercase()
    );
    let detected = server.ask("detectAddress", json!({ "address": packed }));
    assert_eq!(detected["raw_form"], address);
    assert_eq!(detected["bounceable"]["b64url"], packed);
    assert_eq!(detected["given_type"], "friendly_bounceable");
    let hash = server.ask("detectHash", json!({ "hash": "07".repeat(32) }));
    assert_eq!(hash["b64"], base64(&[7; 32]));
}

#[test]
fn fees_are_estimated_as_they_come() {
    let server = Running::in_memory();
    let (wallet, key) = developer();
    let friend = stranger(8);
    let message = tussah_settlement::wallet::OutMessage {
        to: friend,
        value: tussah_manifest::Nanograms::new(GRAM).unwrap(),
        bounce: false,
        init: None,
        body: Cell::default(),
    };
    let body = wallet
        .transfer(&key, server.seqno(), u32::MAX, &[message])
        .unwrap();
    let boc = |cell: &Cell| base64(&tycho_types::boc::Boc::encode(cell));
    let fees = server.ask(
        "estimateFee",
        json!({ "address": raw(&wallet.address()), "body": boc(&body), "init_code": "", "init_data": "" }),
    );
    let before = server.balance(&wallet.address());
    let external =
        tussah_settlement::chain::embedded::external_message(&wallet.address(), None, &body)
            .unwrap();
    let sent = server.ask("sendBocReturnHash", json!({ "boc": boc(&external) }));
    assert_eq!(sent["hash"], base64(external.repr_hash().as_array()));
    let paid = before - server.balance(&wallet.address()) - GRAM;
    let part = |name: &str| fees["source_fees"][name].as_u64().unwrap();
    assert_eq!(
        part("in_fwd_fee") + part("storage_fee") + part("gas_fee") + part("fwd_fee"),
        paid
    );
}

#[test]
fn get_methods_and_their_failures() {
    let server = Running::in_memory();
    let address = raw(&developer().0.address());
    let run = |method: Value| {
        server.ask(
            "runGetMethod",
            json!({ "address": address, "method": method, "stack": [] }),
        )
    };
    let seqno = run(json!("seqno"));
    assert_eq!(
        (&seqno["@type"], &seqno["exit_code"]),
        (&json!("smc.runResult"), &json!(0))
    );
    assert_eq!(run(json!(85143))["stack"], seqno["stack"]);
    assert_eq!(run(json!("no_such_method"))["exit_code"], 11);
    let nobody = server.ask(
        "runGetMethod",
        json!({ "address": raw(&stranger(9)), "method": "seqno", "stack": [] }),
    );
    assert_eq!(nobody["exit_code"], -13);
    let standard = server.ask(
        "runGetMethodStd",
        json!({ "address": address, "method": "get_public_key", "stack": [] }),
    );
    assert_eq!(standard["stack"][0]["@type"], "tvm.stackEntryNumber");
    let param = server.ask("getConfigParam", json!({ "config_id": 19 }));
    assert_eq!(param["config"]["@type"], "tvm.cell");
}

#[test]
fn time_goes_on_when_it_is_told_to() {
    let server = Running::in_memory();
    let (status, moved) = server.post("/localnet/advance", r#"{"seconds": 3600}"#);
    assert_eq!((status, &moved["now"]), (200, &json!(START + 3600)));
    server.pay(&stranger(10), GRAM, Cell::default());
    let received = server.ask("getTransactions", json!({ "address": raw(&stranger(10)) }));
    assert_eq!(received[0]["utime"], START + 3600);
}
