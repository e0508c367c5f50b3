//! `Transcript`: one salted digest for each host call of a run, in order.
//!
//! In: the name, arguments and results of each call. Out: the list that goes into the opening,
//! and the one digest over it that goes into the receipt's evidence. Two runs that differ part
//! at the first digest that does.

use crate::digest::{Digest, Domain, Hasher, Salt};
use crate::limits::Limits;

/// The host calls of one run so far.
#[derive(Debug, Clone)]
pub struct Transcript {
    salt: Salt,
    calls: Vec<Digest>,
    calls_max: u64,
}

impl Transcript {
    /// An empty one, of at most `limits.host_calls_max` calls.
    pub const fn new(salt: Salt, limits: &Limits) -> Self {
        Self {
            salt,
            calls: Vec::new(),
            calls_max: limits.host_calls_max,
        }
    }

    /// Adds a call: its name (`interface#function`), the canonical bytes of what the guest
    /// passed and of what it got back.
    ///
    /// # Errors
    /// [`TranscriptFull`] if the job's limits allow no further call; nothing was added.
    pub fn record(
        &mut self,
        call: &str,
        arguments: &[u8],
        results: &[u8],
    ) -> Result<(), TranscriptFull> {
        if self.calls.len() as u64 >= self.calls_max {
            return Err(TranscriptFull {
                host_calls_max: self.calls_max,
            });
        }
        let mut hasher = Hasher::salted(&self.salt, Domain::HostCall);
        for part in [call.as_bytes(), arguments, results] {
            // Lengths first, so that no two calls are the same bytes.
            hasher
                .update(&(part.len() as u64).to_be_bytes())
                .update(part);
        }
        self.calls.push(hasher.finish());
        Ok(())
    }

    /// The digest that the receipt's evidence holds.
    pub fn digest(&self) -> Digest {
        digest_of(&self.calls)
    }

    /// The digests so far.
    pub fn calls(&self) -> &[Digest] {
        &self.calls
    }

    /// The digests, for the opening.
    pub fn into_calls(self) -> Vec<Digest> {
        self.calls
    }
}

/// The transcript digest of a list of host-call digests.
pub(crate) fn digest_of(calls: &[Digest]) -> Digest {
    let mut hasher = Hasher::derive(Domain::Transcript);
    for call in calls {
        hasher.update(call.as_bytes());
    }
    hasher.finish()
}

/// The guest made as many host calls as its manifest allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest made {host_calls_max} host calls, all that limits.host_calls_max allows")]
pub struct TranscriptFull {
    /// The limit.
    pub host_calls_max: u64,
}
