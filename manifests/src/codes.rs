//! `codes!`: an enum of plain cases, each with the number and the word that documents use.
//!
//! In: the cases. Out: the enum, a number in CBOR and a word in TOML, JSON and messages. A number
//! or word once given never changes its meaning: signed documents hold it.

/// A case that texts say by a word.
pub(crate) trait Word: Sized {
    /// The words of all cases, in the order of their codes.
    const WORDS: &'static [&'static str];

    /// The case of a word, if it is known.
    fn from_word(word: &str) -> Option<Self>;
}

/// An enum of plain cases with a stable code and word each; the text behind its name is what
/// an error calls it.
macro_rules! codes {
    ($(#[$meta:meta])* $type:ident($what:literal) { $($(#[$case_meta:meta])* $case:ident = $code:literal $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$case_meta])* $case,)*
        }

        impl $type {
            /// Every case, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$case),*];

            /// The number in the document.
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$case => $code,)*
                }
            }

            /// The word in texts, views and messages.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$case => $word,)*
                }
            }

            /// The case of a code, if it is known.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$case),)*
                    _ => None,
                }
            }
        }

        impl $crate::codes::Word for $type {
            const WORDS: &'static [&'static str] = &[$($word),*];

            fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$case),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.u8(self.code())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                decoder: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let at = decoder.position();
                Self::from_code(decoder.u8()?).ok_or_else(|| {
                    minicbor::decode::Error::message(concat!("no known ", $what)).at(at)
                })
            }
        }
    };
}

pub(crate) use codes;
