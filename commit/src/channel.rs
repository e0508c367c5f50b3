//! What both books know of a channel: what was agreed on, what the chain says, the newest voucher.
//!
//! In: terms, answers of a chain. Out: one row, read and written within a transaction.
//! Never: an address that does not follow from the terms, or a state of the chain that is older
//! than one that was seen: answers can be late, and come in any order.

use rusqlite::{Connection, OptionalExtension, Row};
use tussah_manifest::{
    Channel, ChannelAddress, Commitment, Digest, InclusionProof, Nanograms, PublicKey, TreeHash,
    TreeNodes,
};
use tussah_settlement::chain::StackReader;
use tussah_settlement::channel::{self, ChannelState, ChannelStatus, ProviderSide, Terms};
use tussah_settlement::voucher::{ChannelId, Claim, NetworkId, SignedVoucher, Voucher};
use tussah_settlement::{Address, Chain, ChainError};

use crate::rows::{Columns, amount, int};
use crate::store::StoreError;
use crate::tree::{Tree, TreeError};

/// A channel that two parties agreed to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRecord {
    /// Which opening of which account.
    pub id: ChannelId,
    /// What cannot change.
    pub terms: Terms,
    /// The provider's part as it was at first; the address follows from both.
    pub side: ProviderSide,
    /// The most that may be unpaid at any time: done or promised, and not vouchered.
    pub in_flight_max: Nanograms,
}

impl ChannelRecord {
    /// Whether the account is the one that the terms lead to.
    pub fn is_of_its_terms(&self) -> bool {
        channel::address(&self.terms, &self.side) == self.id.address
    }
}

/// A channel as the chain shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The contract's state.
    pub state: ChannelState,
    /// The largest amount that can be credited by now.
    pub capacity: Nanograms,
}

impl Look {
    /// Asks the chain.
    ///
    /// # Errors
    /// [`ChainError`] if it does not say, or there is no channel at the address.
    pub async fn at<C: Chain>(chain: &C, address: &Address) -> Result<Self, ChainError> {
        let state = chain
            .run_get_method(address, ChannelState::METHOD, Vec::new())
            .await?;
        let method = "channel_capacity";
        let capacity = chain.run_get_method(address, method, Vec::new()).await?;
        let mut capacity = StackReader::new(method, capacity);
        Ok(Self {
            state: ChannelState::from_stack(state)?,
            capacity: capacity.nanograms()?,
        })
    }
}

/// A channel as a book has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelView {
    /// What was agreed on.
    pub record: ChannelRecord,
    /// The provider's key now.
    pub provider_key: PublicKey,
    /// Where the channel is in its life, as seen last.
    pub status: ChannelStatus,
    /// From this second on nothing is redeemed.
    pub deadline: u32,
    /// The largest amount that the deposit covers.
    pub capacity: Nanograms,
    /// Credited to the provider on chain, cumulative.
    pub redeemed: Nanograms,
    /// Credited and not paid out.
    pub owed: Nanograms,
    /// Receipts in the root that was posted last.
    pub posted_receipts: u64,
    /// What both sides hold: the receipts in the tree, and the root over them.
    pub commitment: Commitment,
    /// The price of all receipts that there are, cumulative.
    pub earned: Nanograms,
    /// What running jobs may spend, or at most will.
    pub promised: Nanograms,
    /// The newest voucher.
    pub voucher: Option<SignedVoucher>,
    /// When the oldest amount that is not redeemed was promised.
    pub voucher_since: u32,
}

impl ChannelView {
    /// What the newest voucher promises.
    pub fn vouchered(&self) -> Nanograms {
        let voucher = self.voucher.as_ref();
        voucher.map_or(Nanograms::ZERO, |signed| signed.voucher.amount)
    }

    /// What is done or promised, and not vouchered: what the provider would lose.
    pub fn at_risk(&self) -> Nanograms {
        crate::rows::less(
            crate::rows::sum(self.earned, self.promised),
            self.vouchered(),
        )
    }
}

/// Why a book is not the one that the channel went on with.
#[derive(Debug, thiserror::Error)]
pub enum PostedError {
    /// The chain has receipts that the book lacks: to go on would fill their places anew.
    #[error("{posted} receipts are posted on chain, and the book has {held}: it is an older copy")]
    Older {
        /// Receipts that the chain has.
        posted: u64,
        /// Receipts that the book has.
        held: u64,
    },
    /// The chain has other receipts.
    #[error("the root that is posted over {receipts} receipts is not the book's")]
    OtherRoot {
        /// Receipts that the chain has.
        receipts: u64,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// That what was posted is in the book.
pub(crate) fn check_posted(
    connection: &Connection,
    entry: &Entry,
    posted: &Commitment,
) -> Result<(), PostedError> {
    let (held, receipts) = (entry.view.commitment.receipts, posted.receipts);
    if receipts > held {
        return Err(older(receipts, held));
    }
    match entry.tree(connection).commitment_at(receipts) {
        Ok(ours) if ours == *posted => Ok(()),
        Err(TreeError::Store(error)) => Err(error.into()),
        Ok(_) | Err(TreeError::Proof(_)) => Err(PostedError::OtherRoot { receipts }),
    }
}

/// The same by the number that was seen last, which is all that a book keeps of it.
pub(crate) fn check_not_behind(view: &ChannelView) -> Result<(), PostedError> {
    let (held, posted) = (view.commitment.receipts, view.posted_receipts);
    if posted > held {
        return Err(older(posted, held));
    }
    Ok(())
}

const fn older(posted: u64, held: u64) -> PostedError {
    PostedError::Older { posted, held }
}

/// The channel's address as documents carry it.
pub(crate) fn document_address(address: &Address) -> ChannelAddress {
    ChannelAddress {
        workchain: i32::from(address.workchain),
        account: address.address.0,
    }
}

/// The place of a receipt, as requests and receipts name it.
pub(crate) fn place(id: &ChannelId, index: u64) -> Channel {
    Channel::Ton {
        address: document_address(&id.address),
        index,
    }
}

/// A channel's row.
pub(crate) struct Entry {
    pub(crate) number: i64,
    pub(crate) view: ChannelView,
}

impl Entry {
    pub(crate) fn tree<'a>(&self, connection: &'a Connection) -> Tree<'a> {
        Tree::new(connection, self.number, self.view.commitment.receipts)
    }
}

/// Adds a channel, or finds it as it is. What was agreed on cannot change.
pub(crate) fn add(
    connection: &Connection,
    record: &ChannelRecord,
    look: &Look,
) -> Result<Added, StoreError> {
    if let Some(entry) = find(connection, &record.id)? {
        return Ok(if entry.view.record == *record {
            Added::Known
        } else {
            Added::Differs
        });
    }
    let (terms, side) = (&record.terms, &record.side);
    connection.execute(
        "INSERT INTO channel (network, address, incarnation, client, owner, client_key,
            challenge_seconds, redeem_step_min, salt, first_key, first_payout, provider_key,
            in_flight_max, status, deadline, capacity, voucher_root)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?10, ?12, 0, ?13, 0, ?14)",
        rusqlite::params![
            record.id.network.0,
            record.id.address.to_string(),
            record.id.incarnation,
            terms.client.to_string(),
            terms.owner.to_string(),
            terms.client_key.as_bytes(),
            terms.challenge_seconds,
            amount(terms.redeem_step_min)?,
            terms.salt.to_be_bytes(),
            side.key.as_bytes(),
            side.payout.to_string(),
            amount(record.in_flight_max)?,
            look.state.deadline,
            TreeHash::empty_root().as_bytes(),
        ],
    )?;
    let number = connection.last_insert_rowid();
    see(connection, number, look)?;
    Ok(Added::New)
}

pub(crate) enum Added {
    New,
    Known,
    Differs,
}

/// Writes what the chain says, where it is newer. Every column only moves one way, except what is
/// owed and what the deposit covers, which stand beside the redeemed amount that they go with.
pub(crate) fn see(connection: &Connection, number: i64, look: &Look) -> Result<(), StoreError> {
    let state = &look.state;
    let status = status_number(state.status);
    connection.execute(
        "UPDATE channel SET
            deadline = CASE WHEN ?2 >= status THEN min(deadline, ?3) ELSE deadline END,
            owed = CASE WHEN ?5 >= redeemed THEN ?6 ELSE owed END,
            capacity = CASE WHEN ?5 >= redeemed AND ?2 >= status THEN ?4 ELSE capacity END,
            posted_receipts = max(posted_receipts, ?7),
            redeemed = max(redeemed, ?5),
            status = max(status, ?2)
         WHERE id = ?1",
        (
            number,
            status,
            state.deadline,
            amount(look.capacity)?,
            amount(state.redeemed)?,
            amount(state.owed)?,
            int(state.commitment.receipts)?,
        ),
    )?;
    Ok(())
}

/// The channel, if the book has it.
pub(crate) fn find(connection: &Connection, id: &ChannelId) -> Result<Option<Entry>, StoreError> {
    let entry = connection
        .query_row(
            "SELECT * FROM channel WHERE network = ?1 AND address = ?2 AND incarnation = ?3",
            (id.network.0, id.address.to_string(), id.incarnation),
            |row| Ok(read(connection, row)),
        )
        .optional()?;
    entry.transpose()
}

/// All channels of the book.
pub(crate) fn all(connection: &Connection) -> Result<Vec<ChannelView>, StoreError> {
    let mut statement = connection.prepare("SELECT * FROM channel ORDER BY id")?;
    let entries = statement.query_map([], |row| Ok(read(connection, row)))?;
    let mut views = Vec::new();
    for entry in entries {
        views.push(entry??.view);
    }
    Ok(views)
}

fn read(connection: &Connection, row: &Row<'_>) -> Result<Entry, StoreError> {
    let number: i64 = row.value("id")?;
    let id = ChannelId {
        network: NetworkId(row.value("network")?),
        address: row.address("address")?,
        incarnation: row.array("incarnation")?,
    };
    let record = ChannelRecord {
        id: id.clone(),
        terms: Terms {
            client: row.address("client")?,
            owner: row.address("owner")?,
            client_key: row.key("client_key")?,
            challenge_seconds: row.second("challenge_seconds")?,
            redeem_step_min: row.nanograms("redeem_step_min")?,
            salt: u64::from_be_bytes(row.array("salt")?),
        },
        side: ProviderSide {
            key: row.key("first_key")?,
            payout: row.address("first_payout")?,
        },
        in_flight_max: row.nanograms("in_flight_max")?,
    };
    let receipts = row.count("receipts")?;
    let tree = Tree::new(connection, number, receipts);
    let commitment = match tree.commitment_at(receipts) {
        Ok(commitment) => commitment,
        Err(TreeError::Store(error)) => return Err(error),
        Err(TreeError::Proof(_)) => return Err(StoreError::Damaged("receipts")),
    };
    let signature: Option<Vec<u8>> = row.value("voucher_signature")?;
    let voucher = match signature {
        None => None,
        Some(_) => Some(SignedVoucher {
            voucher: Voucher {
                channel: id,
                amount: row.nanograms("voucher_amount")?,
                commitment: Commitment {
                    receipts: row.count("voucher_receipts")?,
                    root: row.hash("voucher_root")?,
                },
            },
            signature: row.signature("voucher_signature")?,
        }),
    };
    let total = |sql| -> Result<Nanograms, StoreError> {
        let total: i64 = connection.query_row(sql, [number], |row| row.get(0))?;
        let total = u64::try_from(total).ok().and_then(Nanograms::new);
        total.ok_or(StoreError::Damaged("a sum of amounts"))
    };
    Ok(Entry {
        number,
        view: ChannelView {
            record,
            provider_key: row.key("provider_key")?,
            status: status_of(row.count("status")?)?,
            deadline: row.second("deadline")?,
            capacity: row.nanograms("capacity")?,
            redeemed: row.nanograms("redeemed")?,
            owed: row.nanograms("owed")?,
            posted_receipts: row.count("posted_receipts")?,
            commitment,
            earned: row.nanograms("earned")?,
            promised: total("SELECT coalesce(sum(granted), 0) FROM request WHERE channel = ?1")?,
            voucher,
            voucher_since: row.second("voucher_since")?,
        },
    })
}

/// Keeps a voucher as the newest. Its age is that of the oldest amount that is not redeemed.
pub(crate) fn keep_voucher(
    connection: &Connection,
    entry: &Entry,
    signed: &SignedVoucher,
    now: u32,
) -> Result<(), StoreError> {
    let covered = entry.view.vouchered() <= entry.view.redeemed;
    let since = if covered {
        now
    } else {
        entry.view.voucher_since
    };
    connection.execute(
        "UPDATE channel SET voucher_amount = ?2, voucher_receipts = ?3, voucher_root = ?4,
            voucher_signature = ?5, voucher_since = ?6 WHERE id = ?1",
        (
            entry.number,
            amount(signed.voucher.amount)?,
            int(signed.voucher.commitment.receipts)?,
            signed.voucher.commitment.root.as_bytes(),
            signed.signature.as_bytes(),
            since,
        ),
    )?;
    Ok(())
}

/// A receipt's row.
pub(crate) struct Kept {
    pub(crate) digest: Digest,
    pub(crate) claim: Claim,
    pub(crate) bytes: Vec<u8>,
}

/// The receipt at an index, in the tree or waiting for it.
pub(crate) fn receipt_at(
    connection: &Connection,
    entry: &Entry,
    index: u64,
) -> Result<Option<Kept>, StoreError> {
    let kept = connection
        .query_row(
            "SELECT digest, claim, bytes FROM receipt WHERE channel = ?1 AND idx = ?2",
            (entry.number, int(index)?),
            |row| {
                Ok((|| {
                    let digest = row.digest("digest")?;
                    Ok(Kept {
                        digest,
                        claim: Claim {
                            channel: entry.view.record.id.clone(),
                            index,
                            receipt: digest,
                            signature: row.signature("claim")?,
                        },
                        bytes: row.value("bytes")?,
                    })
                })())
            },
        )
        .optional()?;
    kept.transpose()
}

/// Keeps a receipt with its claim; whether it is in the tree yet is [`grow`]'s to say.
pub(crate) fn keep_receipt(
    connection: &Connection,
    entry: &Entry,
    claim: &Claim,
    price: Nanograms,
    bytes: &[u8],
) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO receipt (channel, idx, digest, price, claim, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            entry.number,
            int(claim.index)?,
            claim.receipt.as_bytes(),
            amount(price)?,
            claim.signature.as_bytes(),
            bytes,
        ),
    )?;
    connection.execute(
        "UPDATE channel SET earned = earned + ?2 WHERE id = ?1",
        (entry.number, amount(price)?),
    )?;
    Ok(())
}

/// Takes into the tree all receipts that nothing is missing before. Returns how many it has now.
pub(crate) fn grow(connection: &Connection, entry: &Entry) -> Result<u64, StoreError> {
    let mut tree = entry.tree(connection);
    let mut receipts = entry.view.commitment.receipts;
    while let Some(kept) = receipt_at(connection, entry, receipts)? {
        tree.append(&kept.digest)?;
        receipts += 1;
    }
    connection.execute(
        "UPDATE channel SET receipts = ?2 WHERE id = ?1",
        (entry.number, int(receipts)?),
    )?;
    Ok(receipts)
}

/// A receipt with the proof that it is in the commitment of the first `receipts`.
pub(crate) fn proof(
    connection: &Connection,
    entry: &Entry,
    index: u64,
    receipts: u64,
) -> Result<(Digest, Commitment, InclusionProof), TreeError> {
    let tree = entry.tree(connection);
    let proof = tree.prove_inclusion(index, receipts)?;
    let kept = receipt_at(connection, entry, index)?;
    let kept = kept.ok_or(StoreError::Damaged("a receipt of the tree is missing"))?;
    Ok((kept.digest, tree.commitment_at(receipts)?, proof))
}

pub(crate) const fn status_number(status: ChannelStatus) -> u8 {
    match status {
        ChannelStatus::Unopened => 0,
        ChannelStatus::Open => 1,
        ChannelStatus::Closing => 2,
        ChannelStatus::Closed => 3,
    }
}

fn status_of(number: u64) -> Result<ChannelStatus, StoreError> {
    Ok(match number {
        0 => ChannelStatus::Unopened,
        1 => ChannelStatus::Open,
        2 => ChannelStatus::Closing,
        3 => ChannelStatus::Closed,
        _ => return Err(StoreError::Damaged("status")),
    })
}
