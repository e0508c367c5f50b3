//! Byte-pair merges of one piece of text.
//! In: bytes. Out: token ids, merged in the order of the model's merge list.
//! Time is `n log n` in the piece's length: a heap of candidate merges over a linked list.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::TokenId;

/// The merge list and the tokens of single bytes.
#[derive(Debug)]
pub(super) struct Bpe {
    byte_tokens: [Option<TokenId>; 256],
    merges: HashMap<(TokenId, TokenId), Merge>,
}

/// What two neighbours become, and how early.
#[derive(Debug, Clone, Copy)]
struct Merge {
    rank: u32,
    merged: TokenId,
}

/// A neighbouring pair that could merge, ordered by rank, then from left to right.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    /// The pair as it was when the candidate was found; if it has changed since, this one is void.
    pair: (TokenId, TokenId),
    merged: TokenId,
}

#[derive(Debug, Clone, Copy)]
struct Symbol {
    token: TokenId,
    previous: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

impl Bpe {
    pub(super) fn new(byte_tokens: [Option<TokenId>; 256]) -> Self {
        Self {
            byte_tokens,
            merges: HashMap::new(),
        }
    }

    /// Adds the next merge of the list; the first of two equal pairs counts.
    pub(super) fn push_merge(&mut self, rank: u32, pair: (TokenId, TokenId), merged: TokenId) {
        self.merges.entry(pair).or_insert(Merge { rank, merged });
    }

    /// Appends the tokens of `piece` to `out`; the error is the index of a byte that has no token.
    pub(super) fn encode(&self, piece: &[u8], out: &mut Vec<TokenId>) -> Result<(), usize> {
        let mut symbols = Vec::with_capacity(piece.len());
        for (at, byte) in piece.iter().enumerate() {
            let token = self.byte_tokens[usize::from(*byte)].ok_or(at)?;
            let next = if at + 1 < piece.len() { at + 1 } else { NONE };
            symbols.push(Symbol {
                token,
                previous: at.wrapping_sub(1),
                next,
            });
        }
        let mut heap = BinaryHeap::new();
        for left in 0..symbols.len() {
            self.propose(&symbols, left, &mut heap);
        }
        while let Some(Reverse(candidate)) = heap.pop() {
            let left = candidate.left;
            let right = symbols[left].next;
            // A symbol that was swallowed has itself as its neighbour, and so no right pair.
            if right == NONE || right == left {
                continue;
            }
            if (symbols[left].token, symbols[right].token) != candidate.pair {
                continue;
            }
            let after = symbols[right].next;
            symbols[right].next = right;
            symbols[left] = Symbol {
                token: candidate.merged,
                next: after,
                ..symbols[left]
            };
            if after != NONE {
                symbols[after].previous = left;
            }
            self.propose(&symbols, left, &mut heap);
            if symbols[left].previous != NONE {
                self.propose(&symbols, symbols[left].previous, &mut heap);
            }
        }
        let mut at = if symbols.is_empty() { NONE } else { 0 };
        while at != NONE {
            out.push(symbols[at].token);
            at = symbols[at].next;
        }
        Ok(())
    }

    fn propose(&self, symbols: &[Symbol], left: usize, heap: &mut BinaryHeap<Reverse<Candidate>>) {
        let right = symbols[left].next;
        if right == NONE {
            return;
        }
        let pair = (symbols[left].token, symbols[right].token);
        if let Some(Merge { rank, merged }) = self.merges.get(&pair).copied() {
            heap.push(Reverse(Candidate {
                rank,
                left,
                pair,
                merged,
            }));
        }
    }
}

/// The character that GPT-2's vocabulary writes for each byte.
pub(crate) fn byte_to_char() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100;
    for (byte, letter) in (0u8..=255).zip(&mut table) {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        *letter = if printable {
            char::from(byte)
        } else {
            next += 1;
            // 68 bytes are not printable, so these are U+0100 to U+0143.
            char::from_u32(next - 1).unwrap_or('\0')
        };
    }
    table
}
