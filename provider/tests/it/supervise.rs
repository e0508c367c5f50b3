//! Workers that do not answer and runs that do not end: what becomes of them and of the others.

use std::path::Path;
use std::time::Duration;

use tussah_manifest::{Digest, ExitStatus, ModuleRef};
use tussah_provider::gateway::{
    Gateway, JobEnd, Submission, SubmitError, Supervision, Ticket, WorkerError,
};
use tussah_provider::ledger::JobState;
use tussah_provider::wire::WhoseFault;

use crate::fixture::*;
use crate::gateway::{account, check, end_of, exit_of, house, run, started};
use crate::peer;

/// So short that a test ends soon, and nothing else is to be seen in it.
const NOW_AT_ONCE: Supervision = Supervision {
    beat: Duration::from_millis(2),
    unanswered_max: 50,
    prepare_max: Duration::from_secs(600),
    margin: Duration::from_millis(20),
};

fn reason(end: &JobEnd) -> &str {
    match end {
        JobEnd::Receipt { fault, .. } => &fault.as_ref().unwrap().message,
        JobEnd::NotRun { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_that_does_not_answer_loses_its_runs_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.supervision = NOW_AT_ONCE;
        })
        .await;
        let worker = peer::attach(&gateway);
        let (_, end) = run(&gateway, "hang").await;
        assert_eq!(exit_of(&end), ExitStatus::HostFailure);
        let expected = "the process that ran the job did not answer any more, and was ended";
        assert_eq!(reason(&end), expected);
        let error = worker.await.unwrap().unwrap_err();
        assert!(matches!(error, WorkerError::Silent { .. }), "{error}");
        // The next one is welcome, and goes on for as long as it answers.
        drop(peer::attach(&gateway));
        let mut long = gateway.submit(house(&gateway, "wait", None)).await.unwrap();
        started(&mut long).await;
        tokio::time::sleep(NOW_AT_ONCE.beat * NOW_AT_ONCE.unanswered_max * 2).await;
        assert!(gateway.is_running(&long.id));
        gateway.cancel(&long.id);
        assert_eq!(exit_of(&end_of(&mut long).await), ExitStatus::Cancelled);
        check(&gateway);
    });
}

#[test]
fn a_run_that_goes_on_past_its_time_takes_its_worker_down() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.supervision = NOW_AT_ONCE;
        })
        .await;
        type Case = fn(&mut tussah_provider::gateway::Submission);
        let cases: [(Case, bool); 3] = [
            (|s| s.manifest.job.limits.wall_ms_max = 1, false),
            (|s| s.time_max_ms = Some(1), false),
            // Being told to end is the end of its time too.
            (|_| (), true),
        ];
        for (change, cancels) in cases {
            let worker = peer::attach(&gateway);
            let mut other = gateway.submit(house(&gateway, "wait", None)).await.unwrap();
            started(&mut other).await;
            let mut submission = house(&gateway, "stuck", None);
            change(&mut submission);
            let mut stuck = gateway.submit(submission).await.unwrap();
            started(&mut stuck).await;
            if cancels {
                gateway.cancel(&stuck.id);
            }
            let end = end_of(&mut stuck).await;
            assert_eq!(exit_of(&end), ExitStatus::HostFailure);
            assert_eq!(reason(&end), "the job did not end when its time was over");
            let end = end_of(&mut other).await;
            assert_eq!(exit_of(&end), ExitStatus::HostFailure);
            assert!(reason(&end).contains("another job hung"), "{end:?}");
            let error = worker.await.unwrap().unwrap_err();
            assert!(matches!(error, WorkerError::Stuck { job } if job == stuck.id));
        }
        check(&gateway);
    });
}

#[test]
fn a_job_that_never_begins_is_given_up_and_its_module_left_alone_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.supervision = Supervision {
                prepare_max: Duration::from_millis(5),
                ..NOW_AT_ONCE
            };
        })
        .await;
        let worker = peer::attach(&gateway);
        let mut waits = gateway.submit(house(&gateway, "wait", None)).await.unwrap();
        started(&mut waits).await;
        let expected = JobEnd::NotRun {
            fault: WhoseFault::Provider,
            message: "its module could not be made ready to run in 0 s".to_owned(),
        };
        // The module has begun before: once it may be late.
        for _ in 0..2 {
            let (ticket, end) = run(&gateway, "never begins").await;
            assert_eq!(end, expected);
            let job = gateway.ledger().job(&ticket.id).unwrap().unwrap();
            assert_eq!(job.state, JobState::NotRun);
        }
        // All else goes on, and the module waits its time.
        assert!(gateway.is_running(&waits.id) && !worker.is_finished());
        let refused = gateway.submit(house(&gateway, "hello", None)).await;
        assert!(
            matches!(refused, Err(SubmitError::Slow { .. })),
            "{refused:?}"
        );
        check(&gateway);
    });
}

/// A job of an account with a module of this number, which no other job has.
async fn with_module(
    gateway: &Gateway,
    folder: &Path,
    name: &str,
    number: u8,
    input: &str,
) -> Ticket {
    let module = [MODULE, &[number]].concat();
    let digest = Digest::of(&module).to_hex();
    let blobs = folder.join("blobs").join(&digest[..2]);
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(&digest), &module).unwrap();
    let mut submission = Submission {
        account: account(gateway, name),
        ..house(gateway, input, None)
    };
    submission.manifest.module = ModuleRef::of(&module);
    gateway.submit(submission).await.unwrap()
}

#[test]
fn an_account_with_slow_modules_waits_for_them_and_nobody_else_does() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.supervision = Supervision {
                prepare_max: Duration::from_millis(250),
                ..NOW_AT_ONCE
            };
        })
        .await;
        let worker = peer::attach(&gateway);
        let mut other = gateway.submit(house(&gateway, "wait", None)).await.unwrap();
        started(&mut other).await;
        let mut slow = Vec::new();
        for number in 0..8 {
            let ticket = with_module(&gateway, folder.path(), "slow", number, "never begins");
            slow.push(ticket.await);
        }
        // Two of them are tried; the worker is at them for as long as it lives.
        for ticket in &mut slow[..2] {
            let end = end_of(ticket).await;
            assert!(reason(&end).contains("could not be made ready"), "{end:?}");
        }
        // Others run as ever, with modules that are new here too, of which one is slow.
        for number in 10..14 {
            let mut ticket = with_module(&gateway, folder.path(), "bot", number, "hello").await;
            assert_eq!(exit_of(&end_of(&mut ticket).await), ExitStatus::Done);
        }
        let mut late = with_module(&gateway, folder.path(), "bot", 20, "never begins").await;
        assert!(reason(&end_of(&mut late).await).contains("could not be made ready"));
        let (_, end) = run(&gateway, "hello").await;
        assert_eq!(exit_of(&end), ExitStatus::Done);
        // The rest waits, and the first job has gone on all the while.
        assert_eq!(gateway.load(), (6, 1));
        assert!(gateway.is_running(&other.id) && !worker.is_finished());
        gateway.cancel(&other.id);
        assert_eq!(exit_of(&end_of(&mut other).await), ExitStatus::Cancelled);
        check(&gateway);
    });
}

#[test]
fn a_worker_with_too_many_slow_modules_is_ended_once_no_job_runs_on_it() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.supervision = Supervision {
                prepare_max: Duration::from_secs(5),
                ..NOW_AT_ONCE
            };
        })
        .await;
        let worker = peer::attach(&gateway);
        let mut other = gateway.submit(house(&gateway, "wait", None)).await.unwrap();
        started(&mut other).await;
        let mut slow = Vec::new();
        for number in 0..6 {
            let name = format!("slow-{}", number / 2);
            let ticket = with_module(&gateway, folder.path(), &name, number, "never begins");
            slow.push(ticket.await);
        }
        for ticket in &mut slow {
            assert!(reason(&end_of(ticket).await).contains("could not be made ready"));
        }
        // A module that has begun before runs, a new one waits for the next worker.
        let (_, end) = run(&gateway, "hello").await;
        assert_eq!(exit_of(&end), ExitStatus::Done);
        let mut new = with_module(&gateway, folder.path(), "bot", 10, "hello").await;
        assert!(gateway.is_running(&other.id) && !worker.is_finished());
        gateway.cancel(&other.id);
        assert_eq!(exit_of(&end_of(&mut other).await), ExitStatus::Cancelled);
        let error = worker.await.unwrap().unwrap_err();
        assert!(matches!(error, WorkerError::Busy { runs: 6 }), "{error}");
        drop(peer::attach(&gateway));
        assert_eq!(exit_of(&end_of(&mut new).await), ExitStatus::Done);
        check(&gateway);
    });
}

#[test]
fn a_drain_that_takes_too_long_ends_what_runs_with_receipts() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.prices.base = nano(7);
        })
        .await;
        let worker = peer::attach(&gateway);
        let mut runs = Vec::new();
        for number in 0..3 {
            let input = format!("wait {number}");
            let mut ticket = gateway.submit(house(&gateway, &input, None)).await.unwrap();
            started(&mut ticket).await;
            runs.push(ticket);
        }
        let never = gateway.submit(house(&gateway, "never begins", None));
        let mut never = never.await.unwrap();
        tokio::join!(gateway.drain(), async { gateway.give_up_runs() });
        for ticket in &mut runs {
            let end = end_of(ticket).await;
            let JobEnd::Receipt { receipt, .. } = &end else {
                panic!("{end:?}");
            };
            assert_eq!(receipt.consensus.exit, ExitStatus::HostFailure);
            assert_eq!(receipt.consensus.price_nanograms, nano(0));
            assert!(reason(&end).contains("the provider shut down"), "{end:?}");
        }
        // What had not begun is run by the next start.
        assert_eq!(end_of(&mut never).await, JobEnd::Postponed);
        let job = gateway.ledger().job(&never.id).unwrap().unwrap();
        assert_eq!(job.state, JobState::Accepted);
        let error = worker.await.unwrap().unwrap_err();
        assert!(matches!(error, WorkerError::GivenUp), "{error}");
        check(&gateway);
    });
}

#[test]
fn a_gateway_without_a_worker_has_nothing_to_give_up() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway: Gateway = peer::gateway(folder.path(), |_| ()).await;
        gateway.give_up_runs();
        gateway.drain().await;
    });
}
