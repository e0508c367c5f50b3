//! 24 words and the keys they are, equal to npm `@ton/crypto` 3.3.0's; and addresses as text.

use serde_json::Value;
use tussah_manifest::PublicKey;
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::{Mnemonic, MnemonicError, Wallet, WalletVersion};
use tussah_settlement::{Address, FriendlyAddress};
use tycho_types::cell::HashBytes;

/// Words drawn from numbers that are the same for each seed: splitmix64.
pub(crate) fn draw(seed: u64, password: &str) -> Mnemonic {
    let mut state = seed;
    let fill = |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)).to_be_bytes()[0];
        }
        Ok::<(), MnemonicError>(())
    };
    Mnemonic::generate(fill, password).unwrap()
}

fn vectors() -> Vec<(String, String, String)> {
    let vectors = include_str!("../vectors/mnemonics.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let text = |vector: &Value, name: &str| vector[name].as_str().unwrap().to_owned();
    vectors
        .iter()
        .map(|vector| {
            (
                text(vector, "words"),
                text(vector, "password"),
                text(vector, "public_key"),
            )
        })
        .collect()
}

#[test]
fn keys_equal_those_of_the_official_client() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 20);
    for (words, password, public_key) in vectors {
        let mnemonic = Mnemonic::parse(&words, &password).unwrap();
        let expected: PublicKey = format!("ed25519:{public_key}").parse().unwrap();
        assert_eq!(mnemonic.key().public_key(), expected);
        assert_eq!(mnemonic.words(), words);
        assert!(!format!("{mnemonic:?}").contains(words.split(' ').next().unwrap()));
    }
}

#[test]
fn words_are_taken_in_any_case_and_spacing_and_nothing_else() {
    let (words, _, _) = vectors().swap_remove(0);
    let (locked, password, _) = vectors().swap_remove(4);
    let shouted = format!("\n {}\t", words.to_uppercase().replace(' ', " \n "));
    assert_eq!(Mnemonic::parse(&shouted, "").unwrap().words(), words);
    let list: Vec<&str> = words.split(' ').collect();
    let mut swapped = list.clone();
    swapped.swap(0, 23);
    let mut misspelt = list.clone();
    misspelt[6] = "hovver";
    let refused = |text: &str, password: &str| Mnemonic::parse(text, password).unwrap_err();
    assert_eq!(refused("", ""), MnemonicError::Count { count: 0 });
    assert_eq!(
        refused(&list[..23].join(" "), ""),
        MnemonicError::Count { count: 23 }
    );
    assert_eq!(
        refused(&format!("{words} dry"), ""),
        MnemonicError::Count { count: 25 }
    );
    let misspelt = refused(&misspelt.join(" "), "");
    assert_eq!(misspelt, MnemonicError::Word { place: 7 });
    // A message may end in a log; the word does not.
    assert!(!misspelt.to_string().contains("hovver"));
    assert_eq!(refused(&swapped.join(" "), ""), MnemonicError::Checksum);
    assert_eq!(refused(&words, "a password"), MnemonicError::NoPassword);
    assert_eq!(refused(&locked, ""), MnemonicError::PasswordNeeded);
    assert_eq!(refused(&locked, "another"), MnemonicError::Checksum);
    assert!(Mnemonic::parse(&locked, &password).is_ok());
}

#[test]
fn drawn_words_are_good_and_follow_the_random_bytes() {
    let first = draw(1, "");
    assert!(Mnemonic::parse(first.words(), "").is_ok());
    assert_eq!(first.words(), draw(1, "").words());
    assert_ne!(first.words(), draw(2, "").words());
    let locked = draw(3, "a password");
    assert!(Mnemonic::parse(locked.words(), "a password").is_ok());
    // What the source of random bytes fails with is the caller's own error.
    let failed = Mnemonic::generate(|_| Err(MnemonicError::Random), "");
    assert_eq!(failed.unwrap_err(), MnemonicError::Random);
}

/// The wallets' vectors have the form without bounce, as `@ton/ton` writes it.
#[test]
fn addresses_are_written_with_the_right_flags() {
    let vectors = include_str!("../vectors/wallets.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    for vector in vectors {
        let raw: Address = vector["address"].as_str().unwrap().parse().unwrap();
        let friendly = vector["user_friendly"].as_str().unwrap();
        let wallet = FriendlyAddress::wallet(raw, NetworkId::MAINNET);
        assert_eq!(wallet.to_string(), friendly);
        assert_eq!(friendly.parse::<FriendlyAddress>().unwrap(), wallet);
    }
    let key = draw(1, "").key().public_key();
    let wallet = |network| Wallet {
        version: WalletVersion::V5R1,
        key,
        network,
    };
    // A V5R1 wallet is another account on each network.
    let main = wallet(NetworkId::MAINNET).address();
    let test = wallet(NetworkId::TESTNET).address();
    assert_ne!(main, test);
    for (friendly, first) in [
        (
            FriendlyAddress::wallet(main.clone(), NetworkId::MAINNET),
            "UQ",
        ),
        (FriendlyAddress::contract(main, NetworkId::MAINNET), "EQ"),
        (
            FriendlyAddress::wallet(test.clone(), NetworkId::TESTNET),
            "0Q",
        ),
        (
            FriendlyAddress::contract(test.clone(), NetworkId::TESTNET),
            "kQ",
        ),
        (FriendlyAddress::contract(test, NetworkId::LOCALNET), "kQ"),
        (
            FriendlyAddress::contract(Address::new(-1, HashBytes([5; 32])), NetworkId::MAINNET),
            "Ef",
        ),
    ] {
        let text = friendly.to_string();
        assert_eq!((text.len(), &text[..2]), (48, first));
        assert_eq!(text.parse::<FriendlyAddress>().unwrap(), friendly);
    }
}

#[test]
fn text_that_is_no_address_is_refused() {
    let good = "UQDAQ_Eu7rUZflRUiFjbMqdO7ULKKE1Ko0XABAuOMybtWPGh";
    assert!(good.parse::<FriendlyAddress>().is_ok());
    for at in 0..good.len() {
        let mut changed = good.to_owned();
        let other = if &good[at..=at] == "A" { "B" } else { "A" };
        changed.replace_range(at..=at, other);
        assert!(changed.parse::<FriendlyAddress>().is_err(), "{changed}");
    }
    let raw = "0:c043f12eeeb5197e54548858db32a74eed42ca284d4aa345c0040b8e3326ed58";
    for bad in [
        "",
        "UQ",
        &good[1..],
        &format!("{good}="),
        raw,
        &"é".repeat(24),
    ] {
        let error = bad.parse::<FriendlyAddress>().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{bad}` is no address of 48 characters")
        );
    }
}
