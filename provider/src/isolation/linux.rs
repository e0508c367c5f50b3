//! The same on Linux: limits, then Landlock, then seccomp, which forbids undoing any of it.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{BuildReach, IsolationError, Reach, calls, namespaces};
use crate::wire::Isolation;

/// The version of Landlock that has all we ask for: files, truncation, TCP, devices, signals.
const ABI_WANTED: ABI = ABI::V6;

/// The largest file that can be written: four times what a guest's memory can be, so that images
/// of it in memory, which count as files, always fit.
const FILE_BYTES_MAX: u64 = 16 << 30;
/// Threads of this user: some for each run, with room for those of the daemon's other processes.
const THREADS_MAX: u64 = 16 * 1024;

pub(super) fn confine(reach: &Reach) -> Result<Isolation, IsolationError> {
    limits()?;
    let status = files(reach).map_err(|error| IsolationError::Files {
        message: error.to_string(),
    })?;
    calls::restrict()?;
    Ok(describe(&status))
}

/// What compilers, linkers and build scripts read of the system. Nothing of `/proc`: where a
/// program of itself is, it can be asked without opening anything.
const BUILD_SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
];
/// What a program that asks the network for names and certificates reads besides.
const NETWORK_SYSTEM: &[&str] = &[
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
];
const BUILD_RANDOM: &[&str] = &["/dev/urandom", "/dev/random"];
const BUILD_DEVICES: &[&str] = &["/dev/null", "/dev/zero"];
/// Folders deep at which something of the user's is looked for below those of the system.
const HIDDEN_DEPTH_MAX: usize = 16;

pub(super) fn separate_build(network: bool) -> Result<(), IsolationError> {
    namespaces::keep_streams_only()?;
    namespaces::separate(network)
}

pub(super) fn keep_streams_only() -> Result<(), IsolationError> {
    namespaces::keep_streams_only()
}

pub(super) fn enter_build(root: &Path, reach: &BuildReach) -> Result<(), IsolationError> {
    let read = build_reads(reach);
    let devices: Vec<&str> = BUILD_RANDOM.iter().chain(BUILD_DEVICES).copied().collect();
    namespaces::enter(
        root,
        &namespaces::View {
            read: &read,
            write: &reach.write,
            devices: &devices,
        },
    )
}

pub(super) fn confine_build(reach: &BuildReach) -> Result<Isolation, IsolationError> {
    limits()?;
    let status = build_files(reach).map_err(|error| IsolationError::Files {
        message: error.to_string(),
    })?;
    calls::restrict_build(reach.network)?;
    Ok(describe(&status))
}

/// All that a build reads: of the system what is not hidden, and what it was given.
fn build_reads(reach: &BuildReach) -> Vec<PathBuf> {
    let network = match reach.network {
        true => NETWORK_SYSTEM,
        false => &[],
    };
    let mut found = Vec::new();
    for path in BUILD_SYSTEM.iter().chain(network) {
        without(Path::new(path), &reach.hidden, 0, &mut found);
    }
    found.extend(reach.read.iter().cloned());
    found
}

/// Adds a path, or what is in it besides what is hidden.
fn without(path: &Path, hidden: &[PathBuf], depth: usize, into: &mut Vec<PathBuf>) {
    let Ok(real) = path.canonicalize() else {
        return;
    };
    if hidden.iter().any(|hidden| real.starts_with(hidden)) {
        return;
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(&real)) {
        into.push(path.to_owned());
        return;
    }
    if depth < HIDDEN_DEPTH_MAX {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            without(&entry.path(), hidden, depth + 1, into);
        }
    }
}

fn build_files(reach: &BuildReach) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let write = AccessFs::from_all(ABI_WANTED)
        & !(AccessFs::IoctlDev | AccessFs::MakeBlock)
        & !(AccessFs::MakeChar | AccessFs::MakeSock);
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(ABI_WANTED))?;
    if !reach.network {
        rules = rules.handle_access(AccessNet::from_all(ABI_WANTED))?;
    }
    rules
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?
        .add_rules(path_beneath_rules(build_reads(reach), read))?
        .add_rules(path_beneath_rules(BUILD_RANDOM, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .add_rules(path_beneath_rules(BUILD_DEVICES, device))?
        .restrict_self()
}

/// On a thread that ends after it: nothing else is confined.
pub(super) fn probe() -> Result<Isolation, IsolationError> {
    let failed = |message: String| IsolationError::Files { message };
    let confined = std::thread::spawn(|| {
        let status = files(&Reach::default()).map_err(|error| error.to_string())?;
        Ok(describe(&status))
    });
    match confined.join() {
        Ok(isolation) => isolation.map_err(failed),
        Err(_) => Err(failed("the thread that tried it failed".to_owned())),
    }
}

fn limits() -> Result<(), IsolationError> {
    for (what, resource, most) in [
        // A dump would hold inputs and outputs.
        ("core dumps", Resource::Core, 0),
        ("a file's size", Resource::Fsize, FILE_BYTES_MAX),
        ("threads", Resource::Nproc, THREADS_MAX),
    ] {
        // Never more than this process was given.
        let given = rustix::process::getrlimit(resource).maximum;
        let most = Some(given.map_or(most, |given| given.min(most)));
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        setrlimit(resource, limit).map_err(|error| IsolationError::Limit {
            what,
            source: error.into(),
        })?;
    }
    Ok(())
}

/// Landlock: nothing but what is in `reach`, no TCP, no signal to other processes. Sets
/// `no_new_privs` too.
fn files(reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI_WANTED))?
        .handle_access(AccessNet::from_all(ABI_WANTED))?
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .add_rules(path_beneath_rules(&reach.devices, device))?
        .restrict_self()
}

fn describe(status: &RestrictionStatus) -> Isolation {
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Isolation::None {
            reason: "this kernel has no Landlock, or it is turned off (needs Linux 6.12, and \
                     `landlock` among its `lsm=`)"
                .to_owned(),
        };
    };
    let (abi, wanted) = (effective_abi as u32, ABI_WANTED as u32);
    match status.ruleset {
        RulesetStatus::FullyEnforced => Isolation::Full { abi },
        RulesetStatus::PartiallyEnforced => Isolation::Partial {
            missing: format!(
                "this kernel has version {abi} of Landlock, and all of it needs {wanted}"
            ),
        },
        RulesetStatus::NotEnforced => Isolation::None {
            reason: "Landlock enforces nothing here".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_left_out_of_what_is_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for made in ["bin", "local/bin", "local/cargo/registry", "share"] {
            std::fs::create_dir_all(root.join(made)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("local/cargo"), root.join("link")).unwrap();
        let left = |hidden: &[&str]| {
            let hidden: Vec<PathBuf> = hidden.iter().map(|below| root.join(below)).collect();
            let mut found = Vec::new();
            without(&root, &hidden, 0, &mut found);
            found.sort();
            found
        };
        let at = |below: &str| root.join(below);
        assert_eq!(left(&["/nowhere"]), [at("")]);
        assert_eq!(
            left(&["local/cargo"]),
            [at("bin"), at("local/bin"), at("share")]
        );
        assert!(left(&[""]).is_empty());
    }
}
