//! Which system calls a confined process can make: all but those that nothing in it needs and an
//! escape would.
//!
//! A list of what is allowed would break with each release of a GPU's driver, whose calls nobody
//! documents; so this is a list of what is refused, over what Landlock refuses by itself. Refused
//! calls fail with `EPERM`, those that a C library tries before another one with `ENOSYS`. A call
//! of another architecture kills the process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::IsolationError;

/// Refused whatever its arguments.
const FORBIDDEN: &[i64] = &[
    // Talk to anyone. A connected pair is made by another call, and ours is open already.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Talk, read and write past filters like this one.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Share memory or messages with other processes of this user.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Become another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Look into other processes, or do something to them.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_tkill,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Files without their names, and news of others' files.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Who may do what with a file by its name: Landlock leaves that to its owner, whom we run as.
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
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
    libc::SYS_fsconfig,
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
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_lookup_dcookie,
    libc::SYS_personality,
    // The machine's clock and names.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

/// The same, where this processor has them.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: &[i64] = &[];

/// Flags of `clone` that make a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Types of pairs of sockets whose messages could be sent to others than the pair.
const PAIRS: [i32; 3] = [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
/// The same for a build, whose programs start others over pairs of packets in order, which reach
/// nobody else.
const BUILD_PAIRS: [i32; 2] = [libc::SOCK_DGRAM, libc::SOCK_RAW];
/// What is typed into a terminal as if by its user.
const TYPING: [u64; 2] = [0x5412, 0x541c]; // TIOCSTI, TIOCLINUX

/// What a build needs of the above: it starts programs, which wait for and end each other, and
/// lays out files.
const BUILD_NEEDS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchownat,
];
#[cfg(target_arch = "x86_64")]
const BUILD_NEEDS_HERE: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fork,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const BUILD_NEEDS_HERE: &[i64] = &[];
/// What a build does not do: leave the group of processes that is ended with it.
const BUILD_FORBIDDEN: &[i64] = &[libc::SYS_setsid, libc::SYS_setpgid];
/// What a program that fetches needs besides.
const NETWORK_NEEDS: &[i64] = &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind];

/// Refuses all of it for this thread and those that it starts, for good.
pub(super) fn restrict() -> Result<(), IsolationError> {
    let forbidden = FORBIDDEN.iter().chain(FORBIDDEN_HERE).copied();
    apply(forbidden, by_argument())
}

/// The same for the tools of a build.
pub(super) fn restrict_build(network: bool) -> Result<(), IsolationError> {
    let needed = |call: &i64| {
        BUILD_NEEDS.contains(call)
            || BUILD_NEEDS_HERE.contains(call)
            || network && NETWORK_NEEDS.contains(call)
    };
    let forbidden = FORBIDDEN.iter().chain(FORBIDDEN_HERE).copied();
    let namespaces = NAMESPACES.map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        (0, SeccompCmpOp::MaskedEq(flag), flag)
    });
    let typing = TYPING.map(|call| (1, SeccompCmpOp::Eq, call));
    let mut by_argument = vec![
        (libc::SYS_clone, namespaces.into()),
        (libc::SYS_ioctl, typing.into()),
    ];
    if !network {
        by_argument.push((libc::SYS_socketpair, pairs(&BUILD_PAIRS)));
    }
    let forbidden = forbidden.chain(BUILD_FORBIDDEN.iter().copied());
    apply(forbidden.filter(|call| !needed(call)), by_argument)
}

fn apply(
    forbidden: impl Iterator<Item = i64>,
    by_argument: Vec<(i64, Vec<Condition>)>,
) -> Result<(), IsolationError> {
    let failed = |message: String| IsolationError::Calls { message };
    let text = |error: seccompiler::BackendError| failed(error.to_string());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in forbidden {
        rules.insert(call, Vec::new());
    }
    for (call, conditions) in by_argument {
        let any = conditions.into_iter();
        let any = any.map(|(argument, operator, value)| {
            // No argument that is looked at is wider: the kernel does not look at the rest.
            let length = SeccompCmpArgLen::Dword;
            SeccompRule::new(vec![SeccompCondition::new(
                argument, length, operator, value,
            )?])
        });
        rules.insert(call, any.collect::<Result<_, _>>().map_err(text)?);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| failed("no filter is known for this processor".to_owned()))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(text)?;
    let program: BpfProgram = filter.try_into().map_err(text)?;
    for program in [not_there(), program] {
        seccompiler::apply_filter(&program).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

type Condition = (u8, SeccompCmpOp, u64);

fn pairs(kinds: &[i32]) -> Vec<Condition> {
    let kinds = kinds.iter().map(|kind| u64::from(kind.unsigned_abs()));
    let conditions = kinds.map(|kind| (1, SeccompCmpOp::MaskedEq(0xf), kind));
    conditions.collect()
}

/// Calls that are refused if any of these conditions on an argument holds.
fn by_argument() -> Vec<(i64, Vec<Condition>)> {
    let bits = |flag: i32| u64::from(flag.unsigned_abs());
    let this = u64::from(std::process::id());
    let other_than = |argument, value| vec![(argument, SeccompCmpOp::Ne, value)];
    let thread = bits(libc::CLONE_THREAD);
    // Threads alone: a process would outlive this one.
    let mut clone = vec![(0, SeccompCmpOp::MaskedEq(thread), 0)];
    clone.extend(NAMESPACES.map(|flag| {
        let flag = bits(flag);
        (0, SeccompCmpOp::MaskedEq(flag), flag)
    }));
    vec![
        (libc::SYS_clone, clone),
        (libc::SYS_socketpair, pairs(&PAIRS)),
        (
            libc::SYS_ioctl,
            TYPING.map(|call| (1, SeccompCmpOp::Eq, call)).into(),
        ),
        // Signals to itself, such as an abort.
        (libc::SYS_kill, other_than(0, this)),
        (libc::SYS_tgkill, other_than(0, this)),
        (libc::SYS_rt_sigqueueinfo, other_than(0, this)),
        (libc::SYS_rt_tgsigqueueinfo, other_than(0, this)),
        // 0 is the caller: limits and times of other processes are not its business.
        (libc::SYS_prlimit64, other_than(0, 0)),
        (libc::SYS_setpriority, other_than(1, 0)),
        (libc::SYS_ioprio_set, other_than(1, 0)),
        (libc::SYS_sched_setaffinity, other_than(0, 0)),
        (libc::SYS_sched_setattr, other_than(0, 0)),
        (libc::SYS_sched_setparam, other_than(0, 0)),
        (libc::SYS_sched_setscheduler, other_than(0, 0)),
    ]
}

/// Numbers that are answered as if there were no such call: `clone3`, whose flags lie in memory
/// where no filter can read them, so that a C library takes `clone`; and on x86-64 all of the x32
/// interface, under which every call has a second number.
fn not_there() -> BpfProgram {
    let statement = |code: u32, k: u32| sock_filter {
        // Codes are below 2^16.
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt: 0,
        jf: 0,
        k,
    };
    // Jumps to the last instruction, so many ahead, if it is so.
    let test = |code: u32, k: u32, ahead: u8| sock_filter {
        jt: ahead,
        ..statement(libc::BPF_JMP | code | libc::BPF_K, k)
    };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    // Of no number of another architecture.
    let x32 = match cfg!(target_arch = "x86_64") {
        true => 0x4000_0000,
        false => u32::MAX,
    };
    let none = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        // The number is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        test(libc::BPF_JGE, x32, 2),
        test(libc::BPF_JEQ, clone3, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, none),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_listed_twice() {
        let by_argument = by_argument().into_iter().map(|(call, _)| call);
        let all = FORBIDDEN.iter().chain(FORBIDDEN_HERE).copied();
        let all: Vec<i64> = all.chain(by_argument).collect();
        let calls: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(calls.len(), all.len());
    }
}
