//! The typed layer plan: everything a backend needs to know of a model, checked.
//! In: what an architecture's file in this folder read from the metadata. Out: sizes that fit each other
//! and tensors whose shapes fit the sizes. It holds no weights.

use crate::gguf::{Gguf, TensorInfo};
use crate::quant::QuantType;

use super::ModelError;

/// Rule 4 of the exact arithmetic: sums fit 64 bits up to this many columns.
pub(crate) const COLUMNS_MAX: u32 = 1 << 18;
/// The longest context; the KV cache of a real model would take hundreds of gigabytes there.
pub(crate) const CONTEXT_MAX: u32 = 1 << 20;
/// The deepest published models have under 200 layers.
pub(crate) const LAYERS_MAX: u32 = 1024;
/// The largest head of a published model has 576.
pub(crate) const HEAD_SIZE_MAX: u32 = 1024;

/// A weight matrix that lies in the file.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) tensor: TensorInfo,
}

/// A matrix with its bytes, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) name: &'a str,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) quant: QuantType,
    /// One row behind the other.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Rows<'a> {
    /// One row's bytes.
    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        let size = self.quant.bytes_for(self.columns);
        &self.bytes[row * size..][..size]
    }
}

impl Matrix {
    /// The matrix in its file.
    pub(crate) fn rows_in<'a>(&'a self, gguf: &'a Gguf) -> Rows<'a> {
        Rows {
            name: &self.name,
            rows: self.rows,
            columns: self.columns,
            quant: self.quant(),
            bytes: gguf.data(&self.tensor),
        }
    }

    pub(crate) fn quant(&self) -> QuantType {
        self.tensor.quant
    }

    /// Bytes of one row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.quant().bytes_for(self.columns)
    }

    /// One row's bytes.
    pub(crate) fn row<'a>(&self, gguf: &'a Gguf, row: usize) -> &'a [u8] {
        &gguf.data(&self.tensor)[row * self.row_bytes()..][..self.row_bytes()]
    }

    /// Multiply-accumulates of one product with a vector.
    fn units(&self) -> u64 {
        self.rows as u64 * self.columns as u64
    }
}

/// Which values a rotation of RoPE pairs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RopePairs {
    /// (2i, 2i+1): the Llama plan as GGUF stores it.
    Adjacent,
    /// (i, i + n/2) of the n rotated values: Gemma and Qwen.
    Halves,
}

/// The angles of RoPE: position p turns pair i by p · base^(−2i/n) / divisors\[i\], n rotated values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub(crate) base: f32,
    /// One a pair.
    pub(crate) divisors: Vec<f64>,
}

/// The gate of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Silu,
    /// GELU by its approximation with tanh.
    GeluTanh,
}

/// One transformer layer. What is `None` the architecture does not have.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) query_bias: Option<Vec<f32>>,
    pub(crate) key_bias: Option<Vec<f32>>,
    pub(crate) value_bias: Option<Vec<f32>>,
    /// Of each query head, before RoPE.
    pub(crate) query_norm: Option<Vec<f32>>,
    /// Of each key head, before RoPE.
    pub(crate) key_norm: Option<Vec<f32>>,
    pub(crate) attention_output: Matrix,
    /// Of the attention's output, before it is added.
    pub(crate) post_attention_norm: Option<Vec<f32>>,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
    /// Of the feed-forward part's output, before it is added.
    pub(crate) post_feed_forward_norm: Option<Vec<f32>>,
    /// Which of the plan's ropes.
    pub(crate) rope: usize,
    /// How many positions attention sees, the token's own included; all earlier ones if there is none.
    pub(crate) window: Option<usize>,
}

impl Layer {
    /// The first position that attention at `position` sees.
    pub(crate) fn first_seen(&self, position: usize) -> usize {
        self.window
            .map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// A whole decoder.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) context_tokens_max: u32,
    pub(crate) embedding_length: usize,
    pub(crate) feed_forward_length: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) norm_epsilon: f32,
    pub(crate) ropes: Vec<Rope>,
    pub(crate) rope_dimensions: usize,
    pub(crate) rope_pairs: RopePairs,
    pub(crate) gate: Gate,
    /// Scores are multiplied by 1/√ of it: the head's size nearly everywhere.
    pub(crate) score_length: usize,
    /// Embeddings are multiplied by it.
    pub(crate) embedding_scale: Option<f32>,
    pub(crate) token_embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// The embedding's matrix again where the two are tied.
    pub(crate) head: Matrix,
}

impl Plan {
    pub(crate) fn vocabulary(&self) -> usize {
        self.token_embedding.rows
    }

    /// Every matrix that is multiplied with, the head last.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let layers = self.layers.iter().flat_map(|layer| {
            let Layer {
                query,
                key,
                value,
                attention_output,
                gate,
                up,
                down,
                ..
            } = layer;
            [query, key, value, attention_output, gate, up, down]
        });
        layers.chain([&self.head])
    }

    /// Multiply-accumulates of one token's way through all layers, without the attention to earlier tokens.
    fn units_per_token(&self) -> u64 {
        let all: u64 = self.matrices().map(Matrix::units).sum();
        all - self.units_of_head()
    }

    /// Multiply-accumulates of `tokens` that stand at `position` and after: all matrices of all layers, and the
    /// attention's scores and weighted values. Stops at the largest number instead of passing it.
    pub(crate) fn units(&self, position: u64, tokens: u64) -> u64 {
        let seen = |layer: &Layer| positions_seen(layer.window, position, tokens);
        let seen = self.layers.iter().map(seen).fold(0, u128::saturating_add);
        let attention = seen.saturating_mul(2 * (self.heads * self.head_size) as u128);
        let matrices = u128::from(tokens) * u128::from(self.units_per_token());
        u64::try_from(attention.saturating_add(matrices)).unwrap_or(u64::MAX)
    }

    /// Multiply-accumulates of one position's logits.
    pub(crate) fn units_of_head(&self) -> u64 {
        self.head.units()
    }
}

/// Σ min(p + 1, window) for `tokens` positions p from `position` on, as a closed sum in 128 bits: no count
/// of tokens makes it slow or overflow.
fn positions_seen(window: Option<usize>, position: u64, tokens: u64) -> u128 {
    let window = window.map_or(u64::MAX, |window| window as u64);
    // While the window is not full, a token sees one position more than the one before.
    let growing = window.saturating_sub(position).min(tokens);
    let (first, count) = (u128::from(position) + 1, u128::from(growing));
    let grown = count * first + count * count.saturating_sub(1) / 2;
    grown + u128::from(tokens - growing) * u128::from(window)
}

/// Takes tensors out of a file by name and shape, and knows which nobody took.
#[derive(Debug)]
pub(crate) struct Tensors<'a> {
    gguf: &'a Gguf,
    left: std::collections::BTreeSet<&'a str>,
}

impl<'a> Tensors<'a> {
    pub(crate) fn new(gguf: &'a Gguf) -> Self {
        Self {
            gguf,
            left: gguf.tensor_names().collect(),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.contains(name)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<TensorInfo, ModelError> {
        let tensor = self.gguf.tensor(name)?;
        let mut wanted: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        wanted.resize(shape.len().max(tensor.dimensions.len()), 1);
        let mut found = tensor.dimensions.clone();
        found.resize(wanted.len(), 1);
        if found != wanted {
            return Err(ModelError::Shape {
                tensor: name.to_owned(),
                found: tensor.dimensions.clone(),
                wanted: shape.iter().map(|size| *size as u64).collect(),
            });
        }
        self.left.remove(name);
        Ok(tensor.clone())
    }

    /// A matrix of `rows` × `columns`.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Matrix, ModelError> {
        let tensor = self.take(name, &[columns, rows])?;
        if let Some(block) = tensor.quant.first_nonfinite_block(self.gguf.data(&tensor)) {
            let row = block * tensor.quant.block_elements() / columns;
            return Err(ModelError::NotFinite {
                tensor: name.to_owned(),
                row,
            });
        }
        Ok(Matrix {
            name: name.to_owned(),
            rows,
            columns,
            tensor,
        })
    }

    /// A vector of `length` values in F32, which all published files use for norms and biases.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.take(name, &[length])?;
        if tensor.quant != QuantType::F32 {
            let (tensor, quant) = (name.to_owned(), tensor.quant);
            return Err(ModelError::UnsupportedQuant {
                tensor,
                quant,
                what: "a norm or bias",
            });
        }
        let mut values = vec![0.0; length];
        tensor
            .quant
            .dequantize(self.gguf.data(&tensor), &mut values);
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite {
                tensor: name.to_owned(),
                row: 0,
            });
        }
        Ok(values)
    }

    /// A model with a tensor that the plan ignores would run and be wrong.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        match self.left.first() {
            None => Ok(()),
            Some(name) => Err(ModelError::UnknownTensor {
                tensor: (*name).to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::positions_seen;

    #[test]
    fn positions_seen_is_the_sum_it_stands_for() {
        for window in [None, Some(1), Some(2), Some(5), Some(100)] {
            for position in [0, 1, 4, 5, 6, 99, 120] {
                for tokens in [0, 1, 3, 7, 200] {
                    let sum: u128 = (position..position + tokens)
                        .map(|at| u128::from(at + 1).min(window.unwrap_or(usize::MAX) as u128))
                        .sum();
                    let seen = positions_seen(window, position, tokens);
                    assert_eq!(seen, sum, "{window:?} {position} {tokens}");
                }
            }
        }
    }
}
