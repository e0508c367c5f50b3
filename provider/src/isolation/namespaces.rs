//! A build in namespaces of its own: it sees a file system with what it needs and nothing else, no
//! process of others, and no interface to a network. What it started ends with it.
//!
//! In: what is to be seen. Out: a process that sees nothing else, without any privilege that the
//! namespaces gave it. An ordinary user may make them where the kernel lets ordinary users.

use std::{
    ffi::CString,
    fs,
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    ptr,
};

use super::IsolationError;

/// What is mounted over the folder that becomes the root: names of places alone.
const ROOT_OPTIONS: &str = "size=1m,mode=0755";
/// Capabilities have numbers below this.
const CAPABILITIES_MAX: libc::c_ulong = 64;

/// The layout of [`CapabilityHead`] and what follows it: three sets, in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHead {
    version: u32,
    /// 0 is the caller.
    process: i32,
}

/// Leaves the namespaces of this user: this process keeps its files, and the first process that it
/// starts from then on is the first of a new tree of processes, with which that tree ends.
pub(super) fn separate(network: bool) -> Result<(), IsolationError> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if !network {
        flags |= libc::CLONE_NEWNET;
    }
    // SAFETY: takes a number; this process has one thread.
    #[expect(unsafe_code, reason = "a system call")]
    let made = unsafe { libc::unshare(flags) };
    checked("make", made)?;
    let write = |file: &str, text: String| {
        fs::write(file, text).map_err(|source| failed(format!("write {file}"), &source))
    };
    // A kernel without that file demands none of it.
    if Path::new("/proc/self/setgroups").exists() {
        write("/proc/self/setgroups", "deny".to_owned())?;
    }
    let (user, group) = (user.as_raw(), group.as_raw());
    // As its administrator inside, a program keeps its privileges until it gives them up.
    write("/proc/self/uid_map", format!("0 {user} 1"))?;
    write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// What is seen, each at its own path.
pub(super) struct View<'a> {
    pub(super) read: &'a [PathBuf],
    pub(super) write: &'a [PathBuf],
    pub(super) devices: &'a [&'a str],
}

/// Makes an empty folder the root of all that this process sees, lays the view out in it, and
/// gives up every privilege. To be called by the first process after [`separate`].
pub(super) fn enter(root: &Path, view: &View<'_>) -> Result<(), IsolationError> {
    let here = std::env::current_dir().map_err(|error| failed("find the folder".into(), &error))?;
    end_with_parent()?;
    mount(
        None,
        Path::new("/"),
        None,
        libc::MS_REC | libc::MS_PRIVATE,
        "",
    )?;
    let bare = libc::MS_NOSUID | libc::MS_NODEV;
    mount(
        Some("tmpfs".as_ref()),
        root,
        Some("tmpfs"),
        bare,
        ROOT_OPTIONS,
    )?;
    // The way to a place comes before the place.
    let mut places: Vec<(&Path, bool)> = (view.read.iter())
        .map(|path| (path.as_path(), false))
        .chain(view.write.iter().map(|path| (path.as_path(), true)))
        .collect();
    places.sort();
    let mut shown = Vec::new();
    for (path, writable) in places {
        if let Some(at) = bind(root, path)? {
            shown.push((at, writable));
        }
    }
    for (at, writable) in shown {
        let read_only = if writable { 0 } else { libc::MOUNT_ATTR_RDONLY };
        restrict(
            &at,
            read_only | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            true,
        )?;
    }
    for device in view.devices {
        bind(root, Path::new(device))?;
    }
    let processes = root.join("proc");
    make_folder(&processes)?;
    let flags = bare | libc::MS_NOEXEC | libc::MS_RDONLY;
    mount(
        Some("proc".as_ref()),
        &processes,
        Some("proc"),
        flags,
        "subset=pid",
    )?;
    become_root(root)?;
    restrict(Path::new("/"), libc::MOUNT_ATTR_RDONLY, false)?;
    std::env::set_current_dir(&here).map_err(|error| failed(shown_path(&here), &error))?;
    drop_privileges()
}

/// Ends this process with the one that started it.
fn end_with_parent() -> Result<(), IsolationError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| failed("end with the parent".into(), &error.into()))
}

/// Shows a path below the root at the same place, where there is such a path.
fn bind(root: &Path, path: &Path) -> Result<Option<PathBuf>, IsolationError> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let at = root.join(below);
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(shown_path(path), &error)),
    };
    if meta.is_dir() {
        make_folder(&at)?;
    } else {
        make_folder(at.parent().unwrap_or(root))?;
        if !at.exists() {
            fs::File::create(&at).map_err(|error| failed(shown_path(path), &error))?;
        }
    }
    mount(Some(path), &at, None, libc::MS_BIND | libc::MS_REC, "")?;
    Ok(Some(at))
}

fn make_folder(at: &Path) -> Result<(), IsolationError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(at);
    made.map_err(|error| failed(shown_path(at), &error))
}

/// Puts the new root in the old one's place and lets go of the old one.
fn become_root(root: &Path) -> Result<(), IsolationError> {
    std::env::set_current_dir(root).map_err(|error| failed(shown_path(root), &error))?;
    // SAFETY: both paths are strings that end with a zero.
    #[expect(unsafe_code, reason = "a system call")]
    let changed = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    checked("change the root of", changed)?;
    // SAFETY: as above. The old root lies over the new one.
    #[expect(unsafe_code, reason = "a system call")]
    let gone = unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) };
    checked("leave the old root of", gone)?;
    std::env::set_current_dir("/").map_err(|error| failed("/".into(), &error))
}

fn mount(
    source: Option<&Path>,
    at: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: &str,
) -> Result<(), IsolationError> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|error| failed(shown_path(at), &io::Error::other(error)))
    };
    let source = source
        .map(|path| text(path.as_os_str().as_bytes()))
        .transpose()?;
    let target = text(at.as_os_str().as_bytes())?;
    let kind = kind.map(|kind| text(kind.as_bytes())).transpose()?;
    let options = text(options.as_bytes())?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: all are null, or strings that end with a zero and live until the call is over.
    #[expect(unsafe_code, reason = "a system call")]
    let mounted = unsafe {
        libc::mount(
            pointer(&source),
            target.as_ptr(),
            pointer(&kind),
            flags,
            options.as_ptr().cast(),
        )
    };
    checked(&format!("mount {} in", at.display()), mounted)
}

/// Takes rights from a mount, and from those below it.
fn restrict(at: &Path, attributes: u64, below: bool) -> Result<(), IsolationError> {
    let path = CString::new(at.as_os_str().as_bytes())
        .map_err(|error| failed(shown_path(at), &io::Error::other(error)))?;
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with a zero, and the structure is as long as is said.
    #[expect(unsafe_code, reason = "a system call")]
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(&format!("make {} read-only in", at.display()), set)
}

/// Inside of its namespaces this process may do what an administrator may: no longer.
fn drop_privileges() -> Result<(), IsolationError> {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: takes numbers.
        #[expect(unsafe_code, reason = "a system call")]
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 {
            let error = io::Error::last_os_error();
            // The kernel knows no such number, nor any behind it.
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(failed("drop privileges of".into(), &error));
        }
    }
    let head = CapabilityHead {
        version: CAPABILITY_VERSION,
        process: 0,
    };
    let none = [[0_u32; 3]; 2];
    // SAFETY: both are as that version of the call has them.
    #[expect(unsafe_code, reason = "a system call")]
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const head, none.as_ptr()) };
    checked("drop privileges of", set)
}

/// Closes what this process was given besides its standard streams, in those that it starts.
pub(super) fn keep_streams_only() -> Result<(), IsolationError> {
    // SAFETY: takes numbers; nothing is closed before another program is started.
    #[expect(unsafe_code, reason = "a system call")]
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    checked("close open files of", closed)
}

fn checked(what: &str, answer: impl Into<libc::c_long>) -> Result<(), IsolationError> {
    match answer.into() {
        0 => Ok(()),
        _ => Err(failed(what.to_owned(), &io::Error::last_os_error())),
    }
}

fn shown_path(path: &Path) -> String {
    format!("show {} in", path.display())
}

fn failed(what: String, error: &io::Error) -> IsolationError {
    IsolationError::Namespaces {
        message: format!("cannot {what} namespaces: {error}"),
    }
}

/// What children of this process leave behind becomes its own child, instead of nobody's.
pub(super) fn adopt() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Ends all children of this process, and theirs.
pub(super) fn end_adopted() -> io::Result<()> {
    use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
    let children = format!("/proc/self/task/{}/children", getpid());
    loop {
        let text = fs::read_to_string(&children)?;
        let pids = text.split_ascii_whitespace();
        for pid in pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
