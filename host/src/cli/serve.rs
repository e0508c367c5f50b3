//! `tussah serve`, and the hidden commands of its other two processes.

use clap::Args;

use crate::{
    device::DeviceArgument,
    exit_code::Exit,
    failure::Failure,
    onnx::OnnxArguments,
    ui::Ui,
    worker::{self, Settings},
};

/// Runs jobs for a gateway, over the socket that is its standard input.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    work: WorkOptions,
}

/// How jobs are run here.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkOptions {
    /// Where inference runs: auto (a GPU, else the CPU), cpu, gpu, or a part of an adapter's name.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArgument,
    /// CPU threads of inference; 0 is one a CPU. No result depends on it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    threads: u32,
    #[command(flatten)]
    onnx: OnnxArguments,
    /// Do not start where the kernel cannot keep the worker from this machine's files and network.
    #[arg(long)]
    require_isolation: bool,
}

impl WorkerArguments {
    pub(crate) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        worker::serve(self.work.settings(), ui)
    }
}

impl WorkOptions {
    fn settings(&self) -> Settings {
        Settings {
            device: self.device.clone(),
            threads: self.threads,
            onnx: self.onnx.clone(),
            require_isolation: self.require_isolation,
        }
    }
}
