//! Names and labels: short texts with a fixed alphabet, checked once and then trusted.
//!
//! In: text from manifests, drivers and documents. Out: values that are safe to print, to use
//! as a file name (names) and to sign. They never hold control characters or grow past a bound.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The most characters of a job or model name.
const NAME_BYTES_MAX: usize = 63;
/// The most bytes of a label.
const LABEL_BYTES_MAX: usize = 256;

/// The name of a job: `^[a-z0-9][a-z0-9-]{0,62}$`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

/// The name a job gives to a model: `^[a-z0-9][a-z0-9._-]{0,62}$`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(String);

/// A line about a machine or a build, for people: 1 to 256 bytes of UTF-8 without control
/// characters, not starting or ending with a space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl JobName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] says which character or length is wrong.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_name(text, "-", "a-z, 0-9 and -").map(|()| Self(text.to_owned()))
    }
}

impl ModelName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] says which character or length is wrong.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check_name(text, "-._", "a-z, 0-9, -, . and _").map(|()| Self(text.to_owned()))
    }
}

impl Label {
    /// Checks and takes a line.
    ///
    /// # Errors
    /// [`LabelError`] if it is empty, too long, or holds a control character.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() || text.len() > LABEL_BYTES_MAX {
            return Err(LabelError::Length { bytes: text.len() });
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(LabelError::Characters);
        }
        Ok(Self(text.to_owned()))
    }

    /// Makes a label of whatever a driver or tool reports: control characters become spaces,
    /// the ends are trimmed, what is too long is cut at a character, nothing becomes `unknown`.
    pub fn lossy(text: &str) -> Self {
        let spaced: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut end = spaced.trim().len().min(LABEL_BYTES_MAX);
        let trimmed = spaced.trim();
        while !trimmed.is_char_boundary(end) {
            end -= 1;
        }
        let cut = trimmed[..end].trim_end();
        Self(if cut.is_empty() {
            "unknown".to_owned()
        } else {
            cut.to_owned()
        })
    }
}

fn check_name(text: &str, others: &'static str, alphabet: &'static str) -> Result<(), NameError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let Some(first) = text.chars().next() else {
        return Err(NameError::Empty);
    };
    if let Some(found) = text.chars().find(|c| !good(*c) && !others.contains(*c)) {
        return Err(NameError::Character { found, alphabet });
    }
    if !good(first) {
        return Err(NameError::First { found: first });
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong {
            characters: text.len(),
        });
    }
    Ok(())
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name has at least one character")]
    Empty,
    /// A character outside the alphabet.
    #[error("{found:?} cannot stand in this name; it is made of {alphabet}")]
    Character {
        /// The character.
        found: char,
        /// What is allowed.
        alphabet: &'static str,
    },
    /// The first character is a separator.
    #[error("a name starts with a letter or a digit, not with {found:?}")]
    First {
        /// The character.
        found: char,
    },
    /// More than 63 characters.
    #[error("a name has at most 63 characters, this has {characters}")]
    TooLong {
        /// How many it has.
        characters: usize,
    },
}

/// Why a text is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Empty, or more than 256 bytes.
    #[error("a label has 1 to 256 bytes, this has {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// A control character, or a space at an end.
    #[error("a label is one line without control characters and without spaces at its ends")]
    Characters,
}

macro_rules! text_newtype {
    ($($type:ident, $error:ident;)*) => {$(
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

text_newtype! { JobName, NameError; ModelName, NameError; Label, LabelError; }
crate::encoding::cbor_text!(JobName, ModelName, Label);
