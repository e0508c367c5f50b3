//! One run of the worker: documents in, events and an account out.
//!
//! What a run does wrong is that run's end alone: a panic of ours is caught and told as a lost run.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::mpsc;
use tussah_manifest::{Digest, Document, EncodingError, Manifest, Request};
use tussah_provider::wire::{
    CHUNK_BYTES_MAX, Content, FromWorker, GuestFault, RunDone, RunRefused, RunRequest, WhoseFault,
};
use tussah_runtime::{
    Account, Cancel, Event, Events, Fault, GuestError, PrepareError, Run, RunError, SubmittedJob,
    run_unsigned,
};

use super::Shared;
use crate::{
    device::Need,
    engine::LoadError,
    exit_code::Exit,
    failure::Failure,
    road::{self, MEMORY_BYTES_MAX},
};

/// Runs a job, and says how it ended after all else that is said of it.
pub(super) async fn to_its_end(
    shared: Arc<Shared>,
    request: RunRequest,
    cancel: Cancel,
    ended: mpsc::Sender<u64>,
) {
    let (run, outbox) = (request.run, shared.outbox.clone());
    let forward = Arc::new(Forward {
        run,
        outbox: outbox.clone(),
        over: RwLock::new(false),
    });
    // A task of its own, since a task's panic ends that task alone.
    let events = Arc::clone(&forward);
    let task = tokio::spawn(async move { account(&shared, request, events, cancel).await });
    let ended_so = task.await;
    close(forward).await;
    let last = match ended_so {
        Ok(Ok(account)) => FromWorker::Done(Box::new(done(run, account))),
        Ok(Err(refused)) => FromWorker::Refused(RunRefused {
            run,
            fault: refused.fault,
            exit_code: refused.failure.exit.number(),
            message: refused.failure.chain().join(": "),
        }),
        Err(_) => FromWorker::Lost {
            run,
            message: "the worker failed within the run".to_owned(),
        },
    };
    // If nobody takes it, nobody is left who could want it.
    let Ok(place) = outbox.reserve().await else {
        return;
    };
    // Before the gateway hears of it: its next run may take this one's place at once. A place in
    // the outbox outlives a drain.
    let _ = ended.send(run).await;
    place.send(last);
}

/// Why nothing was run.
struct Refused {
    fault: WhoseFault,
    failure: Failure,
}

impl Refused {
    fn document(error: EncodingError) -> Self {
        Self {
            fault: WhoseFault::Client,
            failure: Failure::usage(error),
        }
    }

    /// Something of this machine's.
    fn here(failure: impl Into<Failure>) -> Self {
        Self {
            fault: WhoseFault::Provider,
            failure: failure.into(),
        }
    }

    /// By its client while a model was waited for: nobody failed.
    fn cancelled() -> Self {
        Self {
            fault: WhoseFault::Client,
            failure: Failure::new(Exit::INTERRUPTED, "cancelled before it ran"),
        }
    }

    /// `is_cancelled`: its client wanted no more of it by then, so that a wait that was given up is nobody's
    /// failure. What failed by itself is told as that.
    fn run(error: RunError, is_cancelled: bool) -> Self {
        if is_cancelled && gave_up_waiting(&error) {
            return Self::cancelled();
        }
        let fault = match error.fault() {
            Fault::Developer => WhoseFault::Developer,
            Fault::Client => WhoseFault::Client,
            Fault::Provider => WhoseFault::Provider,
        };
        Self {
            fault,
            failure: road::run_failure(error),
        }
    }
}

/// Whether nothing is wrong but that nobody waits any more.
fn gave_up_waiting(error: &RunError) -> bool {
    let RunError::Prepare(PrepareError::Model { reason, .. }) = error else {
        return false;
    };
    let reason = reason.reason.downcast_ref();
    matches!(reason, Some(LoadError::Left(_)))
}

async fn account(
    shared: &Arc<Shared>,
    request: RunRequest,
    events: Arc<Forward>,
    cancel: Cancel,
) -> Result<Account, Refused> {
    let manifest = Manifest::from_bytes(&request.manifest.0).map_err(Refused::document)?;
    let signed = Request::from_bytes(&request.request.0).map_err(Refused::document)?;
    let module = module(shared, &manifest).await?;
    let need = Need {
        request: manifest.job.device,
        models: !manifest.job.models.is_empty(),
    };
    let placement = shared.devices.place(need, &shared.ui);
    let placement = placement.map_err(Refused::here)?;
    let run = Run {
        models: Arc::new(shared.models.placed(placement, cancel.token())),
        events,
        cancel: cancel.clone(),
    };
    let job = SubmittedJob {
        request: signed,
        manifest,
        module,
        input: request.input.0,
    };
    let running = run_unsigned(&shared.runtime, job, run);
    let mut by_client = None;
    let account = match request.time_max_ms.map(Duration::from_millis) {
        None => running.await,
        Some(time_max) => {
            tokio::pin!(running);
            tokio::select! {
                account = &mut running => account,
                () = tokio::time::sleep(time_max) => {
                    by_client = Some(cancel.token().is_cancelled());
                    cancel.cancel();
                    running.await
                }
            }
        }
    };
    let by_client = by_client.unwrap_or_else(|| cancel.token().is_cancelled());
    account.map_err(|error| Refused::run(error, by_client))
}

/// Small modules that were read last, the latest first: a job that comes often is not read from the
/// disk each time. What comes from here is hashed again, as what comes from there is.
#[derive(Default)]
pub(super) struct Modules(Mutex<VecDeque<(Digest, Arc<Vec<u8>>)>>);

impl Modules {
    /// 16 MiB in all.
    const KEPT: usize = 16;
    const BYTES_MAX: usize = 1 << 20;

    fn get(&self, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == digest)?;
        let entry = kept.remove(at)?;
        let module = Arc::clone(&entry.1);
        kept.push_front(entry);
        Some(module)
    }

    fn put(&self, digest: Digest, module: &[u8]) {
        if module.len() <= Self::BYTES_MAX {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_front((digest, Arc::new(module.to_vec())));
            kept.truncate(Self::KEPT);
        }
    }
}

/// The module's bytes, hashed; the executor's other runs go on meanwhile.
async fn module(shared: &Arc<Shared>, manifest: &Manifest) -> Result<Vec<u8>, Refused> {
    let (blobs, digest) = (shared.blobs.clone(), manifest.module.digest);
    if let Some(module) = shared.modules.get(&digest) {
        return Ok(module.as_ref().clone());
    }
    let read = tokio::task::spawn_blocking(move || blobs.read(&digest, MEMORY_BYTES_MAX));
    match read.await {
        Ok(Ok(module)) => {
            shared.modules.put(digest, &module);
            Ok(module)
        }
        Ok(Err(error)) => Err(Refused::here(error)),
        Err(error) => Err(Refused::here(Failure::host(error))),
    }
}

fn done(run: u64, account: Account) -> RunDone {
    RunDone {
        run,
        consensus: account.consensus.to_bytes().into(),
        evidence: account.evidence.to_bytes().into(),
        opening: account.opening.to_bytes().into(),
        fault: account.outcome.error.map(guest_fault),
    }
}

fn guest_fault(error: GuestError) -> GuestFault {
    let (code, message) = match error.returned {
        Some(own) => (Some(own.code), own.message),
        None => (None, error.message),
    };
    GuestFault {
        code,
        message: message.into_bytes().into(),
    }
}

/// Passes events on. A run that says more than the gateway reads waits here, on its own thread.
struct Forward {
    run: u64,
    outbox: mpsc::Sender<FromWorker>,
    /// Whether the run is over: inference that was cut off can still say something. Read by each
    /// event while it is sent, written once.
    over: RwLock<bool>,
}

/// Lets nothing more through, and returns when nothing more is on its way.
async fn close(forward: Arc<Forward>) {
    // Nearly always nothing is on its way.
    if let Ok(mut over) = forward.over.try_write() {
        *over = true;
        return;
    }
    let close = move || *forward.over.write().unwrap_or_else(PoisonError::into_inner) = true;
    // A writer's lock waits for events that wait for the gateway.
    if let Err(error) = tokio::task::spawn_blocking(close).await {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Forward {
    fn send(&self, message: FromWorker) {
        if let Err(mpsc::error::TrySendError::Full(message)) = self.outbox.try_send(message) {
            // The thread is the run's: other runs of its executor move to another one. If the
            // writer is gone, so is the gateway, and nobody wants the message.
            let _ = tokio::task::block_in_place(|| self.outbox.blocking_send(message));
        }
    }

    fn chunks(&self, bytes: &[u8], message: impl Fn(Content) -> FromWorker) {
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            self.send(message(chunk.to_vec().into()));
        }
    }
}

impl Events for Forward {
    fn event(&self, event: Event<'_>) {
        let run = self.run;
        let over = self.over.read().unwrap_or_else(PoisonError::into_inner);
        if *over {
            return;
        }
        match event {
            Event::Started => self.send(FromWorker::Started { run }),
            Event::Output(bytes) => self.chunks(bytes, |bytes| FromWorker::Output { run, bytes }),
            Event::Log(bytes) => self.chunks(bytes, |bytes| FromWorker::Log { run, bytes }),
            Event::Tokens { prompt, generated } => self.send(FromWorker::Tokens {
                run,
                prompt,
                generated,
            }),
            Event::Progress { done, total, note } => self.send(FromWorker::Progress {
                run,
                done,
                total,
                note: note.as_bytes().to_vec().into(),
            }),
            Event::Warning(text) => self.send(FromWorker::Warning {
                text: text.to_owned(),
            }),
            // Compiling and loading are this host's own affairs.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tussah_runtime::ModelSourceError;

    use super::*;
    use crate::engine::Left;

    fn refused(reason: LoadError, is_cancelled: bool) -> (WhoseFault, u8, String) {
        let error = PrepareError::Model {
            name: "tiny".to_owned(),
            reason: ModelSourceError {
                digest: Digest::of(b"a model"),
                reason: reason.into(),
            },
        };
        let Refused { fault, failure } = Refused::run(error.into(), is_cancelled);
        (fault, failure.exit.number(), failure.chain().join(": "))
    }

    #[test]
    fn a_wait_that_its_client_gave_up_is_not_told_as_the_providers_failure() {
        let (fault, _, said) = refused(Left.into(), false);
        assert_eq!(fault, WhoseFault::Provider, "{said}");
        let cancelled = "cancelled before it ran".to_owned();
        assert_eq!(
            refused(Left.into(), true),
            (WhoseFault::Client, 130, cancelled)
        );
    }

    #[test]
    fn what_failed_by_itself_is_told_though_its_client_has_cancelled() {
        let (fault, exit, said) = refused(LoadError::Graph, true);
        assert_eq!((fault, exit), (WhoseFault::Provider, 2), "{said}");
        assert!(said.contains("a graph of tensors"), "{said}");
    }
}
