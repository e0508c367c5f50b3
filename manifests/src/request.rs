//! `Request`: what a client signs; its digest is the job id.
//!
//! In: digests, a nonce, a price cap, where to pay. Out: the job id, the signature, and all that
//! derives from the nonce: salt, guest seed, virtual clock. The provider chooses none of these,
//! so it can neither try seeds until the output suits it nor swap the input.

use std::fmt;

use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::channel::Channel;
use crate::digest::{Digest, Domain, Hasher, Salt, to_hex};
use crate::encoding::{Document, EncodingError, Version, cbor_bytes};
use crate::keys::{PublicKey, Signature, SignatureError, SigningKey};
use crate::nanograms::Nanograms;

/// The first second a virtual clock can start at: 2020-01-01T00:00:00Z.
const CLOCK_FIRST_UNIX_S: u64 = 1_577_836_800;
/// How many seconds it can start at: up to 2030-01-01T00:00:00Z, which is not among them.
const CLOCK_SECONDS: u64 = 315_619_200;

/// 32 bytes that make a request unlike every other. Drawn at random by a client, or derived for
/// a local run by [`Nonce::local`]. It gives the salt away, so it is as private as the input.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// Takes 32 bytes, drawn by the caller.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The nonce of a local run: a keyed hash of what runs and on what, so the same run on this
    /// host gives the same receipt, and nobody without the secret can guess its salt.
    pub fn local(secret: &LocalSecret, module: &Digest, manifest: &Digest, input: &[u8]) -> Self {
        let key = Salt::from_bytes(secret.0);
        let mut hasher = Hasher::salted(&key, Domain::LocalNonce);
        hasher.update(module.as_bytes()).update(manifest.as_bytes());
        hasher.update(Digest::of(input).as_bytes());
        Self(*hasher.finish().as_bytes())
    }

    /// The salt of every salted digest of this job.
    pub fn derive_salt(&self) -> Salt {
        Salt::from_bytes(*Digest::derive(Domain::Salt, &self.0).as_bytes())
    }

    /// The seed of all randomness the guest sees: `wasi:random` and sampling.
    pub fn derive_seed(&self) -> Seed {
        Seed(*Digest::derive(Domain::Seed, &self.0).as_bytes())
    }

    /// Where the guest's virtual wall clock starts, in seconds since 1970: a whole second from
    /// 2020 to 2029. Its virtual monotonic clock starts at 0.
    pub fn derive_clock(&self) -> u64 {
        let digest = Digest::derive(Domain::Clock, &self.0);
        let first = digest
            .as_bytes()
            .first_chunk()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes));
        CLOCK_FIRST_UNIX_S + first % CLOCK_SECONDS
    }

    fn from_wire(bytes: [u8; 32]) -> Result<Self, &'static str> {
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

impl Serialize for Nonce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

cbor_bytes!(Nonce(32));

/// 32 bytes from which all of a guest's randomness comes.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A host's own secret, from which the nonces of its local runs come. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LocalSecret([u8; 32]);

impl LocalSecret {
    /// Takes 32 secret bytes, drawn by the caller.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for LocalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalSecret(..)")
    }
}

/// What a client asks for, without its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RequestBody {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// Digest of the manifest's canonical bytes.
    #[n(1)]
    pub manifest: Digest,
    /// Digest of the module's bytes; the same as in the manifest.
    #[n(2)]
    pub module: Digest,
    /// Salted digest of the input: [`RequestBody::input_digest`].
    #[n(3)]
    pub input: Digest,
    /// What salt, seed and clock derive from.
    #[n(4)]
    pub nonce: Nonce,
    /// The most the client pays for this job.
    #[n(5)]
    pub price_nanograms_max: Nanograms,
    /// Where it is paid.
    #[n(6)]
    pub channel: Channel,
    /// When the result is worth nothing any more, in milliseconds since 1970.
    /// Local runs have none: their receipts depend on no clock.
    #[n(7)]
    #[serde(serialize_with = "crate::json::u64_string_option")]
    pub deadline_unix_ms: Option<u64>,
    /// The client's key, which signs the request.
    #[n(8)]
    pub client_key: PublicKey,
}

impl Document for RequestBody {
    const NAME: &'static str = "request body";
    const BYTES_MAX: usize = 1024;

    fn check(&self) -> Result<(), String> {
        if self.price_nanograms_max > Nanograms::MAX {
            return Err(format!(
                "price_nanograms_max is more than there is: {}",
                Nanograms::MAX
            ));
        }
        if self.channel == Channel::Local && self.deadline_unix_ms.is_some() {
            return Err("deadline_unix_ms stands in a local request, which has none".to_owned());
        }
        Ok(())
    }
}

impl RequestBody {
    /// The job id.
    pub fn job_id(&self) -> Digest {
        Digest::derive(Domain::RequestBody, &self.to_bytes())
    }

    /// The salted digest of an input, as [`RequestBody::input`] has to be.
    pub fn input_digest(nonce: &Nonce, input: &[u8]) -> Digest {
        Digest::salted(&nonce.derive_salt(), Domain::Input, input)
    }

    /// Whether `input` is what this request was made for.
    pub fn is_for_input(&self, input: &[u8]) -> bool {
        self.input == Self::input_digest(&self.nonce, input)
    }

    /// Signs the body.
    ///
    /// # Errors
    /// [`RequestError::OtherKey`] if `key` is not the secret of `client_key`;
    /// [`RequestError::Encoding`] if a field is out of its range.
    pub fn sign(self, key: &SigningKey) -> Result<Request, RequestError> {
        if key.public_key() != self.client_key {
            return Err(RequestError::OtherKey {
                client_key: self.client_key,
                signing_key: key.public_key(),
            });
        }
        self.check().map_err(|message| EncodingError::Invalid {
            document: Self::NAME,
            message,
        })?;
        let signature = key.sign(&self.signed_digest());
        Ok(Request {
            body: self,
            signature,
        })
    }

    /// What the client signs.
    fn signed_digest(&self) -> Digest {
        Digest::derive(Domain::RequestSignature, &self.to_bytes())
    }
}

/// A request as it travels: the body and the client's signature over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Request {
    /// What is asked for.
    #[n(0)]
    pub body: RequestBody,
    /// By `body.client_key`, over the body's canonical bytes under their own domain.
    #[n(1)]
    pub signature: Signature,
}

impl Document for Request {
    const NAME: &'static str = "request";
    const BYTES_MAX: usize = 2048;

    fn check(&self) -> Result<(), String> {
        self.body.check()
    }
}

impl Request {
    /// Whether the client signed this body.
    ///
    /// # Errors
    /// [`RequestError`] if a field is out of its range or the signature does not fit.
    pub fn verify(&self) -> Result<(), RequestError> {
        self.check().map_err(|message| EncodingError::Invalid {
            document: Self::NAME,
            message,
        })?;
        self.body
            .client_key
            .verify(&self.body.signed_digest(), &self.signature)?;
        Ok(())
    }

    /// The JSON view.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}

/// Why a request is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The bytes or fields are wrong.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The signature does not fit.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A body can be signed by its own client only.
    #[error("the request names {client_key} as the client and would be signed by {signing_key}")]
    OtherKey {
        /// The key in the body.
        client_key: PublicKey,
        /// The public half of the key that was to sign.
        signing_key: PublicKey,
    },
}
