//! Payment channels by the command line: a deposit, paid runs, the root on chain, the payout.

mod apart;

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    bank::{Bank, GRAM, nanograms},
    fixture::{Ended, Sandbox},
};

/// So that a small job costs an amount that can be told from gas: 100,000 nanograms a unit of fuel.
const PRICES: [&str; 2] = ["--fuel-price", "100000"];
const NANOGRAMS_A_FUEL: u64 = 100_000;

/// A channel and a job to be paid through it.
struct Paid<'a> {
    bank: &'a Bank<'a>,
    job: String,
    channel: String,
}

impl<'a> Paid<'a> {
    /// Opens a channel by the wallet `main`.
    #[track_caller]
    fn open(bank: &'a Bank<'a>, options: &[&str]) -> Self {
        let job = bank.sandbox.plain_job().to_str().unwrap().to_owned();
        let open = ["channel", "open", "main", "--deposit", "5"];
        let opened = bank.json(&[&open[..], &PRICES, options].concat());
        assert_eq!(opened["status"], "open");
        Self {
            bank,
            job,
            channel: opened["address"].as_str().unwrap().to_owned(),
        }
    }

    fn run(&self, options: &[&str]) -> Ended {
        let run = ["run", &self.job, "--channel", &self.channel];
        self.bank.run(&[&run[..], options].concat())
    }

    /// A run that is paid, with its receipt in a file; its price.
    #[track_caller]
    fn pay(&self, index: &str, receipt: &str) -> u64 {
        let options = ["--price-max", "0.4", "--receipt", receipt, "--json"];
        let run = self.run(&options).expect(0).json();
        let price = nanograms(&run["paid"]["price_nanograms"]);
        let fuel = run["used"]["fuel"].as_u64().unwrap();
        assert_eq!(price, fuel * NANOGRAMS_A_FUEL);
        assert_eq!(run["paid"]["index"], index);
        assert_eq!(
            run["receipt"]["consensus"]["price_nanograms"],
            price.to_string()
        );
        price
    }

    /// `tussah channel COMMAND ADDRESS …`.
    fn channel(&self, command: &str, options: &[&str]) -> Ended {
        let arguments = ["channel", command, &self.channel];
        self.bank.run(&[&arguments[..], options].concat())
    }

    #[track_caller]
    fn done(&self, command: &str, options: &[&str]) -> Value {
        let options = [options, &["--json"]].concat();
        self.channel(command, &options).expect(0).json()
    }
}

/// Money goes from a deposit over two runs and a root to the payout, and the rest comes back.
fn a_channels_life(bank: &Bank<'_>) {
    bank.funded("main", "20");
    let cold = bank.wallet("cold");
    let paid = Paid::open(bank, &["--payout", &cold]);
    let status = paid.done("status", &[]);
    assert!(nanograms(&status["capacity_nanograms"]) >= 5 * GRAM);
    assert!(paid.channel.starts_with("kQ"), "{}", paid.channel);

    // What it may cost has to be said, and is never above what may be unpaid.
    paid.run(&[])
        .expect(2)
        .says("nobody said what the run may cost");
    paid.run(&["--price-max", "0.6"])
        .expect(4)
        .says("the channel allows");
    paid.run(&["--price-max", "0.4", "--dry-run"]).expect(2);
    let first = paid.pay("0", "r0.cbor");
    let verify = ["receipt", "verify", "r0.cbor", "--chain", &bank.chain];
    bank.run(&verify).expect(3).says("not posted yet");
    paid.channel("withdraw", &["--wallet", "main"])
        .expect(2)
        .says("owes the provider nothing");
    let second = paid.pay("1", "r1.cbor");
    // A price is the provider's business; all else is the job's.
    bank.run(&["audit", "r0.cbor"]).expect(0);

    let redeemed = paid.done("redeem", &[]);
    assert_eq!(nanograms(&redeemed["redeemed_nanograms"]), first + second);
    assert_eq!(redeemed["posted_receipts"], "2");
    assert_eq!(redeemed["posted_root"], redeemed["client"]["root"]);
    assert_eq!(redeemed["posted_root"], redeemed["provider"]["root"]);
    let owed = nanograms(&redeemed["owed_nanograms"]);
    // The redeem's gas is the provider's: about 553,000 nanograms.
    assert!(
        (400_000..700_000).contains(&(first + second - owed)),
        "{owed}"
    );
    // There is nothing more to redeem, and nothing is paid twice.
    let again = paid.done("redeem", &[]);
    assert_eq!(again["owed_nanograms"], redeemed["owed_nanograms"]);

    the_chain_holds_the_receipts(bank, &verify);

    // The payout account is not deployed: only the owner has it paid all the same.
    paid.channel("withdraw", &["--wallet", "main"])
        .expect(2)
        .says("no code runs at the payout account");
    bank.funded("other", "1");
    paid.channel("withdraw", &["--wallet", "other", "--undeployed"])
        .expect(2)
        .says("only the channel's owner");
    paid.done("withdraw", &["--wallet", "main", "--undeployed"]);
    let paid_out = bank.balance("cold");
    assert!(
        (owed - 1_000_000..=owed).contains(&paid_out),
        "{paid_out} of {owed}"
    );

    // What is not redeemed yet is settled by the close.
    let third = paid.pay("2", "r2.cbor");
    let closed = paid.done("close", &["--wallet", "main"]);
    assert_eq!(closed["status"], "closed");
    assert_eq!(
        nanograms(&closed["redeemed_nanograms"]),
        first + second + third
    );
    paid.done("withdraw", &["--wallet", "main", "--undeployed"]);
    let cold = bank.balance("cold");
    assert!(cold > paid_out + third - 2_000_000, "{cold}");
    paid.run(&["--price-max", "0.4"])
        .expect(2)
        .says("takes no more jobs: it is closed");
    // While something was owed the account kept back its rent; now that comes back too. All that
    // the client does not have any more was earned, or is gas.
    paid.done("close", &["--wallet", "main"]);
    let main = bank.balance("main");
    let earned = first + second + third;
    let fees = 20 * GRAM - main - earned;
    assert!(fees < GRAM / 50, "{fees}");
}

/// A receipt is in the posted root by this host's book, and by a proof on another machine.
fn the_chain_holds_the_receipts(bank: &Bank<'_>, verify: &[&str]) {
    let text = bank.run(verify).expect(0);
    assert!(text.stdout.contains("on chain: receipt 0 of 2"), "{text:?}");
    let proof = bank.json(verify);
    assert_eq!(proof["inclusion"]["posted"]["receipts"], "2");
    let stranger = Sandbox::new();
    let bytes = |name: &str| fs::read(bank.sandbox.work().join(name)).unwrap();
    stranger.file("r0.cbor", bytes("r0.cbor"));
    stranger.file("r1.cbor", bytes("r1.cbor"));
    stranger.file("proof.json", proof.to_string());
    // An embedded chain is a folder beside the commands that use it.
    let chain = match bank.chain.strip_prefix("embedded:") {
        Some(folder) => format!("embedded:{}", bank.sandbox.work().join(folder).display()),
        None => bank.chain.clone(),
    };
    let other = |receipt: &str, options: &[&str]| {
        let verify = ["receipt", "verify", receipt, "--chain", &chain];
        stranger.run(&[&verify[..], options].concat())
    };
    other("r0.cbor", &["--proof", "proof.json"]).expect(0);
    assert!(!stranger.home().join("channels").exists());
    other("r0.cbor", &[])
        .expect(2)
        .says("this host has no book of the receipt's channel");
    // Another receipt's proof, and one in which a hash is another.
    other("r1.cbor", &["--proof", "proof.json"])
        .expect(3)
        .says("the proof is of receipt 0, not 1");
    let mut forged = proof.clone();
    forged["inclusion"]["proof"]["path"][0] = proof["inclusion"]["posted"]["root"].clone();
    stranger.file("proof.json", forged.to_string());
    other("r0.cbor", &["--proof", "proof.json"])
        .expect(3)
        .says("does not lead to the posted root");
    stranger.file("proof.json", "{}");
    other("r0.cbor", &["--proof", "proof.json"])
        .expect(2)
        .says("holds no proof");
}

#[test]
fn money_goes_from_the_deposit_to_the_payout() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    a_channels_life(&Bank::localnet(&sandbox));
}

#[test]
fn the_same_without_a_server() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    a_channels_life(&Bank::embedded(&sandbox));
}

#[test]
fn a_close_by_one_side_waits_for_the_challenge_window() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &["--challenge-hours", "2"]);
    let price = paid.pay("0", "r0.cbor");
    let close = ["--wallet", "main", "--one-sided"];
    assert_eq!(paid.done("close", &close)["status"], "closing");
    paid.channel("close", &close)
        .expect(4)
        .says("the challenge window ends in");
    paid.run(&["--price-max", "0.4"])
        .expect(2)
        .says("takes no more jobs: it is closing");
    // The voucher is good within the window.
    let redeemed = paid.done("redeem", &[]);
    assert_eq!(nanograms(&redeemed["redeemed_nanograms"]), price);
    bank.json(&["chain", "advance", "7200"]);
    assert_eq!(paid.done("close", &close)["status"], "closed");
    paid.done("withdraw", &["--wallet", "main"]);
    // While something was owed the account kept back its rent; now that comes back too.
    paid.done("close", &close);
    // Client and provider are one here, so all but gas is back.
    let main = bank.balance("main");
    assert!(main > 20 * GRAM - GRAM / 50, "{main}");
}

#[test]
fn a_channel_is_topped_up_and_crumbs_are_redeemed_by_a_wallet() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let step = ["channel", "open", "main", "--deposit", "1", "--redeem-step"];
    bank.run(&[&step[..], &["0.0005"]].concat())
        .expect(2)
        .says("the least step");
    let paid = Paid::open(&bank, &["--redeem-step", "4"]);
    let before = nanograms(&paid.done("status", &[])["capacity_nanograms"]);
    let after = paid.done("top-up", &["--wallet", "main", "--amount", "3"]);
    let after = nanograms(&after["capacity_nanograms"]);
    assert!(after >= before + 3 * GRAM, "{before} {after}");

    let price = paid.pay("0", "r0.cbor");
    paid.channel("redeem", &[])
        .expect(4)
        .says("the channel redeems 4 GRAM at least");
    let redeemed = paid.done("redeem", &["--wallet", "main"]);
    assert_eq!(nanograms(&redeemed["redeemed_nanograms"]), price);
    // The wallet paid the gas.
    assert_eq!(nanograms(&redeemed["owed_nanograms"]), price);

    let all = bank.json(&["channel", "status"]);
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!(all[0]["address"], paid.channel);
    bank.run(&["channel", "status", &bank.wallet("other")])
        .expect(2)
        .says("this host has no channel");
    bank.run(&["channel", "open", "main", "--deposit", "500"])
        .expect(2)
        .says("send the wallet more, or pay less");
    // Terms without an account: the money never left.
    let text = bank.run(&["channel", "status"]).expect(0);
    assert!(text.stdout.contains("was never opened"), "{text:?}");
    // What cannot be shown is not left out, least of all without a word.
    let channels = sandbox.home().join("channels");
    let name = all[0]["raw_address"].as_str().unwrap().replace(':', "_");
    fs::write(channels.join(format!("{name}.json")), "{}").unwrap();
    let listed = bank.run(&["channel", "status", "--json"]).expect(2).json();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2);
    let errors = listed.iter().map(|channel| channel["error"].as_str());
    let errors: Vec<&str> = errors.map(Option::unwrap).collect();
    assert!(errors.iter().any(|error| error.contains("is damaged")));
}

#[test]
fn books_go_to_another_machine_and_never_back() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    let first = paid.pay("0", "r0.cbor");
    for role in ["client", "provider"] {
        paid.done("export", &["--role", role, "--out", role]);
    }
    // Another machine with the same keys and nothing else.
    let other = Sandbox::with_wasm().unwrap();
    fs::create_dir_all(other.home().join("keys")).unwrap();
    for entry in fs::read_dir(sandbox.home().join("keys")).unwrap() {
        let path = entry.unwrap().path();
        let copy = other.home().join("keys").join(path.file_name().unwrap());
        fs::copy(path, copy).unwrap();
    }
    let there = bank.for_home(&other);
    for role in ["client", "provider"] {
        other.file(role, fs::read(sandbox.work().join(role)).unwrap());
        let import = ["channel", "import", role, "--role", role];
        let taken = there.json(&[&import[..], &PRICES].concat());
        assert_eq!(taken[role]["receipts"], "1");
        assert_eq!(taken[role]["vouchered_nanograms"], first.to_string());
    }
    let wrong = ["channel", "import", "client", "--role", "provider"];
    there.run(&wrong).expect(2).says("a provider's is wanted");
    let moved = Paid {
        bank: &there,
        job: other.plain_job().to_str().unwrap().to_owned(),
        channel: paid.channel.clone(),
    };
    let second = moved.pay("1", "r1.cbor");
    let redeemed = moved.done("redeem", &[]);
    assert_eq!(nanograms(&redeemed["redeemed_nanograms"]), first + second);

    // Both books are further on than the files, here as there.
    for role in ["client", "provider"] {
        there
            .run(&["channel", "import", role, "--role", role])
            .expect(3)
            .says("the file is older than");
    }
    let file = sandbox.work().join("client");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    bank.run(&["channel", "import", "client", "--role", "client"])
        .expect(3)
        .says("the file is damaged");
}

/// What is restored from a copy of the disk was checked by nobody.
#[test]
fn books_that_the_chain_is_ahead_of_are_not_gone_on_from() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    paid.pay("0", "r0.cbor");
    let (channels, snapshot) = (sandbox.home().join("channels"), sandbox.work().join("old"));
    copy_folder(&channels, &snapshot);
    paid.pay("1", "r1.cbor");
    paid.done("redeem", &[]);
    for role in ["client", "provider"] {
        paid.done("export", &["--role", role, "--out", role]);
    }
    fs::remove_dir_all(&channels).unwrap();
    copy_folder(&snapshot, &channels);

    let words = "2 receipts are posted on chain, and the book has 1";
    let pay = ["--price-max", "0.4", "--receipt", "second.cbor"];
    paid.run(&pay).expect(3).says(words);
    paid.channel("redeem", &[]).expect(3).says("channel import");
    paid.channel("close", &["--wallet", "main"])
        .expect(3)
        .says("--one-sided");
    // What tells the two apart, and what helps, goes on working.
    let status = paid.done("status", &[]);
    assert_eq!(status["provider"]["receipts"], "1");
    paid.done("export", &["--role", "client", "--out", "behind"]);
    for role in ["client", "provider"] {
        bank.json(&["channel", "import", role, "--role", role]);
    }
    paid.pay("2", "r2.cbor");
    assert_eq!(paid.done("redeem", &[])["posted_receipts"], "3");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A payment that comes back is a failure, although the channel took the message.
#[test]
fn a_payout_that_bounces_is_no_success() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    // An account with code that takes no payments: another channel.
    let other = Paid::open(&bank, &[]);
    let paid = Paid::open(&bank, &["--payout", &other.channel]);
    let price = paid.pay("0", "r0.cbor");
    let owed = nanograms(&paid.done("redeem", &[])["owed_nanograms"]);
    paid.channel("withdraw", &["--wallet", "main"])
        .expect(2)
        .says("did not take the payment");
    // It is owed again, less what the way cost.
    let again = nanograms(&paid.done("status", &[])["owed_nanograms"]);
    assert!(again < owed && again > owed - price / 2, "{again} {owed}");
    // The owner can have it stay where it is sent.
    let paid_out = paid.done("withdraw", &["--wallet", "main", "--undeployed"]);
    assert_eq!(paid_out["owed_nanograms"], "0");
}

/// What a refused or cut-off run leaves in the books does not keep both sides from agreeing.
#[test]
fn a_refused_run_does_not_stand_in_the_way_of_a_close() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    let price = paid.pay("0", "r0.cbor");
    paid.run(&["--price-max", "0.6"])
        .expect(4)
        .says("the channel allows");
    let closed = paid.done("close", &["--wallet", "main"]);
    assert_eq!(closed["status"], "closed");
    assert_eq!(nanograms(&closed["redeemed_nanograms"]), price);
}

/// Signatures that both gave cannot be taken back, so nothing more is earned on them.
#[test]
fn a_signed_close_ends_a_channel_even_where_it_was_not_sent() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    let main = bank.funded("main", "6");
    bank.funded("other", "1");
    let paid = Paid::open(&bank, &[]);
    paid.channel("close", &["--wallet", "other"])
        .expect(2)
        .says("wallet `other` is not the channel's client");
    // Nothing was signed by that.
    let price = paid.pay("0", "r0.cbor");
    paid.done("top-up", &["--wallet", "main", "--amount", "0.8"]);
    paid.channel("close", &["--wallet", "main"])
        .expect(2)
        .says("send the wallet more");
    paid.run(&["--price-max", "0.4"])
        .expect(2)
        .says("both sides have signed the close");
    bank.json(&["chain", "faucet", &main, "1"]);
    let closed = paid.done("close", &["--wallet", "main"]);
    assert_eq!(closed["status"], "closed");
    assert_eq!(nanograms(&closed["redeemed_nanograms"]), price);
}

/// A job that would go on past the deadline could not be paid for any more.
#[test]
fn a_run_is_stopped_before_its_channels_deadline() {
    const STOP_BEFORE: u64 = 600;
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    if !sandbox.work().join("plain").exists() {
        sandbox.plain_source(); // Where another test had the job built.
    }
    let source = "#[tussah_sdk::job]\nfn run(_: String) -> Result<(), tussah_sdk::Error> {\n    \
                  loop {\n        std::hint::black_box(());\n    }\n}\n";
    sandbox.file("plain/src/lib.rs", source);
    let limits = sandbox.work().join("plain/tussah.toml");
    let text = fs::read_to_string(&limits).unwrap();
    let text = text.replace(
        "fuel_max = 10_000_000_000",
        "fuel_max = 900_000_000_000_000",
    );
    fs::write(&limits, text).unwrap();
    let built = sandbox.build(Path::new("plain")).expect(0).json();
    let job = built["manifest"]["path"].as_str().unwrap();

    // Long enough to begin, on a slow machine too.
    let deadline = paid.done("status", &[])["deadline"].as_u64().unwrap();
    let now = bank.json(&["chain", "advance", "1"])["now"]
        .as_u64()
        .unwrap();
    let ahead = deadline - STOP_BEFORE - 25 - now;
    bank.json(&["chain", "advance", &ahead.to_string()]);
    let run = ["run", job, "--channel", &paid.channel, "--price-max", "0.4"];
    let ended = bank.run(&[&run[..], &["--receipt", "r.cbor"]].concat());
    ended.expect(4).says("its channel's deadline is near");
    let shown = bank.json(&["receipt", "show", "r.cbor"]);
    assert_eq!(shown["consensus"]["exit"]["kind"], "cancelled");
    // What it used is paid, and there is time left to have it.
    let price = nanograms(&shown["consensus"]["price_nanograms"]);
    assert!(price > 0);
    let redeemed = paid.done("redeem", &[]);
    assert_eq!(nanograms(&redeemed["redeemed_nanograms"]), price);
    bank.run(&run).expect(2).says("takes no more jobs");
}

/// Whoever cannot have the receipt does not pay for it.
#[test]
fn a_receipt_that_cannot_be_written_is_not_paid_for() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    fs::create_dir_all(sandbox.work().join("folder.opening")).unwrap();
    for (target, reason) in [
        ("missing/r.cbor", "there is no such folder"),
        ("folder", "its opening has a folder's name"),
        (".", "it is a folder"),
    ] {
        let ended = paid.run(&["--price-max", "0.4", "--receipt", target]);
        assert_eq!(ended.code, 2, "{reason}: {ended:?}");
    }
    let status = paid.done("status", &[]);
    for role in ["client", "provider"] {
        assert_eq!(status[role]["receipts"], "0");
        assert_eq!(status[role]["promised_nanograms"], "0");
    }
    assert_eq!(sandbox.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
#[cfg(unix)]
fn a_run_that_was_cut_off_leaves_its_place_to_a_failure() {
    use crate::fixture::{SAMPLE, repository};
    use std::io::Read;
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let bank = Bank::localnet(&sandbox);
    bank.funded("main", "20");
    let paid = Paid::open(&bank, &[]);
    let article = repository().join(SAMPLE);
    let manifest = sandbox.summarize();
    let long = ["run", manifest.to_str().unwrap(), "--input"];
    let more = [article.to_str().unwrap(), "--channel", &paid.channel];
    let run = [&long[..], &more, &["--price-max", "0.4"]].concat();
    let mut child = bank.command(&run).spawn().unwrap();
    let mut first = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    // Another run of the channel would take this one for dead.
    paid.run(&["--price-max", "0.4"])
        .expect(5)
        .says("another run is being paid through channel");
    // Nor is the channel closed under its feet.
    paid.channel("close", &["--wallet", "main"])
        .expect(5)
        .says("another run is being paid through channel");
    child.kill().unwrap();
    child.wait().unwrap();

    let price = paid.pay("1", "r1.cbor");
    let status = paid.done("status", &[]);
    for role in ["client", "provider"] {
        assert_eq!(status[role]["receipts"], "2");
        assert_eq!(status[role]["earned_nanograms"], price.to_string());
        assert_eq!(status[role]["promised_nanograms"], "0");
        assert_eq!(status[role]["vouchered_nanograms"], price.to_string());
    }

    // The next one is killed too, and then nobody runs anything: a close fills its place as well.
    let mut child = bank.command(&run).spawn().unwrap();
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let closed = paid.done("close", &["--wallet", "main"]);
    assert_eq!(closed["status"], "closed");
    assert_eq!(closed["posted_receipts"], "3");
    assert_eq!(nanograms(&closed["redeemed_nanograms"]), price);
}
