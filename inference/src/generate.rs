//! Random weights → a model file: any architecture, size and mix of storage types, without a download.
//! In: a [`RandomModel`] and where to write. Out: a GGUF v3 file that opens and runs; the same
//! description gives the same bytes on every machine. It holds one megabyte of weights at a time,
//! whatever the model's size, and its text is noise: it is for tests of speed, memory and sharding.

mod layout;
mod shape;
mod storage;
mod vocabulary;
mod writer;

use std::io::{self, Write};

pub use shape::RandomShape;
pub use storage::WeightMix;

use crate::model::LoadProgress;
use crate::quant::QuantType;
use storage::Filler;

/// Weights made and written at a time; a multiple of every block's size is cut from it.
const CHUNK_BYTES: usize = 1 << 20;

/// The plan that the file's tensors follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum RandomArchitecture {
    Llama,
    Gemma3,
    Qwen2,
    Qwen3,
}

impl RandomArchitecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Gemma3, Self::Qwen2, Self::Qwen3];

    /// As `general.architecture` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gemma3 => "gemma3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// A model file to be.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomModel {
    /// `general.name`.
    pub name: String,
    /// The plan.
    pub architecture: RandomArchitecture,
    /// The sizes.
    pub shape: RandomShape,
    /// How weights are stored.
    pub weights: WeightMix,
    /// Which weights: another seed gives another file.
    pub seed: u64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// Size of the file.
    pub file_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
}

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A size that no such model can have.
    #[error("{what} is {value}, wanted {wanted}")]
    Size {
        /// Which size.
        what: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        wanted: String,
    },
    /// A storage type whose blocks do not fit the rows.
    #[error("{} has blocks of {}, and the rows of `{tensor}` have {columns} values", weights.name(), weights.block_elements())]
    Blocks {
        /// The tensor.
        tensor: String,
        /// Its storage type.
        weights: QuantType,
        /// Length of its rows.
        columns: u64,
    },
    /// The file could not be written.
    #[error("cannot write the model file")]
    Io(#[from] io::Error),
}

impl RandomModel {
    /// What [`RandomModel::write`] will write, without doing it.
    ///
    /// # Errors
    /// [`GenerateError::Size`] or [`GenerateError::Blocks`]: there is no such model.
    pub fn measure(&self) -> Result<Generated, GenerateError> {
        let tensors = layout::tensors(self)?;
        let header = writer::header(&layout::metadata(self), &tensors);
        let parameters = tensors.iter().map(writer::Tensor::elements).sum();
        let data: u64 = tensors.iter().map(writer::Tensor::padded_bytes).sum();
        Ok(Generated {
            file_bytes: header.len() as u64 + data,
            parameters,
        })
    }

    /// Writes the file from front to back.
    ///
    /// `progress` is called after each megabyte; an error from it ends the writing, so that a caller
    /// can stop.
    ///
    /// # Errors
    /// As [`RandomModel::measure`], and [`GenerateError::Io`] of the writer or of `progress`.
    pub fn write(
        &self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(LoadProgress) -> io::Result<()>,
    ) -> Result<Generated, GenerateError> {
        let measured = self.measure()?;
        let tensors = layout::tensors(self)?;
        let header = writer::header(&layout::metadata(self), &tensors);
        out.write_all(&header)?;
        let mut done_bytes = header.len() as u64;
        let mut buffer = Vec::new();
        for (index, tensor) in tensors.iter().enumerate() {
            let mut filler = Filler::new(tensor, self.seed, index);
            while filler.next(&mut buffer, CHUNK_BYTES) {
                out.write_all(&buffer)?;
                done_bytes += buffer.len() as u64;
                progress(LoadProgress {
                    done_bytes,
                    total_bytes: measured.file_bytes,
                })?;
            }
            let padding = tensor.padded_bytes() - tensor.bytes();
            io::copy(&mut io::Read::take(io::repeat(0), padding), out)?;
            done_bytes += padding;
        }
        out.flush()?;
        Ok(measured)
    }
}
