//! One model on one device: its weights, the buffers of a step, and the order of kernels.
//! In: a plan and its file; then batches of rows. Out: logits of the rows that want them, or the likeliest
//! tokens. Kernels run in one pass, each after the one before; nothing else comes back but what was not finite.

use std::sync::Arc;

use wgpu::{Buffer, CommandEncoderDescriptor, ComputePipeline};

use crate::backend::BackendError;
use crate::gguf::Gguf;
use crate::model::plan::Plan;
use crate::model::{LoadProgress, ModelError};
use crate::scheduler::PAGE;

use super::best::Best;
use super::builder::{Builder, Loader, add_before};
use super::compiler::{Bound, Compiler, Count, Op, Use};
use super::device::Gpu;
use super::kernels::{PAGES_AT, Profile, ROWS_MAX};
use super::weights::COLUMNS;

/// Words of page numbers that a batch has room for.
pub(super) const PAGES_MAX: usize = 1 << 16;
/// Scores of a step; more than one row's would be of no use.
const SCORES_MAX: usize = 1 << 24;

/// What the rows of a step want together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    /// Logits, of any row.
    pub(super) head: bool,
    /// Their likeliest tokens found.
    pub(super) best: bool,
}

/// A model's weights and kernels, and the buffers of its steps.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) gpu: Arc<Gpu>,
    pub(super) plan: Arc<Plan>,
    pub(super) buffers: Buffers,
    compiler: Compiler,
    /// Whether a step's only row has a way of its own.
    fused: bool,
    layers: Vec<LayerOps>,
    /// The head's dispatches for batches, and for a step's only row.
    heads: [Vec<Op>; 2],
    pub(super) best: Best,
    /// Keys and values of each layer.
    caches: Vec<Buffer>,
    /// Pages that the caches have room for.
    pub(super) pages: usize,
}

/// What every step writes to.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) batch: Buffer,
    pub(super) status: Buffer,
    pub(super) states: Buffer,
    /// The states of a step's only row go to and fro, so that all workgroups can read what one writes.
    pub(super) states_other: Buffer,
    pub(super) turns: Buffer,
    pub(super) logits: Buffer,
    pub(super) normed: Buffer,
    pub(super) quantized: Buffer,
    pub(super) raw: Buffer,
    pub(super) queries: Buffer,
    pub(super) scores: Buffer,
    pub(super) attended: Buffer,
    pub(super) hidden: Buffer,
    pub(super) branch: Buffer,
    /// Words of `scores`.
    pub(super) scores_max: usize,
    /// Rows that may want logits in one step.
    pub(super) wanted_max: usize,
}

/// The dispatches of a layer on one of the two ways; those with the cache are made anew when it grows.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) before: Vec<Op>,
    cached: Vec<Op>,
    pub(super) after: Vec<Op>,
}

impl Way {
    fn ops(&self) -> impl Iterator<Item = &Op> {
        self.before.iter().chain(&self.cached).chain(&self.after)
    }
}

/// A layer for batches, and for a step's only row where the device can do with half the dispatches then.
#[derive(Debug)]
pub(super) struct LayerOps {
    pub(super) ways: [Way; 2],
    pub(super) heads: Arc<ComputePipeline>,
    pub(super) attend: Arc<ComputePipeline>,
    pub(super) attend_fused: Option<Arc<ComputePipeline>>,
    pub(super) head_weights: Buffer,
    pub(super) stage: Buffer,
}

impl Buffers {
    fn new(gpu: &Gpu, profile: Profile, plan: &Plan) -> Result<Self, BackendError> {
        let what = "buffers of a step";
        let rows = ROWS_MAX as u64;
        let width = plan.heads * plan.head_size;
        let widest = plan
            .embedding_length
            .max(plan.feed_forward_length)
            .max(width);
        let query_words = match profile {
            Profile::Exact { .. } => plan.head_size / 2 + 1,
            Profile::Fast => plan.head_size,
        };
        let words = |of_row: usize| gpu.buffer(what, 4 * rows * of_row as u64);
        let limit = usize::try_from(gpu.binding_bytes_max() / 4).unwrap_or(usize::MAX);
        let context = plan.context_tokens_max as usize;
        let scores_max = (plan.heads * context).clamp(1 << 20, SCORES_MAX).min(limit);
        let wanted_max = (limit / plan.vocabulary()).clamp(1, 64);
        Ok(Self {
            batch: gpu.buffer(what, 4 * (PAGES_AT + PAGES_MAX) as u64)?,
            status: gpu.buffer(what, 4 * rows)?,
            states: words(plan.embedding_length)?,
            states_other: gpu.buffer(what, 4 * plan.embedding_length as u64)?,
            turns: words(plan.ropes.len() * plan.rope_dimensions)?,
            logits: gpu.buffer(what, 4 * (wanted_max * plan.vocabulary()) as u64)?,
            normed: words(plan.embedding_length)?,
            quantized: words(widest / COLUMNS * 20)?,
            raw: words(width + 2 * plan.kv_heads * plan.head_size)?,
            queries: words(plan.heads * query_words)?,
            scores: gpu.buffer(what, 4 * scores_max as u64)?,
            attended: words(width)?,
            hidden: words(plan.feed_forward_length)?,
            branch: words(plan.embedding_length)?,
            scores_max,
            wanted_max,
        })
    }
}

impl Model {
    pub(super) fn load(
        gpu: &Arc<Gpu>,
        profile: Profile,
        gguf: &Gguf,
        plan: &Arc<Plan>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        crate::exact::check_sizes(plan)?;
        let buffers = Buffers::new(gpu, profile, plan)?;
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
        let mut builder = Builder::new(gpu, profile, plan, &buffers);
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
        let heads = builder.head(&mut loader, (add, post.as_deref()))?;
        let (mut compiler, fused) = (builder.compiler, builder.fused);
        let best = Best::new(&mut compiler, plan, &buffers)?;
        gpu.check()?;
        let mut model = Self {
            gpu: Arc::clone(gpu),
            plan: Arc::clone(plan),
            buffers,
            compiler,
            fused,
            layers,
            heads,
            best,
            caches: Vec::new(),
            pages: 0,
        };
        model.grow(1)?;
        Ok(model)
    }

    /// Dispatches of a step, in order.
    pub(super) fn ops(&self, rows: usize, wants: Wants) -> impl Iterator<Item = &Op> {
        let way = usize::from(rows == 1 && self.fused);
        let layers = self
            .layers
            .iter()
            .flat_map(move |layer| layer.ways[way].ops());
        let head = self.heads[way].iter().filter(move |_| wants.head);
        let best = self.best.ops.iter().filter(move |_| wants.best);
        layers.chain(head).chain(best)
    }

    /// The arithmetic that it runs in.
    pub(super) fn profile(&self) -> Profile {
        self.compiler.profile
    }

    /// Words of a page of one layer: of each head keys and values, in the exact profile of 16 bits and with
    /// their exponents.
    fn page_words(&self) -> usize {
        let plan = &self.plan;
        let of_position = match self.profile() {
            Profile::Exact { .. } => plan.head_size + 2,
            Profile::Fast => 2 * plan.head_size,
        };
        plan.kv_heads * PAGE * of_position
    }

    /// Memory of a page, in all layers.
    pub(super) fn page_bytes(&self) -> u64 {
        (4 * self.layers.len() * self.page_words()) as u64
    }

    /// Pages that one binding has room for.
    pub(super) fn pages_max(&self) -> usize {
        let of_page = (4 * self.page_words()) as u64;
        usize::try_from(self.gpu.binding_bytes_max() / of_page).unwrap_or(usize::MAX)
    }

    /// Makes room for at least so many pages; what is in the cache stays.
    pub(super) fn grow(&mut self, pages: usize) -> Result<(), BackendError> {
        if pages <= self.pages {
            return Ok(());
        }
        let words = self.page_words();
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
        // All of them before any of them takes part: a failure leaves the old cache as it was.
        let mut ops = Vec::new();
        for (layer, cache) in self.layers.iter().zip(&caches) {
            ops.push(cache_ops(
                &mut self.compiler,
                &self.plan,
                &self.buffers,
                layer,
                cache,
            )?);
        }
        self.gpu.check()?;
        for (layer, ops) in self.layers.iter_mut().zip(ops) {
            for (way, ops) in layer.ways.iter_mut().zip(ops) {
                way.cached = ops;
            }
        }
        self.caches = caches;
        self.pages = pages;
        Ok(())
    }

    /// Copies a page of every layer.
    pub(super) fn copy_page(&self, from: u32, to: u32) -> Result<(), BackendError> {
        let bytes = (4 * self.page_words()) as u64;
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

/// Makes the dispatches of a layer that know its cache.
fn cache_ops(
    compiler: &mut Compiler,
    plan: &Plan,
    buffers: &Buffers,
    layer: &LayerOps,
    cache: &Buffer,
) -> Result<[Vec<Op>; 2], BackendError> {
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let heads = heads_bound(buffers, &layer.head_weights, &layer.stage, cache);
    let attend = attend_bound(buffers, &layer.stage, cache);
    let all = plan.heads + 2 * plan.kv_heads;
    let op = |pipeline: &Arc<ComputePipeline>, bindings, count, rows| {
        Op::of(pipeline, bindings, Count::Fixed(number(count)), rows)
    };
    let batch = vec![
        op(&layer.heads, compiler.bind(&heads)?, all, Count::Rows),
        op(
            &layer.attend,
            compiler.bind(&attend)?,
            plan.heads,
            Count::Rows,
        ),
    ];
    let mut single = Vec::new();
    if let Some(fused) = &layer.attend_fused {
        let bound = fused_bound(buffers, &layer.head_weights, &layer.stage, cache);
        let bindings = compiler.bind(&bound)?;
        single.push(op(fused, bindings, plan.heads, Count::Fixed(1)));
    }
    Ok([batch, single])
}

/// The bindings of a kernel of attention.
pub(super) fn fused_bound<'a>(
    buffers: &'a Buffers,
    weights: &'a Buffer,
    stage: &'a Buffer,
    cache: &'a Buffer,
) -> [Bound<'a>; 9] {
    [
        (0, Use::Read, &buffers.batch),
        (1, Use::Write, &buffers.status),
        (2, Use::Read, &buffers.raw),
        (3, Use::Write, cache),
        (4, Use::Write, &buffers.scores),
        (5, Use::Write, &buffers.attended),
        (6, Use::Read, &buffers.turns),
        (7, Use::Read, weights),
        (8, Use::Uniform, stage),
    ]
}

/// The bindings of a kernel of attention.
pub(super) fn heads_bound<'a>(
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

/// The bindings of a kernel of attention.
pub(super) fn attend_bound<'a>(
    buffers: &'a Buffers,
    stage: &'a Buffer,
    cache: &'a Buffer,
) -> [Bound<'a>; 7] {
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
