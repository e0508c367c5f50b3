//! Safetensors: untrusted bytes → tensors by name.
//! In: the bytes of a `.safetensors` file. Out: for each tensor its type, shape and bytes, which lie inside
//! the file, one behind the other without gaps, and have the size that type and shape call for.
//! It never trusts a length, and copies no tensor.
//! Source of the format: the `safetensors` project's README. The crate of that name is not used because
//! of names that occur twice it keeps the last, and its header may take 100 MB.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::quant::QuantType;

/// The longest header; that of a model with ten thousand tensors takes one megabyte.
pub const SAFETENSORS_HEADER_BYTES_MAX: u64 = 16 << 20;
/// A tensor has at most this many dimensions.
const DIMENSIONS_MAX: usize = 8;

/// Why bytes are no safetensors file.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The file ends in its header, or the header is too long.
    #[error(
        "the header is said to take {bytes} bytes of a file of {file_bytes}, at most {SAFETENSORS_HEADER_BYTES_MAX} are allowed"
    )]
    HeaderLength {
        /// What the file says.
        bytes: u64,
        /// What there is.
        file_bytes: u64,
    },
    /// The header is no JSON of the right shape.
    #[error("the header is not right")]
    Header(#[source] serde_json::Error),
    /// A tensor's place does not fit its shape, its neighbour or the file.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

/// A tensor in the file.
#[derive(Debug, Clone)]
pub(crate) struct SafeTensor<'a> {
    /// `None` for types that are no weights of ours, such as integers.
    pub(crate) quant: Option<QuantType>,
    /// The type's name in the file.
    pub(crate) dtype: String,
    /// The slowest-moving first: `[rows, columns]` for a matrix.
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: &'a [u8],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header, of which serde's own maps would keep the last of two equal names.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match entries.entry(name) {
                        Slot::Vacant(slot) => {
                            slot.insert(map.next_value()?);
                        }
                        Slot::Occupied(slot) => {
                            let reason = format!("tensor `{}` is there twice", slot.key());
                            return Err(A::Error::custom(reason));
                        }
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The bytes of one value of a type, and what we call it.
fn value(dtype: &str) -> Option<(u64, Option<QuantType>)> {
    Some(match dtype {
        "F32" => (4, Some(QuantType::F32)),
        "F16" => (2, Some(QuantType::F16)),
        "BF16" => (2, Some(QuantType::BF16)),
        "F64" | "I64" | "U64" => (8, None),
        "I32" | "U32" => (4, None),
        "I16" | "U16" => (2, None),
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => (1, None),
        _ => return None,
    })
}

/// Reads the header and checks every tensor's place.
pub(crate) fn parse(file: &[u8]) -> Result<BTreeMap<String, SafeTensor<'_>>, SafetensorsError> {
    let wrong_length = |bytes| SafetensorsError::HeaderLength {
        bytes,
        file_bytes: file.len() as u64,
    };
    let (length, rest) = file
        .split_first_chunk::<8>()
        .ok_or_else(|| wrong_length(0))?;
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .filter(|_| length <= SAFETENSORS_HEADER_BYTES_MAX)
        .and_then(|length| rest.split_at_checked(length));
    let (header, data) = header.ok_or_else(|| wrong_length(length))?;
    let Header(entries) = serde_json::from_slice(header).map_err(SafetensorsError::Header)?;
    let mut by_place: Vec<(&String, &Entry)> = entries.iter().collect();
    by_place.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = BTreeMap::new();
    let mut end = 0;
    for (name, entry) in by_place {
        let wrong = |reason: String| SafetensorsError::Tensor {
            tensor: name.clone(),
            reason,
        };
        let [from, to] = entry.data_offsets;
        let (size, quant) = value(&entry.dtype)
            .ok_or_else(|| wrong(format!("the type `{}` is unknown", entry.dtype)))?;
        if entry.shape.len() > DIMENSIONS_MAX {
            return Err(wrong(format!("more than {DIMENSIONS_MAX} dimensions")));
        }
        let wanted = entry.shape.iter().try_fold(size, |a, b| a.checked_mul(*b));
        if from != end || wanted.and_then(|bytes| from.checked_add(bytes)) != Some(to) {
            return Err(wrong(format!(
                "lies at {from} to {to}, wanted {end} on, with the bytes of {:?} values of {size}",
                entry.shape
            )));
        }
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        let bytes = range.and_then(|(from, to)| data.get(from..to));
        let bytes = bytes.ok_or_else(|| wrong(format!("ends at {to} of {} bytes", data.len())))?;
        let tensor = SafeTensor {
            quant,
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            bytes,
        };
        tensors.insert(name.clone(), tensor);
        end = to;
    }
    if end != data.len() as u64 {
        let reason = format!(
            "{} bytes lie behind the last tensor",
            data.len() as u64 - end
        );
        let tensor = tensors
            .last_key_value()
            .map_or(String::new(), |it| it.0.clone());
        return Err(SafetensorsError::Tensor { tensor, reason });
    }
    Ok(tensors)
}
