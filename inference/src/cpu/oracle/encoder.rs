//! The scalar f32 path of encoders.
//! In: a plan and the archive's own weights. Out: vectors by the textbook formulas in f32.
//! It is slow and obvious; it keeps no promise about bits, and no product runs on it.

use std::sync::Arc;

use crate::backend::{BackendError, TextEncoder};
use crate::model::bert::{EncoderLayer, EncoderPlan, LayerNorm, Linear, Pooling, Stored};
use crate::tokenizer::TokenId;

/// An encoder for tests to compare with.
#[derive(Debug)]
pub(crate) struct OracleEncoder {
    plan: Arc<EncoderPlan>,
}

impl OracleEncoder {
    pub(crate) fn new(plan: Arc<EncoderPlan>) -> Self {
        Self { plan }
    }

    fn row(&self, matrix: &Stored, row: usize) -> Vec<f32> {
        let rows = self.plan.rows(matrix);
        let mut out = vec![0.0; rows.columns];
        rows.quant.dequantize(rows.row(row), &mut out);
        out
    }

    fn linear(&self, linear: &Linear, vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut out = vec![linear.bias.clone(); vectors.len()];
        for row in 0..linear.matrix.rows {
            let weights = self.row(&linear.matrix, row);
            for (out, vector) in out.iter_mut().zip(vectors) {
                out[row] += super::dot(&weights, vector);
            }
        }
        out
    }

    fn add_norm(&self, states: &mut [Vec<f32>], branch: &[Vec<f32>], norm: &LayerNorm) {
        super::add_all(states, branch);
        states.iter_mut().for_each(|state| self.norm(state, norm));
    }

    fn norm(&self, state: &mut [f32], norm: &LayerNorm) {
        let count = state.len() as f32;
        let mean = state.iter().sum::<f32>() / count;
        let spread: f32 = state.iter().map(|value| (value - mean).powi(2)).sum();
        let scale = 1.0 / (spread / count + self.plan.epsilon).sqrt();
        for ((value, weight), bias) in state.iter_mut().zip(&norm.weight).zip(&norm.bias) {
            *value = (*value - mean) * scale * weight + bias;
        }
    }

    fn layer(&self, layer: &EncoderLayer, states: &mut [Vec<f32>]) {
        let [queries, keys, values] = layer
            .heads
            .each_ref()
            .map(|linear| self.linear(linear, states));
        let size = self.plan.head_size;
        let attended: Vec<Vec<f32>> = queries
            .iter()
            .map(|query| {
                let heads = (0..self.plan.heads).map(|head| head * size..(head + 1) * size);
                let head = |range: std::ops::Range<usize>| {
                    attend(&query[range.clone()], &keys, &values, range.start)
                };
                heads.flat_map(head).collect()
            })
            .collect();
        let branch = self.linear(&layer.attention_output, &attended);
        self.add_norm(states, &branch, &layer.attention_norm);
        let mut hidden = self.linear(&layer.up, states);
        for value in hidden.iter_mut().flatten() {
            *value *= 0.5 * (1.0 + libm::erff(*value * std::f32::consts::FRAC_1_SQRT_2));
        }
        let branch = self.linear(&layer.down, &hidden);
        self.add_norm(states, &branch, &layer.output_norm);
    }

    fn text(&self, tokens: &[TokenId]) -> Vec<f32> {
        let plan = &self.plan;
        let begin = |(position, token): (usize, &TokenId)| {
            let mut state = self.row(&plan.words, token.index());
            let place = self.row(&plan.positions, position);
            for ((value, place), kind) in state.iter_mut().zip(place).zip(&plan.token_type) {
                *value += place + kind;
            }
            self.norm(&mut state, &plan.norm);
            state
        };
        let mut states: Vec<Vec<f32>> = tokens.iter().enumerate().map(begin).collect();
        plan.layers
            .iter()
            .for_each(|it| self.layer(it, &mut states));
        let count = match plan.pooling {
            Pooling::Mean => states.len(),
            Pooling::First => 1,
        };
        let mut vector = vec![0.0; plan.length];
        for state in &states[..count] {
            for (sum, value) in vector.iter_mut().zip(state) {
                *sum += value / count as f32;
            }
        }
        let norm = super::dot(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|value| *value /= norm);
        vector
    }
}

/// One head of one query over all positions; its values begin at `at` in each vector.
fn attend(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>], at: usize) -> Vec<f32> {
    let size = query.len();
    let scores = keys
        .iter()
        .map(|key| super::dot(query, &key[at..at + size]));
    let mut scores: Vec<f32> = scores.map(|score| score / (size as f32).sqrt()).collect();
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores
        .iter_mut()
        .for_each(|score| *score = (*score - most).exp());
    let sum: f32 = scores.iter().sum();
    let mut out = vec![0.0; size];
    for (score, value) in scores.iter().zip(values) {
        for (out, value) in out.iter_mut().zip(&value[at..at + size]) {
            *out += score / sum * value;
        }
    }
    out
}

impl TextEncoder for OracleEncoder {
    fn encode(&self, texts: &[&[TokenId]]) -> Result<Vec<Vec<f32>>, BackendError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for (position, tokens) in texts.iter().enumerate() {
            let vector = self.text(tokens);
            if vector.iter().any(|value| !value.is_finite()) {
                let what = "the vector of a text".to_owned();
                return Err(BackendError::NotFinite { what, position });
            }
            vectors.push(vector);
        }
        Ok(vectors)
    }

    fn batch_bytes(&self, tokens: usize) -> u64 {
        (tokens * (6 * self.plan.length + self.plan.feed_forward_length) * 4) as u64
    }
}
