//! A channel's book as one file: to be kept elsewhere, and to go on from on another machine.
//!
//! In: a book, or a file that was one. Out: the file's bytes, or the book's rows again.
//! It holds receipts, requests and the newest voucher, and no secret key. A file is a stranger's
//! until its digest, its encoding, every signature, the tree's root, who signed what and what
//! answers what were checked. It never
//! takes a book back: one with fewer receipts or a smaller voucher than the book, or with fewer
//! receipts than the chain, is refused.

mod rows;
mod rules;

use minicbor::bytes::ByteArray;
use tussah_manifest::{
    Channel, Commitment, Digest, Document, EncodingError, Nanograms, PublicKey, Receipt,
    ReceiptTree, Request, Signature, TreeHash, Version,
};
use tussah_settlement::Address;
use tussah_settlement::channel::{ProviderSide, Terms};
use tussah_settlement::voucher::{ChannelId, Claim, NetworkId, SignedVoucher, Voucher};

use crate::channel::{self, ChannelRecord, Look, place};
use crate::client::ClientBook;
use crate::provider::ProviderBook;
use crate::store::{Role, Store, StoreError};

/// What the file begins with; the last 32 bytes are the BLAKE3 of all before them.
const MAGIC: &[u8] = b"tussah channel book 1\n";
/// Bytes of a digest at the end.
const DIGEST_BYTES: usize = 32;

/// Why a file is not taken, or none can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The book has no such channel.
    #[error("the book has no channel {0}")]
    Unknown(String),
    /// Another kind of file.
    #[error("this is no exported channel book")]
    Magic,
    /// Not all of it is there, or something in it was changed.
    #[error("the file is damaged: its digest does not fit")]
    Digest,
    /// What is in it is not as it is written.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// What is in it does not fit together.
    #[error("the exported book is refused: {0}")]
    Wrong(String),
    /// A receipt that the channel cannot have.
    #[error("the exported book is refused: receipt {index}: {why}")]
    Receipt {
        /// Its place.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A request that the channel cannot have.
    #[error("the exported book is refused: the request for index {index}: {why}")]
    Request {
        /// Its place.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The chain holds other receipts.
    #[error("the root that is posted over {receipts} receipts is not the file's")]
    OtherRoot {
        /// Receipts that are posted.
        receipts: u64,
    },
    /// The other side's book.
    #[error("this is a {found}'s book, and a {expected}'s is wanted")]
    OtherRole {
        /// Whose it is.
        found: &'static str,
        /// Whose it has to be.
        expected: &'static str,
    },
    /// The book, or the chain, is further on.
    #[error("the file is older than {than}: {what}")]
    Older {
        /// What is newer: `the book` or `the chain`.
        than: &'static str,
        /// What is missing.
        what: String,
    },
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Content {
    #[n(0)]
    version: Version,
    /// 0 for a provider's, 1 for a client's.
    #[n(1)]
    role: u8,
    #[n(2)]
    network: i32,
    #[n(3)]
    address: String,
    #[n(4)]
    incarnation: ByteArray<32>,
    #[n(5)]
    client: String,
    #[n(6)]
    owner: String,
    #[n(7)]
    client_key: PublicKey,
    #[n(8)]
    challenge_seconds: u32,
    #[n(9)]
    redeem_step_min: Nanograms,
    #[n(10)]
    salt: u64,
    #[n(11)]
    first_key: PublicKey,
    #[n(12)]
    first_payout: String,
    #[n(13)]
    provider_key: PublicKey,
    #[n(14)]
    in_flight_max: Nanograms,
    /// Receipts in the tree; what `kept` has beyond them waits for an earlier one.
    #[n(15)]
    receipts: u64,
    #[n(16)]
    kept: Vec<KeptReceipt>,
    #[n(17)]
    requests: Vec<KeptRequest>,
    #[n(18)]
    voucher: Option<KeptVoucher>,
    #[n(19)]
    conflicts: Vec<KeptConflict>,
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct KeptReceipt {
    #[n(0)]
    index: u64,
    #[n(1)]
    claim: Signature,
    #[cbor(n(2), with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct KeptRequest {
    #[n(0)]
    granted: Nanograms,
    #[cbor(n(1), with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct KeptVoucher {
    #[n(0)]
    amount: Nanograms,
    #[n(1)]
    receipts: u64,
    #[n(2)]
    root: ByteArray<32>,
    #[n(3)]
    signature: Signature,
    #[n(4)]
    since: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
struct KeptConflict {
    #[n(0)]
    index: u64,
    #[n(1)]
    key: PublicKey,
    #[n(2)]
    receipt: Digest,
    #[n(3)]
    claim: Signature,
}

impl Document for Content {
    const NAME: &'static str = "exported channel book";
    const BYTES_MAX: usize = 1 << 30;
}

/// A request of a file.
#[derive(Debug)]
struct Asked {
    index: u64,
    granted: Nanograms,
    request: Request,
}

/// A file whose content was checked.
#[derive(Debug)]
pub struct Backup {
    role: Role,
    record: ChannelRecord,
    tree: ReceiptTree,
    receipts: Vec<(Claim, Receipt)>,
    requests: Vec<Asked>,
    voucher: Option<(SignedVoucher, u32)>,
    conflicts: Vec<(PublicKey, Claim)>,
}

impl Backup {
    /// Reads a file and checks all that can be checked without a chain.
    ///
    /// # Errors
    /// [`BackupError`]: which part is wrong.
    pub fn from_file(bytes: &[u8]) -> Result<Self, BackupError> {
        let content = bytes.strip_prefix(MAGIC).ok_or(BackupError::Magic)?;
        let at = content.len().checked_sub(DIGEST_BYTES);
        let (content, digest) = content.split_at(at.ok_or(BackupError::Digest)?);
        let hashed = &bytes[..bytes.len() - DIGEST_BYTES];
        if Digest::of(hashed).as_bytes() != digest {
            return Err(BackupError::Digest);
        }
        Self::check(Content::from_bytes(content)?)
    }

    /// The channel that it is of.
    pub fn id(&self) -> &ChannelId {
        &self.record.id
    }

    /// What was agreed on for it.
    pub fn record(&self) -> ChannelRecord {
        self.record.clone()
    }

    fn check(content: Content) -> Result<Self, BackupError> {
        let role = match content.role {
            0 => Role::Provider,
            1 => Role::Client,
            other => return Err(wrong(&format!("there is no role {other}"))),
        };
        let record = record(&content)?;
        let id = &record.id;
        let (mut tree, mut receipts, mut last) = (ReceiptTree::new(), Vec::new(), None);
        for kept in &content.kept {
            let index = kept.index;
            let bad = |why: &dyn std::fmt::Display| wrong(&format!("receipt {index}: {why}"));
            let receipt = Receipt::from_verified_bytes(&kept.bytes).map_err(|error| bad(&error))?;
            let claim = Claim {
                channel: id.clone(),
                index,
                receipt: receipt.digest(),
                signature: kept.claim,
            };
            claim
                .verify(&receipt.provider_key)
                .map_err(|error| bad(&error))?;
            if receipt.consensus.channel != place(id, index) {
                return Err(bad(&"it names another place"));
            }
            if receipt.consensus.price_nanograms > Nanograms::MAX {
                return Err(bad(&"it costs more than there is"));
            }
            if last >= Some(index) {
                return Err(bad(&"the indices do not ascend"));
            }
            if index < content.receipts && tree.append(&claim.receipt) != index {
                return Err(bad(&"one before it is missing"));
            }
            last = Some(index);
            receipts.push((claim, receipt));
        }
        if tree.len() != content.receipts {
            return Err(wrong("receipts are missing"));
        }
        let requests = requests(&content, &record)?;
        rules::check(role, &receipts, &requests)?;
        let mut conflicts = Vec::new();
        for kept in &content.conflicts {
            let claim = Claim {
                channel: id.clone(),
                index: kept.index,
                receipt: kept.receipt,
                signature: kept.claim,
            };
            claim
                .verify(&kept.key)
                .map_err(|error| wrong(&error.to_string()))?;
            let first = receipts.iter().find(|(first, _)| first.index == kept.index);
            if first.is_none_or(|(first, _)| first.receipt == kept.receipt) {
                return Err(wrong("a claim that contradicts no receipt"));
            }
            conflicts.push((kept.key, claim));
        }
        let voucher = voucher(&content, &record, &tree)?;
        Ok(Self {
            role,
            tree,
            receipts,
            requests,
            voucher,
            conflicts,
            record,
        })
    }

    fn next_index(&self) -> u64 {
        let receipts = self.receipts.iter().map(|(claim, _)| claim.index + 1);
        let requests = self.requests.iter().map(|asked| asked.index + 1);
        receipts.chain(requests).max().unwrap_or(0)
    }

    fn vouchered(&self) -> Nanograms {
        let voucher = self.voucher.as_ref();
        voucher.map_or(Nanograms::ZERO, |(signed, _)| signed.voucher.amount)
    }
}

fn wrong(what: &str) -> BackupError {
    BackupError::Wrong(what.to_owned())
}

fn requests(content: &Content, record: &ChannelRecord) -> Result<Vec<Asked>, BackupError> {
    let mut requests = Vec::new();
    for kept in &content.requests {
        let request = Request::from_bytes(&kept.bytes)?;
        request
            .verify()
            .map_err(|error| wrong(&error.to_string()))?;
        let body = &request.body;
        let Channel::Ton { index, .. } = body.channel else {
            return Err(wrong("a local request"));
        };
        if body.channel != place(&record.id, index) || body.client_key != record.terms.client_key {
            return Err(wrong("a request of another channel or client"));
        }
        if body.price_nanograms_max > Nanograms::MAX || kept.granted > body.price_nanograms_max {
            return Err(BackupError::Request {
                index,
                why: "more is granted than it may cost, or than there is",
            });
        }
        requests.push(Asked {
            index,
            granted: kept.granted,
            request,
        });
    }
    Ok(requests)
}

fn record(content: &Content) -> Result<ChannelRecord, BackupError> {
    let address = |text: &str| -> Result<Address, BackupError> {
        let address: Result<Address, _> = text.parse();
        let address = address.map_err(|_| wrong("an address is none"))?;
        if address.to_string() == text {
            Ok(address)
        } else {
            Err(wrong("an address is written in another way"))
        }
    };
    let record = ChannelRecord {
        id: ChannelId {
            network: NetworkId(content.network),
            address: address(&content.address)?,
            incarnation: *content.incarnation,
        },
        terms: Terms {
            client: address(&content.client)?,
            owner: address(&content.owner)?,
            client_key: content.client_key,
            challenge_seconds: content.challenge_seconds,
            redeem_step_min: content.redeem_step_min,
            salt: content.salt,
        },
        side: ProviderSide {
            key: content.first_key,
            payout: address(&content.first_payout)?,
        },
        in_flight_max: content.in_flight_max,
    };
    if record.terms.redeem_step_min > Nanograms::MAX || record.in_flight_max > Nanograms::MAX {
        return Err(wrong("an amount is more than there is"));
    }
    if !record.is_of_its_terms() {
        return Err(wrong("the address does not follow from the terms"));
    }
    Ok(record)
}

fn voucher(
    content: &Content,
    record: &ChannelRecord,
    tree: &ReceiptTree,
) -> Result<Option<(SignedVoucher, u32)>, BackupError> {
    let Some(kept) = &content.voucher else {
        return Ok(None);
    };
    let signed = SignedVoucher {
        voucher: Voucher {
            channel: record.id.clone(),
            amount: kept.amount,
            commitment: Commitment {
                receipts: kept.receipts,
                root: TreeHash::from_bytes(*kept.root),
            },
        },
        signature: kept.signature,
    };
    let is_over_tree = tree.commitment_at(kept.receipts) == Ok(signed.voucher.commitment);
    if kept.amount > Nanograms::MAX || !is_over_tree {
        return Err(wrong("the voucher is not over these receipts"));
    }
    signed
        .verify(&record.terms.client_key)
        .map_err(|error| wrong(&error.to_string()))?;
    Ok(Some((signed, kept.since)))
}

fn export(store: &Store, role: Role, id: &ChannelId) -> Result<Vec<u8>, BackupError> {
    let content = store.read(|connection| {
        let entry = channel::find(connection, id)?
            .ok_or_else(|| BackupError::Unknown(id.address.to_string()))?;
        rows::content(connection, role, &entry)
    })?;
    let mut file = MAGIC.to_vec();
    file.extend(content.to_bytes());
    let digest = Digest::of(&file);
    file.extend(digest.as_bytes());
    Ok(file)
}

fn import(
    store: &Store,
    role: Role,
    backup: Backup,
    look: &Look,
    key: &PublicKey,
) -> Result<(), BackupError> {
    if backup.role != role {
        return Err(BackupError::OtherRole {
            found: backup.role.name(),
            expected: role.name(),
        });
    }
    if look.state.incarnation != backup.record.id.incarnation {
        return Err(wrong("the channel on chain is another opening"));
    }
    let (posted, held) = (look.state.commitment.receipts, backup.tree.len());
    if posted > held {
        return Err(BackupError::Older {
            than: "the chain",
            what: format!("{posted} receipts are posted, and it holds {held}"),
        });
    }
    if posted > 0 && backup.tree.commitment_at(posted) != Ok(look.state.commitment) {
        return Err(BackupError::OtherRoot { receipts: posted });
    }
    rules::check_keys(&backup, posted, key)?;
    let (look, key) = (look.clone(), *key);
    store.write(move |connection| {
        channel::add(connection, &backup.record, &look)?;
        let entry = channel::find(connection, &backup.record.id)?
            .ok_or(StoreError::Damaged("a channel that was just added"))?;
        rows::check_newer(connection, &entry, &backup)?;
        rows::replace(connection, &entry, &backup, &key)
    })
}

impl ProviderBook {
    /// All of a channel, as a file.
    ///
    /// # Errors
    /// [`BackupError::Unknown`] if the book does not have it.
    pub fn export(&self, id: &ChannelId) -> Result<Vec<u8>, BackupError> {
        export(&self.store, Role::Provider, id)
    }

    /// Takes a channel's file in, which must not be older than the book or than the chain. `key`
    /// is the provider's present one, by the chain: what a file says of it nobody signed.
    ///
    /// A provider that has lost its book takes the newest file that it has, and asks its client for
    /// receipts that the file lacks before it admits anything: to sign another receipt for a place
    /// that has one costs its bond.
    ///
    /// # Errors
    /// [`BackupError`]: what is wrong with it, or what it would take back; nothing changed.
    pub fn import(&self, backup: Backup, look: &Look, key: &PublicKey) -> Result<(), BackupError> {
        import(&self.store, Role::Provider, backup, look, key)
    }
}

impl ClientBook {
    /// All of a channel, as a file.
    ///
    /// # Errors
    /// [`BackupError::Unknown`] if the book does not have it.
    pub fn export(&self, id: &ChannelId) -> Result<Vec<u8>, BackupError> {
        export(&self.store, Role::Client, id)
    }

    /// Takes a channel's file in, which must not be older than the book or than the chain. `key`
    /// is the provider's present one, by the chain: what a file says of it nobody signed.
    ///
    /// # Errors
    /// [`BackupError`]: what is wrong with it, or what it would take back; nothing changed.
    pub fn import(&self, backup: Backup, look: &Look, key: &PublicKey) -> Result<(), BackupError> {
        import(&self.store, Role::Client, backup, look, key)
    }
}
