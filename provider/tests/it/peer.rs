//! The far ends of the gateway's sockets, as small as they can be: a worker that does what its
//! job's input says instead of running a module, and the real signer.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use tussah_manifest::{Digest, Document as _, Domain, ExitStatus, Manifest, Request};
use tussah_provider::gateway::{Gateway, GatewayConfig, SignerLink, WorkerError};
use tussah_provider::ledger::{Ledger, LedgerView};
use tussah_provider::signer::Signer;
use tussah_provider::wire::{
    CHUNK_BYTES_MAX, Content, FrameReader, FrameWriter, FromWorker, GuestFault, Isolation, Ready,
    RunDone, RunRefused, RunRequest, Secret, ToWorker, WhoseFault,
};

use crate::fixture::*;

/// The signer itself, over the same ledger.
async fn signer(ledger: &std::path::Path) -> SignerLink {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let view = LedgerView::open(ledger).unwrap();
    let signer = Signer::new(provider_key(), client_key(), view);
    // What a network would have signed is more than this.
    let signer = signer.with_claims(|_, _, _, receipt, key| Some(key.sign(receipt)));
    let (read, write) = theirs.into_split();
    tokio::spawn(signer.serve(read, write));
    SignerLink::connect(ours).await.unwrap()
}

/// A gateway over this folder, with a signer and without a worker.
pub(crate) async fn gateway(
    folder: &std::path::Path,
    change: impl FnOnce(&mut GatewayConfig),
) -> Gateway {
    let blobs = folder.join("blobs");
    let digest = Digest::of(MODULE).to_hex();
    std::fs::create_dir_all(blobs.join(&digest[..2])).unwrap();
    std::fs::write(blobs.join(&digest[..2]).join(&digest), MODULE).unwrap();
    let mut config = GatewayConfig::new(blobs, Secret([3; 32]));
    change(&mut config);
    let path = folder.join("ledger.sqlite");
    let ledger = Arc::new(Ledger::open(&path).unwrap());
    Gateway::new(config, ledger, signer(&path).await).unwrap()
}

/// Has a worker run the gateway's jobs; its end is what attaching it came to.
pub(crate) fn attach(gateway: &Gateway) -> tokio::task::JoinHandle<Result<(), WorkerError>> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(worker(theirs));
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.attach_worker(ours).await })
}

type Writer = Arc<Mutex<FrameWriter<OwnedWriteHalf, FromWorker>>>;

async fn worker(stream: UnixStream) {
    let (read, write) = stream.into_split();
    let mut reader = FrameReader::<OwnedReadHalf, ToWorker>::new(read);
    let writer: Writer = Arc::new(Mutex::new(FrameWriter::new(write)));
    let ready = Ready {
        device: "a test".to_owned(),
        memory_bytes: None,
        isolation: Isolation::None {
            reason: "a test".to_owned(),
        },
        profile: Content(profile(tussah_manifest::Limits::DEFAULT).to_bytes()),
        evidence: Content(evidence(Digest::of(b"nothing")).to_bytes()),
    };
    let mut runs = tokio::task::JoinSet::new();
    let cancelled = tokio::sync::watch::Sender::new(Vec::new());
    loop {
        match reader.read().await {
            Ok(Some(ToWorker::Hello(_))) => {
                let ready = FromWorker::Ready(ready.clone());
                writer.lock().await.write(&ready).await.unwrap();
            }
            Ok(Some(ToWorker::Run(run))) => {
                match &run.input.0[..] {
                    b"die early" => break,
                    b"hang" => return hang(run.run, &writer).await,
                    b"never begins" => continue,
                    _ => {}
                }
                let (writer, cancelled) = (Arc::clone(&writer), cancelled.subscribe());
                runs.spawn(async move { run_one(run, &writer, cancelled).await });
            }
            Ok(Some(ToWorker::Ping)) => say(&writer, FromWorker::Pong).await,
            Ok(Some(ToWorker::Cancel { run })) => cancelled.send_modify(|all| all.push(run)),
            Ok(Some(ToWorker::Drain) | None) | Err(_) => break,
        }
    }
}

/// Begins a run, and says and hears nothing from then on.
async fn hang(run: u64, writer: &Writer) {
    say(writer, FromWorker::Started { run }).await;
    std::future::pending().await
}

async fn say(writer: &Writer, message: FromWorker) {
    // A gateway that is gone needs no answer.
    let _ = writer.lock().await.write(&message).await;
}

/// Does what the input says: the first word is the trick, all of it in capitals the output.
async fn run_one(
    run: RunRequest,
    writer: &Writer,
    mut cancelled: tokio::sync::watch::Receiver<Vec<u64>>,
) {
    let request = Request::from_bytes(&run.request.0).unwrap();
    let manifest = Manifest::from_bytes(&run.manifest.0).unwrap();
    let number = run.run;
    let input = String::from_utf8_lossy(&run.input.0).into_owned();
    if input == "refuse" {
        let refused = RunRefused {
            run: number,
            fault: WhoseFault::Developer,
            exit_code: 2,
            message: "the module is none".to_owned(),
        };
        return say(writer, FromWorker::Refused(refused)).await;
    }
    say(writer, FromWorker::Started { run: number }).await;
    let lines = answers(&manifest, &input);
    for line in &lines {
        let bytes = Content(line.clone());
        say(writer, FromWorker::Output { run: number, bytes }).await;
    }
    if input == "stuck" {
        return std::future::pending().await;
    }
    let output = lines.concat();
    if input == "die" {
        // All runs go with the worker.
        let mut writer = writer.lock().await;
        writer.close().await.unwrap();
        return std::future::pending().await;
    }
    let salt = request.body.nonce.derive_salt();
    let mut fault = None;
    let mut exit = ExitStatus::Done;
    if input.starts_with("wait") || input.contains("wait here") {
        let mine = |all: &Vec<u64>| all.contains(&number);
        let limit = Duration::from_millis(run.time_max_ms.unwrap_or(60_000));
        // A worker ends a run for its own reasons in the same way as for a client's.
        let _ = tokio::time::timeout(limit, cancelled.wait_for(mine)).await;
        exit = ExitStatus::Cancelled;
        fault = Some((None, "it was ended".to_owned()));
    } else if input.contains("error") {
        let message = "no good input".to_owned();
        // A number behind the word is the code.
        let number = input.split_once("error ").map_or("", |(_, number)| number);
        let digits = number.chars().take_while(char::is_ascii_digit);
        let code = digits.collect::<String>().parse().unwrap_or(1);
        exit = ExitStatus::JobError {
            code,
            message: Digest::salted(&salt, Domain::JobError, message.as_bytes()),
        };
        fault = Some((Some(code), message));
    }
    let said = if input == "lie" {
        b"another"
    } else {
        &output[..]
    };
    let (consensus, evidence, opening) = account_of(&request, &manifest, said, exit);
    let done = RunDone {
        run: number,
        consensus: Content(consensus.to_bytes()),
        evidence: Content(evidence.to_bytes()),
        opening: Content(opening.to_bytes()),
        fault: fault.map(|(code, message)| GuestFault {
            code,
            message: Content(message.into_bytes()),
        }),
    };
    say(writer, FromWorker::Done(Box::new(done))).await;
}

/// The output of a job, in the pieces in which it comes.
fn answers(manifest: &Manifest, input: &str) -> Vec<Vec<u8>> {
    let lines: &[&str] = match manifest.job.name.as_str() {
        "chat" if input.contains("\"tools\"") => &[
            "{\"text\":\"Let me see.\"}\n{\"tool_call\":{\"name\":\"weather\"}}\n",
            "{\"tool_call\":{\"arguments\":\"{\\\"place\\\":\"}}\n",
            "{\"tool_call\":{\"arguments\":\"\\\"Rome\\\"}\"}}\n",
            "{\"finish\":\"tool_calls\",\"prompt_tokens\":5,\"completion_tokens\":3}\n",
        ],
        "chat" | "completions" if input.contains("\"logprobs\"") => &[
            "{\"text\":\"Hé\",\"logprobs\":[{\"token\":\"Hé\",\"logprob\":-0.5,",
            "\"top\":[{\"token\":\"Ho\",\"logprob\":-0.25}]}]}\n",
            "{\"text\":\"llo\",\"logprobs\":[{\"token\":\"llo\",\"logprob\":-1.5,\"top\":[]}]}\n",
            "{\"finish\":\"length\",\"prompt_tokens\":5,\"completion_tokens\":2}\n",
        ],
        "chat" | "completions" => &[
            "{\"text\":\"Hello\"}\n{\"text\":\", \"}\n{\"te",
            "xt\":\"wörld\"}\n",
            "{\"finish\":\"stop\",\"prompt_tokens\":5,\"completion_tokens\":3}\n",
        ],
        // 1.0, -2.0 and 0.5, 3.0 as little-endian floats.
        "embeddings" => &[
            "{\"embedding\":\"AACAPwAAAMA=\"}\n",
            "{\"embedding\":\"AAAAPwAAQEA=\"}\n",
            "{\"finish\":\"stop\",\"prompt_tokens\":7}\n",
        ],
        "nonsense" => &["this is no JSON\n"],
        _ if input.len() > CHUNK_BYTES_MAX => {
            let output = input.to_uppercase().into_bytes();
            return output.chunks(CHUNK_BYTES_MAX).map(<[u8]>::to_vec).collect();
        }
        _ => return vec![input.to_uppercase().into_bytes()],
    };
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}
