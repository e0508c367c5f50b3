//! Untrusted bytes → checked metadata and tensors.
//! In: a GGUF v3 file, by mmap, or bytes. Out: [`Gguf`], in which every range lies inside the file.
//! It never trusts a length, a count, an offset or a dimension, and never copies tensor data;
//! what it allocates is bounded by [`ALLOCATION_FACTOR`] times the size of the file.

mod cursor;
mod error;
mod metadata;
mod summary;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::quant::QuantType;
use cursor::{Cursor, OutOfBytes};
pub use error::GgufError;
use metadata::{ElementType, Value};
pub use summary::{GgufSummary, StorageShare};

/// A model may name at most this many tensors; the largest published ones have a few thousand.
pub const TENSORS_MAX: u64 = 65_536;
/// A model may carry at most this many metadata keys; files in the field have under a hundred.
pub const METADATA_KEYS_MAX: u64 = 65_536;
/// The format's own limit on a metadata key.
pub const KEY_BYTES_MAX: u64 = 65_535;
/// The format's own limit on a tensor's name.
pub const TENSOR_NAME_BYTES_MAX: u64 = 64;
/// The header's allocations (keys, names, map nodes) stay below this many times the file's size:
/// the smallest tensor takes 33 bytes of header and under 256 of memory.
pub const ALLOCATION_FACTOR: u64 = 16;
/// Tensor data begins at a multiple of this where the file does not say otherwise.
const ALIGNMENT_DEFAULT: u64 = 32;
/// No file in the field aligns to more than a huge page.
const ALIGNMENT_MAX: u64 = 2 << 20;

/// A tensor's place in the file.
#[derive(Debug, Clone)]
pub(crate) struct TensorInfo {
    /// Fastest-moving first, as GGUF has it: `[columns, rows]` for a matrix.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) quant: QuantType,
    range: Range<usize>,
}

impl TensorInfo {
    /// Number of values; cannot overflow, since it was checked against the file's size.
    pub(crate) fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

/// A GGUF file whose header has been checked.
#[derive(Debug)]
pub struct Gguf {
    bytes: Bytes,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Maps and checks a file.
    ///
    /// The file must not be changed or shortened while it is in use; a content-addressed store never does.
    ///
    /// # Errors
    /// [`GgufError`]: the file cannot be read, or it is not a well-formed GGUF v3 file.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < 4 {
            // An empty file cannot be mapped.
            return Self::from_bytes(std::fs::read(path).map_err(io)?);
        }
        #[expect(
            unsafe_code,
            reason = "memory mapping: copying a model would double its memory"
        )]
        // SAFETY: the map is read-only. Another process that changes the file could change bytes under
        // us; every value read from it later is used as data (weights, token bytes), bounds were copied out.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::parse(Bytes::Mapped(map))
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// [`GgufError`]: it is not a well-formed GGUF v3 file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        Self::parse(Bytes::Owned(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Size of the file.
    pub fn size_bytes(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Names of the tensors, in alphabetical order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, info)| (name.as_str(), info))
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.tensors
            .get(name)
            .ok_or_else(|| GgufError::MissingTensor {
                tensor: name.to_owned(),
            })
    }

    pub(crate) fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.bytes()[tensor.range.clone()]
    }

    fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        let mut gguf = Self {
            bytes,
            metadata: BTreeMap::new(),
            tensors: BTreeMap::new(),
        };
        let (metadata, tensors) = Header::read(gguf.bytes())?;
        gguf.metadata = metadata;
        gguf.tensors = tensors;
        Ok(gguf)
    }
}

/// Reads the header from front to back.
struct Header<'a> {
    bytes: &'a [u8],
    cursor: Cursor<'a>,
}

type Tensors = BTreeMap<String, TensorInfo>;

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Result<(BTreeMap<String, Value>, Tensors), GgufError> {
        if bytes.get(..4) != Some(b"GGUF") {
            return Err(GgufError::NotGguf {
                found: bytes[..bytes.len().min(4)].to_vec(),
            });
        }
        let mut header = Self {
            bytes,
            cursor: Cursor::new(bytes, 4),
        };
        let version = header
            .cursor
            .u32()
            .map_err(|out| header.truncated("the version", out))?;
        if version != 3 {
            return Err(GgufError::Version { version });
        }
        let tensors = header.count("tensors", TENSORS_MAX)?;
        let keys = header.count("metadata keys", METADATA_KEYS_MAX)?;
        let metadata = header.metadata(keys)?;
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT_DEFAULT,
            Some(Value::Unsigned(alignment)) => *alignment,
            Some(_) => return Err(GgufError::Alignment { alignment: 0 }),
        };
        if !alignment.is_power_of_two() || !(8..=ALIGNMENT_MAX).contains(&alignment) {
            return Err(GgufError::Alignment { alignment });
        }
        let tensors = header.tensors(tensors, alignment)?;
        Ok((metadata, tensors))
    }

    fn truncated(&self, what: &str, out: OutOfBytes) -> GgufError {
        GgufError::Truncated {
            what: what.to_owned(),
            offset: out.offset,
            wanted: out.wanted,
            length: self.bytes.len(),
        }
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, GgufError> {
        let count = self.cursor.u64().map_err(|out| self.truncated(what, out))?;
        if count > limit {
            return Err(GgufError::TooMany {
                what: what.to_owned(),
                count,
                limit,
            });
        }
        Ok(count)
    }

    fn name(&mut self, what: &'static str, limit: u64) -> Result<String, GgufError> {
        let length = self.cursor.u64().map_err(|out| self.truncated(what, out))?;
        if length > limit {
            let what = format!("bytes of a {what}");
            return Err(GgufError::TooMany {
                what,
                count: length,
                limit,
            });
        }
        let range = self
            .cursor
            .take(length)
            .map_err(|out| self.truncated(what, out))?;
        let offset = range.start;
        let name = std::str::from_utf8(&self.bytes[range]);
        Ok(name
            .map_err(|_| GgufError::NotUtf8 { what, offset })?
            .to_owned())
    }

    fn metadata(&mut self, keys: u64) -> Result<BTreeMap<String, Value>, GgufError> {
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = self.name("metadata key", KEY_BYTES_MAX)?;
            let value = self.value(&key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(GgufError::Duplicate {
                    what: "metadata key",
                    name: key,
                });
            }
        }
        Ok(metadata)
    }

    fn element_type(&mut self, key: &str) -> Result<ElementType, GgufError> {
        let what = format!("the type of metadata key `{key}`");
        let code = self
            .cursor
            .u32()
            .map_err(|out| self.truncated(&what, out))?;
        ElementType::from_code(code).ok_or_else(|| GgufError::UnknownType {
            key: key.to_owned(),
            code,
        })
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let element = self.element_type(key)?;
        let read = match element {
            ElementType::Array => return self.array(key),
            ElementType::String => {
                let length = self.cursor.u64();
                length
                    .and_then(|length| self.cursor.take(length))
                    .map(Value::String)
            }
            _ => self.scalar(element),
        };
        read.map_err(|out| self.truncated(&format!("the value of metadata key `{key}`"), out))
    }

    #[expect(
        clippy::cast_possible_wrap,
        reason = "the file's integers are two's complement"
    )]
    fn scalar(&mut self, element: ElementType) -> Result<Value, OutOfBytes> {
        let cursor = &mut self.cursor;
        Ok(match element {
            ElementType::U8 => Value::Unsigned(u64::from(cursor.u8()?)),
            ElementType::I8 => Value::Signed(i64::from(cursor.u8()? as i8)),
            ElementType::U16 => Value::Unsigned(u64::from(cursor.u16()?)),
            ElementType::I16 => Value::Signed(i64::from(cursor.u16()? as i16)),
            ElementType::U32 => Value::Unsigned(u64::from(cursor.u32()?)),
            ElementType::I32 => Value::Signed(i64::from(cursor.u32()? as i32)),
            ElementType::F32 => Value::Float(f64::from(f32::from_bits(cursor.u32()?))),
            ElementType::Bool => Value::Bool(cursor.u8()? != 0),
            ElementType::U64 => Value::Unsigned(cursor.u64()?),
            ElementType::I64 => Value::Signed(cursor.u64()? as i64),
            // `value` has handled strings and arrays before it comes here.
            ElementType::F64 | ElementType::String | ElementType::Array => {
                Value::Float(f64::from_bits(cursor.u64()?))
            }
        })
    }

    fn array(&mut self, key: &str) -> Result<Value, GgufError> {
        let what = format!("the array of metadata key `{key}`");
        let element = self.element_type(key)?;
        if element == ElementType::Array {
            return Err(GgufError::NestedArray {
                key: key.to_owned(),
            });
        }
        let count = self
            .cursor
            .u64()
            .map_err(|out| self.truncated(&what, out))?;
        let start = self.cursor.position();
        match element.size() {
            Some(size) => {
                let length = count.saturating_mul(size);
                self.cursor
                    .take(length)
                    .map_err(|out| self.truncated(&what, out))?;
            }
            None => {
                // Each string takes 8 bytes at least, so this ends by the end of the file.
                for _ in 0..count {
                    let length = self.cursor.u64();
                    let taken = length.and_then(|length| self.cursor.take(length));
                    taken.map_err(|out| self.truncated(&what, out))?;
                }
            }
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Value::Array {
            element,
            count,
            bytes: start..self.cursor.position(),
        })
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> Result<Tensors, GgufError> {
        let mut stated = Vec::new();
        for _ in 0..count {
            let name = self.name("tensor name", TENSOR_NAME_BYTES_MAX)?;
            stated.push(self.tensor(name, alignment)?);
        }
        let start = (self.cursor.position() as u64).next_multiple_of(alignment);
        // By place in the file, so that neighbours show any overlap.
        stated.sort_by_key(|tensor| tensor.offset);
        let mut tensors = Tensors::new();
        let mut previous: Option<(String, u128)> = None;
        for tensor in stated {
            let begin = u128::from(start) + u128::from(tensor.offset);
            let end = begin + u128::from(tensor.length);
            if end > self.bytes.len() as u128 {
                let length = self.bytes.len();
                return Err(GgufError::PastEnd {
                    tensor: tensor.name,
                    end,
                    length,
                });
            }
            if let Some((first, _)) = previous.filter(|(_, end)| *end > begin) {
                return Err(GgufError::Overlap {
                    first,
                    second: tensor.name,
                });
            }
            previous = Some((tensor.name.clone(), end));
            // Both are at most the file's length, which is a usize.
            let to_usize = |at: u128| usize::try_from(at).unwrap_or(usize::MAX);
            let range = to_usize(begin)..to_usize(end);
            let info = TensorInfo {
                dimensions: tensor.dimensions,
                quant: tensor.quant,
                range,
            };
            if tensors.insert(tensor.name.clone(), info).is_some() {
                return Err(GgufError::Duplicate {
                    what: "tensor",
                    name: tensor.name,
                });
            }
        }
        Ok(tensors)
    }

    fn tensor(&mut self, name: String, alignment: u64) -> Result<Stated, GgufError> {
        let what = format!("the description of tensor `{name}`");
        let rank = self
            .cursor
            .u32()
            .map_err(|out| self.truncated(&what, out))?;
        if !(1..=4).contains(&rank) {
            let what = format!("dimensions of tensor `{name}`");
            return Err(GgufError::TooMany {
                what,
                count: u64::from(rank),
                limit: 4,
            });
        }
        let mut dimensions = Vec::new();
        for _ in 0..rank {
            dimensions.push(
                self.cursor
                    .u64()
                    .map_err(|out| self.truncated(&what, out))?,
            );
        }
        let code = self
            .cursor
            .u32()
            .map_err(|out| self.truncated(&what, out))?;
        let offset = self
            .cursor
            .u64()
            .map_err(|out| self.truncated(&what, out))?;
        let Some(quant) = QuantType::from_code(code) else {
            return Err(GgufError::QuantType { tensor: name, code });
        };
        let length = tensor_bytes(quant, &dimensions);
        let length = length.map_err(|reason| GgufError::Dimensions {
            tensor: name.clone(),
            dimensions: dimensions.clone(),
            reason,
        })?;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                tensor: name,
                offset,
                alignment,
            });
        }
        Ok(Stated {
            name,
            dimensions,
            quant,
            offset,
            length,
        })
    }
}

/// A tensor as the header states it.
struct Stated {
    name: String,
    dimensions: Vec<u64>,
    quant: QuantType,
    offset: u64,
    length: u64,
}

fn tensor_bytes(quant: QuantType, dimensions: &[u64]) -> Result<u64, &'static str> {
    if dimensions.contains(&0) {
        return Err("one of them is zero");
    }
    if !dimensions[0].is_multiple_of(quant.block_elements() as u64) {
        return Err("a row is not a whole number of blocks of its type");
    }
    let elements = dimensions
        .iter()
        .try_fold(1u64, |product, size| product.checked_mul(*size));
    let blocks = elements.map(|elements| elements / quant.block_elements() as u64);
    blocks
        .and_then(|blocks| blocks.checked_mul(quant.block_bytes() as u64))
        .ok_or("their product does not fit 64 bits")
}
