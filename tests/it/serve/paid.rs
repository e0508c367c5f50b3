//! Jobs that a client with its own key pays for through a payment channel, from the deposit to what
//! the chain credits: two homes, a daemon, and a localnet.

mod away;
mod both;
mod redeem;

use std::{fs, io::BufRead as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use tussah_manifest::{
    Channel, ChannelAddress, Commitment, Digest, Document as _, Nanograms, Nonce, PublicKey,
    Receipt, ReceiptTree, Request, RequestBody, Signature, SigningKey, Version,
};
use tussah_settlement::{
    Address,
    voucher::{ChannelId, Claim, NetworkId, Voucher},
};

use super::{Answer, Daemon, signal};
use crate::{
    bank::{Bank, GRAM, nanograms},
    fixture::Sandbox,
    worker::{ECHO, SPIN},
};

/// What each job costs: a tenth of a GRAM.
const PRICE: u64 = 100_000_000;

fn bytes<const N: usize>(hex: &Value) -> [u8; N] {
    let hex = hex.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    assert_eq!(hex.len(), 2 * N);
    std::array::from_fn(byte)
}

/// A client as it has to be: it keeps what it was given, and promises no more than that.
struct Client {
    key: SigningKey,
    provider: PublicKey,
    address: ChannelAddress,
    id: ChannelId,
    tree: ReceiptTree,
    owed: u64,
}

impl Client {
    /// The client of this home, in the channel that it opened.
    fn new(home: &Sandbox, provider: &str, address: &str, daemon: &Daemon) -> Self {
        let key = fs::read_to_string(home.home().join("keys/client.key")).unwrap();
        let address: ChannelAddress = address.parse().unwrap();
        let standing = daemon.get(&format!("/v1/channels/{address}")).expect(200);
        let standing = standing.json();
        let network = i32::try_from(standing["network"].as_i64().unwrap()).unwrap();
        let account = Address::new(
            i8::try_from(address.workchain).unwrap(),
            address.account.into(),
        );
        Self {
            key: SigningKey::from_bytes(&bytes(&json!(key.trim()))),
            provider: provider.parse().unwrap(),
            address,
            id: ChannelId {
                network: NetworkId(network),
                address: account,
                incarnation: bytes(&standing["incarnation"]),
            },
            tree: ReceiptTree::new(),
            owed: 0,
        }
    }

    fn request(&self, job: &Value, index: u64, input: &str) -> Request {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&index.to_le_bytes());
        nonce[8..16].copy_from_slice(&Digest::of(input.as_bytes()).as_bytes()[..8]);
        let nonce = Nonce::from_bytes(nonce);
        let digest = |name: &str| job[name].as_str().unwrap().parse().unwrap();
        let body = RequestBody {
            version: Version::V1,
            manifest: digest("manifest"),
            module: digest("module"),
            input: RequestBody::input_digest(&nonce, input.as_bytes()),
            nonce,
            price_nanograms_max: Nanograms::new(PRICE).unwrap(),
            channel: Channel::Ton {
                address: self.address,
                index,
            },
            deadline_unix_ms: None,
            client_key: self.key.public_key(),
        };
        body.sign(&self.key).unwrap()
    }

    /// What is sent for a job at an index.
    fn body(&self, job: &Value, index: u64, input: &str) -> Value {
        let request = BASE64.encode(self.request(job, index, input).to_bytes());
        json!({"manifest": job["manifest"], "input": input, "request": request})
    }

    /// Takes in a job's receipt and the provider's word for it; the status of the run.
    fn take(&mut self, daemon: &Daemon, job: &str, index: u64) -> (String, u64) {
        let path = format!("/v1/jobs/{job}/receipt");
        let receipt = daemon.ask("GET", &path, "", "application/octet-stream");
        let receipt = Receipt::from_verified_bytes(&receipt.expect(200).body).unwrap();
        assert_eq!(receipt.provider_key, self.provider);
        let place = Channel::Ton {
            address: self.address,
            index,
        };
        assert_eq!(receipt.consensus.channel, place);
        let claim = daemon
            .get(&format!("/v1/jobs/{job}/claim"))
            .expect(200)
            .json();
        assert_eq!(claim["index"], index.to_string());
        let claim = Claim {
            channel: self.id.clone(),
            index,
            receipt: receipt.digest(),
            signature: Signature::from_bytes(bytes(&claim["signature"])),
        };
        claim.verify(&self.provider).unwrap();
        assert_eq!(self.tree.append(&receipt.digest()), index);
        let price = receipt.consensus.price_nanograms.get();
        self.owed += price;
        (receipt.consensus.exit.name().to_owned(), price)
    }

    /// A promise to pay for all of it.
    fn voucher(&self) -> Value {
        self.voucher_of(self.owed, self.tree.commitment(), &self.key)
    }

    fn voucher_of(&self, amount: u64, commitment: Commitment, key: &SigningKey) -> Value {
        let voucher = Voucher {
            channel: self.id.clone(),
            amount: Nanograms::new(amount).unwrap(),
            commitment,
        };
        let signed = voucher.sign(key);
        let signature = signed.signature.as_bytes().iter();
        json!({
            "amount_nanograms": amount.to_string(),
            "receipts": commitment.receipts.to_string(),
            "root": commitment.root.to_string(),
            "signature": signature.map(|byte| format!("{byte:02x}")).collect::<String>(),
        })
    }
}

fn post(daemon: &Daemon, path: &str, body: &Value) -> Answer {
    daemon.ask("POST", path, &body.to_string(), "*/*")
}

#[track_caller]
fn refused(answer: Answer, status: u16, code: &str, words: &str) {
    let error = answer.expect(status).json()["error"].clone();
    assert_eq!(error["code"], code, "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(words),
        "{error}"
    );
}

/// A channel of a client's, towards a provider.
struct Opened {
    provider: String,
    owner: String,
    terms: String,
    address: String,
}

fn open(bank: &Bank<'_>, our_bank: &Bank<'_>) -> Opened {
    let provider = our_bank.json(&["provider", "key"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let owner = our_bank.wallet("cold");
    bank.funded("main", "20");
    let open = [
        "channel",
        "open",
        "main",
        "--deposit",
        "5",
        "--in-flight",
        "0.2",
    ];
    bank.json(&[&open[..], &["--provider", &provider, "--owner", &owner]].concat());
    let mut terms = fs::read_dir(bank.sandbox.home().join("channels")).unwrap();
    let terms = terms.find_map(|entry| {
        let path = entry.unwrap().path();
        (path.extension()? == "json").then_some(path)
    });
    let terms = terms.unwrap();
    let address = terms.file_stem().unwrap().to_str().unwrap();
    Opened {
        provider,
        owner,
        address: address.replace('_', ":"),
        terms: terms.to_str().unwrap().to_owned(),
    }
}

/// Returns once the daemon has seen the channel on its chain.
fn wait_until_seen(daemon: &Daemon, address: &str) {
    let path = format!("/v1/channels/{address}");
    while daemon.get(&path).expect(200).json()["takes_jobs"] != true {}
}

#[test]
fn a_client_pays_through_its_channel_and_the_chain_credits_the_provider() {
    let (ours, theirs) = (Sandbox::new(), Sandbox::new());
    let bank = Bank::localnet(&theirs);
    let our_bank = bank.for_home(&ours);
    let shown = |name: &str| {
        let module = ours.file(
            &format!("{name}.wasm"),
            crate::worker::component(match name {
                "echo" => ECHO,
                _ => SPIN,
            }),
        );
        let module = module.to_str().unwrap();
        let deploy = ["deploy", module, "--as", name, "--shape", "raw", "--json"];
        ours.run(&deploy).expect(0).json()
    };
    let (echo, spin) = (shown("echo"), shown("spin"));
    let Opened {
        provider,
        owner,
        terms,
        address,
    } = open(&bank, &our_bank);

    let options = [
        "--chain",
        &bank.chain,
        "--price-base",
        "100000000",
        "--jobs-max",
        "1",
    ];
    let daemon = Daemon::start_with(&ours, "one", &options);
    let path = format!("/v1/channels/{address}");
    refused(
        daemon.get(&path),
        404,
        "channel_not_found",
        "does not take jobs",
    );
    // The client's terms are taken in beside the daemon.
    add_refuses_what_does_not_pay_its_operator(&our_bank, &terms, &owner);
    let add = ["serve", "channel", "add", &terms];
    let added = our_bank.json(&[&add[..], &["--owner", &owner]].concat());
    assert_eq!(added["channel"], address);
    assert_eq!(added["owner"], added["payout"]);
    assert_eq!(added["challenge_seconds"], 24 * 3_600);
    assert!(nanograms(&added["capacity_nanograms"]) >= 5 * GRAM);
    assert_eq!(added["in_flight_max_nanograms"], (2 * PRICE).to_string());
    wait_until_seen(&daemon, &address);
    let mut client = Client::new(&theirs, &provider, &address, &daemon);

    for (index, input) in [(0, "one"), (1, "two")] {
        let body = client.body(&echo, index, input);
        let job = daemon.submit(&body);
        assert_eq!(daemon.wait_for(&job)["price_nanograms"], PRICE.to_string());
        // The same request again is the same job.
        let again = post(&daemon, "/v1/jobs", &body).expect(200).json();
        assert_eq!(again["id"], job);
        assert_eq!(
            client.take(&daemon, &job, index),
            ("done".to_owned(), PRICE)
        );
    }
    // Nothing of it is on the account's credit.
    let account = ours
        .run(&["serve", "credit", "shop", "--json"])
        .expect(0)
        .json();
    assert_eq!(account["spent_nanograms"], "0");
    assert_eq!(account["reserved_nanograms"], "0");

    // Two tenths are unpaid, and no more may be.
    let third = client.body(&echo, 2, "three");
    let words = "a voucher has to come first";
    refused(
        post(&daemon, "/v1/jobs", &third),
        402,
        "channel_refused",
        words,
    );
    what_is_no_promise_is_refused(&daemon, &client, &echo);

    // A voucher comes with the job that waited for it.
    let mut paid = third.clone();
    paid["voucher"] = client.voucher();
    let job = daemon.submit(&paid);
    daemon.wait_for(&job);
    assert_eq!(client.take(&daemon, &job, 2), ("done".to_owned(), PRICE));
    let standing = daemon.get(&path).expect(200).json();
    assert_eq!(standing["vouchered_nanograms"], (2 * PRICE).to_string());
    assert_eq!(standing["earned_nanograms"], (3 * PRICE).to_string());

    // One that is cut off, and one that never runs, leave no hole where they were.
    let vouchers = format!("{path}/vouchers");
    let all = client.voucher();
    post(&daemon, &vouchers, &all).expect(200);
    let spinning = daemon.submit(&client.body(&spin, 3, "spin"));
    let mut events = daemon.send("GET", &format!("/v1/jobs/{spinning}/events"), "", "*/*");
    let mut heard = String::new();
    while !heard.contains("event: output") {
        assert_ne!(events.read_line(&mut heard).unwrap(), 0, "{heard}");
    }
    let waiting = daemon.submit(&client.body(&echo, 4, "waits"));
    for job in [&waiting, &spinning] {
        post(&daemon, &format!("/v1/jobs/{job}/cancel"), &json!({})).expect(202);
    }
    for (job, index, price) in [(&spinning, 3, PRICE), (&waiting, 4, 0)] {
        daemon.wait_for(job);
        assert_eq!(
            client.take(&daemon, job, index),
            ("cancelled".to_owned(), price)
        );
    }

    // A daemon that is killed has its book: the next one goes on in it.
    signal("-KILL", daemon.child.id());
    drop(daemon);
    let daemon = Daemon::start_with(&ours, "two", &options);
    wait_until_seen(&daemon, &address);
    let standing = daemon.get(&path).expect(200).json();
    let root = client.tree.commitment().root.to_string();
    assert_eq!(standing["root"], root);
    assert_eq!(standing["next_index"], "5");
    let mut paid = client.body(&echo, 5, "after");
    paid["voucher"] = client.voucher();
    let job = daemon.submit(&paid);
    daemon.wait_for(&job);
    assert_eq!(client.take(&daemon, &job, 5), ("done".to_owned(), PRICE));
    post(&daemon, &vouchers, &client.voucher()).expect(200);

    // The provider is paid beside the daemon that runs.
    let redeemed = our_bank.json(&["channel", "redeem", &address]);
    assert_eq!(redeemed["redeemed_nanograms"], client.owed.to_string());
    assert_eq!(redeemed["posted_receipts"], "6");
    let root = client.tree.commitment().root.to_string();
    assert_eq!(redeemed["posted_root"], root);
    daemon.terminate().expect(0);
}

/// The terms are the client's file: whom they pay, and how long a close leaves, is for the operator
/// to say.
fn add_refuses_what_does_not_pay_its_operator(bank: &Bank<'_>, terms: &str, owner: &str) {
    let add = |more: &[&str]| bank.run(&[&["serve", "channel", "add", terms], more].concat());
    let other = bank.wallet("other");
    let settings = bank.sandbox.home().join("serve.toml");
    add(&[]).expect(2).says("--owner");
    let refused = add(&["--owner", &other]).expect(2);
    refused.says("as the provider's owner").says("--owner");
    let refused = add(&["--owner", owner, "--payout", &other]).expect(2);
    refused.says("as the account that is paid").says("--payout");
    let refused = add(&["--owner", owner, "--challenge-hours-min", "25"]).expect(2);
    refused.says("25 hours are wanted");
    let mut large: Value = serde_json::from_slice(&fs::read(terms).unwrap()).unwrap();
    large["redeem_step_min_nanograms"] = json!(2_000_000_000);
    let file = bank.sandbox.home().join("large.json");
    fs::write(&file, large.to_string()).unwrap();
    let large = ["serve", "channel", "add", file.to_str().unwrap()];
    let refused = bank.run(&[large.as_slice(), &["--owner", owner]].concat());
    refused
        .expect(2)
        .says("steps of 2 GRAM")
        .says("--redeem-step");
    fs::write(&settings, format!("[channels]\nowner = \"{other}\"\n")).unwrap();
    add(&[]).expect(2).says("as the provider's owner");
    // What was refused is not kept.
    let listed = bank.json(&["channel", "status"]);
    assert_eq!(listed, json!([]));
    fs::remove_file(&settings).unwrap();
}

/// Requests and vouchers that are somebody else's, or for something else.
fn what_is_no_promise_is_refused(daemon: &Daemon, client: &Client, echo: &Value) {
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let path = format!("/v1/channels/{}/vouchers", client.address);
    let whole = client.tree.commitment();
    let mut other = ReceiptTree::new();
    other.append(&Digest::of(b"one"));
    other.append(&Digest::of(b"two"));
    for (commitment, key, words) in [
        (whole, &stranger, "signature"),
        (other.commitment(), &client.key, "is not this book's"),
    ] {
        let voucher = client.voucher_of(client.owed, commitment, key);
        let answer = post(daemon, &path, &voucher);
        refused(answer, 402, "channel_refused", words);
    }
    let mut short = client.voucher();
    short["signature"] = json!("00");
    refused(
        post(daemon, &path, &short),
        400,
        "invalid_value",
        "signature",
    );
    let skips = client.body(echo, 7, "skips");
    let answer = post(daemon, "/v1/jobs", &skips);
    refused(answer, 402, "channel_refused", "next index is 2");
    let taken = client.body(echo, 0, "another job for a place that is taken");
    let answer = post(daemon, "/v1/jobs", &taken);
    refused(answer, 409, "place_taken", "is another job's");
    let mut other_input = client.body(echo, 2, "signed");
    other_input["input"] = json!("sent");
    let answer = post(daemon, "/v1/jobs", &other_input);
    refused(answer, 400, "documents_differ", "another input");
    let no_request = json!({
        "model": "echo",
        "input": "x",
        "voucher": client.voucher(),
    });
    let answer = post(daemon, "/v1/jobs", &no_request);
    refused(answer, 400, "invalid_value", "names its channel");
}
