//! Keeps a process that runs strangers' code from the rest of this machine.
//!
//! In: the few folders and devices that the process needs. Out: what is enforced from then on, for
//! good. Everything else of the file system is out of reach, as are sockets of every kind, other
//! processes, and starting programs. What the kernel cannot enforce is said, never passed over.
//!
//! Three layers, each of which would have to fail: Landlock for files, TCP and signals, seccomp
//! for system calls that nothing here needs, and limits of resources. What this does not stop: a
//! defect of the kernel or of a GPU's driver, and taking time or memory.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::wire::Isolation;

/// What a confined process can still open. What does not exist is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files and folders to read, with all that is in them.
    pub read: Vec<PathBuf>,
    /// Folders to write in, with all that is in them.
    pub write: Vec<PathBuf>,
    /// Devices to open, and folders of devices.
    pub devices: Vec<PathBuf>,
}

impl Reach {
    /// What libraries of the system and drivers of GPUs read, and the devices that they open: no
    /// folder of users, services or configuration with secrets in it.
    pub fn of_system() -> Self {
        let read = [
            "/usr",
            "/lib",
            "/lib64",
            "/nix/store",
            "/etc/ld.so.cache",
            "/etc/localtime",
            "/etc/vulkan",
            "/etc/glvnd",
            "/etc/drirc",
            "/etc/nvidia",
            "/proc/self",
            "/proc/cpuinfo",
            "/proc/meminfo",
            "/proc/stat",
            "/proc/modules",
            "/proc/devices",
            "/proc/filesystems",
            "/proc/driver",
            "/proc/sys/vm",
            "/sys/devices",
            "/sys/class",
            "/sys/bus",
            "/sys/dev",
            "/sys/module",
            "/sys/fs/cgroup",
            "/dev/urandom",
            "/dev/random",
        ];
        let mut devices: Vec<PathBuf> = [
            "/dev/null",
            "/dev/zero",
            "/dev/dri",
            "/dev/kfd",
            "/dev/udmabuf",
        ]
        .map(PathBuf::from)
        .into();
        devices.extend(nvidia_devices());
        Self {
            read: read.map(PathBuf::from).into(),
            write: Vec::new(),
            devices,
        }
    }
}

/// NVIDIA's driver has its devices in `/dev` itself, one a GPU and some for all.
fn nvidia_devices() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().starts_with("/dev/nvidia"))
}

/// Why a process could not be confined. It is not to run anything then.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A limit of resources.
    #[error("cannot set the process's limit of {what}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path that has to be reachable, or the ruleset itself.
    #[error("cannot restrict which files this process opens: {message}")]
    Files {
        /// Why.
        message: String,
    },
    /// A build's own file system and processes.
    #[error("{message}")]
    Namespaces {
        /// Why.
        message: String,
    },
    /// The filter of system calls.
    #[error("cannot restrict which system calls this process makes: {message}")]
    Calls {
        /// Why.
        message: String,
    },
}

/// Confines the thread that calls it and all that it starts from then on, for good. To be called
/// before a process has a second thread.
///
/// # Errors
/// [`IsolationError`] if what the kernel offers was refused. That the kernel offers less is no
/// error here: the answer says so, and the caller decides.
pub fn confine(reach: &Reach) -> Result<Isolation, IsolationError> {
    #[cfg(target_os = "linux")]
    return linux::confine(reach);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = reach;
        Ok(Isolation::None {
            reason: "this operating system has no Landlock".to_owned(),
        })
    }
}

/// What [`confine`] would come to on this system, without confining this process.
///
/// # Errors
/// [`IsolationError`] if what the kernel offers was refused.
pub fn probe() -> Result<Isolation, IsolationError> {
    #[cfg(target_os = "linux")]
    return linux::probe();
    #[cfg(not(target_os = "linux"))]
    confine(&Reach::default())
}

/// What the tools of a build reach, and the code of the source that they run: build scripts and
/// macros. Programs of the system can be started; devices, other users' files and secrets cannot
/// be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildReach {
    /// Files and folders to read and to start programs from, besides those of the system.
    pub read: Vec<PathBuf>,
    /// Folders to write in and to start programs from.
    pub write: Vec<PathBuf>,
    /// What is not read even where it lies below folders of the system: this user's own files.
    pub hidden: Vec<PathBuf>,
    /// Whether sockets can be made.
    pub network: bool,
}

/// Leaves the namespaces of this user. This process keeps what it sees; what it starts gets its
/// standard streams and no other open file, and the first process that it starts is the first of a
/// tree of its own, to call [`enter_build`]. The tree ends with that first process. To be called
/// before a process has a second thread.
///
/// # Errors
/// [`IsolationError`] if the kernel does not let this user, and says which step.
pub fn separate_build(network: bool) -> Result<(), IsolationError> {
    #[cfg(target_os = "linux")]
    return linux::separate_build(network);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = network;
        let message = "this operating system has no namespaces".to_owned();
        Err(IsolationError::Namespaces { message })
    }
}

/// What this process starts gets its standard streams and no other open file.
///
/// # Errors
/// [`IsolationError`] if the kernel refuses.
pub fn keep_streams_only() -> Result<(), IsolationError> {
    #[cfg(target_os = "linux")]
    return linux::keep_streams_only();
    #[cfg(not(target_os = "linux"))]
    Ok(())
}

/// Makes the empty folder `root` the root of all that this process sees: what is in reach, to be
/// read alone or to be written, devices of no harm, and processes of its own. No privilege stays.
/// To be called by the first process after [`separate_build`].
///
/// # Errors
/// [`IsolationError`] if the kernel refuses, and says which step. Nothing is to run then.
pub fn enter_build(root: &Path, reach: &BuildReach) -> Result<(), IsolationError> {
    #[cfg(target_os = "linux")]
    return linux::enter_build(root, reach);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (root, reach);
        let message = "this operating system has no namespaces".to_owned();
        Err(IsolationError::Namespaces { message })
    }
}

/// Confines this process and all that it starts to what a build needs, for good. To be called
/// before a process has a second thread.
///
/// # Errors
/// As [`confine`].
pub fn confine_build(reach: &BuildReach) -> Result<Isolation, IsolationError> {
    #[cfg(target_os = "linux")]
    return linux::confine_build(reach);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = reach;
        Ok(Isolation::None {
            reason: "this operating system has no Landlock".to_owned(),
        })
    }
}

/// What children of this process leave behind becomes its own child from then on, for
/// [`end_adopted`].
///
/// # Errors
/// The system's.
pub fn adopt() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return namespaces::adopt();
    #[cfg(not(target_os = "linux"))]
    Ok(())
}

/// Ends all children of this process, and theirs.
///
/// # Errors
/// The system's, if it does not say which they are.
pub fn end_adopted() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return namespaces::end_adopted();
    #[cfg(not(target_os = "linux"))]
    Ok(())
}

/// Kills all processes of the group that this process leads.
///
/// # Errors
/// The system's, if there is no such group.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let leader = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let leader = leader.ok_or_else(|| io::Error::other("no process has this number"))?;
    rustix::process::kill_process_group(leader, rustix::process::Signal::KILL)?;
    Ok(())
}

/// Puts this process into a session of its own, without a terminal: whatever is signalled or typed
/// there is none of its business, and it cannot type there itself.
///
/// # Errors
/// The system's, if it leads a group of processes of another session.
pub fn leave_session() -> io::Result<()> {
    let has_own = || rustix::process::getsid(None).is_ok_and(|id| id == rustix::process::getpid());
    match rustix::process::setsid() {
        Ok(_) => Ok(()),
        Err(_) if has_own() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod namespaces;
