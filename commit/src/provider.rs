//! `ProviderBook`: what a provider admits, what it has done, and what it was promised for it.
//!
//! In: signed requests, receipts, vouchers. Out: grants (what a job may spend before the next
//! voucher), claims, proofs. What is done or granted and not vouchered never exceeds the channel's
//! in-flight maximum, whoever asks at the same time: it is added up in the transaction that grants.
//!
//! An index belongs to the first request that is admitted for it, from then on and after any
//! crash: it takes a receipt of that request and nothing else, be it a receipt of failure. The
//! same request can be admitted again; another one cannot. So the tree has no holes.

mod steps;

use std::path::Path;

use tussah_manifest::{
    Commitment, ConsistencyProof, Digest, Document, InclusionProof, Nanograms, PublicKey, Receipt,
    ReceiptError, Request, RequestError, SignatureError, SigningKey, TreeNodes,
};
use tussah_settlement::channel::ChannelStatus;
use tussah_settlement::voucher::{ChannelId, Claim, SignedVoucher};

use crate::channel::{self, Added, ChannelRecord, ChannelView, Look, PostedError};
use crate::clock::Clock;
use crate::rows::Columns;
use crate::store::{Role, Store, StoreError};
use crate::tree::TreeError;
use steps::Word;
pub(crate) use steps::entry;

/// A provider's channels.
pub struct ProviderBook {
    pub(crate) store: Store,
    pub(crate) clock: Box<dyn Clock>,
}

impl std::fmt::Debug for ProviderBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderBook").finish_non_exhaustive()
    }
}

/// What a provider heeds when it admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmitRules {
    /// What one grant may be at most: the price of as many units as a stream may be ahead of its
    /// vouchers. A request that costs no more is granted whole.
    pub grant_max: Nanograms,
    /// Seconds before the channel's deadline from which on nothing is admitted, and at which
    /// running jobs have to stop: enough for a voucher and its redeeming.
    pub stop_before_seconds: u32,
}

/// Leave to run, and to spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The job's place among the channel's receipts.
    pub index: u64,
    /// The job's id.
    pub job: Digest,
    /// What the job may have cost before it has to ask again.
    pub granted: Nanograms,
    /// The second at which it has to have stopped.
    pub stop_at: u32,
}

/// An admitted request without a receipt: to be run again, or given a receipt of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its place.
    pub index: u64,
    /// The job's id.
    pub job: Digest,
    /// What it may have cost so far.
    pub granted: Nanograms,
    /// The request.
    pub request: Request,
}

/// Why a provider's book refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The book has no such channel.
    #[error("the book has no channel {0}")]
    Unknown(String),
    /// The terms lead to another address, or the account was opened anew.
    #[error("{0} is not the channel of these terms and this opening")]
    OtherChannel(String),
    /// The channel is in the book on other terms.
    #[error("{0} is in the book already, on other terms")]
    OtherTerms(String),
    /// The request is not as its client signed it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another client's.
    #[error("the request is signed by {found}, and this channel is {client}'s")]
    OtherClient {
        /// The channel's client.
        client: PublicKey,
        /// Who signed.
        found: PublicKey,
    },
    /// Indices are taken in their order.
    #[error("the channel's next index is {next}, not {asked}")]
    NotNext {
        /// The index that the next request has to have.
        next: u64,
        /// The one that it has.
        asked: u64,
    },
    /// The index belongs to another request.
    #[error("index {index} belongs to job {job}")]
    Taken {
        /// The index.
        index: u64,
        /// Whose it is.
        job: Digest,
    },
    /// More would be unpaid than the channel allows: a voucher has to come first.
    #[error(
        "{asked} more would leave {at_risk} at risk, and the channel allows {in_flight_max}: \
         a voucher has to come first"
    )]
    AtRisk {
        /// What would be at risk.
        at_risk: Nanograms,
        /// What was asked for.
        asked: Nanograms,
        /// The channel's limit.
        in_flight_max: Nanograms,
    },
    /// The deposit does not cover it.
    #[error("the deposit covers {capacity} in all, and this would come to {total}: top it up")]
    Underfunded {
        /// What would be owed in all.
        total: Nanograms,
        /// What the deposit covers.
        capacity: Nanograms,
    },
    /// Too near the end, or past it.
    #[error("the channel takes no more jobs: it is {status:?}, and its deadline is {deadline}")]
    Ending {
        /// Where it is in its life.
        status: ChannelStatus,
        /// Seconds of the Unix epoch.
        deadline: u32,
    },
    /// The receipt is not as its provider signed it.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The receipt is none for this index.
    #[error("the receipt is not that of the job admitted at index {index}: {why}")]
    OtherReceipt {
        /// The index.
        index: u64,
        /// What differs.
        why: &'static str,
    },
    /// The signature is not the client's.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The voucher is smaller than one that is here.
    #[error("the voucher is for {found}, and an earlier one is for {kept}")]
    Lower {
        /// Of the newest voucher.
        kept: Nanograms,
        /// Of this one.
        found: Nanograms,
    },
    /// The voucher is over other receipts.
    #[error("the voucher's root over {receipts} receipts is not this book's")]
    OtherRoot {
        /// The voucher's number of receipts.
        receipts: u64,
    },
    /// The chain is further on than the book, or has other receipts.
    #[error(transparent)]
    Posted(#[from] PostedError),
    /// No such receipt, or not in the tree yet.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl From<rusqlite::Error> for ProviderError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl ProviderBook {
    /// Opens the book at `path`, or starts one.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be used or is another kind of book.
    pub fn open(path: &Path, clock: Box<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(path, Role::Provider)?,
            clock,
        })
    }

    /// Takes a channel into the book. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`ProviderError::OtherChannel`] if the address or the opening is another,
    /// [`ProviderError::OtherTerms`] if the book has it on other terms.
    pub fn add(&self, record: &ChannelRecord, look: &Look) -> Result<(), ProviderError> {
        let address = record.id.address.to_string();
        if !record.is_of_its_terms() || look.state.incarnation != record.id.incarnation {
            return Err(ProviderError::OtherChannel(address));
        }
        let (record, look) = (record.clone(), look.clone());
        self.store.write(
            move |connection| match channel::add(connection, &record, &look)? {
                Added::New | Added::Known => Ok(()),
                Added::Differs => Err(ProviderError::OtherTerms(address)),
            },
        )
    }

    /// All channels.
    ///
    /// # Errors
    /// [`ProviderError::Store`] if the book cannot be read.
    pub fn channels(&self) -> Result<Vec<ChannelView>, ProviderError> {
        self.store.read(|connection| Ok(channel::all(connection)?))
    }

    /// A channel.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have it.
    pub fn view(&self, id: &ChannelId) -> Result<ChannelView, ProviderError> {
        self.store
            .read(|connection| Ok(entry(connection, id)?.view))
    }

    /// The index that the next request has to have.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn next_index(&self, id: &ChannelId) -> Result<u64, ProviderError> {
        self.store
            .read(|connection| steps::next_index(connection, &entry(connection, id)?))
    }

    /// Gives the request its index, and leave to spend. To be called before anything is run; a
    /// request that was admitted before, here or in an earlier life of the process, gets the same
    /// answer again.
    ///
    /// # Errors
    /// Every variant of [`ProviderError`] that says of a request, a channel or an amount what is
    /// wrong with it; then nothing was taken.
    pub fn admit(
        &self,
        id: &ChannelId,
        request: &Request,
        rules: AdmitRules,
    ) -> Result<Grant, ProviderError> {
        request.verify()?;
        let (id, request, now) = (id.clone(), request.clone(), self.clock.now());
        self.store
            .write(move |connection| steps::admit(connection, &id, &request, rules, now))
    }

    /// Takes the place back from a request that was admitted and, after all, not accepted: as if it
    /// had never been admitted. Only the last place is taken back, since others would leave a hole;
    /// whether it was. Never to be called where anything of the job may be known to anybody.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn release(&self, id: &ChannelId, request: &Request) -> Result<bool, ProviderError> {
        let (id, channel, job) = (id.clone(), request.body.channel, request.body.job_id());
        self.store
            .write(move |connection| steps::release(connection, &id, channel, job))
    }

    /// Raises what the job at `index` may cost to `granted`, or to its price cap if that is less.
    ///
    /// # Errors
    /// [`ProviderError::AtRisk`] if a voucher has to come first, [`ProviderError::Underfunded`],
    /// [`ProviderError::Ending`], or [`ProviderError::OtherReceipt`] if no job runs there.
    pub fn extend(
        &self,
        id: &ChannelId,
        index: u64,
        granted: Nanograms,
        rules: AdmitRules,
    ) -> Result<Grant, ProviderError> {
        let (id, now) = (id.clone(), self.clock.now());
        self.store
            .write(move |connection| steps::extend(connection, &id, index, granted, rules, now))
    }

    /// Puts a job's receipt at its index and returns the claim to it, for the client. The same
    /// receipt again gets the same answer.
    ///
    /// # Errors
    /// [`ProviderError::OtherReceipt`] if it is not a receipt of the job at its index, or another
    /// one stands there already; [`ProviderError::Receipt`] if it is not well signed.
    pub fn finish(
        &self,
        id: &ChannelId,
        receipt: &Receipt,
        key: &SigningKey,
    ) -> Result<Claim, ProviderError> {
        self.finish_by(id, receipt, Word::Key(Box::new(key.clone())))
    }

    /// The same with a claim that another process signed, which has the provider's key. That
    /// process has to have signed no other claim to the place.
    ///
    /// # Errors
    /// Those of [`ProviderBook::finish`]; [`ProviderError::OtherReceipt`] too if the claim is not
    /// the provider's, or to another place or receipt.
    pub fn finish_claimed(
        &self,
        id: &ChannelId,
        receipt: &Receipt,
        claim: &Claim,
    ) -> Result<Claim, ProviderError> {
        self.finish_by(id, receipt, Word::Claim(Box::new(claim.clone())))
    }

    fn finish_by(
        &self,
        id: &ChannelId,
        receipt: &Receipt,
        word: Word,
    ) -> Result<Claim, ProviderError> {
        receipt.verify()?;
        let (id, receipt) = (id.clone(), receipt.clone());
        self.store
            .write(move |connection| steps::finish(connection, &id, &receipt, &word))
    }

    /// The receipt at an index with its claim, in the tree or still waiting for those before it;
    /// `None` if there is none.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn finished(
        &self,
        id: &ChannelId,
        index: u64,
    ) -> Result<Option<(Receipt, Claim)>, ProviderError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            let Some(kept) = channel::receipt_at(connection, &entry, index)? else {
                return Ok(None);
            };
            let receipt = Receipt::from_bytes(&kept.bytes);
            let receipt = receipt.map_err(|_| StoreError::Damaged("receipt"))?;
            Ok(Some((receipt, kept.claim)))
        })
    }

    /// The requests that were admitted and have no receipt: after a crash each is run again (the
    /// same request, so the same job) or gets a receipt of failure.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn unfinished(&self, id: &ChannelId) -> Result<Vec<Unfinished>, ProviderError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            let mut statement =
                connection.prepare("SELECT * FROM request WHERE channel = ?1 ORDER BY idx")?;
            let mut rows = statement.query([entry.number])?;
            let mut unfinished = Vec::new();
            while let Some(row) = rows.next()? {
                let bytes: Vec<u8> = row.value("bytes")?;
                unfinished.push(Unfinished {
                    index: row.count("idx")?,
                    job: row.digest("job")?,
                    granted: row.nanograms("granted")?,
                    request: Request::from_bytes(&bytes)
                        .map_err(|_| StoreError::Damaged("request"))?,
                });
            }
            Ok(unfinished)
        })
    }

    /// The receipts in the tree from index `from` on, at most `count` of them, each with its
    /// claim: what a client that was away is sent.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn deliveries(
        &self,
        id: &ChannelId,
        from: u64,
        count: u64,
    ) -> Result<Vec<(Receipt, Claim)>, ProviderError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            let until = entry
                .view
                .commitment
                .receipts
                .min(from.saturating_add(count));
            let mut deliveries = Vec::new();
            for index in from..until {
                let kept = channel::receipt_at(connection, &entry, index)?
                    .ok_or(StoreError::Damaged("a receipt of the tree is missing"))?;
                let receipt =
                    Receipt::from_bytes(&kept.bytes).map_err(|_| StoreError::Damaged("receipt"))?;
                deliveries.push((receipt, kept.claim));
            }
            Ok(deliveries)
        })
    }

    /// Takes a voucher. When this returns it is on the disk, and only then may work that waited
    /// for it go on. One that is here already is taken again; returns what is at risk now.
    ///
    /// # Errors
    /// [`ProviderError::Signature`], [`ProviderError::OtherChannel`], [`ProviderError::Lower`],
    /// [`ProviderError::OtherRoot`]: the voucher changes nothing.
    pub fn accept(
        &self,
        id: &ChannelId,
        signed: &SignedVoucher,
    ) -> Result<Nanograms, ProviderError> {
        let (id, signed, now) = (id.clone(), signed.clone(), self.clock.now());
        self.store
            .write(move |connection| steps::accept(connection, &id, &signed, now))
    }

    /// Records that the owner gave the channel another key; the chain's word, not the client's.
    ///
    /// # Errors
    /// [`ProviderError::Unknown`] if the book does not have the channel.
    pub fn rotate(&self, id: &ChannelId, key: PublicKey) -> Result<(), ProviderError> {
        let id = id.clone();
        self.store.write(move |connection| {
            let entry = entry(connection, &id)?;
            connection.execute(
                "UPDATE channel SET provider_key = ?2 WHERE id = ?1",
                (entry.number, key.as_bytes()),
            )?;
            Ok(())
        })
    }

    /// That all that was posted on chain is in the book. To be asked before the book is gone on
    /// from: one that was brought back from an older copy lacks what came after it.
    ///
    /// # Errors
    /// [`ProviderError::Posted`] if it is not.
    pub fn check_posted(&self, id: &ChannelId, posted: &Commitment) -> Result<(), ProviderError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            Ok(channel::check_posted(connection, &entry, posted)?)
        })
    }

    /// A receipt's digest, and the proof that it is among the first `receipts`.
    ///
    /// # Errors
    /// [`ProviderError::Tree`] if it is not.
    pub fn prove_inclusion(
        &self,
        id: &ChannelId,
        index: u64,
        receipts: u64,
    ) -> Result<(Digest, Commitment, InclusionProof), ProviderError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            Ok(channel::proof(connection, &entry, index, receipts)?)
        })
    }

    /// The proof that the first `newer` receipts begin with the first `older`.
    ///
    /// # Errors
    /// [`ProviderError::Tree`] if there are not so many.
    pub fn prove_consistency(
        &self,
        id: &ChannelId,
        older: u64,
        newer: u64,
    ) -> Result<ConsistencyProof, ProviderError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            Ok(entry.tree(connection).prove_consistency(older, newer)?)
        })
    }
}
