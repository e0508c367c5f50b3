//! Text ↔ token ids, from the model's own metadata.
//! In: text, or tokens a model made. Out: the ids the model was trained with; the bytes of a token.
//! It never guesses: a vocabulary, a cut or a byte that it does not know is an error.

mod bpe;
mod pieces;
mod special;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use crate::gguf::{Gguf, GgufError};
use bpe::Bpe;
pub(crate) use bpe::byte_to_char;
use pieces::Cut;
use special::Specials;

/// A vocabulary may have at most this many tokens; the largest published one has 262,144.
pub const VOCABULARY_MAX: usize = 1 << 20;

/// Token texts that end a generation wherever they are control tokens, besides the ids that the
/// metadata names; llama.cpp goes by such a list too.
const END_TEXTS: [&str; 7] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
];

/// An index into a model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

impl TokenId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the beginning-of-sequence token goes in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddBos {
    /// As `tokenizer.ggml.add_bos_token` says.
    ByMetadata,
    /// Not at all: the text goes on something.
    Never,
}

/// How to read a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether BOS goes in front.
    pub add_bos: AddBos,
    /// Whether control tokens written out in the text, such as `<|im_start|>`, become those tokens.
    /// Say no for text from outside: it could forge the turns of a conversation.
    pub parse_special: bool,
}

/// Why the metadata does not make a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The metadata cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A kind of tokenizer that we do not have.
    #[error("tokenizer model `{model}` is not supported, only `gpt2` (byte-level BPE)")]
    UnsupportedModel {
        /// `tokenizer.ggml.model` of the file.
        model: String,
    },
    /// A way of cutting text that we do not have.
    #[error("pre-tokenizer `{pre}` is not supported")]
    UnsupportedCut {
        /// `tokenizer.ggml.pre` of the file.
        pre: String,
    },
    /// The arrays do not fit each other, or an id or a merge points outside the vocabulary.
    #[error("metadata key `{key}`: {reason}")]
    Inconsistent {
        /// The key.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
}

/// Why a text has no token ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// The model's vocabulary lacks a byte; only some control characters are affected in practice.
    #[error(
        "byte {byte:#04x} at offset {offset} of the text has no token in this model's vocabulary"
    )]
    NoTokenForByte {
        /// The byte.
        byte: u8,
        /// Where it stands.
        offset: usize,
    },
}

/// `tokenizer.ggml.token_type` of the file, as far as we tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Structure, not text: never printed.
    Control,
    /// Always found in text, special tokens or not.
    UserDefined,
}

/// Text to token ids and back, for one model.
#[derive(Debug)]
pub struct Tokenizer {
    bpe: Bpe,
    cut: Cut,
    /// The texts of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where each token's text ends in `bytes`.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    special: Specials,
    control: Specials,
    user_defined: Specials,
    bos: Option<TokenId>,
    add_bos: bool,
    end_tokens: BTreeSet<TokenId>,
}

impl Tokenizer {
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let model = gguf.string_needed("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::UnsupportedModel {
                model: model.to_owned(),
            });
        }
        let pre = gguf.string_needed("tokenizer.ggml.pre")?;
        let cut = Cut::from_name(pre).ok_or_else(|| TokenizerError::UnsupportedCut {
            pre: pre.to_owned(),
        })?;
        let vocabulary = Vocabulary::read(gguf)?;
        let bpe = vocabulary.bpe(gguf)?;
        let id = |key: &str| vocabulary.id(gguf, key);
        let bos = id("tokenizer.ggml.bos_token_id")?;
        let mut end_tokens = BTreeSet::new();
        for key in ["eos", "eot", "eom"] {
            end_tokens.extend(id(&format!("tokenizer.ggml.{key}_token_id"))?);
        }
        let add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false);
        let mut tokenizer = Self {
            bpe,
            cut,
            bytes: vocabulary.bytes,
            ends: vocabulary.ends,
            kinds: vocabulary.kinds,
            special: Specials::default(),
            control: Specials::default(),
            user_defined: Specials::default(),
            bos,
            add_bos,
            end_tokens,
        };
        tokenizer.index_specials();
        Ok(tokenizer)
    }

    fn index_specials(&mut self) {
        for index in 0..self.len() {
            let token = TokenId(u32::try_from(index).unwrap_or(u32::MAX));
            let text = self.token_bytes(token).to_owned();
            match self.kinds[index] {
                Kind::Normal => {}
                Kind::Control => {
                    self.special.insert(&text, token);
                    self.control.insert(&text, token);
                    if END_TEXTS.iter().any(|end| end.as_bytes() == text) {
                        self.end_tokens.insert(token);
                    }
                }
                Kind::UserDefined => {
                    self.special.insert(&text, token);
                    self.user_defined.insert(&text, token);
                }
            }
        }
    }

    /// Number of tokens in the vocabulary.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty vocabulary is refused at load"
    )]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a token as bytes, which need not be whole characters; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, token: TokenId) -> &[u8] {
        let index = token.index();
        let Some(end) = self.ends.get(index) else {
            return &[];
        };
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..*end]
    }

    /// Whether the token ends a generation.
    pub fn is_end(&self, token: TokenId) -> bool {
        self.end_tokens.contains(&token)
    }

    /// Whether the token is structure rather than text; such tokens are not printed.
    pub fn is_control(&self, token: TokenId) -> bool {
        self.kinds.get(token.index()) == Some(&Kind::Control)
    }

    /// The beginning-of-sequence token, where the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The text's token ids. An empty text has none, but for BOS.
    ///
    /// # Errors
    /// [`TokenizeError::NoTokenForByte`] where the vocabulary lacks a byte of the text.
    pub fn encode(
        &self,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<TokenId>, TokenizeError> {
        self.encode_without(None, text, options)
    }

    /// As [`Tokenizer::encode`], but leaves a character out after special tokens have been found.
    pub(crate) fn encode_without(
        &self,
        left_out: Option<char>,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<TokenId>, TokenizeError> {
        let mut tokens = Vec::new();
        if options.add_bos == AddBos::ByMetadata && self.add_bos {
            tokens.extend(self.bos);
        }
        let specials = if options.parse_special {
            &self.special
        } else {
            &self.user_defined
        };
        let mut begin = 0;
        while let Some((found, token)) = specials.find(text, begin) {
            self.encode_plain(left_out, text, begin..found.start, &mut tokens)?;
            tokens.push(token);
            begin = found.end;
        }
        self.encode_plain(left_out, text, begin..text.len(), &mut tokens)?;
        Ok(tokens)
    }

    /// Puts `mark` into every control token that is written out in a text from outside, so that
    /// [`Tokenizer::encode_without`] the mark reads it as text.
    pub(crate) fn disarm(&self, text: &str, mark: char) -> String {
        let mut out = String::with_capacity(text.len());
        let mut begin = 0;
        while let Some((found, _)) = self.control.find(text, begin) {
            let first = text[found.start..].chars().next().map_or(0, char::len_utf8);
            let after = found.start + first;
            out.push_str(&text[begin..after]);
            out.push(mark);
            begin = after;
        }
        out.push_str(&text[begin..]);
        out
    }

    fn encode_plain(
        &self,
        left_out: Option<char>,
        text: &str,
        range: std::ops::Range<usize>,
        tokens: &mut Vec<TokenId>,
    ) -> Result<(), TokenizeError> {
        let mut offset = range.start;
        let text = match left_out {
            None => Cow::Borrowed(&text[range]),
            Some(mark) => Cow::Owned(text[range].replace(mark, "")),
        };
        self.cut.each(&text, |piece| {
            let bytes = piece.as_bytes();
            let encoded = self.bpe.encode(bytes, tokens);
            encoded.map_err(|at| TokenizeError::NoTokenForByte {
                byte: bytes[at],
                offset: offset + at,
            })?;
            offset += bytes.len();
            Ok(())
        })
    }
}

/// The token texts as the file has them.
struct Vocabulary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    by_bytes: HashMap<Vec<u8>, TokenId>,
}

fn inconsistent(key: &str, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Inconsistent {
        key: key.to_owned(),
        reason: reason.into(),
    }
}

/// Bytes of a text in GPT-2's alphabet; `None` if a character is not of it.
fn bytes_of(text: &str, alphabet: &HashMap<char, u8>) -> Option<Vec<u8>> {
    text.chars()
        .map(|letter| alphabet.get(&letter).copied())
        .collect()
}

fn alphabet() -> HashMap<char, u8> {
    bpe::byte_to_char().into_iter().zip(0..=255).collect()
}

impl Vocabulary {
    fn read(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let key = "tokenizer.ggml.tokens";
        let missing = || GgufError::MissingKey {
            key: key.to_owned(),
        };
        let texts = gguf.strings(key)?.ok_or_else(missing)?;
        let count = texts.count_left();
        if count == 0 || count > VOCABULARY_MAX {
            return Err(inconsistent(
                key,
                format!("{count} tokens, wanted 1 to {VOCABULARY_MAX}"),
            ));
        }
        let types = gguf.i32s("tokenizer.ggml.token_type")?;
        if let Some(types) = &types
            && types.len() != count
        {
            let reason = format!("{} types for {count} tokens", types.len());
            return Err(inconsistent("tokenizer.ggml.token_type", reason));
        }
        let alphabet = alphabet();
        let (mut bytes, mut ends, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_bytes = HashMap::new();
        for (index, text) in texts.enumerate() {
            let kind = match types.as_ref().map_or(1, |types| types[index]) {
                // 2 is "unknown"; like control tokens it is no text.
                2 | 3 => Kind::Control,
                4 => Kind::UserDefined,
                _ => Kind::Normal,
            };
            let text = std::str::from_utf8(text)
                .map_err(|_| inconsistent(key, format!("token {index} is not UTF-8")))?;
            let plain = match kind {
                Kind::Normal => bytes_of(text, &alphabet),
                Kind::Control | Kind::UserDefined => None,
            };
            let token = TokenId(u32::try_from(index).unwrap_or(u32::MAX));
            let plain = plain.unwrap_or_else(|| text.as_bytes().to_vec());
            bytes.extend_from_slice(&plain);
            ends.push(bytes.len());
            if kind == Kind::Normal {
                by_bytes.entry(plain).or_insert(token);
            }
            kinds.push(kind);
        }
        Ok(Self {
            bytes,
            ends,
            kinds,
            by_bytes,
        })
    }

    /// A token id from the metadata, checked against the vocabulary.
    fn id(&self, gguf: &Gguf, key: &str) -> Result<Option<TokenId>, TokenizerError> {
        let Some(id) = gguf.u32(key)? else {
            return Ok(None);
        };
        if id as usize >= self.ends.len() {
            let reason = format!("token {id} of a vocabulary of {}", self.ends.len());
            return Err(inconsistent(key, reason));
        }
        Ok(Some(TokenId(id)))
    }

    fn bpe(&self, gguf: &Gguf) -> Result<Bpe, TokenizerError> {
        let mut byte_tokens = [None; 256];
        for (byte, token) in (0u8..=255).zip(&mut byte_tokens) {
            *token = self.by_bytes.get([byte].as_slice()).copied();
        }
        let mut bpe = Bpe::new(byte_tokens);
        let key = "tokenizer.ggml.merges";
        let missing = || GgufError::MissingKey {
            key: key.to_owned(),
        };
        let alphabet = alphabet();
        for (rank, merge) in (0u32..).zip(gguf.strings(key)?.ok_or_else(missing)?) {
            let pair = std::str::from_utf8(merge)
                .ok()
                .and_then(|merge| merge.split_once(' '));
            let halves = pair.and_then(|(left, right)| {
                Some((bytes_of(left, &alphabet)?, bytes_of(right, &alphabet)?))
            });
            let (mut left, right) = halves
                .ok_or_else(|| inconsistent(key, format!("merge {rank} is not a pair of texts")))?;
            let token = |bytes: &[u8]| {
                self.by_bytes.get(bytes).copied().ok_or_else(|| {
                    inconsistent(key, format!("merge {rank} names a text that is no token"))
                })
            };
            let pair = (token(&left)?, token(&right)?);
            left.extend_from_slice(&right);
            bpe.push_merge(rank, pair, token(&left)?);
        }
        Ok(bpe)
    }
}
