//! Metadata values of a GGUF file and typed access to them.
//! In: a checked value and the file it lies in. Out: numbers, strings, arrays; or an error that names the key.
//! Arrays and strings stay in the file: nothing here copies them.

use std::ops::Range;

use super::cursor::Cursor;
use super::{Gguf, GgufError};

/// One metadata value. Ranges are into the file and were checked when it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(Range<usize>),
    Array {
        element: ElementType,
        count: usize,
        bytes: Range<usize>,
    },
}

/// The type codes of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ElementType {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        use ElementType::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        let all = [
            U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64,
        ];
        all.get(usize::try_from(code).ok()?).copied()
    }

    /// Bytes of one element; `None` where they vary.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a signed integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Array { .. } => "an array",
        }
    }
}

/// Typed access to metadata; each error names the key.
impl Gguf {
    fn typed<T>(
        &self,
        key: &str,
        wanted: &'static str,
        get: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        get(value).map(Some).ok_or_else(|| GgufError::WrongType {
            key: key.to_owned(),
            wanted,
            found: value.kind(),
        })
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(
            key,
            "an integer from 0 to 4294967295",
            |value| match value {
                Value::Unsigned(number) => u32::try_from(*number).ok(),
                Value::Signed(number) => u32::try_from(*number).ok(),
                _ => None,
            },
        )
    }

    /// A number of any type; a flag is 0 or 1.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", |value| match value {
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Bool(flag) => Some(f64::from(*flag)),
            Value::String(_) | Value::Array { .. } => None,
        })
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the file's own floats are f32; an f64 is rounded to the nearest"
    )]
    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a float", |value| match value {
            Value::Float(number) => Some(*number as f32),
            _ => None,
        })
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string of UTF-8", |value| match value {
            Value::String(range) => std::str::from_utf8(&self.bytes()[range.clone()]).ok(),
            _ => None,
        })
    }

    pub(crate) fn string_needed(&self, key: &str) -> Result<&str, GgufError> {
        self.string(key)?.ok_or_else(|| GgufError::MissingKey {
            key: key.to_owned(),
        })
    }

    /// An array of strings, read one by one from the file.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<Strings<'_>>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array {
                element: ElementType::String,
                count,
                bytes,
            } => Some(Strings {
                cursor: Cursor::new(&self.bytes()[..bytes.end], bytes.start),
                bytes: self.bytes(),
                left: *count,
            }),
            _ => None,
        })
    }

    /// An array of 32-bit floats.
    pub(crate) fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.typed(key, "an array of 32-bit floats", |value| match value {
            Value::Array {
                element: ElementType::F32,
                bytes,
                ..
            } => {
                let words = self.bytes()[bytes.clone()].as_chunks::<4>().0;
                Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
            }
            _ => None,
        })
    }

    /// An array of 32-bit integers.
    pub(crate) fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.typed(key, "an array of 32-bit integers", |value| match value {
            Value::Array {
                element: ElementType::I32 | ElementType::U32,
                bytes,
                ..
            } => {
                let words = self.bytes()[bytes.clone()].as_chunks::<4>().0;
                Some(words.iter().map(|word| i32::from_le_bytes(*word)).collect())
            }
            _ => None,
        })
    }
}

/// The strings of an array, as the bytes that stand in the file.
#[derive(Debug)]
pub(crate) struct Strings<'a> {
    cursor: Cursor<'a>,
    bytes: &'a [u8],
    left: usize,
}

impl Strings<'_> {
    pub(crate) fn count_left(&self) -> usize {
        self.left
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        // The lengths were checked when the file was parsed, so neither read can fail.
        let length = self.cursor.u64().ok()?;
        let range = self.cursor.take(length).ok()?;
        self.bytes.get(range)
    }
}
