//! How fast a device's own memory is, as a yardstick for kernels that read weights.
//! In: an opened device. Out: bytes a second of a copy inside it, read and written counted both.
//! It measures a copy of whole vectors and nothing cleverer: no kernel of a model can be expected to do better.

use std::time::{Duration, Instant};

use wgpu::{BindGroupDescriptor, BindGroupEntry, Buffer, BufferUsages, CommandEncoderDescriptor};
use wgpu::{ComputePassDescriptor, ComputePipeline};

use crate::backend::BackendError;

use super::clock::{Clock, TIMES_BYTES};
use super::device::Gpu;

/// Bytes that are copied where the device takes them: more than any cache holds.
const BYTES: u64 = 256 << 20;
/// Bytes of one vector of four words, which one thread copies at a time.
const VECTOR_BYTES: u64 = 16;
const THREADS: u32 = 64;
/// Copies that are timed; the first of all is not.
const RUNS: usize = 5;

const COPY: &str = "
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<u32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let step = groups.x * 64u;
    for (var at = id.x; at < arrayLength(&target_); at += step) {
        target_[at] = source[at];
    }
}
";

impl Gpu {
    /// Measures the bandwidth of the device's memory: bytes read and written a second by a copy from one
    /// buffer to another of up to 256 MiB, the fastest of five. By the device's clock where it has one, else
    /// by the wall's, the way there and back included.
    ///
    /// # Errors
    /// [`BackendError`]: there is no memory for two buffers, or the device failed.
    pub fn measure_bandwidth(&self) -> Result<f64, BackendError> {
        let bytes = BYTES.min(self.binding_bytes_max()) / VECTOR_BYTES * VECTOR_BYTES;
        let copy = Copy::new(self, bytes)?;
        copy.run(self)?;
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            best = best.min(copy.run(self)?);
        }
        if best.is_zero() {
            return Err(BackendError::Device {
                reason: "its clock is too coarse to time a copy".to_owned(),
            });
        }
        Ok(2.0 * bytes as f64 / best.as_secs_f64())
    }
}

/// What a copy needs.
struct Copy {
    pipeline: ComputePipeline,
    bindings: wgpu::BindGroup,
    groups: u32,
    clock: Option<Clock>,
    readback: Buffer,
}

impl Copy {
    fn new(gpu: &Gpu, bytes: u64) -> Result<Self, BackendError> {
        let pipeline = gpu.pipeline("copy", COPY.to_owned(), None)?;
        let buffers = [
            gpu.buffer("what a copy reads", bytes)?,
            gpu.buffer("what a copy writes", bytes)?,
        ];
        let entries = [0, 1].map(|binding| BindGroupEntry {
            binding,
            resource: buffers[binding as usize].as_entire_binding(),
        });
        let bindings = gpu.scoped("bindings of a kernel", 0, || {
            gpu.device().create_bind_group(&BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            })
        })?;
        let vectors = bytes / VECTOR_BYTES / u64::from(THREADS);
        let most = gpu.limits().max_compute_workgroups_per_dimension;
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        Ok(Self {
            pipeline,
            bindings,
            groups: u32::try_from(vectors).map_or(most, |groups| groups.clamp(1, most)),
            clock: Clock::of(gpu)?,
            readback: gpu.buffer_for("times on their way back", TIMES_BYTES, usage)?,
        })
    }

    fn run(&self, gpu: &Gpu) -> Result<Duration, BackendError> {
        let descriptor = CommandEncoderDescriptor::default();
        let mut encoder = gpu.device().create_command_encoder(&descriptor);
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor {
                label: None,
                timestamp_writes: self.clock.as_ref().map(Clock::writes),
            });
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            pass.dispatch_workgroups(self.groups, 1, 1);
        }
        if let Some(clock) = &self.clock {
            clock.copy(&mut encoder, &self.readback, 0);
        }
        let start = Instant::now();
        gpu.queue().submit([encoder.finish()]);
        let words = gpu.read(&self.readback, TIMES_BYTES)?;
        let wall = start.elapsed();
        let by_device = self.clock.as_ref().and_then(|clock| clock.time(&words));
        Ok(by_device.unwrap_or(wall))
    }
}
