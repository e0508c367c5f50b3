//! Whether a receipt is that of the job one asked for: the check that replaces trust.
//!
//! In: what the client signed and heard, and the receipt that the provider gave. Out: the receipt,
//! or the first thing in it that does not fit. Everything is computed from the client's own copy:
//! its request, its input's digest in that, its salt, the bytes of output it got.

use tussah_manifest::{
    Digest, Document as _, Domain, ExitStatus, Manifest, Opening, OpeningError, PublicKey, Receipt,
    ReceiptError, Request,
};

/// What does not fit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    #[error("the receipt is not as a provider signed it")]
    Receipt(#[from] ReceiptError),
    #[error("the receipt's {what} is {found}, and this job's is {expected}")]
    Differs {
        what: &'static str,
        expected: String,
        found: String,
    },
    #[error("the receipt says that the job costs {price}, and at most {max} was offered")]
    Price { price: String, max: String },
    #[error("the output that came is not the output in the receipt ({bytes} bytes came)")]
    Output { bytes: usize },
    #[error("the error that the provider tells is not the one in the receipt")]
    Message,
    #[error("the opening is not this receipt's")]
    Opening(#[from] OpeningError),
    #[error("the opening cannot be read")]
    Encoding(#[from] tussah_manifest::EncodingError),
}

/// What a receipt has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) request: &'a Request,
    /// Where it is at hand; the request has its digest.
    pub(crate) manifest: Option<&'a Manifest>,
    pub(crate) provider_key: &'a PublicKey,
}

impl Expected<'_> {
    /// Checks a receipt, and the output that came, against what was asked.
    ///
    /// # Errors
    /// [`EvidenceError`] names the first thing that does not fit.
    pub(crate) fn check(&self, receipt: &[u8], output: &[u8]) -> Result<Receipt, EvidenceError> {
        let receipt = Receipt::from_verified_bytes(receipt)?;
        let (body, consensus) = (&self.request.body, &receipt.consensus);
        same("signer", self.provider_key, &receipt.provider_key)?;
        // The id covers the input's salted digest, the nonce, the cap and the client's key.
        same("job", &body.job_id(), &consensus.job)?;
        same("module", &body.module, &consensus.module)?;
        same("manifest", &body.manifest, &consensus.manifest)?;
        same("channel", &body.channel, &consensus.channel)?;
        if let Some(manifest) = self.manifest
            && manifest.model_digests() != consensus.models
        {
            return Err(EvidenceError::Differs {
                what: "list of models",
                expected: format!("{:?}", manifest.model_digests()),
                found: format!("{:?}", consensus.models),
            });
        }
        if consensus.price_nanograms > body.price_nanograms_max {
            return Err(EvidenceError::Price {
                price: consensus.price_nanograms.to_string(),
                max: body.price_nanograms_max.to_string(),
            });
        }
        let digest = Digest::salted(&body.nonce.derive_salt(), Domain::Output, output);
        if digest != consensus.output {
            return Err(EvidenceError::Output {
                bytes: output.len(),
            });
        }
        Ok(receipt)
    }

    /// Checks the words of a job's own error, which a receipt has a digest of.
    ///
    /// # Errors
    /// [`EvidenceError::Message`].
    pub(crate) fn check_message(&self, receipt: &Receipt, text: &str) -> Result<(), EvidenceError> {
        let ExitStatus::JobError { message, .. } = &receipt.consensus.exit else {
            return Ok(());
        };
        let salt = self.request.body.nonce.derive_salt();
        if Digest::salted(&salt, Domain::JobError, text.as_bytes()) == *message {
            Ok(())
        } else {
            Err(EvidenceError::Message)
        }
    }
}

/// Checks an opening: that it is the receipt's and the output's.
///
/// # Errors
/// [`EvidenceError`] names the first thing that does not fit.
pub(crate) fn check_opening(
    opening: &[u8],
    receipt: &Receipt,
    output: &[u8],
) -> Result<Opening, EvidenceError> {
    let opening = Opening::from_bytes(opening)?;
    opening.matches(receipt)?;
    if opening.output_digest(output) != receipt.consensus.output {
        return Err(EvidenceError::Output {
            bytes: output.len(),
        });
    }
    Ok(opening)
}

fn same<T: PartialEq + std::fmt::Display>(
    what: &'static str,
    expected: &T,
    found: &T,
) -> Result<(), EvidenceError> {
    if expected == found {
        return Ok(());
    }
    Err(EvidenceError::Differs {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}
