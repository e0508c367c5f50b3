//! A vocabulary as a GGUF file has it → token texts, kinds, and what merges need.
//! In: metadata, untrusted. Out: texts as they are printed, and the scheme's own tables.
//! It never takes a text, a score or a merge that it cannot place.

use std::collections::HashMap;

use crate::gguf::{Gguf, GgufError};

use super::bpe::{self, Bpe};
use super::pieces::Cut;
use super::spm::{self, SPACE, Spm};
use super::texts::{Index, Texts};
use super::{Scheme, TokenId, TokenizerError, VOCABULARY_MAX};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// `tokenizer.ggml.token_type` of the file, as far as we tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    /// Structure, not text: never printed.
    Control,
    /// Always found in text, special tokens or not.
    UserDefined,
    /// One byte of a character that has no token.
    Byte,
}

impl Kind {
    fn from_code(code: i32) -> Self {
        match code {
            // 2 is "unknown"; like control tokens it is no text.
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            // 1 is "normal"; 5, "unused", is looked up like it, as llama.cpp does.
            _ => Self::Normal,
        }
    }
}

/// The token texts as they are printed.
pub(super) struct Vocabulary {
    pub(super) texts: Texts,
    pub(super) kinds: Vec<Kind>,
    /// The tokens that text can become.
    pub(super) index: Index,
}

fn inconsistent(key: &str, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Inconsistent {
        key: key.to_owned(),
        reason: reason.into(),
    }
}

fn missing(key: &str) -> GgufError {
    GgufError::MissingKey {
        key: key.to_owned(),
    }
}

impl Vocabulary {
    /// Reads all tokens; `plain` gives the bytes that a token's text stands for, and whether text can
    /// become it.
    fn read(
        gguf: &Gguf,
        mut plain: impl FnMut(Kind, &str) -> Option<(Vec<u8>, bool)>,
    ) -> Result<Self, TokenizerError> {
        let texts = gguf.strings(TOKENS)?.ok_or_else(|| missing(TOKENS))?;
        let count = texts.count_left();
        if count == 0 || count > VOCABULARY_MAX {
            let reason = format!("{count} tokens, wanted 1 to {VOCABULARY_MAX}");
            return Err(inconsistent(TOKENS, reason));
        }
        let types = gguf.i32s(TYPES)?;
        if let Some(types) = &types
            && types.len() != count
        {
            let reason = format!("{} types for {count} tokens", types.len());
            return Err(inconsistent(TYPES, reason));
        }
        let mut vocabulary = Self {
            texts: Texts::with_capacity(count),
            kinds: Vec::with_capacity(count),
            index: Index::with_capacity(count),
        };
        for (at, text) in texts.enumerate() {
            let kind = Kind::from_code(types.as_ref().map_or(1, |types| types[at]));
            let text = std::str::from_utf8(text)
                .map_err(|_| inconsistent(TOKENS, format!("token {at} is not UTF-8")))?;
            let (bytes, is_indexed) = plain(kind, text).ok_or_else(|| {
                inconsistent(
                    TOKENS,
                    format!("token {at}, `{text}`, is not as its type has it"),
                )
            })?;
            let token = vocabulary.texts.push(&bytes);
            let token = token.ok_or_else(|| inconsistent(TOKENS, "more than 4 GiB of text"))?;
            if is_indexed {
                // Of equal texts the first counts.
                let _ = vocabulary.index.insert(&vocabulary.texts, token);
            }
            vocabulary.kinds.push(kind);
        }
        Ok(vocabulary)
    }

    /// A token id from the metadata, checked against the vocabulary.
    pub(super) fn id(&self, gguf: &Gguf, key: &str) -> Result<Option<TokenId>, TokenizerError> {
        let Some(id) = gguf.u32(key)? else {
            return Ok(None);
        };
        if id as usize >= self.texts.len() {
            let reason = format!("token {id} of a vocabulary of {}", self.texts.len());
            return Err(inconsistent(key, reason));
        }
        Ok(Some(TokenId(id)))
    }

    /// Takes the index out, for the scheme.
    fn take_index(&mut self) -> Index {
        std::mem::replace(&mut self.index, Index::with_capacity(0))
    }
}

/// SentencePiece: scores, byte tokens, and whether a space goes in front.
pub(super) fn spm(gguf: &Gguf) -> Result<(Vocabulary, Scheme), TokenizerError> {
    let mut byte_tokens = [None; 256];
    let (mut id, mut by_words) = (0, true);
    let mut vocabulary = Vocabulary::read(gguf, |kind, text| {
        let token = TokenId(id);
        id += 1;
        Some(match kind {
            Kind::Byte => {
                let byte = spm::byte_of(text)?;
                byte_tokens[usize::from(byte)].get_or_insert(token);
                (vec![byte], false)
            }
            Kind::Normal => {
                // A plain space is written otherwise; a token with one is out of reach.
                let is_reachable = !text.contains(' ') && !text.is_empty();
                let text = text.replace(SPACE, " ");
                by_words &= !(is_reachable && spm::crosses_words(&text));
                (text.into_bytes(), is_reachable)
            }
            Kind::Control | Kind::UserDefined => (text.as_bytes().to_vec(), false),
        })
    })?;
    let scores = gguf.f32s(SCORES)?.ok_or_else(|| missing(SCORES))?;
    if scores.len() != vocabulary.texts.len() {
        let reason = format!(
            "{} scores for {} tokens",
            scores.len(),
            vocabulary.texts.len()
        );
        return Err(inconsistent(SCORES, reason));
    }
    if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
        let reason = format!("the score of token {at} is {}", scores[at]);
        return Err(inconsistent(SCORES, reason));
    }
    let scores = scores.into_iter().map(spm::order).collect();
    let prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?;
    let index = vocabulary.take_index();
    let spm = Spm::new(index, scores, byte_tokens, prefix.unwrap_or(true), by_words);
    Ok((vocabulary, Scheme::Spm(spm)))
}

/// `vocab.txt`: a token a line, its number the id.
pub(super) fn wordpiece(file: &[u8]) -> Result<Vocabulary, TokenizerError> {
    let wrong = |reason: String| TokenizerError::WordPiece { reason };
    let file = std::str::from_utf8(file).map_err(|error| wrong(error.to_string()))?;
    let count = file.lines().count();
    if count == 0 || count > VOCABULARY_MAX {
        let reason = format!("{count} tokens, wanted 1 to {VOCABULARY_MAX}");
        return Err(wrong(reason));
    }
    let mut vocabulary = Vocabulary {
        texts: Texts::with_capacity(count),
        kinds: vec![Kind::Normal; count],
        index: Index::with_capacity(count),
    };
    for (line, text) in (1..).zip(file.lines()) {
        let token = vocabulary.texts.push(text.as_bytes());
        let token = token.ok_or_else(|| wrong("more than 4 GiB of text".to_owned()))?;
        // Which of two equal lines a text should become, nobody could say.
        if !vocabulary.index.insert(&vocabulary.texts, token) {
            return Err(wrong(format!("`{text}` in line {line} is there twice")));
        }
    }
    Ok(vocabulary)
}

/// Bytes of a text in GPT-2's alphabet; `None` if a character is not of it.
fn bytes_of(text: &str, alphabet: &HashMap<char, u8>) -> Option<Vec<u8>> {
    text.chars()
        .map(|letter| alphabet.get(&letter).copied())
        .collect()
}

/// Whether the model's own tokenizer composes text (NFC) before it cuts it, which GGUF has no key for.
/// Qwen 2 and 3 do: `tokenizer.json` says so, and the weights were trained on such text. llama.cpp leaves the
/// text as it is, so a letter and its accent, where they come apart, become tokens that the model hardly knows.
fn composes(pre: &str) -> bool {
    pre == "qwen2"
}

/// Byte-level BPE: merges by rank inside pieces.
pub(super) fn bpe(gguf: &Gguf) -> Result<(Vocabulary, Scheme), TokenizerError> {
    let pre = gguf.string_needed("tokenizer.ggml.pre")?;
    let cut = Cut::from_name(pre).ok_or_else(|| TokenizerError::UnsupportedCut {
        pre: pre.to_owned(),
    })?;
    let alphabet: HashMap<char, u8> = bpe::byte_to_char().into_iter().zip(0..=255).collect();
    let mut vocabulary = Vocabulary::read(gguf, |kind, text| {
        let is_text = matches!(kind, Kind::Normal | Kind::Byte);
        let plain = is_text.then(|| bytes_of(text, &alphabet)).flatten();
        Some((plain.unwrap_or_else(|| text.as_bytes().to_vec()), is_text))
    })?;
    let token = |bytes: &[u8]| vocabulary.index.get(&vocabulary.texts, bytes);
    let mut byte_tokens = [None; 256];
    for (byte, slot) in (0u8..=255).zip(&mut byte_tokens) {
        *slot = token(&[byte]);
    }
    let mut bpe = Bpe::new(byte_tokens);
    for (rank, merge) in (0u32..).zip(gguf.strings(MERGES)?.ok_or_else(|| missing(MERGES))?) {
        let pair = std::str::from_utf8(merge)
            .ok()
            .and_then(|merge| merge.split_once(' '));
        let halves = pair.and_then(|(left, right)| {
            Some((bytes_of(left, &alphabet)?, bytes_of(right, &alphabet)?))
        });
        let (mut left, right) = halves
            .ok_or_else(|| inconsistent(MERGES, format!("merge {rank} is not a pair of texts")))?;
        let token = |bytes: &[u8]| {
            let reason = || format!("merge {rank} names a text that is no token");
            token(bytes).ok_or_else(|| inconsistent(MERGES, reason()))
        };
        let pair = (token(&left)?, token(&right)?);
        left.extend_from_slice(&right);
        bpe.push_merge(rank, pair, token(&left)?);
    }
    // Whole pieces that are tokens need no merges where the model says so.
    let whole = cut.takes_whole_pieces().then(|| vocabulary.take_index());
    let scheme = Scheme::Bpe {
        bpe,
        cut,
        whole,
        composes: composes(pre),
    };
    Ok((vocabulary, scheme))
}
