//! Tokens of a session → text, piece by piece.
//! In: a session with a prompt, stop strings, a limit. Out: chunks of whole characters, and why it ended.
//! It never shows a part of a stop string, half a character or a control token.

use crate::session::{Session, SessionError};
use crate::tokenizer::TokenId;

/// A stream may have at most this many stop strings.
pub const STOP_STRINGS_MAX: usize = 16;
/// The longest stop string.
pub const STOP_STRING_BYTES_MAX: usize = 1024;

/// Texts that end a generation; they are not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings(Vec<String>);

/// Stop strings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopStringsError {
    /// Too many of them.
    #[error("{count} stop strings, at most {STOP_STRINGS_MAX} are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// One is empty, or too long.
    #[error("a stop string has {length} bytes, wanted 1 to {STOP_STRING_BYTES_MAX}")]
    Length {
        /// Its length.
        length: usize,
    },
}

impl StopStrings {
    /// No stop strings.
    pub fn none() -> Self {
        Self::default()
    }

    /// Checks the number and the lengths.
    ///
    /// # Errors
    /// [`StopStringsError`] says which limit they break.
    pub fn new(texts: Vec<String>) -> Result<Self, StopStringsError> {
        if texts.len() > STOP_STRINGS_MAX {
            return Err(StopStringsError::TooMany { count: texts.len() });
        }
        for length in texts.iter().map(String::len) {
            if !(1..=STOP_STRING_BYTES_MAX).contains(&length) {
                return Err(StopStringsError::Length { length });
            }
        }
        Ok(Self(texts))
    }
}

/// A piece of generated text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Whole characters; may be empty where tokens are held back or print nothing.
    pub text: String,
    /// The tokens picked for this chunk.
    pub tokens: Vec<TokenId>,
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its text.
    EndOfText,
    /// A stop string came up.
    Stop,
    /// The limit on tokens was reached, or the context is full.
    Length,
}

/// Assembles a session's tokens into text.
#[derive(Debug, Clone)]
pub struct TextStream {
    stops: StopStrings,
    tokens_left: u32,
    /// Bytes that are not shown yet: the beginning of a character or of a stop string.
    held: Vec<u8>,
    finish: Option<FinishReason>,
}

impl TextStream {
    /// A stream of at most `max_tokens` tokens.
    pub fn new(stops: StopStrings, max_tokens: u32) -> Self {
        Self {
            stops,
            tokens_left: max_tokens,
            held: Vec::new(),
            finish: None,
        }
    }

    /// The next chunk: one token's text or, where nothing of it can be shown yet, of as many as it takes.
    /// `None` after the end; the last chunk may bring text that was held back and no token.
    ///
    /// # Errors
    /// Those of [`Session::next`]; a full context is an end ([`FinishReason::Length`]), not an error.
    pub fn next(&mut self, session: &mut Session) -> Result<Option<Chunk>, SessionError> {
        let mut chunk = Chunk::default();
        while chunk.text.is_empty() {
            let Some(step) = self.step(session)? else {
                break;
            };
            chunk.text = step.text;
            chunk.tokens.extend(step.tokens);
        }
        Ok(if chunk == Chunk::default() {
            None
        } else {
            Some(chunk)
        })
    }

    /// At most one token further; the chunk is empty where nothing can be shown yet. `None` after the end.
    ///
    /// # Errors
    /// As [`TextStream::next`].
    pub fn step(&mut self, session: &mut Session) -> Result<Option<Chunk>, SessionError> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let mut chunk = Chunk::default();
        if self.tokens_left == 0 {
            chunk.text = self.end(FinishReason::Length);
            return Ok(Some(chunk));
        }
        match session.next() {
            Ok(Some(token)) => {
                self.tokens_left -= 1;
                chunk.tokens.push(token);
                let tokenizer = session.model().tokenizer();
                let shown = !tokenizer.is_control(token);
                chunk.text = self.push(if shown {
                    tokenizer.token_bytes(token)
                } else {
                    &[]
                });
            }
            Ok(None) => chunk.text = self.end(FinishReason::EndOfText),
            Err(SessionError::ContextFull { .. }) => chunk.text = self.end(FinishReason::Length),
            Err(error) => return Err(error),
        }
        Ok(Some(chunk))
    }

    /// What the next [`TextStream::step`] will add to the session's inference units.
    pub fn inference_units_of_step(&self, session: &Session) -> u64 {
        let full = session.position() >= session.context_tokens_max();
        if self.finish.is_some() || self.tokens_left == 0 || session.at_end() || full {
            return 0;
        }
        session.inference_units_of_next()
    }

    /// Why it ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Adds a token's bytes and returns the text that can be shown now.
    fn push(&mut self, bytes: &[u8]) -> String {
        // A stop string can begin in what is held only as far back as it is long.
        self.held.extend_from_slice(bytes);
        let stop = self
            .stops
            .0
            .iter()
            .filter_map(|stop| find(&self.held, stop.as_bytes()))
            .min();
        if let Some(at) = stop {
            self.finish = Some(FinishReason::Stop);
            self.held.truncate(at);
            return String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
        }
        let partial = self
            .stops
            .0
            .iter()
            .map(|stop| overlap(&self.held, stop.as_bytes()))
            .max();
        let mut ready = self.held.len() - partial.unwrap_or(0);
        ready -= unfinished(&self.held[..ready]);
        let rest = self.held.split_off(ready);
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        text
    }

    fn end(&mut self, reason: FinishReason) -> String {
        self.finish = Some(reason);
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

/// How many bytes at the end of `text` are a beginning of `stop`.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    let most = text.len().min(stop.len() - 1);
    (1..=most)
        .rev()
        .find(|length| text.ends_with(&stop[..*length]))
        .unwrap_or(0)
}

/// How many bytes at the end are the beginning of a character that may still be completed.
fn unfinished(bytes: &[u8]) -> usize {
    for length in 1..=bytes.len().min(3) {
        let tail = &bytes[bytes.len() - length..];
        if tail[0] & 0xc0 == 0x80 {
            continue;
        }
        // Not ended means: more bytes could make it valid.
        return match std::str::from_utf8(tail) {
            Err(error) if error.error_len().is_none() => length,
            _ => 0,
        };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stops: &[&str], tokens: &[&[u8]], chunks: &[&str], finish: FinishReason) {
        let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(StopStrings::new(stops).unwrap(), 100);
        let mut found: Vec<String> = Vec::new();
        for token in tokens {
            found.push(stream.push(token));
            if stream.finish.is_some() {
                break;
            }
        }
        if stream.finish.is_none() {
            found.push(stream.end(FinishReason::EndOfText));
        }
        found.retain(|text| !text.is_empty());
        assert_eq!(found, chunks);
        assert_eq!(stream.finish, Some(finish));
    }

    #[test]
    fn characters_stay_whole() {
        use FinishReason::EndOfText;
        check(
            &[],
            &[b"a", b"\xc3", b"\xa9", b"b"],
            &["a", "é", "b"],
            EndOfText,
        );
        check(&[], &[b"\xf0\x9f", b"\x98", b"\x80!"], &["😀!"], EndOfText);
        // Bytes that can never become a character are shown as such, at once or at the end.
        check(&[], &[b"\xff", b"x"], &["\u{fffd}", "x"], EndOfText);
        check(&[], &[b"x\xf0\x9f"], &["x", "\u{fffd}"], EndOfText);
        check(
            &[],
            &[b"\x80\x80\x80\x80"],
            &["\u{fffd}\u{fffd}\u{fffd}\u{fffd}"],
            EndOfText,
        );
    }

    #[test]
    fn stop_strings_may_cross_token_borders() {
        use FinishReason::{EndOfText, Stop};
        check(&["END"], &[b"a E", b"N", b"D b"], &["a "], Stop);
        check(&["END"], &[b"E", b"EN", b"EEND"], &["E", "ENE"], Stop);
        check(&["END"], &[b"EN", b"x"], &["ENx"], EndOfText);
        check(&["END"], &[b"text EN"], &["text ", "EN"], EndOfText);
        check(
            &["\n\n", "Q:"],
            &[b"a\n", b"Q", b":\n\n"],
            &["a", "\n"],
            Stop,
        );
        check(&["b", "abc"], &[b"xa", b"bc"], &["x"], Stop);
        check(&["é"], &[b"x\xc3", b"\xa9"], &["x"], Stop);
    }

    #[test]
    fn stop_strings_have_limits() {
        assert_eq!(
            StopStrings::new(vec![String::new()]),
            Err(StopStringsError::Length { length: 0 })
        );
        assert!(StopStrings::new(vec!["x".repeat(1024)]).is_ok());
        assert!(StopStrings::new(vec!["x".repeat(1025)]).is_err());
        assert!(StopStrings::new(vec!["x".to_owned(); 16]).is_ok());
        assert!(StopStrings::new(vec!["x".to_owned(); 17]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_cutting_of_a_text_gives_the_text(text in ".{0,40}", cuts in proptest::collection::vec(1usize..5, 60)) {
            let mut stream = TextStream::new(StopStrings::new(vec!["never-here".to_owned()]).unwrap(), 100);
            let (mut rest, mut found) = (text.as_bytes(), String::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (token, after) = rest.split_at((*cut).min(rest.len()));
                found.push_str(&stream.push(token));
                rest = after;
            }
            found.push_str(&stream.end(FinishReason::EndOfText));
            assert_eq!(found, text);
        }
    }
}
