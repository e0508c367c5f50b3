//! `Draft`: what a client asks for as a request that it has signed, or that this host is to sign.
//!
//! In: a submission. Out: the request's body, from which the job's id is known before anybody
//! signs; then the signed request. A client's own signature is checked here.

use tussah_manifest::{Channel, Digest, Nonce, Request, RequestBody, Version};

use super::Gateway;
use super::submit::{ATTEMPTS_MAX, Ask, Quote, Submission, SubmitError};

/// What a seeded request's nonce is derived for; fixed for as long as equal calls are to give
/// equal answers.
const NONCE_CONTEXT: &str = "tussah 2026-11 nonce of a seeded call v1";

/// A request on its way to a job.
pub(super) struct Draft {
    request: Drafted,
    pub(super) quote: Quote,
    pub(super) deadline: Option<u64>,
}

enum Drafted {
    /// By its client, and verified.
    Signed(Box<Request>),
    /// To be signed by this host.
    House(Box<RequestBody>),
}

impl Draft {
    pub(super) fn body(&self) -> &RequestBody {
        match &self.request {
            Drafted::Signed(request) => &request.body,
            Drafted::House(body) => body,
        }
    }
}

impl Gateway {
    /// The client's own request, checked, or one that the signer has yet to sign.
    pub(super) fn draft(
        &self,
        submission: &Submission,
        attempt: u32,
        deadline: Option<u64>,
        now: u64,
    ) -> Result<Draft, SubmitError> {
        let manifest = &submission.manifest;
        match &submission.ask {
            Ask::Signed(request) => {
                request
                    .verify()
                    .map_err(|error| SubmitError::Request(error.to_string()))?;
                let body = &request.body;
                if body.channel != Channel::Local && self.paymaster().is_none() {
                    return Err(SubmitError::Channel);
                }
                let deadline = match (deadline, body.deadline_unix_ms) {
                    (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                    (ours, theirs) => ours.or(theirs),
                };
                if deadline.is_some_and(|at| at <= now) {
                    return Err(SubmitError::Late);
                }
                let quote = self.covered_quote(manifest, Some(body.price_nanograms_max))?;
                Ok(Draft {
                    request: Drafted::Signed(request.clone()),
                    quote,
                    deadline,
                })
            }
            Ask::House { price_max, seed } => {
                let quote = self.covered_quote(manifest, *price_max)?;
                let nonce = match seed {
                    Some(seed) if attempt < ATTEMPTS_MAX => {
                        self.seeded_nonce(submission, *seed, attempt)
                    }
                    _ => random_nonce()?,
                };
                let body = RequestBody {
                    version: Version::V1,
                    manifest: manifest.digest(),
                    module: manifest.module.digest,
                    input: RequestBody::input_digest(&nonce, &submission.input),
                    nonce,
                    price_nanograms_max: quote.cap,
                    channel: Channel::Local,
                    deadline_unix_ms: None,
                    client_key: self.inner.signer.client_key,
                };
                Ok(Draft {
                    request: Drafted::House(Box::new(body)),
                    quote,
                    deadline,
                })
            }
        }
    }

    pub(super) async fn signed(&self, draft: Draft) -> Result<Request, SubmitError> {
        let body = match draft.request {
            Drafted::Signed(request) => return Ok(*request),
            Drafted::House(body) => body,
        };
        let request = self.inner.signer.sign_request(&body).await?;
        if request.body != *body {
            let message = "the signer signed another request".to_owned();
            return Err(SubmitError::Internal(message));
        }
        Ok(request)
    }

    /// A nonce that only this host can tell, and that equal calls share.
    fn seeded_nonce(&self, submission: &Submission, seed: u64, attempt: u32) -> Nonce {
        let key = blake3::derive_key(NONCE_CONTEXT, &self.inner.nonce_secret);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        // All of one length, so that no two calls are the same bytes.
        hasher.update(&submission.account.id.0.to_le_bytes());
        hasher.update(&seed.to_le_bytes());
        hasher.update(&attempt.to_le_bytes());
        hasher.update(submission.manifest.digest().as_bytes());
        hasher.update(Digest::of(&submission.input).as_bytes());
        Nonce::from_bytes(*hasher.finalize().as_bytes())
    }
}

fn random_nonce() -> Result<Nonce, SubmitError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| SubmitError::Internal(error.to_string()))?;
    Ok(Nonce::from_bytes(bytes))
}
