//! What a file says that no signature alone vouches for.
//!
//! In: receipts and requests whose signatures are good. Out: that they are those of one book, and
//! the provider's; or which one is not. It asks no chain: what that says is handed in.

use std::collections::{BTreeMap, BTreeSet};

use tussah_manifest::{Digest, Nanograms, PublicKey, Receipt};
use tussah_settlement::voucher::Claim;

use super::{Asked, Backup, BackupError};
use crate::store::Role;

/// That requests and receipts fill the places from 0 on, each as the role's book would have it.
pub(super) fn check(
    role: Role,
    receipts: &[(Claim, Receipt)],
    requests: &[Asked],
) -> Result<(), BackupError> {
    let refused = |index, why| Err(BackupError::Request { index, why });
    let mut places: BTreeSet<u64> = receipts.iter().map(|(claim, _)| claim.index).collect();
    let mut asked: BTreeMap<(u64, Digest), Nanograms> = BTreeMap::new();
    for Asked {
        index,
        granted,
        request,
    } in requests
    {
        let (index, body) = (*index, &request.body);
        let is_free = match role {
            // Only what has no receipt yet is kept, and one for a place.
            Role::Provider => places.insert(index),
            // All that were signed are kept; what has its receipt is promised no more.
            Role::Client => places.insert(index) || !has(receipts, index) || is_nothing(*granted),
        };
        if !is_free {
            return refused(index, "the place is taken");
        }
        let key = (index, body.job_id());
        if asked.insert(key, body.price_nanograms_max).is_some() {
            return refused(index, "it is there twice");
        }
    }
    if let Some((index, _)) = (0..).zip(&places).find(|(index, place)| index != *place) {
        return refused(index, "it is missing, and there are later ones");
    }
    let prices = receipts.iter().map(|(_, receipt)| price(receipt));
    let granted = requests.iter().map(|asked| asked.granted);
    let total = prices.chain(granted).try_fold(0_u64, |total, amount| {
        let total = total.checked_add(amount.get())?;
        Nanograms::new(total).map(Nanograms::get)
    });
    if total.is_none() {
        return Err(super::wrong("all of it costs more than there is"));
    }
    if role == Role::Client {
        for (claim, receipt) in receipts {
            let index = claim.index;
            let refused = |why| Err(BackupError::Receipt { index, why });
            match asked.get(&(index, receipt.consensus.job)) {
                None => return refused("it answers no request"),
                Some(price_max) if price(receipt) > *price_max => {
                    return refused("it costs more than its request allows");
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

const fn price(receipt: &Receipt) -> Nanograms {
    receipt.consensus.price_nanograms
}

fn is_nothing(granted: Nanograms) -> bool {
    granted == Nanograms::ZERO
}

fn has(receipts: &[(Claim, Receipt)], index: u64) -> bool {
    let found = receipts.binary_search_by_key(&index, |(claim, _)| claim.index);
    found.is_ok()
}

/// That the provider signed what neither the chain nor the client has: the first `posted`
/// receipts are in the posted root, and others in that of the client's voucher.
pub(super) fn check_keys(
    backup: &Backup,
    posted: u64,
    present: &PublicKey,
) -> Result<(), BackupError> {
    let voucher = backup.voucher.as_ref();
    let vouchered = voucher.map_or(0, |(signed, _)| signed.voucher.commitment.receipts);
    let sealed = posted.max(vouchered);
    let first = &backup.record.side.key;
    for (claim, receipt) in &backup.receipts {
        let key = &receipt.provider_key;
        if claim.index >= sealed && key != first && key != present {
            return Err(BackupError::Receipt {
                index: claim.index,
                why: "another key than the channel's provider signed it",
            });
        }
    }
    Ok(())
}
