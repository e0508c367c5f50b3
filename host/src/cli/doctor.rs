//! `tussah doctor`: what this machine has, and what is missing.

mod checks;

use clap::Args;
use serde::Serialize;
use tussah_inference::GpuInfo;

use crate::{
    chain_option::ApiKeyOption, exit_code::Exit, failure::Failure, onnx::OnnxArguments, ui::Ui,
};

const EXAMPLES: &str = "\
Examples:
  tussah doctor
  tussah doctor --chain testnet        Looks whether the chain answers, too
  tussah doctor --json | jq '.checks[] | select(.state != \"ok\")'
  tussah doctor --json | jq '.checks[] | select(.name == \"gpu\").adapters'

Exit code 0 if nothing failed (warnings are fine), 5 otherwise.";

/// Check this machine: toolchain, folders, keys, models, CPU, GPU, isolation, chain.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Ask this chain too: `mainnet`, `testnet`, the URL of a toncenter API v2, or
    /// `embedded:FOLDER`. Without it nothing goes over the network.
    #[arg(long, value_name = "CHAIN", env = "TUSSAH_CHAIN")]
    chain: Option<String>,
    #[command(flatten)]
    api_key: ApiKeyOption,
    #[command(flatten)]
    onnx: OnnxArguments,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Some things will not work, or slowly.
    Warn,
    /// Jobs cannot be run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// The adapters, of the check that is about them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adapters: Vec<AdapterView>,
}

/// An adapter that inference can run on.
#[derive(Debug, Serialize)]
struct AdapterView {
    name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `unknown`.
    kind: &'static str,
    /// `vulkan`, `metal` or `dx12`.
    interface: String,
    driver: String,
    /// Larger tensors are cut.
    binding_bytes_max: u64,
    /// Whether it has integers of 64 bits; without them sums take more steps.
    int64: bool,
    /// Whether threads can exchange values without memory; without it sums of a workgroup take more steps.
    subgroups: bool,
    /// Whether it measures time on the GPU.
    timestamps: bool,
}

impl From<&GpuInfo> for AdapterView {
    fn from(info: &GpuInfo) -> Self {
        Self {
            name: info.name.clone(),
            kind: info.kind.name(),
            interface: info.interface.clone(),
            driver: info.driver.clone(),
            binding_bytes_max: info.binding_bytes_max,
            int64: info.int64,
            subgroups: info.subgroups,
            timestamps: info.timestamps,
        }
    }
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            help: None,
            adapters: vec![],
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warn,
            found: found.into(),
            help: Some(help.into()),
            adapters: vec![],
        }
    }

    /// Says what could be done, though nothing is amiss.
    fn note(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn adapters(mut self, adapters: Vec<AdapterView>) -> Self {
        self.adapters = adapters;
        self
    }

    fn fail(name: &'static str, failure: &Failure) -> Self {
        let (found, help) = (failure.chain().join(": "), failure.help.clone());
        Self {
            name,
            state: State::Fail,
            found,
            help,
            adapters: vec![],
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    version: &'static str,
    ok: bool,
    checks: &'a [Check],
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let mut checks = checks::all(&self.onnx);
        checks.push(checks::chain(self.chain, self.api_key));
        let ok = checks.iter().all(|check| check.state != State::Fail);
        if ui.json() {
            ui.document(&View {
                version: env!("CARGO_PKG_VERSION"),
                ok,
                checks: &checks,
            })?;
        } else {
            for check in &checks {
                let mark = match check.state {
                    State::Ok => "ok  ",
                    State::Warn => "warn",
                    State::Fail => "FAIL",
                };
                ui.line(&format!("{mark}  {:<10}  {}", check.name, check.found))?;
                if let Some(help) = &check.help {
                    ui.line(&format!("                  -> {help}"))?;
                }
            }
        }
        Ok(if ok { Exit::DONE } else { Exit::HOST_FAILED })
    }
}
