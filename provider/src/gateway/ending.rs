//! Endings: from what a worker says of a run to a receipt on the disk.
//!
//! In: a run's account, unsigned, and the output that was streamed. Out: the signed end in the
//! ledger, and after it the news to whoever listens. An account that does not fit its job, its
//! output or its opening is never signed; an end that the ledger cannot take yet is kept and tried
//! again, and never told before.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tussah_manifest::{
    Channel, Consensus, Digest, Document as _, Domain, EncodingError, Evidence, ExitStatus,
    Nanograms, Opening, Receipt,
};

use super::feed::JobEnd;
use super::{Gateway, Live, SignerError, now_unix_ms};
use crate::ledger::{Ending, Fault, LedgerError};
use crate::lost::{self, Loss};
use crate::wire::{Denial, Ready, RunDone, WhoseFault};
use crate::with_causes;

/// How long after the first failure an end is written again, and the longest: twice as long each
/// time.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));

/// How a job ended, before anybody signed it.
pub(super) enum Unsigned {
    /// There is nothing to sign.
    NotRun(Ending),
    /// A run's account.
    Run(Box<Account>),
}

/// A run's account, without its price.
pub(super) struct Account {
    consensus: Consensus,
    evidence: Evidence,
    opening: Vec<u8>,
    output: Vec<u8>,
    log: Vec<u8>,
    fault: Option<Fault>,
    /// Whether anything ran: else there is nothing to pay for.
    ran: bool,
}

/// Why an end could not be written down.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error("the receipt could not be signed")]
    Signer(#[from] SignerError),
    #[error("the signer signed another account")]
    OtherAccount,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("no account can be made of it")]
    Account(#[from] EncodingError),
}

impl Unsigned {
    /// A worker's account, if it fits the job and what was streamed of it.
    pub(super) fn of_worker(live: &Live, done: RunDone, log: &[u8]) -> Result<Self, String> {
        let text = |error: EncodingError| error.to_string();
        let consensus = Consensus::from_bytes(&done.consensus.0).map_err(text)?;
        let evidence = Evidence::from_bytes(&done.evidence.0).map_err(text)?;
        let opening = Opening::from_bytes(&done.opening.0).map_err(text)?;
        let output = live.feed.output_so_far();
        let fault = done.fault.map(|fault| Fault {
            code: fault.code,
            message: String::from_utf8_lossy(&fault.message.0).into_owned(),
        });
        let body = &live.request.body;
        let salt = body.nonce.derive_salt();
        let message_fits = match &consensus.exit {
            ExitStatus::JobError { code, message } => fault.as_ref().is_some_and(|fault| {
                let bytes = fault.message.as_bytes();
                fault.code == Some(*code)
                    && Digest::salted(&salt, Domain::JobError, bytes) == *message
            }),
            _ => true,
        };
        for (fits, what) in [
            (consensus.job == live.id, "job"),
            (consensus.module == body.module, "module"),
            (consensus.manifest == body.manifest, "manifest"),
            (consensus.models == live.manifest.model_digests(), "models"),
            (consensus.channel == body.channel, "channel"),
            (consensus.price_nanograms == Nanograms::ZERO, "price"),
            (opening.request == live.request, "request"),
            (opening.salt == salt, "salt"),
            (opening.profile.digest() == consensus.profile, "profile"),
            (opening.profile.limits == live.manifest.job.limits, "limits"),
            (opening.transcript() == evidence.transcript, "transcript"),
            (opening.output_digest(&output) == consensus.output, "output"),
            (message_fits, "error"),
        ] {
            if !fits {
                return Err(format!(
                    "the account of a run has another `{what}` than its job"
                ));
            }
        }
        Ok(Self::Run(Box::new(Account {
            consensus,
            evidence,
            opening: done.opening.0,
            output,
            log: log.to_vec(),
            fault,
            ran: true,
        })))
    }

    /// The account of a run that was lost: it failed, and used nothing that can be shown.
    pub(super) fn of_lost_run(
        live: &Live,
        worker: &Ready,
        log: Vec<u8>,
        wall: Duration,
        message: &str,
    ) -> Result<Self, EncodingError> {
        let output = live.feed.output_so_far();
        let request = live.request.clone();
        let account = lost::account(request, &live.manifest, worker, &output, Loss::Host)?;
        let mut evidence = account.evidence;
        evidence.transcript = account.opening.transcript();
        evidence.wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self::Run(Box::new(Account {
            consensus: account.consensus,
            evidence,
            opening: account.opening.to_bytes(),
            output,
            log,
            fault: Some(Fault {
                code: None,
                message: message.to_owned(),
            }),
            ran: true,
        })))
    }

    /// The account of a job that ended before it ran, where there has to be one.
    fn of_waiting(live: &Live, ending: Ending) -> Result<Self, EncodingError> {
        let Ending::NotRun { fault, message, .. } = ending else {
            return Ok(Self::NotRun(ending));
        };
        let exit = match fault {
            WhoseFault::Provider => ExitStatus::HostFailure,
            WhoseFault::Developer | WhoseFault::Client => ExitStatus::Cancelled,
        };
        let account = lost::never_ran(live.request.clone(), &live.manifest, exit)?;
        Ok(Self::Run(Box::new(Account {
            consensus: account.consensus,
            evidence: account.evidence,
            opening: account.opening.to_bytes(),
            output: Vec::new(),
            log: Vec::new(),
            fault: Some(Fault {
                code: None,
                message,
            }),
            ran: false,
        })))
    }
}

impl Gateway {
    /// Signs, writes down and tells how a job ended, beside whatever else goes on.
    pub(super) fn spawn_end(&self, live: Arc<Live>, unsigned: Unsigned) {
        let ending = self.about_to_end();
        let gateway = self.clone();
        tokio::spawn(async move {
            let end = match gateway.end(&live, unsigned).await {
                Ok(end) => end,
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::error!(job = %live.id, error, "the end of a job is not recorded");
                    gateway.inner.metrics.unrecorded.add(1);
                    JobEnd::Unrecorded
                }
            };
            // First the ledger, then the map, then the news: whoever looks finds it in one.
            gateway.lock().live.remove(&live.id);
            let end = Arc::new(end);
            if matches!(*end, JobEnd::Receipt { .. }) {
                live.feed.end_in(&gateway.inner.ledger, live.id, end);
            } else {
                live.feed.end(end);
            }
            drop(ending);
        });
    }

    async fn end(&self, live: &Live, unsigned: Unsigned) -> Result<JobEnd, EndError> {
        let is_on_credit = live.request.body.channel == Channel::Local;
        let unsigned = match unsigned {
            // At a place in a channel only a receipt can stand.
            Unsigned::NotRun(ending) if !is_on_credit => Unsigned::of_waiting(live, ending)?,
            unsigned => unsigned,
        };
        let ending = match unsigned {
            Unsigned::NotRun(ending) => ending,
            Unsigned::Run(account) => {
                let receipt = Box::new(self.sign(live, &account).await?);
                Ending::Receipt {
                    receipt,
                    opening: account.opening,
                    output: account.output,
                    log: account.log,
                    fault: account.fault,
                }
            }
        };
        let ending = Arc::new(ending);
        let now = now_unix_ms();
        self.record(live, &ending, now).await?;
        let metrics = &self.inner.metrics;
        metrics.job_time.record(live.since.elapsed());
        if !is_on_credit {
            self.settle(&live.id).await;
        }
        Ok(match &*ending {
            Ending::NotRun { fault, message, .. } => {
                metrics.not_run.add(1);
                JobEnd::NotRun {
                    fault: *fault,
                    message: message.clone(),
                }
            }
            Ending::Receipt {
                receipt,
                fault,
                output,
                ..
            } => {
                match receipt.consensus.exit {
                    ExitStatus::Done => metrics.done.add(1),
                    _ => metrics.failed.add(1),
                }
                let price = receipt.consensus.price_nanograms;
                metrics.earned_nanograms.add(price.get());
                JobEnd::Receipt {
                    receipt: receipt.clone(),
                    fault: fault.clone(),
                    finished_unix_ms: Some(now),
                    output_bytes: u64::try_from(output.len()).unwrap_or(u64::MAX),
                }
            }
        })
    }

    /// Writes an end down, however long the ledger cannot be written: until then the job has not
    /// ended, and no other is started.
    async fn record(&self, live: &Live, ending: &Arc<Ending>, now: u64) -> Result<(), EndError> {
        let mut retry = Retry::new(self);
        loop {
            let finished = (self.inner.ledger).finish(live.id, Arc::clone(ending), now);
            match finished.await {
                Err(LedgerError::Store(error)) if error.may_pass() => {
                    retry.wait(live, &error).await;
                }
                // A commit that failed may have been made all the same.
                Err(LedgerError::Ended(_))
                    if retry.is_stuck() && self.is_recorded(live, ending)? =>
                {
                    return Ok(());
                }
                result => return Ok(result?),
            }
        }
    }

    /// Whether the ledger has just this end.
    fn is_recorded(&self, live: &Live, ending: &Ending) -> Result<bool, LedgerError> {
        let job = self.inner.ledger.job(&live.id)?;
        let found = job.and_then(|job| job.receipt);
        Ok(match ending {
            Ending::Receipt { receipt, .. } => found.as_ref() == Some(receipt),
            Ending::NotRun { .. } => found.is_none(),
        })
    }

    async fn sign(&self, live: &Live, account: &Account) -> Result<Receipt, EndError> {
        let mut consensus = account.consensus.clone();
        let prices = &self.inner.config.prices;
        // What was set aside at the prices of then is the most, whatever the prices are now. What a
        // deadline cut off was streamed until then: it costs its work, or short deadlines one after
        // the other would be work for nothing.
        consensus.price_nanograms = match account.ran {
            true => prices.price_of(&consensus, live.reserve),
            false => Nanograms::ZERO,
        };
        let signer = &self.inner.signer;
        let mut retry = Retry::new(self);
        let receipt = loop {
            match signer.sign_receipt(&consensus, &account.evidence).await {
                // The signer cannot read the ledger; it may be able to later. A damaged row of one
                // job is not this: it would hold up all others for ever.
                Err(SignerError::Denied(denial @ Denial::Ledger { .. })) => {
                    retry.wait(live, &denial).await;
                }
                receipt => break receipt?,
            }
        };
        let same = receipt.consensus == consensus
            && receipt.evidence == account.evidence
            && receipt.provider_key == signer.provider_key;
        if same {
            Ok(receipt)
        } else {
            Err(EndError::OtherAccount)
        }
    }
}

/// Tries of one end that cannot be written down. While there is one, the gateway is not ready and
/// starts no job.
struct Retry<'a> {
    gateway: &'a Gateway,
    pause: Duration,
    is_stuck: bool,
}

impl<'a> Retry<'a> {
    fn new(gateway: &'a Gateway) -> Self {
        Self {
            gateway,
            pause: RETRY_PAUSE.0,
            is_stuck: false,
        }
    }

    fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    async fn wait(&mut self, live: &Live, error: &(dyn std::error::Error + Sync)) {
        if !self.is_stuck {
            self.is_stuck = true;
            self.gateway.inner.stuck.fetch_add(1, Ordering::AcqRel);
        }
        let (error, pause) = (with_causes(error), self.pause);
        tracing::warn!(job = %live.id, error, ?pause, "the end of a job is not recorded yet");
        tokio::time::sleep(pause).await;
        self.pause = RETRY_PAUSE.1.min(pause * 2);
    }
}

impl Drop for Retry<'_> {
    fn drop(&mut self) {
        if self.is_stuck && self.gateway.inner.stuck.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gateway.dispatch();
        }
    }
}
