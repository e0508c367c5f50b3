//! kill -9 at a hundred random points, and what is there afterwards.
//!
//! The test starts itself again as a child that works through jobs with both books on the disk.
//! The chain stays here and is served over loopback, so that it outlives the child. Each child is
//! killed after it reported a random number of steps, while it goes on with the next; the last one
//! runs to the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tussah_commit::{ClientBook, ProviderBook};
use tussah_manifest::{ExitStatus, Nanograms, Request};
use tussah_settlement::chain::{EmbeddedChain, StackValue, Transaction};
use tussah_settlement::voucher::{ChannelId, NetworkId};
use tussah_settlement::{Account, Address, Cell, Chain, ChainError};
use tycho_types::boc::Boc;

use crate::fixture::*;
use crate::unreliable::next_random;

const KILLS: usize = 100;
/// Steps that a child reports at most before it is killed: a few jobs' worth.
const STEPS_MAX: u64 = 40;
/// Jobs after which the last child is content.
const JOBS: u64 = 60;
const PRICE: u64 = 20_000_000;
/// The child finds its folder and the chain's port here.
const FOLDER: &str = "TUSSAH_COMMIT_TEST_FOLDER";
const PORT: &str = "TUSSAH_COMMIT_TEST_PORT";
const END: &str = "TUSSAH_COMMIT_TEST_END";

#[test]
fn books_survive_kill_nine_at_a_hundred_points() {
    let mut random = 0x7455_0001;
    println!("seed {random:#x}");
    let (world, folder) = (World::open_with(100 * GRAM), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (chain, address) = (Arc::clone(&world.chain), world.id().address.clone());
    // Ends with the process: a child can be killed while it connects.
    std::thread::spawn(move || serve(&listener, &chain, &address));
    drop((world.client(folder.path()), world.provider(folder.path())));
    let child = |end: bool| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .env(PORT, port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if end {
            command.env(END, "1");
        }
        command.spawn().unwrap()
    };
    for _ in 0..KILLS {
        let steps = next_random(&mut random) % STEPS_MAX;
        let mut running = child(false);
        let mut reports = running.stderr.take().unwrap();
        let mut report = [0];
        for _ in 0..=steps {
            // It never ends by itself; a panic would show in the check of the end.
            assert_eq!(reports.read(&mut report).unwrap(), 1, "the child ended");
            assert_eq!(report, *b".", "the child failed");
        }
        running.kill().unwrap();
        running.wait().unwrap();
        check(&world, folder.path());
    }
    let last = child(true).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&last.stderr).into_owned();
    assert!(last.status.success(), "{said}");
    let receipts = check(&world, folder.path());
    assert!(receipts >= JOBS, "{receipts}");
    let provider = world.provider(folder.path());
    let view = provider.view(world.id()).unwrap();
    let state = world.state();
    assert_eq!(view.at_risk(), Nanograms::ZERO);
    assert_eq!(state.redeemed, view.vouchered());
    assert_eq!(state.commitment, view.commitment);
    // What the chain credited is what the receipts cost, less the gas of posting.
    assert_eq!(state.redeemed, view.earned);
    let posts = provider.posted(world.id()).unwrap().len() as u64;
    let gas = state.redeemed.get() - state.owed.get();
    assert!(gas <= (posts + KILLS as u64) * 1_000_000, "{gas}");
}

/// What has to hold after every kill; the number of receipts.
fn check(world: &World, folder: &Path) -> u64 {
    let (client, provider) = (world.client(folder), world.provider(folder));
    let id = world.id();
    let (ours, theirs) = (client.view(id).unwrap(), provider.view(id).unwrap());
    assert!(theirs.at_risk() <= nano(IN_FLIGHT));
    assert!(ours.commitment.receipts <= theirs.commitment.receipts);
    // Each receipt is at one index, and the client's are the provider's.
    let mut jobs = std::collections::BTreeSet::new();
    let receipts = provider.deliveries(id, 0, u64::MAX).unwrap();
    let mut price = 0;
    for (index, (receipt, claim)) in receipts.iter().enumerate() {
        assert_eq!(claim.index, index as u64);
        assert_eq!(claim.receipt, receipt.digest());
        assert!(jobs.insert(receipt.consensus.job), "a job is at two places");
        if claim.index < ours.commitment.receipts {
            price += receipt.consensus.price_nanograms.get();
        }
    }
    if ours.commitment.receipts > 0 {
        let theirs_then = provider.prove_inclusion(id, 0, ours.commitment.receipts);
        assert_eq!(theirs_then.unwrap().1, ours.commitment);
    }
    assert_eq!(ours.earned, nano(price));
    assert!(client.conflicts(id).unwrap().is_empty());
    // The chain never has more than the provider was promised, nor he more than was signed.
    let redeemed = world.state().redeemed;
    assert!(redeemed <= theirs.vouchered());
    assert!(theirs.vouchered() <= ours.vouchered());
    theirs.commitment.receipts
}

/// What the child does; without its variables it is no test.
#[test]
fn child() {
    let (Ok(folder), Ok(port)) = (std::env::var(FOLDER), std::env::var(PORT)) else {
        return;
    };
    let chain = Remote {
        stream: Mutex::new(TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap()),
    };
    let folder = Path::new(&folder);
    let clock = || Box::new(|| START + 10);
    let client = ClientBook::open(&folder.join("client"), clock()).unwrap();
    let provider = ProviderBook::open(&folder.join("provider"), clock()).unwrap();
    let id = client.channels().unwrap()[0].record.id.clone();
    let work = Work {
        chain,
        client,
        provider,
        id,
    };
    work.catch_up();
    let end = std::env::var(END).is_ok();
    while !end || work.client.next_index(&work.id).unwrap() < JOBS {
        work.three_jobs();
    }
    work.catch_up();
    work.tend();
    work.tend();
}

struct Work {
    chain: Remote,
    client: ClientBook,
    provider: ProviderBook,
    id: ChannelId,
}

impl Work {
    /// Three jobs at once, which end in another order.
    fn three_jobs(&self) {
        let first = self.client.next_index(&self.id).unwrap();
        let requests = [0, 1, 2].map(|n| request(&self.id, &key(1), first + n, 0, PRICE));
        for request in &requests {
            self.client.issue(&self.id, request).unwrap();
            step();
            self.provider.admit(&self.id, request, RULES).unwrap();
            step();
        }
        for which in [2, 0, 1] {
            self.finish(&requests[which], ExitStatus::Done);
        }
        self.deliver();
        self.tend();
    }

    fn finish(&self, request: &Request, exit: ExitStatus) {
        let price = if exit == ExitStatus::Done { PRICE } else { 0 };
        let receipt = receipt(request, price, exit, &key(2));
        self.provider.finish(&self.id, &receipt, &key(2)).unwrap();
        step();
    }

    fn deliver(&self) {
        let has = self.client.view(&self.id).unwrap().commitment.receipts;
        for (receipt, claim) in self.provider.deliveries(&self.id, has, u64::MAX).unwrap() {
            self.client.deliver(&self.id, &receipt, &claim).unwrap();
            step();
        }
        let voucher = self
            .client
            .voucher(&self.id, Nanograms::ZERO, &key(1))
            .unwrap();
        step();
        self.provider.accept(&self.id, &voucher).unwrap();
        step();
    }

    fn tend(&self) {
        wait(self.provider.tend(&self.chain, &self.id, &key(2), AT_ONCE)).unwrap();
        step();
    }

    /// What either side does first after a crash.
    fn catch_up(&self) {
        for unfinished in self.provider.unfinished(&self.id).unwrap() {
            // Some are run again, some are given up.
            let exit = if unfinished.index % 2 == 0 {
                ExitStatus::Done
            } else {
                ExitStatus::HostFailure
            };
            self.finish(&unfinished.request, exit);
        }
        self.deliver();
        for (_, request) in self.client.outstanding(&self.id).unwrap() {
            self.provider.admit(&self.id, &request, RULES).unwrap();
            step();
            self.finish(&request, ExitStatus::Done);
        }
        self.deliver();
    }
}

/// Tells the parent that something was done. Whoever is gone need not know.
fn step() {
    let _ = std::io::stderr().write_all(b".");
}

/// The parent's chain, by one line a question.
struct Remote {
    stream: Mutex<TcpStream>,
}

impl Remote {
    fn ask(&self, question: &str) -> String {
        let mut stream = self.stream.lock().unwrap();
        stream
            .write_all(format!("{question}\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        BufReader::new(&mut *stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Chain for Remote {
    fn network(&self) -> NetworkId {
        NetworkId::LOCALNET
    }

    async fn time(&self) -> Result<u32, ChainError> {
        Ok(START)
    }

    async fn send_boc(&self, message: Cell) -> Result<(), ChainError> {
        let hex: String = Boc::encode(message)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        match self.ask(&format!("send {hex}")).as_str() {
            "ok" => Ok(()),
            other => Err(ChainError::Executor(other.to_owned().into())),
        }
    }

    async fn account(&self, _: &Address) -> Result<Account, ChainError> {
        Err(ChainError::Executor("the books do not ask this".into()))
    }

    async fn run_get_method(
        &self,
        _: &Address,
        method: &str,
        _: Vec<StackValue>,
    ) -> Result<Vec<StackValue>, ChainError> {
        let answer = self.ask(&format!("get {method}"));
        let values = answer.split(' ');
        Ok(values
            .map(|v| StackValue::Int(v.parse().unwrap()))
            .collect())
    }

    /// Of each transaction the books look at its message and its place.
    async fn transactions(
        &self,
        address: &Address,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        let answer = self.ask(&format!("log {after_lt}"));
        let transactions = answer.split_whitespace().map(|transaction| {
            let (lt, hash) = transaction.split_once(':').unwrap();
            Transaction {
                account: address.clone(),
                lt: lt.parse().unwrap(),
                now: START,
                in_message: None,
                message_hash: [0; 32],
                external_hash: bytes(hash).try_into().ok(),
                exit_code: Some(0),
                action_code: Some(0),
                gas_used: 0,
                fees: Nanograms::ZERO,
                aborted: false,
                out_messages: Vec::new(),
            }
        });
        Ok(transactions.collect())
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2);
    digits
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// Answers one child after the other, until the process ends.
fn serve(listener: &TcpListener, chain: &Mutex<EmbeddedChain>, address: &Address) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let Ok(reader) = stream.try_clone() else {
            continue;
        };
        let mut reader = BufReader::new(reader);
        let mut question = String::new();
        // A question that was cut off with its child has no end, and is none.
        while reader.read_line(&mut question).is_ok() && question.ends_with('\n') {
            let answer = answer(chain, address, question.trim_end());
            if stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
                break;
            }
            question.clear();
        }
    }
}

fn answer(chain: &Mutex<EmbeddedChain>, address: &Address, question: &str) -> String {
    match question.split_once(' ') {
        Some(("send", hex)) => match Boc::decode(bytes(hex)) {
            Ok(message) => match wait(chain.send_boc(message)) {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        },
        Some(("get", method)) => {
            let values = wait(chain.run_get_method(address, method, Vec::new())).unwrap();
            let values = values.iter().map(|value| match value {
                StackValue::Int(int) => int.to_string(),
                other => panic!("{other:?}"),
            });
            values.collect::<Vec<_>>().join(" ")
        }
        Some(("log", after)) => {
            let after = after.parse().unwrap();
            let log = wait(chain.transactions(address, after)).unwrap();
            let log = log.iter().map(|transaction| {
                // A message from within the chain has none.
                let hash = transaction.external_hash.unwrap_or_default();
                let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{}:{hex}", transaction.lt)
            });
            log.collect::<Vec<_>>().join(" ")
        }
        _ => "what?".to_owned(),
    }
}
