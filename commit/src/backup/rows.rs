//! A channel's rows, to a file's content and back.
//!
//! In: a transaction. Out: what a file holds of it, or the rows that a checked file stands for.

use rusqlite::Connection;
use tussah_manifest::{Document, PublicKey, Version};

use super::{
    Backup, BackupError, Content, KeptConflict, KeptReceipt, KeptRequest, KeptVoucher, wrong,
};
use crate::channel::{self, Entry};
use crate::rows::{Columns, amount, int};
use crate::store::{Role, StoreError};
pub(super) fn content(
    connection: &Connection,
    role: Role,
    entry: &Entry,
) -> Result<Content, BackupError> {
    let view = &entry.view;
    let (record, terms) = (&view.record, &view.record.terms);
    let mut kept = Vec::new();
    let mut statement = connection
        .prepare("SELECT idx, claim, bytes FROM receipt WHERE channel = ?1 ORDER BY idx")?;
    let mut rows = statement.query([entry.number])?;
    while let Some(row) = rows.next()? {
        kept.push(KeptReceipt {
            index: row.count("idx")?,
            claim: row.signature("claim")?,
            bytes: row.value("bytes")?,
        });
    }
    let mut requests = Vec::new();
    let mut statement = connection
        .prepare("SELECT granted, bytes FROM request WHERE channel = ?1 ORDER BY idx, rowid")?;
    let mut rows = statement.query([entry.number])?;
    while let Some(row) = rows.next()? {
        requests.push(KeptRequest {
            granted: row.nanograms("granted")?,
            bytes: row.value("bytes")?,
        });
    }
    let mut conflicts = Vec::new();
    let mut statement =
        connection.prepare("SELECT * FROM conflict WHERE channel = ?1 ORDER BY rowid")?;
    let mut rows = statement.query([entry.number])?;
    while let Some(row) = rows.next()? {
        conflicts.push(KeptConflict {
            index: row.count("idx")?,
            key: row.key("provider_key")?,
            receipt: row.digest("digest")?,
            claim: row.signature("claim")?,
        });
    }
    Ok(Content {
        version: Version::V1,
        role: match role {
            Role::Provider => 0,
            Role::Client => 1,
        },
        network: record.id.network.0,
        address: record.id.address.to_string(),
        incarnation: record.id.incarnation.into(),
        client: terms.client.to_string(),
        owner: terms.owner.to_string(),
        client_key: terms.client_key,
        challenge_seconds: terms.challenge_seconds,
        redeem_step_min: terms.redeem_step_min,
        salt: terms.salt,
        first_key: record.side.key,
        first_payout: record.side.payout.to_string(),
        provider_key: view.provider_key,
        in_flight_max: record.in_flight_max,
        receipts: view.commitment.receipts,
        kept,
        requests,
        voucher: view.voucher.as_ref().map(|signed| KeptVoucher {
            amount: signed.voucher.amount,
            receipts: signed.voucher.commitment.receipts,
            root: (*signed.voucher.commitment.root.as_bytes()).into(),
            signature: signed.signature,
            since: view.voucher_since,
        }),
        conflicts,
    })
}

/// That nothing of the book would be lost.
pub(super) fn check_newer(
    connection: &Connection,
    entry: &Entry,
    backup: &Backup,
) -> Result<(), BackupError> {
    let older = |what: String| {
        Err(BackupError::Older {
            than: "the book",
            what,
        })
    };
    let (view, held) = (&entry.view, backup.tree.len());
    if view.record != backup.record {
        return Err(wrong("the book has this channel on other terms"));
    }
    let receipts = view.commitment.receipts;
    if receipts > held {
        return older(format!("it has {held} receipts, and the book {receipts}"));
    }
    if backup.tree.commitment_at(receipts) != Ok(view.commitment) {
        return Err(wrong("its receipts are not those of the book"));
    }
    if view.vouchered() > backup.vouchered() {
        let (found, kept) = (backup.vouchered(), view.vouchered());
        return older(format!(
            "its voucher is for {found}, and the book's for {kept}"
        ));
    }
    let last: Option<i64> = connection.query_row(
        "SELECT max(idx) FROM (SELECT idx FROM receipt WHERE channel = ?1
            UNION ALL SELECT idx FROM request WHERE channel = ?1)",
        [entry.number],
        |row| row.get(0),
    )?;
    if last.is_some_and(|last| u64::try_from(last).is_ok_and(|last| last >= backup.next_index())) {
        return older("the book knows later jobs".to_owned());
    }
    Ok(())
}

pub(super) fn replace(
    connection: &Connection,
    entry: &Entry,
    backup: &Backup,
    key: &PublicKey,
) -> Result<(), BackupError> {
    for table in ["receipt", "node", "request", "posting"] {
        connection.execute(
            &format!("DELETE FROM {table} WHERE channel = ?1"),
            [entry.number],
        )?;
    }
    connection.execute(
        "UPDATE channel SET receipts = 0, earned = 0, provider_key = ?2 WHERE id = ?1",
        (entry.number, key.as_bytes()),
    )?;
    let id = &backup.record.id;
    let again = || -> Result<Entry, BackupError> {
        let entry = channel::find(connection, id)?;
        Ok(entry.ok_or(StoreError::Damaged("a channel that was just added"))?)
    };
    let emptied = again()?;
    for (claim, receipt) in &backup.receipts {
        let (price, bytes) = (receipt.consensus.price_nanograms, receipt.to_bytes());
        channel::keep_receipt(connection, &emptied, claim, price, &bytes)?;
    }
    channel::grow(connection, &emptied)?;
    for asked in &backup.requests {
        let request = &asked.request;
        connection.execute(
            "INSERT INTO request (channel, idx, job, price_max, granted, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (
                entry.number,
                int(asked.index)?,
                request.body.job_id().as_bytes(),
                amount(request.body.price_nanograms_max)?,
                amount(asked.granted)?,
                request.to_bytes(),
            ),
        )?;
    }
    if let Some((signed, since)) = &backup.voucher {
        channel::keep_voucher(connection, &again()?, signed, *since)?;
    }
    for (key, claim) in &backup.conflicts {
        connection.execute(
            "INSERT OR IGNORE INTO conflict (channel, idx, provider_key, digest, claim)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            (
                entry.number,
                int(claim.index)?,
                key.as_bytes(),
                claim.receipt.as_bytes(),
                claim.signature.as_bytes(),
            ),
        )?;
    }
    Ok(())
}
