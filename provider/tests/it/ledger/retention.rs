//! Rows that cannot be read, contents that grow old, and ledgers of an earlier version.

use tussah_provider::ledger::PruneStep;

use super::*;

/// An account's number, of no ledger in particular.
fn some_account() -> AccountId {
    world().account
}

#[test]
fn a_row_that_cannot_be_read_is_set_aside_and_holds_up_no_other() {
    let world = world();
    let jobs = [1, 2, 3].map(|number| job(number, world.account, 10));
    for job in &jobs {
        world.accept(job).unwrap();
    }
    let broken = jobs[1].request.body.job_id();
    let connection = Connection::open(&world.path).unwrap();
    let sql = "UPDATE jobs SET request = x'00' WHERE id = ?1";
    connection.execute(sql, [broken.as_bytes()]).unwrap();
    let unfinished = world.ledger.unfinished().unwrap();
    let ids = unfinished.jobs.iter().map(|job| job.request.body.job_id());
    let ids: Vec<_> = ids.collect();
    let others = [&jobs[0], &jobs[2]].map(|job| job.request.body.job_id());
    assert_eq!(ids, others);
    assert_eq!(unfinished.set_aside.len(), 1);
    assert_eq!(unfinished.set_aside[0].place, format!("job {broken}"));
    // The check names the same row, also from a view that cannot write.
    let report = LedgerView::open(&world.path).unwrap().check(None).unwrap();
    let places: Vec<_> = report.findings.iter().map(|found| &found.place).collect();
    assert_eq!(places, [&format!("job {broken}")]);
}

/// The signer would not sign for it either: it is not run first.
#[test]
fn a_row_with_half_of_an_opening_is_set_aside_too() {
    let world = world();
    let jobs = [1, 2].map(|number| job(number, world.account, 10));
    for job in &jobs {
        world.accept(job).unwrap();
    }
    let broken = jobs[0].request.body.job_id();
    let connection = Connection::open(&world.path).unwrap();
    let sql = "UPDATE jobs SET network = -3 WHERE id = ?1";
    connection.execute(sql, [broken.as_bytes()]).unwrap();
    let unfinished = world.ledger.unfinished().unwrap();
    assert_eq!(unfinished.jobs.len(), 1);
    assert_eq!(unfinished.set_aside.len(), 1);
    assert_eq!(unfinished.set_aside[0].place, format!("job {broken}"));
}

#[test]
fn old_content_is_removed_in_steps_and_receipts_stay() {
    let world = world();
    let mut jobs = Vec::new();
    for number in 0..5 {
        let mut job = job(number, world.account, 10);
        job.input = vec![b'a'; 200_000];
        job.request = request(number, &job.manifest, &job.input, 10);
        world.accept(&job).unwrap();
        if number < 4 {
            world.finish(&job, ending(&job, 4)).unwrap();
        }
        jobs.push(job.request.body.job_id());
    }
    let connection = Connection::open(&world.path).unwrap();
    let count = |what: &str| -> i64 {
        let sql = format!("PRAGMA {what}");
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let pages = count("page_count");
    let step = |ended_before_unix_ms| PruneStep {
        ended_before_unix_ms,
        jobs_max: 3,
        pages_max: 100_000,
    };
    let prune = |before| wait(world.ledger.prune(step(before), NOW + 9)).unwrap();
    // They ended 7 ms after NOW.
    assert_eq!((prune(NOW + 7).jobs, prune(NOW + 7).is_done), (0, true));
    assert!(world.part(&jobs[0], JobPart::Output).is_some());
    let first = prune(NOW + 8);
    assert_eq!((first.jobs, first.is_done), (3, false));
    let second = prune(NOW + 8);
    assert_eq!((second.jobs, second.is_done), (1, true));
    for id in &jobs[..4] {
        let job = world.ledger.job(id).unwrap().unwrap();
        assert_eq!(job.pruned_unix_ms, Some(NOW + 9));
        assert_eq!(job.price, Some(nano(4)));
        job.receipt.unwrap().verify().unwrap();
        assert_eq!(world.part(id, JobPart::Output), None);
        assert!(world.part(id, JobPart::Opening).is_some());
    }
    // What has not ended keeps its input.
    assert_eq!(
        world.ledger.unfinished().unwrap().jobs[0].input.len(),
        200_000
    );
    assert!(count("page_count") < pages / 2, "{pages} pages");
    let report = world
        .ledger
        .check(Some(&provider_key().public_key()))
        .unwrap();
    assert_eq!((report.pruned, report.findings), (4, vec![]));
}

#[test]
fn a_ledger_of_the_first_version_is_brought_to_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../../src/ledger/0001.sql"))
        .unwrap();
    // "TusL", as the first version wrote it.
    old.pragma_update(None, "application_id", 0x5475_734c)
        .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let account = "INSERT INTO accounts (name, created, reserved) VALUES ('bot', 1, 10)";
    old.execute(account, []).unwrap();
    let job = job(1, some_account(), 10);
    let manifest = job.manifest.to_bytes();
    let digest = job.manifest.digest();
    let sql = "INSERT INTO manifests VALUES (?1, ?2)";
    old.execute(sql, (digest.as_bytes(), manifest)).unwrap();
    let sql = "INSERT INTO jobs (id, state, account, manifest, accepted, reserved, request, input) \
               VALUES (?1, 0, 1, ?2, 5, 10, ?3, ?4)";
    let id = job.request.body.job_id();
    let values = (
        id.as_bytes(),
        digest.as_bytes(),
        job.request.to_bytes(),
        &job.input,
    );
    old.execute(sql, values).unwrap();
    drop(old);
    let ledger = Ledger::open(&path).unwrap();
    // Who asked for it then is taken to want it still.
    assert!(ledger.unfinished().unwrap().jobs[0].keep);
    assert_eq!(ledger.check(None).unwrap().findings, []);
    let mode: i64 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA auto_vacuum", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, 2, "it can shrink");
}
