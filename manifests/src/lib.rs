//! The documents that both sides of a job sign, and the one byte encoding they are signed over.
//!
//! In: TOML text, canonical bytes, keys, nonces. Out: checked documents, digests, signatures,
//! JSON views. This crate never reads a file, a clock or a random source, never waits, and does
//! not know wasm, models or the chain: callers bring bytes and keys, and get values back.
//!
//! | document | who writes it | who signs it | what its digest is |
//! |---|---|---|---|
//! | [`JobDescription`] (`tussah.toml`) | the developer | nobody | it has none |
//! | [`Manifest`] | `tussah build` | nobody, the request names it | BLAKE3 of its canonical bytes |
//! | [`RequestBody`], [`Request`] | the client | the client | the body's is the job id |
//! | [`Consensus`], [`Evidence`], [`Receipt`] | the provider | the provider | the leaf of a commitment |
//! | [`Profile`], [`Opening`] | the provider | the receipt names the profile | |
//! | [`BuildInfo`] | `tussah build`, into the module | nobody | it has none |
//! | [`ClaimBody`], [`Claim`] | who built a module again | the same | it has none |
//! | [`Commitment`] | both | a voucher, later | its own root |
//!
//! `docs/formats.md` describes every byte, with test vectors.

mod build_info;
mod channel;
mod claim;
mod codes;
mod commitment;
mod difference;
mod digest;
mod encoding;
mod exit;
mod json;
mod keys;
mod limits;
mod manifest;
mod names;
mod nanograms;
mod opening;
mod profile;
mod receipt;
mod request;
mod transcript;

pub use build_info::{BUILD_SECTION, BuildInfo, BuildRecord};
pub use channel::{Channel, ChannelAddress, ChannelAddressError};
pub use claim::{Claim, ClaimBody, ClaimError, Verdict};
pub use commitment::{
    Commitment, ConsistencyProof, InclusionProof, ProofError, ReceiptTree, TreeHash, TreeHashError,
    TreeNodes,
};
pub use difference::Difference;
pub use digest::{Digest, DigestError, Domain, Hasher, Salt};
pub use encoding::{Document, EncodingError, Version};
pub use exit::{Determinism, ExitStatus, LimitHit, Trap};
pub use keys::{KeyError, PublicKey, Signature, SignatureError, SigningKey};
pub use limits::{LimitError, LimitField, Limits, Unit};
pub use manifest::{
    Abi, DeterminismRequest, DeviceRequest, JobDescription, MANIFEST_TEXT_BYTES_MAX, MODELS_MAX,
    Manifest, ManifestError, ModelFormat, ModelRef, ModuleRef, Position,
};
pub use names::{JobName, Label, LabelError, ModelName, NameError};
pub use nanograms::Nanograms;
pub use opening::{Opening, OpeningError};
pub use profile::Profile;
pub use receipt::{Consensus, Evidence, Receipt, ReceiptError};
pub use request::{LocalSecret, Nonce, Request, RequestBody, RequestError, Seed};
pub use transcript::{Transcript, TranscriptFull};
