//! Jobs that are paid through a payment channel: their places, their claims, their vouchers.
//!
//! In: requests that name a channel, what became of their jobs, the client's vouchers. Out: a place
//! that is durable before the job is, and the provider's word for the receipt at it. The books
//! themselves are a [`Paymaster`]'s, who holds no key either: what he hands out, the signer signed.
//! A place that was given has to get a receipt, or no receipt after it could ever be paid.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tussah_manifest::{
    Channel, ChannelAddress, Digest, Nanograms, Receipt, Request, Signature, TreeHash,
};

use super::{Gateway, SignerError, SubmitError};
use crate::ledger::{JobState, LedgerError, NewJob, StoreError};
use crate::wire::{Opening, Posting};

/// Leave to run, in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceGrant {
    /// In which opening of it.
    pub opening: Opening,
    /// What the job may cost.
    pub granted: Nanograms,
    /// When it has to have ended, in seconds since 1970: a voucher over it has to be redeemed yet.
    pub stop_at_unix_s: u32,
}

/// The provider's word that a receipt is the one at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceClaim {
    /// Which opening of the channel.
    pub opening: Opening,
    /// The channel's address.
    pub address: ChannelAddress,
    /// The place.
    pub index: u64,
    /// The receipt's digest.
    pub receipt: Digest,
    /// The provider's.
    pub signature: Signature,
}

/// A client's promise, as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoucherForm {
    /// All that the client owes since the channel was opened.
    pub amount: Nanograms,
    /// Receipts that it is over.
    pub receipts: u64,
    /// The root over them.
    pub root: TreeHash,
    /// The client's.
    pub signature: Signature,
}

/// How a channel stands in the provider's book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which opening of the channel.
    pub opening: Opening,
    /// The index that the next request has to have.
    pub next_index: u64,
    /// Receipts in the tree.
    pub receipts: u64,
    /// The root over them.
    pub root: TreeHash,
    /// What all receipts cost.
    pub earned: Nanograms,
    /// What running jobs may cost.
    pub promised: Nanograms,
    /// What the newest voucher promises.
    pub vouchered: Nanograms,
    /// What may be unpaid at a time.
    pub in_flight_max: Nanograms,
    /// What the deposit covers, in all.
    pub capacity: Nanograms,
    /// From this second on nothing is redeemed.
    pub deadline_unix_s: u32,
    /// Whether the chain showed it open when it was last looked at.
    pub is_open: bool,
    /// Whether that was of late, so that jobs are taken through it.
    pub takes_jobs: bool,
}

/// How many channels there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelCounts {
    /// Those that are not over.
    pub watched: usize,
    /// Those of them that the chain has not shown of late: no job is taken through them.
    pub unseen: usize,
}

/// Why a book did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// This provider takes no jobs through the channel.
    #[error("this provider does not take jobs through channel {0}")]
    NoChannel(ChannelAddress),
    /// The client's to change: another index, a voucher first, a top-up.
    #[error("{0}")]
    Refused(String),
    /// Another process of this host uses the channel.
    #[error("another process of the provider uses channel {0} now")]
    Busy(ChannelAddress),
    /// The book has not been held against the chain since the start.
    #[error("the provider has not compared its book of channel {0} with the chain yet")]
    Unchecked(ChannelAddress),
    /// The chain has not shown the channel for so long that a close could be over before what is
    /// owed is posted.
    #[error(
        "the provider has not seen channel {channel} on the chain for {seconds} s, and takes no \
         job through it until it does"
    )]
    Unseen {
        /// Which one.
        channel: ChannelAddress,
        /// Since the last look that showed it.
        seconds: u64,
    },
    /// The provider's own.
    #[error("the provider's book failed: {0}")]
    Failed(String),
}

/// Whoever keeps the books of channels. What is answered is durable. Calls may wait for the disk.
pub trait Paymaster: Debug + Send + Sync {
    /// Gives a request its place, or again the one that it has.
    ///
    /// # Errors
    /// [`PayError`]; nothing was taken.
    fn admit(&self, request: &Request) -> Result<PlaceGrant, PayError>;

    /// Takes a place back from a request that got it and was not accepted after all; whether it had
    /// one, and the last.
    ///
    /// # Errors
    /// [`PayError`]; the place is the request's as before.
    fn release(&self, request: &Request, opening: &Opening) -> Result<bool, PayError>;

    /// Which opening of the channel receipts are for now.
    ///
    /// # Errors
    /// [`PayError`].
    fn opening(&self, channel: &ChannelAddress) -> Result<Opening, PayError>;

    /// Puts a receipt at its place. The same one again changes nothing.
    ///
    /// # Errors
    /// [`PayError`].
    fn finish(&self, receipt: &Receipt, claim: &PlaceClaim) -> Result<(), PayError>;

    /// The claim to what is at a place of an opening; `None` while nothing is.
    ///
    /// # Errors
    /// [`PayError`].
    fn claim(
        &self,
        channel: &ChannelAddress,
        opening: &Opening,
        index: u64,
    ) -> Result<Option<PlaceClaim>, PayError>;

    /// The jobs that have places and no receipts there.
    ///
    /// # Errors
    /// [`PayError`].
    fn unfinished(&self) -> Result<Vec<Digest>, PayError>;

    /// How a channel stands.
    ///
    /// # Errors
    /// [`PayError`].
    fn standing(&self, channel: &ChannelAddress) -> Result<Standing, PayError>;

    /// How many channels there are; from memory, at once.
    fn counts(&self) -> ChannelCounts;

    /// Takes a voucher.
    ///
    /// # Errors
    /// [`PayError`]; it changed nothing.
    fn accept(&self, channel: &ChannelAddress, voucher: &VoucherForm) -> Result<(), PayError>;
}

/// Why there is no claim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The book.
    #[error(transparent)]
    Pay(#[from] PayError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The signer.
    #[error("the claim could not be signed")]
    Signer(#[from] SignerError),
    /// The job has no receipt, or is not paid through a channel.
    #[error("the job has no receipt that is paid through a channel")]
    NoReceipt,
    /// The book is not the ledger's.
    #[error("the channel's book has another receipt at place {index} than that of job {job}")]
    OtherReceipt {
        /// The job.
        job: Digest,
        /// Its place.
        index: u64,
    },
    /// A task of ours failed.
    #[error("the provider failed: {0}")]
    Internal(String),
}

/// One submission at a time takes a place in a channel, from the book until the ledger has the job
/// or has refused it: so what is given back is the last place, and nobody else's. Channels share
/// turns, so that there are not more of them than these.
#[derive(Debug, Default)]
pub(super) struct Turns([Arc<Mutex<()>>; 32]);

/// A place that the book has given, and the ledger has not taken yet.
#[derive(Debug)]
pub(super) struct TakenPlace {
    address: ChannelAddress,
    request: Request,
    opening: Opening,
    _turn: OwnedMutexGuard<()>,
}

impl Turns {
    pub(super) async fn wait(&self, channel: &ChannelAddress) -> OwnedMutexGuard<()> {
        let turn = usize::from(channel.account[0]) % self.0.len();
        Arc::clone(&self.0[turn]).lock_owned().await
    }
}

impl SubmitError {
    /// Whether it was said for what the job is, before a place in a channel was asked for.
    pub(super) fn is_before_a_place(&self) -> bool {
        matches!(
            self,
            Self::InputTooLarge { .. }
                | Self::Limit(_)
                | Self::Model(_)
                | Self::NotVerified(_)
                | Self::Slow { .. }
                | Self::Missing { .. }
                | Self::PriceTooLow { .. }
                | Self::Late
        )
    }
}

impl Gateway {
    /// Whoever keeps the books, if jobs are taken through channels here.
    pub fn paymaster(&self) -> Option<&Arc<dyn Paymaster>> {
        self.inner.config.paymaster.as_ref()
    }

    /// Asks the books, beside whatever else goes on.
    ///
    /// # Errors
    /// [`PayError::NoChannel`] if there are none, else the books' own.
    pub async fn ask_books<T: Send + 'static>(
        &self,
        channel: ChannelAddress,
        ask: impl FnOnce(&dyn Paymaster) -> Result<T, PayError> + Send + 'static,
    ) -> Result<T, PayError> {
        let books = self.paymaster().cloned();
        let books = books.ok_or(PayError::NoChannel(channel))?;
        let asked = tokio::task::spawn_blocking(move || ask(books.as_ref())).await;
        asked.map_err(|error| PayError::Failed(error.to_string()))?
    }

    /// Gives a job its place in the book, once the ledger has none there. The job has to have
    /// stopped before the channel ends.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was taken.
    pub(super) async fn take_place(
        &self,
        new: &mut NewJob,
        address: ChannelAddress,
        turn: OwnedMutexGuard<()>,
    ) -> Result<TakenPlace, SubmitError> {
        let channel = new.request.body.channel;
        let opening = self.ask_books(address, move |books| books.opening(&address));
        self.inner.ledger.require_free(channel, &opening.await?)?;
        let request = new.request.clone();
        let admitted = self.ask_books(address, move |books| books.admit(&request));
        let grant = admitted.await?;
        let stop_at = u64::from(grant.stop_at_unix_s).saturating_mul(1000);
        let deadline = new.deadline_unix_ms.unwrap_or(u64::MAX);
        new.deadline_unix_ms = Some(deadline.min(stop_at));
        new.opening = Some(grant.opening);
        Ok(TakenPlace {
            address,
            request: new.request.clone(),
            opening: grant.opening,
            _turn: turn,
        })
    }

    /// Gives the place back of a job that the ledger refused. Where nobody knows whether it did,
    /// as when the disk failed in the middle, the place stays the request's, which its client
    /// sends again.
    pub(super) async fn give_back(&self, place: TakenPlace, refused: &LedgerError) {
        if let LedgerError::Store(StoreError::Commit(_) | StoreError::Closed) = refused {
            return;
        }
        let TakenPlace {
            address,
            request,
            opening,
            _turn,
        } = place;
        let job = request.body.job_id();
        let released = self.ask_books(address, move |books| books.release(&request, &opening));
        match released.await {
            Ok(true) => {}
            Ok(false) => tracing::error!(%job, "its place in the channel is not the last"),
            Err(error) => {
                tracing::error!(%job, %error, "its place in the channel could not be given back");
            }
        }
    }

    /// Gives back the place that a request may have in the book from before: the process ended before
    /// the ledger had its job, and what its client sends again is refused by now. Else no job could be
    /// taken through the channel any more.
    pub(super) async fn give_up_place(&self, request: &Request) {
        let Channel::Ton { address, .. } = request.body.channel else {
            return;
        };
        // Only its client may give it up.
        if self.paymaster().is_none() || request.verify().is_err() {
            return;
        }
        let job = request.body.job_id();
        let _turn = self.inner.turns.wait(&address).await;
        // In its turn nobody else is between the book and the ledger.
        if !matches!(self.inner.ledger.job(&job), Ok(None)) {
            return;
        }
        let request = request.clone();
        let released = self.ask_books(address, move |books| {
            let opening = books.opening(&address)?;
            books.release(&request, &opening)
        });
        match released.await {
            Ok(true) => tracing::info!(%job, "was refused, and its place in the channel is free"),
            // It had none; or there is no such channel.
            Ok(false) | Err(PayError::NoChannel(_)) => {}
            Err(error) => {
                tracing::error!(%job, %error, "its place in the channel could not be given back");
            }
        }
    }

    /// The provider's word for a job's receipt. What is missing of it, because the process ended in
    /// between, is made up for.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim(&self, job: &Digest) -> Result<PlaceClaim, ClaimError> {
        let summary = self.inner.ledger.job(job)?.ok_or(ClaimError::NoReceipt)?;
        let (receipt, kept_opening) = (summary.receipt, summary.opening);
        let receipt = receipt.ok_or(ClaimError::NoReceipt)?;
        let digest = receipt.digest();
        let Channel::Ton { address, index } = receipt.consensus.channel else {
            return Err(ClaimError::NoReceipt);
        };
        let asked = self.ask_books(address, move |books| {
            let opening = match kept_opening {
                Some(opening) => opening,
                None => books.opening(&address)?,
            };
            Ok((opening, books.claim(&address, &opening, index)?))
        });
        let (opening, kept) = asked.await?;
        match kept {
            Some(claim) if claim.receipt == digest => return Ok(claim),
            Some(_) => return Err(ClaimError::OtherReceipt { job: *job, index }),
            None => {}
        }
        let signature = self.inner.signer.sign_claim(job, opening).await?;
        let claim = PlaceClaim {
            opening,
            address,
            index,
            receipt: digest,
            signature,
        };
        self.ask_books(address, move |books| books.finish(&receipt, &claim))
            .await?;
        Ok(claim)
    }

    /// The provider's consent to a voucher's being posted, by the signer.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn consent(&self, posting: Posting) -> Result<Signature, SignerError> {
        self.inner.signer.sign_posting(posting).await
    }

    /// Puts the receipts into the books that the ledger has and they lack.
    pub(super) async fn make_up_claims(&self) {
        let Some(books) = self.paymaster().cloned() else {
            return;
        };
        let unfinished = tokio::task::spawn_blocking(move || books.unfinished()).await;
        let unfinished = match unfinished {
            Ok(Ok(unfinished)) => unfinished,
            Ok(Err(error)) => return tracing::error!(%error, "the books cannot be read"),
            Err(error) => return tracing::error!(%error, "the books cannot be read"),
        };
        for job in unfinished {
            match self.inner.ledger.job(&job) {
                Ok(Some(known)) if known.state != JobState::Accepted => {
                    self.settle(&job).await;
                }
                // It runs, or its client has not been told that it was taken and sends it again.
                Ok(_) => {}
                Err(error) => tracing::error!(%job, %error, "the ledger cannot be read"),
            }
        }
    }

    /// Puts a job's receipt into the book; where that fails, the next who asks for its claim does.
    pub(super) async fn settle(&self, job: &Digest) {
        if let Err(error) = self.claim(job).await {
            let error = crate::with_causes(&error);
            tracing::error!(%job, error, "the receipt is not in the channel's book yet");
        }
    }
}
