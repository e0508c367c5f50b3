//! What has to hold of a job before it is taken: its documents belong together, and where it is
//! paid through a channel, it has a place there.

use tussah_manifest::{Channel, Digest};

use super::{LedgerError, NewJob, signed};

impl NewJob {
    /// The job's id, if its documents belong together.
    ///
    /// # Errors
    /// [`LedgerError::Mismatch`] if they do not.
    pub fn check(&self) -> Result<Digest, LedgerError> {
        let body = &self.request.body;
        let mismatch = |text: &str| Err(LedgerError::Mismatch(text.to_owned()));
        if body.manifest != self.manifest.digest() {
            return mismatch("the request names another manifest");
        }
        if body.module != self.manifest.module.digest {
            return mismatch("the request names another module than its manifest");
        }
        if !body.is_for_input(&self.input) {
            return mismatch("the request was made for another input");
        }
        if self.reserve > body.price_nanograms_max {
            return mismatch("more would be reserved than the request pays");
        }
        // What no row can hold is refused here too, before anything else is promised.
        for (time, what) in [
            (self.deadline_unix_ms, "the deadline"),
            (self.time_max_ms, "the longest time"),
        ] {
            time.map(|ms| signed(ms, what)).transpose()?;
        }
        Ok(body.job_id())
    }
}

/// A place in a channel, as the ledger tells one from another; none for what is paid on credit.
pub(super) fn place_of(channel: Channel) -> Option<String> {
    match channel {
        Channel::Local => None,
        Channel::Ton { address, index } => Some(format!("{address}/{index}")),
    }
}
