//! Graphs of tensors: models that are neither decoders nor encoders of text.
//! In: named tensors, none of them trusted. Out: named tensors, or what is wrong with those that came in.
//! It never computes: what does stands behind [`TensorGraph`].

use std::fmt;

use crate::cancel::CancelToken;

/// The most dimensions a tensor may have; models in the field have up to 6.
pub const TENSOR_RANK_MAX: usize = 16;

/// The type of a tensor's elements: those that wasi-nn has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE 754 binary16.
    Fp16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// The upper half of a binary32.
    Bf16,
    /// Bytes.
    U8,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
}

impl ElementType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
        Self::U8,
        Self::I32,
        Self::I64,
    ];

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::Fp16 | Self::Bf16 => 2,
            Self::Fp32 | Self::I32 => 4,
            Self::Fp64 | Self::I64 => 8,
        }
    }

    /// The standard's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::U8 => "U8",
            Self::I32 => "I32",
            Self::I64 => "I64",
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::U8 | Self::I32 | Self::I64)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A tensor: row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphTensor {
    /// Its size in each dimension, the slowest-moving first; none is a single value.
    pub dimensions: Vec<u32>,
    /// What its elements are.
    pub element: ElementType,
    /// Their bytes.
    pub data: Vec<u8>,
}

/// Tensors with their names.
pub type NamedTensors = Vec<(String, GraphTensor)>;

/// An input or an output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the model.
    pub name: String,
    /// What its elements are.
    pub element: ElementType,
    /// Its size in each dimension, `None` where the model leaves it open. A port without dimensions
    /// takes and gives tensors of any shape: in ONNX a shape may be left out.
    pub dimensions: Vec<Option<u32>>,
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` {}", self.name, self.element)?;
        if self.dimensions.is_empty() {
            return Ok(());
        }
        let sizes = self.dimensions.iter();
        let sizes = sizes.map(|size| size.map_or_else(|| "?".to_owned(), |size| size.to_string()));
        write!(formatter, " [{}]", sizes.collect::<Vec<_>>().join(", "))
    }
}

/// Why a graph did not compute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A name that the graph does not have.
    #[error("the graph has no input `{name}`; it has {known}")]
    UnknownInput {
        /// What was passed.
        name: String,
        /// What there is.
        known: String,
    },
    /// An input was not passed.
    #[error("the input {port} was not passed")]
    MissingInput {
        /// The input.
        port: String,
    },
    /// An input was passed twice.
    #[error("the input `{name}` was passed twice")]
    Twice {
        /// The input.
        name: String,
    },
    /// Elements of another type.
    #[error("the input {port} got a tensor of {found}")]
    Element {
        /// The input.
        port: String,
        /// What was passed.
        found: ElementType,
    },
    /// Another shape.
    #[error("the input {port} got a tensor of {found:?}")]
    Shape {
        /// The input.
        port: String,
        /// What was passed.
        found: Vec<u32>,
    },
    /// Data that its dimensions do not call for.
    #[error("the input `{name}` has {found} bytes of data, its dimensions call for {wanted}")]
    Data {
        /// The input.
        name: String,
        /// Bytes there are.
        found: u64,
        /// Bytes there would have to be; `u64::MAX` stands for more than fit there.
        wanted: u64,
    },
    /// The outputs do not fit.
    #[error("the outputs take {bytes} bytes, {free} are free")]
    Memory {
        /// Bytes they take.
        bytes: u64,
        /// Bytes there are.
        free: u64,
    },
    /// An output is of a type or shape that the model does not declare, or wasi-nn does not have.
    #[error("the output `{name}` is {found}")]
    Output {
        /// The output.
        name: String,
        /// What it is.
        found: String,
    },
    /// Somebody asked it to stop.
    #[error("cancelled")]
    Cancelled,
    /// What runs the graph gave up: a size that does not fit another, memory that ran out.
    #[error("the graph failed: {reason}")]
    Failed {
        /// What it says.
        reason: String,
    },
}

/// A loaded graph, shared by all who compute with it.
pub trait TensorGraph: Send + Sync + fmt::Debug {
    /// What runs it, such as `onnxruntime 1.32.0 cpu, 2 threads`; evidence, not part of any result.
    fn engine(&self) -> &str;

    /// What goes in, in the model's order.
    fn inputs(&self) -> &[Port];

    /// What comes out, in the model's order.
    fn outputs(&self) -> &[Port];

    /// Number of weights: the elements of all tensors that the file has.
    fn parameters(&self) -> u64;

    /// Computes all outputs, in the model's order. The inputs were checked by [`check_inputs`].
    ///
    /// # Limits
    /// The outputs together have at most `output_bytes_max` bytes of data.
    ///
    /// # Errors
    /// [`GraphError`]; [`GraphError::Cancelled`] soon after `cancel` says so.
    fn compute(
        &self,
        inputs: NamedTensors,
        output_bytes_max: u64,
        cancel: &CancelToken,
    ) -> Result<NamedTensors, GraphError>;
}

/// Bytes of a tensor's data, by its dimensions; `None` if they have no place in 64 bits.
pub(crate) fn data_bytes(element: ElementType, dimensions: &[u32]) -> Option<u64> {
    // Zeros first: [huge, huge, 0] is empty, not too large.
    if dimensions.contains(&0) {
        return Some(0);
    }
    let mut sizes = dimensions.iter().map(|size| u64::from(*size));
    sizes.try_fold(element.bytes(), u64::checked_mul)
}

/// Checks that the tensors are the graph's inputs: each once, of its type and shape.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_inputs(ports: &[Port], inputs: &[(String, GraphTensor)]) -> Result<(), GraphError> {
    for (at, (name, tensor)) in inputs.iter().enumerate() {
        let Some(port) = ports.iter().find(|port| port.name == *name) else {
            let known: Vec<_> = ports.iter().map(ToString::to_string).collect();
            return Err(GraphError::UnknownInput {
                name: name.clone(),
                known: known.join(", "),
            });
        };
        if inputs[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(GraphError::Twice { name: name.clone() });
        }
        check_input(port, tensor)?;
    }
    let passed = |port: &&Port| !inputs.iter().any(|(name, _)| *name == port.name);
    match ports.iter().find(passed) {
        Some(port) => Err(GraphError::MissingInput {
            port: port.to_string(),
        }),
        None => Ok(()),
    }
}

fn check_input(port: &Port, tensor: &GraphTensor) -> Result<(), GraphError> {
    if tensor.element != port.element {
        return Err(GraphError::Element {
            port: port.to_string(),
            found: tensor.element,
        });
    }
    let sizes = &tensor.dimensions;
    let fits = |(wanted, size): (&Option<u32>, &u32)| wanted.is_none_or(|wanted| wanted == *size);
    let any = port.dimensions.is_empty();
    let same = port.dimensions.len() == sizes.len() && port.dimensions.iter().zip(sizes).all(fits);
    if sizes.len() > TENSOR_RANK_MAX || !(any || same) {
        return Err(GraphError::Shape {
            port: port.to_string(),
            found: sizes.clone(),
        });
    }
    let (wanted, found) = (data_bytes(port.element, sizes), tensor.data.len() as u64);
    if wanted != Some(found) {
        return Err(GraphError::Data {
            name: port.name.clone(),
            found,
            wanted: wanted.unwrap_or(u64::MAX),
        });
    }
    Ok(())
}

/// Inference units of one computation, known before it: positions × parameters + elements of all inputs.
///
/// The positions are those of the input that has the most: each of its elements where they are whole
/// numbers (tokens), and where they are not, each row, if the model fixes the rows' length (features).
/// A weight is used about once a position; what a graph does beyond that, the deadline bounds.
pub fn inference_units(ports: &[Port], parameters: u64, inputs: &[(String, GraphTensor)]) -> u64 {
    let (mut positions, mut all) = (1_u64, 0_u64);
    for (name, tensor) in inputs {
        let elements = tensor.data.len() as u64 / tensor.element.bytes();
        all = all.saturating_add(elements);
        let port = ports.iter().find(|port| port.name == *name);
        let features = match port.and_then(|port| port.dimensions.last()) {
            Some(Some(features)) if !tensor.element.is_whole() => u64::from(*features).max(1),
            _ => 1,
        };
        positions = positions.max(elements / features);
    }
    positions.saturating_mul(parameters).saturating_add(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, element: ElementType, dimensions: &[Option<u32>]) -> Port {
        Port {
            name: name.to_owned(),
            element,
            dimensions: dimensions.to_vec(),
        }
    }

    fn tensor(element: ElementType, dimensions: &[u32], bytes: usize) -> GraphTensor {
        GraphTensor {
            dimensions: dimensions.to_vec(),
            element,
            data: vec![0; bytes],
        }
    }

    #[track_caller]
    fn check(inputs: &[(&str, GraphTensor)], expected: &str) {
        let ports = [
            port("ids", ElementType::I64, &[None, Some(4)]),
            port("any", ElementType::U8, &[]),
        ];
        let named = |(name, tensor): &(&str, GraphTensor)| ((*name).to_owned(), tensor.clone());
        let inputs: Vec<_> = inputs.iter().map(named).collect();
        let found = check_inputs(&ports, &inputs);
        let found = found.map_or_else(|error| error.to_string(), |()| "fine".to_owned());
        assert_eq!(found, expected);
    }

    #[test]
    fn inputs_are_held_to_their_ports() {
        use ElementType::{Fp32, I64, U8};
        let ids = || ("ids", tensor(I64, &[2, 4], 64));
        let any = || ("any", tensor(U8, &[], 1));
        check(&[ids(), any()], "fine");
        check(&[any(), ids()], "fine");
        check(&[("ids", tensor(I64, &[0, 4], 0)), any()], "fine");
        check(&[ids(), ("any", tensor(U8, &[1; 16], 1))], "fine");
        for (inputs, expected) in [
            (vec![ids()], "the input `any` U8 was not passed"),
            (vec![any()], "the input `ids` I64 [?, 4] was not passed"),
            (
                vec![ids(), any(), ids()],
                "the input `ids` was passed twice",
            ),
            (
                vec![ids(), any(), ("mask", tensor(U8, &[], 1))],
                "the graph has no input `mask`; it has `ids` I64 [?, 4], `any` U8",
            ),
            (
                vec![("ids", tensor(Fp32, &[2, 4], 32))],
                "the input `ids` I64 [?, 4] got a tensor of FP32",
            ),
            (
                vec![("ids", tensor(I64, &[2, 5], 80))],
                "the input `ids` I64 [?, 4] got a tensor of [2, 5]",
            ),
            (
                vec![("ids", tensor(I64, &[8], 64))],
                "the input `ids` I64 [?, 4] got a tensor of [8]",
            ),
            (
                vec![("ids", tensor(I64, &[2, 4], 63))],
                "the input `ids` has 63 bytes of data, its dimensions call for 64",
            ),
            (
                vec![("any", tensor(U8, &[1; 17], 1))],
                "the input `any` U8 got a tensor of [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
            ),
            (
                // 2^64 bytes.
                vec![("any", tensor(U8, &[1 << 31, 1 << 31, 4], 0))],
                "the input `any` has 0 bytes of data, its dimensions call for 18446744073709551615",
            ),
        ] {
            check(&inputs, expected);
        }
    }

    #[test]
    fn units_follow_the_shapes() {
        use ElementType::{Fp32, I64};
        #[track_caller]
        fn units(ports: &[Port], tensors: &[GraphTensor], expected: u64) {
            let named = ports.iter().zip(tensors);
            let named: Vec<_> = named
                .map(|(port, tensor)| (port.name.clone(), tensor.clone()))
                .collect();
            assert_eq!(inference_units(ports, 1000, &named), expected);
        }
        // Tokens and their mask: each token meets each weight.
        let text = [
            port("ids", I64, &[None, None]),
            port("mask", I64, &[None, None]),
        ];
        let row = || tensor(I64, &[2, 8], 128);
        units(&text, &[row(), row()], 16 * 1000 + 32);
        // Rows of features.
        let rows = [port("x", Fp32, &[None, Some(4)])];
        units(&rows, &[tensor(Fp32, &[3, 4], 48)], 3 * 1000 + 12);
        // A length that the model leaves open is none of features.
        let sound = [port("x", Fp32, &[None, None])];
        units(&sound, &[tensor(Fp32, &[1, 16], 64)], 16 * 1000 + 16);
        // Nothing goes in, or nothing is in it: one position.
        units(&[], &[], 1000);
        units(&rows, &[tensor(Fp32, &[0, 4], 0)], 1000);
        assert_eq!(inference_units(&text, u64::MAX, &[]), u64::MAX);
    }
}
