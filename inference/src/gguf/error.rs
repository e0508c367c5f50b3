//! What can be wrong with a GGUF file; each error names the key, the tensor or the byte.

use std::path::PathBuf;

use super::ALIGNMENT_MAX;

/// Why bytes are not a GGUF file that we can read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be opened or mapped.
    #[error("cannot read model file `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}, not with `GGUF`")]
    NotGguf {
        /// The first bytes, at most four.
        found: Vec<u8>,
    },
    /// Another version of the format, or a big-endian file.
    #[error("GGUF version {version} is not supported, only little-endian version 3")]
    Version {
        /// The version the file states.
        version: u32,
    },
    /// The file ends inside its header.
    #[error(
        "file is truncated: {what} at byte {offset} needs {wanted} bytes, past the end at {length}"
    )]
    Truncated {
        /// What was being read.
        what: String,
        /// Where.
        offset: usize,
        /// How many bytes it needs.
        wanted: u64,
        /// The size of the file.
        length: usize,
    },
    /// More of something than any real model has.
    #[error("file claims {count} {what}, at most {limit} are allowed")]
    TooMany {
        /// Tensors, metadata keys, bytes of a name.
        what: String,
        /// What the file claims.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// A key or a tensor's name is not UTF-8.
    #[error("{what} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// What it is.
        what: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// A metadata key or tensor stands twice.
    #[error("{what} `{name}` stands twice in the file")]
    Duplicate {
        /// Metadata key or tensor.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A metadata type code outside the format.
    #[error("metadata key `{key}` has the unknown type {code}")]
    UnknownType {
        /// The key.
        key: String,
        /// The code.
        code: u32,
    },
    /// An array of arrays; no model uses one.
    #[error("metadata key `{key}` is an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A key that the model needs is not there.
    #[error("metadata key `{key}` is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key has a value of another type.
    #[error("metadata key `{key}` is {found}, wanted {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// What was wanted.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// `general.alignment` is not a power of two in range.
    #[error("general.alignment is {alignment}, wanted a power of two from 8 to {ALIGNMENT_MAX}")]
    Alignment {
        /// What the file states.
        alignment: u64,
    },
    /// A tensor's dimensions are absurd.
    #[error("tensor `{tensor}` has the dimensions {dimensions:?}: {reason}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// As the file states them.
        dimensions: Vec<u64>,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A tensor of a type that we do not know.
    #[error("tensor `{tensor}` has the unknown or unsupported type {code}")]
    QuantType {
        /// The tensor.
        tensor: String,
        /// The type's code in the file.
        code: u32,
    },
    /// A tensor begins at a misaligned offset.
    #[error("tensor `{tensor}` begins at offset {offset}, not a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor ends past the end of the file.
    #[error("tensor `{tensor}` ends at byte {end}, past the end of the file at {length}")]
    PastEnd {
        /// The tensor.
        tensor: String,
        /// Where it would end.
        end: u128,
        /// The size of the file.
        length: usize,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// A tensor that the model needs is not there.
    #[error("tensor `{tensor}` is missing")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
}
