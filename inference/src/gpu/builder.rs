//! A plan's layers → dispatches.
//! In: matrices of the file. Out: the ops of each layer, for batches and for a step's only row, with the
//! weights on the device. It runs nothing.

use std::sync::Arc;

use wgpu::Buffer;

use crate::backend::BackendError;
use crate::exact::flushed;
use crate::gguf::Gguf;
use crate::model::plan::{self, Layer, Plan};
use crate::model::{LoadProgress, ModelError};

use super::compiler::{Compiler, Count, GROUPS_MAX, Normed, Op, Source, Target, Use, fits, lanes};
use super::device::Gpu;
use super::kernels::{self, Add, Heads, Profile};
use super::model::{Buffers, LayerOps, Way, attend_bound, fused_bound, heads_bound};
use super::product::THREADS;
use super::weights::{Matrix, rows_max};

/// Sends matrices to the device and says how far it has come.
pub(super) struct Loader<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) gguf: &'a Gguf,
    pub(super) progress: &'a mut dyn FnMut(LoadProgress),
    pub(super) done_bytes: u64,
    pub(super) total_bytes: u64,
}

impl Loader<'_> {
    /// Rows of a run: what fits a binding and a dispatch.
    fn run_rows(&self, matrix: &plan::Matrix) -> usize {
        let of_group = (THREADS / lanes(self.gpu, matrix.columns)) as usize;
        let rows = rows_max(self.gpu, matrix.quant(), matrix.columns).min(GROUPS_MAX * of_group);
        // Whole groups where there are several runs.
        if rows >= matrix.rows {
            rows
        } else {
            (rows / of_group * of_group).max(1)
        }
    }

    fn matrix(&mut self, matrix: &plan::Matrix, run_rows: usize) -> Result<Matrix, ModelError> {
        let loaded = Matrix::load(self.gpu, &matrix.rows_in(self.gguf), run_rows)?;
        // What was written so far is handed to the device before more is packed.
        self.gpu.queue().submit([]);
        self.done_bytes += (matrix.rows * matrix.row_bytes()) as u64;
        (self.progress)(LoadProgress {
            done_bytes: self.done_bytes,
            total_bytes: self.total_bytes,
        });
        Ok(loaded)
    }

    fn whole(&mut self, matrix: &plan::Matrix) -> Result<Matrix, ModelError> {
        self.matrix(matrix, self.run_rows(matrix))
    }

    /// Two matrices cut at the same rows.
    fn pair(&mut self, a: &plan::Matrix, b: &plan::Matrix) -> Result<(Matrix, Matrix), ModelError> {
        let rows = self.run_rows(a).min(self.run_rows(b));
        Ok((self.matrix(a, rows)?, self.matrix(b, rows)?))
    }
}

fn floats(gpu: &Gpu, values: &[f32]) -> Result<Buffer, BackendError> {
    let words: Vec<u32> = flushed(values).into_iter().map(f32::to_bits).collect();
    gpu.filled("norms and biases", &words)
}

/// What the norm of a layer adds to the states: the branch of the layer before, if there was one.
pub(super) fn add_before(layer: usize, post: Option<&[f32]>) -> Add {
    match (layer, post) {
        (0, _) => Add::Nothing,
        (_, None) => Add::Branch,
        (_, Some(_)) => Add::Normed,
    }
}

/// Makes the dispatches of a model.
pub(super) struct Builder<'a> {
    pub(super) compiler: Compiler,
    plan: &'a Plan,
    buffers: &'a Buffers,
    pub(super) fused: bool,
    /// Where the states of a step's only row are.
    in_other: bool,
}

/// A norm, and what is added before it.
struct NormOf {
    add: Add,
    weights: Buffer,
    post: Buffer,
    stage: usize,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        profile: Profile,
        plan: &'a Plan,
        buffers: &'a Buffers,
    ) -> Self {
        Self {
            compiler: Compiler::new(gpu, profile),
            plan,
            buffers,
            fused: fits(gpu, profile, plan.embedding_length, true, Some(plan.gate)),
            in_other: false,
        }
    }

    fn norm_of(
        &self,
        weights: &[f32],
        (add, post): (Add, Option<&[f32]>),
        stage: usize,
    ) -> Result<NormOf, BackendError> {
        let gpu = &self.compiler.gpu;
        Ok(NormOf {
            add,
            weights: floats(gpu, weights)?,
            post: floats(gpu, post.unwrap_or_default())?,
            stage,
        })
    }

    fn norm(&mut self, norm: &NormOf, states: &Buffer, rows: Count) -> Result<Op, BackendError> {
        let stage = self.compiler.stage(norm.stage)?;
        let buffers = self.buffers;
        let bound = [
            (0, Use::Read, &buffers.batch),
            (1, Use::Write, &buffers.status),
            (2, Use::Write, states),
            (3, Use::Write, &buffers.normed),
            (4, Use::Write, &buffers.quantized),
            (5, Use::Read, &norm.weights),
            (6, Use::Read, &buffers.branch),
            (7, Use::Read, &norm.post),
            (8, Use::Uniform, &stage),
        ];
        let source = kernels::norm(
            self.compiler.profile,
            self.plan,
            norm.add,
            matches!(rows, Count::Wanted),
        );
        self.compiler
            .op("norm", source, &bound, [rows, Count::Fixed(1)])
    }

    fn quantize(
        &mut self,
        values: &Buffer,
        length: usize,
        stage: usize,
    ) -> Result<Op, BackendError> {
        let stage = self.compiler.stage(stage)?;
        let bound = [
            (1, Use::Write, &self.buffers.status),
            (2, Use::Read, values),
            (3, Use::Write, &self.buffers.quantized),
            (8, Use::Uniform, &stage),
        ];
        let source = kernels::quantize(self.compiler.profile, self.plan, length);
        self.compiler
            .op("quantize", source, &bound, [Count::Rows, Count::Fixed(1)])
    }

    /// Where a norm leaves vectors for products.
    fn normed(&self) -> &'a Buffer {
        match self.compiler.profile {
            Profile::Exact { .. } => &self.buffers.quantized,
            Profile::Fast => &self.buffers.normed,
        }
    }

    fn target<'b>(&self, output: &'b Buffer, stride: usize, rows: Count) -> Target<'b>
    where
        'a: 'b,
    {
        Target {
            batch: &self.buffers.batch,
            status: &self.buffers.status,
            source: Source::Stored(self.normed()),
            output,
            stride,
            rows,
            gate: None,
        }
    }

    /// Products of normed states, on both ways.
    fn normed_products(
        &mut self,
        norm: &NormOf,
        matrices: &[&Matrix],
        target: &Target<'_>,
    ) -> Result<[Vec<Op>; 2], BackendError> {
        let buffers = self.buffers;
        let mut batch = vec![self.norm(norm, &buffers.states, Count::Rows)?];
        batch.extend(self.compiler.products(matrices, target)?);
        if !self.fused {
            return Ok([batch, Vec::new()]);
        }
        let both = [&buffers.states, &buffers.states_other];
        let source = Source::Normed(Normed {
            add: norm.add,
            epsilon: self.plan.norm_epsilon,
            states: both[usize::from(self.in_other)],
            states_after: both[usize::from(!self.in_other)],
            branch: &buffers.branch,
            weights: &norm.weights,
            post_weights: &norm.post,
            stage: norm.stage,
        });
        self.in_other = !self.in_other;
        let target = Target {
            source,
            rows: Count::Fixed(1),
            ..*target
        };
        Ok([batch, self.compiler.products(matrices, &target)?])
    }

    /// Products of values, which the exact profile brings into Q16, on both ways.
    fn products_of(
        &mut self,
        values: &Buffer,
        stage: usize,
        matrix: &Matrix,
        target: &Target<'_>,
    ) -> Result<[Vec<Op>; 2], BackendError> {
        let mut batch = Vec::new();
        let stored = match self.compiler.profile {
            Profile::Exact { .. } => {
                batch.push(self.quantize(values, matrix.columns, stage)?);
                &self.buffers.quantized
            }
            Profile::Fast => values,
        };
        let of_batch = Target {
            source: Source::Stored(stored),
            ..*target
        };
        batch.extend(self.compiler.products(&[matrix], &of_batch)?);
        let compiler = &self.compiler;
        let single =
            if self.fused && fits(&compiler.gpu, compiler.profile, matrix.columns, false, None) {
                let target = Target {
                    source: Source::Values { values, stage },
                    rows: Count::Fixed(1),
                    ..*target
                };
                self.compiler.products(&[matrix], &target)?
            } else {
                batch.clone()
            };
        Ok([batch, single])
    }

    pub(super) fn layer(
        &mut self,
        loader: &mut Loader<'_>,
        index: usize,
        layer: &Layer,
        before: (Add, Option<&[f32]>),
    ) -> Result<LayerOps, ModelError> {
        let (plan, buffers) = (self.plan, self.buffers);
        let width = plan.heads * plan.head_size;
        let all = width + 2 * plan.kv_heads * plan.head_size;
        let [query, key, value] =
            [&layer.query, &layer.key, &layer.value].map(|matrix| loader.whole(matrix));
        let (query, key, value) = (query?, key?, value?);
        let norm = self.norm_of(&layer.attention_norm, before, 8 * index)?;
        let target = self.target(&buffers.raw, all, Count::Rows);
        let first = self.normed_products(&norm, &[&query, &key, &value], &target)?;

        let output = loader.whole(&layer.attention_output)?;
        let to_branch = self.target(&buffers.branch, plan.embedding_length, Count::Rows);
        let stage = 8 * index + 3;
        let attended = self.products_of(&buffers.attended, stage, &output, &to_branch)?;
        let post = layer.post_attention_norm.as_deref();
        let before = (add_before(1, post), post);
        let norm = self.norm_of(&layer.feed_forward_norm, before, 8 * index + 4)?;
        let (gate, up) = loader.pair(&layer.gate, &layer.up)?;
        let target = Target {
            gate: Some((plan.gate, 8 * index + 5)),
            ..self.target(&buffers.hidden, plan.feed_forward_length, Count::Rows)
        };
        let hidden = self.normed_products(&norm, &[&gate, &up], &target)?;
        let down = loader.whole(&layer.down)?;
        let stage = 8 * index + 5;
        let last = self.products_of(&buffers.hidden, stage, &down, &to_branch)?;

        let mut ways: [Way; 2] = Default::default();
        for (way, ops) in ways.iter_mut().zip(first) {
            way.before = ops;
        }
        for part in [attended, hidden, last] {
            for (way, ops) in ways.iter_mut().zip(part) {
                way.after.extend(ops);
            }
        }
        Ok(self.attention(index, layer, ways)?)
    }

    /// The kernels between the products of heads and the attention's output.
    fn attention(
        &mut self,
        index: usize,
        layer: &Layer,
        ways: [Way; 2],
    ) -> Result<LayerOps, BackendError> {
        let (plan, buffers) = (self.plan, self.buffers);
        let (gpu, profile) = (Arc::clone(&self.compiler.gpu), self.compiler.profile);
        let stage = self.compiler.stage(8 * index + 1)?;
        let head_weights = floats(&gpu, &head_weights(plan, layer))?;
        let kind = Heads {
            normed: [layer.query_norm.is_some(), layer.key_norm.is_some()],
            biased: [&layer.query_bias, &layer.key_bias, &layer.value_bias]
                .iter()
                .any(|bias| bias.is_some()),
            rope: layer.rope,
        };
        // Any buffer will do for the shape of the bindings.
        let cache = &buffers.hidden;
        let bound = heads_bound(buffers, &head_weights, &stage, cache);
        let source = kernels::heads(profile, plan, kind);
        let heads = self.compiler.pipeline("heads", source, &bound)?;
        let bound = attend_bound(buffers, &stage, cache);
        let source = kernels::attend(profile, plan, layer.window);
        let attend = self.compiler.pipeline("attend", source, &bound)?;
        let attend_fused = if self.fused {
            let bound = fused_bound(buffers, &head_weights, &stage, cache);
            let source = kernels::attend_fused(profile, plan, kind, layer.window);
            Some(
                self.compiler
                    .pipeline("attend of one row", source, &bound)?,
            )
        } else {
            None
        };
        Ok(LayerOps {
            ways,
            heads,
            attend,
            attend_fused,
            head_weights,
            stage,
        })
    }

    pub(super) fn head(
        &mut self,
        loader: &mut Loader<'_>,
        before: (Add, Option<&[f32]>),
    ) -> Result<[Vec<Op>; 2], ModelError> {
        let (plan, buffers) = (self.plan, self.buffers);
        let norm = self.norm_of(&plan.output_norm, before, 8 * plan.layers.len())?;
        let head = loader.whole(&plan.head)?;
        let target = self.target(&buffers.logits, plan.vocabulary(), Count::Wanted);
        let products = self.compiler.products(&[&head], &target)?;
        let of_single = match self.in_other {
            true => &buffers.states_other,
            false => &buffers.states,
        };
        let mut ways: [Vec<Op>; 2] = Default::default();
        for (way, states) in ways.iter_mut().zip([&buffers.states, of_single]) {
            way.push(self.norm(&norm, states, Count::Wanted)?);
            way.extend(products.clone());
        }
        Ok(ways)
    }
}

/// The norms of query and key heads, then the biases of all heads; zeros where the layer has none.
fn head_weights(plan: &Plan, layer: &Layer) -> Vec<f32> {
    let size = plan.head_size;
    let part = |values: &Option<Vec<f32>>, length: usize| match values {
        Some(values) => values.clone(),
        None => vec![0.0; length],
    };
    let mut weights = part(&layer.query_norm, size);
    weights.extend(part(&layer.key_norm, size));
    weights.extend(part(&layer.query_bias, plan.heads * size));
    weights.extend(part(&layer.key_bias, plan.kv_heads * size));
    weights.extend(part(&layer.value_bias, plan.kv_heads * size));
    weights
}
