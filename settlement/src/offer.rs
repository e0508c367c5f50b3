//! `OfferDocument`: a provider's price sheet, of which the provider's contract holds the digest.
//!
//! In: the bytes of a TOML file, which the provider serves and anybody can compare. Out: checked
//! values, and what is posted of them. Its digest is plain BLAKE3 of the exact bytes, as of every
//! file that is addressed by content; whoever changes a space offers something else.

use serde::Deserialize;
use tussah_manifest::{Digest, Nanograms, PublicKey};

use crate::provider::{Offer, ProviderState};
use crate::voucher::NetworkId;

/// The largest document that is read.
pub const OFFER_BYTES_MAX: usize = 64 << 10;

/// A price sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferDocument {
    /// Of the exact bytes.
    pub digest: Digest,
    /// The network that the provider is paid on.
    pub network: NetworkId,
    /// The key that signs receipts, claims and redeems.
    pub key: PublicKey,
    /// The endpoint's id on the network; zero while there is none.
    pub endpoint: [u8; 32],
    /// For 10^9 units of fuel.
    pub fuel_price: Nanograms,
    /// For 10^9 inference units.
    pub inference_price: Nanograms,
    /// Of the attestation evidence, if there is any.
    pub attestation: Option<Digest>,
}

/// The document as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    offer: u32,
    network: i32,
    key: String,
    endpoint: Option<String>,
    fuel_price_nanograms: u64,
    inference_price_nanograms: u64,
    attestation: Option<String>,
}

impl OfferDocument {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// - [`OfferError::Size`] if it has more than 64 KiB.
    /// - [`OfferError::Toml`] with line and column, if it is no TOML of these fields.
    /// - [`OfferError::Field`] if a field is not what it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, OfferError> {
        if bytes.len() > OFFER_BYTES_MAX {
            return Err(OfferError::Size);
        }
        let table: Table = toml::from_slice(bytes)?;
        let wrong = |field, expected| OfferError::Field { field, expected };
        if table.offer != 1 {
            return Err(wrong("offer", "1, the only format there is"));
        }
        let amount = |field, value| {
            Nanograms::new(value).ok_or_else(|| wrong(field, "an amount that there is"))
        };
        let digest = |text: String| {
            let digest = text.parse();
            digest.map_err(|_| wrong("attestation", "a digest: `blake3:` and 64 hex digits"))
        };
        let key = table.key.parse();
        let endpoint = table.endpoint.map_or(Some([0; 32]), |text| hex32(&text));
        Ok(Self {
            digest: Digest::of(bytes),
            network: NetworkId(table.network),
            key: key.map_err(|_| wrong("key", "a public key: `ed25519:` and 64 hex digits"))?,
            endpoint: endpoint.ok_or_else(|| wrong("endpoint", "64 lowercase hex digits"))?,
            fuel_price: amount("fuel_price_nanograms", table.fuel_price_nanograms)?,
            inference_price: amount("inference_price_nanograms", table.inference_price_nanograms)?,
            attestation: table.attestation.map(digest).transpose()?,
        })
    }

    /// What of it is posted.
    pub fn posted(&self) -> Offer {
        Offer {
            digest: self.digest,
            attestation: self.attestation.unwrap_or(Digest::from_bytes([0; 32])),
            fuel_price: self.fuel_price,
            inference_price: self.inference_price,
        }
    }

    /// Whether this is the document that the provider's contract lists, on `network`.
    ///
    /// # Errors
    /// [`OfferError::Other`] with the first thing that differs.
    pub fn check(
        &self,
        network: NetworkId,
        state: &ProviderState,
        posted: &Offer,
    ) -> Result<(), OfferError> {
        let other = |what| Err(OfferError::Other { what });
        if posted.digest != self.digest {
            return other("the digest");
        }
        // A provider can post a digest with prices that its document does not have.
        if *posted != self.posted() {
            return other("the prices or the attestation beside the digest");
        }
        if state.key != *self.key.as_bytes() {
            return other("the key");
        }
        if state.endpoint != self.endpoint {
            return other("the endpoint");
        }
        if network != self.network {
            return other("the network");
        }
        Ok(())
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    // A digest has the same digits, and its parser takes them in lower case alone.
    let digest: Digest = format!("blake3:{text}").parse().ok()?;
    Some(*digest.as_bytes())
}

/// Why a document is no offer, or not the one that is listed.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Too large.
    #[error("an offer has at most {OFFER_BYTES_MAX} bytes")]
    Size,
    /// Not TOML, or not of these fields.
    #[error("this is no offer")]
    Toml(#[from] toml::de::Error),
    /// A field with a value that it cannot have.
    #[error("`{field}` is not {expected}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The contract lists another one.
    #[error("the provider's contract lists another offer: {what} differs")]
    Other {
        /// What differs.
        what: &'static str,
    },
}
