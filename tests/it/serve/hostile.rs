//! What nobody should send to a daemon, by TCP and byte by byte: each is answered as it should be
//! or its connection is closed, and afterwards the daemon is as it was.

mod table;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use serde_json::Value;

use table::table;

use super::{Daemon, ECHO, deploy};
use crate::fixture::Sandbox;

/// How the daemon is set: as patient as a test can be.
const PATIENCE: &str = "[connections]\nhead_seconds_max = 2\nbody_seconds_max = 2\n\
                        write_seconds_max = 2\n";
/// What the gateway's memory may differ by after a round of all requests.
const MEMORY_BYTES_MORE_MAX: u64 = 8 << 20;
/// Between the bytes of one who sends slowly.
const PAUSE: Duration = Duration::from_millis(100);

/// What comes after the first bytes.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Reads until the other side closes.
    Read,
    /// Closes its own side, then reads.
    HalfClose,
    /// Sends this byte again and again, far more slowly than it could.
    Trickle(u8),
}
use Then::{HalfClose, Read, Trickle};

/// What is expected: a status, or 0 for a connection that is closed without a word.
type Expected = &'static [u16];

/// A request: why it should not be sent, its bytes, what comes after, and what it gets.
struct Row {
    why: &'static str,
    bytes: Vec<u8>,
    then: Then,
    expected: Expected,
}

/// Sends a row's bytes, and what was answered first; 0 is nothing.
fn status(address: &str, row: &Row) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    // One that was refused early does not take all of it.
    let _ = stream.write_all(&row.bytes);
    if row.then == HalfClose {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Trickle(byte) = row.then {
        stream.set_read_timeout(Some(PAUSE)).unwrap();
        let mut piece = [0; 1024];
        loop {
            match stream.read(&mut piece) {
                Ok(read) => {
                    answer.extend_from_slice(&piece[..read]);
                    break;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    let _ = stream.write_all(&[byte]);
                }
                Err(_) => break,
            }
        }
    } else {
        // Whatever is refused is so long before; who is never answered fails here.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("{}: no end", row.why),
            // A reset is a way to close.
            Ok(_) | Err(_) => {}
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or(0), text)
}

/// All rows at once.
fn round(daemon: &Daemon, rows: &[Row]) {
    let found: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = rows
            .iter()
            .map(|row| scope.spawn(|| status(&daemon.address, row)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let mut wrong = Vec::new();
    for (row, (status, text)) in rows.iter().zip(found) {
        let shown = String::from_utf8_lossy(&row.bytes[..row.bytes.len().min(60)]);
        if !row.expected.contains(&status) {
            wrong.push(format!(
                "{}: {status}, not {:?}: {shown:?}\n{text}",
                row.why, row.expected
            ));
        }
        // Nobody is told more than that it was refused.
        for secret in ["panicked", "/root", "/home", ".sqlite", "src/"] {
            assert!(!text.contains(secret), "{}: {text}", row.why);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Daemon {
    fn state(&self) -> Value {
        self.ask_at(&self.health, "/status").expect(200).json()
    }

    /// The daemon's state once no client is connected.
    fn at_rest(&self) -> Value {
        loop {
            let state = self.state();
            if state["since_start"]["connections_open"] == 0 && state["jobs_running"] == 0 {
                return state;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn hostile_requests_are_refused_and_leave_nothing_behind() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    sandbox.file("serve.toml", PATIENCE);
    let daemon = Daemon::start_with(&sandbox, "alice", &["--config", "serve.toml"]);
    let rows = table(&daemon);
    assert!(rows.len() >= 100, "{}", rows.len());
    // The first round takes what a daemon that works takes: buffers, connections to the ledger.
    round(&daemon, &rows);
    round(&daemon, &rows);
    let before = daemon.at_rest();
    let resident = |state: &Value| state["resident_bytes"].as_u64();
    for _ in 0..3 {
        round(&daemon, &rows);
    }
    let after = daemon.at_rest();
    if let (Some(before), Some(after)) = (resident(&before), resident(&after)) {
        assert!(
            after <= before + MEMORY_BYTES_MORE_MAX,
            "{before} bytes, then {after}"
        );
    }
    assert!(
        after["since_start"]["connections_slow"].as_u64() > Some(0),
        "{after}"
    );
    // Nothing of all this was a job, and a job still runs.
    assert_eq!(after["since_start"]["accepted"], 0, "{after}");
    let job = daemon.submit(&serde_json::json!({"model": "echo", "input": "still here"}));
    assert_eq!(daemon.wait_for(&job)["status"], "done");
    daemon.terminate().expect(0);
}

#[test]
fn clients_that_do_not_read_or_take_every_connection_are_closed() {
    let sandbox = Sandbox::new();
    sandbox.file("serve.toml", format!("{PATIENCE}per_address_max = 3\n"));
    let daemon = Daemon::start_with(&sandbox, "alice", &["--config", "serve.toml"]);
    // Many documents are asked for, and not one is read.
    let ask = format!(
        "GET /openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n",
        daemon.address
    );
    let mut deaf = TcpStream::connect(&daemon.address).unwrap();
    deaf.set_write_timeout(Some(PAUSE)).unwrap();
    let all = ask.repeat(2000);
    // It is asked until no more is taken.
    let _ = deaf.write_all(all.as_bytes());
    let idle: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(&daemon.address).unwrap())
        .collect();
    while daemon.state()["since_start"]["connections_open"] != 3 {
        thread::yield_now();
    }
    let refused = Row {
        why: "one connection more",
        bytes: ask.into_bytes(),
        then: Read,
        expected: &[0, 429],
    };
    let (status, text) = status(&daemon.address, &refused);
    assert!(refused.expected.contains(&status), "{text}");
    // All of them are closed, though this side has not closed one.
    let state = daemon.at_rest();
    let counts = &state["since_start"];
    assert_eq!(counts["connections_refused"], 1, "{state}");
    assert!(counts["connections_slow"].as_u64() >= Some(3), "{state}");
    drop((deaf, idle));
    daemon.get("/v1/models").expect(200);
    daemon.terminate().expect(0);
}
