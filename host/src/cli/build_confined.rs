//! `tussah build-confined`: how a build's tools start; hidden, `tussah verify` runs it.
//!
//! In: what may be reached, and a command. Out: that command confined, its exit code, and nothing
//! left of what it started. Never: the command with less than was asked for.
//!
//! Two processes: the first leaves this user's namespaces and waits, the second is the first one
//! inside; it sees what the build may see and gives up what it could do besides.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitStatus},
};

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
    hide: Vec<PathBuf>,
    #[arg(long)]
    network: bool,
    /// An empty folder, to be the root of namespaces of their own.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Landlock has to enforce something.
    #[arg(long)]
    required: bool,
    /// The second of the two processes.
    #[arg(long)]
    inside: bool,
    /// Start nothing, say what is in force.
    #[arg(long)]
    probe: bool,
    #[arg(last = true, required_unless_present = "probe")]
    command: Vec<OsString>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let status = match self.inside {
            true => self.inside()?,
            false => self.outside()?,
        };
        Ok(Exit::of(status))
    }

    fn outside(&self) -> Result<ExitStatus, Failure> {
        match self.root {
            Some(_) => isolation::separate_build(self.network).map_err(Failure::host)?,
            None => {
                isolation::keep_streams_only().map_err(Failure::host)?;
                isolation::adopt().map_err(Failure::host)?;
            }
        }
        let this = std::env::current_exe().map_err(Failure::host)?;
        let mut arguments = std::env::args_os().skip(1);
        let mut command = Command::new(this);
        command
            .args(arguments.next())
            .arg("--inside")
            .args(arguments);
        let status = command.status().map_err(Failure::host)?;
        if self.root.is_none() {
            isolation::end_adopted().map_err(Failure::host)?;
        }
        Ok(status)
    }

    fn inside(self) -> Result<ExitStatus, Failure> {
        let reach = BuildReach {
            read: self.read,
            write: self.write,
            hidden: self.hide,
            network: self.network,
        };
        if let Some(root) = &self.root {
            isolation::enter_build(root, &reach).map_err(Failure::host)?;
        }
        let found = isolation::confine_build(&reach).map_err(Failure::host)?;
        if self.required && matches!(found, Isolation::None { .. }) {
            return Err(Failure::host(found.to_string()));
        }
        let Some((program, arguments)) = self.command.split_first() else {
            #[expect(
                clippy::print_stdout,
                reason = "the answer to who started this process"
            )]
            {
                println!("{found}");
            }
            return Ok(ExitStatus::default());
        };
        let mut command = Command::new(program);
        command.args(arguments);
        let error = match self.root {
            // The first process of a tree is one that does nothing else: signals pass it by.
            Some(_) => match command.status() {
                Ok(status) => return Ok(status),
                Err(error) => error,
            },
            None => command.exec(),
        };
        Err(Failure::host(error).context(format!("cannot start {}", program.display())))
    }
}
