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

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
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
    let reached: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("reached:"))
        .collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert_eq!(said.matches("refused:").count(), 21, "{said}");
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
