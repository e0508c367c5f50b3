//! The daemon's worker, as the gateway sees it: over the socket that it is started with.
#![cfg(unix)]

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    process::{Child, Stdio},
};

use tokio::net::{
    UnixStream,
    unix::{OwnedReadHalf, OwnedWriteHalf},
};
use tussah_manifest::{
    Channel, Consensus, Digest, Document, Evidence, ExitStatus, JobDescription, JobName, Limits,
    Manifest, ModuleRef, Nanograms, Nonce, Opening, Receipt, Request, RequestBody, SigningKey,
    Version,
};
use tussah_provider::wire::{
    FrameReader, FrameWriter, FromWorker, Hello, Isolation, Ready, RunDone, RunRequest, Secret,
    ToWorker, WhoseFault,
};

use crate::fixture::Sandbox;

/// Emits its input.
pub(crate) const ECHO: &str = "(func $run (param i32 i32) (result i32)
    (call $emit (local.get 0) (local.get 1) (i32.const 32)) (i32.const 0))";
/// Emits its input, then goes on for good.
pub(crate) const SPIN: &str = "(func $run (param i32 i32) (result i32)
    (call $emit (local.get 0) (local.get 1) (i32.const 32)) (loop $on (br $on)) (unreachable))";
/// Says 2,000 times, in 60,000 bytes each, how far it is.
const CHATTY: &str = "(func $run (param i32 i32) (result i32) (local $left i32)
    (local.set $left (i32.const 2000))
    (loop $on
        (call $progress (i64.const 1) (i64.const 2) (i32.const 1024) (i32.const 60000))
        (br_if $on (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.const 0))";
/// Returns its own error, of code 7.
const FAILS: &str = "(func $run (param i32 i32) (result i32) (i32.const 64))";

/// A component of the job's world around a function in text.
pub(crate) fn component(function: &str) -> Vec<u8> {
    let world = include_str!("../../runtime/tests/it/component.wat");
    wat::parse_str(world.replace(";; GUEST", function)).unwrap()
}

/// A worker of this home.
struct Worker {
    child: Child,
    reader: FrameReader<OwnedReadHalf, FromWorker>,
    writer: FrameWriter<OwnedWriteHalf, ToWorker>,
    ready: Ready,
}

impl Worker {
    async fn start(sandbox: &Sandbox, runs_max: u32) -> Self {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut command = sandbox.command(&["serve-worker", "--device", "cpu"]);
        command
            .stdin(OwnedFd::from(theirs))
            .stderr(Stdio::inherit());
        let child = command.spawn().unwrap();
        drop(command);
        let (reader, writer) = UnixStream::from_std(ours).unwrap().into_split();
        let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        let hello = Hello {
            cache_key: Secret([5; 32]),
            runs_max,
        };
        writer.write(&ToWorker::Hello(hello)).await.unwrap();
        let Some(FromWorker::Ready(ready)) = reader.read().await.unwrap() else {
            panic!("it is not ready");
        };
        Self {
            child,
            reader,
            writer,
            ready,
        }
    }

    async fn say(&mut self, message: ToWorker) {
        self.writer.write(&message).await.unwrap();
    }

    async fn hear(&mut self) -> FromWorker {
        self.reader.read().await.unwrap().expect("it goes on")
    }

    /// All until this run is over, and its end.
    async fn until_done(&mut self, run: u64) -> (Vec<FromWorker>, RunDone) {
        let mut heard = Vec::new();
        loop {
            match self.hear().await {
                FromWorker::Done(done) if done.run == run => return (heard, *done),
                other => heard.push(other),
            }
        }
    }

    /// A line of `/proc/PID/status`.
    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A job of this guest, its module in the home's store.
fn job(sandbox: &Sandbox, function: &str) -> Manifest {
    let module = component(function);
    let manifest = JobDescription {
        limits: Limits {
            fuel_max: 1_000_000_000_000,
            host_calls_max: 10_000,
            ..Limits::DEFAULT
        },
        ..JobDescription::new(JobName::new("guest").unwrap())
    }
    .with_module(ModuleRef::of(&module));
    let hex = manifest.module.digest.to_hex();
    let blob = sandbox.home().join("blobs").join(&hex[..2]).join(&hex);
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(blob, module).unwrap();
    manifest
}

fn request(run: u64, manifest: &Manifest, input: &[u8]) -> RunRequest {
    let client = SigningKey::from_bytes(&[1; 32]);
    let nonce = Nonce::from_bytes(*Digest::of(&run.to_le_bytes()).as_bytes());
    let body = RequestBody {
        version: Version::V1,
        manifest: manifest.digest(),
        module: manifest.module.digest,
        input: RequestBody::input_digest(&nonce, input),
        nonce,
        price_nanograms_max: Nanograms::ZERO,
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: client.public_key(),
    };
    RunRequest {
        run,
        request: body.sign(&client).unwrap().to_bytes().into(),
        manifest: manifest.to_bytes().into(),
        input: input.to_vec().into(),
        time_max_ms: None,
    }
}

/// Signs an account as the signer would, and checks it as a client would.
fn receipt(done: &RunDone, request: &RunRequest, output: &[u8]) -> Receipt {
    let consensus = Consensus::from_bytes(&done.consensus.0).unwrap();
    let evidence = Evidence::from_bytes(&done.evidence.0).unwrap();
    let opening = Opening::from_bytes(&done.opening.0).unwrap();
    let signed = Receipt::sign(consensus, evidence, &SigningKey::from_bytes(&[2; 32])).unwrap();
    signed.verify().unwrap();
    opening.matches(&signed).unwrap();
    assert_eq!(
        opening.request,
        Request::from_bytes(&request.request.0).unwrap()
    );
    assert_eq!(signed.consensus.output, opening.output_digest(output));
    signed
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    executor.unwrap().block_on(future)
}

#[test]
fn many_jobs_run_at_a_time_each_with_its_output_and_an_account_that_can_be_signed() {
    let sandbox = Sandbox::new();
    let manifest = job(&sandbox, ECHO);
    wait(async {
        let mut worker = Worker::start(&sandbox, 8).await;
        let requests: BTreeMap<u64, RunRequest> = (0..8)
            .map(|run| {
                (
                    run,
                    request(run, &manifest, format!("input {run}").as_bytes()),
                )
            })
            .collect();
        for request in requests.values() {
            worker.say(ToWorker::Run(request.clone())).await;
        }
        let mut outputs: BTreeMap<u64, Option<Vec<u8>>> = BTreeMap::new();
        let mut done = 0;
        while done < requests.len() {
            match worker.hear().await {
                FromWorker::Started { run } => {
                    assert_eq!(outputs.insert(run, Some(Vec::new())), None, "twice");
                }
                FromWorker::Output { run, bytes } => {
                    let output = outputs.get_mut(&run).and_then(Option::as_mut);
                    output.expect("it runs").extend(bytes.0);
                }
                FromWorker::Done(ended) => {
                    let output = outputs.insert(ended.run, None).flatten().unwrap();
                    assert_eq!(output, format!("input {}", ended.run).as_bytes());
                    let receipt = receipt(&ended, &requests[&ended.run], &output);
                    assert_eq!(receipt.consensus.exit, ExitStatus::Done);
                    done += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_run_ends_when_it_is_cancelled_or_its_time_is_up_and_others_go_on() {
    let sandbox = Sandbox::new();
    let (spin, echo) = (job(&sandbox, SPIN), job(&sandbox, ECHO));
    wait(async {
        let mut worker = Worker::start(&sandbox, 4).await;
        let endless = request(1, &spin, b"so far");
        let timed = RunRequest {
            time_max_ms: Some(1),
            ..request(2, &spin, b"")
        };
        worker.say(ToWorker::Run(endless.clone())).await;
        worker.say(ToWorker::Run(timed.clone())).await;
        let (_, done) = worker.until_done(2).await;
        assert_eq!(
            receipt(&done, &timed, b"").consensus.exit,
            ExitStatus::Cancelled
        );
        worker.say(ToWorker::Run(request(3, &echo, b""))).await;
        worker.until_done(3).await;
        // What is not there is left alone.
        worker.say(ToWorker::Cancel { run: 3 }).await;
        worker.say(ToWorker::Cancel { run: 77 }).await;
        worker.say(ToWorker::Cancel { run: 1 }).await;
        let (_, done) = worker.until_done(1).await;
        let receipt = receipt(&done, &endless, b"so far");
        assert_eq!(receipt.consensus.exit, ExitStatus::Cancelled);
    });
}

#[test]
fn what_cannot_be_run_is_refused_and_says_whose_fault_it_is() {
    let sandbox = Sandbox::new();
    let (echo, fails) = (job(&sandbox, ECHO), job(&sandbox, FAILS));
    let mut absent = echo.clone();
    absent.module = ModuleRef::of(b"not in the store");
    let mut forged = request(3, &echo, b"");
    forged.input = b"another input".to_vec().into();
    let garbage = RunRequest {
        manifest: b"garbage".to_vec().into(),
        ..request(4, &echo, b"")
    };
    wait(async {
        let mut worker = Worker::start(&sandbox, 1).await;
        for (request, fault, code, text) in [
            (
                request(2, &absent, b""),
                WhoseFault::Provider,
                2,
                "there is no blob",
            ),
            (
                forged,
                WhoseFault::Client,
                3,
                "not the one that the request was made for",
            ),
            (garbage, WhoseFault::Client, 2, "manifest"),
        ] {
            let run = request.run;
            worker.say(ToWorker::Run(request)).await;
            let FromWorker::Refused(refused) = worker.hear().await else {
                panic!("run {run} is not refused");
            };
            assert_eq!(
                (refused.run, refused.fault, refused.exit_code),
                (run, fault, code)
            );
            assert!(refused.message.contains(text), "{}", refused.message);
        }
        // An error of the job's own is no refusal: it has an account, and the job's words.
        let own = request(5, &fails, b"");
        worker.say(ToWorker::Run(own.clone())).await;
        let (_, done) = worker.until_done(5).await;
        let fault = done.fault.clone().unwrap();
        assert_eq!(
            (fault.code, fault.message.0.as_slice()),
            (Some(7), &b"no such kettle"[..])
        );
        receipt(&done, &own, b"");
    });
}

#[test]
fn a_job_that_says_much_takes_no_more_memory_than_one_that_says_little() {
    let sandbox = Sandbox::new();
    let chatty = job(&sandbox, CHATTY);
    wait(async {
        let mut worker = Worker::start(&sandbox, 1).await;
        let kilobytes = |worker: &Worker, name: &str| {
            let text = worker.status(name);
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = kilobytes(&worker, "VmRSS");
        worker.say(ToWorker::Run(request(1, &chatty, b""))).await;
        let (heard, _) = worker.until_done(1).await;
        assert_eq!(heard.len(), 2001, "the start, and every word");
        let grown = kilobytes(&worker, "VmHWM").saturating_sub(before);
        // It said 120 MB; 64 messages of it may wait, and the compiler took its share.
        assert!(grown < 80_000, "{grown} kB");
    });
}

#[test]
fn a_drained_worker_ends_its_runs_takes_no_more_and_leaves() {
    let sandbox = Sandbox::new();
    let (spin, echo) = (job(&sandbox, SPIN), job(&sandbox, ECHO));
    wait(async {
        let mut worker = Worker::start(&sandbox, 4).await;
        worker.say(ToWorker::Run(request(1, &spin, b"x"))).await;
        assert_eq!(worker.hear().await, FromWorker::Started { run: 1 });
        worker.say(ToWorker::Drain).await;
        worker.say(ToWorker::Run(request(2, &echo, b""))).await;
        worker.say(ToWorker::Cancel { run: 1 }).await;
        let (heard, done) = worker.until_done(1).await;
        assert_eq!(done.run, 1);
        let refused = heard.iter().any(|message| match message {
            FromWorker::Refused(refused) => refused.run == 2,
            _ => false,
        });
        assert!(refused, "{heard:?}");
        assert_eq!(worker.reader.read().await.unwrap(), None);
        assert_eq!(worker.child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_worker_without_its_gateway_ends_whatever_runs() {
    let sandbox = Sandbox::new();
    let spin = job(&sandbox, SPIN);
    wait(async {
        let mut worker = Worker::start(&sandbox, 1).await;
        worker.say(ToWorker::Run(request(1, &spin, b"x"))).await;
        assert_eq!(worker.hear().await, FromWorker::Started { run: 1 });
        worker.writer.close().await.unwrap();
        assert_eq!(worker.child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_worker_is_confined_before_it_is_ready() {
    let sandbox = Sandbox::new();
    wait(async {
        let worker = Worker::start(&sandbox, 1).await;
        if !matches!(worker.ready.isolation, Isolation::Full { .. }) {
            let required = std::env::var_os("REQUIRE_ISOLATION").is_some_and(|value| value == "1");
            assert!(!required, "{:?}", worker.ready.isolation);
            println!(
                "skipped: this kernel cannot isolate: {:?}",
                worker.ready.isolation
            );
            return;
        }
        assert_eq!(worker.status("NoNewPrivs"), "1");
        assert_eq!(worker.status("Seccomp"), "2");
    });
}

#[test]
fn what_was_started_by_hand_says_who_starts_it() {
    let sandbox = Sandbox::new();
    for command in ["serve-worker", "serve-signer"] {
        let ended = sandbox.run(&[command]).expect(2);
        ended.says("started by `tussah serve`");
    }
    let help = sandbox.run(&["--help"]).expect(0).stdout;
    assert!(!help.contains("serve-"), "{help}");
}
