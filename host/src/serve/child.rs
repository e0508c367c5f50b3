//! The daemon's children: this program again, with a socket for standard input.
//!
//! In: a hidden command with its options. Out: a process in a group of its own, so that Ctrl-C in
//! a terminal reaches the gateway alone, and the other end of its socket. A child ends when that
//! end closes, and is killed if it does not.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::failure::Failure;

/// What a child keeps of the environment: where its files are, what a driver or a debugger was
/// told. Everything else could be a secret.
const ENVIRONMENT: &[&str] = &[
    "TUSSAH_HOME",
    "XDG_DATA_HOME",
    "HOME",
    "TUSSAH_ONNXRUNTIME",
    "LD_LIBRARY_PATH",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_LAYER_PATH",
    "LP_NUM_THREADS",
    "MESA_VK_DEVICE_SELECT",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "RUST_BACKTRACE",
    "NO_COLOR",
    "TERM",
];
/// How long a child may take to end once its socket is closed.
const ENDING_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a child that should go on is looked at.
const LOOKING_INTERVAL: Duration = Duration::from_millis(500);
/// How often one that should end is.
const ENDING_INTERVAL: Duration = Duration::from_millis(20);

/// A child and our end of its socket, which does not block.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) socket: UnixStream,
}

/// A running child. Killed when dropped.
pub(super) struct Process(Child);

/// Starts this program again with these arguments.
///
/// # Errors
/// A host failure if the system does not let us.
pub(super) fn start(arguments: &[OsString]) -> Result<Started, Failure> {
    let start = || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = this_program()?;
        command.args(arguments).env_clear().process_group(0);
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        Ok(Started {
            process: Process(command.spawn()?),
            socket: ours,
        })
    };
    start().map_err(|error: std::io::Error| {
        Failure::host(error).context("cannot start another process of this program")
    })
}

/// This program, even where its file has been replaced since it was started.
fn this_program() -> std::io::Result<Command> {
    let file = std::env::current_exe()?;
    let running = std::path::Path::new("/proc/self/exe");
    if running.exists() {
        let mut command = Command::new(running);
        command.arg0(file);
        return Ok(command);
    }
    Ok(Command::new(file))
}

impl Process {
    /// Waits until a child that should go on has ended.
    pub(super) async fn gone(&mut self) {
        while matches!(self.0.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOKING_INTERVAL).await;
        }
    }

    /// Waits for the end of a child whose socket is closed, and kills it if that takes long.
    pub(super) async fn ended(mut self) -> Option<ExitStatus> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < ENDING_TIME_MAX {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            tokio::time::sleep(ENDING_INTERVAL).await;
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, as a rule; the wait is for what was just killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The socket that this process was started with; it does not block.
///
/// # Errors
/// A usage failure if there is none: somebody typed a command that only the daemon uses.
pub(crate) fn child_socket() -> Result<UnixStream, Failure> {
    let refuse = |error: std::io::Error| {
        Failure::usage(error)
            .context("standard input is no socket")
            .help("this command is started by `tussah serve`")
    };
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = UnixStream::from(socket.map_err(refuse)?);
    socket.peer_addr().map_err(refuse)?;
    socket.set_nonblocking(true).map_err(refuse)?;
    Ok(socket)
}
