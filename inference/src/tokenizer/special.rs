//! Finds special tokens such as `<|im_start|>` that stand in a text.
//! In: text. Out: the first special token at or after a place, the longest where several begin there.
//! Time is linear in the text, with the longest special token as the factor.

use std::collections::HashMap;
use std::ops::Range;

use super::TokenId;

/// A trie over the texts of special tokens.
#[derive(Debug, Default)]
pub(super) struct Specials {
    children: HashMap<(u32, u8), u32>,
    /// The token that ends at each node.
    tokens: Vec<Option<TokenId>>,
}

impl Specials {
    /// Adds a token; empty texts are never found.
    pub(super) fn insert(&mut self, text: &[u8], token: TokenId) {
        if self.tokens.is_empty() {
            self.tokens.push(None);
        }
        let mut node = 0u32;
        for byte in text {
            let new = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
            let tokens = &mut self.tokens;
            node = *self.children.entry((node, *byte)).or_insert_with(|| {
                tokens.push(None);
                new
            });
        }
        if !text.is_empty() {
            self.tokens[node as usize].get_or_insert(token);
        }
    }

    /// The first special token in `text` from byte `from` on.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<(Range<usize>, TokenId)> {
        if self.children.is_empty() {
            return None;
        }
        (from..text.len()).find_map(|begin| self.longest_at(&text.as_bytes()[begin..], begin))
    }

    fn longest_at(&self, rest: &[u8], begin: usize) -> Option<(Range<usize>, TokenId)> {
        let mut node = 0u32;
        let mut found = None;
        for (at, byte) in rest.iter().enumerate() {
            let Some(child) = self.children.get(&(node, *byte)) else {
                break;
            };
            node = *child;
            if let Some(token) = self.tokens[node as usize] {
                found = Some((begin..begin + at + 1, token));
            }
        }
        found
    }
}
