//! `Voucher`: a client's cumulative promise to pay, bound to one opening of one channel.
//!
//! In: an amount and the commitment that both sides hold. Out: what either side signs, and the
//! messages that carry the signatures. A voucher says what was spent in all, so only the newest
//! one matters; who keeps it, and whether to sign it, is the callers' business.

use tussah_manifest::{
    Commitment, Digest, Nanograms, PublicKey, Signature, SignatureError, SigningKey,
};
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::error::Error;
use tycho_types::models::StdAddr;

use crate::cells::{self, BuilderExt};
use crate::signed::{self, CLAIM_TAG, CLOSE_TAG, REDEEM_TAG, VOUCHER_TAG};

/// A network's global id: configuration parameter 19.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkId(pub i32);

impl NetworkId {
    /// The main network.
    pub const MAINNET: Self = Self(-239);
    /// The test network.
    pub const TESTNET: Self = Self(-3);
    /// The embedded chain: no voucher for it is worth anything elsewhere.
    pub const LOCALNET: Self = Self(0x5475_7373);
}

/// One opening of one channel. An account that was lost and deployed again opens anew, under
/// another incarnation, and no voucher of before is good for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelId {
    /// The network that the channel is on.
    pub network: NetworkId,
    /// The channel's account.
    pub address: StdAddr,
    /// Which opening of it, as the contract states it.
    pub incarnation: [u8; 32],
}

impl ChannelId {
    fn store(&self, builder: &mut CellBuilder, tag: u32) -> Result<(), Error> {
        builder.store_u32(tag)?;
        builder.store_u32(self.network.0.cast_unsigned())?;
        builder.address(&self.address)?;
        builder.bytes(&self.incarnation)
    }

    /// What a provider signs with each receipt: that it is the one at `index`. Two different
    /// receipts signed for one index are worth a part of the provider's bond.
    pub fn claim(&self, index: u64, receipt: &Digest, key: &SigningKey) -> Claim {
        Claim {
            channel: self.clone(),
            index,
            receipt: *receipt,
            signature: signed::sign(key, self.claim_hash(index, receipt)),
        }
    }

    fn claim_hash(&self, index: u64, receipt: &Digest) -> [u8; 32] {
        cells::hash_of(|b| {
            self.store(b, CLAIM_TAG)?;
            b.store_u64(index)?;
            b.bytes(receipt.as_bytes())
        })
    }
}

/// What the client has promised in all, and for which receipts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// The channel that it is good for.
    pub channel: ChannelId,
    /// All that the client owes since the channel was opened.
    pub amount: Nanograms,
    /// The receipts that it owes this for.
    pub commitment: Commitment,
}

impl Voucher {
    fn hash(&self, tag: u32) -> [u8; 32] {
        cells::hash_of(|b| {
            self.channel.store(b, tag)?;
            b.store_u64(self.amount.get())?;
            b.store_u64(self.commitment.receipts)?;
            b.bytes(self.commitment.root.as_bytes())
        })
    }

    /// What the contract's get-method `voucher_hash` answers for the same voucher.
    pub fn signed_hash(&self) -> [u8; 32] {
        self.hash(VOUCHER_TAG)
    }

    /// Promises the amount.
    pub fn sign(self, client: &SigningKey) -> SignedVoucher {
        let signature = signed::sign(client, self.hash(VOUCHER_TAG));
        SignedVoucher {
            voucher: self,
            signature,
        }
    }

    /// Agrees to close on this amount; the channel needs it of both.
    pub fn agree_to_close(&self, key: &SigningKey) -> Signature {
        signed::sign(key, self.hash(CLOSE_TAG))
    }

    /// The message that closes, from the signatures of both.
    pub fn close_message(&self, client: &Signature, provider: &Signature) -> Cell {
        self.message(0x5475_0105, client, provider)
    }

    /// The provider's consent to its being posted: nobody else posts it, or an older one.
    pub fn consent(&self, provider: &SigningKey) -> Signature {
        let hash = self.hash(VOUCHER_TAG);
        let consent = cells::hash_of(|b| {
            b.store_u32(REDEEM_TAG)?;
            b.bytes(&hash)
        });
        signed::sign(provider, consent)
    }

    /// `op provider_signature amount receipts root ^client_signature`: 928 bits and 512 beside.
    fn message(&self, op: u32, client: &Signature, provider: &Signature) -> Cell {
        let client = cells::cell(|b| b.bytes(client.as_bytes()));
        cells::cell(|b| {
            b.store_u32(op)?;
            b.bytes(provider.as_bytes())?;
            b.store_u64(self.amount.get())?;
            b.store_u64(self.commitment.receipts)?;
            b.store_u256(&HashBytes(*self.commitment.root.as_bytes()))?;
            b.store_reference(client)
        })
    }
}

/// A voucher that the client signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVoucher {
    /// What was promised.
    pub voucher: Voucher,
    /// The client's signature over it.
    pub signature: Signature,
}

impl SignedVoucher {
    /// Whether the client signed this.
    ///
    /// # Errors
    /// [`SignatureError`] if it did not.
    pub fn verify(&self, client: &PublicKey) -> Result<(), SignatureError> {
        signed::verify(client, self.voucher.hash(VOUCHER_TAG), &self.signature)
    }

    /// The message that redeems it, for an external or an internal message alike.
    pub fn redeem_message(&self, provider: &SigningKey) -> Cell {
        self.redeem_message_with(&self.voucher.consent(provider))
    }

    /// The same with a consent that another process signed, which has the provider's key.
    pub fn redeem_message_with(&self, consent: &Signature) -> Cell {
        self.voucher.message(0x5475_0103, &self.signature, consent)
    }
}

/// A provider's word that a receipt is the one at an index of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The channel.
    pub channel: ChannelId,
    /// The receipt's place in it.
    pub index: u64,
    /// The receipt's digest.
    pub receipt: Digest,
    /// The provider's signature.
    pub signature: Signature,
}

impl Claim {
    /// Whether the provider gave it.
    ///
    /// # Errors
    /// [`SignatureError`] if it did not.
    pub fn verify(&self, provider: &PublicKey) -> Result<(), SignatureError> {
        let hash = self.channel.claim_hash(self.index, &self.receipt);
        signed::verify(provider, hash, &self.signature)
    }
}
