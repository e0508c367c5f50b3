//! An account's transactions through `Toncenter`, page by page: complete and in order, or refused.
//!
//! The pages are cut from real transactions of the embedded chain.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tussah_settlement::chain::{EmbeddedChain, Toncenter, ToncenterConfig};
use tussah_settlement::{Address, Cell, Chain, ChainError, channel};
use tycho_types::boc::Boc;

use crate::fixture::*;
use crate::server::{Say, Server, TestClock, ok};
use crate::toncenter::{network, run};

/// A channel with 40 transactions more, newest first: logical time and cell.
fn history() -> (Address, EmbeddedChain, Vec<(u64, Cell)>) {
    let mut world = World::open(2 * GRAM);
    world.chain.record();
    let client = world.client.clone();
    for number in 0..40 {
        assert_eq!(world.send(&client, channel::top_up(number)), "ok");
    }
    let mut cells = Vec::new();
    for step in world.chain.recorded() {
        let cell = step.outcome.as_ref().unwrap().transaction.clone();
        let transaction = cell.parse::<tycho_types::models::Transaction>().unwrap();
        if transaction.account == world.channel.address {
            cells.push((transaction.lt, cell));
        }
    }
    assert_eq!(cells.len(), 40);
    cells.reverse();
    (world.channel, world.chain, cells)
}

fn page(cells: &[(u64, Cell)]) -> Say {
    let entries = cells.iter().map(|(lt, cell)| {
        let hash = BASE64_STANDARD.encode(cell.repr_hash().0);
        json!({
            "@type": "ext.transaction",
            "data": Boc::encode_base64(cell),
            "transaction_id": { "lt": lt.to_string(), "hash": hash },
        })
    });
    ok(&Value::Array(entries.collect()))
}

/// The logical times after `after_lt` that come of these pages, and what was asked.
fn read(
    account: &Address,
    after_lt: u64,
    pages: Vec<Say>,
) -> (Result<Vec<u64>, ChainError>, Vec<Value>) {
    let server = Server::start([network(-3)].into_iter().chain(pages).collect());
    let config = ToncenterConfig::new(&server.url, None);
    let found = run(async {
        let chain = Toncenter::connect_with(config, TestClock::default()).await?;
        chain.transactions(account, after_lt).await
    });
    let asked = server.asked().into_iter().skip(1);
    let asked = asked.map(|(_, body)| body["params"].clone()).collect();
    let lts = found.map(|found| found.iter().map(|transaction| transaction.lt).collect());
    (lts, asked)
}

#[test]
fn a_history_of_several_pages_is_complete_and_in_order() {
    let (account, mut chain, cells) = history();
    let before = cells[39].0 - 1;
    // A page starts with the transaction that was asked for.
    let pages = vec![page(&cells[..32]), page(&cells[32..])];
    let (found, asked) = read(&account, before, pages);
    let mut expected: Vec<u64> = cells.iter().map(|(lt, _)| *lt).collect();
    expected.reverse();
    assert_eq!(found.unwrap(), expected);
    assert_eq!(
        asked[0],
        json!({ "address": account.to_string(), "limit": 32 })
    );
    assert_eq!(asked[1]["lt"], cells[32].0.to_string());
    let hash = BASE64_STANDARD.encode(cells[32].1.repr_hash().0);
    assert_eq!(asked[1]["hash"], hash);
    // The last one is older than the page: nothing more is asked.
    let (found, asked) = read(&account, cells[2].0, vec![page(&cells[..32])]);
    assert_eq!(found.unwrap(), [cells[1].0, cells[0].0]);
    assert_eq!(asked.len(), 1);
    let (found, _) = read(&account, cells[0].0, vec![page(&cells[..32])]);
    assert_eq!(found.unwrap(), [0_u64; 0]);
    // And the same as the embedded chain says.
    chain.advance(1);
    let all = run(std::sync::Mutex::new(chain).transactions(&account, before)).unwrap();
    assert_eq!(all.iter().map(|one| one.lt).collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_left_out_or_changed_is_noticed() {
    let (account, _, cells) = history();
    let before = cells[39].0 - 1;
    let mut gap = cells[..32].to_vec();
    gap.remove(5);
    let mut swapped = cells[..32].to_vec();
    swapped.swap(3, 4);
    let twice = [&cells[..10], &cells[9..30]].concat();
    for pages in [
        vec![page(&gap)],
        vec![page(&swapped)],
        vec![page(&twice)],
        // A second page that does not go on where the first ended, or has nothing.
        vec![page(&cells[..32]), page(&cells[33..])],
        vec![page(&cells[..32]), page(&cells[..8])],
        vec![page(&cells[..32]), page(&[])],
    ] {
        let (found, _) = read(&account, before, pages);
        let error = found.unwrap_err().to_string();
        assert!(error.contains("do not lead to each other"), "{error}");
    }
}

/// Whoever sends an account large messages does not keep it from being read.
#[test]
fn pages_get_smaller_where_an_answer_is_too_large() {
    let (account, _, cells) = history();
    let large = Say::Http(200, "", vec![b' '; (4 << 20) + 1]);
    let pages = vec![
        large.clone(),
        page(&cells[..8]),
        large.clone(),
        page(&cells[8..10]),
    ];
    let (found, asked) = read(&account, cells[10].0, pages);
    assert_eq!(found.unwrap().len(), 10);
    let limits: Vec<&Value> = asked.iter().map(|params| &params["limit"]).collect();
    assert_eq!(limits, [32, 8, 8, 2]);
    let (found, asked) = read(&account, cells[10].0, vec![large; 4]);
    let error = found.unwrap_err().to_string();
    assert!(error.contains("larger than 4194304 bytes"), "{error}");
    assert_eq!(asked.len(), 4);
}
