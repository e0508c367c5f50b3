//! One model on one device: its weights, the buffers of a step, and the order of kernels.
//! In: a plan and its file; then batches of rows. Out: logits of the rows that want them. Kernels run in one
//! pass, each after the one before; nothing comes back but logits and what was not finite.

use std::sync::Arc;

use wgpu::{Buffer, CommandEncoderDescriptor, ComputePipeline};

use crate::backend::BackendError;
use crate::exact::flushed;
use crate::gguf::Gguf;
use crate::model::plan::{self, Layer, Plan};
use crate::model::{LoadProgress, ModelError};

use super::compiler::{Bound, Compiler, Count, Op, Target, Use, lanes};
use super::device::Gpu;
use super::kernels::{self, Add, Heads, PAGES_AT, ROWS_MAX};
use super::pages::PAGE;
use super::product::THREADS;
use super::weights::{COLUMNS, Matrix, rows_max};

/// The most dispatches along one axis that every device has.
const GROUPS_MAX: usize = 65_535;
/// Words of page numbers that a batch has room for.
pub(super) const PAGES_MAX: usize = 1 << 16;
/// Scores of a step; more than one row's would be of no use.
const SCORES_MAX: usize = 1 << 24;

/// A model's weights and kernels, and the buffers of its steps.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) gpu: Arc<Gpu>,
    pub(super) plan: Arc<Plan>,
    pub(super) buffers: Buffers,
    compiler: Compiler,
    layers: Vec<LayerOps>,
    head: Vec<Op>,
    /// Keys and values of each layer.
    caches: Vec<Buffer>,
    /// Pages that the caches have room for.
    pages: usize,
}

/// What every step writes to.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) batch: Buffer,
    pub(super) status: Buffer,
    pub(super) states: Buffer,
    pub(super) turns: Buffer,
    pub(super) logits: Buffer,
    normed: Buffer,
    quantized: Buffer,
    raw: Buffer,
    queries: Buffer,
    scores: Buffer,
    attended: Buffer,
    hidden: Buffer,
    branch: Buffer,
    /// Words of `scores`.
    pub(super) scores_max: usize,
    /// Rows that may want logits in one step.
    pub(super) wanted_max: usize,
}

/// The dispatches of a layer; those with the cache are made anew when it grows.
#[derive(Debug)]
struct LayerOps {
    before: Vec<Op>,
    cached: Vec<Op>,
    after: Vec<Op>,
    heads: Arc<ComputePipeline>,
    attend: Arc<ComputePipeline>,
    head_weights: Buffer,
    stages: [Buffer; 2],
}

/// What went wrong at a row: a layer and a place in it, as the status of the row numbers them.
pub(super) fn stage_name(stage: u32, layers: usize) -> String {
    let layer = stage as usize / 8;
    if layer >= layers {
        return "the output of the last layer".to_owned();
    }
    match stage % 8 {
        0 => format!("the input of layer {layer}"),
        1 => format!("a query, key or value of layer {layer}"),
        2 => format!("an attention score of layer {layer}"),
        3 => format!("the attention of layer {layer}"),
        4 => format!("the middle of layer {layer}"),
        _ => format!("the feed-forward of layer {layer}"),
    }
}

impl Buffers {
    fn new(gpu: &Gpu, plan: &Plan) -> Result<Self, BackendError> {
        let what = "buffers of a step";
        let rows = ROWS_MAX as u64;
        let width = plan.heads * plan.head_size;
        let widest = plan
            .embedding_length
            .max(plan.feed_forward_length)
            .max(width);
        let words = |of_row: usize| gpu.buffer(what, 4 * rows * of_row as u64);
        let limit = usize::try_from(gpu.binding_bytes_max() / 4).unwrap_or(usize::MAX);
        let context = plan.context_tokens_max as usize;
        let scores_max = (plan.heads * context).clamp(1 << 20, SCORES_MAX).min(limit);
        let wanted_max = (limit / plan.vocabulary()).clamp(1, 64);
        Ok(Self {
            batch: gpu.buffer(what, 4 * (PAGES_AT + PAGES_MAX) as u64)?,
            status: gpu.buffer(what, 4 * rows)?,
            states: words(plan.embedding_length)?,
            turns: words(plan.ropes.len() * plan.rope_dimensions)?,
            logits: gpu.buffer(what, 4 * (wanted_max * plan.vocabulary()) as u64)?,
            normed: words(plan.embedding_length)?,
            quantized: words(widest / COLUMNS * 20)?,
            raw: words(width + 2 * plan.kv_heads * plan.head_size)?,
            queries: words(plan.heads * (plan.head_size / 2 + 1))?,
            scores: gpu.buffer(what, 4 * scores_max as u64)?,
            attended: words(width)?,
            hidden: words(plan.feed_forward_length)?,
            branch: words(plan.embedding_length)?,
            scores_max,
            wanted_max,
        })
    }
}

/// Sends matrices to the device and says how far it has come.
struct Loader<'a> {
    gpu: &'a Gpu,
    gguf: &'a Gguf,
    progress: &'a mut dyn FnMut(LoadProgress),
    done_bytes: u64,
    total_bytes: u64,
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

impl Model {
    pub(super) fn load(
        gpu: &Arc<Gpu>,
        gguf: &Gguf,
        plan: &Arc<Plan>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        crate::exact::check_sizes(plan)?;
        let buffers = Buffers::new(gpu, plan)?;
        let sizes = plan
            .matrices()
            .map(|matrix| (matrix.rows * matrix.row_bytes()) as u64);
        let total_bytes = sizes.sum();
        let mut loader = Loader {
            gpu,
            gguf,
            progress,
            done_bytes: 0,
            total_bytes,
        };
        let mut builder = Builder {
            compiler: Compiler::new(gpu),
            plan,
            buffers: &buffers,
        };
        let mut layers = Vec::new();
        let mut post = None;
        for (index, layer) in plan.layers.iter().enumerate() {
            let add = add_before(index, post.as_deref());
            layers.push(builder.layer(&mut loader, index, layer, (add, post.as_deref()))?);
            post = layer
                .post_feed_forward_norm
                .as_deref()
                .map(ToOwned::to_owned);
        }
        let add = add_before(plan.layers.len(), post.as_deref());
        let head = builder.head(&mut loader, (add, post.as_deref()))?;
        let compiler = builder.compiler;
        gpu.check()?;
        let mut model = Self {
            gpu: Arc::clone(gpu),
            plan: Arc::clone(plan),
            buffers,
            compiler,
            layers,
            head,
            caches: Vec::new(),
            pages: 0,
        };
        model.grow(1)?;
        Ok(model)
    }

    /// Dispatches of a step, in order.
    pub(super) fn ops(&self, wanted: bool) -> impl Iterator<Item = &Op> {
        let layers = self
            .layers
            .iter()
            .flat_map(|layer| layer.before.iter().chain(&layer.cached).chain(&layer.after));
        layers.chain(self.head.iter().filter(move |_| wanted))
    }

    /// Bytes of a page in all layers.
    pub(super) fn page_bytes(&self) -> u64 {
        (self.plan.layers.len() * page_words(&self.plan) * 4) as u64
    }

    /// Pages that one binding has room for.
    pub(super) fn pages_max(&self) -> usize {
        let of_page = (4 * page_words(&self.plan)) as u64;
        usize::try_from(self.gpu.binding_bytes_max() / of_page).unwrap_or(usize::MAX)
    }

    /// Makes room for at least so many pages; what is in the cache stays.
    pub(super) fn grow(&mut self, pages: usize) -> Result<(), BackendError> {
        if pages <= self.pages {
            return Ok(());
        }
        let words = page_words(&self.plan);
        let out_of_memory = BackendError::OutOfMemory {
            what: "keys and values on the GPU",
            bytes: (self.plan.layers.len() * words * 4) as u64 * pages as u64,
        };
        if pages > self.pages_max() {
            return Err(out_of_memory);
        }
        let mut caches = Vec::new();
        for _ in &self.layers {
            caches.push(
                self.gpu
                    .buffer("keys and values on the GPU", (4 * words * pages) as u64)?,
            );
        }
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&CommandEncoderDescriptor::default());
        for (old, new) in self.caches.iter().zip(&caches) {
            encoder.copy_buffer_to_buffer(old, 0, new, 0, Some((4 * words * self.pages) as u64));
        }
        self.gpu.queue().submit([encoder.finish()]);
        for (layer, cache) in self.layers.iter_mut().zip(&caches) {
            layer.cached = cached_ops(&mut self.compiler, &self.plan, &self.buffers, layer, cache)?;
        }
        self.caches = caches;
        self.pages = pages;
        self.gpu.check()
    }

    /// Copies a page of every layer.
    pub(super) fn copy_page(&self, from: u32, to: u32) -> Result<(), BackendError> {
        let bytes = (4 * page_words(&self.plan)) as u64;
        let between = self.gpu.buffer("a page on its way", bytes)?;
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&CommandEncoderDescriptor::default());
        for cache in &self.caches {
            encoder.copy_buffer_to_buffer(cache, u64::from(from) * bytes, &between, 0, Some(bytes));
            encoder.copy_buffer_to_buffer(&between, 0, cache, u64::from(to) * bytes, Some(bytes));
        }
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.check()
    }
}

fn page_words(plan: &Plan) -> usize {
    plan.kv_heads * PAGE * (plan.head_size + 2)
}

fn add_before(layer: usize, post: Option<&[f32]>) -> Add {
    match (layer, post) {
        (0, _) => Add::Nothing,
        (_, None) => Add::Branch,
        (_, Some(_)) => Add::Normed,
    }
}

/// Heads to the cache, and attention.
fn cached_ops(
    compiler: &mut Compiler,
    plan: &Plan,
    buffers: &Buffers,
    layer: &LayerOps,
    cache: &Buffer,
) -> Result<Vec<Op>, BackendError> {
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let heads = heads_bound(buffers, &layer.head_weights, &layer.stages[0], cache);
    let attend = attend_bound(buffers, &layer.stages[1], cache);
    let all = plan.heads + 2 * plan.kv_heads;
    Ok(vec![
        Op {
            pipelines: vec![(0, Arc::clone(&layer.heads))],
            bindings: compiler.bind(&heads)?,
            groups: [Count::Fixed(number(all)), Count::Rows],
        },
        Op {
            pipelines: vec![(0, Arc::clone(&layer.attend))],
            bindings: compiler.bind(&attend)?,
            groups: [Count::Fixed(number(plan.heads)), Count::Rows],
        },
    ])
}

fn heads_bound<'a>(
    buffers: &'a Buffers,
    weights: &'a Buffer,
    stage: &'a Buffer,
    cache: &'a Buffer,
) -> [Bound<'a>; 8] {
    [
        (0, Use::Read, &buffers.batch),
        (1, Use::Write, &buffers.status),
        (2, Use::Read, &buffers.raw),
        (3, Use::Read, &buffers.turns),
        (4, Use::Read, weights),
        (5, Use::Write, &buffers.queries),
        (6, Use::Write, cache),
        (8, Use::Uniform, stage),
    ]
}

fn attend_bound<'a>(buffers: &'a Buffers, stage: &'a Buffer, cache: &'a Buffer) -> [Bound<'a>; 7] {
    [
        (0, Use::Read, &buffers.batch),
        (1, Use::Write, &buffers.status),
        (2, Use::Read, &buffers.queries),
        (3, Use::Read, cache),
        (4, Use::Write, &buffers.scores),
        (5, Use::Write, &buffers.attended),
        (8, Use::Uniform, stage),
    ]
}

/// Makes the dispatches of a model.
struct Builder<'a> {
    compiler: Compiler,
    plan: &'a Plan,
    buffers: &'a Buffers,
}

impl Builder<'_> {
    fn norm(
        &mut self,
        weights: &[f32],
        (add, post): (Add, Option<&[f32]>),
        stage: (usize, usize),
        rows: Count,
    ) -> Result<Op, BackendError> {
        let gpu = Arc::clone(&self.compiler.gpu);
        let weights = floats(&gpu, weights)?;
        let post = floats(&gpu, post.unwrap_or_default())?;
        let stage = self.compiler.stage(stage.0, stage.1)?;
        let buffers = self.buffers;
        let bound = [
            (0, Use::Read, &buffers.batch),
            (1, Use::Write, &buffers.status),
            (2, Use::Write, &buffers.states),
            (3, Use::Write, &buffers.normed),
            (4, Use::Write, &buffers.quantized),
            (5, Use::Read, &weights),
            (6, Use::Read, &buffers.branch),
            (7, Use::Read, &post),
            (8, Use::Uniform, &stage),
        ];
        let source = kernels::norm(self.plan, add, matches!(rows, Count::Wanted));
        self.compiler
            .op("norm", source, &bound, [rows, Count::Fixed(1)])
    }

    fn quantize(
        &mut self,
        values: &Buffer,
        length: usize,
        stage: (usize, usize),
    ) -> Result<Op, BackendError> {
        let stage = self.compiler.stage(stage.0, stage.1)?;
        let bound = [
            (1, Use::Write, &self.buffers.status),
            (2, Use::Read, values),
            (3, Use::Write, &self.buffers.quantized),
            (8, Use::Uniform, &stage),
        ];
        let source = kernels::quantize(self.plan, length);
        self.compiler
            .op("quantize", source, &bound, [Count::Rows, Count::Fixed(1)])
    }

    fn target<'a>(&self, output: &'a Buffer, stride: usize, rows: Count) -> Target<'a>
    where
        Self: 'a,
    {
        Target {
            quantized: &self.buffers.quantized,
            output,
            stride,
            rows,
            gate: None,
        }
    }

    fn layer(
        &mut self,
        loader: &mut Loader<'_>,
        index: usize,
        layer: &Layer,
        before: (Add, Option<&[f32]>),
    ) -> Result<LayerOps, ModelError> {
        let (plan, buffers) = (self.plan, self.buffers);
        let width = plan.heads * plan.head_size;
        let all = width + 2 * plan.kv_heads * plan.head_size;
        let matrices = [&layer.query, &layer.key, &layer.value].map(|matrix| loader.whole(matrix));
        let [query, key, value] = matrices;
        let (query, key, value) = (query?, key?, value?);
        let mut first = vec![self.norm(&layer.attention_norm, before, (index, 0), Count::Rows)?];
        let target = self.target(&buffers.raw, all, Count::Rows);
        first.extend(
            self.compiler
                .products(&buffers.batch, &[&query, &key, &value], &target)?,
        );

        let (heads, attend, head_weights, stages) = self.attention(index, layer)?;
        let mut after = vec![self.quantize(&buffers.attended, width, (index, 3))?];
        let output = loader.whole(&layer.attention_output)?;
        let target = self.target(&buffers.branch, plan.embedding_length, Count::Rows);
        after.extend(
            self.compiler
                .products(&buffers.batch, &[&output], &target)?,
        );
        let post = layer.post_attention_norm.as_deref();
        let add = add_before(1, post);
        after.push(self.norm(
            &layer.feed_forward_norm,
            (add, post),
            (index, 4),
            Count::Rows,
        )?);
        let (gate, up) = loader.pair(&layer.gate, &layer.up)?;
        let target = Target {
            gate: Some((plan.gate, &buffers.status, 8 * index + 5)),
            ..self.target(&buffers.hidden, plan.feed_forward_length, Count::Rows)
        };
        after.extend(
            self.compiler
                .products(&buffers.batch, &[&gate, &up], &target)?,
        );
        after.push(self.quantize(&buffers.hidden, plan.feed_forward_length, (index, 5))?);
        let down = loader.whole(&layer.down)?;
        let target = self.target(&buffers.branch, plan.embedding_length, Count::Rows);
        after.extend(self.compiler.products(&buffers.batch, &[&down], &target)?);
        Ok(LayerOps {
            before: first,
            cached: Vec::new(),
            after,
            heads,
            attend,
            head_weights,
            stages,
        })
    }

    /// The kernels between the products of heads and the attention's output.
    #[expect(
        clippy::type_complexity,
        reason = "the caller takes them apart at once"
    )]
    fn attention(
        &mut self,
        index: usize,
        layer: &Layer,
    ) -> Result<
        (
            Arc<ComputePipeline>,
            Arc<ComputePipeline>,
            Buffer,
            [Buffer; 2],
        ),
        BackendError,
    > {
        let (plan, buffers) = (self.plan, self.buffers);
        let gpu = Arc::clone(&self.compiler.gpu);
        let stages = [
            self.compiler.stage(index, 1)?,
            self.compiler.stage(index, 2)?,
        ];
        let weights = head_weights(plan, layer);
        let head_weights = floats(&gpu, &weights)?;
        let kind = Heads {
            normed: [layer.query_norm.is_some(), layer.key_norm.is_some()],
            biased: [&layer.query_bias, &layer.key_bias, &layer.value_bias]
                .iter()
                .any(|bias| bias.is_some()),
            rope: layer.rope,
        };
        // Any buffer will do for the shape of the bindings.
        let bound = heads_bound(buffers, &head_weights, &stages[0], &buffers.hidden);
        let heads = self
            .compiler
            .pipeline("heads", kernels::heads(plan, kind), &bound)?;
        let bound = attend_bound(buffers, &stages[1], &buffers.hidden);
        let source = kernels::attend(plan, layer.window);
        let attend = self.compiler.pipeline("attend", source, &bound)?;
        Ok((heads, attend, head_weights, stages))
    }

    fn head(
        &mut self,
        loader: &mut Loader<'_>,
        before: (Add, Option<&[f32]>),
    ) -> Result<Vec<Op>, ModelError> {
        let (plan, buffers) = (self.plan, self.buffers);
        let stage = (plan.layers.len(), 0);
        let mut ops = vec![self.norm(&plan.output_norm, before, stage, Count::Wanted)?];
        let head = loader.whole(&plan.head)?;
        let target = self.target(&buffers.logits, plan.vocabulary(), Count::Wanted);
        ops.extend(self.compiler.products(&buffers.batch, &[&head], &target)?);
        Ok(ops)
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
