//! What was acknowledged is there again, however the process ended.

use std::fs;

use serde_json::json;
use tussah_localnet::{LocalnetError, Network, StoreError};
use tussah_settlement::Cell;

use crate::fixture::*;

#[test]
fn a_restart_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::in_folder(folder.path());
    server.pay(&stranger(1), GRAM, Cell::default());
    server.post("/localnet/advance", r#"{"seconds": 60}"#);
    let ask = |server: &Running| {
        (
            server.ask("getTransactions", json!({ "address": raw(&stranger(1)) })),
            server.ask("getMasterchainInfo", json!({})),
            server.get("/localnet/status"),
        )
    };
    let before = ask(&server);
    server.stop();
    let server = Running::in_folder(folder.path());
    assert_eq!(ask(&server), before);
    server.pay(&stranger(1), GRAM, Cell::default());
    // The minute's rent is one nanogram.
    assert_eq!(server.balance(&stranger(1)), 2 * GRAM - 1);
}

/// What is on disk after each answer is all that a killed process leaves.
#[test]
fn every_answer_is_on_disk_first() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Running::in_folder(folder.path());
    for number in 1..=3 {
        server.pay(&stranger(2), GRAM, Cell::default());
        let file = folder.path().join("localnet.boc");
        fs::copy(file, copy.path().join("localnet.boc")).unwrap();
        // A write that a kill cut short leaves this beside it.
        fs::write(copy.path().join("localnet.boc.new"), b"half").unwrap();
        let again = Running::in_folder(copy.path());
        assert_eq!(again.balance(&stranger(2)), number * GRAM);
    }
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = Network::open(folder.path(), Box::new(|| START)).unwrap();
    let error = Network::open(folder.path(), Box::new(|| START)).unwrap_err();
    assert!(
        matches!(error, LocalnetError::Store(StoreError::Taken { .. })),
        "{error}"
    );
    drop(first);
    Network::open(folder.path(), Box::new(|| START)).unwrap();
}

#[test]
fn what_is_no_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Network::open(folder.path(), Box::new(|| START)).unwrap());
    let file = folder.path().join("localnet.boc");
    let saved = fs::read(&file).unwrap();
    for length in [0, 1, saved.len() / 2, saved.len() - 1] {
        fs::write(&file, &saved[..length]).unwrap();
        let error = Network::open(folder.path(), Box::new(|| START)).unwrap_err();
        assert!(
            matches!(error, LocalnetError::Store(StoreError::Content { .. })),
            "{length}: {error}"
        );
    }
}
