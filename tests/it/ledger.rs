//! `tussah ledger` and `tussah earnings` on the ledger that a daemon has written.
#![cfg(unix)]

use rusqlite::Connection;
use serde_json::json;

use crate::{
    fixture::Sandbox,
    serve::{Daemon, deploy},
    worker::ECHO,
};

/// A home whose daemon has run two jobs, and has one more that was cancelled.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for command in [&["ledger", "check"][..], &["earnings"]] {
        sandbox.run(command).expect(2).says("there is no ledger");
    }
    deploy(&sandbox, "echo", ECHO);
    let daemon = Daemon::start(&sandbox, "alice");
    for input in ["one", "two"] {
        let job = daemon.submit(&json!({"model": "echo", "input": input}));
        assert_eq!(daemon.wait_for(&job)["status"], "done");
    }
    // Beside the daemon that has it open.
    let good = sandbox.run(&["ledger", "check"]).expect(0).stdout;
    assert!(good.starts_with("good: 2 jobs"), "{good}");
    let table = sandbox.run(&["earnings", "--by", "account"]).expect(0);
    assert!(table.stdout.contains("shop"), "{}", table.stdout);
    daemon.terminate().expect(0);
    sandbox
}

#[test]
fn what_is_changed_in_any_row_is_found() {
    let sandbox = sandbox();
    let place = sandbox.home().join("serve/ledger.sqlite");
    // All of it in the one file.
    let connection = Connection::open(&place).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    connection.close().unwrap();
    let clean = std::fs::read(&place).unwrap();
    // What is done to the ledger, and what is said of it.
    for (sql, problem) in [
        (
            "UPDATE jobs SET receipt = CAST(substr(receipt, 1, length(receipt) - 1) || x'00' AS BLOB)",
            "the receipt",
        ),
        (
            "UPDATE jobs SET output = CAST('two' AS BLOB) WHERE output = CAST('one' AS BLOB)",
            "the output is not the receipt's",
        ),
        (
            "UPDATE jobs SET input = CAST('two' AS BLOB) WHERE output = CAST('one' AS BLOB)",
            "made for another input",
        ),
        (
            "UPDATE jobs SET receipt = (SELECT receipt FROM jobs ORDER BY sequence DESC LIMIT 1)",
            "the opening is not the receipt's",
        ),
        ("UPDATE jobs SET opening = x'00'", "the opening"),
        ("UPDATE jobs SET request = x'a0'", "request"),
        (
            "UPDATE jobs SET finished = NULL",
            "time does not fit its state",
        ),
        ("UPDATE accounts SET spent = spent + 1", "its jobs cost"),
        ("UPDATE manifests SET bytes = x'00'", "manifest"),
    ] {
        let connection = Connection::open(&place).unwrap();
        assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
        connection.close().unwrap();
        let found = sandbox.run(&["ledger", "check", "--json"]).expect(3).json();
        assert_eq!(found["clean"], false, "{sql}");
        let findings = found["findings"].to_string();
        assert!(findings.contains(problem), "{sql}: {findings}");
        let said = sandbox.run(&["ledger", "check"]).expect(3);
        said.says("help: stop the daemon");
        std::fs::write(&place, &clean).unwrap();
    }
    sandbox.run(&["ledger", "check"]).expect(0);
    // Not even a database.
    std::fs::write(&place, vec![7; 8192]).unwrap();
    sandbox
        .run(&["ledger", "check"])
        .expect(3)
        .says("cannot read");
}

#[test]
fn earnings_say_what_was_done_and_who_owes_for_it() {
    let sandbox = sandbox();
    for by in ["day", "account", "model"] {
        let arguments = ["earnings", "--since", "1d", "--by", by, "--json"];
        let earned = sandbox.run(&arguments).expect(0).json();
        assert_eq!(earned["total"]["jobs"], 2, "{earned}");
        assert_eq!(earned["total"]["free"], 2, "{earned}");
        assert_eq!(earned["total"]["credit_nanograms"], "0", "{earned}");
        assert_eq!(earned["groups"].as_array().unwrap().len(), 1, "{earned}");
    }
    let none = sandbox.run(&["earnings", "--since", "0d"]).expect(0).stdout;
    assert_eq!(none, "no job ended in this time\n");
    sandbox
        .run(&["earnings", "--since", "yesterday"])
        .expect(2)
        .says("neither a time back");
}

#[test]
fn an_export_has_a_line_for_each_job_that_ended() {
    let sandbox = Sandbox::new();
    let export = |more: &[&str]| sandbox.run(&[&["ledger", "export"], more].concat());
    export(&[]).expect(2).says("there is no ledger");
    deploy(&sandbox, "echo", ECHO);
    let daemon = Daemon::start_with(&sandbox, "alice", &["--price-base", "7000000"]);
    assert_eq!(export(&[]).expect(0).stdout, "");
    let jobs: Vec<String> = ["one", "two"]
        .map(|input| daemon.submit(&json!({"model": "echo", "input": input})))
        .into();
    for job in &jobs {
        daemon.wait_for(job);
    }
    // Beside the daemon that has it open.
    let lines = export(&[]).expect(0).stdout;
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, job) in lines.iter().zip(&jobs) {
        assert_eq!(
            (&line["job"], &line["account"]),
            (&json!(job), &json!("shop"))
        );
        assert_eq!(
            (&line["model"], &line["status"]),
            (&json!("echo"), &json!("done"))
        );
        let money = (&line["price_nanograms"], &line["owed"]);
        assert_eq!(money, (&json!("7000000"), &json!("credit")));
        let receipt = &line["receipt"]["consensus"];
        assert_eq!(receipt["job"], *job);
        assert_eq!(receipt["price_nanograms"], "7000000");
        let view = daemon.get(&format!("/v1/jobs/{job}")).expect(200).json();
        assert_eq!(line["receipt_digest"], view["receipt"]);
    }
    let table = export(&["--format", "csv"]).expect(0).stdout;
    let rows: Vec<Vec<&str>> = table
        .split_terminator("\r\n")
        .map(|row| row.split(',').collect())
        .collect();
    assert_eq!(rows.len(), 3, "{table}");
    let column = |name: &str| rows[0].iter().position(|each| *each == name).unwrap();
    for (row, job) in rows[1..].iter().zip(&jobs) {
        assert_eq!(row.len(), rows[0].len(), "{table}");
        for (name, expected) in [
            ("job", job.as_str()),
            ("account", "shop"),
            ("owed", "credit"),
            ("price_nanograms", "7000000"),
            ("price_gram", "0.007"),
        ] {
            assert_eq!(row[column(name)], expected, "{table}");
        }
        assert!(row[column("finished_utc")].ends_with('Z'), "{table}");
    }
    // What is before, and what is after.
    let before = ["--since", "2026-01-01", "--until", "2026-01-02"];
    assert_eq!(export(&before).expect(0).stdout, "");
    assert_eq!(export(&["--until", "1h"]).expect(0).stdout, "");
    export(&["--since", "soon"]).expect(2);
    daemon.terminate().expect(0);
}
