//! What a provider's book does within one transaction.
//!
//! In: rows as they are, and one request, receipt or voucher. Out: what is to be answered, after
//! the rows were changed; or why not, and then nothing of it stays.

use rusqlite::{Connection, OptionalExtension};
use tussah_manifest::{
    Digest, Document, Nanograms, PublicKey, Receipt, Request, SigningKey, TreeNodes,
};
use tussah_settlement::channel::ChannelStatus;
use tussah_settlement::voucher::{ChannelId, Claim, SignedVoucher};

use super::{AdmitRules, Grant, ProviderError};
use crate::channel::{self, ChannelView, Entry, place};
use crate::rows::{Columns, amount, int, less, sum};
use crate::store::StoreError;

pub(crate) fn entry(connection: &Connection, id: &ChannelId) -> Result<Entry, ProviderError> {
    channel::find(connection, id)?.ok_or_else(|| ProviderError::Unknown(id.address.to_string()))
}

/// Behind all that was ever admitted.
pub(super) fn next_index(connection: &Connection, entry: &Entry) -> Result<u64, ProviderError> {
    let last: Option<i64> = connection.query_row(
        "SELECT max(idx) FROM (SELECT idx FROM receipt WHERE channel = ?1
            UNION ALL SELECT idx FROM request WHERE channel = ?1)",
        [entry.number],
        |row| row.get(0),
    )?;
    let last = last.map(u64::try_from).transpose();
    let last = last.map_err(|_| StoreError::Damaged("idx"))?;
    Ok(last.map_or(0, |last| last + 1))
}

struct Running {
    job: Digest,
    price_max: Nanograms,
    granted: Nanograms,
}

fn running_at(
    connection: &Connection,
    entry: &Entry,
    index: u64,
) -> Result<Option<Running>, StoreError> {
    let running = connection
        .query_row(
            "SELECT job, price_max, granted FROM request WHERE channel = ?1 AND idx = ?2",
            (entry.number, int(index)?),
            |row| {
                Ok((|| {
                    Ok(Running {
                        job: row.digest("job")?,
                        price_max: row.nanograms("price_max")?,
                        granted: row.nanograms("granted")?,
                    })
                })())
            },
        )
        .optional()?;
    running.transpose()
}

fn running(connection: &Connection, entry: &Entry, index: u64) -> Result<Running, ProviderError> {
    running_at(connection, entry, index)?.ok_or(ProviderError::OtherReceipt {
        index,
        why: "no job runs there",
    })
}

pub(super) fn admit(
    connection: &Connection,
    id: &ChannelId,
    request: &Request,
    rules: AdmitRules,
    now: u32,
) -> Result<Grant, ProviderError> {
    let entry = entry(connection, id)?;
    let body = &request.body;
    let client = entry.view.record.terms.client_key;
    if body.client_key != client {
        return Err(ProviderError::OtherClient {
            client,
            found: body.client_key,
        });
    }
    let tussah_manifest::Channel::Ton { address, index } = body.channel else {
        return Err(ProviderError::OtherChannel("a local request".to_owned()));
    };
    if address != channel::document_address(&id.address) {
        return Err(ProviderError::OtherChannel(address.to_string()));
    }
    let (job, stop_at) = (body.job_id(), stop_at(&entry.view, rules));
    if let Some(running) = running_at(connection, &entry, index)? {
        if running.job != job {
            let job = running.job;
            return Err(ProviderError::Taken { index, job });
        }
        return Ok(Grant {
            index,
            job,
            granted: running.granted,
            stop_at,
        });
    }
    let next = next_index(connection, &entry)?;
    if index != next {
        return Err(ProviderError::NotNext { next, asked: index });
    }
    channel::check_not_behind(&entry.view)?;
    check_end(&entry.view, rules, now)?;
    let granted = body.price_nanograms_max.min(rules.grant_max);
    check_risk(&entry.view, granted)?;
    connection.execute(
        "INSERT INTO request (channel, idx, job, price_max, granted, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            entry.number,
            int(index)?,
            job.as_bytes(),
            amount(body.price_nanograms_max)?,
            amount(granted)?,
            request.to_bytes(),
        ),
    )?;
    Ok(Grant {
        index,
        job,
        granted,
        stop_at,
    })
}

pub(super) fn release(
    connection: &Connection,
    id: &ChannelId,
    channel: tussah_manifest::Channel,
    job: Digest,
) -> Result<bool, ProviderError> {
    let entry = entry(connection, id)?;
    let tussah_manifest::Channel::Ton { index, .. } = channel else {
        return Err(ProviderError::OtherChannel("a local request".to_owned()));
    };
    let is_last = next_index(connection, &entry)?.checked_sub(1) == Some(index);
    if channel != place(id, index) || !is_last {
        return Ok(false);
    }
    let released = connection.execute(
        "DELETE FROM request WHERE channel = ?1 AND idx = ?2 AND job = ?3",
        (entry.number, int(index)?, job.as_bytes()),
    )?;
    Ok(released > 0)
}

fn stop_at(view: &ChannelView, rules: AdmitRules) -> u32 {
    view.deadline.saturating_sub(rules.stop_before_seconds)
}

fn check_end(view: &ChannelView, rules: AdmitRules, now: u32) -> Result<(), ProviderError> {
    if view.status != ChannelStatus::Open || now >= stop_at(view, rules) {
        return Err(ProviderError::Ending {
            status: view.status,
            deadline: view.deadline,
        });
    }
    Ok(())
}

/// That `more` may be granted: to the in-flight maximum, and to the deposit.
fn check_risk(view: &ChannelView, more: Nanograms) -> Result<(), ProviderError> {
    let total = sum(sum(view.earned, view.promised), more);
    let at_risk = less(total, view.vouchered());
    let in_flight_max = view.record.in_flight_max;
    if at_risk > in_flight_max {
        return Err(ProviderError::AtRisk {
            at_risk,
            asked: more,
            in_flight_max,
        });
    }
    if total > view.capacity {
        return Err(ProviderError::Underfunded {
            total,
            capacity: view.capacity,
        });
    }
    Ok(())
}

/// Where the claim to a receipt comes from.
pub(super) enum Word {
    /// From the provider's key, here.
    Key(Box<SigningKey>),
    /// From another process, which has the key.
    Claim(Box<Claim>),
}

impl Word {
    fn is_of_another(&self, provider: &PublicKey) -> bool {
        match self {
            Self::Key(key) => key.public_key() != *provider,
            // Whose it is shows when it is verified.
            Self::Claim(_) => false,
        }
    }
}

pub(super) fn finish(
    connection: &Connection,
    id: &ChannelId,
    receipt: &Receipt,
    word: &Word,
) -> Result<Claim, ProviderError> {
    let entry = entry(connection, id)?;
    let consensus = &receipt.consensus;
    let tussah_manifest::Channel::Ton { index, .. } = consensus.channel else {
        return Err(ProviderError::OtherChannel("a local receipt".to_owned()));
    };
    if consensus.channel != place(id, index) {
        return Err(ProviderError::OtherChannel(consensus.channel.to_string()));
    }
    let (bytes, digest) = (receipt.to_bytes(), receipt.digest());
    if let Some(kept) = channel::receipt_at(connection, &entry, index)? {
        if kept.digest != digest {
            let why = "another receipt stands there";
            return Err(ProviderError::OtherReceipt { index, why });
        }
        return Ok(kept.claim);
    }
    let running = running(connection, &entry, index)?;
    let why = if consensus.job != running.job {
        Some("it is another job's")
    } else if consensus.price_nanograms > running.granted {
        Some("it costs more than was granted")
    } else if receipt.provider_key != entry.view.provider_key
        || word.is_of_another(&receipt.provider_key)
    {
        Some("it is signed by another key than the channel's")
    } else {
        None
    };
    if let Some(why) = why {
        return Err(ProviderError::OtherReceipt { index, why });
    }
    // In the transaction that takes the place: no second receipt is ever signed for it.
    let claim = match word {
        Word::Key(key) => id.claim(index, &digest, key),
        Word::Claim(claim) => {
            let fits = claim.channel == *id && claim.index == index && claim.receipt == digest;
            if !fits || claim.verify(&entry.view.provider_key).is_err() {
                let why = "the claim is not the provider's word for it";
                return Err(ProviderError::OtherReceipt { index, why });
            }
            (**claim).clone()
        }
    };
    channel::keep_receipt(
        connection,
        &entry,
        &claim,
        consensus.price_nanograms,
        &bytes,
    )?;
    connection.execute(
        "DELETE FROM request WHERE channel = ?1 AND idx = ?2",
        (entry.number, int(index)?),
    )?;
    channel::grow(connection, &entry)?;
    Ok(claim)
}

pub(super) fn accept(
    connection: &Connection,
    id: &ChannelId,
    signed: &SignedVoucher,
    now: u32,
) -> Result<Nanograms, ProviderError> {
    let mut entry = entry(connection, id)?;
    let view = &entry.view;
    let voucher = &signed.voucher;
    if voucher.channel != *id {
        let other = voucher.channel.address.to_string();
        return Err(ProviderError::OtherChannel(other));
    }
    signed.verify(&view.record.terms.client_key)?;
    let (found, receipts) = (voucher.amount, voucher.commitment.receipts);
    let kept = view.vouchered();
    if found < kept {
        return Err(ProviderError::Lower { kept, found });
    }
    // More than is due is taken: a job that was paid ahead may have failed since, or cost less. The
    // client cannot sign for less than it once did, so to refuse it would end the channel.
    let kept_receipts = view
        .voucher
        .as_ref()
        .map(|kept| kept.voucher.commitment.receipts);
    let ours = receipts <= view.commitment.receipts
        && Some(receipts) >= kept_receipts
        && entry.tree(connection).commitment_at(receipts)? == voucher.commitment;
    if !ours {
        return Err(ProviderError::OtherRoot { receipts });
    }
    channel::keep_voucher(connection, &entry, signed, now)?;
    entry.view.voucher = Some(signed.clone());
    Ok(entry.view.at_risk())
}

pub(super) fn extend(
    connection: &Connection,
    id: &ChannelId,
    index: u64,
    granted: Nanograms,
    rules: AdmitRules,
    now: u32,
) -> Result<Grant, ProviderError> {
    let entry = entry(connection, id)?;
    let running = running(connection, &entry, index)?;
    let granted = granted.min(running.price_max).max(running.granted);
    check_end(&entry.view, rules, now)?;
    check_risk(&entry.view, less(granted, running.granted))?;
    connection.execute(
        "UPDATE request SET granted = ?3 WHERE channel = ?1 AND idx = ?2",
        (entry.number, int(index)?, amount(granted)?),
    )?;
    Ok(Grant {
        index,
        job: running.job,
        granted,
        stop_at: stop_at(&entry.view, rules),
    })
}
