//! The signer's process: it has the keys, and signs what the ledger bears out.
//!
//! In: keys as values, requests to sign over a socket, and the ledger to read. Out: signed requests
//! of clients without a key of their own, and signed receipts of jobs that the ledger knows as
//! accepted and not finished, as they were requested and within their price cap, and claims of such
//! receipts to their places in channels, and consents to post clients' vouchers; or a typed denial.
//! It believes neither the gateway nor the worker more than that, runs nothing, and writes nothing.
//!
//! A job gets one receipt. While this process lives, a second account of a job is denied, and the
//! same one gets the same signature. A new signer has no memory of what was signed, but then the
//! daemon is a new one too: a receipt that is not in the ledger was never given to anyone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tussah_manifest::{
    Channel, ChannelAddress, Consensus, Digest, Document, Evidence, Receipt, Request, RequestBody,
    Signature, SigningKey,
};

use crate::wire::{
    Content, Denial, FrameReader, FrameWriter, FromSigner, Opening, Posting, SignerHello, ToSigner,
    WireError,
};

/// Jobs whose accounts are remembered before those that have finished are forgotten.
const REMEMBERED_MAX: usize = 1024;
/// Jobs that are looked at for each one that is signed, so that none waits for thousands.
const FORGET_AT_A_TIME: usize = 2;

/// What the signer sees of the ledger.
pub trait Jobs {
    /// The job of this id, as it stands on the disk now; `None` if it was never accepted.
    ///
    /// # Errors
    /// [`JobsError`] if the ledger cannot be read.
    fn job(&mut self, id: &Digest) -> Result<Option<KnownJob>, JobsError>;
}

/// A job that the ledger knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownJob {
    /// The canonical bytes of its signed `Request`.
    pub request: Vec<u8>,
    /// Whether it has its receipt.
    pub finished: bool,
    /// The canonical bytes of its receipt.
    pub receipt: Option<Vec<u8>>,
    /// In which opening of its channel its place is, if that was written down.
    pub opening: Option<Opening>,
}

/// Signs, with the provider's key, that a receipt is the one at a place of one opening of a
/// channel; `None` for an address that the network has none like. What the signed bytes are is the
/// network's business, which this crate does not know.
pub type SignClaim =
    fn(&ChannelAddress, u64, &Opening, receipt: &Digest, &SigningKey) -> Option<Signature>;

/// Signs, with the provider's key, that a voucher may be posted; `None` for one that the network
/// has none like. A voucher that is posted pays the provider; what its client signed to spoil the channel would do
/// so too.
pub type SignPosting = fn(&Posting, &SigningKey) -> Option<Signature>;

/// The ledger cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct JobsError {
    /// Why, with its causes.
    pub message: String,
    /// Whether it is this job's row that is amiss, and will stay so: nobody waits for it to pass.
    pub is_damaged: bool,
}

/// The keys, and what was signed with them.
#[derive(Debug)]
pub struct Signer<J> {
    provider: SigningKey,
    client: SigningKey,
    jobs: J,
    claims: Option<SignClaim>,
    postings: Option<SignPosting>,
    /// Digests of the accounts that were signed, by job.
    signed: BTreeMap<Digest, (Digest, Digest)>,
    /// The same jobs, those first that were signed first.
    order: VecDeque<Digest>,
    /// Digests of the requests that were signed last: the signature of one that comes back the
    /// same need not be looked at.
    own: VecDeque<Digest>,
    is_own: BTreeSet<Digest>,
}

impl<J: Jobs> Signer<J> {
    /// `provider` signs receipts, `client` the requests of those who have no key.
    pub fn new(provider: SigningKey, client: SigningKey, jobs: J) -> Self {
        Self {
            provider,
            client,
            jobs,
            claims: None,
            postings: None,
            signed: BTreeMap::new(),
            order: VecDeque::new(),
            own: VecDeque::new(),
            is_own: BTreeSet::new(),
        }
    }

    /// Signs claims too, for jobs that are paid through channels.
    #[must_use]
    pub fn with_claims(self, sign: SignClaim) -> Self {
        Self {
            claims: Some(sign),
            ..self
        }
    }

    /// Signs that vouchers may be posted, too.
    #[must_use]
    pub fn with_postings(self, sign: SignPosting) -> Self {
        Self {
            postings: Some(sign),
            ..self
        }
    }

    /// Says hello, and answers until the other side closes.
    ///
    /// # Errors
    /// [`WireError`] if what comes is no message, or the connection breaks.
    pub async fn serve<R, W>(mut self, reader: R, writer: W) -> Result<(), WireError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut reader = FrameReader::new(BufReader::new(reader));
        let mut writer = FrameWriter::new(writer);
        let hello = SignerHello {
            provider_key: *self.provider.public_key().as_bytes(),
            client_key: *self.client.public_key().as_bytes(),
        };
        writer.write(&FromSigner::Hello(hello)).await?;
        while let Some(message) = reader.read().await? {
            let room = writer.put(&self.answer(message))?;
            // What was asked already is answered with it.
            if !(room && reader.has_next()) {
                writer.send().await?;
            }
        }
        Ok(())
    }

    /// One answer to one question.
    fn answer(&mut self, message: ToSigner) -> FromSigner {
        let (id, answer) = match message {
            ToSigner::SignRequest { id, body } => (id, self.sign_request(&body.0)),
            ToSigner::SignReceipt {
                id,
                consensus,
                evidence,
            } => (id, self.sign_receipt(&consensus.0, &evidence.0)),
            ToSigner::SignClaim { id, job, opening } => {
                (id, self.sign_claim(&Digest::from_bytes(job), &opening))
            }
            ToSigner::SignPosting { id, posting } => (id, self.sign_posting(&posting)),
        };
        match answer {
            Ok(document) => FromSigner::Signed {
                id,
                document: Content(document),
            },
            Err(denial) => FromSigner::Denied { id, denial },
        }
    }

    fn sign_request(&mut self, body: &[u8]) -> Result<Vec<u8>, Denial> {
        let body = RequestBody::from_bytes(body).map_err(malformed)?;
        if body.client_key != self.client.public_key() {
            return Err(Denial::OtherClient);
        }
        if body.channel != Channel::Local {
            return Err(Denial::Channel);
        }
        let request = body.sign(&self.client).map_err(malformed)?;
        let bytes = request.to_bytes();
        self.remember_own(Digest::of(&bytes));
        Ok(bytes)
    }

    fn remember_own(&mut self, request: Digest) {
        if self.own.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.own.pop_front()
        {
            self.is_own.remove(&oldest);
        }
        if self.is_own.insert(request) {
            self.own.push_back(request);
        }
    }

    fn sign_receipt(&mut self, consensus: &[u8], evidence: &[u8]) -> Result<Vec<u8>, Denial> {
        let consensus = Consensus::from_bytes(consensus).map_err(malformed)?;
        let evidence = Evidence::from_bytes(evidence).map_err(malformed)?;
        let job = consensus.job;
        check(&self.unfinished(&job)?, &consensus)?;
        let account = (consensus.digest(), evidence.digest());
        match self.signed.get(&job) {
            Some(signed) if *signed != account => return Err(Denial::OtherAccount),
            Some(_) => {}
            None => {
                self.forget_finished()?;
                self.signed.insert(job, account);
                self.order.push_back(job);
            }
        }
        let receipt = Receipt::sign(consensus, evidence, &self.provider).map_err(malformed)?;
        Ok(receipt.to_bytes())
    }

    /// Of the receipt that the ledger has, and no other: the ledger has one job for a place, and a
    /// job one receipt, so no place is claimed for two.
    fn sign_claim(&mut self, job: &Digest, opening: &Opening) -> Result<Vec<u8>, Denial> {
        let sign = self.claims.ok_or(Denial::NoChannel)?;
        let known = self.jobs.job(job).map_err(ledger)?;
        let known = known.ok_or(Denial::UnknownJob)?;
        let body = request_of(&known, job)?;
        let receipt = known.receipt.ok_or(Denial::NoReceipt)?;
        let receipt = Receipt::from_verified_bytes(&receipt).map_err(malformed)?;
        if receipt.consensus.job != *job || receipt.provider_key != self.provider.public_key() {
            let field = "job".to_owned();
            return Err(Denial::OtherThanRequested { field });
        }
        check(&body, &receipt.consensus)?;
        // Two openings have a place of the same number each.
        if known.opening.is_some_and(|own| own != *opening) {
            let field = "opening".to_owned();
            return Err(Denial::OtherThanRequested { field });
        }
        let Channel::Ton { address, index } = body.channel else {
            return Err(Denial::NoChannel);
        };
        let signature = sign(&address, index, opening, &receipt.digest(), &self.provider);
        let signature = signature.ok_or(Denial::NoChannel)?;
        Ok(signature.as_bytes().to_vec())
    }

    /// Of any voucher: the contract credits what it gains, once, where its client signed it.
    fn sign_posting(&self, posting: &Posting) -> Result<Vec<u8>, Denial> {
        let sign = self.postings.ok_or(Denial::NoChannel)?;
        let signature = sign(posting, &self.provider).ok_or(Denial::NoChannel)?;
        Ok(signature.as_bytes().to_vec())
    }

    /// The request of a job that waits for its receipt.
    fn unfinished(&mut self, job: &Digest) -> Result<RequestBody, Denial> {
        let known = self.jobs.job(job).map_err(ledger)?;
        let known = known.ok_or(Denial::UnknownJob)?;
        if known.finished {
            return Err(Denial::Finished);
        }
        match self.is_own.contains(&Digest::of(&known.request)) {
            true => unverified_request_of(&known, job),
            false => request_of(&known, job),
        }
    }

    /// Makes room, a little at a time: a job with a receipt in the ledger is denied another one by
    /// the ledger.
    fn forget_finished(&mut self) -> Result<(), Denial> {
        for _ in 0..FORGET_AT_A_TIME {
            if self.signed.len() < REMEMBERED_MAX {
                return Ok(());
            }
            let Some(oldest) = self.order.pop_front() else {
                return Ok(());
            };
            let known = self.jobs.job(&oldest).map_err(ledger);
            // One that is gone from the ledger was not signed for the last time: it stays.
            let is_open = known
                .as_ref()
                .is_ok_and(|job| job.as_ref().is_none_or(|job| !job.finished));
            if is_open || known.is_err() {
                self.order.push_back(oldest);
            } else {
                self.signed.remove(&oldest);
            }
            known?;
        }
        Ok(())
    }
}

/// The request of a job that the ledger knows, checked again.
fn request_of(known: &KnownJob, job: &Digest) -> Result<RequestBody, Denial> {
    let request = Request::from_bytes(&known.request).map_err(|error| damaged(job, &error))?;
    request.verify().map_err(|error| damaged(job, &error))?;
    unverified_request_of(known, job)
}

/// The same of one that this signer signed.
fn unverified_request_of(known: &KnownJob, job: &Digest) -> Result<RequestBody, Denial> {
    let request = Request::from_bytes(&known.request).map_err(|error| damaged(job, &error))?;
    match request.body.job_id() == *job {
        true => Ok(request.body),
        false => Err(damaged(job, &"it is another job's")),
    }
}

fn damaged(job: &Digest, error: &dyn std::fmt::Display) -> Denial {
    Denial::Damaged {
        message: format!("the request of {job}: {error}"),
    }
}

/// Whether an account is of what was requested, at a price that was agreed to.
fn check(body: &RequestBody, consensus: &Consensus) -> Result<(), Denial> {
    for (field, agrees) in [
        ("module", body.module == consensus.module),
        ("manifest", body.manifest == consensus.manifest),
        ("channel", body.channel == consensus.channel),
    ] {
        if !agrees {
            let field = field.to_owned();
            return Err(Denial::OtherThanRequested { field });
        }
    }
    let (price, cap) = (consensus.price_nanograms, body.price_nanograms_max);
    if price > cap {
        return Err(Denial::OverCap {
            price: price.get(),
            cap: cap.get(),
        });
    }
    Ok(())
}

fn malformed(error: impl std::fmt::Display) -> Denial {
    Denial::Malformed {
        message: error.to_string(),
    }
}

fn ledger(error: JobsError) -> Denial {
    let message = error.message;
    match error.is_damaged {
        true => Denial::Damaged { message },
        false => Denial::Ledger { message },
    }
}

#[cfg(test)]
mod tests;
