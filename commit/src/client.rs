//! `ClientBook`: what a client asked for, what it was given, and what it promised for it.
//!
//! In: requests before they are sent, receipts and claims that a provider delivers. Out: vouchers
//! over the client's own tree. A voucher is never for less than an earlier one, never over fewer
//! receipts, and never over another root of as many; it is durable before it is handed out.
//! Two claims of the provider for one place are kept: they are worth a part of its bond.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use tussah_manifest::{
    Channel, Commitment, ConsistencyProof, Digest, Document, InclusionProof, Nanograms, PublicKey,
    Receipt, ReceiptError, Request, RequestError, SignatureError, SigningKey, TreeNodes,
};
use tussah_settlement::Cell;
use tussah_settlement::provider;
use tussah_settlement::voucher::{ChannelId, Claim, SignedVoucher, Voucher};

use crate::channel::{self, Added, ChannelRecord, ChannelView, Entry, Look, PostedError, place};
use crate::clock::Clock;
use crate::rows::{Columns, amount, int, sum};
use crate::store::{Role, Store, StoreError};
use crate::tree::TreeError;

/// A client's channels.
pub struct ClientBook {
    pub(crate) store: Store,
    clock: Box<dyn Clock>,
}

impl std::fmt::Debug for ClientBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBook").finish_non_exhaustive()
    }
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the tree now.
    New,
    /// It was in the tree before.
    Known,
}

/// Two claims of one key for one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who signed both.
    pub key: PublicKey,
    /// The one that is in the tree.
    pub first: Claim,
    /// The other.
    pub second: Claim,
}

impl Conflict {
    /// The message to the provider's contract, which forfeits a part of its bond.
    pub fn message(&self, query_id: u64) -> Cell {
        provider::equivocation(query_id, &self.key, &self.first, &self.second)
    }
}

/// Why a client's book refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
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
    /// The request is not this client's, or not well signed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request or voucher would be signed by another key than the channel's client.
    #[error("this channel is {client}'s, not {found}'s")]
    OtherKey {
        /// The channel's client.
        client: PublicKey,
        /// The key that was given.
        found: PublicKey,
    },
    /// The index is not the next one, or has a receipt already.
    #[error("the channel's next index is {next}, not {asked}")]
    NotNext {
        /// The index that comes next.
        next: u64,
        /// The one that was given.
        asked: u64,
    },
    /// The deposit does not cover it.
    #[error("the deposit covers {capacity} in all, and this would come to {total}: top it up")]
    Underfunded {
        /// What would be promised in all.
        total: Nanograms,
        /// What the deposit covers.
        capacity: Nanograms,
    },
    /// The receipt is not as its provider signed it.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A signature does not fit.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The receipt is no answer to what was asked for.
    #[error("the receipt at index {index} is refused: {why}")]
    OtherReceipt {
        /// The index.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The provider signed another receipt for a place that has one. Both claims were kept.
    #[error("the provider claimed two different receipts for index {index}: the proof is kept")]
    Equivocation {
        /// The index.
        index: u64,
    },
    /// More would be promised than the running jobs can cost.
    #[error("running jobs can cost {price_max} at most, and {asked} was to be promised")]
    TooMuch {
        /// Of all requests without a receipt.
        price_max: Nanograms,
        /// What was to be promised.
        asked: Nanograms,
    },
    /// The chain is further on than the book, or has other receipts.
    #[error(transparent)]
    Posted(#[from] PostedError),
    /// No such receipt.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl From<rusqlite::Error> for ClientError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl ClientBook {
    /// Opens the book at `path`, or starts one.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be used or is another kind of book.
    pub fn open(path: &Path, clock: Box<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(path, Role::Client)?,
            clock,
        })
    }

    /// Takes a channel into the book. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`ClientError::OtherChannel`] if the address or the opening is another,
    /// [`ClientError::OtherTerms`] if the book has it on other terms.
    pub fn add(&self, record: &ChannelRecord, look: &Look) -> Result<(), ClientError> {
        let address = record.id.address.to_string();
        if !record.is_of_its_terms() || look.state.incarnation != record.id.incarnation {
            return Err(ClientError::OtherChannel(address));
        }
        let (record, look) = (record.clone(), look.clone());
        self.store.write(
            move |connection| match channel::add(connection, &record, &look)? {
                Added::New | Added::Known => Ok(()),
                Added::Differs => Err(ClientError::OtherTerms(address)),
            },
        )
    }

    /// Takes in what the chain says of a channel; what is older than what was seen is left out.
    ///
    /// # Errors
    /// [`ClientError::OtherChannel`] if the account was opened anew.
    pub fn see(&self, id: &ChannelId, look: &Look) -> Result<(), ClientError> {
        if look.state.incarnation != id.incarnation {
            return Err(ClientError::OtherChannel(id.address.to_string()));
        }
        let (id, look) = (id.clone(), look.clone());
        self.store.write(move |connection| {
            let entry = entry(connection, &id)?;
            Ok(channel::see(connection, entry.number, &look)?)
        })
    }

    /// All channels.
    ///
    /// # Errors
    /// [`ClientError::Store`] if the book cannot be read.
    pub fn channels(&self) -> Result<Vec<ChannelView>, ClientError> {
        self.store.read(|connection| Ok(channel::all(connection)?))
    }

    /// A channel.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if the book does not have it.
    pub fn view(&self, id: &ChannelId) -> Result<ChannelView, ClientError> {
        self.store
            .read(|connection| Ok(entry(connection, id)?.view))
    }

    /// The index for the next request.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if the book does not have the channel.
    pub fn next_index(&self, id: &ChannelId) -> Result<u64, ClientError> {
        self.store
            .read(|connection| next_index(connection, &entry(connection, id)?))
    }

    /// Keeps a request; to be called before it is sent. A request that was refused can be replaced
    /// by another for its index, as long as that has no receipt: a receipt of either is taken.
    ///
    /// # Errors
    /// [`ClientError::NotNext`] if another request has the index by now (ask for the next one and
    /// sign again), [`ClientError::Underfunded`] if the deposit would not cover it.
    pub fn issue(&self, id: &ChannelId, request: &Request) -> Result<(), ClientError> {
        request.verify()?;
        let (id, request) = (id.clone(), request.clone());
        self.store
            .write(move |connection| issue(connection, &id, &request))
    }

    /// The requests without a receipt, in the order of their indices: what is sent again after a
    /// crash. Of several for one index, the newest is the last.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if the book does not have the channel.
    pub fn outstanding(&self, id: &ChannelId) -> Result<Vec<(u64, Request)>, ClientError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            let receipts = int(entry.view.commitment.receipts)?;
            let mut statement = connection.prepare(
                "SELECT idx, bytes FROM request WHERE channel = ?1 AND idx >= ?2 ORDER BY idx, rowid",
            )?;
            let mut rows = statement.query((entry.number, receipts))?;
            let mut outstanding = Vec::new();
            while let Some(row) = rows.next()? {
                let bytes: Vec<u8> = row.value("bytes")?;
                let request =
                    Request::from_bytes(&bytes).map_err(|_| StoreError::Damaged("request"))?;
                outstanding.push((row.count("idx")?, request));
            }
            Ok(outstanding)
        })
    }

    /// Checks a receipt and its claim against what was asked for, and takes it into the tree.
    ///
    /// # Errors
    /// [`ClientError::OtherReceipt`] if it is no answer to a request of this client,
    /// [`ClientError::NotNext`] if one before it is missing, [`ClientError::Equivocation`] if the
    /// place has another receipt; signatures that do not fit are errors of their own.
    pub fn deliver(
        &self,
        id: &ChannelId,
        receipt: &Receipt,
        claim: &Claim,
    ) -> Result<Delivery, ClientError> {
        receipt.verify()?;
        let digest = receipt.digest();
        if claim.receipt != digest {
            let (index, why) = (claim.index, "the claim is to another receipt");
            return Err(ClientError::OtherReceipt { index, why });
        }
        if !self.observe(id, claim)? {
            return Ok(Delivery::Known);
        }
        let (id, receipt, claim) = (id.clone(), receipt.clone(), claim.clone());
        self.store
            .write(move |connection| deliver(connection, &id, &receipt, &claim))
    }

    /// Looks at a claim alone, wherever it comes from. Returns whether its place is still free.
    ///
    /// # Errors
    /// [`ClientError::Equivocation`] if the place has another receipt, after both claims were
    /// kept; [`ClientError::Signature`] if the provider did not sign it.
    pub fn observe(&self, id: &ChannelId, claim: &Claim) -> Result<bool, ClientError> {
        if claim.channel != *id {
            let other = claim.channel.address.to_string();
            return Err(ClientError::OtherChannel(other));
        }
        let (owned, claim) = (id.clone(), claim.clone());
        let index = claim.index;
        // What was kept stays kept, so the refusal comes after the commit.
        let seen = self.store.write(move |connection| {
            let entry = entry(connection, &owned)?;
            claim.verify(&entry.view.provider_key)?;
            let Some(kept) = channel::receipt_at(connection, &entry, index)? else {
                return Ok::<_, ClientError>(Seen::Free);
            };
            if kept.digest == claim.receipt {
                return Ok(Seen::Same);
            }
            connection.execute(
                "INSERT OR IGNORE INTO conflict (channel, idx, provider_key, digest, claim)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    entry.number,
                    int(index)?,
                    entry.view.provider_key.as_bytes(),
                    claim.receipt.as_bytes(),
                    claim.signature.as_bytes(),
                ),
            )?;
            Ok(Seen::Other)
        })?;
        match seen {
            Seen::Free => Ok(true),
            Seen::Same => Ok(false),
            Seen::Other => Err(ClientError::Equivocation { index }),
        }
    }

    /// Promises to pay for all receipts in the tree, and `running` more for jobs that have none
    /// yet. When this returns the voucher is on the disk. Where nothing is new, the newest one is
    /// returned again.
    ///
    /// # Errors
    /// [`ClientError::TooMuch`] if the running jobs cannot cost that much,
    /// [`ClientError::Underfunded`] if the deposit does not cover what is new in it,
    /// [`ClientError::OtherKey`].
    pub fn voucher(
        &self,
        id: &ChannelId,
        running: Nanograms,
        key: &SigningKey,
    ) -> Result<SignedVoucher, ClientError> {
        let (id, key, now) = (id.clone(), key.clone(), self.clock.now());
        self.store
            .write(move |connection| voucher(connection, &id, running, &key, now))
    }

    /// The provider's claims that contradict what is in the tree.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if the book does not have the channel.
    pub fn conflicts(&self, id: &ChannelId) -> Result<Vec<Conflict>, ClientError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            let mut statement =
                connection.prepare("SELECT * FROM conflict WHERE channel = ?1 ORDER BY rowid")?;
            let mut rows = statement.query([entry.number])?;
            let mut conflicts = Vec::new();
            while let Some(row) = rows.next()? {
                let index = row.count("idx")?;
                let first = channel::receipt_at(connection, &entry, index)?
                    .ok_or(StoreError::Damaged("a receipt of the tree is missing"))?;
                conflicts.push(Conflict {
                    key: row.key("provider_key")?,
                    first: first.claim,
                    second: Claim {
                        channel: id.clone(),
                        index,
                        receipt: row.digest("digest")?,
                        signature: row.signature("claim")?,
                    },
                });
            }
            Ok(conflicts)
        })
    }

    /// Records that the owner gave the channel another key; the chain's word, not the provider's.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if the book does not have the channel.
    pub fn rotate(&self, id: &ChannelId, key: PublicKey) -> Result<(), ClientError> {
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
    /// [`ClientError::Posted`] if it is not.
    pub fn check_posted(&self, id: &ChannelId, posted: &Commitment) -> Result<(), ClientError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            Ok(channel::check_posted(connection, &entry, posted)?)
        })
    }

    /// A receipt's digest, and the proof that it is among the first `receipts`.
    ///
    /// # Errors
    /// [`ClientError::Tree`] if it is not.
    pub fn prove_inclusion(
        &self,
        id: &ChannelId,
        index: u64,
        receipts: u64,
    ) -> Result<(Digest, Commitment, InclusionProof), ClientError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            Ok(channel::proof(connection, &entry, index, receipts)?)
        })
    }

    /// The proof that the first `newer` receipts begin with the first `older`.
    ///
    /// # Errors
    /// [`ClientError::Tree`] if there are not so many.
    pub fn prove_consistency(
        &self,
        id: &ChannelId,
        older: u64,
        newer: u64,
    ) -> Result<ConsistencyProof, ClientError> {
        self.store.read(|connection| {
            let entry = entry(connection, id)?;
            Ok(entry.tree(connection).prove_consistency(older, newer)?)
        })
    }
}

enum Seen {
    Free,
    Same,
    Other,
}

fn entry(connection: &Connection, id: &ChannelId) -> Result<Entry, ClientError> {
    channel::find(connection, id)?.ok_or_else(|| ClientError::Unknown(id.address.to_string()))
}

fn next_index(connection: &Connection, entry: &Entry) -> Result<u64, ClientError> {
    let last: Option<i64> = connection.query_row(
        "SELECT max(idx) FROM request WHERE channel = ?1",
        [entry.number],
        |row| row.get(0),
    )?;
    let last = last.map(u64::try_from).transpose();
    let last = last.map_err(|_| StoreError::Damaged("idx"))?;
    let receipts = entry.view.commitment.receipts;
    Ok(last.map_or(receipts, |last| receipts.max(last + 1)))
}

fn issue(connection: &Connection, id: &ChannelId, request: &Request) -> Result<(), ClientError> {
    let entry = entry(connection, id)?;
    let body = &request.body;
    let client = entry.view.record.terms.client_key;
    if body.client_key != client {
        let found = body.client_key;
        return Err(ClientError::OtherKey { client, found });
    }
    let Channel::Ton { index, .. } = body.channel else {
        return Err(ClientError::OtherChannel("a local request".to_owned()));
    };
    if body.channel != place(id, index) {
        return Err(ClientError::OtherChannel(body.channel.to_string()));
    }
    let (job, next) = (body.job_id(), next_index(connection, &entry)?);
    let known = connection
        .query_row(
            "SELECT 1 FROM request WHERE channel = ?1 AND idx = ?2 AND job = ?3",
            (entry.number, int(index)?, job.as_bytes()),
            |_| Ok(()),
        )
        .optional()?;
    if known.is_some() {
        return Ok(());
    }
    channel::check_not_behind(&entry.view)?;
    if index > next || index < entry.view.commitment.receipts {
        return Err(ClientError::NotNext { next, asked: index });
    }
    // Only the newest of several requests for one place is counted: the place is paid once.
    connection.execute(
        "UPDATE request SET granted = 0 WHERE channel = ?1 AND idx = ?2",
        (entry.number, int(index)?),
    )?;
    connection.execute(
        "INSERT INTO request (channel, idx, job, price_max, granted, bytes)
         VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
        (
            entry.number,
            int(index)?,
            job.as_bytes(),
            amount(body.price_nanograms_max)?,
            request.to_bytes(),
        ),
    )?;
    let view = self::entry(connection, id)?.view;
    let total = sum(view.earned, view.promised).max(view.vouchered());
    if total > view.capacity {
        let capacity = view.capacity;
        return Err(ClientError::Underfunded { total, capacity });
    }
    Ok(())
}

fn deliver(
    connection: &Connection,
    id: &ChannelId,
    receipt: &Receipt,
    claim: &Claim,
) -> Result<Delivery, ClientError> {
    let entry = entry(connection, id)?;
    let (index, consensus) = (claim.index, &receipt.consensus);
    let next = entry.view.commitment.receipts;
    if index != next {
        return Err(ClientError::NotNext { next, asked: index });
    }
    let price_max = connection
        .query_row(
            "SELECT price_max FROM request WHERE channel = ?1 AND idx = ?2 AND job = ?3",
            (entry.number, int(index)?, consensus.job.as_bytes()),
            |row| Ok(row.nanograms("price_max")),
        )
        .optional()?
        .transpose()?;
    let why = match price_max {
        None => Some("nothing of the kind was asked for"),
        Some(price_max) if consensus.price_nanograms > price_max => {
            Some("it costs more than the request allows")
        }
        Some(_) if consensus.channel != place(id, index) => Some("it names another place"),
        Some(_) if receipt.provider_key != entry.view.provider_key => {
            Some("another key than the channel's provider signed it")
        }
        Some(_) => None,
    };
    if let Some(why) = why {
        return Err(ClientError::OtherReceipt { index, why });
    }
    let bytes = receipt.to_bytes();
    channel::keep_receipt(connection, &entry, claim, consensus.price_nanograms, &bytes)?;
    connection.execute(
        "UPDATE request SET granted = 0 WHERE channel = ?1 AND idx = ?2",
        (entry.number, int(index)?),
    )?;
    channel::grow(connection, &entry)?;
    Ok(Delivery::New)
}

fn voucher(
    connection: &Connection,
    id: &ChannelId,
    running: Nanograms,
    key: &SigningKey,
    now: u32,
) -> Result<SignedVoucher, ClientError> {
    let entry = entry(connection, id)?;
    let view = &entry.view;
    let client = view.record.terms.client_key;
    if key.public_key() != client {
        let found = key.public_key();
        return Err(ClientError::OtherKey { client, found });
    }
    if running > view.promised {
        return Err(ClientError::TooMuch {
            price_max: view.promised,
            asked: running,
        });
    }
    let total = sum(view.earned, running).max(view.vouchered());
    // What was promised already stays promised, although rent may have eaten into the deposit.
    if total > view.capacity && total > view.vouchered() {
        let capacity = view.capacity;
        return Err(ClientError::Underfunded { total, capacity });
    }
    let voucher = Voucher {
        channel: id.clone(),
        amount: total,
        commitment: view.commitment,
    };
    if let Some(kept) = &view.voucher
        && kept.voucher == voucher
    {
        return Ok(kept.clone());
    }
    let signed = voucher.sign(key);
    channel::keep_voucher(connection, &entry, &signed, now)?;
    Ok(signed)
}
