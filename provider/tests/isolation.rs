//! A process that was confined tries what an escaped guest would try, and gets nowhere.
//!
//! Each test starts this test binary again as the child to be confined: what is confined stays so.
//! Where the kernel has no Landlock the tests say so and return; under `REQUIRE_ISOLATION=1` they
//! fail instead.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world fails"
)]
#![expect(
    clippy::print_stdout,
    reason = "what the child did is told by its output"
)]
#![expect(unsafe_code, reason = "an escape makes system calls of its own")]

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Pid, test_kill_process};
use tussah_provider::{
    isolation::{Reach, confine},
    wire::Isolation,
};

/// Where the child finds its folder and what it should try to reach; without it there is no child.
const CHILD: &str = "TUSSAH_TEST_CHILD";

/// A home folder as the daemon has it, with something in every corner.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("keys/provider.key", "a key"),
        ("wallets/main.json", "a wallet"),
        ("serve/ledger.sqlite", "the ledger"),
        ("blobs/ab/abcd", "a module"),
        ("cache/code/old", "code"),
        ("other/letter.txt", "a letter"),
    ] {
        let path = home.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    home
}

/// Memory that other processes could share by its name.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(number: u16) -> Self {
        let path = format!("/dev/shm/tussah-test-{number}").into();
        fs::write(&path, "an input").unwrap();
        Self(path)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The folders that a worker gets.
fn reach(home: &Path) -> Reach {
    let mut reach = Reach::of_system();
    reach.read.push(home.join("blobs"));
    reach.write.push(home.join("cache/code"));
    reach
}

/// Tries everything, and says of each whether it was refused.
fn attempts(home: &Path, tcp: u16) -> Vec<(&'static str, io::Result<()>)> {
    let read = |path: &Path| fs::File::open(path)?.read(&mut [0; 1]).map(drop);
    let in_home = |path: &str| read(&home.join(path));
    let parent = std::os::unix::process::parent_id();
    let of_parent = |file: &str| read(Path::new(&format!("/proc/{parent}/{file}")));
    let parent_pid = Pid::from_raw(i32::try_from(parent).unwrap()).unwrap();
    vec![
        ("read a key", in_home("keys/provider.key")),
        ("read a wallet", in_home("wallets/main.json")),
        ("read the ledger", in_home("serve/ledger.sqlite")),
        (
            "write the ledger",
            fs::OpenOptions::new()
                .append(true)
                .open(home.join("serve/ledger.sqlite"))
                .map(drop),
        ),
        ("list the home", fs::read_dir(home).map(drop)),
        ("read another file", in_home("other/letter.txt")),
        (
            "read the users of this machine",
            read(Path::new("/etc/passwd")),
        ),
        (
            "change a blob",
            fs::write(home.join("blobs/ab/abcd"), "evil"),
        ),
        ("add a blob", fs::write(home.join("blobs/ab/new"), "evil")),
        ("write elsewhere", fs::write(home.join("other/new"), "evil")),
        (
            "take a key by a link",
            fs::hard_link(home.join("keys/provider.key"), home.join("cache/code/key")),
        ),
        (
            "follow a link to a key",
            std::os::unix::fs::symlink(
                home.join("keys/provider.key"),
                home.join("cache/code/link"),
            )
            .and_then(|()| read(&home.join("cache/code/link"))),
        ),
        (
            "reach the parent's files through it",
            of_parent(&format!("root{}", home.join("keys/provider.key").display())),
        ),
        ("read the parent's memory", of_parent("mem")),
        ("read the parent's environment", of_parent("environ")),
        (
            "signal the parent",
            test_kill_process(parent_pid).map_err(io::Error::from),
        ),
        (
            "list the parent's open files",
            fs::read_dir(format!("/proc/{parent}/fd")).map(drop),
        ),
        (
            "read memory that others share",
            read(Path::new(&format!("/dev/shm/tussah-test-{tcp}"))),
        ),
        (
            "connect to a socket without a file",
            SocketAddr::from_abstract_name(format!("tussah-test-{tcp}"))
                .and_then(|address| UnixStream::connect_addr(&address))
                .map(drop),
        ),
        (
            "connect by TCP",
            TcpStream::connect(("127.0.0.1", tcp)).map(drop),
        ),
        ("listen by TCP", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("send by UDP", UdpSocket::bind("127.0.0.1:0").map(drop)),
        (
            "connect to a service of this machine",
            UnixStream::connect(home.join("other/service")).map(drop),
        ),
        (
            "start a program",
            Command::new("/bin/true").status().map(drop),
        ),
    ]
}

/// A system call as an escape would make it, and the error with which it has to fail.
type Call = (&'static str, i64, [i64; 5], i32);

/// Calls that the filter refuses by their number or their arguments. Those of their arguments that
/// are looked at are what would do harm; the others are such that the kernel would refuse the call
/// in another way, or do nothing.
fn calls(parent: i64) -> Vec<Call> {
    const NONE: [i64; 5] = [0; 5];
    const BAD: [i64; 5] = [-1, -1, -1, -1, -1];
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    let first = |value: i64| [value, 0, 0, 0, 0];
    let second = |value: i64| [0, value, 0, 0, 0];
    let thread = i64::from(libc::CLONE_THREAD);
    let fork = i64::from(libc::SIGCHLD);
    let mut calls = vec![
        ("unshare", libc::SYS_unshare, NONE, eperm),
        ("setns", libc::SYS_setns, BAD, eperm),
        ("clone3", libc::SYS_clone3, NONE, enosys),
        ("fork by clone", libc::SYS_clone, first(fork), eperm),
        ("mount", libc::SYS_mount, NONE, eperm),
        ("move_mount", libc::SYS_move_mount, BAD, eperm),
        ("open_tree", libc::SYS_open_tree, BAD, eperm),
        ("fsopen", libc::SYS_fsopen, NONE, eperm),
        ("fsconfig", libc::SYS_fsconfig, BAD, eperm),
        ("fsmount", libc::SYS_fsmount, BAD, eperm),
        ("fspick", libc::SYS_fspick, BAD, eperm),
        ("chroot", libc::SYS_chroot, NONE, eperm),
        ("io_uring_setup", libc::SYS_io_uring_setup, NONE, eperm),
        ("userfaultfd", libc::SYS_userfaultfd, BAD, eperm),
        ("bpf", libc::SYS_bpf, BAD, eperm),
        ("perf_event_open", libc::SYS_perf_event_open, NONE, eperm),
        ("keyctl", libc::SYS_keyctl, BAD, eperm),
        ("add_key", libc::SYS_add_key, NONE, eperm),
        ("kexec_file_load", libc::SYS_kexec_file_load, BAD, eperm),
        ("ptrace", libc::SYS_ptrace, [-1, parent, 0, 0, 0], eperm),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            first(parent),
            eperm,
        ),
        (
            "process_vm_writev",
            libc::SYS_process_vm_writev,
            first(parent),
            eperm,
        ),
        ("pidfd_open", libc::SYS_pidfd_open, first(parent), eperm),
        ("kill", libc::SYS_kill, first(parent), eperm),
        ("kill all", libc::SYS_kill, first(-1), eperm),
        ("tgkill", libc::SYS_tgkill, [parent, parent, 0, 0, 0], eperm),
        (
            "limits of the parent",
            libc::SYS_prlimit64,
            first(parent),
            eperm,
        ),
        (
            "priority of the parent",
            libc::SYS_setpriority,
            second(parent),
            eperm,
        ),
        (
            "processors of the parent",
            libc::SYS_sched_setaffinity,
            first(parent),
            eperm,
        ),
        (
            "memory shared by a key",
            libc::SYS_shmget,
            [0x7475, 4096, 0, 0, 0],
            eperm,
        ),
        ("a message queue", libc::SYS_mq_open, NONE, eperm),
        (
            "a pair for datagrams",
            libc::SYS_socketpair,
            [
                i64::from(libc::AF_UNIX),
                i64::from(libc::SOCK_DGRAM),
                0,
                0,
                0,
            ],
            eperm,
        ),
        (
            "a pair for packets",
            libc::SYS_socketpair,
            [
                i64::from(libc::AF_UNIX),
                i64::from(libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC),
                0,
                0,
                0,
            ],
            eperm,
        ),
        ("connect", libc::SYS_connect, BAD, eperm),
        (
            "type into the terminal",
            libc::SYS_ioctl,
            [2, 0x5412, 0, 0, 0],
            eperm,
        ),
    ];
    for (name, flag) in [
        ("clone: user namespace", libc::CLONE_NEWUSER),
        ("clone: mount namespace", libc::CLONE_NEWNS),
        ("clone: network namespace", libc::CLONE_NEWNET),
        ("clone: process namespace", libc::CLONE_NEWPID),
    ] {
        // With CLONE_THREAD alone the kernel refuses it in another way, and no process is made.
        let flags = first(thread | i64::from(flag));
        calls.push((name, libc::SYS_clone, flags, eperm));
    }
    if cfg!(target_arch = "x86_64") {
        // The x32 numbers of ptrace and of getpid.
        for (name, number) in [("x32 ptrace", 521), ("x32 getpid", 39)] {
            calls.push((name, 0x4000_0000 | number, NONE, enosys));
        }
    }
    calls
}

fn make(call: &Call) -> io::Error {
    let (name, number, [a, b, c, d, e], _) = *call;
    // SAFETY: no argument is an address that the kernel could use; a call that is not refused as
    // it has to be fails the test all the same.
    let made = unsafe { libc::syscall(number, a, b, c, d, e) };
    let error = io::Error::last_os_error();
    assert_eq!(made, -1, "{name} was done");
    error
}

/// The child: confines itself, then tries.
fn child(home: &Path, tcp: u16) {
    let isolation = confine(&reach(home)).unwrap();
    println!("isolation {isolation:?}");
    for (what, result) in attempts(home, tcp) {
        match result {
            Ok(()) => println!("reached: {what}"),
            Err(error) => println!("refused: {what}: {:?}", error.kind()),
        }
    }
    let module = fs::read_to_string(home.join("blobs/ab/abcd")).unwrap();
    println!("module {module}");
    // A cache writes beside, and renames.
    fs::write(home.join("cache/code/part"), "new code").unwrap();
    fs::rename(home.join("cache/code/part"), home.join("cache/code/new")).unwrap();
    println!(
        "code {}",
        fs::read_to_string(home.join("cache/code/new")).unwrap()
    );
    for call in calls(std::os::unix::process::parent_id().into()) {
        let error = make(&call);
        match error.raw_os_error() == Some(call.3) {
            true => println!("call refused: {}", call.0),
            false => println!("call reached: {}: {error}", call.0),
        }
    }
    // A pair of streams is what an executor wakes itself with.
    UnixStream::pair().unwrap();
    // What threads and memory need goes on.
    let sum = std::thread::spawn(|| vec![1_u64; 1 << 20].iter().sum::<u64>());
    println!("sum {}", sum.join().unwrap());
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    for line in status.lines() {
        if line.starts_with("NoNewPrivs") || line.starts_with("Seccomp:") {
            println!("{line}");
        }
    }
}

#[test]
fn a_confined_process_reaches_what_it_needs_and_nothing_else() {
    if let Ok(child_of) = std::env::var(CHILD) {
        let (tcp, home) = child_of.split_once(' ').unwrap();
        return child(Path::new(home), tcp.parse().unwrap());
    }
    let home = home();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let _service = UnixListener::bind(home.path().join("other/service")).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let shared = Shared::new(port);
    let name = SocketAddr::from_abstract_name(format!("tussah-test-{port}")).unwrap();
    let _nameless = UnixListener::bind_addr(&name).unwrap();
    // Before anything is confined all of it works, so that a refusal means something.
    let refused: Vec<_> = attempts(home.path(), port)
        .into_iter()
        .filter(|(_, result)| result.is_err())
        .map(|(what, _)| what)
        .collect();
    assert!(
        refused.iter().all(|what| what.contains("parent")),
        "these show nothing here: {refused:?}"
    );
    drop(home);

    let home = self::home();
    let _service = UnixListener::bind(home.path().join("other/service")).unwrap();
    let this = "a_confined_process_reaches_what_it_needs_and_nothing_else";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([this, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{port} {}", home.path().display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    if !said.contains("isolation Full") {
        let message = format!("skipped: this kernel does not enforce everything\n{said}");
        assert!(std::env::var_os("REQUIRE_ISOLATION").is_none(), "{message}");
        io::stderr().write_all(message.as_bytes()).unwrap();
        return;
    }
    let all = calls(1).len();
    assert_eq!(said.matches("call refused:").count(), all, "{said}");
    drop(shared);
    let reached: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("reached:"))
        .collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert_eq!(said.matches("\nrefused:").count(), 24, "{said}");
    for expected in [
        "module a module",
        "code new code",
        "sum 1048576",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
}

#[test]
fn what_does_not_exist_is_no_error_and_what_is_enforced_is_said() {
    let isolation = std::thread::spawn(|| {
        confine(&Reach {
            read: vec!["/no/such/folder".into()],
            ..Reach::default()
        })
    });
    match isolation.join().unwrap().unwrap() {
        Isolation::Full { abi } => assert!(abi >= 6, "{abi}"),
        Isolation::Partial { missing: said } | Isolation::None { reason: said } => {
            assert!(said.contains("Landlock"), "{said}");
        }
    }
}
