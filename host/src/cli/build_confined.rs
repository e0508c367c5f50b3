//! `tussah build-confined`: how a build's tools start; hidden, `tussah verify` runs it.
//!
//! In: what may be reached, and a command. Out: that command in this process's place, confined.
//! Never: the command with less than was required.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use clap::Args;
use tussah_provider::{
    isolation::{self, BuildReach},
    wire::Isolation,
};

use crate::{exit_code::Exit, failure::Failure};

/// Confine this process, then become another program.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    read: Vec<PathBuf>,
    #[arg(long)]
    write: Vec<PathBuf>,
    #[arg(long)]
    network: bool,
    #[arg(long)]
    required: bool,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let reach = BuildReach {
            read: self.read,
            write: self.write,
            network: self.network,
        };
        let isolation = isolation::confine_build(&reach).map_err(Failure::host)?;
        if self.required && matches!(isolation, Isolation::None { .. }) {
            return Err(Failure::host(isolation.to_string()));
        }
        let (program, arguments) =
            (self.command.split_first()).ok_or_else(|| Failure::usage("there is no command"))?;
        let error = Command::new(program).args(arguments).exec();
        Err(Failure::host(error).context(format!("cannot start {}", program.display())))
    }
}
