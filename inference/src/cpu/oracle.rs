//! The scalar f32 path: what every other backend is compared with.
//! In: a plan and the file's own weights. Out: logits by the textbook formulas in f32.
//! It is slow and obvious; it keeps no promise about bits, and no product runs on it.

mod encoder;

use std::sync::Arc;

use crate::backend::{Backend, BackendError, Opening, Sequence, zeroed};
use crate::gguf::Gguf;
use crate::model::plan::{Gate, Matrix, Plan, Rope, RopePairs};
use crate::tokenizer::TokenId;
pub(crate) use encoder::OracleEncoder;

/// Tokens of one step; each weight is read from the file once a step.
const BATCH: usize = 64;

/// A model for the oracle: the file and its plan.
#[derive(Debug)]
pub(crate) struct Oracle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gguf: Arc<Gguf>,
    plan: Arc<Plan>,
    threads: usize,
}

impl Oracle {
    pub(crate) fn new(gguf: Arc<Gguf>, plan: Arc<Plan>, threads: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                gguf,
                plan,
                threads,
            }),
        }
    }
}

impl Backend for Oracle {
    fn open(&self, opening: Opening) -> Result<Box<dyn Sequence>, BackendError> {
        let (plan, context_tokens) = (&self.shared.plan, opening.context_tokens);
        let values = plan.layers.len() * context_tokens * plan.kv_heads * plan.head_size;
        Ok(Box::new(OracleSequence {
            shared: Arc::clone(&self.shared),
            context_tokens,
            keys: zeroed(values, "keys")?,
            values: zeroed(values, "values")?,
        }))
    }

    fn sequence_bytes(&self, context_tokens: usize) -> u64 {
        let plan = &self.shared.plan;
        let position = plan.layers.len() * plan.kv_heads * plan.head_size;
        (context_tokens as u64).saturating_mul(position as u64 * 8)
    }

    fn batch_tokens_max(&self) -> usize {
        BATCH
    }
}

#[derive(Debug)]
struct OracleSequence {
    shared: Arc<Shared>,
    context_tokens: usize,
    /// `[layer][position][kv head][head size]`
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Sequence for OracleSequence {
    fn run(
        &mut self,
        tokens: &[TokenId],
        position: usize,
        mut logits: Vec<f32>,
    ) -> Result<Vec<f32>, BackendError> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let mut states: Vec<Vec<f32>> = tokens.iter().map(|token| shared.embed(*token)).collect();
        for (index, layer) in plan.layers.iter().enumerate() {
            let normed = shared.norms(&states, &layer.attention_norm);
            let mut queries = shared.products(&layer.query, &normed);
            let mut keys = shared.products(&layer.key, &normed);
            let mut values = shared.products(&layer.value, &normed);
            add_bias(&mut queries, layer.query_bias.as_deref());
            add_bias(&mut keys, layer.key_bias.as_deref());
            add_bias(&mut values, layer.value_bias.as_deref());
            for (offset, (query, key)) in queries.iter_mut().zip(&mut keys).enumerate() {
                shared.norm_heads(query, layer.query_norm.as_deref());
                shared.norm_heads(key, layer.key_norm.as_deref());
                let rope = &plan.ropes[layer.rope];
                shared.rope(rope, query, position + offset);
                shared.rope(rope, key, position + offset);
                self.store(index, position + offset, key, &values[offset]);
            }
            let attended: Vec<Vec<f32>> = (0..tokens.len())
                .map(|offset| self.attend(index, position + offset, &queries[offset]))
                .collect();
            let mut branch = shared.products(&layer.attention_output, &attended);
            if let Some(weights) = &layer.post_attention_norm {
                branch = shared.norms(&branch, weights);
            }
            add_all(&mut states, &branch);
            let normed = shared.norms(&states, &layer.feed_forward_norm);
            let mut gates = shared.products(&layer.gate, &normed);
            let ups = shared.products(&layer.up, &normed);
            for (gate, up) in gates.iter_mut().flatten().zip(ups.iter().flatten()) {
                *gate = up * activate(plan.gate, *gate);
            }
            let mut branch = shared.products(&layer.down, &gates);
            if let Some(weights) = &layer.post_feed_forward_norm {
                branch = shared.norms(&branch, weights);
            }
            add_all(&mut states, &branch);
        }
        let rows = logits.chunks_exact_mut(plan.vocabulary());
        let first = tokens.len() - rows.len();
        let normed = shared.norms(&states[first..], &plan.output_norm);
        let products = shared.products(&plan.head, &normed);
        for ((logits, product), row) in rows.zip(products).zip(first..) {
            logits.copy_from_slice(&product);
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(BackendError::NotFinite {
                    what: "a logit".to_owned(),
                    position: position + row,
                });
            }
        }
        Ok(logits)
    }

    fn fork(&self, _positions: usize) -> Result<Box<dyn Sequence>, BackendError> {
        let mut keys = zeroed(self.keys.len(), "keys")?;
        let mut values = zeroed(self.values.len(), "values")?;
        keys.copy_from_slice(&self.keys);
        values.copy_from_slice(&self.values);
        let (shared, context_tokens) = (Arc::clone(&self.shared), self.context_tokens);
        Ok(Box::new(Self {
            shared,
            context_tokens,
            keys,
            values,
        }))
    }
}

impl OracleSequence {
    fn at(&self, layer: usize, position: usize) -> usize {
        let plan = &self.shared.plan;
        (layer * self.context_tokens + position) * plan.kv_heads * plan.head_size
    }

    fn store(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let at = self.at(layer, position);
        self.keys[at..at + key.len()].copy_from_slice(key);
        self.values[at..at + value.len()].copy_from_slice(value);
    }

    fn attend(&self, layer: usize, position: usize, query: &[f32]) -> Vec<f32> {
        let plan = &self.shared.plan;
        let size = plan.head_size;
        let mut out = vec![0.0; query.len()];
        for (head, (query, out)) in query
            .chunks_exact(size)
            .zip(out.chunks_exact_mut(size))
            .enumerate()
        {
            let kv_head = head * plan.kv_heads / plan.heads;
            let at = |position| self.at(layer, position) + kv_head * size;
            let first = plan.layers[layer].first_seen(position);
            let mut scores: Vec<f32> = (first..=position)
                .map(|earlier| dot(query, &self.keys[at(earlier)..][..size]))
                .map(|score| score / (plan.score_length as f32).sqrt())
                .collect();
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores
                .iter_mut()
                .for_each(|score| *score = (*score - most).exp());
            let sum: f32 = scores.iter().sum();
            for (earlier, score) in (first..).zip(&scores) {
                let value = &self.values[at(earlier)..][..size];
                for (out, value) in out.iter_mut().zip(value) {
                    *out += score / sum * value;
                }
            }
        }
        out
    }
}

impl Shared {
    fn embed(&self, token: TokenId) -> Vec<f32> {
        let matrix = &self.plan.token_embedding;
        let mut out = vec![0.0; matrix.columns];
        matrix
            .quant()
            .dequantize(matrix.row(&self.gguf, token.index()), &mut out);
        if let Some(scale) = self.plan.embedding_scale {
            out.iter_mut().for_each(|value| *value *= scale);
        }
        out
    }

    fn norm(&self, values: &[f32], weights: &[f32]) -> Vec<f32> {
        let mean = dot(values, values) / values.len() as f32;
        let scale = 1.0 / (mean + self.plan.norm_epsilon).sqrt();
        let scaled = values.iter().zip(weights);
        scaled
            .map(|(value, weight)| value * scale * weight)
            .collect()
    }

    fn norms(&self, vectors: &[Vec<f32>], weights: &[f32]) -> Vec<Vec<f32>> {
        let norm = |vector: &Vec<f32>| self.norm(vector, weights);
        vectors.iter().map(norm).collect()
    }

    /// Each head by itself.
    fn norm_heads(&self, heads: &mut [f32], weights: Option<&[f32]>) {
        let Some(weights) = weights else { return };
        for head in heads.chunks_exact_mut(self.plan.head_size) {
            head.copy_from_slice(&self.norm(head, weights));
        }
    }

    /// Turns each head's pairs by their angle at `position`.
    fn rope(&self, rope: &Rope, heads: &mut [f32], position: usize) {
        let n = self.plan.rope_dimensions;
        for head in heads.chunks_exact_mut(self.plan.head_size) {
            for (pair, divisor) in rope.divisors.iter().enumerate() {
                let power = -2.0 * pair as f64 / n as f64;
                let angle = position as f64 * f64::from(rope.base).powf(power) / divisor;
                #[expect(clippy::cast_possible_truncation, reason = "the oracle works in f32")]
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                let (first, second) = match self.plan.rope_pairs {
                    RopePairs::Adjacent => (2 * pair, 2 * pair + 1),
                    RopePairs::Halves => (pair, pair + n / 2),
                };
                let (a, b) = (head[first], head[second]);
                head[first] = a * cos - b * sin;
                head[second] = a * sin + b * cos;
            }
        }
    }

    /// The matrix times each vector; rows are shared out to threads.
    fn products(&self, matrix: &Matrix, vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let share = matrix.rows.div_ceil(self.threads.max(1)).max(1);
        let mut by_row = vec![vec![0.0; vectors.len()]; matrix.rows];
        std::thread::scope(|scope| {
            for (part, rows) in by_row.chunks_mut(share).enumerate() {
                scope.spawn(move || {
                    let mut weights = vec![0.0; matrix.columns];
                    for (offset, out) in rows.iter_mut().enumerate() {
                        let row = matrix.row(&self.gguf, part * share + offset);
                        matrix.quant().dequantize(row, &mut weights);
                        for (out, vector) in out.iter_mut().zip(vectors) {
                            *out = dot(&weights, vector);
                        }
                    }
                });
            }
        });
        (0..vectors.len())
            .map(|vector| by_row.iter().map(|row| row[vector]).collect())
            .collect()
    }
}

fn add_all(states: &mut [Vec<f32>], branch: &[Vec<f32>]) {
    for (state, value) in states.iter_mut().flatten().zip(branch.iter().flatten()) {
        *state += value;
    }
}

fn add_bias(vectors: &mut [Vec<f32>], bias: Option<&[f32]>) {
    let Some(bias) = bias else { return };
    for vector in vectors {
        for (value, bias) in vector.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

fn activate(gate: Gate, x: f32) -> f32 {
    match gate {
        Gate::Silu => x / (1.0 + (-x).exp()),
        Gate::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

/// Sixteen partial sums, so that the compiler can keep them in registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
