//! The GGUF v3 container: header, metadata, tensor descriptions.
//! In: typed values and tensors in file order. Out: the bytes before the tensor data, padded to the
//! alignment; source of the layout: the GGUF specification (ggml's `docs/gguf.md`).

use crate::quant::QuantType;

/// Tensor data begins at a multiple of this, and each tensor too.
const ALIGNMENT: u64 = 32;

/// A metadata value, of the types that models use.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

impl Value {
    fn code(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::F32s(_) | Self::I32s(_) => 9,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(number) => out.extend(number.to_le_bytes()),
            Self::F32(number) => out.extend(number.to_le_bytes()),
            Self::Bool(flag) => out.push(u8::from(*flag)),
            Self::Text(text) => write_text(out, text),
            Self::Texts(texts) => {
                array(out, 8, texts.len());
                texts.iter().for_each(|text| write_text(out, text));
            }
            Self::F32s(numbers) => {
                array(out, 6, numbers.len());
                out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Self::I32s(numbers) => {
                array(out, 5, numbers.len());
                out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
    }
}

fn array(out: &mut Vec<u8>, code: u32, count: usize) {
    out.extend(code.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// What a tensor's values are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Around 0, so that a row of it times a vector keeps the vector's size.
    Matrix,
    /// Around 1.
    Norm,
    /// Around 0, small.
    Bias,
}

/// A tensor in file order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// `[columns, rows]`, or one length.
    pub(super) dimensions: Vec<u64>,
    pub(super) weights: QuantType,
    pub(super) content: Content,
}

impl Tensor {
    pub(super) fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    pub(super) fn bytes(&self) -> u64 {
        let block = (self.weights.block_elements(), self.weights.block_bytes());
        self.elements() / block.0 as u64 * block.1 as u64
    }

    pub(super) fn padded_bytes(&self) -> u64 {
        self.bytes().next_multiple_of(ALIGNMENT)
    }
}

/// Everything before the first tensor's data.
pub(super) fn header(metadata: &[(String, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        write_text(&mut out, key);
        out.extend(value.code().to_le_bytes());
        value.write(&mut out);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        write_text(&mut out, &tensor.name);
        // One or two dimensions, as `layout` makes them.
        let rank: u32 = if tensor.dimensions.len() == 1 { 1 } else { 2 };
        out.extend(rank.to_le_bytes());
        out.extend(tensor.dimensions.iter().flat_map(|size| size.to_le_bytes()));
        out.extend(tensor.weights.code().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.padded_bytes();
    }
    while !(out.len() as u64).is_multiple_of(ALIGNMENT) {
        out.push(0);
    }
    out
}
