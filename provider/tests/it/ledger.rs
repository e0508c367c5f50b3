//! The ledger as the gateway uses it, and what its check finds.

mod retention;

use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;
use tussah_manifest::{Channel, Digest, Document as _, Domain, ExitStatus, Nanograms, Receipt};
use tussah_provider::ledger::{
    Acceptance, AccountId, AccountLimits, Change, CreditChange, Earnings, EarningsBy, EarningsSpan,
    Ending, Fault, JobPart, JobState, Ledger, LedgerError, LedgerView, LimitChanges, NewJob, Shape,
};
use tussah_provider::signer::Jobs as _;
use tussah_provider::wire::{Opening as ChannelOpening, WhoseFault};

use crate::fixture::*;

struct World {
    ledger: Ledger,
    account: AccountId,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let ledger = Ledger::open(&path).unwrap();
    let account = ledger.account_or_new("bot", NOW).unwrap();
    World {
        ledger,
        account,
        path,
        _folder: folder,
    }
}

impl World {
    fn accept(&self, job: &NewJob) -> Result<Acceptance, LedgerError> {
        wait(self.ledger.accept(job.clone(), NOW))
    }

    fn finish(&self, job: &NewJob, ending: Ending) -> Result<(), LedgerError> {
        wait(
            self.ledger
                .finish(job.request.body.job_id(), ending, NOW + 7),
        )
    }

    fn part(&self, id: &Digest, part: JobPart) -> Option<Vec<u8>> {
        wait(self.ledger.content(*id, part)).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        let report = self.ledger.check(Some(&provider_key().public_key()));
        let findings = report.unwrap().findings;
        findings.into_iter().map(|found| found.problem).collect()
    }
}

fn not_run(fault: WhoseFault) -> Ending {
    Ending::NotRun {
        fault,
        exit_code: 4,
        message: "cancelled before it ran".to_owned(),
    }
}

#[test]
fn a_job_is_accepted_once_and_ends_once() {
    let world = world();
    let job = job(1, world.account, 10);
    let id = job.request.body.job_id();
    assert_eq!(world.accept(&job).unwrap(), Acceptance::New);
    let Acceptance::Known(known) = world.accept(&job).unwrap() else {
        panic!("accepted twice");
    };
    assert_eq!((known.id, known.state), (id, JobState::Accepted));
    assert_eq!(world.ledger.unfinished().unwrap().jobs.len(), 1);
    world.finish(&job, ending(&job, 4)).unwrap();
    let again = world.finish(&job, ending(&job, 4)).unwrap_err();
    assert!(matches!(again, LedgerError::Ended(ended) if ended == id));
    assert_eq!(world.part(&id, JobPart::Output).unwrap(), b"INPUT 1");
    let summary = world.ledger.job(&id).unwrap().unwrap();
    assert_eq!(summary.price, Some(nano(4)));
    assert_eq!(summary.finished_unix_ms, Some(NOW + 7));
    let account = &world.ledger.accounts().unwrap()[0];
    assert_eq!((account.spent, account.reserved), (nano(4), nano(0)));
    assert_eq!(world.findings(), [""; 0]);
}

#[test]
fn credit_is_reserved_with_the_job_and_what_is_left_comes_back() {
    let world = world();
    let limits = AccountLimits {
        credit_nanograms: Some(nano(25)),
        ..AccountLimits::default()
    };
    world.ledger.set_limits("bot", limits).unwrap();
    let jobs = [1, 2, 3].map(|number| job(number, world.account, 10));
    world.accept(&jobs[0]).unwrap();
    world.accept(&jobs[1]).unwrap();
    let refused = world.accept(&jobs[2]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the job may cost 10 nanograms, and the account has 5 nanograms left"
    );
    // The first costs less than it might have, the second nothing.
    world.finish(&jobs[0], ending(&jobs[0], 3)).unwrap();
    world.finish(&jobs[1], not_run(WhoseFault::Client)).unwrap();
    world.accept(&jobs[2]).unwrap();
    let dear = world.finish(&jobs[2], ending(&jobs[2], 11)).unwrap_err();
    assert!(matches!(dear, LedgerError::Mismatch(_)), "{dear}");
    assert_eq!(world.findings(), [""; 0]);
}

/// A change, and what the credit is after it; or why not.
#[test]
fn credit_changes_by_what_is_named_and_never_past_what_there_is() {
    use CreditChange::{Add, Keep, Lift, Take, To};
    let world = world();
    let max = Nanograms::MAX;
    for (change, expected) in [
        (Keep, Ok(None)),
        (Add(nano(1)), Err("no credit limit to raise or lower")),
        (Take(nano(1)), Err("no credit limit to raise or lower")),
        (To(nano(0)), Ok(Some(nano(0)))),
        (Add(nano(0)), Ok(Some(nano(0)))),
        (Add(nano(5)), Ok(Some(nano(5)))),
        (Keep, Ok(Some(nano(5)))),
        (Take(nano(2)), Ok(Some(nano(3)))),
        (Take(max), Ok(Some(nano(0)))),
        (To(max), Ok(Some(max))),
        (Add(nano(1)), Err("more than there is")),
        (Add(max), Err("more than there is")),
        (Keep, Ok(Some(max))),
        (Lift, Ok(None)),
    ] {
        let changes = LimitChanges {
            credit: change,
            ..LimitChanges::default()
        };
        let changed = world.ledger.change_limits("bot", changes);
        match (changed, expected) {
            (Ok(account), Ok(credit)) => {
                assert_eq!(account.limits.credit_nanograms, credit, "{change:?}");
                assert_eq!(account.credit_left(), credit, "{change:?}");
                assert_eq!(world.ledger.accounts().unwrap(), [account]);
            }
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{change:?}: {error}");
            }
            (changed, _) => panic!("{change:?}: {changed:?}"),
        }
    }
    let unknown = world
        .ledger
        .change_limits("nobody", LimitChanges::default());
    assert!(matches!(unknown, Err(LedgerError::NoAccount(_))));
    // A key whose limits cannot be changed so is not made.
    let changes = LimitChanges {
        credit: Add(nano(1)),
        running_max: Change::To(1),
        ..LimitChanges::default()
    };
    let refused = world.ledger.new_api_key_with("k", "bot", changes, NOW);
    assert!(matches!(refused, Err(LedgerError::NoCreditLimit)));
    assert!(world.ledger.api_keys().unwrap().is_empty());
    // Less credit than is spent and set aside is nothing left, and no error.
    let accepted = job(1, world.account, 10);
    world.accept(&accepted).unwrap();
    let changes = LimitChanges {
        credit: To(nano(4)),
        ..LimitChanges::default()
    };
    let account = world.ledger.change_limits("bot", changes).unwrap();
    assert_eq!(account.credit_left(), Some(nano(0)));
    assert_eq!(world.findings(), [""; 0]);
}

const fn channel_opening(number: u8) -> ChannelOpening {
    ChannelOpening {
        network: -3,
        incarnation: [number; 32],
    }
}

const OPENING: ChannelOpening = channel_opening(5);

/// A job at a place in a channel, whatever the account's credit is.
#[test]
fn what_is_paid_through_a_channel_is_not_on_credit_and_has_its_place_alone() {
    let world = world();
    let none = AccountLimits {
        credit_nanograms: Some(nano(0)),
        ..AccountLimits::default()
    };
    world.ledger.set_limits("bot", none).unwrap();
    let address = format!("0:{}", "11".repeat(32)).parse().unwrap();
    let at = |number: u64, index: u64| {
        let mut job = job(number, world.account, 10);
        let mut body = job.request.body.clone();
        body.channel = Channel::Ton { address, index };
        job.request = body.sign(&client_key()).unwrap();
        job.opening = Some(OPENING);
        job
    };
    let nowhere = NewJob {
        opening: None,
        ..at(2, 0)
    };
    let refused = world.accept(&nowhere).unwrap_err();
    assert!(matches!(refused, LedgerError::Mismatch(_)), "{refused}");
    assert!(matches!(
        world.accept(&job(1, world.account, 10)),
        Err(LedgerError::Credit { .. })
    ));
    let (first, second) = (at(2, 0), at(3, 1));
    world.accept(&first).unwrap();
    world.accept(&second).unwrap();
    assert!(matches!(
        world.accept(&first).unwrap(),
        Acceptance::Known(_)
    ));
    let taken = world.accept(&at(4, 1)).unwrap_err();
    assert!(matches!(taken, LedgerError::PlaceTaken(_)), "{taken}");
    world.finish(&first, ending(&first, 7)).unwrap();
    let taken = world.accept(&at(5, 0)).unwrap_err();
    assert!(matches!(taken, LedgerError::PlaceTaken(_)), "{taken}");
    // The same place of another opening is another one, unless it is not known of which it was.
    let anew = |number, index| NewJob {
        opening: Some(channel_opening(6)),
        ..at(number, index)
    };
    world.accept(&anew(6, 0)).unwrap();
    let id = first.request.body.job_id();
    let kept = world.ledger.job(&id).unwrap().unwrap();
    assert_eq!(kept.opening, Some(OPENING));
    let old = Connection::open(&world.path).unwrap();
    let sql = "UPDATE jobs SET network = NULL, incarnation = NULL WHERE id = ?1";
    let second = second.request.body.job_id();
    old.execute(sql, [second.as_bytes()]).unwrap();
    let taken = world.accept(&anew(7, 1)).unwrap_err();
    assert!(matches!(taken, LedgerError::PlaceTaken(_)), "{taken}");
    let account = &world.ledger.accounts().unwrap()[0];
    assert_eq!((account.spent, account.reserved), (nano(0), nano(0)));
    assert_eq!(world.findings(), [""; 0]);
}

#[test]
fn documents_that_do_not_belong_together_are_refused() {
    let world = world();
    let good = job(1, world.account, 10);
    let other_input = NewJob {
        input: b"another".to_vec(),
        ..good.clone()
    };
    let other_manifest = NewJob {
        manifest: manifest("another"),
        ..good.clone()
    };
    let more = NewJob {
        reserve: nano(11),
        ..good.clone()
    };
    for (job, expected) in [
        (other_input, "made for another input"),
        (other_manifest, "names another manifest"),
        (more, "more would be reserved"),
    ] {
        let refused = world.accept(&job).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    world.accept(&good).unwrap();
    let other = ending(&job(2, world.account, 10), 1);
    let refused = world.finish(&good, other).unwrap_err().to_string();
    assert!(refused.contains("another job's"), "{refused}");
}

#[test]
fn the_signers_view_follows_and_needs_a_ledger() {
    let world = world();
    let mut view = LedgerView::open(&world.path).unwrap();
    let job = job(1, world.account, 10);
    let id = job.request.body.job_id();
    assert_eq!(view.job(&id).unwrap(), None);
    world.accept(&job).unwrap();
    let known = view.job(&id).unwrap().unwrap();
    assert!(!known.finished);
    assert_eq!(known.request, job.request.to_bytes());
    world.finish(&job, ending(&job, 1)).unwrap();
    assert!(view.job(&id).unwrap().unwrap().finished);
    assert!(LedgerView::open(&world.path.with_extension("none")).is_err());
}

#[test]
fn api_keys_open_their_account_until_they_are_revoked() {
    let world = world();
    let secret = world.ledger.new_api_key("phone", "bot", NOW).unwrap();
    assert_eq!(format!("{secret:?}"), "ApiKeySecret(..)");
    let text = secret.reveal().to_owned();
    assert!(text.starts_with("tsk_") && text.len() == 68);
    let account = world.ledger.account_of_key(&text).unwrap().unwrap();
    assert_eq!((account.id, account.name.as_str()), (world.account, "bot"));
    // Neither the key nor a part of it is in the files.
    for file in ["ledger.sqlite", "ledger.sqlite-wal"] {
        let bytes = std::fs::read(world.path.with_file_name(file)).unwrap();
        let part = &text.as_bytes()[4..20];
        assert!(!bytes.windows(part.len()).any(|window| window == part));
    }
    for other in ["", "tsk_", &text[..67], &text.to_uppercase(), "Bearer"] {
        assert_eq!(world.ledger.account_of_key(other).unwrap(), None);
    }
    let taken = world.ledger.new_api_key("phone", "bot", NOW).unwrap_err();
    assert!(matches!(taken, LedgerError::KeyTaken(name) if name == "phone"));
    world.ledger.revoke_api_key("phone", NOW).unwrap();
    assert_eq!(world.ledger.account_of_key(&text).unwrap(), None);
    assert!(world.ledger.revoke_api_key("nobody", NOW).is_err());
    for name in ["", "-a", "a b", "é", &"a".repeat(64), "../a"] {
        let refused = world.ledger.new_api_key(name, "bot", NOW);
        assert!(refused.is_err(), "{name}");
    }
}

#[test]
fn a_deployment_gives_a_manifest_a_name_and_can_move_it() {
    let world = world();
    let ledger = &world.ledger;
    let (first, second) = (manifest("one"), manifest("two"));
    ledger.deploy("small", &first, Shape::Chat, NOW).unwrap();
    ledger.deploy("small", &second, Shape::Raw, NOW).unwrap();
    let deployed = ledger.deployment("small").unwrap().unwrap();
    assert_eq!(deployed.manifest, second.digest());
    assert_eq!(deployed.shape, Shape::Raw);
    assert_eq!(ledger.manifest(&first.digest()).unwrap(), Some(first));
    assert_eq!(ledger.deployments().unwrap().len(), 1);
    assert!(ledger.undeploy("small").unwrap());
    assert!(!ledger.undeploy("small").unwrap());
}

/// One change to the file, and what the check says to it.
#[test]
fn the_check_finds_whatever_was_changed() {
    let last_byte = "substr(COLUMN, 1, length(COLUMN) - 1) || x'00'";
    let cut = |column: &str| {
        let value = last_byte.replace("COLUMN", column);
        format!("UPDATE jobs SET {column} = CAST({value} AS BLOB)")
    };
    let set = |what: &str| format!("UPDATE jobs SET {what}");
    for (change, expected) in [
        (set("price = 3"), "the price is not the receipt's"),
        (set("output = x'00'"), "the output is not the receipt's"),
        (set("output = NULL"), "the output is not the receipt's"),
        (set("input = x'00'"), "made for another input"),
        (set("state = 0"), "its price does not fit its state"),
        (set("receipt = NULL"), "its receipt does not fit its state"),
        (set("reserved = 1"), "still has a reservation"),
        (set("opening = x'a0'"), "the opening"),
        (set("finished = NULL"), "its end's time"),
        (set("id = zeroblob(32)"), "the id is not its request's"),
        (cut("receipt"), "the receipt"),
        (cut("request"), "the client did not sign"),
        (
            "UPDATE accounts SET spent = 9".to_owned(),
            "its jobs cost 4 nanograms",
        ),
        (
            "UPDATE accounts SET reserved = 9".to_owned(),
            "its jobs reserve 0 nanograms",
        ),
        (
            "UPDATE manifests SET bytes = x'a0'".to_owned(),
            "has other bytes",
        ),
    ] {
        let world = world();
        let job = job(1, world.account, 10);
        world.accept(&job).unwrap();
        world.finish(&job, ending(&job, 4)).unwrap();
        assert_eq!(world.findings(), [""; 0]);
        let hand = Connection::open(&world.path).unwrap();
        assert!(hand.execute(&change, []).unwrap() > 0);
        let findings = world.findings();
        assert!(
            findings.iter().any(|found| found.contains(expected)),
            "{change}: {findings:?}"
        );
    }
}

#[test]
fn another_providers_receipt_is_found() {
    let world = world();
    let job = job(1, world.account, 10);
    world.accept(&job).unwrap();
    world.finish(&job, ending(&job, 4)).unwrap();
    let report = world.ledger.check(Some(&key(9).public_key())).unwrap();
    assert_eq!(report.findings.len(), 1);
    let problem = &report.findings[0].problem;
    assert_eq!(problem, "another provider signed the receipt");
    let counts = (report.finished, report.accounts, report.manifests);
    assert_eq!(counts, (1, 1, 1));
}

#[test]
fn a_jobs_own_error_is_held_to_its_receipt() {
    let world = world();
    let job = job(1, world.account, 10);
    world.accept(&job).unwrap();
    let salt = job.request.body.nonce.derive_salt();
    let exit = ExitStatus::JobError {
        code: 1,
        message: Digest::salted(&salt, Domain::JobError, b"no messages"),
    };
    let (consensus, evidence, opening) = account_of(&job.request, &job.manifest, b"", exit);
    let ending = Ending::Receipt {
        receipt: Box::new(Receipt::sign(consensus, evidence, &provider_key()).unwrap()),
        opening: opening.to_bytes(),
        output: Vec::new(),
        log: Vec::new(),
        fault: Some(Fault {
            code: Some(1),
            message: "no messages".to_owned(),
        }),
    };
    world.finish(&job, ending).unwrap();
    assert_eq!(world.findings(), [""; 0]);
    let hand = Connection::open(&world.path).unwrap();
    hand.execute("UPDATE jobs SET error = 'other'", []).unwrap();
    let expected = "the error's message is not the receipt's";
    assert_eq!(world.findings(), [expected]);
}

#[test]
fn the_nonce_secret_is_drawn_once() {
    let world = world();
    let secret = world.ledger.nonce_secret().unwrap();
    assert_ne!(secret, [0; 32]);
    let other = Ledger::open(&world.path).unwrap();
    assert_eq!(other.nonce_secret().unwrap(), secret);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever order things come in, sums hold, and each job is in one state.
    #[test]
    fn any_order_of_steps_leaves_a_ledger_that_holds(
        steps in prop::collection::vec((0u64..6, 0u8..3, 0u64..12), 1..25),
    ) {
        let world = world();
        let limits = AccountLimits {
            credit_nanograms: Some(nano(30)),
            ..AccountLimits::default()
        };
        world.ledger.set_limits("bot", limits).unwrap();
        let mut states = std::collections::BTreeMap::new();
        for (number, step, price) in steps {
            let job = job(number, world.account, 10);
            let before = states.get(&number).copied();
            let is_open = before == Some(JobState::Accepted);
            match step {
                0 => match world.accept(&job) {
                    Ok(Acceptance::New) => {
                        prop_assert_eq!(before, None);
                        states.insert(number, JobState::Accepted);
                    }
                    Ok(Acceptance::Known(known)) => prop_assert_eq!(Some(known.state), before),
                    Err(LedgerError::Credit { .. }) => prop_assert_eq!(before, None),
                    Err(error) => prop_assert!(false, "{}", error),
                },
                1 => {
                    let done = world.finish(&job, ending(&job, price));
                    let good = is_open && price <= 10;
                    prop_assert_eq!(done.is_ok(), good);
                    if good {
                        states.insert(number, JobState::Finished);
                    }
                }
                _ => {
                    let done = world.finish(&job, not_run(WhoseFault::Provider));
                    prop_assert_eq!(done.is_ok(), is_open);
                    if is_open {
                        states.insert(number, JobState::NotRun);
                    }
                }
            }
        }
        let none: [String; 0] = [];
        prop_assert_eq!(world.findings(), none);
        for (number, state) in states {
            let id = job(number, world.account, 10).request.body.job_id();
            prop_assert_eq!(world.ledger.job(&id).unwrap().unwrap().state, state);
        }
    }
}

#[test]
fn earnings_are_told_apart_by_day_account_and_model() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let world = world();
    let other = world.ledger.account_or_new("shop", NOW).unwrap();
    // Which job, whose, under which name, how many days later it ended, for how much.
    for (number, account, model, day, price) in [
        (1, world.account, Some("chat"), 0, 5),
        (2, world.account, Some("chat"), 1, 0),
        (3, other, None, 1, 7),
        (4, other, Some("chat"), 9, 9),
    ] {
        let mut job = job(number, account, 10);
        job.deployment = model.map(str::to_owned);
        world.accept(&job).unwrap();
        let id = job.request.body.job_id();
        let ended = world
            .ledger
            .finish(id, ending(&job, price), NOW + day * DAY);
        wait(ended).unwrap();
    }
    let cancelled = job(5, other, 10);
    world.accept(&cancelled).unwrap();
    world
        .finish(&cancelled, not_run(WhoseFault::Client))
        .unwrap();
    // One that has not ended counts for nothing yet.
    world.accept(&job(6, other, 10)).unwrap();

    let span = EarningsSpan {
        from_unix_ms: NOW,
        to_unix_ms: NOW + 2 * DAY,
    };
    let keys = |by| -> Vec<(String, u64, u64)> {
        let groups = world.ledger.earnings(span, by).unwrap();
        let groups = groups.into_iter();
        groups
            .map(|(key, sums)| (key, sums.jobs, sums.total().unwrap().get()))
            .collect()
    };
    let key = |text: &str, jobs, price| (text.to_owned(), jobs, price);
    assert_eq!(
        keys(EarningsBy::Day),
        [key("2026-11-18", 1, 5), key("2026-11-19", 2, 7)]
    );
    assert_eq!(
        keys(EarningsBy::Account),
        [key("shop", 1, 7), key("bot", 2, 5)]
    );
    let bare = manifest("null").digest().to_string();
    assert_eq!(
        keys(EarningsBy::Model),
        [key(&bare, 1, 7), key("chat", 2, 5)]
    );

    let mut view = LedgerView::open(&world.path).unwrap();
    let mut all = Earnings::default();
    for (_, sums) in view.earnings(span, EarningsBy::Day).unwrap() {
        all.add(&sums).unwrap();
    }
    let expected = Earnings {
        jobs: 3,
        free: 1,
        not_run: 1,
        refunded: 1,
        fuel: 3_000_000_000,
        credit: nano(12),
        ..Earnings::default()
    };
    assert_eq!(all, expected);
}
