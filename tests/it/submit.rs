//! `tussah submit` and `tussah logs` against a started daemon, and against one that lies.
#![cfg(unix)]

mod proxy;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    fixture::{Ended, Sandbox},
    serve::{Daemon, deploy, signal},
    server::{Reply, Server},
    worker::{ECHO, SPIN, component},
};
use proxy::Proxy;

const INPUT: &str = "from a client";

/// A client with a home of its own, and a job as a module.
struct Client {
    sandbox: Sandbox,
    key: String,
}

impl Client {
    fn of(daemon: &Daemon) -> Self {
        let sandbox = Sandbox::new();
        sandbox.file("echo.wasm", component(ECHO));
        sandbox.file("input.txt", INPUT);
        Self {
            sandbox,
            key: daemon.key.clone(),
        }
    }

    fn command(&self, address: &str, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        command
            .env("TUSSAH_API_KEY", &self.key)
            .env("TUSSAH_PROVIDER", format!("http://{address}"));
        command
    }

    fn run(&self, address: &str, arguments: &[&str]) -> Ended {
        self.command(address, arguments).output().unwrap().into()
    }

    fn submit(&self, address: &str, more: &[&str]) -> Ended {
        let arguments = ["submit", "echo.wasm", "--input", "input.txt"];
        self.run(address, &[&arguments[..], more].concat())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.sandbox.work().join(name)).unwrap()
    }
}

#[test]
fn a_job_goes_to_a_provider_and_its_receipt_is_checked() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let (client, to) = (Client::of(&daemon), &daemon.address);
    let ended = client.submit(to, &["--receipt", "r.cbor"]).expect(0);
    assert_eq!(ended.stdout, INPUT);
    let ended = ended.says("uploaded the module").says("done, verified");
    // What was left here is enough to look at it and to run it again.
    client.run(to, &["receipt", "verify", "r.cbor"]).expect(0);
    client
        .run(to, &["audit", "r.cbor", "--input", "input.txt"])
        .expect(0);

    // Known to the provider now: nothing is uploaded, and the output goes to a file.
    let again = client.submit(to, &["--output", "out.txt", "--json"]);
    let again = again.expect(0).json();
    assert_eq!(again["verified"], true, "{again}");
    assert_eq!(client.read("out.txt"), INPUT.as_bytes());
    let show = client.run(to, &["receipt", "show", "r.cbor", "--json"]);
    let first = show.expect(0).json();
    assert_ne!(again["job_id"], first["consensus"]["job"], "a new request");
    let provider = sandbox.run(&["provider", "key"]).expect(0).stdout;
    let signer = first["provider_key"].as_str().unwrap();
    assert!(provider.contains(signer), "{provider}");
    assert!(ended.stderr.contains(signer), "{}", ended.stderr);
    client.submit(to, &["--provider", signer]).expect(0);
    daemon.terminate().expect(0);
}

#[test]
fn a_deployed_job_is_run_by_name_or_digest_and_logs_show_it_later() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let daemon = Daemon::start(&sandbox, "alice");
    let (client, to) = (Client::of(&daemon), &daemon.address);
    let named = ["submit", "echo", "--input", "input.txt"];
    let ended = client.run(to, &named).expect(0);
    assert_eq!(ended.stdout, INPUT);
    assert!(!ended.stderr.contains("uploaded"), "{}", ended.stderr);
    let detached = client.run(to, &[&named[..], &["--detach", "--json"]].concat());
    let detached = detached.expect(0).json();
    assert_eq!(detached["known"], false);
    let job = detached["job_id"].as_str().unwrap();
    // Its provider is known from then on.
    let logs = ["logs", job, "--follow"];
    let mut command = client.sandbox.command(&logs);
    let ended: Ended = command
        .env("TUSSAH_API_KEY", &client.key)
        .output()
        .unwrap()
        .into();
    assert_eq!(ended.says("verified: signed by").expect(0).stdout, INPUT);
    let view = client.run(to, &["logs", job, "--json"]).expect(0).json();
    assert_eq!(view["job"]["status"], "done", "{view}");
    assert_eq!(
        (&view["output"], &view["verified"]),
        (&INPUT.into(), &true.into())
    );

    // The same request is the same job, and with another input it is not sent.
    let again = [&named[..], &["--job-id", job, "--detach", "--json"]].concat();
    let again = client.run(to, &again).expect(0).json();
    assert_eq!(
        (&again["known"], &again["job_id"]),
        (&true.into(), &job.into())
    );
    client.sandbox.file("input.txt", "another");
    client
        .run(to, &[&named[..], &["--job-id", job]].concat())
        .expect(2)
        .says("another input");
    let manifest = view["job"]["manifest"].as_str().unwrap();
    let by_digest = ["submit", manifest, "--input", "input.txt"];
    assert_eq!(client.run(to, &by_digest).expect(0).stdout, "another");
    // On a machine that did not ask, the opening says what the receipt is of.
    let other = Client::of(&daemon);
    let ended = other.run(to, &["logs", job]).expect(0);
    assert_eq!(ended.stdout, INPUT);
    daemon.terminate().expect(0);
}

/// What a provider tells otherwise than it was.
type Lie = fn(&str, Vec<u8>, &Proxy) -> Vec<u8>;

fn replaced(answer: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    // Lengths stay, so that heads and chunks stay true.
    assert_eq!(from.len(), to.len());
    let at = answer
        .windows(from.len())
        .position(|bytes| bytes == from.as_bytes());
    match at {
        Some(at) => {
            let mut answer = answer;
            answer[at..at + to.len()].copy_from_slice(to.as_bytes());
            answer
        }
        None => answer,
    }
}

#[test]
fn a_provider_that_lies_is_caught() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    // What is told, and the reason that is given.
    let lies: [(&str, Lie, &str); 5] = [
        (
            "a receipt with a changed byte",
            |path, mut answer, _| {
                if path.ends_with("/receipt") {
                    let last = answer.len() - 1;
                    answer[last] ^= 1;
                }
                answer
            },
            "not as a provider signed it",
        ),
        (
            "the receipt of an earlier job",
            |path, answer, proxy| match path.ends_with("/receipt") {
                true => proxy.first_of("/receipt", answer),
                false => answer,
            },
            "the receipt's job is",
        ),
        (
            "output that the job did not make",
            |path, answer, _| match path.ends_with("/events") {
                // "from" and "for " in base64, as the stream has it.
                true => replaced(answer, "ZnJvbSBh", "Zm9yICBh"),
                false => answer,
            },
            "the output that came is not the output in the receipt",
        ),
        (
            "less output than there was",
            |path, answer, _| match path.ends_with("/events") {
                true => replaced(answer, "event: output", "event: outpux"),
                false => answer,
            },
            "the output that came is not the output in the receipt",
        ),
        (
            "another job's name",
            |path, answer, _| match path == "/v1/jobs" {
                true => replaced(answer, "\"id\":\"blake3:", "\"id\":\"blakex:"),
                false => answer,
            },
            "it speaks of another job",
        ),
    ];
    for (lie, tell, reason) in lies {
        let proxy = Proxy::new(&daemon.address, move |asked, forward, proxy| {
            tell(&asked.path, forward(), proxy)
        });
        let client = Client::of(&daemon);
        // The first job is told as it was where the lie needs an earlier one.
        let first = client.submit(&proxy.address, &["--json"]);
        let told = match first.code {
            0 => client.submit(&proxy.address, &[]),
            _ => client.submit(&proxy.address, &["--receipt", "r.cbor"]),
        };
        let told = told.expect(3);
        assert!(told.stderr.contains(reason), "{lie}: {}", told.stderr);
        assert!(!client.sandbox.work().join("r.cbor").exists(), "{lie}");
    }
    daemon.terminate().expect(0);
}

#[test]
fn a_proxy_of_the_environment_hears_nothing_of_a_provider_on_this_machine() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let client = Client::of(&daemon);
    let proxy = Server::new(|_| Reply::new("502 Bad Gateway").body(b""));
    let run = |address: &str, arguments: &[&str]| -> Ended {
        let mut command = client.command(address, arguments);
        for scheme in ["ALL", "HTTP", "HTTPS"] {
            let name = format!("{scheme}_PROXY");
            command.env(name.to_lowercase(), proxy.url(""));
            command.env(name, proxy.url(""));
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
        command.output().unwrap().into()
    };
    let submit = ["submit", "echo.wasm", "--input", "input.txt", "--json"];
    let (_, port) = daemon.address.rsplit_once(':').unwrap();
    for address in [daemon.address.clone(), format!("localhost:{port}")] {
        let done = run(&address, &submit).expect(0).json();
        let job = done["job_id"].as_str().unwrap();
        run(&address, &["logs", job]).expect(0);
    }
    let status = ["status", "--metrics", &daemon.health, "--json"];
    run(&daemon.address, &status).expect(0);
    let here = Server::new(|_| Reply::new("200 OK").body(b"not a model"));
    let ended = run(
        &daemon.address,
        &["model", "pull", "m", &here.url("/m.gguf")],
    );
    assert!(!here.requests().is_empty(), "{}", ended.stderr);
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
    daemon.terminate().expect(0);
}

#[test]
fn another_signer_gets_no_input() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let proxy = Proxy::new(&daemon.address, |_, forward, _| forward());
    let client = Client::of(&daemon);
    let stranger = "ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    client
        .submit(&proxy.address, &["--provider", stranger])
        .expect(3)
        .says("nothing was sent");
    let asked = proxy.asked();
    assert_eq!(asked, ["POST /v1/quote"]);
    daemon.terminate().expect(0);
}

#[test]
fn broken_lines_and_full_queues_are_waited_out_and_nothing_runs_twice() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let proxy = Proxy::new(&daemon.address, |asked, forward, proxy| {
        let refusal = r#"{"error":{"code":"queue_full","message":"the queue is full"}}"#;
        let full = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{refusal}",
            refusal.len()
        );
        let number = proxy.times(&asked.method, &asked.path);
        match (asked.method.as_str(), asked.path.as_str(), number) {
            ("POST", "/v1/jobs", 1) => full.into_bytes(),
            // It arrives, and the answer does not: is it accepted?
            ("POST", "/v1/jobs", 2) | ("PUT", _, 1) => {
                forward();
                Vec::new()
            }
            (_, path, 1) if path.ends_with("/events") => {
                // All of the output, and not the end.
                let answer = forward();
                let end = answer.windows(12).position(|part| part == b"event: ended");
                answer[..end.unwrap()].to_vec()
            }
            (_, path, 1) if path.ends_with("/receipt") => Vec::new(),
            _ => forward(),
        }
    });
    let client = Client::of(&daemon);
    let ended = client.submit(&proxy.address, &[]).expect(0);
    assert_eq!(ended.stdout, INPUT, "each byte once");
    let ended = ended
        .says("the queue is full; trying again in 1.0 s")
        .says("which the provider had");
    let heard = proxy.header_of("/events", "last-event-id");
    assert_eq!(
        heard,
        [None, Some(INPUT.len().to_string())],
        "{}",
        ended.stderr
    );
    // One job came of it.
    assert_eq!(jobs_accepted(&daemon), 1);
    daemon.terminate().expect(0);
}

/// As the daemon's metrics count them.
fn jobs_accepted(daemon: &Daemon) -> u64 {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(&daemon.health).unwrap();
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("tussah_submissions_total{result=\"accepted\"}"));
    let count = line.and_then(|line| line.split(' ').nth(1));
    count.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn what_a_job_may_cost_is_said_before_it_is_sent() {
    let sandbox = Sandbox::new();
    let prices = ["--price-base", "7000000"];
    let daemon = Daemon::start_with(&sandbox, "alice", &prices);
    let (client, to) = (Client::of(&daemon), &daemon.address);
    let dear = client.submit(to, &[]).expect(4);
    dear.says("can cost 0.007 GRAM here, and 0 GRAM")
        .says("--max-price");
    client.submit(to, &["--max-price", "0.006"]).expect(4);
    let paid = client.submit(to, &["--max-price", "1", "--json"]).expect(0);
    let paid = paid.json();
    assert_eq!(paid["price_nanograms"], "7000000", "{paid}");
    let earned = sandbox.run(&["earnings", "--by", "model"]).expect(0);
    assert!(earned.stdout.contains("0.007 GRAM"), "{}", earned.stdout);
    earned.says("paid by no chain");
    daemon.terminate().expect(0);
}

#[test]
fn ctrl_c_cancels_the_job_and_its_receipt_says_so() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let client = Client::of(&daemon);
    client.sandbox.file("spin.wasm", component(SPIN));
    let arguments = [
        "submit",
        "spin.wasm",
        "--input",
        "input.txt",
        "--receipt",
        "r.cbor",
    ];
    let mut child = client.command(&daemon.address, &arguments).spawn().unwrap();
    // Its output came: it runs.
    let mut output = BufReader::new(child.stdout.take().unwrap());
    assert!(!output.fill_buf().unwrap().is_empty());
    signal("-INT", child.id());
    let ended: Ended = child.wait_with_output().unwrap().into();
    ended.expect(130).says("cancelled, verified");
    let receipt = client.run("", &["receipt", "show", "r.cbor", "--json"]);
    assert_eq!(
        receipt.expect(0).json()["consensus"]["exit"]["kind"],
        "cancelled"
    );
    daemon.terminate().expect(0);
}

#[test]
fn what_cannot_be_is_said_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let mut client = Client::of(&daemon);
    let to = daemon.address.clone();
    client
        .run(&to, &["submit", "nothing", "--input", "input.txt"])
        .expect(2)
        .says("`nothing` is no file or folder here");
    client
        .submit(&to, &["--to", "http://192.0.2.1:8899"])
        .expect(2)
        .says("not https");
    client
        .submit(&to, &["--job-id", &format!("blake3:{}", "0".repeat(64))])
        .expect(2)
        .says("was made here");
    let none = format!("blake3:{}", "1".repeat(64));
    let logs = client.run(&to, &["logs", &none, "--json"]).expect(2).json();
    assert_eq!(logs["error"]["exit_code"], 2, "{logs}");
    client.sandbox.file("ca.pem", "no certificate");
    client
        .submit(&to, &["--ca", "ca.pem"])
        .expect(2)
        .says("holds no certificate");
    client.key = "tsk_nobody".to_owned();
    client.submit(&to, &[]).expect(2).says("TUSSAH_API_KEY");
    daemon.terminate().expect(0);
    client
        .submit(&to, &[])
        .expect(5)
        .says("whether the provider runs");
    assert!(!Path::new(&client.sandbox.work().join("r.cbor")).exists());
    let _: Value = client.submit(&to, &["--json"]).expect(5).json();
}
