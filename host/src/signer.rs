//! The signer's process: it loads the keys, and `tussah_provider::signer` decides what they sign.
//!
//! In: a socket from the gateway, the key files, the ledger to read. Out: signatures. Once it has
//! its keys it is confined to the ledger's folder: it can open no socket, no other file and no
//! program. It ends when the gateway does.

use std::path::Path;

use tussah_manifest::{
    ChannelAddress, Commitment, Digest, Nanograms, Signature, SigningKey, TreeHash,
};
use tussah_provider::{
    isolation::{self, Reach},
    ledger::LedgerView,
    signer::Signer,
    wire::{Opening, Posting},
};
use tussah_settlement::{
    Address,
    voucher::{ChannelId, NetworkId, Voucher},
};

use crate::{
    exit_code::Exit,
    failure::Failure,
    home::Home,
    keys::{self, KeyName},
    serve::{self, LEDGER},
};

/// Signs until the gateway is gone.
///
/// # Errors
/// A failure if this process is none that a gateway started, a key cannot be used, or the ledger
/// cannot be read.
pub(crate) fn serve() -> Result<Exit, Failure> {
    let socket = serve::child_socket()?;
    let home = Home::open()?;
    let load = |name| keys::load_or_create(&home, name).map(|key| SigningKey::from_bytes(&key));
    let (provider, client) = (load(KeyName::Provider)?, load(KeyName::Client)?);
    let ledger = home.folder(serve::FOLDER)?.join(LEDGER);
    // SQLite's readers write too: which of them reads what stands in a file beside the database.
    let reach = Reach {
        write: ledger.parent().map(Path::to_owned).into_iter().collect(),
        ..Reach::of_system()
    };
    isolation::confine(&reach).map_err(Failure::host)?;
    let view = LedgerView::open(&ledger).map_err(Failure::host)?;
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Failure::host)?;
    executor.block_on(async {
        let socket = serve::Link::new(socket).map_err(Failure::host)?;
        let (reader, writer) = tokio::io::split(socket);
        let signer = Signer::new(provider, client, view)
            .with_claims(sign_claim)
            .with_postings(sign_posting);
        signer.serve(reader, writer).await.map_err(Failure::host)
    })?;
    Ok(Exit::DONE)
}

/// The provider's word that a receipt is the one at a place of a channel, as its contract reads it.
fn sign_claim(
    address: &ChannelAddress,
    index: u64,
    opening: &Opening,
    receipt: &Digest,
    key: &SigningKey,
) -> Option<Signature> {
    let id = channel_id(address.workchain, address.account, opening)?;
    Some(id.claim(index, receipt, key).signature)
}

/// The provider's consent to a voucher's being posted, as the channel's contract reads it.
fn sign_posting(posting: &Posting, key: &SigningKey) -> Option<Signature> {
    let voucher = Voucher {
        channel: channel_id(posting.workchain, posting.account, &posting.opening)?,
        amount: Nanograms::new(posting.amount)?,
        commitment: Commitment {
            receipts: posting.receipts,
            root: TreeHash::from_bytes(posting.root),
        },
    };
    Some(voucher.consent(key))
}

fn channel_id(workchain: i32, account: [u8; 32], opening: &Opening) -> Option<ChannelId> {
    Some(ChannelId {
        network: NetworkId(opening.network),
        address: Address::new(i8::try_from(workchain).ok()?, account.into()),
        incarnation: opening.incarnation,
    })
}
