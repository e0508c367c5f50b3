//! What becomes of jobs when the ledger cannot be written, and after a crash.

use tussah_manifest::Request;

use super::*;

/// What fails every change of a row of `jobs`, as a full disk would, until it is dropped.
const FULL: &str = "CREATE TRIGGER full BEFORE UPDATE ON jobs \
                    BEGIN SELECT RAISE(FAIL, 'the disk is full'); END";

#[test]
fn an_end_that_cannot_be_written_is_kept_and_written_later() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        drop(peer::attach(&gateway));
        let other = rusqlite::Connection::open(folder.path().join("ledger.sqlite")).unwrap();
        let mut ticket = gateway
            .submit(house(&gateway, "hello", None))
            .await
            .unwrap();
        started(&mut ticket).await;
        other.execute_batch(FULL).unwrap();
        // It ends, but not as far as anybody is told: nothing of its end is on the disk.
        let second = gateway
            .submit(house(&gateway, "again", None))
            .await
            .unwrap();
        let full = "the ledger cannot be written: jobs that ended wait for it";
        while gateway.not_ready() != Some(full) {
            tokio::task::yield_now().await;
        }
        let state = |id: &Digest| gateway.ledger().job(id).unwrap().unwrap().state;
        let ended = [state(&ticket.id), state(&second.id)];
        assert!(ended.contains(&JobState::Accepted), "{ended:?}");
        // Meanwhile none is started.
        let third = gateway
            .submit(house(&gateway, "third", None))
            .await
            .unwrap();
        assert!(gateway.load().0 >= 1);
        other.execute_batch("DROP TRIGGER full").unwrap();
        for mut ticket in [ticket, second, third] {
            assert_eq!(exit_of(&end_of(&mut ticket).await), ExitStatus::Done);
            assert_eq!(state(&ticket.id), JobState::Finished);
        }
        assert_eq!(gateway.not_ready(), None);
        check(&gateway);
    });
}

/// A job whose row is damaged while it runs holds up no other.
fn check_damaged(damage: impl Fn(&rusqlite::Connection, &Request), problem: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let id = wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        drop(peer::attach(&gateway));
        // A client's own request: the signer has not seen it before.
        let mut submission = house(&gateway, "wait", None);
        let request = request(9, &submission.manifest, b"wait", 0);
        submission.ask = Ask::Signed(Box::new(request.clone()));
        let mut ticket = gateway.submit(submission).await.unwrap();
        started(&mut ticket).await;
        damage(&rusqlite::Connection::open(&path).unwrap(), &request);
        gateway.cancel(&ticket.id);
        assert_eq!(end_of(&mut ticket).await, JobEnd::Unrecorded);
        // The others go on, and the ledger's check names it.
        let (_, end) = run(&gateway, "hello").await;
        assert_eq!(exit_of(&end), ExitStatus::Done);
        assert_eq!(gateway.not_ready(), None);
        let findings = gateway.ledger().check(None).unwrap().findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].problem, problem);
        ticket.id
    });
    // Nor is it run again at each start.
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        assert_eq!(gateway.set_aside(), 1);
        assert!(gateway.listen(&id).is_none());
    });
}

#[test]
fn a_request_that_is_damaged_while_its_job_runs_holds_up_no_other() {
    let damage = |ledger: &rusqlite::Connection, request: &Request| {
        let mut forged = request.clone();
        let id = request.body.job_id();
        forged.signature = key(7).sign(&id);
        let sql = "UPDATE jobs SET request = ?1 WHERE id = ?2";
        let row = (forged.to_bytes(), id.as_bytes());
        ledger.execute(sql, row).unwrap();
    };
    check_damaged(damage, "the client did not sign this request");
}

#[test]
fn half_of_an_opening_that_is_lost_while_its_job_runs_holds_up_no_other() {
    let damage = |ledger: &rusqlite::Connection, request: &Request| {
        let sql = "UPDATE jobs SET network = -3, incarnation = NULL WHERE id = ?1";
        let id = request.body.job_id();
        ledger.execute(sql, [id.as_bytes()]).unwrap();
    };
    check_damaged(damage, "the opening of its channel does not fit its place");
}

#[test]
fn after_a_crash_what_nobody_waits_for_ends_and_the_rest_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ids, path) = (Vec::new(), folder.path().join("ledger.sqlite"));
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        for (input, keep) in [("kept", true), ("fleeting", false), ("joined", false)] {
            let mut submission = house(&gateway, input, Some(1));
            submission.keep = keep;
            let ticket = gateway.submit(submission).await.unwrap();
            ids.push(ticket.id);
            if input == "joined" {
                // Somebody else asks for the same, and is told its id for later.
                let joined = gateway.submit(house(&gateway, input, Some(1))).await;
                assert_eq!(joined.unwrap().id, ticket.id);
            }
            // As in a crash, nobody gets to say that the client has left.
            std::mem::forget(ticket);
        }
    });
    // The job that cannot be read any more is one that somebody wanted.
    let other = rusqlite::Connection::open(&path).unwrap();
    let broken = wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        let broken = job(9, account(&gateway, "bot").id, 0);
        let accepted = gateway.ledger().accept(broken.clone(), NOW).await;
        accepted.unwrap();
        broken
    });
    let sql = "UPDATE jobs SET request = x'00' WHERE id = ?1";
    let id = broken.request.body.job_id();
    other.execute(sql, [id.as_bytes()]).unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        assert_eq!(gateway.set_aside(), 1);
        drop(peer::attach(&gateway));
        for (id, state) in
            ids.iter()
                .zip([JobState::Finished, JobState::NotRun, JobState::Finished])
        {
            let found = || gateway.ledger().job(id).unwrap().unwrap().state;
            while found() == JobState::Accepted {
                tokio::task::yield_now().await;
            }
            assert_eq!(found(), state);
        }
    });
}
