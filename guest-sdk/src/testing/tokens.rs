//! The vocabulary of a scripted model, which grows with what it reads.
//!
//! In: text. Out: token ids. The ids below 256 are single bytes, 256 ends a turn, and each
//! further piece of text gets the next one when it is first seen.

use std::collections::BTreeMap;

/// The token that ends a turn; it has no bytes.
pub(crate) const END: u32 = 256;

/// How many ids a scripted model says that it has.
pub(crate) const VOCABULARY: u32 = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    pieces: Vec<Vec<u8>>,
    ids: BTreeMap<Vec<u8>, u32>,
}

impl Vocabulary {
    pub(crate) fn id(&mut self, piece: &[u8]) -> u32 {
        if let [byte] = piece {
            return u32::from(*byte);
        }
        if piece.is_empty() {
            return END;
        }
        if let Some(id) = self.ids.get(piece) {
            return *id;
        }
        let id = END + 1 + u32::try_from(self.pieces.len()).unwrap_or(u32::MAX / 2);
        self.pieces.push(piece.to_vec());
        self.ids.insert(piece.to_vec(), id);
        id
    }

    pub(crate) fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Ok(byte) = u8::try_from(id) {
            return Some(vec![byte]);
        }
        let at = id.checked_sub(END + 1);
        at.map_or(Some(Vec::new()), |at| self.pieces.get(at as usize).cloned())
    }

    pub(crate) fn tokenize(&mut self, text: &str) -> Vec<u32> {
        split(text)
            .iter()
            .map(|piece| self.id(piece.as_bytes()))
            .collect()
    }
}

/// The pieces of a text: words with the space before them, and all other characters.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let space = usize::from(first == ' ');
        let word = |character: char| character.is_alphanumeric();
        let letters = rest[space..]
            .find(|character| !word(character))
            .unwrap_or(rest.len() - space);
        let end = if letters > 0 {
            space + letters
        } else {
            first.len_utf8()
        };
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_the_space_before_them() {
        assert_eq!(
            split("Hi there, you  é1!"),
            ["Hi", " there", ",", " you", " ", " é1", "!"]
        );
        assert_eq!(split(""), Vec::<&str>::new());
        let mut vocabulary = Vocabulary::default();
        let tokens = vocabulary.tokenize("a bc bc");
        assert_eq!(tokens, [97, 257, 257]);
        assert_eq!(vocabulary.bytes(257), Some(b" bc".to_vec()));
        assert_eq!(vocabulary.bytes(258), None);
        assert_eq!(vocabulary.bytes(END), Some(vec![]));
    }
}
