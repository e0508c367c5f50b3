//! Text as it becomes certain: whole characters, and nothing that a stop text may still swallow.
//!
//! In: the bytes of tokens. Out: text to show, and which stop text was reached. What comes behind
//! a stop text is never shown.

/// What was generated and not shown yet.
#[derive(Debug)]
pub(crate) struct Tail {
    held: Vec<u8>,
    stops: Vec<Vec<u8>>,
    shown: usize,
}

impl Tail {
    /// Ends before the first of these texts, none of which is empty.
    pub(crate) fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self {
            held: Vec::new(),
            stops: stops.into_iter().map(String::into_bytes).collect(),
            shown: 0,
        }
    }

    /// Bytes of the answer that were shown.
    pub(crate) fn shown(&self) -> usize {
        self.shown
    }

    /// Bytes of the answer until here.
    pub(crate) fn end(&self) -> usize {
        self.shown + self.held.len()
    }

    /// Whether these bytes would reach this stop text and go on behind it.
    pub(crate) fn passes(&self, stop: usize, bytes: &[u8]) -> bool {
        let (stop, ahead) = (&self.stops[stop], [&self.held, bytes].concat());
        find(&ahead, stop).is_some_and(|at| at + stop.len() < ahead.len())
    }

    /// Takes a token's bytes; the text that is certain now, and the stop text if one was reached.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> (String, Option<usize>) {
        self.held.extend_from_slice(bytes);
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let at = find(&self.held, stop)?;
            Some((at, index))
        });
        if let Some((at, index)) = found.min() {
            self.held.truncate(at);
            return (self.rest(), Some(index));
        }
        let most = self.stops.iter().map(|stop| self.begun(stop)).max();
        let certain = self.held.len() - most.unwrap_or(0);
        (self.show(certain, false), None)
    }

    /// What is left when nothing comes any more.
    pub(crate) fn rest(&mut self) -> String {
        self.show(self.held.len(), true)
    }

    /// How many of the last bytes may be the beginning of this text.
    fn begun(&self, stop: &[u8]) -> usize {
        let most = self.held.len().min(stop.len() - 1);
        let begins = |length: &usize| self.held.ends_with(&stop[..*length]);
        (1..=most).rev().find(begins).unwrap_or(0)
    }

    /// The characters of the first bytes. What is no UTF-8 is shown as U+FFFD; the beginning of a
    /// character only where nothing comes any more.
    fn show(&mut self, mut length: usize, all: bool) -> String {
        if !all {
            length -= incomplete(&self.held[..length]);
        }
        let shown: Vec<u8> = self.held.drain(..length).collect();
        self.shown += length;
        String::from_utf8_lossy(&shown).into_owned()
    }
}

/// How many of the last bytes are the beginning of a character that has more.
fn incomplete(bytes: &[u8]) -> usize {
    let begun = |length: &usize| {
        let last = bytes.len().checked_sub(*length).map(|at| &bytes[at..]);
        let error = last.and_then(|last| std::str::from_utf8(last).err());
        error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3).find(begun).unwrap_or(0)
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown after each token, and at the end; cut at a stop text.
    fn shown(stops: &[&str], tokens: &[&[u8]]) -> (Vec<String>, Option<usize>) {
        let mut tail = Tail::new(stops.iter().map(|stop| (*stop).to_owned()));
        let mut pieces = Vec::new();
        for token in tokens {
            let (piece, stop) = tail.push(token);
            pieces.push(piece);
            if stop.is_some() {
                return (pieces, stop);
            }
        }
        pieces.push(tail.rest());
        (pieces, None)
    }

    #[test]
    fn text_is_shown_as_soon_as_it_is_certain() {
        let moth = "🦋".as_bytes();
        for (stops, tokens, pieces, stop) in [
            (&[][..], &[&b"a"[..], b"b"][..], &["a", "b", ""][..], None),
            // Half a character waits for the other half, or for the end.
            (
                &[],
                &[&moth[..2], &moth[2..], &moth[..1]],
                &["", "🦋", "", "\u{fffd}"],
                None,
            ),
            // What never was one is replaced.
            (&[], &[b"a\xff", b"b"], &["a\u{fffd}", "b", ""], None),
            // What may be the beginning of a stop text waits until it is known not to be.
            (&["END"], &[b"xE", b"N", b"d"], &["x", "", "ENd", ""], None),
            (&["END"], &[b"xE", b"ND y"], &["x", ""], Some(0)),
            (&["END"], &[b"E", b"EN", b"D"], &["", "E", ""], Some(0)),
            // The first of several in the text, not in the list.
            (&["c", "b"], &[b"a", b"bc"], &["a", ""], Some(1)),
            (&["aab"], &[b"aa", b"ab"], &["", "a"], Some(0)),
        ] {
            let (found, reached) = shown(stops, tokens);
            assert_eq!(found, pieces, "{stops:?} {tokens:?}");
            assert_eq!(reached, stop, "{stops:?} {tokens:?}");
        }
    }

    #[test]
    fn a_token_that_goes_on_behind_a_stop_text_is_known_before_it_is_taken() {
        let mut tail = Tail::new(["<call>".to_owned()]);
        tail.push(b"Now <ca");
        assert!(!tail.passes(0, b"l"));
        assert!(!tail.passes(0, b"ll>"));
        assert!(tail.passes(0, b"ll>{"));
        assert!(!tail.passes(0, b"t>"));
        assert_eq!((tail.shown(), tail.end()), (4, 7));
    }
}
