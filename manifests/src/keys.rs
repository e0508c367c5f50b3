//! Ed25519 keys and signatures as the documents hold them.
//!
//! In: secret bytes that the caller drew or read, and 32-byte digests to sign. Out: public keys,
//! signatures, and whether one fits. It never draws a key, never prints a secret, and accepts
//! one encoding of each key and signature only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, VerifyingKey};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::digest::{Digest, HexError, parse_hex, to_hex};

/// What `Display` writes before the hex digits of a public key.
const PREFIX: &str = "ed25519:";
/// Keys that each thread remembers as points: a daemon's documents bear the same few again and
/// again, and to find a key's point takes a square root.
const POINTS_MAX: usize = 8;

thread_local! {
    /// The points of keys that were checked; the newest, and those in use, in front.
    static POINTS: RefCell<VecDeque<VerifyingKey>> = const { RefCell::new(VecDeque::new()) };
}

/// The point of a key: one of the curve in its canonical encoding, not of small order.
fn point_of(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let known = POINTS.with_borrow_mut(|points| {
        let at = points.iter().position(|key| key.as_bytes() == bytes)?;
        points.swap(0, at);
        points.front().copied()
    });
    if let Some(key) = known {
        return Ok(key);
    }
    // y >= 2^255 - 19 would be a second encoding of a small y.
    let second_encoding =
        bytes[31] & 0x7f == 0x7f && bytes[1..31].iter().all(|b| *b == 0xff) && bytes[0] >= 0xed;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Point)?;
    if second_encoding || key.is_weak() {
        return Err(KeyError::Point);
    }
    POINTS.with_borrow_mut(|points| {
        points.truncate(POINTS_MAX - 1);
        points.push_front(key);
    });
    Ok(key)
}

/// A secret key. Wiped from memory when dropped; `Debug` shows the public half.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Takes 32 secret bytes, which the caller drew from the system's random source.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes, to be stored; wiped when the value is dropped.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs the 32 bytes of a digest, which says by its domain what is signed.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.0.sign(digest.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(secret of {})", self.public_key())
    }
}

/// A public key: a point of the curve in its canonical encoding, not of small order.
/// Prints as `ed25519:` and 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Checks and takes 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Point`] if they are no point, a second encoding of one, or a weak key.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        point_of(&bytes)?;
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lowercase hex digits, without the prefix.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// Whether `signature` is this key's over `digest`, by the strict rules of RFC 8032:
    /// canonical scalars, no points of small order.
    ///
    /// # Errors
    /// [`SignatureError`] if it is not.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        let error = SignatureError { key: *self };
        let key = point_of(&self.0).map_err(|_| error)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(digest.as_bytes(), &signature)
            .map_err(|_| error)
    }

    fn from_wire(bytes: [u8; 32]) -> Result<Self, KeyError> {
        Self::from_bytes(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.to_hex())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let hex = text.strip_prefix(PREFIX).ok_or(KeyError::Text)?;
        let bytes = parse_hex(hex).map_err(|_: HexError| KeyError::Text)?;
        Self::from_bytes(bytes)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// 64 bytes of an Ed25519 signature; whether it is good is for [`PublicKey::verify`] to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes 64 bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    fn from_wire(bytes: [u8; 64]) -> Result<Self, KeyError> {
        Ok(Self(bytes))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

crate::encoding::cbor_bytes!(PublicKey(32), Signature(64));

/// Why bytes or text are no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the way a key is written.
    #[error("a public key is `ed25519:` followed by 64 lowercase hex digits")]
    Text,
    /// 32 bytes that are no usable key.
    #[error("these 32 bytes are no usable Ed25519 public key")]
    Point,
}

/// The signature does not fit the key and what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signature is not {key}'s over this document: it was changed, or another key signed it"
)]
pub struct SignatureError {
    /// The key that should have signed.
    pub key: PublicKey,
}
