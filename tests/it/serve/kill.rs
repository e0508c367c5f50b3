//! kill -9 of the whole daemon, fifty times at random points under load, and what is there after.
//!
//! Clients note what they are told: that a job was accepted, and with which receipt it ended. The
//! gateway and its children are killed together, and started again on the same home.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use tussah_manifest::PublicKey;
use tussah_provider::ledger::{CheckReport, LedgerView};

use super::{Daemon, deploy};
use crate::{fixture::Sandbox, worker::ECHO};

const KILLS: u64 = 50;
const CLIENTS: u64 = 6;
/// The most answers of a round before it ends.
const ANSWERS_MAX: u64 = 40;

/// What clients were told of a job: its receipt, once they were told that it ended.
type Told = BTreeMap<String, Option<String>>;

/// One request of one client; nothing where the connection ended first.
fn ask(daemon: &Daemon, method: &str, path: &str, more: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(&daemon.address).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{more}\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        daemon.address,
        daemon.key,
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // What was cut off is no JSON, and so was not told.
    Some((status, serde_json::from_str(body).ok()?))
}

/// Notes what an answer says, which must be what earlier ones said.
fn note(told: &Mutex<Told>, view: &Value) {
    let id = view["id"].as_str().unwrap().to_owned();
    let receipt = view["receipt"].as_str().map(str::to_owned);
    let mut told = told.lock().unwrap();
    let known = told.entry(id.clone()).or_default();
    match known {
        Some(_) => assert_eq!(
            *known, receipt,
            "{id} has another receipt, or none any more"
        ),
        None => *known = receipt,
    }
}

/// Asks for jobs until the daemon is gone: some clients wait for the end, some do not.
fn client(daemon: &Daemon, number: u64, round: u64, told: &Mutex<Told>, answers: &AtomicU64) {
    let prefer = ["", "Prefer: wait=60\r\n"][usize::from(number.is_multiple_of(2))];
    for job in 0_u64.. {
        let input = format!("{round}/{number}/{job}");
        let body = json!({"model": "echo", "input": input}).to_string();
        let Some((status, view)) = ask(daemon, "POST", "/v1/jobs", prefer, &body) else {
            return;
        };
        assert!([200, 202, 429].contains(&status), "{status} {view}");
        if status != 429 {
            note(told, &view);
        }
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

/// What the ledger says of itself.
fn check(sandbox: &Sandbox, provider: &PublicKey) -> CheckReport {
    let path = sandbox.home().join("serve/ledger.sqlite");
    let mut view = LedgerView::open(&path).unwrap();
    let report = view.check(Some(provider)).unwrap();
    assert_eq!(report.findings, []);
    report
}

#[test]
fn what_clients_were_told_survives_kill_nine_of_the_daemon_at_fifty_points() {
    let mut random = 0x7455_0003_u64;
    println!("seed {random:#x}");
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let told = Mutex::new(Told::new());
    let mut provider = None;
    for round in 0..KILLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let answers_max = (random >> 33) % ANSWERS_MAX;
        let mut daemon = Daemon::start(&sandbox, &format!("round-{round}"));
        let provider = provider.get_or_insert_with(|| provider_key(&sandbox));
        check(&sandbox, provider);
        let answers = AtomicU64::new(0);
        // The gateway first: after that nobody is told anything any more.
        let children = ["serve-worker", "serve-signer"].map(|name| daemon.process(name));
        let processes = [Some(daemon.child.id())].into_iter().chain(children);
        let processes: Vec<String> = processes.flatten().map(|pid| pid.to_string()).collect();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (daemon, told, answers) = (&daemon, &told, &answers);
                scope.spawn(move || client(daemon, number, round, told, answers));
            }
            while answers.load(Ordering::SeqCst) < answers_max {
                std::thread::yield_now();
            }
            let mut kill = std::process::Command::new("kill");
            let killed = kill.arg("-KILL").args(&processes).status();
            assert!(killed.unwrap().success());
        });
        daemon.child.wait().unwrap();
    }
    let daemon = Daemon::start(&sandbox, "last");
    let ids: Vec<String> = told.lock().unwrap().keys().cloned().collect();
    for id in &ids {
        // Whatever was accepted ends, and what was heard of its end is still so.
        let view = daemon.wait_for(id);
        assert_eq!(view["status"], "done", "{view}");
        assert!(view["receipt"].is_string(), "{view}");
        note(&told, &view);
    }
    assert!(ids.len() > 200, "{} jobs", ids.len());
    daemon.terminate().expect(0);
    let report = check(&sandbox, &provider.unwrap());
    let finished = usize::try_from(report.finished).unwrap();
    // There can be jobs that nobody was told of; none of them was cut short either.
    assert!(finished >= ids.len());
    assert_eq!((report.accepted, report.not_run), (0, 0));
}

/// Whose receipts these are.
fn provider_key(sandbox: &Sandbox) -> PublicKey {
    let shown = sandbox.run(&["provider", "key"]).expect(0).stdout;
    let hex = shown.split_whitespace().find_map(|word| {
        let hex = word.rsplit(':').next().unwrap_or_default();
        let bytes: Option<Vec<u8>> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok())
            .collect();
        <[u8; 32]>::try_from(bytes?).ok()
    });
    PublicKey::from_bytes(hex.expect("it shows a key")).unwrap()
}
