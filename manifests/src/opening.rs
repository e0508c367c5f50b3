//! `Opening`: what lets its holder check a receipt against the job's content.
//!
//! It lies beside the receipt, with the client and the provider, and is never public: with the
//! salt in it, short inputs and outputs could be guessed.

use serde::{Serialize, Serializer};

use crate::digest::{Digest, Domain, Salt, to_hex};
use crate::encoding::{Document, EncodingError, Version};
use crate::profile::Profile;
use crate::receipt::Receipt;
use crate::request::{Request, RequestError};
use crate::transcript;

/// The most host calls an opening lists, as much as any manifest may allow.
const HOST_CALLS_MAX: usize = 1_000_000;

/// The private file beside a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Opening {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// What the client asked for.
    #[n(1)]
    pub request: Request,
    /// The salt of all salted digests; derives from the request's nonce.
    #[n(2)]
    #[serde(serialize_with = "salt_hex")]
    pub salt: Salt,
    /// One salted digest for each host call, in order.
    #[n(3)]
    pub host_calls: Vec<Digest>,
    /// What the receipt's profile digest is of.
    #[n(4)]
    pub profile: Profile,
}

fn salt_hex<S: Serializer>(salt: &Salt, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_hex(salt.as_bytes()))
}

impl Document for Opening {
    const NAME: &'static str = "opening";
    const BYTES_MAX: usize = 40 * 1024 * 1024;

    fn check(&self) -> Result<(), String> {
        if self.host_calls.len() > HOST_CALLS_MAX {
            return Err(format!("host_calls has more than {HOST_CALLS_MAX} entries"));
        }
        self.request.check()?;
        self.profile.check()
    }
}

impl Opening {
    /// The transcript digest that the receipt's evidence has to hold.
    pub fn transcript(&self) -> Digest {
        transcript::digest_of(&self.host_calls)
    }

    /// The digest that an output has in a receipt of this job.
    pub fn output_digest(&self, output: &[u8]) -> Digest {
        Digest::salted(&self.salt, Domain::Output, output)
    }

    /// The first host call in which another run of the same job differs from this one; a run
    /// that made fewer calls differs at its end. `None` if all are equal.
    pub fn first_difference(&self, host_calls: &[Digest]) -> Option<usize> {
        if self.host_calls == host_calls {
            return None;
        }
        Some(
            self.host_calls
                .iter()
                .zip(host_calls)
                .take_while(|(a, b)| a == b)
                .count(),
        )
    }

    /// Whether this is the opening of `receipt`. The receipt's own signature is not looked at.
    ///
    /// # Errors
    /// [`OpeningError`] names the first thing that does not fit.
    pub fn matches(&self, receipt: &Receipt) -> Result<(), OpeningError> {
        self.request.verify()?;
        self.check().map_err(|message| EncodingError::Invalid {
            document: Self::NAME,
            message,
        })?;
        let body = &self.request.body;
        let consensus = &receipt.consensus;
        let same = |what: &'static str, opening: Digest, receipt: Digest| {
            if opening == receipt {
                Ok(())
            } else {
                Err(OpeningError::Differs {
                    what,
                    opening,
                    receipt,
                })
            }
        };
        if self.salt != body.nonce.derive_salt() {
            return Err(OpeningError::Salt);
        }
        same("job id", body.job_id(), consensus.job)?;
        same("module", body.module, consensus.module)?;
        same("manifest", body.manifest, consensus.manifest)?;
        same("profile", self.profile.digest(), consensus.profile)?;
        same("transcript", self.transcript(), receipt.evidence.transcript)?;
        if body.channel != consensus.channel {
            return Err(OpeningError::Channel {
                opening: body.channel.to_string(),
                receipt: consensus.channel.to_string(),
            });
        }
        if consensus.price_nanograms > body.price_nanograms_max {
            return Err(OpeningError::Price {
                price_nanograms: consensus.price_nanograms.get(),
                price_nanograms_max: body.price_nanograms_max.get(),
            });
        }
        Ok(())
    }

    /// The JSON view; private, as it shows nonce and salt.
    pub fn to_json(&self) -> String {
        crate::json::pretty(self)
    }
}

/// Why an opening is not the one of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// A field is out of its range.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The request in it is not signed by its client.
    #[error("the request in the opening is not good")]
    Request(#[from] RequestError),
    /// The salt is not the nonce's.
    #[error("the opening's salt does not derive from its request's nonce; the opening was changed")]
    Salt,
    /// A digest differs.
    #[error(
        "the {what} in the opening is {opening}, in the receipt {receipt}; the two files are not of one run"
    )]
    Differs {
        /// Which digest.
        what: &'static str,
        /// In the opening.
        opening: Digest,
        /// In the receipt.
        receipt: Digest,
    },
    /// Paid elsewhere than the client asked for.
    #[error("the client asked for channel {opening}, the receipt is for {receipt}")]
    Channel {
        /// In the opening.
        opening: String,
        /// In the receipt.
        receipt: String,
    },
    /// Dearer than the client allowed.
    #[error(
        "the receipt's price of {price_nanograms} nanograms is above the {price_nanograms_max} that the client allowed"
    )]
    Price {
        /// In the receipt.
        price_nanograms: u64,
        /// In the opening.
        price_nanograms_max: u64,
    },
}
