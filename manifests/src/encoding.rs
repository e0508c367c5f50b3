//! The one byte encoding that every digest and signature is taken over: deterministic CBOR
//! (RFC 8949 §4.2.1) with integer map keys.
//!
//! In: documents or untrusted bytes. Out: the only bytes a document can have, or the only
//! document that bytes can mean. Decoding never accepts a second spelling: it decodes, encodes
//! again and compares, so longer integers, other key orders, doubled keys, unknown keys,
//! indefinite lengths and trailing bytes are all errors.

use minicbor::decode::{Decode, Decoder};
use minicbor::encode::{Encode, Encoder, Write};
use serde::{Serialize, Serializer};

/// A document with a canonical encoding.
pub trait Document: Sized + Encode<()> + for<'b> Decode<'b, ()> {
    /// What error messages call it.
    const NAME: &'static str;
    /// The most bytes it may take; longer input is refused before it is looked at.
    const BYTES_MAX: usize;

    /// What the types alone cannot rule out: ranges, lists too long, parts that contradict.
    ///
    /// # Errors
    /// A sentence fragment that names the field and says what it has to be.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The canonical bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        minicbor::encode(self, &mut bytes).expect("writing CBOR to memory cannot fail");
        bytes
    }

    /// Reads canonical bytes and nothing else.
    ///
    /// # Errors
    /// [`EncodingError`]: too long, malformed, not canonical, or a value out of its range.
    fn from_bytes(bytes: &[u8]) -> Result<Self, EncodingError> {
        let document = Self::NAME;
        if bytes.len() > Self::BYTES_MAX {
            return Err(EncodingError::TooLong {
                document,
                max: Self::BYTES_MAX,
                found: bytes.len(),
            });
        }
        let value: Self = minicbor::decode(bytes).map_err(|error| EncodingError::Malformed {
            document,
            at: error.position(),
            message: error.to_string(),
        })?;
        let canonical = value.to_bytes();
        if canonical != bytes {
            let at = canonical
                .iter()
                .zip(bytes)
                .take_while(|(a, b)| a == b)
                .count();
            return Err(EncodingError::NotCanonical { document, at });
        }
        value
            .check()
            .map_err(|message| EncodingError::Invalid { document, message })?;
        Ok(value)
    }
}

/// Why bytes are not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// More bytes than any document of this kind has.
    #[error("{document}: {found} bytes, of at most {max}; this is another kind of file")]
    TooLong {
        /// Which document was expected.
        document: &'static str,
        /// The limit.
        max: usize,
        /// The length of the input.
        found: usize,
    },
    /// No CBOR, or not the fields that the document has.
    #[error("{document}: {message} (damaged, cut off, or of another format or version)")]
    Malformed {
        /// Which document was expected.
        document: &'static str,
        /// Byte offset, where the decoder knows it.
        at: Option<usize>,
        /// What the decoder found.
        message: String,
    },
    /// Decodable, but not the one spelling that is signed.
    #[error(
        "{document}: not in canonical form from byte {at} on; the bytes were changed or written by other software"
    )]
    NotCanonical {
        /// Which document was expected.
        document: &'static str,
        /// The first byte that differs from the canonical form.
        at: usize,
    },
    /// Decodable and canonical, but it says something impossible.
    #[error("{document}: {message}")]
    Invalid {
        /// Which document was expected.
        document: &'static str,
        /// What is wrong, with the field's name.
        message: String,
    },
}

/// The version of a document's format; each build knows which ones it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Version {
    /// The first, of 2026-11.
    #[default]
    V1,
}

impl Version {
    /// The number in the document.
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.number())
    }
}

impl<C> Encode<C> for Version {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.u32(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Version {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = decoder.position();
        match decoder.u64()? {
            1 => Ok(Self::V1),
            other => Err(minicbor::decode::Error::message(format!(
                "format version {other}, and this build reads version 1"
            ))
            .at(at)),
        }
    }
}

/// Reads a byte string of exactly `N` bytes.
pub(crate) fn decode_array<const N: usize>(
    decoder: &mut Decoder<'_>,
) -> Result<[u8; N], minicbor::decode::Error> {
    let at = decoder.position();
    let bytes = decoder.bytes()?;
    <[u8; N]>::try_from(bytes).map_err(|_| {
        minicbor::decode::Error::message(format!("{} bytes where {N} belong", bytes.len())).at(at)
    })
}

/// Reads the head of an array that must have exactly `length` elements.
pub(crate) fn expect_array(
    decoder: &mut Decoder<'_>,
    length: u64,
) -> Result<(), minicbor::decode::Error> {
    let at = decoder.position();
    match decoder.array()? {
        Some(found) if found == length => Ok(()),
        _ => Err(
            minicbor::decode::Error::message(format!("an array of {length} belongs here")).at(at),
        ),
    }
}

/// Encodes a newtype over a byte array as one byte string.
macro_rules! cbor_bytes {
    ($($type:ident($length:literal)),* $(,)?) => {$(
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.bytes(self.as_bytes())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                decoder: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let at = decoder.position();
                let bytes = $crate::encoding::decode_array::<$length>(decoder)?;
                $type::from_wire(bytes)
                    .map_err(|error| minicbor::decode::Error::message(error).at(at))
            }
        }
    )*};
}

/// Encodes a checked text newtype as one text string.
macro_rules! cbor_text {
    ($($type:ident),* $(,)?) => {$(
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.str(self.as_str())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                decoder: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let at = decoder.position();
                $type::new(decoder.str()?)
                    .map_err(|error| minicbor::decode::Error::message(error).at(at))
            }
        }
    )*};
}

pub(crate) use {cbor_bytes, cbor_text};

/// A map from names to values, as an array of `[name, value]` in ascending order of the names.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use minicbor::{Decode, Decoder, Encode, Encoder};

    pub(crate) fn encode<C, K: Encode<C>, V: Encode<C>, W: minicbor::encode::Write>(
        pairs: &BTreeMap<K, V>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(pairs.len() as u64)?;
        for (name, value) in pairs {
            encoder.array(2)?;
            name.encode(encoder, context)?;
            value.encode(encoder, context)?;
        }
        Ok(())
    }

    pub(crate) fn decode<'b, C, K: Decode<'b, C> + Ord, V: Decode<'b, C>>(
        decoder: &mut Decoder<'b>,
        context: &mut C,
    ) -> Result<BTreeMap<K, V>, minicbor::decode::Error> {
        let mut pairs = BTreeMap::new();
        let at = decoder.position();
        let Some(length) = decoder.array()? else {
            return Err(minicbor::decode::Error::message("a list without a length").at(at));
        };
        // Nothing is reserved by `length`: it is a stranger's number.
        for _ in 0..length {
            let at = decoder.position();
            super::expect_array(decoder, 2)?;
            let name = K::decode(decoder, context)?;
            if pairs
                .last_key_value()
                .is_some_and(|(last, _)| *last >= name)
            {
                return Err(minicbor::decode::Error::message(
                    "names stand in ascending order, each once",
                )
                .at(at));
            }
            pairs.insert(name, V::decode(decoder, context)?);
        }
        Ok(pairs)
    }
}
