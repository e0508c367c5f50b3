//! The daemon's children: this program again, with a socket for standard input.
//!
//! In: a hidden command with its options. Out: a process in a session of its own, so that Ctrl-C in
//! a terminal reaches the gateway alone and the terminal is none of the child's, and the other end
//! of its socket. What it says on standard error is told line by line. A child ends when its
//! socket closes, and is killed if it does not.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tussah_provider::isolation;

use super::retold;
use crate::{failure::Failure, ui::Ui};

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
/// How long the last words of a child that has ended are waited for.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);
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
pub(super) struct Process {
    child: Child,
    words: JoinHandle<()>,
}

/// Starts this program again with these arguments; `name` stands before what it says. To be called
/// within a runtime.
///
/// # Errors
/// A host failure if the system does not let us.
pub(super) fn start(
    name: &'static str,
    arguments: &[OsString],
    ui: Ui,
) -> Result<Started, Failure> {
    let start = || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = this_program()?;
        command.args(arguments).env_clear();
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().map(OwnedFd::from);
        let stderr = stderr.ok_or_else(|| std::io::Error::other("it has no standard error"))?;
        let words = retold::retell(name, stderr, ui)?;
        Ok(Started {
            process: Process { child, words },
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
        while matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOKING_INTERVAL).await;
        }
        self.last_words().await;
    }

    /// Waits for the end of a child whose socket is closed, and kills it if that takes long.
    pub(super) async fn ended(mut self) -> Option<ExitStatus> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < ENDING_TIME_MAX {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.last_words().await;
                return Some(status);
            }
            tokio::time::sleep(ENDING_INTERVAL).await;
        }
        None
    }

    /// Until what it said before its end was told.
    async fn last_words(&mut self) {
        // Whatever holds its pipe open is not waited for.
        let _ = tokio::time::timeout(LAST_WORDS_TIME_MAX, &mut self.words).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, as a rule; the wait is for what was just killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes this process out of the terminal's session, and gives the socket that it was started with;
/// it does not block.
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
    isolation::leave_session().map_err(|error| {
        Failure::host(error).context("cannot leave the session of the terminal")
    })?;
    outlive_hangups().map_err(|error| Failure::host(error).context("cannot take over signals"))?;
    Ok(socket)
}

/// A SIGHUP to all processes of the service is for the gateway, and ends nothing here.
fn outlive_hangups() -> std::io::Result<()> {
    // The handler stays when its executor goes.
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = executor.enter();
    signal(SignalKind::hangup()).map(drop)
}
