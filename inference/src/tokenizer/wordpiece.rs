//! BERT's WordPiece: text → words, words → the longest pieces that the vocabulary has.
//! In: text, a vocabulary by lines. Out: token ids; a word that no pieces make up is the unknown token.
//! The steps are BERT's: clean, set ideographs apart, lower-case, strip accents, split at white space and
//! punctuation. Time is linear in the text, with the longest word that is split (100 characters) as the factor.
//! Source: Google's BERT and Hugging Face's `tokenizers`, whose answers the tests hold.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

use super::TokenId;
use super::texts::{Index, Texts};

/// A longer word is the unknown token.
const WORD_CHARACTERS_MAX: usize = 100;
/// What a piece begins with that does not begin a word.
const CONTINUES: &[u8] = b"##";

/// Which steps an encoder's tokenizer takes before it looks for words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Casing {
    /// Whether letters are lower-cased.
    pub lower_case: bool,
    /// Whether marks over letters are left out.
    pub strip_accents: bool,
    /// Whether every ideograph is a word of its own.
    pub split_ideographs: bool,
}

/// The vocabulary's index and the steps.
#[derive(Debug)]
pub(super) struct WordPiece {
    index: Index,
    unknown: TokenId,
    casing: Casing,
}

impl WordPiece {
    pub(super) fn new(index: Index, unknown: TokenId, casing: Casing) -> Self {
        Self {
            index,
            unknown,
            casing,
        }
    }

    /// Appends the tokens of a text.
    pub(super) fn encode(&self, texts: &Texts, text: &str, out: &mut Vec<TokenId>) {
        let mut word = String::new();
        let mut continued = Vec::new();
        let mut finish = |word: &mut String, out: &mut Vec<TokenId>| {
            if !word.is_empty() {
                self.word(texts, word, &mut continued, out);
                word.clear();
            }
        };
        self.normalize(text, |letter| {
            if letter.is_whitespace() {
                finish(&mut word, out);
            } else if is_punctuation(letter) {
                finish(&mut word, out);
                word.push(letter);
                finish(&mut word, out);
            } else {
                word.push(letter);
            }
        });
        finish(&mut word, out);
    }

    /// The text's characters after cleaning and casing.
    fn normalize(&self, text: &str, mut each: impl FnMut(char)) {
        let Casing {
            lower_case,
            strip_accents,
            split_ideographs,
        } = self.casing;
        let cleaned = text.chars().filter(|letter| !is_dropped(*letter));
        let spaced = cleaned.flat_map(|letter| {
            let is_apart = split_ideographs && is_ideograph(letter);
            let space = is_apart.then_some(' ');
            space.into_iter().chain([letter]).chain(space)
        });
        let mut lower = |letter: char| {
            if lower_case {
                letter.to_lowercase().for_each(&mut each);
            } else {
                each(letter);
            }
        };
        if strip_accents {
            spaced.nfd().filter(|it| !is_mark(*it)).for_each(lower);
        } else {
            spaced.for_each(&mut lower);
        }
    }

    fn word(&self, texts: &Texts, word: &str, continued: &mut Vec<u8>, out: &mut Vec<TokenId>) {
        let before = out.len();
        if word.chars().count() > WORD_CHARACTERS_MAX {
            out.push(self.unknown);
            return;
        }
        let mut begin = 0;
        while begin < word.len() {
            continued.clear();
            if begin > 0 {
                continued.extend_from_slice(CONTINUES);
            }
            let prefix = continued.len();
            continued.extend_from_slice(&word.as_bytes()[begin..]);
            let borders = word[begin..].char_indices().rev();
            let found = borders.map(|(at, it)| at + it.len_utf8()).find_map(|end| {
                let token = self.index.get(texts, &continued[..prefix + end])?;
                Some((end, token))
            });
            let Some((end, token)) = found else {
                out.truncate(before);
                out.push(self.unknown);
                return;
            };
            out.push(token);
            begin += end;
        }
    }
}

/// Characters that are no text: NUL, the replacement character and Unicode's category C, but for the
/// control characters that are white space.
fn is_dropped(letter: char) -> bool {
    static OTHER: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{C}"));
    match letter {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{fffd}' => true,
        _ => OTHER.has(letter),
    }
}

/// Category Mn.
fn is_mark(letter: char) -> bool {
    static MARKS: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{Mn}"));
    !letter.is_ascii() && MARKS.has(letter)
}

/// ASCII's punctuation, with its symbols, and Unicode's category P.
fn is_punctuation(letter: char) -> bool {
    static PUNCTUATION: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{P}"));
    if letter.is_ascii() {
        letter.is_ascii_punctuation()
    } else {
        PUNCTUATION.has(letter)
    }
}

/// The blocks of ideographs that BERT sets apart.
fn is_ideograph(letter: char) -> bool {
    const BLOCKS: [RangeInclusive<char>; 8] = [
        '\u{4e00}'..='\u{9fff}',
        '\u{3400}'..='\u{4dbf}',
        '\u{20000}'..='\u{2a6df}',
        '\u{2a700}'..='\u{2b73f}',
        '\u{2b740}'..='\u{2b81f}',
        '\u{2b920}'..='\u{2ceaf}',
        '\u{f900}'..='\u{faff}',
        '\u{2f800}'..='\u{2fa1f}',
    ];
    BLOCKS.iter().any(|block| block.contains(&letter))
}

/// A class of characters as sorted ranges.
struct Ranges(Vec<(char, char)>);

impl Ranges {
    fn of(class: &str) -> Self {
        let parsed = regex_syntax::parse(class).map(regex_syntax::hir::Hir::into_kind);
        match parsed {
            Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                let ranges = class.iter().map(|range| (range.start(), range.end()));
                Self(ranges.collect())
            }
            other => unreachable!("`{class}` parses to a class of characters, not {other:?}"),
        }
    }

    fn has(&self, letter: char) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= letter);
        after
            .checked_sub(1)
            .is_some_and(|at| letter <= self.0[at].1)
    }
}
