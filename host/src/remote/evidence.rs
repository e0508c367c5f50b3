//! Whether a receipt is that of the job one asked for: the check that replaces trust.
//!
//! In: what the client signed and heard, and the receipt that the provider gave. Out: the receipt,
//! or the first thing in it that does not fit. Everything is computed from the client's own copy:
//! its request, its input's digest in that, its salt, the bytes of output it got.

use tussah_manifest::{
    Digest, Document as _, Domain, ExitStatus, Manifest, Nanograms, Opening, OpeningError,
    PublicKey, Receipt, ReceiptError, Request,
};

use crate::grams::grams;

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
    #[error(
        "the receipt says `{exit}`, a failure of the provider's own, and charges {price} for it"
    )]
    Charged { exit: &'static str, price: String },
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
        let is_theirs = matches!(
            consensus.exit,
            ExitStatus::HostFailure | ExitStatus::DeviceLost
        );
        if is_theirs && consensus.price_nanograms != Nanograms::ZERO {
            return Err(EvidenceError::Charged {
                exit: consensus.exit.name(),
                price: grams(consensus.price_nanograms),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tussah_manifest::{
        Channel, Consensus, Determinism, Evidence, Label, Nonce, RequestBody, SigningKey, Version,
    };

    use super::*;

    /// What the client makes of a receipt with this end and this price, of a job that may cost 9.
    fn checked(exit: ExitStatus, price: u64) -> Result<Receipt, EvidenceError> {
        let (client, provider) = (
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
        );
        let nanograms = |amount| Nanograms::new(amount).unwrap();
        let zero = Digest::from_bytes([0; 32]);
        let nonce = Nonce::from_bytes([3; 32]);
        let salt = nonce.derive_salt();
        let body = RequestBody {
            version: Version::V1,
            manifest: zero,
            module: zero,
            input: RequestBody::input_digest(&nonce, b"input"),
            nonce,
            price_nanograms_max: nanograms(9),
            channel: Channel::Local,
            deadline_unix_ms: None,
            client_key: client.public_key(),
        };
        let consensus = Consensus {
            version: Version::V1,
            job: body.job_id(),
            module: zero,
            manifest: zero,
            models: BTreeMap::new(),
            output: Digest::salted(&salt, Domain::Output, b""),
            exit,
            determinism: Determinism::NotRerunnable,
            profile: zero,
            fuel_used: 0,
            inference_units_used: 0,
            price_nanograms: nanograms(price),
            channel: Channel::Local,
        };
        let none = Label::new("none").unwrap();
        let evidence = Evidence {
            host_build: none.clone(),
            wasm_engine: none.clone(),
            inference_engine: none,
            kernels: None,
            adapter: None,
            driver: None,
            threads: 0,
            wall_ns: 0,
            gpu_ns: None,
            transcript: zero,
        };
        let receipt = Receipt::sign(consensus, evidence, &provider).unwrap();
        let expected = Expected {
            request: &body.sign(&client).unwrap(),
            manifest: None,
            provider_key: &provider.public_key(),
        };
        expected.check(&receipt.to_bytes(), b"")
    }

    #[test]
    fn who_failed_by_its_own_word_and_charges_for_it_lies() {
        for exit in [ExitStatus::HostFailure, ExitStatus::DeviceLost] {
            checked(exit, 0).unwrap();
            let error = checked(exit, 1).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(exit.name()), "{said}");
            assert!(said.contains("charges 0.000000001 GRAM"), "{said}");
        }
        // Work until a deadline or a cancellation is paid for, up to what was offered.
        for exit in [ExitStatus::DeadlineExceeded, ExitStatus::Cancelled] {
            checked(exit, 9).unwrap();
            let error = checked(exit, 10).unwrap_err();
            assert!(matches!(error, EvidenceError::Price { .. }), "{error}");
        }
    }
}
