//! Kernels and their bindings → dispatches.
//! In: sources, buffers and how many workgroups there are. Out: what a step records, each pipeline and layout
//! made once. It knows nothing of layers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingType, Buffer, BufferBindingType, BufferUsages, ComputePipeline,
    PipelineLayoutDescriptor, ShaderStages,
};

use crate::backend::BackendError;
use crate::model::plan::Gate;

use super::adapter::{GpuKind, GpuTiles};
use super::device::Gpu;
use super::kernels::{Add, Input, Profile, with_subgroups};
use super::product::{Params, Product, Slot, THREADS, threads};
use super::tile::{Shape, Tile};
use super::weights::{COLUMNS, Matrix, Run};

/// The most workgroups along one axis that every device has.
pub(super) const GROUPS_MAX: usize = 65_535;
/// Rows of the batch that a workgroup takes where there are only a few, but more than one.
const FEW: u32 = 4;
/// Workgroups that a narrow tile's product has at least.
const NARROW_GROUPS_MIN: usize = 64;
/// Workgroups of a product that norms by itself: enough to fill the largest devices twice.
const FUSED_GROUPS_MAX: u32 = 512;
/// The same where a CPU runs them, a few at a time.
const FUSED_GROUPS_OF_SOFTWARE: u32 = 16;

/// How many workgroups a dispatch has along an axis.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Fixed(u32),
    Rows,
    Wanted,
}

/// One dispatch of every step: the same work by kernels for steps of different sizes.
#[derive(Clone)]
pub(super) struct Op {
    /// By how many rows of the batch a workgroup takes, the fewest first.
    variants: Vec<Variant>,
    /// Rows of the batch that it works on.
    rows: Count,
}

#[derive(Clone)]
struct Variant {
    /// Rows of the batch that a workgroup takes.
    tokens: u32,
    pipeline: Arc<ComputePipeline>,
    bindings: BindGroup,
    /// Workgroups along the first axis.
    groups: Count,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Op {
    /// One kernel for steps of all sizes, of which a workgroup takes one row.
    pub(super) fn of(
        pipeline: &Arc<ComputePipeline>,
        bindings: BindGroup,
        groups: Count,
        rows: Count,
    ) -> Self {
        Self {
            variants: vec![Variant {
                tokens: 1,
                pipeline: Arc::clone(pipeline),
                bindings,
                groups,
            }],
            rows,
        }
    }

    /// Records it for a step of so many rows, of which so many want logits.
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32, wanted: u32) {
        let count = |count| match count {
            Count::Fixed(count) => count,
            Count::Rows => rows,
            Count::Wanted => wanted,
        };
        let y = count(self.rows);
        let fits = |variant: &&Variant| variant.tokens >= y;
        let Some(chosen) = self.variants.iter().find(fits).or(self.variants.last()) else {
            return;
        };
        pass.set_pipeline(&chosen.pipeline);
        pass.set_bind_group(0, &chosen.bindings, &[]);
        pass.dispatch_workgroups(count(chosen.groups), y.div_ceil(chosen.tokens), 1);
    }
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Read,
    Write,
    Uniform,
}

/// A binding: its number, its use, its buffer.
pub(super) type Bound<'a> = (u32, Use, &'a Buffer);

/// Kernels and layouts, each made once.
pub(super) struct Compiler {
    pub(super) gpu: Arc<Gpu>,
    pub(super) profile: Profile,
    layouts: HashMap<Vec<(u32, Use)>, BindGroupLayout>,
    pipelines: HashMap<String, Arc<ComputePipeline>>,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiler of {} kernels", self.pipelines.len())
    }
}

impl Compiler {
    pub(super) fn new(gpu: &Arc<Gpu>, profile: Profile) -> Self {
        Self {
            gpu: Arc::clone(gpu),
            profile,
            layouts: HashMap::new(),
            pipelines: HashMap::new(),
        }
    }

    fn layout(&mut self, bound: &[Bound<'_>]) -> BindGroupLayout {
        let key: Vec<_> = bound.iter().map(|(at, usage, _)| (*at, *usage)).collect();
        let device = self.gpu.device();
        let entry = |&(binding, usage): &(u32, Use)| BindGroupLayoutEntry {
            binding,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer {
                ty: match usage {
                    Use::Read => BufferBindingType::Storage { read_only: true },
                    Use::Write => BufferBindingType::Storage { read_only: false },
                    Use::Uniform => BufferBindingType::Uniform,
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let made = self.layouts.entry(key).or_insert_with_key(|key| {
            device.create_bind_group_layout(&BindGroupLayoutDescriptor {
                label: None,
                entries: &key.iter().map(entry).collect::<Vec<_>>(),
            })
        });
        made.clone()
    }

    pub(super) fn pipeline(
        &mut self,
        label: &str,
        source: String,
        bound: &[Bound<'_>],
    ) -> Result<Arc<ComputePipeline>, BackendError> {
        let source = with_subgroups(source);
        if let Some(made) = self.pipelines.get(&source) {
            return Ok(Arc::clone(made));
        }
        let layout = self.layout(bound);
        let layout = self
            .gpu
            .device()
            .create_pipeline_layout(&PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
        let pipeline = Arc::new(self.gpu.pipeline(label, source.clone(), Some(&layout))?);
        self.pipelines.insert(source, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    pub(super) fn bind(&mut self, bound: &[Bound<'_>]) -> Result<BindGroup, BackendError> {
        let layout = self.layout(bound);
        let entries: Vec<_> = bound
            .iter()
            .map(|(binding, _, buffer)| BindGroupEntry {
                binding: *binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        self.gpu.scoped("bindings of a kernel", 0, || {
            self.gpu.device().create_bind_group(&BindGroupDescriptor {
                label: None,
                layout: &layout,
                entries: &entries,
            })
        })
    }

    /// A dispatch that is no product.
    pub(super) fn op(
        &mut self,
        label: &str,
        source: String,
        bound: &[Bound<'_>],
        groups: [Count; 2],
    ) -> Result<Op, BackendError> {
        let pipeline = self.pipeline(label, source, bound)?;
        let bindings = self.bind(bound)?;
        Ok(Op::of(&pipeline, bindings, groups[0], groups[1]))
    }

    fn uniform<T: bytemuck::Pod>(&self, value: &T) -> Result<Buffer, BackendError> {
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let bytes = bytemuck::bytes_of(value);
        let buffer = self
            .gpu
            .buffer_for("parameters", bytes.len() as u64, usage)?;
        self.gpu.queue().write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }

    /// A stage's number and the next one's, as kernels note them.
    pub(super) fn stage(&self, stage: usize) -> Result<Buffer, BackendError> {
        let first = number("the number of a stage", stage)?;
        self.uniform(&[first, first.saturating_add(1), 0, 0])
    }
}

/// Where a product has its vectors from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Vectors in memory: in Q16, or f32 in the fast profile.
    Stored(&'a Buffer),
    /// The values of a step's only row.
    Values { values: &'a Buffer, stage: usize },
    /// The states of that row.
    Normed(Normed<'a>),
}

/// What a product norms by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normed<'a> {
    pub(super) add: Add,
    pub(super) epsilon: f32,
    pub(super) states: &'a Buffer,
    /// The states with the branch added; another buffer.
    pub(super) states_after: &'a Buffer,
    pub(super) branch: &'a Buffer,
    pub(super) weights: &'a Buffer,
    pub(super) post_weights: &'a Buffer,
    pub(super) stage: usize,
}

impl<'a> Source<'a> {
    fn input(&self) -> Input {
        match self {
            Self::Stored(_) => Input::Stored,
            Self::Values { .. } => Input::Values,
            Self::Normed(normed) => Input::Normed {
                add: normed.add,
                epsilon: normed.epsilon.to_bits(),
            },
        }
    }

    fn stage(&self) -> usize {
        match self {
            Self::Stored(_) => 0,
            Self::Values { stage, .. } => *stage,
            Self::Normed(normed) => normed.stage,
        }
    }

    fn bound(&self, batch: &'a Buffer, status: &'a Buffer, gated: bool) -> Vec<Bound<'a>> {
        let status = (7, Use::Write, status);
        match self {
            Self::Stored(vectors) => {
                let mut bound = vec![(0, Use::Read, batch), (1, Use::Read, *vectors)];
                bound.extend(gated.then_some(status));
                bound
            }
            Self::Values { values, .. } => vec![(1, Use::Read, *values), status],
            Self::Normed(normed) => vec![
                (1, Use::Read, normed.states),
                status,
                (8, Use::Write, normed.states_after),
                (9, Use::Read, normed.branch),
                (10, Use::Read, normed.weights),
                (11, Use::Read, normed.post_weights),
            ],
        }
    }
}

/// What a product reads and writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) batch: &'a Buffer,
    pub(super) status: &'a Buffer,
    pub(super) source: Source<'a>,
    pub(super) output: &'a Buffer,
    /// Values of a row of the output.
    pub(super) stride: usize,
    pub(super) rows: Count,
    /// A gate, with the number of its stage.
    pub(super) gate: Option<(Gate, usize)>,
}

impl Compiler {
    /// The dispatches of matrices that all take the same vectors; their outputs stand one behind the other, or
    /// meet in a gate.
    pub(super) fn products(
        &mut self,
        matrices: &[&Matrix],
        target: &Target<'_>,
    ) -> Result<Vec<Op>, BackendError> {
        let rows: usize = matrices.iter().map(|matrix| matrix.rows).sum();
        let whole = matrices.iter().all(|matrix| matrix.runs.len() == 1)
            && (target.gate.is_some() || rows <= GROUPS_MAX);
        if whole && (target.gate.is_some() || matrices.len() > 1) {
            let mut at = 0;
            let mut parts = Vec::new();
            for matrix in matrices {
                parts.push((*matrix, &matrix.runs[0], at));
                at += matrix.rows;
            }
            return Ok(vec![self.product(&parts, target)?]);
        }
        let mut ops = Vec::new();
        if target.gate.is_some() {
            // Both were cut at the same rows.
            let [gate, up] = matrices else { return Ok(ops) };
            let mut at = 0;
            for (gates, ups) in gate.runs.iter().zip(&up.runs) {
                ops.push(self.product(&[(gate, gates, at), (up, ups, at)], target)?);
                at += gates.rows;
            }
            return Ok(ops);
        }
        let mut at = 0;
        for matrix in matrices {
            for run in &matrix.runs {
                ops.push(self.product(&[(matrix, run, at)], target)?);
                at += run.rows;
            }
        }
        Ok(ops)
    }

    fn product(
        &mut self,
        parts: &[(&Matrix, &Run, usize)],
        target: &Target<'_>,
    ) -> Result<Op, BackendError> {
        let columns = parts[0].0.columns;
        let input = target.source.input();
        let formats: Vec<_> = parts.iter().map(|(matrix, _, _)| matrix.format).collect();
        let gate = target.gate.map(|(gate, _)| gate);
        let product = Product {
            formats,
            columns,
            lanes: lanes(&self.gpu, columns),
            input,
            tokens: 1,
            profile: self.profile,
            int64: self.gpu.int64(),
            gate,
        };
        let mut kernels = vec![(1, product.rows_of_group(), product.source())];
        if input == Input::Stored {
            let few = Product {
                tokens: FEW,
                ..product.clone()
            };
            kernels.push((FEW, few.rows_of_group(), few.source()));
            for shape in self.tiles(parts) {
                let tile = Tile {
                    formats: product.formats.clone(),
                    columns,
                    shape,
                    profile: self.profile,
                    int64: self.gpu.int64(),
                    gate,
                };
                kernels.push((shape.tokens(), shape.rows(), tile.source()));
            }
        }
        let mut variants = Vec::new();
        for (tokens, rows_of_group, source) in kernels {
            variants.push(self.variant(parts, target, (tokens, rows_of_group), source)?);
        }
        Ok(Op {
            variants,
            rows: target.rows,
        })
    }

    /// Tiles that are worth their while for matrices.
    fn tiles(&self, parts: &[(&Matrix, &Run, usize)]) -> Vec<Shape> {
        let limits = self.gpu.limits();
        let rows: usize = parts.iter().map(|(_, run, _)| run.rows).sum();
        let asked = self.gpu.layout().tiles;
        let of_profile = matches!(self.profile, Profile::Exact { .. }) && asked != GpuTiles::Never;
        let fits = |shape: &Shape| {
            let groups = rows / shape.rows() as usize;
            of_profile
                && limits.max_compute_workgroup_storage_size >= shape.shared_bytes()
                && limits.max_compute_invocations_per_workgroup >= shape.threads()
                && limits.max_compute_workgroup_size_x >= shape.threads()
                // Few workgroups would leave most of a device idle.
                && (*shape == Shape::SQUARE
                    || asked == GpuTiles::Always
                    || groups >= NARROW_GROUPS_MIN)
        };
        let shapes = [Shape::NARROW, Shape::SQUARE].into_iter();
        shapes.filter(fits).collect()
    }

    fn variant(
        &mut self,
        parts: &[(&Matrix, &Run, usize)],
        target: &Target<'_>,
        (tokens, rows_of_group): (u32, u32),
        source: String,
    ) -> Result<Variant, BackendError> {
        let params = params(parts, target, rows_of_group as usize)?;
        let uniform = self.uniform(&params)?;
        let gated = target.gate.is_some();
        let mut bound = target.source.bound(target.batch, target.status, gated);
        bound.push((2, Use::Write, target.output));
        bound.push((3, Use::Uniform, &uniform));
        let runs = (4..)
            .zip(parts)
            .map(|(at, (_, run, _))| (at, Use::Read, &run.buffer));
        bound.extend(runs);
        Ok(Variant {
            tokens,
            pipeline: self.pipeline("product", source, &bound)?,
            bindings: self.bind(&bound)?,
            groups: Count::Fixed(match (&target.source, self.gpu.layout().groups) {
                (Source::Stored(_), _) => params.groups,
                // Each brings the vector into Q16, which costs as much as several of its rows.
                (_, 0) if self.gpu.info().kind == GpuKind::Software => {
                    params.groups.min(FUSED_GROUPS_OF_SOFTWARE)
                }
                (_, 0) => params.groups.min(FUSED_GROUPS_MAX),
                (_, most) => params.groups.min(most),
            }),
        })
    }
}

/// A size as kernels have it, in 32 bits.
fn number(what: &str, size: usize) -> Result<u32, BackendError> {
    u32::try_from(size).map_err(|_| BackendError::Device {
        reason: format!("{what} is {size}, kernels count to 2^32 - 1"),
    })
}

/// The parameters of a product.
fn params(
    parts: &[(&Matrix, &Run, usize)],
    target: &Target<'_>,
    rows_of_group: usize,
) -> Result<Params, BackendError> {
    let mut params = Params {
        stride: number("the length of an output", target.stride)?,
        count_at: u32::from(matches!(target.rows, Count::Wanted)),
        stage: number(
            "the number of a stage",
            target.gate.map_or(0, |(_, stage)| stage),
        )?,
        input_stage: number("the number of a stage", target.source.stage())?,
        ..Params::default()
    };
    let mut groups = 0;
    for (slot, (_, run, output_at)) in params.slots.iter_mut().zip(parts) {
        let planes = run.planes;
        *slot = Slot {
            rows: number("the height of a matrix", run.rows)?,
            first_group: number("the count of workgroups", groups)?,
            output_at: number("the place of an output", *output_at)?,
            extra: planes.extra,
            coefficients: planes.coefficients,
            supers: planes.supers,
            exponents: planes.exponents,
            padding: 0,
        };
        // A gate's two matrices are taken by the same workgroups.
        if target.gate.is_none() || groups == 0 {
            groups += run.rows.div_ceil(rows_of_group);
        }
    }
    params.groups = number("the count of workgroups", groups)?;
    Ok(params)
}

/// Whether a product that brings its vectors into Q16 itself fits the device.
pub(super) fn fits(
    gpu: &Gpu,
    profile: Profile,
    columns: usize,
    normed: bool,
    gate: Option<Gate>,
) -> bool {
    let input = match normed {
        false => Input::Values,
        true => Input::Normed {
            add: Add::Normed,
            epsilon: 0,
        },
    };
    let kernel = Product {
        formats: Vec::new(),
        columns,
        lanes: 1,
        input,
        tokens: 1,
        profile,
        int64: gpu.int64(),
        gate,
    };
    let limits = gpu.limits();
    limits.max_compute_workgroup_storage_size >= kernel.shared_bytes()
        && limits.max_storage_buffers_per_shader_stage >= 10
        && limits.max_compute_invocations_per_workgroup >= threads(input)
        && limits.max_compute_workgroup_size_x >= threads(input)
}

/// Threads that share a row: two blocks each, if the layout does not say otherwise.
pub(super) fn lanes(gpu: &Gpu, columns: usize) -> u32 {
    let wanted = match gpu.layout().lanes {
        // More than a workgroup's threads is as good as all of them.
        0 => u32::try_from(columns / COLUMNS / 2).unwrap_or(THREADS),
        lanes => lanes,
    };
    let lanes = wanted.clamp(1, THREADS);
    1 << lanes.ilog2()
}
