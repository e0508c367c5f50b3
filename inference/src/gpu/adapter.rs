//! Which adapters there are, and which is wanted.
//! In: what drivers report, a choice. Out: one adapter, or why there is none. It opens none of them, and takes
//! one that is a CPU only where its name was asked for.

use std::fmt;

use wgpu::{Adapter, DeviceType, Features, Instance, InstanceDescriptor};

use super::pipelines::GpuCache;

/// What kind of adapter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuKind {
    /// A card of its own.
    Discrete,
    /// Part of the processor, with the processor's memory.
    Integrated,
    /// A share of a GPU in a virtual machine.
    Virtual,
    /// A program that computes on the CPU, such as llvmpipe.
    Software,
    /// The driver does not say.
    Unknown,
}

impl GpuKind {
    /// As `doctor` and receipts name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Software => "software",
            Self::Unknown => "unknown",
        }
    }
}

/// What a driver says of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// As the driver names it, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// What kind it is.
    pub kind: GpuKind,
    /// The interface it is reached by: `vulkan`, `metal` or `dx12`.
    pub interface: String,
    /// The driver and its version.
    pub driver: String,
    /// Bytes that one binding may have; larger tensors are cut.
    pub binding_bytes_max: u64,
    /// Bytes of its own memory, where the interface says so; what it shares with the processor counts.
    pub memory_bytes: Option<u64>,
    /// Whether it has integers of 64 bits.
    pub int64: bool,
    /// Whether threads of a workgroup can exchange values without its memory.
    pub subgroups: bool,
    /// Whether it counts time.
    pub timestamps: bool,
}

impl GpuInfo {
    pub(super) fn of(adapter: &Adapter) -> Self {
        let info = adapter.get_info();
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => GpuKind::Discrete,
            DeviceType::IntegratedGpu => GpuKind::Integrated,
            DeviceType::VirtualGpu => GpuKind::Virtual,
            DeviceType::Cpu => GpuKind::Software,
            DeviceType::Other => GpuKind::Unknown,
        };
        let driver = format!("{} {}", info.driver, info.driver_info);
        Self {
            name: info.name,
            kind,
            interface: info.backend.to_str().to_owned(),
            driver: driver.trim().to_owned(),
            binding_bytes_max: adapter.limits().max_storage_buffer_binding_size,
            memory_bytes: memory_bytes(adapter),
            int64: adapter.features().contains(Features::SHADER_INT64),
            subgroups: adapter.features().contains(Features::SUBGROUP),
            timestamps: adapter.features().contains(Features::TIMESTAMP_QUERY),
        }
    }
}

/// The largest of the device's own heaps: Vulkan alone says how large they are.
#[cfg(not(target_vendor = "apple"))]
fn memory_bytes(adapter: &Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    #[expect(unsafe_code, reason = "wgpu has no other way to this number")]
    // SAFETY: the device is asked for numbers alone while `adapter` keeps it and its instance.
    // Nothing is made or destroyed, and no handle outlives this call.
    let properties = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let device = adapter.raw_physical_device();
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(device)
    };
    let heaps = properties.memory_heaps_as_slice().iter();
    let own = heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0);
    own.map(|heap| heap.size).max().filter(|bytes| *bytes > 0)
}

#[cfg(target_vendor = "apple")]
fn memory_bytes(_: &Adapter) -> Option<u64> {
    None
}

impl fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            interface,
            driver,
            ..
        } = self;
        write!(f, "{name}, {interface}, {driver}")
    }
}

/// Which adapter is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GpuChoice {
    /// The fastest kind that is no software.
    #[default]
    Best,
    /// The first whose name has this text in it, in any case of letters; software is taken too.
    Named(String),
}

/// How kernels are laid out; the bits do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuLayout {
    /// Threads that share a row of a matrix, a power of two up to 64; 0 picks by the row's length.
    pub lanes: u32,
    /// Sums of 64 bits out of 32-bit integers even where the device has longer ones.
    pub without_int64: bool,
    /// Sums and products of floats out of integers even where the device's own are exact.
    pub without_floats: bool,
    /// Whether sums and maxima of a workgroup go by subgroups.
    pub subgroups: GpuSubgroups,
    /// The most workgroups of a product that norms by itself; 0 takes as many as large devices run at once.
    pub groups: u32,
    /// Which products of several tokens go by tiles.
    pub tiles: GpuTiles,
}

/// Whether sums and maxima of a workgroup go by subgroups, or through its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuSubgroups {
    /// By subgroups where the adapter has them and is no software, whose compilers take minutes for them.
    #[default]
    Auto,
    /// Through its memory.
    Never,
    /// By subgroups where the adapter has them.
    Always,
}

/// Which products of several tokens share what they read in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuTiles {
    /// Those that gain by it: prompts, and batches on large matrices.
    #[default]
    Auto,
    /// None.
    Never,
    /// All of more than four tokens.
    Always,
}

/// How to open an adapter.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Which one.
    pub choice: GpuChoice,
    /// A smaller limit than the adapter's on a binding, in bytes; tests cut tensors with it.
    pub binding_bytes_max: Option<u64>,
    /// The kernels' layout.
    pub layout: GpuLayout,
    /// Where compiled kernels are kept from one start to the next, if they are.
    pub cache: Option<GpuCache>,
}

/// Why there is no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No adapter at all.
    #[error("no GPU was found: is a Vulkan, Metal or DX12 driver installed?")]
    None,
    /// Only software, and it was not asked for by name.
    #[error(
        "only software adapters were found ({found}); they compute on the CPU: name one to use it"
    )]
    OnlySoftware {
        /// Their names.
        found: String,
    },
    /// No adapter has that name.
    #[error("no GPU has `{wanted}` in its name; there are: {found}")]
    NoneNamed {
        /// What was asked for.
        wanted: String,
        /// The names of those that there are.
        found: String,
    },
    /// Its results are not those that the exact profile wants; nothing that it computes could be audited.
    #[error(
        "{name} does not keep the exact arithmetic: {what}; a newer driver may, `--device cpu` does"
    )]
    Inexact {
        /// The adapter.
        name: String,
        /// The operation, its operands and results.
        what: String,
    },
    /// The driver refused.
    #[error("could not open {name}: {reason}")]
    Refused {
        /// The adapter.
        name: String,
        /// What the driver said.
        reason: String,
    },
}

/// Every adapter that drivers report, software ones too.
pub(crate) fn adapters() -> Vec<Adapter> {
    let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
}

pub(super) fn rank(kind: GpuKind) -> u8 {
    match kind {
        GpuKind::Discrete => 0,
        GpuKind::Virtual => 1,
        GpuKind::Integrated => 2,
        GpuKind::Unknown => 3,
        GpuKind::Software => 4,
    }
}

pub(super) fn choose(choice: &GpuChoice) -> Result<Adapter, GpuError> {
    let mut found: Vec<(GpuInfo, Adapter)> = adapters()
        .into_iter()
        .map(|adapter| (GpuInfo::of(&adapter), adapter))
        .collect();
    if found.is_empty() {
        return Err(GpuError::None);
    }
    found.sort_by_key(|(info, _)| rank(info.kind));
    let names = found.iter().map(|(info, _)| info.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    let fits = |info: &GpuInfo| match choice {
        GpuChoice::Best => info.kind != GpuKind::Software,
        GpuChoice::Named(wanted) => info.name.to_lowercase().contains(&wanted.to_lowercase()),
    };
    let index = found.iter().position(|(info, _)| fits(info));
    index
        .map(|index| found.swap_remove(index).1)
        .ok_or_else(|| match choice {
            GpuChoice::Best => GpuError::OnlySoftware { found: names },
            GpuChoice::Named(wanted) => GpuError::NoneNamed {
                wanted: wanted.clone(),
                found: names,
            },
        })
}
