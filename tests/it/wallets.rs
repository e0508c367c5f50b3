//! `tussah wallet`, `tussah provider` and `tussah chain` against a network that answers.

use std::fs;

use serde_json::Value;

use crate::{
    bank::{Bank, GRAM, nanograms},
    fixture::{Ended, Sandbox, repository},
};

/// Words with the key that npm `@ton/crypto` makes of them, without a password.
fn known_words() -> (String, String) {
    let path = repository().join("settlement/tests/vectors/mnemonics.json");
    let vectors: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let known = vectors
        .iter()
        .find(|vector| vector["password"] == "" && vector["valid"] == true)
        .unwrap();
    let text = |name: &str| known[name].as_str().unwrap().to_owned();
    (text("words"), text("public_key"))
}

#[test]
fn wallets_are_made_and_taken_over_by_their_words() {
    let sandbox = Sandbox::new();
    let bank = Bank::embedded(&sandbox);
    let made = bank.json(&["wallet", "new", "main", "--network", "testnet"]);
    let address = made["address"].as_str().unwrap();
    // Without bounce, and marked as no address of the main network.
    assert!(address.starts_with("0Q"), "{address}");
    let words = made["words"].as_str().unwrap();
    assert_eq!(words.split(' ').count(), 24);
    let shown = bank.run(&["wallet", "address", "main"]).expect(0);
    assert_eq!(shown.stdout.trim(), address);

    // The words are the wallet; the file has neither them nor the key.
    let file = sandbox.home().join("wallets/main.json");
    let stored = fs::read_to_string(&file).unwrap();
    assert!(
        !words
            .split(' ')
            .any(|word| stored.contains(&format!(" {word} ")))
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    sandbox.file("words", format!("{words}\n"));
    let import = |name, network, version| {
        let arguments = ["wallet", "import", name, "--words-file", "words"];
        let more = ["--network", network, "--version", version];
        bank.json(&[&arguments[..], &more].concat())
    };
    assert_eq!(
        import("copy", "testnet", "v5r1")["address"],
        made["address"]
    );
    // V5R1 is bound to its network, V4R2 is not; the flags of the text are the network's.
    let there = import("there", "mainnet", "v5r1");
    assert_ne!(there["raw_address"], made["raw_address"]);
    assert!(there["address"].as_str().unwrap().starts_with("UQ"));
    let (one, other) = (
        import("one", "mainnet", "v4r2"),
        import("other", "testnet", "v4r2"),
    );
    assert_eq!(one["raw_address"], other["raw_address"]);
    assert_ne!(one["address"], other["address"]);

    let (words, key) = known_words();
    sandbox.file("words", words);
    let known = import("known", "mainnet", "v4r2");
    assert_eq!(known["public_key"], format!("ed25519:{key}"));
}

#[test]
fn wallets_that_cannot_be_made_are_refused() {
    let sandbox = Sandbox::new();
    let bank = Bank::embedded(&sandbox);
    bank.wallet("main");
    let before = fs::read(sandbox.home().join("wallets/main.json")).unwrap();
    bank.run(&["wallet", "new", "main", "--network", "testnet"])
        .expect(2)
        .says("there is a wallet `main` already");
    let after = fs::read(sandbox.home().join("wallets/main.json")).unwrap();
    assert_eq!(before, after);
    let (words, _) = known_words();
    let (first, rest) = words.split_once(' ').unwrap();
    for (words, reason) in [
        (rest.to_owned(), "a word is missing"),
        (format!("{rest} {first}"), "another order"),
        (format!("tussah {rest}"), "a word that is none"),
        (String::new(), "nothing"),
    ] {
        sandbox.file("words", words);
        let import = ["wallet", "import", "other", "--network", "testnet"];
        let ended = bank.run(&[&import[..], &["--words-file", "words"]].concat());
        assert_eq!(ended.code, 2, "{reason}: {ended:?}");
        assert!(!sandbox.home().join("wallets/other.json").exists());
    }
    bank.run(&["wallet", "address", "none"])
        .expect(2)
        .says("there is no wallet `none`");
    bank.run(&["wallet", "new", "Main", "--network", "testnet"])
        .expect(2);
    bank.run(&["wallet", "new", "third", "--network", "moon"])
        .expect(2)
        .says("`moon` is no network");
}

#[test]
fn a_balance_is_what_the_chain_says() {
    let sandbox = Sandbox::new();
    let bank = Bank::localnet(&sandbox);
    let address = bank.wallet("main");
    let empty = bank.json(&["wallet", "balance", "main"]);
    assert_eq!(empty["nanograms"], "0");
    assert_eq!(empty["state"], "missing");
    bank.json(&["chain", "faucet", &address, "1.25"]);
    let funded = bank.json(&["wallet", "balance", "main"]);
    assert_eq!(funded["nanograms"], "1250000000");
    assert_eq!(funded["state"], "not deployed");
    let text = bank.run(&["wallet", "balance", "main"]).expect(0);
    assert!(text.stdout.contains("1.25 GRAM on localnet"), "{text:?}");

    // A wallet of another network has another address here.
    bank.json(&["wallet", "new", "real", "--network", "mainnet"]);
    bank.run(&["wallet", "balance", "real"])
        .expect(2)
        .says("wallet `real` is of network -239");
    let nowhere = ["wallet", "balance", "main", "--chain"];
    bank.run(&[&nowhere[..], &["somewhere"]].concat())
        .expect(2)
        .says("`somewhere` is no chain");
    bank.run(&[&nowhere[..], &["http://example.org/api/v2"]].concat())
        .expect(2);
    bank.run(&[&nowhere[..], &["embedded:"]].concat())
        .expect(2)
        .says("names no folder");
    // A mistyped folder is no new, empty chain.
    bank.run(&[&nowhere[..], &["embedded:typo"]].concat())
        .expect(2)
        .says("there is no chain in typo");
    // Nor is there one whose time could be moved.
    bank.run(&["chain", "advance", "5", "--chain", "embedded:typo"])
        .expect(2)
        .says("there is no chain in typo");
    assert!(!sandbox.work().join("typo").exists());
    // A key in the environment is nobody's but toncenter's.
    let elsewhere = [&nowhere[..], &["https://example.invalid/api/v2"]].concat();
    let mut balance = bank.command(&elsewhere);
    let balance = balance.env("TUSSAH_CHAIN_KEY", "secret");
    Ended::from(balance.output().unwrap())
        .expect(2)
        .says("TUSSAH_CHAIN_KEY is for toncenter.com");
}

/// Words that nobody has seen are nobody's wallet.
#[test]
fn a_wallet_whose_words_cannot_be_shown_is_not_made() {
    let sandbox = Sandbox::new();
    let bank = Bank::embedded(&sandbox);
    for json in [&["--json"][..], &[]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let new = ["wallet", "new", "main", "--network", "testnet"];
        let mut new = bank.command(&[&new[..], json].concat());
        let ended = Ended::from(new.stdout(writer).output().unwrap()).expect(5);
        if json.is_empty() {
            ended.says("so no wallet was made");
        }
        assert!(!sandbox.home().join("wallets/main.json").exists());
    }
    bank.wallet("main");
}

#[test]
fn a_provider_lists_its_offer_and_its_bond() {
    let sandbox = Sandbox::new();
    let bank = Bank::localnet(&sandbox);
    bank.funded("cold", "20");
    let key = bank.json(&["provider", "key"])["key"].clone();
    let offer = |key: &str, fuel: u64| {
        format!(
            "offer = 1\nnetwork = {}\nkey = \"{key}\"\nfuel_price_nanograms = {fuel}\n\
             inference_price_nanograms = 20000\n",
            0x5475_7373
        )
    };
    let key = key.as_str().unwrap();
    sandbox.file("offer.toml", offer(key, 10_000));
    let register = ["provider", "register", "cold", "--offer", "offer.toml"];
    let listed = bank.json(&[&register[..], &["--bond", "2"]].concat());
    assert_eq!(listed["key"], key);
    assert_eq!(listed["fuel_price_nanograms"], "10000");
    let bond = nanograms(&listed["bond_nanograms"]);
    assert!((2 * GRAM..2 * GRAM + GRAM / 20).contains(&bond), "{bond}");
    let held = bank.balance("cold");
    let spent = 20 * GRAM - held - bond;
    // A year's rent that is kept back, and gas.
    assert!(spent < GRAM / 10, "{spent}");

    let address = listed["address"].as_str().unwrap();
    assert!(address.starts_with("kQ"), "{address}");
    let show = ["provider", "show", address, "--offer", "offer.toml"];
    assert_eq!(bank.json(&show), listed);
    // Another price is another offer, whoever serves it; listing it makes it the provider's.
    sandbox.file("offer.toml", offer(key, 9_999));
    bank.run(&show).expect(3);
    let again = bank.json(&register);
    assert_eq!(again["address"], listed["address"]);
    assert_eq!(again["bond_nanograms"], listed["bond_nanograms"]);
    assert_eq!(bank.json(&show)["fuel_price_nanograms"], "9999");

    let other = format!("ed25519:{}", known_words().1);
    sandbox.file("offer.toml", offer(&other, 1));
    bank.run(&register)
        .expect(2)
        .says("the offer's key is not this host's");
    sandbox.file("offer.toml", offer(key, 1));
    bank.wallet("poor");
    bank.run(&["provider", "register", "poor", "--offer", "offer.toml"])
        .expect(2)
        .says("send the wallet more, or pay less");
    sandbox.file("passphrase", "another\n");
    bank.run(&register).expect(3);
    bank.run(&["provider", "show", &bank.wallet("nobody")])
        .expect(2);
}

#[test]
fn an_account_and_what_it_did_are_shown_by_name() {
    let sandbox = Sandbox::new();
    let bank = Bank::localnet(&sandbox);
    let main = bank.funded("main", "20");
    let opened = bank.json(&["channel", "open", "main", "--deposit", "5"]);
    let channel = opened["address"].as_str().unwrap();

    let account = bank.json(&["chain", "show", channel]);
    assert_eq!(account["code"], "payment channel");
    assert_eq!(account["channel"], "open");
    assert_eq!(account["redeemed"], "0");
    let newest = &account["transactions"][0];
    assert_eq!(newest["in_message"]["name"], "Open");
    assert_eq!(newest["in_message"]["value"], "5100000000");
    assert_eq!(newest["exit_code"], 0);

    // A transaction is named by its account and its logical time.
    let lt = newest["lt"].as_str().unwrap();
    let one = bank.json(&["chain", "show", &format!("{channel}/{lt}")]);
    assert_eq!(one, *newest);
    let text = bank.run(&["chain", "show", &format!("{channel}/{lt}")]);
    let text = text.expect(0).stdout;
    for words in ["Open", "5.1 GRAM", "expires_at", "done"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    bank.run(&["chain", "show", &format!("{channel}/1")])
        .expect(2)
        .says("has no transaction at logical time 1");

    let wallet = bank.json(&["chain", "show", &main]);
    assert_eq!(wallet["code"], "wallet V5R1");
    assert_eq!(wallet["seqno"], "1");
    let raw = wallet["raw"].as_str().unwrap();
    assert_eq!(bank.json(&["chain", "show", raw]), wallet);
    bank.run(&["chain", "show", "nonsense"])
        .expect(2)
        .says("`nonsense` is no address");
}
