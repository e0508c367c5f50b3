//! `tussah serve` from end to end: the binary, its three processes, HTTP on loopback.
#![cfg(unix)]

mod hostile;
mod kill;
mod money;
mod page;
mod paid;
mod secure;
mod settings;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    fixture::{Ended, Sandbox},
    worker::{ECHO, SPIN, component},
};

/// A daemon of this home, on ports that it chose.
pub(crate) struct Daemon {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    pub(crate) address: String,
    pub(crate) health: String,
    pub(crate) key: String,
}

/// What was answered.
pub(crate) struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Offers a guest under a name.
pub(crate) fn deploy(sandbox: &Sandbox, name: &str, function: &str) {
    let module = sandbox.file(&format!("{name}.wasm"), component(function));
    let module = module.to_str().unwrap();
    let deployed = sandbox.run(&["deploy", module, "--as", name, "--shape", "raw", "--json"]);
    assert_eq!(deployed.expect(0).json()["name"], name);
}

impl Daemon {
    pub(crate) fn start(sandbox: &Sandbox, name: &str) -> Self {
        Self::start_with(sandbox, name, &[])
    }

    /// With more options.
    pub(crate) fn start_with(sandbox: &Sandbox, name: &str, more: &[&str]) -> Self {
        let added = sandbox
            .run(&["serve", "key", "add", name, "--account", "shop", "--json"])
            .expect(0);
        let key = added.json()["key"].as_str().unwrap().to_owned();
        let any = "127.0.0.1:0";
        let listen = ["serve", "--listen", any, "--metrics-listen", any];
        let arguments = [&listen[..], &["--device", "cpu"], more].concat();
        let mut child = sandbox
            .command(&arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("serving on") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let mut places = line.split("://").skip(1);
        let mut place = || {
            let text = places.next().unwrap();
            text.trim_end_matches(|c: char| !c.is_ascii_digit())
                .split(',')
                .next()
                .unwrap()
                .to_owned()
        };
        Self {
            child,
            stderr,
            address: place(),
            health: place(),
            key,
        }
    }

    /// Sends a request, and leaves the answer to be read.
    fn send(&self, method: &str, path: &str, body: &str, accept: &str) -> BufReader<TcpStream> {
        self.send_to(&self.address, method, path, body, accept)
    }

    fn send_to(
        &self,
        address: &str,
        method: &str,
        path: &str,
        body: &str,
        accept: &str,
    ) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            address,
            self.key,
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str, accept: &str) -> Answer {
        Self::read(self.send(method, path, body, accept))
    }

    /// Asks another port of it than clients do.
    fn ask_at(&self, address: &str, path: &str) -> Answer {
        Self::read(self.send_to(address, "GET", path, "", "*/*"))
    }

    fn read(mut stream: BufReader<TcpStream>) -> Answer {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let at = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8_lossy(&answer[..at]);
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            body: answer[at + 4..].to_vec(),
        }
    }

    pub(crate) fn submit(&self, body: &Value) -> String {
        let answer = self.ask("POST", "/v1/jobs", &body.to_string(), "*/*");
        answer.expect(202).json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "application/json")
    }

    /// What `/readyz` says.
    pub(crate) fn health(&self) -> Value {
        let mut stream = TcpStream::connect(&self.health).unwrap();
        write!(
            stream,
            "GET /readyz HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.health
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// The job's events until there are no more: it has ended.
    pub(crate) fn wait_for(&self, job: &str) -> Value {
        self.get(&format!("/v1/jobs/{job}/events")).expect(200);
        let view = self.get(&format!("/v1/jobs/{job}")).expect(200).json();
        assert_eq!(view["ended"], true, "{view}");
        view
    }

    /// What `tussah receipt` makes of the job's receipt.
    pub(crate) fn verified(&self, sandbox: &Sandbox, job: &str) -> Value {
        let path = format!("/v1/jobs/{job}/receipt");
        let receipt = self
            .ask("GET", &path, "", "application/octet-stream")
            .expect(200);
        sandbox.file("r.cbor", receipt.body);
        sandbox.run(&["receipt", "verify", "r.cbor"]).expect(0);
        sandbox
            .run(&["receipt", "show", "r.cbor", "--json"])
            .expect(0)
            .json()
    }

    /// Returns once the job has said something: it runs.
    pub(crate) fn heard_of(&self, job: &str) {
        let path = format!("/v1/jobs/{job}/events");
        let mut events = self.send("GET", &path, "", "text/event-stream");
        let mut heard = String::new();
        while !heard.contains("event: output") {
            assert_ne!(events.read_line(&mut heard).unwrap(), 0, "{heard}");
        }
    }

    /// The process that runs this hidden command.
    pub(crate) fn process(&self, command: &str) -> Option<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let of_threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let all = of_threads
            .flatten()
            .map(|thread| thread.path().join("children"));
        let listed = all
            .chain([children.into()])
            .filter_map(|path| fs::read_to_string(path).ok());
        let pids: Vec<u32> = listed
            .flat_map(|text| {
                text.split(' ')
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        pids.into_iter().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(command)
        })
    }

    /// SIGHUP to each of its processes, as to a service's whole group.
    pub(crate) fn hang_up(&self) {
        let children = ["serve-worker", "serve-signer"].map(|command| self.process(command));
        for process in children.into_iter().flatten().chain([self.child.id()]) {
            signal("-HUP", process);
        }
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn terminate(mut self) -> Ended {
        signal("-TERM", self.child.id());
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Ended {
            code: self.child.wait().unwrap().code().unwrap_or(128),
            stdout: String::new(),
            stderr,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(signal: &str, process: u32) {
    let sent = Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_job_by_http_has_its_output_and_a_receipt_that_anyone_can_verify() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    let mut daemon = Daemon::start(&sandbox, "alice");
    let job = daemon.submit(&json!({"model": "echo", "input": "from end to end"}));
    let view = daemon.wait_for(&job);
    assert_eq!(view["status"], "done", "{view}");
    let output = daemon.get(&format!("/v1/jobs/{job}/output")).expect(200);
    assert_eq!(output.body, b"from end to end");
    let receipt = daemon.verified(&sandbox, &job);
    assert_eq!(receipt["consensus"]["job"], job.as_str());
    let provider = sandbox.run(&["provider", "key"]).expect(0).stdout;
    assert!(
        provider.contains(receipt["provider_key"].as_str().unwrap()),
        "{provider}"
    );

    // The home has one daemon, and keys that were removed open nothing.
    sandbox
        .run(&["serve"])
        .expect(5)
        .says("another `tussah serve`");
    sandbox.run(&["serve", "key", "remove", "alice"]).expect(0);
    daemon.get("/v1/models").expect(401);
    daemon.address.clone_from(&daemon.health);
    let ready = daemon.get("/readyz").expect(200).json();
    assert_eq!(ready["ready"], true);
    assert!(
        ready["isolation"].as_str().unwrap().contains("isolated"),
        "{ready}"
    );
    daemon.terminate().expect(0);
}

#[test]
fn a_worker_that_is_killed_ends_its_job_honestly_and_another_one_goes_on() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "echo", ECHO);
    deploy(&sandbox, "spin", SPIN);
    let daemon = Daemon::start(&sandbox, "alice");
    let job = daemon.submit(&json!({"model": "spin", "input": "x"}));
    daemon.heard_of(&job);
    let worker = daemon.process("serve-worker");
    signal("-KILL", worker.expect("there is a worker"));
    assert_eq!(daemon.wait_for(&job)["status"], "host-failure");
    let receipt = daemon.verified(&sandbox, &job);
    assert_eq!(receipt["consensus"]["exit"]["kind"], "host-failure");
    assert_eq!(receipt["consensus"]["price_nanograms"], "0");

    let next = daemon.submit(&json!({"model": "echo", "input": "again"}));
    assert_eq!(daemon.wait_for(&next)["status"], "done");
    daemon.terminate().expect(0).says("another worker starts");
}

#[test]
fn sigterm_lets_what_runs_end_and_the_ledger_keeps_it() {
    let sandbox = Sandbox::new();
    deploy(&sandbox, "spin", SPIN);
    // Ten run at once: one account has one place less than there are.
    let mut daemon = Daemon::start_with(&sandbox, "alice", &["--jobs-max", "11"]);
    let jobs: Vec<String> = (0..10)
        .map(|at| {
            let input = format!("job {at}");
            daemon.submit(&json!({"model": "spin", "input": input}))
        })
        .collect();
    for job in &jobs {
        daemon.heard_of(job);
    }
    assert_eq!(daemon.health()["running"], 10);
    signal("-TERM", daemon.child.id());
    let mut said = String::new();
    while !said.contains("those that run are waited for") {
        assert_ne!(daemon.stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    // They would go on for good; whoever asked for them still reaches them.
    for job in &jobs {
        let path = format!("/v1/jobs/{job}/cancel");
        daemon.ask("POST", &path, "", "*/*").expect(202);
    }
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    drop(daemon);

    let daemon = Daemon::start(&sandbox, "bob");
    let keys = sandbox
        .run(&["serve", "key", "list", "--json"])
        .expect(0)
        .json();
    assert_eq!(keys.as_array().unwrap().len(), 2);
    for job in &jobs {
        let view = daemon.get(&format!("/v1/jobs/{job}")).expect(200).json();
        assert_eq!(view["status"], "cancelled", "{view}");
        daemon.verified(&sandbox, job);
    }
    // Nothing runs again.
    let view = daemon.health();
    assert_eq!((&view["waiting"], &view["running"]), (&json!(0), &json!(0)));
    daemon.terminate().expect(0);
}
