//! Text as a scripted session shows it.
//!
//! In: the bytes of tokens. Out: whole characters, up to a stop text, as on the host: what
//! may be the beginning of a stop text or of a character is held back.

use crate::FinishReason;

#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    pub(crate) stops: Vec<String>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) held: Vec<u8>,
}

impl Stream {
    /// Adds a token's bytes; the text that can be shown now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let found = self.stops.iter().filter_map(|stop| {
            self.held
                .windows(stop.len())
                .position(|window| window == stop.as_bytes())
        });
        if let Some(at) = found.min() {
            self.held.truncate(at);
            return self.end(FinishReason::Stop);
        }
        let begun = |stop: &String| {
            let most = self.held.len().min(stop.len() - 1);
            (1..=most)
                .rev()
                .find(|length| self.held.ends_with(&stop.as_bytes()[..*length]))
        };
        let kept = self.stops.iter().filter_map(begun).max().unwrap_or(0);
        let ready = self.held.len() - kept;
        // A character that more bytes could complete.
        let whole = match std::str::from_utf8(&self.held[..ready]) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => ready,
        };
        let rest = self.held.split_off(whole);
        let shown = std::mem::replace(&mut self.held, rest);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Ends the stream; the text that was held back.
    pub(crate) fn end(&mut self, reason: FinishReason) -> String {
        self.finish = Some(reason);
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}
