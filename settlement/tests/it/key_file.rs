//! Key files: what the passphrase opens, and what any other bytes do.

use proptest::prelude::*;
use serde_json::{Value, json};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{KdfCost, KeyFile, KeyFileError, WalletVersion};

use crate::fixture::key;

/// As little work as Argon2 allows: these are no secrets.
const CHEAP: KdfCost = KdfCost {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};

fn sealed(passphrase: &str) -> KeyFile {
    let random = ([3; 16], [4; 24]);
    let version = WalletVersion::V5R1;
    KeyFile::seal(
        &key(9),
        version,
        NetworkId::TESTNET,
        passphrase,
        CHEAP,
        random,
    )
    .unwrap()
}

/// With the cost that new files have; the numbers are what a user would see.
#[test]
fn a_file_is_what_it_says() {
    let random = ([3; 16], [4; 24]);
    let (version, network) = (WalletVersion::V4R2, NetworkId::MAINNET);
    let cost = KdfCost::default();
    let file = KeyFile::seal(&key(9), version, network, "open sesame", cost, random).unwrap();
    let value: Value = serde_json::from_str(&file.to_json()).unwrap();
    assert_eq!(
        (
            &value["kind"],
            &value["format"],
            &value["wallet"],
            &value["network"]
        ),
        (
            &json!("tussah-wallet"),
            &json!(1),
            &json!("v4r2"),
            &json!(-239)
        )
    );
    assert_eq!(
        value["kdf"],
        json!({ "name": "argon2id", "memory_kib": 65_536, "passes": 3, "lanes": 1, "salt": "03".repeat(16) })
    );
    let secret = key(9)
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    assert!(!file.to_json().contains(&secret));
    let read = KeyFile::from_json(file.to_json().as_bytes()).unwrap();
    assert_eq!(read, file);
    assert_eq!(
        read.open("open sesame").unwrap().to_bytes(),
        key(9).to_bytes()
    );
    assert_eq!(
        read.open("open sesam").unwrap_err(),
        KeyFileError::Passphrase
    );
    assert_eq!(read.wallet().key, key(9).public_key());
}

#[test]
fn an_empty_passphrase_locks_nothing() {
    let random = ([3; 16], [4; 24]);
    let (version, network) = (WalletVersion::V4R2, NetworkId::MAINNET);
    let error = KeyFile::seal(&key(9), version, network, "", CHEAP, random).unwrap_err();
    assert_eq!(error, KeyFileError::NoPassphrase);
}

/// What a file may ask for, and one more of each.
#[test]
fn work_is_bounded_before_it_is_done() {
    let file: Value = serde_json::from_str(&sealed("p").to_json()).unwrap();
    for (field, value, is_taken) in [
        ("memory_kib", json!(8), true),
        ("memory_kib", json!(7), false),
        ("memory_kib", json!(1 << 20), true),
        ("memory_kib", json!((1 << 20) + 1), false),
        ("memory_kib", json!(u64::MAX), false),
        ("passes", json!(16), true),
        ("passes", json!(17), false),
        ("passes", json!(0), false),
        // Eight KiB a lane, and there are eight in all.
        ("lanes", json!(2), false),
        ("lanes", json!(0), false),
        ("lanes", json!(-1), false),
        ("lanes", json!(1.5), false),
    ] {
        let mut changed = file.clone();
        changed["kdf"][field] = value.clone();
        let read = KeyFile::from_json(changed.to_string().as_bytes());
        assert_eq!(read.is_ok(), is_taken, "{field} = {value}: {read:?}");
    }
}

#[test]
fn files_of_another_shape_are_refused_by_field() {
    let file: Value = serde_json::from_str(&sealed("p").to_json()).unwrap();
    let check = |pointer: &str, value: Value, words: &str| {
        let mut changed = file.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let error = KeyFile::from_json(changed.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    check("/kind", json!("other"), "/kind is not as it should be");
    check("/format", json!(2), "/format is not");
    check("/wallet", json!("v3r2"), "/wallet is not");
    check("/network", json!(1_i64 << 31), "/network is not");
    check("/public_key", json!("ed25519:00"), "/public_key is not");
    check("/kdf/name", json!("scrypt"), "/kdf/name is not");
    check("/kdf/salt", json!("03"), "/kdf/salt is not");
    check("/kdf/salt", json!("0G".repeat(16)), "/kdf/salt is not");
    check("/cipher/name", json!("none"), "/cipher/name is not");
    check(
        "/cipher/sealed",
        json!("00".repeat(49)),
        "/cipher/sealed is not",
    );
    check("/cipher", json!([]), "an object is not");
    for field in ["kind", "cipher", "network"] {
        let mut changed = file.clone();
        changed.as_object_mut().unwrap().remove(field);
        let error = KeyFile::from_json(changed.to_string().as_bytes()).unwrap_err();
        assert_eq!(error, KeyFileError::Field(field));
    }
    let mut more = file.clone();
    more["kdf"]["pepper"] = json!(1);
    let error = KeyFile::from_json(more.to_string().as_bytes()).unwrap_err();
    assert_eq!(error, KeyFileError::Field("one that is unknown"));
    let large = format!("{}{}", file, " ".repeat(4_096));
    assert_eq!(
        KeyFile::from_json(large.as_bytes()).unwrap_err(),
        KeyFileError::Size
    );
}

/// Which wallet a key is for is locked with it.
#[test]
fn a_changed_wallet_does_not_open() {
    let file: Value = serde_json::from_str(&sealed("p").to_json()).unwrap();
    for (field, value) in [
        ("wallet", json!("v4r2")),
        ("network", json!(-239)),
        ("public_key", json!(key(8).public_key().to_string())),
    ] {
        let mut changed = file.clone();
        changed[field] = value;
        let changed = KeyFile::from_json(changed.to_string().as_bytes()).unwrap();
        assert_eq!(
            changed.open("p").unwrap_err(),
            KeyFileError::Passphrase,
            "{field}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every passphrase opens its own file, and no other one does.
    #[test]
    fn only_the_passphrase_opens(mine in ".{1,40}", other in ".{0,40}") {
        let file = KeyFile::from_json(sealed(&mine).to_json().as_bytes()).unwrap();
        prop_assert_eq!(file.open(&mine).unwrap().to_bytes(), key(9).to_bytes());
        if other != mine {
            prop_assert_eq!(file.open(&other).unwrap_err(), KeyFileError::Passphrase);
        }
    }

    /// One bit changed anywhere is another spelling of the same file, or does not open.
    #[test]
    fn no_changed_file_opens(at in 0_usize..700, bit in 0_u32..8) {
        let mut bytes = sealed("p").to_json().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(file) = KeyFile::from_json(&bytes) {
            match file.open("p") {
                Ok(key_read) => {
                    prop_assert_eq!(key_read.to_bytes(), key(9).to_bytes());
                    prop_assert_eq!(file.to_json(), sealed("p").to_json());
                }
                Err(error) => prop_assert_eq!(error, KeyFileError::Passphrase),
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(KeyFile::from_json(&bytes).is_err());
    }
}
