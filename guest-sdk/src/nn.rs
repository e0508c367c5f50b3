//! `wasi:nn`: graphs that take and give tensors, as the standard has them.
//!
//! In: names from the manifest, tensors of any type. Out: tensors. For text and
//! embeddings [`Model`](crate::Model) is nearer; this is for what speaks in tensors. Names,
//! types and meaning of the tensors that a host knows stand in `docs/wasi-nn.md`.

mod half;

use crate::{Error, ErrorCode, host};

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// The upper half of single precision.
    Bf16,
    /// Bytes; text is UTF-8 in them.
    U8,
    /// Signed integers of 32 bits.
    I32,
    /// Signed integers of 64 bits.
    I64,
}

impl TensorType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// Elements of one type in row-major order, little-endian.
///
/// ```
/// use tussah_sdk::nn::{Tensor, TensorType};
///
/// let tensor = Tensor::from_f32(&[2, 2], &[1.0, 0.5, -2.0, 0.0])?;
/// assert_eq!((tensor.dimensions(), tensor.kind()), ([2, 2].as_slice(), TensorType::F32));
/// assert_eq!(tensor.to_f32()?, [1.0, 0.5, -2.0, 0.0]);
/// let half = Tensor::from_f16(&[4], &tensor.to_f32()?)?;
/// assert_eq!((half.data().len(), half.to_f32()?), (8, tensor.to_f32()?));
/// assert!(Tensor::from_i64(&[3], &[1, 2]).is_err(), "3 elements are not 2");
/// # Ok::<(), tussah_sdk::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dimensions: Vec<u32>,
    kind: TensorType,
    data: Vec<u8>,
}

impl Tensor {
    /// A tensor of raw bytes; `[]` as dimensions is a single value.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if the data is not as long as dimensions and type say.
    pub fn new(dimensions: &[u32], kind: TensorType, data: Vec<u8>) -> Result<Self, Error> {
        let elements = dimensions.iter().try_fold(1_usize, |product, size| {
            product.checked_mul(usize::try_from(*size).ok()?)
        });
        let wanted = elements.and_then(|elements| elements.checked_mul(kind.bytes()));
        if wanted != Some(data.len()) {
            return Err(Error::with_code(
                ErrorCode::InvalidArgument,
                format!(
                    "a tensor of {kind:?} {dimensions:?} does not have {} bytes",
                    data.len()
                ),
            ));
        }
        Ok(Self {
            dimensions: dimensions.to_vec(),
            kind,
            data,
        })
    }

    /// Single precision.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f32(dimensions: &[u32], values: &[f32]) -> Result<Self, Error> {
        Self::new(
            dimensions,
            TensorType::F32,
            bytes(values, |value| value.to_le_bytes()),
        )
    }

    /// Double precision.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f64(dimensions: &[u32], values: &[f64]) -> Result<Self, Error> {
        Self::new(
            dimensions,
            TensorType::F64,
            bytes(values, |value| value.to_le_bytes()),
        )
    }

    /// Half precision, rounded to the nearest, ties to even; too large becomes infinite.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f16(dimensions: &[u32], values: &[f32]) -> Result<Self, Error> {
        Self::new(
            dimensions,
            TensorType::F16,
            bytes(values, |value| half::to_f16(value).to_le_bytes()),
        )
    }

    /// The upper half of single precision, rounded to the nearest, ties to even.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_bf16(dimensions: &[u32], values: &[f32]) -> Result<Self, Error> {
        Self::new(
            dimensions,
            TensorType::Bf16,
            bytes(values, |value| half::to_bf16(value).to_le_bytes()),
        )
    }

    /// Bytes.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_u8(dimensions: &[u32], values: &[u8]) -> Result<Self, Error> {
        Self::new(dimensions, TensorType::U8, values.to_vec())
    }

    /// Integers of 32 bits.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_i32(dimensions: &[u32], values: &[i32]) -> Result<Self, Error> {
        Self::new(
            dimensions,
            TensorType::I32,
            bytes(values, |value| value.to_le_bytes()),
        )
    }

    /// Integers of 64 bits.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_i64(dimensions: &[u32], values: &[i64]) -> Result<Self, Error> {
        Self::new(
            dimensions,
            TensorType::I64,
            bytes(values, |value| value.to_le_bytes()),
        )
    }

    /// Text as UTF-8 in bytes, of one dimension.
    pub fn text(text: &str) -> Self {
        Self {
            dimensions: vec![u32::try_from(text.len()).unwrap_or(u32::MAX)],
            kind: TensorType::U8,
            data: text.as_bytes().to_vec(),
        }
    }

    /// The size of each dimension, outermost first.
    pub fn dimensions(&self) -> &[u32] {
        &self.dimensions
    }

    /// The type of the elements.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// The raw bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The elements as single precision; from any type of floating point, double precision rounded.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if the elements are integers.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what is asked for"
    )]
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        match self.kind {
            TensorType::F32 => Ok(self.elements(f32::from_le_bytes)),
            TensorType::F64 => Ok(self.elements(|bytes| f64::from_le_bytes(bytes) as f32)),
            TensorType::F16 => Ok(self.elements(|bytes| half::from_f16(u16::from_le_bytes(bytes)))),
            TensorType::Bf16 => {
                Ok(self.elements(|bytes| half::from_bf16(u16::from_le_bytes(bytes))))
            }
            _ => Err(self.wrong("floating point")),
        }
    }

    /// The elements as double precision; from any type of floating point, without loss.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if the elements are integers.
    pub fn to_f64(&self) -> Result<Vec<f64>, Error> {
        match self.kind {
            TensorType::F64 => Ok(self.elements(f64::from_le_bytes)),
            _ => Ok(self.to_f32()?.into_iter().map(f64::from).collect()),
        }
    }

    /// The elements as integers, from any type of integer.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if the elements are floating point.
    pub fn to_i64(&self) -> Result<Vec<i64>, Error> {
        match self.kind {
            TensorType::I64 => Ok(self.elements(i64::from_le_bytes)),
            TensorType::I32 => Ok(self.elements(|bytes| i32::from_le_bytes(bytes).into())),
            TensorType::U8 => Ok(self.data.iter().map(|byte| i64::from(*byte)).collect()),
            _ => Err(self.wrong("integers")),
        }
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if the elements are not bytes, [`ErrorCode::BadInput`]
    /// if they are not UTF-8.
    pub fn to_text(&self) -> Result<&str, Error> {
        match self.kind {
            TensorType::U8 => Ok(std::str::from_utf8(&self.data)?),
            _ => Err(self.wrong("bytes")),
        }
    }

    #[cfg_attr(
        not(target_family = "wasm"),
        expect(
            dead_code,
            reason = "only the host that runs modules takes tensors apart"
        )
    )]
    pub(crate) fn into_parts(self) -> (Vec<u32>, TensorType, Vec<u8>) {
        (self.dimensions, self.kind, self.data)
    }

    fn elements<T, const N: usize>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.data
            .as_chunks::<N>()
            .0
            .iter()
            .map(|bytes| read(*bytes))
            .collect()
    }

    fn wrong(&self, wanted: &str) -> Error {
        Error::with_code(
            ErrorCode::InvalidArgument,
            format!("a tensor of {:?} was read as {wanted}", self.kind),
        )
    }
}

fn bytes<T: Copy, const N: usize>(values: &[T], write: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| write(*value)).collect()
}

/// A loaded graph: a model that computes tensors from tensors.
///
/// ```no_run
/// use tussah_sdk::{Error, nn::{Graph, Tensor}};
///
/// fn answer(question: &str) -> Result<String, Error> {
///     let graph = Graph::load("smollm2")?;
///     let inputs = [("text", Tensor::text(question)), ("max_tokens", Tensor::from_i32(&[], &[64])?)];
///     let outputs = graph.compute(inputs)?;
///     Ok(outputs.get("text")?.to_text()?.to_owned())
/// }
/// ```
#[derive(Debug)]
pub struct Graph {
    inner: host::Graph,
}

impl Graph {
    /// Loads the model that the manifest calls `name`, or `blake3:` and the hex of the
    /// digest of one that the manifest has.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownModel`] if the manifest has no such name, [`ErrorCode::Security`]
    /// if it has no such digest.
    pub fn load(name: &str) -> Result<Self, Error> {
        Ok(Self {
            inner: host::Graph::load(name)?,
        })
    }

    /// Runs the graph on named tensors; nothing is kept from one call to the next.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] for an unknown name or a wrong type,
    /// [`ErrorCode::LimitExceeded`] for what is too large, [`ErrorCode::ModelFailed`] if the
    /// model's numbers went bad.
    pub fn compute<N: Into<String>>(
        &self,
        inputs: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Outputs, Error> {
        let inputs = inputs
            .into_iter()
            .map(|(name, tensor)| (name.into(), tensor))
            .collect();
        Ok(Outputs {
            named: self.inner.compute(inputs)?,
        })
    }
}

/// What a graph computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// Names and tensors in the graph's order.
    pub named: Vec<(String, Tensor)>,
}

impl Outputs {
    /// The output of a name.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if there is none; the message lists those there are.
    pub fn get(&self, name: &str) -> Result<&Tensor, Error> {
        let found = self.named.iter().find(|(other, _)| other == name);
        found.map(|(_, tensor)| tensor).ok_or_else(|| {
            let known: Vec<&str> = self.named.iter().map(|(name, _)| name.as_str()).collect();
            Error::with_code(
                ErrorCode::InvalidArgument,
                format!(
                    "the graph has no output `{name}`; it has: {}",
                    known.join(", ")
                ),
            )
        })
    }
}
