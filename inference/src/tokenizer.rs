//! Text ↔ token ids, from the model's own metadata.
//! In: text, or tokens a model made. Out: the ids the model was trained with; the bytes of a token.
//! It never guesses: a vocabulary, a cut or a byte that it does not know is an error.

mod bpe;
mod pieces;
mod special;
mod spm;
mod texts;
mod vocabulary;
mod wordpiece;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::gguf::{Gguf, GgufError};
use bpe::Bpe;
pub(crate) use bpe::byte_to_char;
use pieces::Cut;
use special::Specials;
use spm::Spm;
use texts::{Index, Texts};
use vocabulary::Kind;
pub use wordpiece::Casing;
use wordpiece::WordPiece;

/// A vocabulary may have at most this many tokens; the largest published one has 262,144.
pub const VOCABULARY_MAX: usize = 1 << 20;
/// What reading a tokenizer allocates stays below this many times the size of its file, besides some
/// tables of a fixed size: a byte of a control token takes a node in two tries, of 60 bytes at most while
/// they grow.
pub const TOKENIZER_ALLOCATION_FACTOR: usize = 128;

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
    #[error(
        "tokenizer model `{model}` is not supported, only `gpt2` (byte-level BPE) and `llama` (SentencePiece)"
    )]
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
    /// `vocab.txt` is not usable.
    #[error("vocab.txt: {reason}")]
    WordPiece {
        /// What is wrong with it.
        reason: String,
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
        /// Where it stands; in a text that the model's tokenizer composes, counted from the special token before it
        /// in composed text.
        offset: usize,
    },
}

/// How text becomes tokens.
#[derive(Debug)]
enum Scheme {
    /// `gpt2`: pieces by an expression, then merges by rank.
    Bpe {
        bpe: Bpe,
        cut: Cut,
        /// Finds pieces that are tokens as they stand, where the model takes those before merging.
        whole: Option<Index>,
        /// Whether text is composed (NFC) first.
        composes: bool,
    },
    /// `llama`: merges by score.
    Spm(Spm),
    /// BERT: the longest pieces of words.
    WordPiece(WordPiece),
}

/// The texts of an encoder's special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordPieceSpecials {
    /// Stands for a word that no pieces make up.
    pub unknown: String,
    /// Goes before a text.
    pub first: String,
    /// Goes behind it.
    pub last: String,
}

impl Default for WordPieceSpecials {
    /// BERT's own.
    fn default() -> Self {
        Self {
            unknown: "[UNK]".to_owned(),
            first: "[CLS]".to_owned(),
            last: "[SEP]".to_owned(),
        }
    }
}

/// Text to token ids and back, for one model.
#[derive(Debug)]
pub struct Tokenizer {
    scheme: Scheme,
    texts: Texts,
    kinds: Vec<Kind>,
    special: Specials,
    control: Specials,
    user_defined: Specials,
    bos: Option<TokenId>,
    /// The token that goes behind a text; in the field only encoders have one.
    add_eos: Option<TokenId>,
    add_bos: bool,
    end_tokens: BTreeSet<TokenId>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model file, without its weights.
    ///
    /// # Errors
    /// [`TokenizerError`]: a kind that we do not have, or arrays that do not fit each other.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let model = gguf.string_needed("tokenizer.ggml.model")?;
        let is_spm = match model {
            "gpt2" => false,
            "llama" => true,
            _ => {
                let model = model.to_owned();
                return Err(TokenizerError::UnsupportedModel { model });
            }
        };
        let (vocabulary, scheme) = if is_spm {
            vocabulary::spm(gguf)?
        } else {
            vocabulary::bpe(gguf)?
        };
        // What SentencePiece trains by default, and llama.cpp takes where the file does not say.
        let default = |id: u32| Some(TokenId(id)).filter(|_| is_spm && vocabulary.texts.len() > 2);
        let bos = vocabulary.id(gguf, "tokenizer.ggml.bos_token_id")?;
        let eos = vocabulary.id(gguf, "tokenizer.ggml.eos_token_id")?;
        let (bos, eos) = (bos.or(default(1)), eos.or(default(2)));
        let mut end_tokens = BTreeSet::from_iter(eos);
        for key in ["eot", "eom"] {
            end_tokens.extend(vocabulary.id(gguf, &format!("tokenizer.ggml.{key}_token_id"))?);
        }
        let flag = |key: &str| gguf.bool(key);
        let add_bos = flag("tokenizer.ggml.add_bos_token")?.unwrap_or(is_spm);
        let add_eos = flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let mut tokenizer = Self {
            scheme,
            texts: vocabulary.texts,
            kinds: vocabulary.kinds,
            special: Specials::default(),
            control: Specials::default(),
            user_defined: Specials::default(),
            bos,
            add_eos: eos.filter(|_| add_eos),
            add_bos,
            end_tokens,
        };
        tokenizer.index_specials();
        Ok(tokenizer)
    }

    /// Reads the vocabulary of an encoder: one token a line, and the texts of three special ones.
    /// Encoding puts `[CLS]` in front and `[SEP]` behind, unless told not to.
    ///
    /// # Errors
    /// [`TokenizerError::WordPiece`]: not UTF-8, too many lines, a line twice, or a special token that is
    /// missing.
    pub fn from_vocab_txt(
        file: &[u8],
        casing: Casing,
        special: &WordPieceSpecials,
    ) -> Result<Self, TokenizerError> {
        let lines = vocabulary::wordpiece(file)?;
        let find = |text: &str| {
            let found = lines.index.get(&lines.texts, text.as_bytes());
            found.ok_or_else(|| TokenizerError::WordPiece {
                reason: format!("the special token `{text}` is missing"),
            })
        };
        let unknown = find(&special.unknown)?;
        let (first, last) = (find(&special.first)?, find(&special.last)?);
        let mut kinds = lines.kinds;
        for token in [unknown, first, last] {
            kinds[token.index()] = Kind::Control;
        }
        let mut tokenizer = Self {
            scheme: Scheme::WordPiece(WordPiece::new(lines.index, unknown, casing)),
            texts: lines.texts,
            kinds,
            special: Specials::default(),
            control: Specials::default(),
            user_defined: Specials::default(),
            bos: Some(first),
            add_eos: Some(last),
            add_bos: true,
            end_tokens: BTreeSet::from([last]),
        };
        tokenizer.index_specials();
        Ok(tokenizer)
    }

    fn index_specials(&mut self) {
        for (id, kind) in (0..).zip(&self.kinds) {
            let token = TokenId(id);
            let text = self.texts.get(token);
            match kind {
                Kind::Normal | Kind::Byte => {}
                Kind::Control => {
                    self.special.insert(text, token);
                    self.control.insert(text, token);
                    if END_TEXTS.iter().any(|end| end.as_bytes() == text) {
                        self.end_tokens.insert(token);
                    }
                }
                Kind::UserDefined => {
                    self.special.insert(text, token);
                    self.user_defined.insert(text, token);
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
        self.texts.len()
    }

    /// The text of a token as bytes, which need not be whole characters; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, token: TokenId) -> &[u8] {
        self.texts.get(token)
    }

    /// The bytes of tokens that are a whole text: [`Tokenizer::token_bytes`] one after the other, but for
    /// the space that [`Tokenizer::encode`] puts before a text's first word where the model wants it.
    pub fn decode(&self, tokens: &[TokenId]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at_begin = matches!(&self.scheme, Scheme::Spm(spm) if spm.add_space_prefix());
        for token in tokens {
            let text = self.token_bytes(*token);
            let is_text = !self.is_control(*token);
            let space = usize::from(at_begin && is_text && text.starts_with(b" "));
            bytes.extend_from_slice(&text[space..]);
            at_begin &= !is_text;
        }
        bytes
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
        if options.add_bos == AddBos::ByMetadata {
            tokens.extend(self.add_eos);
        }
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
        range: Range<usize>,
        tokens: &mut Vec<TokenId>,
    ) -> Result<(), TokenizeError> {
        let mut offset = range.start;
        let text = match left_out {
            None => Cow::Borrowed(&text[range]),
            Some(mark) => Cow::Owned(text[range].replace(mark, "")),
        };
        let text = match &self.scheme {
            // Between special tokens, as Hugging Face's tokenizer does.
            Scheme::Bpe { composes: true, .. } if !is_nfc(&text) => {
                Cow::Owned(text.nfc().collect())
            }
            _ => text,
        };
        match &self.scheme {
            Scheme::Bpe {
                bpe, cut, whole, ..
            } => cut.each(&text, |piece| {
                let bytes = piece.as_bytes();
                let token = whole.as_ref().and_then(|it| it.get(&self.texts, bytes));
                if let Some(token) = token {
                    tokens.push(token);
                    offset += bytes.len();
                    return Ok(());
                }
                let encoded = bpe.encode(bytes, tokens);
                encoded.map_err(|at| TokenizeError::NoTokenForByte {
                    byte: bytes[at],
                    offset: offset + at,
                })?;
                offset += bytes.len();
                Ok(())
            }),
            Scheme::WordPiece(wordpiece) => {
                wordpiece.encode(&self.texts, &text, tokens);
                Ok(())
            }
            Scheme::Spm(spm) => {
                let encoded = spm.encode(&self.texts, &text, tokens);
                encoded.map_err(|(byte, letter)| {
                    let at = text.char_indices().nth(letter).map_or(0, |(at, _)| at);
                    let offset = offset + at;
                    TokenizeError::NoTokenForByte { byte, offset }
                })
            }
        }
    }
}
