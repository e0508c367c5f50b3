//! `Claim`: that somebody built a module again from a source, and what came of it; signed.
//!
//! In: the facts of a rebuild. Out: signed bytes, or whether strangers' bytes are a signed claim.
//! By itself it proves who said so: whoever relies on one has to know its key.

use serde::Serialize;

use crate::build_info::{BuildInfo, is_sha256};
use crate::codes::codes;
use crate::digest::{Digest, Domain};
use crate::encoding::{Document, EncodingError, Version};
use crate::keys::{PublicKey, Signature, SignatureError, SigningKey};
use crate::names::{JobName, Label};

codes! {
    /// What came of building a module again.
    Verdict("verdict") {
        /// The same bytes.
        Match = 0 "match",
        /// The same code; custom sections differ.
        MatchCode = 1 "match-code",
        /// Other code.
        Mismatch = 2 "mismatch",
    }
}

/// What a claim says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ClaimBody {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// The job's name.
    #[n(1)]
    pub job: JobName,
    /// What came of it.
    #[n(2)]
    pub verdict: Verdict,
    /// Digest of the module that was given.
    #[n(3)]
    pub module: Digest,
    /// Digest of the module that was built.
    #[n(4)]
    pub rebuilt: Digest,
    /// Digest of the built module without its custom sections.
    #[n(5)]
    pub rebuilt_code: Digest,
    /// SHA-256 of the listing of the source that was built, 64 lowercase hex digits.
    #[n(6)]
    pub source_sha256: Label,
    /// How it was built: what the rebuilt module's section holds.
    #[n(7)]
    pub build: BuildInfo,
    /// What kept the build from the rest of the machine and from the network.
    #[n(8)]
    pub confinement: Label,
    /// The program that verified, and its version.
    #[n(9)]
    pub verifier: Label,
    /// When, in seconds since 1970, by the signer's own clock.
    #[n(10)]
    #[serde(serialize_with = "crate::json::u64_string")]
    pub made_unix_s: u64,
    /// Who says so.
    #[n(11)]
    pub key: PublicKey,
}

impl Document for ClaimBody {
    const NAME: &'static str = "claim body";
    const BYTES_MAX: usize = 12 * 1024;

    fn check(&self) -> Result<(), String> {
        self.build.check()?;
        if !is_sha256(self.source_sha256.as_str()) {
            return Err("source_sha256 is not 64 lowercase hex digits".to_owned());
        }
        if (self.module == self.rebuilt) != (self.verdict == Verdict::Match) {
            return Err(format!(
                "the verdict {} contradicts the digests",
                self.verdict
            ));
        }
        Ok(())
    }
}

impl ClaimBody {
    /// Signs it.
    ///
    /// # Errors
    /// [`ClaimError`] if it says something impossible, or names another key.
    pub fn sign(self, key: &SigningKey) -> Result<Claim, ClaimError> {
        let signature = key.sign(&self.signed_digest());
        let claim = Claim {
            body: self,
            signature,
        };
        claim.verify()?;
        Ok(claim)
    }

    fn signed_digest(&self) -> Digest {
        Digest::derive(Domain::ClaimSignature, &self.to_bytes())
    }
}

/// A signed claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Claim {
    /// What it says.
    #[n(0)]
    pub body: ClaimBody,
    /// By `body.key`, over the body.
    #[n(1)]
    pub signature: Signature,
}

impl Document for Claim {
    const NAME: &'static str = "claim";
    const BYTES_MAX: usize = 13 * 1024;

    fn check(&self) -> Result<(), String> {
        self.body.check()
    }
}

impl Claim {
    /// Whether the key that it names signed exactly this.
    ///
    /// # Errors
    /// [`ClaimError`] if a field is out of its range or the signature does not fit.
    pub fn verify(&self) -> Result<(), ClaimError> {
        self.check().map_err(|message| EncodingError::Invalid {
            document: Self::NAME,
            message,
        })?;
        self.body
            .key
            .verify(&self.body.signed_digest(), &self.signature)?;
        Ok(())
    }

    /// Reads a claim file and verifies it.
    ///
    /// # Errors
    /// [`ClaimError`], whatever is wrong with the bytes.
    pub fn from_verified_bytes(bytes: &[u8]) -> Result<Self, ClaimError> {
        let claim = Self::from_bytes(bytes)?;
        claim.verify()?;
        Ok(claim)
    }

    /// The JSON view.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}

/// Why a claim is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The bytes or fields are wrong.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The signature does not fit.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}
