//! TLS as Python's `ssl` sees it, and a log that says what happened and not what was said.

use std::process::Command;

use serde_json::{Value, json};

use super::{Daemon, ECHO, deploy};
use crate::{fixture::Sandbox, worker::component};

/// A job's input, which nothing but the job and its client may see.
const SECRET: &str = "the marked prompt 7f3a9c";

/// Python asks for a path by TLS, trusting this file alone; prints status and certificate.
const ASK: &str = r#"
import hashlib, http.client, json, ssl, sys
place, trusted, key, body = sys.argv[1:5]
context = ssl.create_default_context(cafile=trusted)
host, port = place.rsplit(":", 1)
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
connection.request("POST" if body else "GET", "/v1/jobs" if body else "/v1/models", body or None, headers)
shown = hashlib.sha256(connection.sock.getpeercert(True)).hexdigest()
version = connection.sock.version()
answer = connection.getresponse()
print(json.dumps({"status": answer.status, "body": json.loads(answer.read()), "shown": shown, "version": version}))
"#;

fn ask(daemon: &Daemon, trusted: &str, body: &str) -> Result<Value, String> {
    let asked = Command::new("python3")
        .args(["-c", ASK, &daemon.address, trusted, &daemon.key, body])
        .output()
        .expect("python3 is installed");
    match asked.status.success() {
        true => Ok(serde_json::from_slice(&asked.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&asked.stderr).into_owned()),
    }
}

#[test]
fn certificates_of_its_own_and_of_files_are_trusted_by_their_file() {
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    deploy(&sandbox, "echo", ECHO);
    let one = Daemon::start_with(&other, "bob", &["--tls-self-signed"]);
    let others = other.home().join("serve/certificate.pem");
    let (certificate, key) = (sandbox.work().join("c.pem"), sandbox.work().join("k.pem"));
    let copy = |from: &Sandbox| {
        let folder = from.home().join("serve");
        std::fs::copy(folder.join("certificate.pem"), &certificate).unwrap();
        std::fs::copy(folder.join("certificate-key.pem"), &key).unwrap();
    };
    copy(&other);
    let files = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];
    let daemon = Daemon::start_with(&sandbox, "alice", &files);
    let trusted = others.to_str().unwrap();
    let first = ask(&daemon, trusted, "").unwrap();
    assert_eq!(first["status"], 200, "{first}");
    assert_eq!(first["version"], "TLSv1.3");
    assert_eq!(first["body"]["data"][0]["id"], "echo");
    // The other daemon shows the same, and asks for its own keys.
    let same = ask(&one, trusted, "").unwrap();
    assert_eq!(
        (&same["status"], &same["shown"]),
        (&json!(200), &first["shown"])
    );
    one.terminate().expect(0);

    // Another certificate comes into the same files.
    for name in ["certificate.pem", "certificate-key.pem"] {
        std::fs::remove_file(other.home().join("serve").join(name)).unwrap();
    }
    let next = Daemon::start_with(&other, "carol", &["--tls-self-signed"]);
    next.terminate().expect(0);
    copy(&other);
    assert!(ask(&daemon, trusted, "").is_err());
    daemon.hang_up();
    let renewed = (0..1000).find_map(|_| ask(&daemon, trusted, "").ok());
    assert_eq!(renewed.expect("the new certificate")["status"], 200);
    let ended = daemon.terminate().expect(0);
    ended.says("the certificate was read again");
}

#[test]
fn sighup_to_all_processes_ends_none_of_them() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let daemon = Daemon::start(&sandbox, "alice");
    let job = daemon.submit(&json!({"model": "echo", "input": "before"}));
    assert_eq!(daemon.wait_for(&job)["status"], "done");
    let processes = || ["serve-worker", "serve-signer"].map(|command| daemon.process(command));
    let before = processes();
    assert!(before.iter().all(Option::is_some), "{before:?}");
    daemon.hang_up();
    let job = daemon.submit(&json!({"model": "echo", "input": "after"}));
    assert_eq!(daemon.wait_for(&job)["status"], "done");
    daemon.verified(&sandbox, &job);
    assert_eq!(processes(), before);
    let ended = daemon.terminate().expect(0);
    ended.says("there is no certificate to read again");
}

#[test]
fn half_a_certificate_and_words_of_no_level_are_refused() {
    let sandbox = Sandbox::new();
    for (arguments, says) in [
        (&["--tls-cert", "c.pem"][..], "a certificate needs its key"),
        (&["--tls-key", "k.pem"], "a key needs its certificate"),
        (
            &[
                "--tls-cert",
                "c.pem",
                "--tls-key",
                "k.pem",
                "--tls-self-signed",
            ],
            "which?",
        ),
        (&["--log", "loud"], "write off, error, warn"),
        (&["--log-format", "xml"], "write text or json"),
    ] {
        let arguments = [&["serve"][..], arguments].concat();
        sandbox.run(&arguments).expect(2).says(says);
    }
    sandbox.file("c.pem", "nothing");
    sandbox.file("k.pem", "nothing");
    let none = ["serve", "--tls-cert", "c.pem", "--tls-key", "k.pem"];
    sandbox.run(&none).expect(2).says("holds none");
}

#[test]
fn the_log_says_what_happened_and_not_what_was_said() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let fails = "(func $run (param i32 i32) (result i32) (unreachable))";
    let module = sandbox.file("trap.wasm", component(fails));
    let module = module.to_str().unwrap();
    sandbox
        .run(&["deploy", module, "--as", "trap", "--shape", "raw"])
        .expect(0);
    let options = ["--log", "trace", "--log-format", "json"];
    let daemon = Daemon::start_with(&sandbox, "alice", &options);
    for model in ["echo", "trap"] {
        let job = daemon.submit(&json!({"model": model, "input": SECRET}));
        daemon.wait_for(&job);
        for part in ["output", "log", "receipt", "opening"] {
            daemon.get(&format!("/v1/jobs/{job}/{part}"));
        }
    }
    // What is refused is said back to its client, and to nobody else.
    let path = "/v1/jobs/the%20marked%20prompt%207f3a9c";
    daemon.get(path).expect(400);
    let body = json!({"model": SECRET, "input": SECRET}).to_string();
    daemon.ask("POST", "/v1/jobs", &body, "*/*").expect(404);
    let chat = json!({"model": "echo", SECRET: 1}).to_string();
    daemon
        .ask("POST", "/v1/chat/completions", &chat, "*/*")
        .expect(400);
    let key = daemon.key.clone();
    let said = daemon.terminate().expect(0).stderr;
    let events: Vec<Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ready = |event: &Value| event["message"] == "a worker is ready" && event["level"] == "INFO";
    assert!(events.iter().any(ready), "{said}");
    let answered = |event: &&Value| event["message"] == "answered";
    assert!(events.iter().filter(answered).count() >= 15, "{said}");
    for secret in ["marked", "7f3a9c", &key, "/v1/jobs/"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
