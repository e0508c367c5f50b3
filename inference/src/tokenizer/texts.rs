//! The texts of a vocabulary, by id and by text.
//! In: tokens in the order of their ids. Out: a token's bytes; the token of some bytes.
//! All texts lie in one allocation, and the index holds ids alone: 262,144 tokens take some 6 MB.

use std::hash::{BuildHasher, RandomState};

use super::TokenId;

/// Token texts, one after the other.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each text ends in `bytes`.
    ends: Vec<u32>,
}

impl Texts {
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(tokens),
        }
    }

    /// Adds the next token's text; `None` when all texts together would pass 4 GiB.
    pub(super) fn push(&mut self, text: &[u8]) -> Option<TokenId> {
        let token = TokenId(u32::try_from(self.ends.len()).ok()?);
        let end = u32::try_from(self.bytes.len() + text.len()).ok()?;
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        Some(token)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A token's text; empty for an id outside the vocabulary.
    pub(super) fn get(&self, token: TokenId) -> &[u8] {
        let index = token.index();
        let Some(end) = self.ends.get(index) else {
            return &[];
        };
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin as usize..*end as usize]
    }
}

/// Finds tokens by their text: open addressing, half full at most, with a seeded hash, so that no
/// vocabulary can be made to collide.
#[derive(Debug)]
pub(super) struct Index {
    /// Ids, or [`EMPTY`].
    slots: Vec<u32>,
    hasher: RandomState,
    /// Texts longer than this are not in it, and are not hashed.
    longest: usize,
}

/// No vocabulary has this id: [`super::VOCABULARY_MAX`] is far below.
const EMPTY: u32 = u32::MAX;

impl Index {
    /// An empty index with room for so many tokens.
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Self {
            slots: vec![EMPTY; (2 * tokens).next_power_of_two().max(2)],
            hasher: RandomState::new(),
            longest: 0,
        }
    }

    /// Adds a token; of equal texts the first counts, and the answer is then `false`.
    pub(super) fn insert(&mut self, texts: &Texts, token: TokenId) -> bool {
        let text = texts.get(token);
        let slot = self.slot(texts, text);
        if self.slots[slot] != EMPTY {
            return false;
        }
        self.slots[slot] = token.0;
        self.longest = self.longest.max(text.len());
        true
    }

    /// The token of a text.
    pub(super) fn get(&self, texts: &Texts, text: &[u8]) -> Option<TokenId> {
        if text.len() > self.longest {
            return None;
        }
        let token = self.slots[self.slot(texts, text)];
        (token != EMPTY).then_some(TokenId(token))
    }

    /// Where the text is, or would be.
    fn slot(&self, texts: &Texts, text: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any bits of a hash will do"
        )]
        let mut slot = self.hasher.hash_one(text) as usize & mask;
        while self.slots[slot] != EMPTY && texts.get(TokenId(self.slots[slot])) != text {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_again() {
        let mut texts = Texts::with_capacity(3);
        let mut index = Index::with_capacity(1000);
        assert_eq!(index.get(&texts, b""), None);
        for number in 0..1000 {
            let token = texts.push(number.to_string().as_bytes()).unwrap();
            assert!(index.insert(&texts, token));
        }
        let again = texts.push(b"7").unwrap();
        assert!(!index.insert(&texts, again));
        for number in 0..1000u32 {
            let text = number.to_string();
            assert_eq!(index.get(&texts, text.as_bytes()), Some(TokenId(number)));
            assert_eq!(texts.get(TokenId(number)), text.as_bytes());
        }
        assert_eq!(index.get(&texts, b"1000"), None);
        assert_eq!(index.get(&texts, b""), None);
        assert_eq!(texts.get(TokenId(1001)), b"");
    }
}
