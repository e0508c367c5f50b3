//! The exact profile on CPUs: the arithmetic of `docs/exact-arithmetic.md`, to the letter.
//! In: a plan and the file's weights, packed at load. Out: logits whose bits do not depend on the width
//! of SIMD, the number of threads, or how tokens are cut into batches.

mod activations;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_fast;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_attention;
#[cfg(target_arch = "x86_64")]
mod avx512_fast;
#[cfg(target_arch = "x86_64")]
mod avx512_fast_attention;
mod cache;
mod device;
mod encoder;
mod fast;
mod forward;
mod generic;
mod kernels;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_attention;
#[cfg(target_arch = "aarch64")]
mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
mod neon_products;
#[cfg(target_arch = "aarch64")]
mod neon_weights;
mod pack;
mod phases;
mod scalar;
mod stored;
#[cfg(test)]
mod vectors;

use std::sync::Arc;

use crate::cpu::buffer::Arena;
use crate::cpu::pool::Pool;
use crate::cpu::simd::SimdLevel;
#[cfg(target_arch = "x86_64")]
use crate::exact::HEAD_SIZE_MAX;
use crate::exact::{Angles, ScoreScale, check_sizes, flushed};
use crate::gguf::Gguf;
use crate::model::plan::{Layer, Matrix, Plan};
use crate::model::{LoadProgress, ModelError};
use crate::scheduler::{ContextMemory, Scheduler};
use device::ExactDevice;
pub(crate) use device::sequence_bytes;
pub(crate) use encoder::ExactEncoder;
use kernels::Kernels;
pub(crate) use kernels::Precision;
use pack::Packed;
pub use stored::PackedCache;
use stored::Stored;

/// Everything that sequences share.
#[derive(Debug)]
struct Weights {
    gguf: Arc<Gguf>,
    plan: Arc<Plan>,
    pool: Pool,
    kernels: Kernels,
    layers: Vec<PackedLayer>,
    output_norm: Vec<f32>,
    head: Packed,
    norm_epsilon: f32,
    score_scale: ScoreScale,
    angles: Angles,
}

#[derive(Debug)]
struct PackedLayer {
    attention_norm: Vec<f32>,
    query: PackedHeads,
    key: PackedHeads,
    value: PackedHeads,
    attention_output: Packed,
    post_attention_norm: Option<Vec<f32>>,
    feed_forward_norm: Vec<f32>,
    gate: Packed,
    up: Packed,
    down: Packed,
    post_feed_forward_norm: Option<Vec<f32>>,
}

impl PackedLayer {
    /// In the order in which they are packed.
    fn matrices(&self) -> [&Packed; 7] {
        [
            &self.query.matrix,
            &self.key.matrix,
            &self.value.matrix,
            &self.attention_output,
            &self.gate,
            &self.up,
            &self.down,
        ]
    }
}

/// What makes the queries, keys or values of all heads.
#[derive(Debug)]
struct PackedHeads {
    matrix: Packed,
    bias: Option<Vec<f32>>,
    norm: Option<Vec<f32>>,
}

/// Packs matrices and reports how far it has come.
struct Loader<'a> {
    gguf: &'a Gguf,
    pool: &'a Pool,
    arena: Arena,
    stored: Option<Stored<'a>>,
    progress: &'a mut dyn FnMut(LoadProgress),
    done_bytes: u64,
    reported_bytes: u64,
    total_bytes: u64,
}

impl Loader<'_> {
    fn pack(&mut self, matrix: &Matrix) -> Result<Packed, ModelError> {
        let packed = Packed::new(
            &matrix.rows_in(self.gguf),
            self.pool,
            &mut self.arena,
            self.stored.as_mut(),
        )?;
        self.done_bytes += (matrix.rows * matrix.row_bytes()) as u64;
        let step = self.total_bytes / 100;
        if self.done_bytes == self.total_bytes || self.done_bytes - self.reported_bytes > step {
            self.reported_bytes = self.done_bytes;
            let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
            (self.progress)(LoadProgress {
                done_bytes,
                total_bytes,
            });
        }
        Ok(packed)
    }

    fn heads(
        &mut self,
        matrix: &Matrix,
        bias: Option<&Vec<f32>>,
        norm: Option<&Vec<f32>>,
    ) -> Result<PackedHeads, ModelError> {
        Ok(PackedHeads {
            matrix: self.pack(matrix)?,
            bias: bias.map(|values| flushed(values)),
            norm: norm.map(|values| flushed(values)),
        })
    }

    fn layer(&mut self, layer: &Layer) -> Result<PackedLayer, ModelError> {
        let flushed_if = |values: &Option<Vec<f32>>| values.as_deref().map(flushed);
        Ok(PackedLayer {
            attention_norm: flushed(&layer.attention_norm),
            query: self.heads(
                &layer.query,
                layer.query_bias.as_ref(),
                layer.query_norm.as_ref(),
            )?,
            key: self.heads(&layer.key, layer.key_bias.as_ref(), layer.key_norm.as_ref())?,
            value: self.heads(&layer.value, layer.value_bias.as_ref(), None)?,
            attention_output: self.pack(&layer.attention_output)?,
            post_attention_norm: flushed_if(&layer.post_attention_norm),
            feed_forward_norm: flushed(&layer.feed_forward_norm),
            gate: self.pack(&layer.gate)?,
            up: self.pack(&layer.up)?,
            down: self.pack(&layer.down)?,
            post_feed_forward_norm: flushed_if(&layer.post_feed_forward_norm),
        })
    }
}

/// Loads a model in the exact profile.
pub(crate) fn load(
    gguf: Arc<Gguf>,
    plan: Arc<Plan>,
    threads: usize,
    (simd, precision): (SimdLevel, Precision),
    cache: Option<&PackedCache>,
    memory: &ContextMemory,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Scheduler, ModelError> {
    check_sizes(&plan)?;
    let pool = Pool::new(threads).map_err(ModelError::Spawn)?;
    let sizes = plan
        .matrices()
        .map(|matrix| (matrix.rows * matrix.row_bytes()) as u64);
    let total_bytes = sizes.sum();
    let mut loader = Loader {
        gguf: &gguf,
        pool: &pool,
        arena: Arena::default(),
        stored: cache.map(|cache| Stored::open(cache, plan.matrices().count())),
        progress,
        done_bytes: 0,
        reported_bytes: 0,
        total_bytes,
    };
    let layers: Result<Vec<_>, _> = plan.layers.iter().map(|it| loader.layer(it)).collect();
    let layers = layers?;
    let head = loader.pack(&plan.head)?;
    if let Some(stored) = loader.stored.take() {
        let matrices = layers.iter().flat_map(PackedLayer::matrices);
        let matrices: Vec<_> = matrices.chain([&head]).collect();
        stored.keep(&matrices, &pool);
    }
    let weights = Weights {
        kernels: Kernels::of(simd, precision),
        layers,
        output_norm: flushed(&plan.output_norm),
        head,
        norm_epsilon: plan.norm_epsilon,
        score_scale: ScoreScale::of(plan.score_length),
        angles: Angles::of(&plan),
        gguf,
        plan,
        pool,
    };
    let plan = Arc::clone(&weights.plan);
    let device = ExactDevice::new(weights, memory)?;
    Ok(Scheduler::new(Box::new(device), plan))
}

impl Weights {
    fn crew(&self) -> phases::Crew<'_> {
        phases::Crew {
            pool: &self.pool,
            kernels: &self.kernels,
        }
    }
}
