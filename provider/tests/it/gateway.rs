//! The gateway between a ledger, a worker and a signer: what becomes of jobs, whatever happens.

mod recovery;

use std::time::Duration;

use tussah_manifest::{
    Channel, Digest, Document as _, ExitStatus, ModelFormat, ModelRef, Opening, Receipt,
};
use tussah_provider::gateway::{
    Ask, Gateway, JobEnd, JobEvent, News, PriceSheet, Submission, SubmitError, Ticket,
};
use tussah_provider::ledger::{Account, JobPart, JobState};
use tussah_provider::wire::WhoseFault;

use crate::fixture::*;
use crate::peer;

pub(crate) fn account(gateway: &Gateway, name: &str) -> Account {
    gateway.ledger().account_or_new(name, NOW).unwrap();
    let accounts = gateway.ledger().accounts().unwrap();
    accounts.into_iter().find(|a| a.name == name).unwrap()
}

pub(crate) fn house(gateway: &Gateway, input: &str, seed: Option<u64>) -> Submission {
    Submission {
        account: account(gateway, "bot"),
        ask: Ask::House {
            price_max: None,
            seed,
        },
        manifest: manifest("null"),
        input: input.as_bytes().to_vec(),
        claim: None,
        deployment: None,
        deadline_ms: None,
        time_max_ms: None,
        keep: true,
    }
}

pub(crate) async fn end_of(ticket: &mut Ticket) -> JobEnd {
    match &mut ticket.news {
        News::Live(listener) => JobEnd::clone(&*listener.end().await.unwrap()),
        News::Ended(job) => JobEnd::of(job).unwrap(),
    }
}

pub(crate) async fn run(gateway: &Gateway, input: &str) -> (Ticket, JobEnd) {
    let mut ticket = gateway.submit(house(gateway, input, None)).await.unwrap();
    let end = end_of(&mut ticket).await;
    (ticket, end)
}

pub(crate) fn exit_of(end: &JobEnd) -> ExitStatus {
    match end {
        JobEnd::Receipt { receipt, .. } => receipt.consensus.exit,
        other => panic!("{other:?}"),
    }
}

async fn content(gateway: &Gateway, ticket: &Ticket, part: JobPart) -> Vec<u8> {
    let content = gateway.ledger().content(ticket.id, part).await.unwrap();
    content.unwrap()
}

pub(crate) fn check(gateway: &Gateway) {
    let key = provider_key().public_key();
    let report = gateway.ledger().check(Some(&key)).unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn who_is_far_behind_gets_the_rest_of_a_large_output_from_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        drop(peer::attach(&gateway));
        let input: String = (0..300_000).map(|n| format!("{n:07} ")).collect();
        let mut submission = house(&gateway, &input, None);
        let limits = &mut submission.manifest.job.limits;
        (limits.input_bytes_max, limits.output_bytes_max) = (4 << 20, 4 << 20);
        let mut ticket = gateway.submit(submission).await.unwrap();
        let mut quick = gateway.listen(&ticket.id).unwrap();
        assert!(matches!(
            &*quick.end().await.unwrap(),
            JobEnd::Receipt { .. }
        ));
        // Nothing of it was heard here when it ended.
        let News::Live(listener) = &mut ticket.news else {
            panic!("ended before it was accepted");
        };
        let mut heard = Vec::new();
        loop {
            match listener.next().await.unwrap() {
                JobEvent::Output(bytes) => {
                    heard.extend_from_slice(&bytes);
                    assert_eq!(listener.output_heard(), heard.len());
                }
                JobEvent::Ended(_) => break,
                JobEvent::Started | JobEvent::Progress(_) => {}
            }
        }
        assert!(heard == input.as_bytes(), "{} bytes came", heard.len());
        check(&gateway);
    });
}

#[test]
fn a_job_is_on_the_disk_with_all_that_was_streamed() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.prices = PriceSheet {
                base: nano(7),
                fuel: nano(5),
                inference: nano(0),
            };
        })
        .await;
        assert_eq!(gateway.not_ready(), Some("no worker is ready"));
        drop(peer::attach(&gateway));
        let mut ticket = gateway
            .submit(house(&gateway, "hello", None))
            .await
            .unwrap();
        let News::Live(listener) = &mut ticket.news else {
            panic!("ended before it was accepted");
        };
        let mut streamed = Vec::new();
        let end = loop {
            match listener.next().await.unwrap() {
                JobEvent::Output(bytes) => streamed.extend_from_slice(&bytes),
                JobEvent::Ended(end) => break end,
                JobEvent::Started | JobEvent::Progress(_) => {}
            }
        };
        assert_eq!(streamed, b"HELLO");
        assert_eq!(exit_of(&end), ExitStatus::Done);
        assert_eq!(content(&gateway, &ticket, JobPart::Output).await, b"HELLO");
        let job = gateway.ledger().job(&ticket.id).unwrap().unwrap();
        // The base, and 10^9 units of fuel.
        assert_eq!(job.price, Some(nano(12)));
        let receipt: Receipt = *job.receipt.unwrap();
        receipt.verify().unwrap();
        let opening = content(&gateway, &ticket, JobPart::Opening).await;
        let opening = Opening::from_bytes(&opening).unwrap();
        opening.matches(&receipt).unwrap();
        check(&gateway);
        assert_eq!(gateway.not_ready(), None);
        assert_eq!(gateway.load(), (0, 0));
    });
}

#[test]
fn each_way_to_end_is_told_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        drop(peer::attach(&gateway));
        let (_, end) = run(&gateway, "error").await;
        let JobEnd::Receipt { fault, .. } = &end else {
            panic!("{end:?}");
        };
        let fault = fault.as_ref().unwrap();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (Some(1), "no good input")
        );
        let (ticket, end) = run(&gateway, "refuse").await;
        let expected = JobEnd::NotRun {
            fault: WhoseFault::Developer,
            message: "the module is none".to_owned(),
        };
        assert_eq!(end, expected);
        let job = gateway.ledger().job(&ticket.id).unwrap().unwrap();
        assert_eq!(job.state, JobState::NotRun);
        // The longest time is the worker's to watch.
        let mut submission = house(&gateway, "wait", None);
        submission.time_max_ms = Some(1);
        let mut ticket = gateway.submit(submission).await.unwrap();
        let end = end_of(&mut ticket).await;
        assert_eq!(exit_of(&end), ExitStatus::Cancelled);
        check(&gateway);
    });
}

#[test]
fn what_a_deadline_cuts_off_costs_its_work() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| config.prices.base = nano(7)).await;
        drop(peer::attach(&gateway));
        for (time_max_ms, deadline_ms, price) in [
            (Some(20), None, nano(7)),
            (Some(20), Some(600_000), nano(7)),
            (None, Some(20), nano(7)),
        ] {
            let mut submission = house(&gateway, "wait", None);
            (submission.time_max_ms, submission.deadline_ms) = (time_max_ms, deadline_ms);
            let mut ticket = gateway.submit(submission).await.unwrap();
            let JobEnd::Receipt { receipt, .. } = end_of(&mut ticket).await else {
                // It never ran: a busy machine took longer than the deadline to begin.
                assert!(deadline_ms == Some(20));
                continue;
            };
            let found = &receipt.consensus;
            assert_eq!(found.exit, ExitStatus::Cancelled);
            assert_eq!(
                found.price_nanograms, price,
                "{time_max_ms:?} {deadline_ms:?}"
            );
        }
        check(&gateway);
    });
}

#[test]
fn equal_seeds_are_one_job_and_cut_short_answers_are_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        drop(peer::attach(&gateway));
        let seeded = |input: &str, seed| house(&gateway, input, Some(seed));
        let mut first = gateway.submit(seeded("hello", 1)).await.unwrap();
        end_of(&mut first).await;
        let again = gateway.submit(seeded("hello", 1)).await.unwrap();
        assert_eq!((again.id, again.known), (first.id, true));
        let other = gateway.submit(seeded("hello", 2)).await.unwrap();
        assert_ne!(other.id, first.id);
        let mut theirs = seeded("hello", 1);
        theirs.account = account(&gateway, "another");
        assert_ne!(gateway.submit(theirs).await.unwrap().id, first.id);
        // Cancelled: the same call is a new job.
        let mut cut = gateway.submit(seeded("wait", 1)).await.unwrap();
        started(&mut cut).await;
        assert!(gateway.cancel(&cut.id));
        assert_eq!(exit_of(&end_of(&mut cut).await), ExitStatus::Cancelled);
        let again = gateway.submit(seeded("wait", 1)).await.unwrap();
        assert!(again.id != cut.id && !again.known);
        // While it runs, the same call joins it.
        let joined = gateway.submit(seeded("wait", 1)).await.unwrap();
        assert_eq!((joined.id, joined.known), (again.id, true));
        // However often it was cut short, and while the end of the last one is still being written.
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..12 {
            let mut cut = gateway.submit(seeded("wait", 3)).await.unwrap();
            assert!(ids.insert(cut.id) && !cut.known);
            started(&mut cut).await;
            assert!(gateway.cancel(&cut.id));
        }
    });
}

pub(crate) async fn started(ticket: &mut Ticket) {
    let News::Live(listener) = &mut ticket.news else {
        panic!("ended");
    };
    assert_eq!(listener.next().await, Some(JobEvent::Started));
}

#[test]
fn a_client_that_leaves_ends_its_job_unless_somebody_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        drop(peer::attach(&gateway));
        let mut fleeting = house(&gateway, "wait", None);
        fleeting.keep = false;
        let mut ticket = gateway.submit(fleeting.clone()).await.unwrap();
        started(&mut ticket).await;
        let mut listener = gateway.listen(&ticket.id).unwrap();
        drop(ticket);
        let end = listener.end().await.unwrap();
        assert_eq!(exit_of(&end), ExitStatus::Cancelled);
        let mut ticket = gateway.submit(fleeting).await.unwrap();
        started(&mut ticket).await;
        let id = ticket.id;
        ticket.leave();
        assert!(gateway.is_running(&id));
        gateway.cancel(&id);
        check(&gateway);
    });
}

#[test]
fn a_worker_that_dies_ends_what_it_ran_and_not_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.queue.running_max = 2;
        })
        .await;
        let worker = peer::attach(&gateway);
        let mut waiting = gateway.submit(house(&gateway, "wait", None)).await.unwrap();
        started(&mut waiting).await;
        let (ticket, end) = run(&gateway, "die").await;
        assert_eq!(exit_of(&end), ExitStatus::HostFailure);
        let end = end_of(&mut waiting).await;
        assert_eq!(exit_of(&end), ExitStatus::HostFailure);
        assert!(worker.await.unwrap().is_err());
        // What it had said by then is what the receipt is over.
        assert_eq!(content(&gateway, &ticket, JobPart::Output).await, b"DIE");
        // Without a worker jobs wait; the next one runs them.
        let mut next = gateway
            .submit(house(&gateway, "hello", None))
            .await
            .unwrap();
        drop(peer::attach(&gateway));
        assert_eq!(exit_of(&end_of(&mut next).await), ExitStatus::Done);
        check(&gateway);
    });
}

#[test]
fn a_job_that_takes_every_worker_down_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        let mut ticket = gateway
            .submit(house(&gateway, "die early", None))
            .await
            .unwrap();
        for _ in 0..2 {
            assert!(peer::attach(&gateway).await.unwrap().is_err());
        }
        let expected = JobEnd::NotRun {
            fault: WhoseFault::Provider,
            message: "workers failed with this job, twice".to_owned(),
        };
        assert_eq!(end_of(&mut ticket).await, expected);
        check(&gateway);
    });
}

#[test]
fn a_worker_that_lies_is_not_signed_for() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        let worker = peer::attach(&gateway);
        let (_, end) = run(&gateway, "lie").await;
        assert_eq!(exit_of(&end), ExitStatus::HostFailure);
        let error = worker.await.unwrap().unwrap_err().to_string();
        let expected = "the account of a run has another `output` than its job";
        assert!(error.contains(expected), "{error}");
        check(&gateway);
    });
}

#[test]
fn what_was_accepted_before_a_restart_runs_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let id = wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        let ticket = gateway
            .submit(house(&gateway, "hello", None))
            .await
            .unwrap();
        let id = ticket.id;
        ticket.leave();
        id
    });
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        assert_eq!(gateway.load(), (1, 0));
        let mut listener = gateway.listen(&id).unwrap();
        drop(peer::attach(&gateway));
        let end = listener.end().await.unwrap();
        assert_eq!(exit_of(&end), ExitStatus::Done);
        check(&gateway);
    });
}

#[test]
fn draining_ends_what_runs_and_keeps_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.queue.running_max = 10;
            config.queue.account_running_max = 10;
        })
        .await;
        let worker = peer::attach(&gateway);
        let mut running = Vec::new();
        for number in 0..10 {
            let wait = format!("wait {number}");
            let mut ticket = gateway.submit(house(&gateway, &wait, None)).await.unwrap();
            started(&mut ticket).await;
            running.push(ticket);
        }
        let mut waiting = gateway
            .submit(house(&gateway, "hello", None))
            .await
            .unwrap();
        let mut fleeting = house(&gateway, "fleeting", None);
        fleeting.keep = false;
        let mut fleeting = gateway.submit(fleeting).await.unwrap();
        // They go on until somebody ends them, which is after the draining began.
        tokio::join!(gateway.drain(), async {
            for ticket in &running {
                gateway.cancel(&ticket.id);
            }
        });
        for ticket in &mut running {
            exit_of(&end_of(ticket).await);
        }
        let refused = gateway.submit(house(&gateway, "late", None)).await;
        assert!(matches!(refused, Err(SubmitError::Draining)));
        worker.await.unwrap().unwrap();
        // Whoever waits for what waits is told, and the next start runs it.
        assert_eq!(end_of(&mut waiting).await, JobEnd::Postponed);
        let job = gateway.ledger().job(&waiting.id).unwrap().unwrap();
        assert_eq!(job.state, JobState::Accepted);
        // What only its client wanted is not run when the client has gone.
        let end = end_of(&mut fleeting).await;
        assert!(matches!(end, JobEnd::NotRun { .. }), "{end:?}");
        let job = gateway.ledger().job(&fleeting.id).unwrap().unwrap();
        assert_eq!(job.state, JobState::NotRun);
        check(&gateway);
    });
}

/// What is wrong with a submission.
type Change<'a> = &'a dyn Fn(&mut Submission);

#[test]
fn what_cannot_be_taken_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.prices.base = nano(100);
            config.input_bytes_max = 50;
            config.admission.limits_max.output_bytes_max = 2 << 20;
            config.admission.limits_max.wall_ms_max = 700_000;
            config.admission.models = Some([tussah_manifest::Digest::of(b"ours")].into());
        })
        .await;
        let refused = async |change: Change<'_>| {
            let mut submission = house(&gateway, "hello", None);
            change(&mut submission);
            gateway.submit(submission).await.unwrap_err().to_string()
        };
        let cap = |price| Ask::House {
            price_max: Some(nano(price)),
            seed: None,
        };
        let signed = |input: &str, price| {
            let manifest = manifest("null");
            Ask::Signed(Box::new(request(5, &manifest, input.as_bytes(), price)))
        };
        let cases: [(Change<'_>, &str); 9] = [
            (
                &|s| s.input = vec![0; 51],
                "the input has 51 bytes, of at most 50",
            ),
            (
                &|s| s.manifest.job.limits.output_bytes_max = 3 << 20,
                "limits.output_bytes_max is 3145728 bytes, and this provider allows 2097152 bytes",
            ),
            (
                &|s| s.manifest.job.limits.wall_ms_max = 700_001,
                "limits.wall_ms_max is 700001 ms, and this provider allows 700000 ms",
            ),
            (
                &|s| {
                    let model = ModelRef {
                        digest: tussah_manifest::Digest::of(b"theirs"),
                        format: ModelFormat::Gguf,
                    };
                    s.manifest.job.models = [("big".parse().unwrap(), model)].into();
                },
                "this provider does not offer the model `big`, blake3:",
            ),
            (
                &|s| s.manifest.module.digest = tussah_manifest::Digest::of(b"none"),
                "this provider does not have the module blake3:",
            ),
            (
                &|s| s.ask = cap(99),
                "can cost 100 nanograms, and is paid with 99",
            ),
            (&|s| s.ask = signed("hello", 99), "can cost 100 nanograms"),
            (
                &|s| s.ask = signed("another", 100),
                "made for another input",
            ),
            (
                &|s| {
                    let mut forged = request(5, &s.manifest, &s.input, 100);
                    forged.body.price_nanograms_max = nano(101);
                    s.ask = Ask::Signed(Box::new(forged));
                },
                "the signature is not",
            ),
        ];
        for (change, expected) in cases {
            let found = refused(change).await;
            assert!(found.contains(expected), "{found}");
        }
        // A request on a channel is for those who take pay there.
        let mut body = request(6, &manifest("null"), b"hello", 100).body;
        body.channel = Channel::Ton {
            address: format!("0:{}", "a".repeat(64)).parse().unwrap(),
            index: 0,
        };
        let request = body.sign(&client_key()).unwrap();
        let ask = Ask::Signed(Box::new(request));
        let found = refused(&move |s: &mut Submission| s.ask = ask.clone()).await;
        assert!(found.contains("on credit only"), "{found}");
        let counts = gateway.ledger().check(None).unwrap();
        assert_eq!(
            (counts.accepted, counts.finished, counts.not_run),
            (0, 0, 0)
        );
        assert_eq!(gateway.load(), (0, 0));
    });
}

#[test]
fn a_deadline_that_passes_in_the_queue_ends_the_job_without_a_run() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |_| ()).await;
        let mut submission = house(&gateway, "hello", None);
        submission.deadline_ms = Some(1);
        let mut ticket = gateway.submit(submission).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(60), end_of(&mut ticket)).await;
        let expected = JobEnd::NotRun {
            fault: WhoseFault::Provider,
            message: "its deadline passed before it ran".to_owned(),
        };
        assert_eq!(end.unwrap(), expected);
    });
}

#[test]
fn a_full_queue_refuses_and_the_signers_job_is_known_again() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let gateway = peer::gateway(folder.path(), |config| {
            config.queue.account_queued_max = 2;
        })
        .await;
        let manifest = manifest("null");
        let signed = Box::new(request(5, &manifest, b"hello", 10));
        let mut submission = house(&gateway, "hello", None);
        submission.ask = Ask::Signed(signed);
        let first = gateway.submit(submission.clone()).await.unwrap();
        let again = gateway.submit(submission.clone()).await.unwrap();
        assert_eq!((again.id, again.known), (first.id, true));
        // Another account is not told what this one does.
        let mut theirs = submission;
        theirs.account = account(&gateway, "another");
        let refused = gateway.submit(theirs).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Request(_)), "{refused}");
        gateway.submit(house(&gateway, "b", None)).await.unwrap();
        let full = gateway
            .submit(house(&gateway, "c", None))
            .await
            .unwrap_err();
        assert!(matches!(full, SubmitError::Full(_)), "{full}");
    });
}
