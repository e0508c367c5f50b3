//! `Digest`: 32 bytes of BLAKE3; parse, print, compare, salt.
//!
//! In: bytes, at once or in pieces. Out: digests of content, digests bound to one purpose
//! ([`Domain`]), and digests that only the holder of a [`Salt`] can recompute.
//! It never hashes anything without saying for what: plain digests name blobs and nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroize;

/// What `Display` writes before the hex digits.
const PREFIX: &str = "blake3:";

/// 32 bytes of BLAKE3. Prints as `blake3:` and 64 lowercase hex digits, and parses only that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes bytes that are a digest already.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Plain BLAKE3 of content: the name of a blob (module, model, manifest).
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// BLAKE3 of `bytes` in key-derivation mode under the context of `domain`.
    /// Equal bytes under two domains have unrelated digests.
    pub fn derive(domain: Domain, bytes: &[u8]) -> Self {
        Self(blake3::derive_key(domain.context(), bytes))
    }

    /// Keyed BLAKE3 of `bytes`; the key is `salt` under the context of `domain`.
    /// Without the salt nobody can test a guess of `bytes`, however short they are.
    pub fn salted(salt: &Salt, domain: Domain, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::salted(salt, domain);
        hasher.update(bytes);
        hasher.finish()
    }

    /// 64 lowercase hex digits, without the prefix: the name of a blob's file.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// Reads what [`Digest::to_hex`] writes.
    ///
    /// # Errors
    /// [`DigestError`] if it is anything else.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        parse_hex(hex).map(Self).map_err(|error| match error {
            HexError::Length(digits) => DigestError::Length { digits },
            HexError::Digit(index, found) => DigestError::Digit { index, found },
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix(PREFIX)
            .ok_or(DigestError::Prefix)
            .and_then(Self::from_hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Why a text is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text does not start with `blake3:`.
    #[error("a digest starts with `blake3:`, followed by 64 lowercase hex digits")]
    Prefix,
    /// Too few or too many hex digits.
    #[error("a digest has 64 hex digits, this has {digits}")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// A character that is no lowercase hex digit.
    #[error("`{found}` is no lowercase hex digit (after {index} of them)")]
    Digit {
        /// Good digits before the wrong character.
        index: usize,
        /// The wrong character.
        found: char,
    },
}

/// What a digest or derived key is for. The context strings are part of every signature and
/// receipt ever made: they are fixed forever, and a changed format gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// The canonical request body; this digest is the job id.
    RequestBody,
    /// What a client signs, over the canonical request body.
    RequestSignature,
    /// The job's input, salted.
    Input,
    /// The job's output, salted.
    Output,
    /// The message of a job's own error, salted.
    JobError,
    /// The salt, from the request's nonce.
    Salt,
    /// The guest's random seed, from the request's nonce.
    Seed,
    /// The start of the guest's virtual clock, from the request's nonce.
    Clock,
    /// The nonce of a local run, from the host's secret.
    LocalNonce,
    /// The canonical consensus part of a receipt.
    Consensus,
    /// The canonical evidence part of a receipt.
    Evidence,
    /// What a provider signs.
    ReceiptSignature,
    /// A whole receipt, signature included: what a commitment's leaf holds.
    Receipt,
    /// The canonical profile.
    Profile,
    /// The configuration of the wasm engine, named by a profile.
    EngineConfig,
    /// One recorded host call, salted.
    HostCall,
    /// The list of host-call digests.
    Transcript,
    /// The kernels that an engine loaded at run time.
    Kernels,
    /// What a verifier of builds signs, over the canonical claim.
    ClaimSignature,
    /// The files of std for a wasm target that a module links.
    WasmStd,
}

impl Domain {
    /// Every domain, in the order of the documentation.
    pub const ALL: [Self; 20] = [
        Self::RequestBody,
        Self::RequestSignature,
        Self::Input,
        Self::Output,
        Self::JobError,
        Self::Salt,
        Self::Seed,
        Self::Clock,
        Self::LocalNonce,
        Self::Consensus,
        Self::Evidence,
        Self::ReceiptSignature,
        Self::Receipt,
        Self::Profile,
        Self::EngineConfig,
        Self::HostCall,
        Self::Transcript,
        Self::Kernels,
        Self::ClaimSignature,
        Self::WasmStd,
    ];

    /// The context string given to BLAKE3's key derivation.
    pub const fn context(self) -> &'static str {
        match self {
            Self::RequestBody => "tussah 2026-11 request body v1",
            Self::RequestSignature => "tussah 2026-11 request signature v1",
            Self::Input => "tussah 2026-11 salted input v1",
            Self::Output => "tussah 2026-11 salted output v1",
            Self::JobError => "tussah 2026-11 salted job error v1",
            Self::Salt => "tussah 2026-11 salt of nonce v1",
            Self::Seed => "tussah 2026-11 seed of nonce v1",
            Self::Clock => "tussah 2026-11 clock of nonce v1",
            Self::LocalNonce => "tussah 2026-11 local nonce v1",
            Self::Consensus => "tussah 2026-11 receipt consensus v1",
            Self::Evidence => "tussah 2026-11 receipt evidence v1",
            Self::ReceiptSignature => "tussah 2026-11 receipt signature v1",
            Self::Receipt => "tussah 2026-11 receipt v1",
            Self::Profile => "tussah 2026-11 profile v1",
            Self::EngineConfig => "tussah 2026-11 engine config v1",
            Self::HostCall => "tussah 2026-11 salted host call v1",
            Self::Transcript => "tussah 2026-11 transcript v1",
            Self::Kernels => "tussah 2026-11 kernels v1",
            Self::ClaimSignature => "tussah 2026-11 build claim signature v1",
            // What set-up hashed std under before there was a version; records hold it.
            Self::WasmStd => "tussah 2026 std of a wasm target",
        }
    }
}

/// A digest taken piece by piece; the pieces' borders leave no trace.
#[derive(Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// As [`Digest::of`].
    pub fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// As [`Digest::derive`].
    pub fn derive(domain: Domain) -> Self {
        Self(blake3::Hasher::new_derive_key(domain.context()))
    }

    /// As [`Digest::salted`].
    pub fn salted(salt: &Salt, domain: Domain) -> Self {
        let mut key = blake3::derive_key(domain.context(), &salt.0);
        let hasher = blake3::Hasher::new_keyed(&key);
        key.zeroize();
        Self(hasher)
    }

    /// Adds `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The digest of everything added so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state of a keyed hash gives its key away.
        f.write_str("Hasher(..)")
    }
}

/// 32 secret bytes that keep outsiders from guessing what a digest is of.
/// Known to the client and the provider of one job; stands in the opening, never in a receipt.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// Takes bytes that are a salt already.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// Why hex digits could not be read.
pub(crate) enum HexError {
    /// Not two digits a byte; how many characters there were.
    Length(usize),
    /// Index and character of the first that is no lowercase hex digit.
    Digit(usize, char),
}

/// Lowercase hex digits of `bytes`.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads exactly `2 * N` lowercase hex digits.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    if let Some((index, found)) = text
        .chars()
        .enumerate()
        .find(|(_, c)| !matches!(c, '0'..='9' | 'a'..='f'))
    {
        return Err(HexError::Digit(index, found));
    }
    if text.len() != 2 * N {
        return Err(HexError::Length(text.len()));
    }
    let nibble = |digit: u8| {
        if digit <= b'9' {
            digit - b'0'
        } else {
            digit - b'a' + 10
        }
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    Ok(bytes)
}

impl Digest {
    fn from_wire(bytes: [u8; 32]) -> Result<Self, &'static str> {
        Ok(Self(bytes))
    }
}

impl Salt {
    fn from_wire(bytes: [u8; 32]) -> Result<Self, &'static str> {
        Ok(Self(bytes))
    }
}

crate::encoding::cbor_bytes!(Digest(32), Salt(32));
