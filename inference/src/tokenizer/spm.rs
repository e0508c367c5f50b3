//! SentencePiece's merges by score, as files whose `tokenizer.ggml.model` is `llama` have them.
//! In: text. Out: token ids. Neighbours whose joined text is a token are joined, the highest score
//! first, then from left to right; a character that is no token becomes tokens of its bytes.
//! Time is `n log n` in the text's length. Text never becomes a control token or, by writing
//! `<0x0A>` out, a byte token: as in SentencePiece, and unlike llama.cpp, which looks all tokens up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::TokenId;
use super::texts::{Index, Texts};

/// What SentencePiece writes for a space.
pub(super) const SPACE: char = '\u{2581}';

/// The scores, and the tokens that text can become.
#[derive(Debug)]
pub(super) struct Spm {
    index: Index,
    /// One a token, larger is earlier; as [`order`] has them.
    scores: Vec<i32>,
    byte_tokens: [Option<TokenId>; 256],
    /// Whether a space goes before a text, so that its first word is like any other.
    add_space_prefix: bool,
    /// Whether no token has a space behind another character: then nothing joins across the
    /// beginning of a word, and words can be taken one by one.
    by_words: bool,
}

/// A part of the text that is, so far, one token.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    begin: usize,
    /// 0 once it was joined to the one before.
    length: usize,
    previous: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

/// Two neighbours that could join: the largest score first, then the leftmost.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    score: i32,
    left: Reverse<usize>,
    /// Of the two together; if it is another now, this candidate is void.
    length: usize,
}

/// What one part after the other is joined in.
#[derive(Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Candidate>,
}

impl Spm {
    pub(super) fn new(
        index: Index,
        scores: Vec<i32>,
        byte_tokens: [Option<TokenId>; 256],
        add_space_prefix: bool,
        by_words: bool,
    ) -> Self {
        Self {
            by_words,
            index,
            scores,
            byte_tokens,
            add_space_prefix,
        }
    }

    pub(super) fn add_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// Appends the tokens of `text`, which stands at a text's beginning or after a special token.
    /// The error is a byte that has no token, and the number of the character that it is in.
    pub(super) fn encode(
        &self,
        texts: &Texts,
        text: &str,
        out: &mut Vec<TokenId>,
    ) -> Result<(), (u8, usize)> {
        if text.is_empty() {
            return Ok(());
        }
        let prefix = usize::from(self.add_space_prefix);
        let mut plain = String::with_capacity(text.len() + prefix);
        if self.add_space_prefix {
            plain.push(' ');
        }
        // A space and the character that stands for one are the same to the vocabulary.
        plain.extend(text.chars().map(|it| if it == SPACE { ' ' } else { it }));
        let mut begin = 0;
        let mut scratch = Scratch::default();
        while begin < plain.len() {
            let length = if self.by_words {
                word(&plain[begin..])
            } else {
                plain.len()
            };
            let part = &plain[begin..begin + length];
            let encoded = self.encode_part(texts, part, &mut scratch, out);
            encoded.map_err(|(byte, at)| {
                let before = plain[..begin + at].chars().count();
                (byte, before.saturating_sub(prefix))
            })?;
            begin += length;
        }
        Ok(())
    }

    /// The error is a byte that has no token, and where its character begins.
    fn encode_part(
        &self,
        texts: &Texts,
        text: &str,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) -> Result<(), (u8, usize)> {
        self.merge(texts, text, scratch);
        let mut at = 0;
        while at != NONE {
            let Symbol {
                begin,
                length,
                next,
                ..
            } = scratch.symbols[at];
            let part = &text.as_bytes()[begin..begin + length];
            if let Some(token) = self.index.get(texts, part) {
                out.push(token);
            } else {
                for byte in part {
                    let token = self.byte_tokens[usize::from(*byte)];
                    out.push(token.ok_or((*byte, begin))?);
                }
            }
            at = next;
        }
        Ok(())
    }

    /// The characters of a text, joined as far as they go; the list begins at 0.
    fn merge(&self, texts: &Texts, text: &str, scratch: &mut Scratch) {
        let Scratch { symbols, heap } = scratch;
        symbols.clear();
        let letters = text.char_indices().enumerate();
        symbols.extend(letters.map(|(at, (begin, letter))| Symbol {
            begin,
            length: letter.len_utf8(),
            previous: at.wrapping_sub(1),
            next: at + 1,
        }));
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let bytes = text.as_bytes();
        for left in 0..symbols.len() {
            self.propose(texts, bytes, symbols, left, heap);
        }
        while let Some(candidate) = heap.pop() {
            let left = candidate.left.0;
            let (length, right) = (symbols[left].length, symbols[left].next);
            if length == 0 || right == NONE || length + symbols[right].length != candidate.length {
                continue;
            }
            let after = symbols[right].next;
            symbols[right].length = 0;
            symbols[left].length = candidate.length;
            symbols[left].next = after;
            if after != NONE {
                symbols[after].previous = left;
            }
            self.propose(texts, bytes, symbols, left, heap);
            let before = symbols[left].previous;
            if before != NONE {
                self.propose(texts, bytes, symbols, before, heap);
            }
        }
    }

    fn propose(
        &self,
        texts: &Texts,
        text: &[u8],
        symbols: &[Symbol],
        left: usize,
        heap: &mut BinaryHeap<Candidate>,
    ) {
        let Symbol {
            begin,
            length,
            next: right,
            ..
        } = symbols[left];
        if right == NONE {
            return;
        }
        let length = length + symbols[right].length;
        if let Some(token) = self.index.get(texts, &text[begin..begin + length]) {
            heap.push(Candidate {
                score: self.scores[token.index()],
                left: Reverse(left),
                length,
            });
        }
    }
}

/// The length of the first word with the spaces before it; all of a text of spaces.
fn word(text: &str) -> usize {
    let begin = text.find(|letter| letter != ' ').unwrap_or(text.len());
    text[begin..]
        .find(' ')
        .map_or(text.len(), |length| begin + length)
}

/// Whether a token's text has a space behind another character.
pub(super) fn crosses_words(text: &str) -> bool {
    text.trim_start_matches(' ').contains(' ')
}

/// A finite score as an integer of the same order; -0 and 0 are equal.
pub(super) fn order(score: f32) -> i32 {
    let bits = (score + 0.0).to_bits().cast_signed();
    if bits < 0 { i32::MIN - bits } else { bits }
}

/// The byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let both_digits = hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    both_digits
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_order_as_integers() {
        let scores = [
            f32::MIN,
            -255_504.0,
            -1.5,
            -1.0,
            -1e-40,
            0.0,
            1e-40,
            2.0,
            f32::MAX,
        ];
        assert!(scores.is_sorted_by(|a, b| order(*a) < order(*b)));
        assert_eq!(order(-0.0), order(0.0));
    }

    #[test]
    fn byte_tokens_have_two_digits() {
        assert_eq!(byte_of("<0x0A>"), Some(10));
        assert_eq!(byte_of("<0xff>"), Some(255));
        for text in ["<0x+1>", "<0x1>", "<0x111>", "0x11", "<0x>", "<0xé>"] {
            assert_eq!(byte_of(text), None, "{text}");
        }
    }
}
