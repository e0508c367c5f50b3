//! Where inference runs: on the CPU, or on a GPU that is opened once a process.
//!
//! In: `--device`, and what a job's manifest asks for. Out: where its models go, or why it cannot
//! run here. It never puts on a CPU what asked for a GPU, and takes an adapter that computes on the
//! CPU only by its name.

use std::{
    convert::Infallible,
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use tussah_inference::{
    Device, Gpu, GpuCache, GpuChoice, GpuError, GpuInfo, GpuOptions, PackedCache,
};
use tussah_manifest::{DeviceRequest, Digest};

use crate::{
    engine::WeightsCache,
    failure::Failure,
    home::Home,
    keys::{self, KeyName},
    ui::Ui,
};

/// For people who need a driver.
const DRIVERS: &str =
    "`tussah doctor` lists the adapters; docs/gpu.md says which drivers they need";

/// `--device`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceArgument {
    /// A GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The best GPU; an error where there is none.
    Gpu,
    /// The adapter with this in its name, software or not.
    Named(String),
}

impl FromStr for DeviceArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            name => Self::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for DeviceArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Named(name) => name,
        })
    }
}

/// Where the models of a job go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    gpu: Option<Arc<Gpu>>,
    /// Somebody asked for the GPU: what cannot run there does not run.
    gpu_only: bool,
    /// Where what the CPU computes with is kept.
    weights: Option<WeightsCache>,
}

impl Placement {
    /// The device for what can run on any.
    pub(crate) fn device(&self) -> Device {
        match &self.gpu {
            Some(gpu) => Device::Gpu(Arc::clone(gpu)),
            None => Device::Cpu,
        }
    }

    /// Whether what only a CPU can run has to be refused.
    pub(crate) fn gpu_only(&self) -> bool {
        self.gpu_only
    }

    /// Where a model's packed weights are kept, if they are.
    pub(crate) fn packed(&self, model: &Digest) -> Option<PackedCache> {
        self.weights.as_ref()?.of_model(model)
    }
}

/// What a job needs of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// What its manifest asks for.
    pub(crate) request: DeviceRequest,
    /// Whether it has models at all.
    pub(crate) models: bool,
}

impl Need {
    /// Of a re-run: the exact profile's results are the same everywhere, so a job that asked for a
    /// GPU can be audited without one.
    pub(crate) fn anywhere(models: bool) -> Self {
        Self {
            request: DeviceRequest::Any,
            models,
        }
    }
}

/// Where compiled kernels and packed weights are kept.
#[derive(Debug)]
pub(crate) enum Caches {
    /// In this home's cache, under the key that it keeps.
    Home(Home),
    /// In these folders, under the key of the weights: a process without keys was given it.
    Given {
        kernels: PathBuf,
        weights: WeightsCache,
    },
}

/// The devices of this process.
#[derive(Debug)]
pub(crate) struct Devices {
    wanted: DeviceArgument,
    caches: Caches,
    opened: OnceLock<Option<Arc<Gpu>>>,
}

impl Devices {
    /// Nothing is opened yet.
    pub(crate) fn new(wanted: DeviceArgument, caches: Caches) -> Self {
        Self {
            wanted,
            caches,
            opened: OnceLock::new(),
        }
    }

    /// Where the models of a job go; says which device that is where nobody named one.
    ///
    /// # Errors
    /// A failure if what was asked for is not here, or manifest and option contradict each other.
    pub(crate) fn place(&self, need: Need, ui: &Ui) -> Result<Placement, Failure> {
        let placement = self.choose(need, ui)?;
        let weights = need.models.then(|| match &self.caches {
            Caches::Given { weights, .. } => Some(weights.clone()),
            Caches::Home(home) => WeightsCache::of_home(home, ui),
        });
        Ok(Placement {
            weights: weights.flatten(),
            ..placement
        })
    }

    fn choose(&self, need: Need, ui: &Ui) -> Result<Placement, Failure> {
        use DeviceArgument::{Auto, Cpu, Gpu, Named};
        match (&self.wanted, need.request) {
            (Cpu, DeviceRequest::Gpu) => Err(contradiction("gpu", "cpu")
                .help("leave --device out, or name a GPU; without one the job cannot run here")),
            (Gpu | Named(_), DeviceRequest::Cpu) => {
                Err(contradiction("cpu", &self.wanted.to_string()).help("leave --device out"))
            }
            (Cpu, _) | (Auto, DeviceRequest::Cpu) => Ok(Placement::default()),
            (Auto, DeviceRequest::Gpu) => self.only(&GpuChoice::Best, ui).map_err(|failure| {
                failure
                    .context("the job's manifest says `device = \"gpu\"`, and it cannot run here")
            }),
            (Auto, DeviceRequest::Any) if need.models => self.auto(ui),
            (Auto, DeviceRequest::Any) => Ok(Placement::default()),
            (Gpu, _) => self.only(&GpuChoice::Best, ui),
            (Named(name), _) => self.only(&GpuChoice::Named(name.clone()), ui),
        }
    }

    fn auto(&self, ui: &Ui) -> Result<Placement, Failure> {
        let first = self.opened.get().is_none();
        let gpu = match self.open(&GpuChoice::Best, ui) {
            Ok(gpu) => Some(gpu),
            Err(GpuError::None | GpuError::OnlySoftware { .. }) => None,
            Err(error) => {
                return Err(failure(error).help(format!("use `--device cpu`, or: {DRIVERS}")));
            }
        };
        if first {
            ui.note(&match &gpu {
                Some(gpu) => format!("device: {}", gpu.info()),
                None => "device: cpu, since no GPU was found".to_owned(),
            });
        }
        Ok(Placement {
            gpu,
            ..Placement::default()
        })
    }

    fn only(&self, choice: &GpuChoice, ui: &Ui) -> Result<Placement, Failure> {
        Ok(Placement {
            gpu: Some(self.open(choice, ui).map_err(failure)?),
            gpu_only: true,
            ..Placement::default()
        })
    }

    /// A process has one `--device`, so the choice is the same each time.
    fn open(&self, choice: &GpuChoice, ui: &Ui) -> Result<Arc<Gpu>, GpuError> {
        if let Some(gpu) = self.opened.get() {
            return gpu.clone().ok_or(GpuError::None);
        }
        let options = GpuOptions {
            choice: choice.clone(),
            cache: cache(&self.caches, ui),
            ..GpuOptions::default()
        };
        let opened = Gpu::open(&options);
        match &opened {
            Ok(gpu) => drop(self.opened.set(Some(Arc::clone(gpu)))),
            Err(GpuError::None | GpuError::OnlySoftware { .. }) => drop(self.opened.set(None)),
            Err(_) => {}
        }
        opened
    }
}

/// The cache of kernels. What is wrong with it costs each start their compilation, and is said.
fn cache(caches: &Caches, ui: &Ui) -> Option<GpuCache> {
    let ui = *ui;
    let (folder, key) = match caches {
        Caches::Given { kernels, weights } => (kernels.clone(), weights.key.clone()),
        Caches::Home(home) => {
            let key = keys::load_or_create(home, KeyName::Cache).map_err(|error| error.to_string());
            let folder = home.folder("cache/gpu").map_err(|error| error.to_string());
            match key.and_then(|key| Ok((folder?, key))) {
                Ok(found) => found,
                Err(error) => {
                    ui.warn(&format!("compiled GPU kernels are not kept: {error}"));
                    return None;
                }
            }
        }
    };
    Some(GpuCache {
        folder,
        key: *key,
        warn: Arc::new(move |text| ui.warn(text)),
    })
}

fn failure(error: GpuError) -> Failure {
    let help = match &error {
        GpuError::None | GpuError::Refused { .. } => DRIVERS.to_owned(),
        GpuError::Inexact { .. } => "install a newer driver, or use `--device cpu`".to_owned(),
        GpuError::OnlySoftware { .. } => {
            format!("name it, such as `--device llvmpipe`, to try things out; {DRIVERS}")
        }
        GpuError::NoneNamed { .. } => {
            "`--device` takes auto, cpu, gpu, or a part of a name that `tussah doctor` lists"
                .to_owned()
        }
    };
    Failure::host(error).help(help)
}

fn contradiction(manifest: &str, option: &str) -> Failure {
    Failure::usage(format!(
        "the job's manifest says `device = \"{manifest}\"`, and --device says `{option}`"
    ))
}

/// Keeps Mesa's layer that sorts devices for windows from writing to standard error where there is no
/// session, as on servers. Nothing is lost: adapters are chosen by kind and name here. Whoever sets that
/// layer's own variable has the word. To be called before any thread is started.
pub(crate) fn quiet_drivers() {
    const LAYER_OFF: &str = "NODEVICE_SELECT";
    if cfg!(target_os = "linux") && std::env::var_os("MESA_VK_DEVICE_SELECT").is_none() {
        #[expect(
            unsafe_code,
            reason = "drivers read the environment of this process alone"
        )]
        // SAFETY: no other thread runs yet that could read the environment meanwhile.
        unsafe {
            std::env::set_var(LAYER_OFF, "1");
        }
    }
}

/// An adapter in a line, for people.
pub(crate) fn describe(info: &GpuInfo) -> String {
    let GpuInfo {
        name,
        kind,
        interface,
        driver,
        binding_bytes_max,
        ..
    } = info;
    format!(
        "{name} ({}, {interface}, {driver}, bindings of {})",
        kind.name(),
        crate::ui::size(*binding_bytes_max)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(wanted: &str, request: DeviceRequest, models: bool) -> Result<Placement, Failure> {
        let Ok(wanted) = wanted.parse();
        let ui = Ui::new(true);
        let nowhere = Caches::Given {
            kernels: PathBuf::new(),
            weights: WeightsCache {
                folder: PathBuf::new(),
                key: [0; 32].into(),
                bytes_max: 0,
                ui,
            },
        };
        Devices::new(wanted, nowhere).place(Need { request, models }, &ui)
    }

    #[test]
    fn words_are_devices_and_all_else_is_a_name() {
        for word in ["auto", "cpu", "gpu", "llvmpipe", "GPU", "RTX 4090"] {
            let Ok(device) = word.parse::<DeviceArgument>();
            let named = matches!(&device, DeviceArgument::Named(name) if name == word);
            assert_eq!(named, !["auto", "cpu", "gpu"].contains(&word));
            assert_eq!(device.to_string(), word);
        }
    }

    #[test]
    fn manifest_and_option_must_agree() {
        for (request, wanted) in [
            (DeviceRequest::Gpu, "cpu"),
            (DeviceRequest::Cpu, "gpu"),
            (DeviceRequest::Cpu, "llvmpipe"),
        ] {
            let failure = place(wanted, request, true).unwrap_err();
            assert_eq!(failure.exit, crate::exit_code::Exit::USAGE, "{wanted}");
        }
    }

    #[test]
    fn what_needs_no_gpu_opens_none() {
        for (wanted, request, models) in [
            ("cpu", DeviceRequest::Any, true),
            ("cpu", DeviceRequest::Cpu, true),
            ("auto", DeviceRequest::Cpu, true),
            ("auto", DeviceRequest::Any, false),
        ] {
            let placement = place(wanted, request, models).unwrap();
            assert_eq!(placement.device(), Device::Cpu, "{wanted}");
            assert!(!placement.gpu_only());
        }
    }

    #[test]
    fn a_name_that_no_adapter_has_is_an_error() {
        let failure = place("no such adapter", DeviceRequest::Any, true).unwrap_err();
        assert_eq!(failure.exit, crate::exit_code::Exit::HOST_FAILED);
        assert!(failure.help.is_some());
    }
}
