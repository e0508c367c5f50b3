//! The same on Linux: limits, then Landlock, then seccomp, which forbids undoing any of it.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::{IsolationError, Reach};
use crate::wire::Isolation;

/// The version of Landlock that has all we ask for: files, truncation, TCP, devices, signals.
const ABI_WANTED: ABI = ABI::V6;

/// The largest file that can be written: four times what a guest's memory can be, so that images
/// of it in memory, which count as files, always fit.
const FILE_BYTES_MAX: u64 = 16 << 30;
/// Threads of this user: some for each run, with room for those of the daemon's other processes.
const THREADS_MAX: u64 = 16 * 1024;

/// System calls that neither wasm nor inference nor a driver needs, and an escape would.
const FORBIDDEN: &[i64] = &[
    // Talk to anyone. A connected pair is made by another call, and ours is open already.
    libc::SYS_socket,
    // Talk, read and write past filters like this one.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Become another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Look into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Files without their names.
    libc::SYS_open_by_handle_at,
    // Another view of the machine.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // The kernel itself, and secrets that it keeps.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
];

pub(super) fn confine(reach: &Reach) -> Result<Isolation, IsolationError> {
    limits()?;
    let status = files(reach).map_err(|error| IsolationError::Files {
        message: error.to_string(),
    })?;
    calls()?;
    Ok(describe(&status))
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

fn calls() -> Result<(), IsolationError> {
    let failed = |message: String| IsolationError::Calls { message };
    let rules: BTreeMap<i64, _> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| failed("no filter is known for this processor".to_owned()))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .map_err(|error| failed(error.to_string()))?;
    let program: BpfProgram = filter
        .try_into()
        .map_err(|error: seccompiler::BackendError| failed(error.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(error.to_string()))
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
    fn no_call_is_listed_twice() {
        let calls: std::collections::BTreeSet<_> = FORBIDDEN.iter().collect();
        assert_eq!(calls.len(), FORBIDDEN.len());
    }
}
