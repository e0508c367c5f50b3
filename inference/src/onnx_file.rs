//! ONNX files: untrusted bytes → a file that keeps to itself.
//! In: the bytes of a `ModelProto`, which come from a stranger. Out: the same bytes, known to be well-formed
//! protobuf as far as tensors can be in it, with the number of their elements; or what is wrong.
//! It never follows a path: a tensor whose data lie outside the file is refused, wherever it hides.
//!
//! Source of the numbers: `onnx/onnx.proto` of the ONNX project, and protobuf's wire format. What is
//! looked at here is what decides whether ONNX Runtime may see the file; it parses the rest by itself.

use std::io;
use std::path::{Path, PathBuf};

/// The longest file: protobuf's own limit of a message.
pub const ONNX_FILE_BYTES_MAX: u64 = (1 << 31) - 1;
/// Messages within messages: a graph in an attribute of a node in a graph takes three.
const DEPTH_MAX: usize = 64;
/// A type of 2 bits puts four elements into a byte, and none needs less than an eighth of one.
const ELEMENTS_PER_BYTE_MAX: u64 = 8;

/// Why bytes are no ONNX file that may be run.
#[derive(Debug, thiserror::Error)]
pub enum OnnxFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is larger than a protobuf message can be.
    #[error("an ONNX file of {bytes} bytes, at most {ONNX_FILE_BYTES_MAX} are allowed")]
    Size {
        /// Its size.
        bytes: u64,
    },
    /// It is no well-formed model.
    #[error("not an ONNX file: {reason} at byte {at}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
        /// Where.
        at: usize,
    },
    /// It has no graph.
    #[error("not an ONNX file: it has no graph")]
    NoGraph,
    /// A tensor's data lie in another file.
    #[error(
        "the data of tensor `{tensor}` lie outside the file, and paths are not followed: save the model as one file"
    )]
    External {
        /// The tensor.
        tensor: String,
    },
    /// It has functions of its own, which can call each other: its work would be without bound.
    #[error("it has functions of its own: inline them (onnx.inliner) and save it again")]
    Functions,
    /// A tensor claims more elements than its bytes can hold.
    #[error("tensor `{tensor}` has the dimensions {dimensions:?} and {bytes} bytes")]
    Elements {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        dimensions: Vec<u64>,
        /// Bytes of the whole message.
        bytes: usize,
    },
}

/// An ONNX file that keeps to itself.
pub struct OnnxFile {
    bytes: Vec<u8>,
    parameters: u64,
}

impl std::fmt::Debug for OnnxFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OnnxFile")
            .field("bytes", &self.bytes.len())
            .field("parameters", &self.parameters)
            .finish()
    }
}

impl OnnxFile {
    /// Whether a file that begins so may be one: every exporter writes the version of the format first.
    pub fn may_be(first: &[u8]) -> bool {
        first.first() == Some(&0x08)
    }

    /// Reads and checks a file. It is copied, so that nobody changes what was checked.
    ///
    /// # Errors
    /// [`OnnxFileError`].
    pub fn open(path: &Path) -> Result<Self, OnnxFileError> {
        let io = |source| OnnxFileError::Io {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > ONNX_FILE_BYTES_MAX {
            return Err(OnnxFileError::Size { bytes });
        }
        Self::from_bytes(std::fs::read(path).map_err(io)?)
    }

    /// Checks a file that is in memory.
    ///
    /// # Errors
    /// [`OnnxFileError`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, OnnxFileError> {
        if bytes.len() as u64 > ONNX_FILE_BYTES_MAX {
            let bytes = bytes.len() as u64;
            return Err(OnnxFileError::Size { bytes });
        }
        let mut walk = Walk::default();
        // ONNX Runtime takes a flatbuffer with this mark for a model of its own format.
        if bytes.get(4..8) == Some(b"ORTM") {
            return Err(malformed("the mark of another format", 4));
        }
        walk.message(Kind::Model, Reader::new(&bytes), 0)?;
        if !walk.graph {
            return Err(OnnxFileError::NoGraph);
        }
        let parameters = walk.parameters;
        Ok(Self { bytes, parameters })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Elements of all tensors in it.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }
}

fn malformed(reason: &'static str, at: usize) -> OnnxFileError {
    OnnxFileError::Malformed { reason, at }
}

/// The messages in which a tensor can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Training,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

/// What a field of a message is.
enum Field {
    /// A message, of which there may be many.
    Many(Kind),
    /// A message of which there is one: a second would be merged into the first.
    One(Kind),
    Functions,
    /// Of no interest.
    Other,
}

impl Kind {
    fn field(self, number: u64) -> Field {
        use Field::{Functions, Many, One, Other};
        match (self, number) {
            (Self::Model, 7) => One(Self::Graph),
            (Self::Model, 20) => Many(Self::Training),
            (Self::Model, 25) => Functions,
            (Self::Training, 1 | 2) => One(Self::Graph),
            (Self::Graph, 1) => Many(Self::Node),
            (Self::Graph, 5) => Many(Self::Tensor),
            (Self::Graph, 15) => Many(Self::Sparse),
            (Self::Node, 5) => Many(Self::Attribute),
            (Self::Attribute, 5) => One(Self::Tensor),
            (Self::Attribute, 6) => One(Self::Graph),
            (Self::Attribute, 10) => Many(Self::Tensor),
            (Self::Attribute, 11) => Many(Self::Graph),
            (Self::Attribute, 22) => One(Self::Sparse),
            (Self::Attribute, 23) => Many(Self::Sparse),
            (Self::Sparse, 1 | 2) => One(Self::Tensor),
            _ => Other,
        }
    }
}

/// What was found so far.
#[derive(Default)]
struct Walk {
    parameters: u64,
    graph: bool,
}

impl Walk {
    fn message(
        &mut self,
        kind: Kind,
        mut reader: Reader<'_>,
        depth: usize,
    ) -> Result<(), OnnxFileError> {
        if depth > DEPTH_MAX {
            return Err(malformed("messages nested too deeply", reader.at));
        }
        if kind == Kind::Tensor {
            return self.tensor(reader);
        }
        let mut seen = 0_u32;
        while let Some((number, value)) = reader.field()? {
            let (child, one) = match kind.field(number) {
                Field::Functions => return Err(OnnxFileError::Functions),
                Field::Other => continue,
                Field::Many(child) => (child, false),
                Field::One(child) => (child, true),
            };
            let Value::Bytes(child_reader) = value else {
                return Err(malformed("a message that is none", reader.at));
            };
            if one {
                // The numbers of such fields are below 32.
                let bit = 1 << number;
                if seen & bit != 0 {
                    return Err(malformed("a message that is there twice", child_reader.at));
                }
                seen |= bit;
            }
            self.graph |= kind == Kind::Model && child == Kind::Graph;
            self.message(child, child_reader, depth + 1)?;
        }
        Ok(())
    }

    fn tensor(&mut self, mut reader: Reader<'_>) -> Result<(), OnnxFileError> {
        let bytes = reader.rest.len();
        let (mut dimensions, mut name, mut external) = (Vec::new(), "", false);
        while let Some((number, value)) = reader.field()? {
            match (number, value) {
                (1, Value::Number(size)) => dimensions.push(size),
                (1, Value::Bytes(mut packed)) => {
                    while !packed.rest.is_empty() {
                        dimensions.push(packed.varint()?);
                    }
                }
                (8, Value::Bytes(text)) => name = std::str::from_utf8(text.rest).unwrap_or("?"),
                // Where the data are: 0 is in the message.
                (14, Value::Number(0)) => {}
                (13 | 14, _) => external = true,
                _ => {}
            }
        }
        if external {
            let tensor = name.to_owned();
            return Err(OnnxFileError::External { tensor });
        }
        // Zeros first: [huge, huge, 0] is empty. A negative size is a huge one here.
        let elements = match dimensions.contains(&0) {
            true => Some(0),
            false => dimensions.iter().copied().try_fold(1, u64::checked_mul),
        };
        let room = (bytes as u64).saturating_mul(ELEMENTS_PER_BYTE_MAX);
        match elements {
            Some(elements) if elements <= room => {
                self.parameters = self.parameters.saturating_add(elements);
                Ok(())
            }
            _ => Err(OnnxFileError::Elements {
                tensor: name.to_owned(),
                dimensions,
                bytes,
            }),
        }
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(Reader<'a>),
    Fixed,
}

/// Protobuf's wire format, one field after the other.
struct Reader<'a> {
    rest: &'a [u8],
    /// Where in the file.
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], OnnxFileError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(malformed("a field past the end of its message", self.at));
        };
        self.rest = rest;
        self.at += count;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, OnnxFileError> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(malformed("a number of more than 64 bits", self.at))
    }

    fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, OnnxFileError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let at = self.at;
                let rest = self.take(length)?;
                Value::Bytes(Reader { rest, at })
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            _ => return Err(malformed("a field of an unknown kind", self.at)),
        };
        match tag >> 3 {
            0 => Err(malformed("a field without a number", self.at)),
            number if number >= 1 << 29 => Err(malformed("a field's number", self.at)),
            number => Ok(Some((number, value))),
        }
    }
}
