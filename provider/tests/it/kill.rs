//! kill -9 at fifty random points while jobs are accepted and finished, and what is there after.
//!
//! The test starts itself again as a child that works with eight tasks at once. A child says what
//! was answered to it, and is killed after a random number of answers, while it goes on.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tussah_manifest::Digest;
use tussah_provider::ledger::{Acceptance, JobState, Ledger, LedgerError, LedgerView, NewJob};
use tussah_provider::signer::Jobs as _;

use crate::fixture::*;

const KILLS: u64 = 50;
const TASKS: u64 = 8;
/// The child finds its folder and the first number of its jobs here.
const FOLDER: &str = "TUSSAH_LEDGER_TEST_FOLDER";
const FIRST: &str = "TUSSAH_LEDGER_TEST_FIRST";
/// A letter, a space and a digest.
const LINE_BYTES: usize = 66;

#[test]
fn what_was_answered_survives_kill_nine_at_fifty_points() {
    let mut random = 0x7455_0002_u64;
    println!("seed {random:#x}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    drop(Ledger::open(&path).unwrap());
    let (mut accepted, mut finished) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..KILLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let answers_max = (random >> 33) % 120;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .env(FIRST, (round * 1_000_000).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for _ in 0..=answers_max {
            // It never ends by itself, and says nothing else.
            let line = lines.next().expect("the child ended").unwrap();
            note(&line, &mut accepted, &mut finished);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it was killed counts too; a line that was cut off says nothing.
        for line in lines.map_while(Result::ok) {
            if line.len() == LINE_BYTES {
                note(&line, &mut accepted, &mut finished);
            }
        }
        check(&path, &accepted, &finished);
    }
    assert!(finished.len() > 100, "{}", finished.len());
}

fn note(line: &str, accepted: &mut BTreeSet<Digest>, finished: &mut BTreeSet<Digest>) {
    let (what, hex) = line.split_once(' ').expect(line);
    let set = if what == "a" { accepted } else { finished };
    set.insert(Digest::from_hex(hex).expect(line));
}

/// Nothing that was answered is lost, and every row holds.
fn check(path: &Path, accepted: &BTreeSet<Digest>, finished: &BTreeSet<Digest>) {
    let ledger = Ledger::open(path).unwrap();
    let report = ledger.check(Some(&provider_key().public_key())).unwrap();
    assert_eq!(report.findings, []);
    let mut view = LedgerView::open(path).unwrap();
    for id in accepted {
        assert!(view.job(id).unwrap().is_some(), "lost {id}");
    }
    for id in finished {
        let job = ledger.job(id).unwrap().unwrap();
        assert_eq!(job.state, JobState::Finished);
        assert!(job.receipt.is_some(), "no receipt of {id}");
    }
    if let Some(account) = ledger.accounts().unwrap().first() {
        assert_eq!(account.spent, nano(report.finished * 5));
        assert_eq!(account.reserved, nano(report.accepted * 10));
    }
}

/// What the child does; without its variables it is no test.
#[test]
fn child() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else {
        return;
    };
    let ledger = Ledger::open(&Path::new(&folder).join("ledger.sqlite")).unwrap();
    let account = ledger.account_or_new("bot", NOW).unwrap();
    let ledger = Arc::new(ledger);
    let first: u64 = first.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        // First what an earlier child left.
        for left in ledger.unfinished().unwrap().jobs {
            let job = NewJob {
                request: left.request,
                manifest: left.manifest,
                input: left.input,
                ..job(0, left.account, 10)
            };
            finish(&ledger, &job).await;
        }
        let mut tasks = Vec::new();
        for task in 0..TASKS {
            let ledger = Arc::clone(&ledger);
            tasks.push(tokio::spawn(async move {
                for number in (first + task..).step_by(usize::try_from(TASKS).unwrap()) {
                    let job = job(number, account, 10);
                    let accepted = ledger.accept(job.clone(), NOW).await.unwrap();
                    assert_eq!(accepted, Acceptance::New);
                    say("a", &job);
                    finish(&ledger, &job).await;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn finish(ledger: &Ledger, job: &NewJob) {
    let id = job.request.body.job_id();
    ledger.finish(id, ending(job, 5), NOW + 1).await.unwrap();
    say("f", job);
    // A job ends once, whoever tries.
    let again = ledger.finish(id, ending(job, 5), NOW + 2).await;
    assert!(matches!(again, Err(LedgerError::Ended(ended)) if ended == id));
}

/// One write, so that lines of several tasks do not mix. Whoever is gone need not know.
fn say(what: &str, job: &NewJob) {
    let line = format!("{what} {}\n", job.request.body.job_id().to_hex());
    let _ = std::io::stderr().write_all(line.as_bytes());
}
