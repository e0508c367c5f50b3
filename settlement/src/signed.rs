//! What is signed for the contracts: 32-byte cell hashes, under tags that keep them apart.
//!
//! In: layouts of `contracts/messages.tolk`. Out: Ed25519 signatures over their hashes.

use tussah_manifest::{Digest, PublicKey, Signature, SignatureError, SigningKey};

pub(crate) const VOUCHER_TAG: u32 = 0x5475_0001;
pub(crate) const REDEEM_TAG: u32 = 0x5475_0002;
pub(crate) const CLOSE_TAG: u32 = 0x5475_0003;
pub(crate) const CLAIM_TAG: u32 = 0x5475_0004;

/// Signs a cell's hash, as `CHKSIGNU` checks it: the 32 bytes are the signed message.
pub(crate) fn sign(key: &SigningKey, hash: [u8; 32]) -> Signature {
    key.sign(&Digest::from_bytes(hash))
}

/// Checks what [`sign`] made; stricter than the TVM, which also takes keys of small order.
pub(crate) fn verify(
    key: &PublicKey,
    hash: [u8; 32],
    signature: &Signature,
) -> Result<(), SignatureError> {
    key.verify(&Digest::from_bytes(hash), signature)
}
