//! An adapter, opened.
//! In: which GPU is wanted. Out: its device, what it can do, and buffers with typed errors.
//! What it cannot do is an error; it looks for no other in its place.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use wgpu::{
    Buffer, BufferDescriptor, BufferUsages, ComputePipeline, ComputePipelineDescriptor, Device,
    DeviceDescriptor, ErrorFilter, Features, Limits, MapMode, PipelineCompilationOptions,
    PipelineLayout, PollType, Queue, ShaderModuleDescriptor, ShaderSource,
};

use crate::backend::BackendError;

use super::adapter::{
    GpuError, GpuInfo, GpuKind, GpuLayout, GpuOptions, GpuSubgroups, adapters, choose, rank,
};
use super::kernels::Profile;
use super::pipelines::Pipelines;
use super::self_test;

/// What goes to the device at a time.
const UPLOAD_BYTES: usize = 64 << 20;
/// What the kernels need at the least: storage buffers, threads of a workgroup and bytes that they share.
const NEEDS: (u32, u32, u32) = (8, 256, 16 << 10);

/// A device that is ready to compute; shared by the models on it.
pub struct Gpu {
    info: GpuInfo,
    options: GpuOptions,
    limits: Limits,
    int64: bool,
    /// Whether sums and products of its own have the bits of rule 1.
    native_floats: bool,
    subgroups: bool,
    device: Device,
    queue: Queue,
    pipelines: Option<Pipelines>,
    /// The first thing that went wrong outside of a call that would have said so.
    fault: Arc<Mutex<Option<Fault>>>,
}

#[derive(Debug, Clone)]
enum Fault {
    Lost(String),
    Memory,
    Other(String),
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Gpu {
    /// What there is, the best first.
    pub fn list() -> Vec<GpuInfo> {
        let mut found: Vec<_> = adapters().iter().map(GpuInfo::of).collect();
        found.sort_by_key(|info| rank(info.kind));
        found
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// [`GpuError`]: there is none of that kind or name, or its driver refuses.
    pub fn open(options: &GpuOptions) -> Result<Arc<Self>, GpuError> {
        let adapter = choose(&options.choice)?;
        let info = GpuInfo::of(&adapter);
        let mut limits = adapter.limits();
        if let Some(most) = options.binding_bytes_max {
            limits.max_storage_buffer_binding_size =
                limits.max_storage_buffer_binding_size.min(most);
        }
        let has = (
            limits.max_storage_buffers_per_shader_stage,
            limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            limits.max_compute_workgroup_storage_size,
        );
        if has.0 < NEEDS.0 || has.1 < NEEDS.1 || has.2 < NEEDS.2 {
            return Err(GpuError::Refused {
                name: info.name,
                reason: format!(
                    "it has (storage buffers, threads, shared bytes) {has:?}, kernels need {NEEDS:?}"
                ),
            });
        }
        let int64 = info.int64 && !options.layout.without_int64;
        let mut features = Features::empty();
        features.set(Features::SHADER_INT64, int64);
        features.set(Features::TIMESTAMP_QUERY, info.timestamps);
        let subgroups = match options.layout.subgroups {
            GpuSubgroups::Auto => info.subgroups && info.kind != GpuKind::Software,
            GpuSubgroups::Never => false,
            GpuSubgroups::Always => info.subgroups,
        };
        features.set(Features::SUBGROUP, subgroups);
        let cache = options.cache.as_ref();
        let cache = cache.filter(|_| adapter.features().contains(Features::PIPELINE_CACHE));
        features.set(Features::PIPELINE_CACHE, cache.is_some());
        let descriptor = DeviceDescriptor {
            label: Some("tussah"),
            required_features: features,
            required_limits: limits.clone(),
            ..DeviceDescriptor::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| {
                GpuError::Refused {
                    name: info.name.clone(),
                    reason: error.to_string(),
                }
            })?;
        let fault = Arc::new(Mutex::new(None));
        note_faults(&device, &fault);
        let pipelines = cache.and_then(|it| Pipelines::open(it, &device, &adapter.get_info()));
        let of_metal = info.interface == "metal";
        let mut gpu = Self {
            info,
            options: options.clone(),
            limits,
            int64,
            // A Metal compiler may leave out looks for infinity; none has been seen to keep them yet.
            native_floats: !options.layout.without_floats && !of_metal,
            subgroups,
            device,
            queue,
            pipelines,
            fault,
        };
        // Integers have the same bits, and are slower.
        if gpu.native_floats && !matches!(gpu.self_test(), Ok(None)) {
            gpu.native_floats = false;
        }
        // So are those that meet in memory.
        if gpu.subgroups && !matches!(self_test::subgroups(&gpu), Ok(true)) {
            gpu.subgroups = false;
            if gpu.check().is_err() {
                // A driver that fails at them is asked again without them.
                let mut without = options.clone();
                without.layout.subgroups = GpuSubgroups::Never;
                return Self::open(&without);
            }
        }
        let name = || gpu.info.name.clone();
        let tested = match gpu.native_floats {
            true => Ok(None),
            false => gpu.self_test(),
        };
        match tested {
            Ok(None) => Ok(Arc::new(gpu)),
            Ok(Some(what)) => Err(GpuError::Inexact { name: name(), what }),
            Err(error) => Err(GpuError::Refused {
                name: name(),
                reason: error.to_string(),
            }),
        }
    }

    fn self_test(&self) -> Result<Option<String>, BackendError> {
        self_test::run(self, Profile::exact(self))
    }

    /// This device, or the adapter opened again if something went wrong on it.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`]: it cannot be opened, or another adapter answers in its place.
    pub(super) fn healthy(self: &Arc<Self>) -> Result<Arc<Self>, BackendError> {
        let Err(fault) = self.check() else {
            return Ok(Arc::clone(self));
        };
        let lost = |reason: &dyn fmt::Display| BackendError::DeviceLost {
            reason: format!("{fault}; opening it again: {reason}"),
        };
        let gpu = Self::open(&self.options).map_err(|error| lost(&error))?;
        if gpu.info != self.info {
            return Err(lost(&format_args!("{} answers now", gpu.info)));
        }
        Ok(gpu)
    }

    /// What it is.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Gives the device back to its driver. What runs on it ends with [`BackendError::DeviceLost`]; the next
    /// session on a model opens it again.
    pub fn close(&self) {
        self.device.destroy();
    }

    pub(super) fn layout(&self) -> GpuLayout {
        self.options.layout
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn native_floats(&self) -> bool {
        self.native_floats
    }

    /// Whether sums and maxima of a workgroup go by subgroups: where the layout wants them, the adapter has them,
    /// and the self-test found them right.
    pub fn subgroups(&self) -> bool {
        self.subgroups
    }

    pub(super) fn int64(&self) -> bool {
        self.int64
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The most bytes of one storage buffer, a multiple of 16.
    pub(super) fn binding_bytes_max(&self) -> u64 {
        let most = self.limits.max_storage_buffer_binding_size;
        most.min(self.limits.max_buffer_size) / 16 * 16
    }

    /// What went wrong since it was opened, if anything did.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault.clone() {
            None => Ok(()),
            Some(Fault::Lost(reason)) => Err(BackendError::DeviceLost { reason }),
            Some(Fault::Memory) => Err(BackendError::OutOfMemory {
                what: "a step on the GPU",
                bytes: 0,
            }),
            Some(Fault::Other(reason)) => Err(BackendError::Device { reason }),
        }
    }

    /// Runs what creates resources; running out of memory is its own error.
    pub(super) fn scoped<T>(
        &self,
        what: &'static str,
        bytes: u64,
        create: impl FnOnce() -> T,
    ) -> Result<T, BackendError> {
        self.check()?;
        let memory = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(ErrorFilter::Internal);
        let validation = self.device.push_error_scope(ErrorFilter::Validation);
        let created = create();
        let errors = [validation, internal].map(|scope| pollster::block_on(scope.pop()));
        let out_of_memory = pollster::block_on(memory.pop());
        if out_of_memory.is_some() {
            return Err(BackendError::OutOfMemory { what, bytes });
        }
        match errors.into_iter().flatten().next() {
            Some(error) => Err(BackendError::Device {
                reason: format!("{what}: {error}"),
            }),
            None => Ok(created),
        }
    }

    /// A storage buffer of zeros.
    pub(super) fn buffer(&self, what: &'static str, bytes: u64) -> Result<Buffer, BackendError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        self.buffer_for(what, bytes, usage)
    }

    /// A buffer of zeros for a use; at least 16 bytes, since a binding may not be empty.
    pub(super) fn buffer_for(
        &self,
        what: &'static str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<Buffer, BackendError> {
        let size = bytes.max(16).next_multiple_of(16);
        if usage.contains(BufferUsages::STORAGE) && size > self.binding_bytes_max() {
            return Err(BackendError::OutOfMemory { what, bytes });
        }
        self.scoped(what, bytes, || {
            self.device.create_buffer(&BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// A storage buffer with contents.
    pub(super) fn filled(&self, what: &'static str, words: &[u32]) -> Result<Buffer, BackendError> {
        let buffer = self.buffer(what, size_of_val(words) as u64)?;
        // In parts: each is copied to memory of the driver's first, and running out of that loses the device.
        let (mut at, mut parts) = (0, bytemuck::cast_slice::<_, u8>(words).chunks(UPLOAD_BYTES));
        while let Some(part) = parts.next() {
            self.queue.write_buffer(&buffer, at, part);
            at += part.len() as u64;
            if parts.len() > 0 {
                self.queue.submit([]);
                self.check()?;
            }
        }
        Ok(buffer)
    }

    /// Waits for all that was submitted, and reads the first bytes of a buffer of words.
    pub(super) fn read(&self, buffer: &Buffer, bytes: u64) -> Result<Vec<u32>, BackendError> {
        let mapped = buffer.slice(..bytes);
        mapped.map_async(MapMode::Read, |_| {});
        let lost = |error: &dyn fmt::Display| BackendError::DeviceLost {
            reason: error.to_string(),
        };
        // wgpu panics where a driver's failure is none of the two that its poll can name.
        let polled = AssertUnwindSafe(|| self.device.poll(PollType::wait_indefinitely()));
        let waited = catch_unwind(polled);
        self.check()?;
        waited
            .map_err(|_| lost(&"waiting for it failed"))?
            .map_err(|error| lost(&error))?;
        let view = mapped.get_mapped_range().map_err(|error| lost(&error))?;
        let words = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        buffer.unmap();
        Ok(words)
    }

    /// Keeps the kernels that were compiled so far for the next start, where there is a place for them.
    pub(super) fn keep_pipelines(&self) {
        if let Some(pipelines) = &self.pipelines {
            pipelines.keep();
        }
    }

    /// Compiles a kernel whose entry point is `main`.
    pub(super) fn pipeline(
        &self,
        label: &str,
        source: String,
        layout: Option<&PipelineLayout>,
    ) -> Result<ComputePipeline, BackendError> {
        self.scoped("a kernel", 0, || {
            let module = self.device.create_shader_module(ShaderModuleDescriptor {
                label: Some(label),
                source: ShaderSource::Wgsl(Cow::Owned(source)),
            });
            self.device
                .create_compute_pipeline(&ComputePipelineDescriptor {
                    label: Some(label),
                    layout,
                    module: &module,
                    entry_point: Some("main"),
                    compilation_options: PipelineCompilationOptions {
                        zero_initialize_workgroup_memory: false,
                        ..PipelineCompilationOptions::default()
                    },
                    cache: self.pipelines.as_ref().map(Pipelines::cache),
                })
        })
        .map_err(|error| match error {
            BackendError::Device { reason } => BackendError::Device {
                reason: format!("{label}: {reason}"),
            },
            other => other,
        })
    }
}

/// Keeps the first thing that goes wrong, to be told at the next step.
fn note_faults(device: &Device, fault: &Arc<Mutex<Option<Fault>>>) {
    let note = |fault: &Mutex<Option<Fault>>, what: Fault| {
        let mut first = fault.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost device refuses commands before it says that it is lost.
        if first.is_none() || matches!(what, Fault::Lost(_)) {
            *first = Some(what);
        }
    };
    let lost = Arc::clone(fault);
    device.set_device_lost_callback(move |_, reason| note(&lost, Fault::Lost(reason)));
    let other = Arc::clone(fault);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let what = match error {
            wgpu::Error::OutOfMemory { .. } => Fault::Memory,
            error => Fault::Other(error.to_string()),
        };
        note(&other, what);
    }));
}
