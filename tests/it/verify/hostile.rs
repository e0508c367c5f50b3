//! `verify` of sources that try something: what their build scripts reach, what they leave behind,
//! and what they can have left out of the report.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::Tiny;
use crate::fixture::{Ended, tussah};

/// What a build script needs to try things that std has no words for.
const TRICKS: &str = r##"
use std::{ffi::CString, fs, io::Read as _, os::fd::FromRawFd as _};
unsafe extern "C" {
    fn chmod(path: *const std::ffi::c_char, mode: u32) -> i32;
    fn chown(path: *const std::ffi::c_char, user: u32, group: u32) -> i32;
    fn truncate(path: *const std::ffi::c_char, length: i64) -> i32;
    fn utimes(path: *const std::ffi::c_char, times: *const u8) -> i32;
    fn socketpair(domain: i32, kind: i32, protocol: i32, into: *mut i32) -> i32;
    fn setsid() -> i32;
    fn unshare(flags: i32) -> i32;
}
fn path(text: &str) -> CString { CString::new(text).unwrap() }
/// Any file of a process that is not ours, or of the one that started us.
fn processes() -> bool {
    fs::read_dir("/proc").is_ok_and(|all| all.flatten().any(|one| {
        one.path().join("environ").exists() && fs::read(one.path().join("environ")).is_ok()
    }))
}
fn given(number: i32) -> bool {
    let mut text = String::new();
    let mut file = std::mem::ManuallyDrop::new(unsafe { fs::File::from_raw_fd(number) });
    file.read_to_string(&mut text).is_ok() && text.contains("a key")
}
fn report(reached: &[(&str, bool)]) {
    let reached: Vec<_> = reached.iter().filter(|(_, reached)| *reached).collect();
    assert!(reached.is_empty(), "reached {reached:?}");
}
"##;

impl Tiny {
    fn script(&self, main: &str) {
        let script = format!("{TRICKS}\nfn main() {{ {main} }}\n");
        fs::write(self.at("tiny/dep/build.rs"), script).unwrap();
    }
}

#[test]
fn a_strangers_build_changes_and_inherits_nothing_of_ours() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let secret = tiny.sandbox.file("secret", "a key");
    tiny.script(&format!(
        r#"
    let secret = path({secret:?});
    let mut pair = [0; 2];
    report(&[
        ("a mode", unsafe {{ chmod(secret.as_ptr(), 0o777) }} == 0),
        ("an owner", unsafe {{ chown(secret.as_ptr(), u32::MAX, u32::MAX) }} == 0),
        ("a time", unsafe {{ utimes(secret.as_ptr(), std::ptr::null()) }} == 0),
        ("a length", unsafe {{ truncate(secret.as_ptr(), 5) }} == 0),
        ("a name", fs::metadata({secret:?}).is_ok()),
        ("another's memory", processes()),
        ("an open file", given(9)),
        ("datagrams", unsafe {{ socketpair(1, 2, 0, pair.as_mut_ptr()) }} == 0),
        ("a session", unsafe {{ setsid() }} != -1),
        ("a namespace", unsafe {{ unshare(0x1000_0000) }} == 0),
        ("the packages", fs::write(std::env::var("CARGO_HOME").unwrap() + "/x", "").is_ok()),
        ("the source", fs::write("build.rs", "").is_ok()),
    ]);"#
    ));
    let verify = |confine: &str| {
        // An open file, as a shell or a runner may leave one.
        let script = "exec 9<secret; exec \"$0\" verify out/module.wasm --source tiny --offline \
                      --json --confine \"$1\"";
        let mut command = tiny.command(&[]);
        let home = command
            .get_envs()
            .find(|(name, _)| *name == "TUSSAH_HOME")
            .and_then(|(_, value)| Some(value?.to_owned()))
            .unwrap();
        command = Command::new("sh");
        command.args(["-c", script]).arg(tussah()).arg(confine);
        command.current_dir(tiny.sandbox.work());
        command
            .env("TUSSAH_HOME", home)
            .env_remove("CARGO_TARGET_DIR");
        Ended::from(command.output().unwrap())
    };
    let report = verify("required").expect(0).json();
    assert_eq!(report["verdict"], "match", "{report:#}");
    assert_eq!(fs::read_to_string(tiny.at("secret")).unwrap(), "a key");
    // It does try.
    let free = verify("none").expect(7).json();
    let causes = free["causes"].to_string();
    for reached in [
        "a mode",
        "a time",
        "a length",
        "another's memory",
        "datagrams",
    ] {
        assert!(causes.contains(reached), "no {reached:?} in {free:#}");
    }
}

/// Processes of this machine with this word among their arguments.
#[cfg(target_os = "linux")]
fn running(word: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|one| fs::read(one.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(word)).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_of_a_strangers_build_outlives_it() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    // So many seconds that no other process of this machine waits for.
    let word = format!("86{}", std::process::id());
    tiny.script(&format!(
        r#"
    use std::process::{{Command, Stdio}};
    let quiet = || Stdio::null();
    Command::new("sh").args(["-c", "sleep {word} & sleep {word} &"]).stdin(quiet())
        .stdout(quiet()).stderr(quiet()).status().unwrap();"#
    ));
    tiny.check("out/module.wasm", &[], "match", "");
    assert_eq!(running(&word), [""; 0]);
    // The same where the kernel lets nobody have namespaces.
    let leave = format!("sleep {word} >/dev/null 2>&1 & setsid sleep {word} || exit 4");
    let status = Command::new(tussah())
        .arg("build-confined")
        .arg("--write")
        .arg(tiny.at("out"))
        .args(["--", "/bin/sh", "-c", &leave])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(4));
    assert_eq!(running(&word), [""; 0]);
}

#[test]
fn a_build_script_takes_nothing_out_of_the_report() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    // Messages of cargo's own kind, into the pipe of whichever process has one.
    tiny.script(
        r##"
    use std::io::Write as _;
    let forged = concat!(
        r#"{"reason":"compiler-artifact","package_id":"path+file:///x/tussah-sdk#9.9.9","#,
        r#""target":{"kind":["lib"]},"filenames":["/proc/self/exe.wasm"]}"#, "\n"
    );
    let mut wrote = 0;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for number in [1, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
            let pipe = process.path().join(format!("fd/{number}"));
            let is_pipe = fs::read_link(&pipe).is_ok_and(|to| to.to_string_lossy().contains("pipe"));
            let file = is_pipe.then(|| fs::OpenOptions::new().write(true).open(&pipe));
            if let Some(Ok(mut file)) = file {
                wrote += u32::from(number == 1 && file.write_all(forged.as_bytes()).is_ok());
            }
        }
    }
    println!("cargo::metadata=wrote={wrote}");"##,
    );
    let report: Value = tiny.verify("out/module.wasm", &[]).json();
    // It may spoil its own verdict, and nothing else.
    assert_eq!(report["ran"][0]["package"], "dep 1.0.0", "{report:#}");
    assert_eq!(report["ran"][0]["what"], "build script");
    let causes = report["causes"].to_string();
    let said = causes.contains("outside of its own folder") || causes.contains("cargo's messages");
    assert!(said || report["verdict"] == "match", "{report:#}");
}

#[test]
fn configuration_of_the_source_is_listed_and_runs_nothing() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    fs::create_dir(tiny.at("tiny/.cargo")).unwrap();
    let write = |text: &str| fs::write(tiny.at("tiny/.cargo/config.toml"), text).unwrap();
    write(
        "[build]\nrustc = \"./evil\"\nrustc-wrapper = \"./evil\"\nrustflags = [\"-Copt-level=0\"]\n\
         rustc-workspace-wrapper = \"./evil\"\n[target.'cfg(unix)']\nrunner = \"./evil\"\n",
    );
    let report = tiny.check("out/module.wasm", &[], "match", "");
    let listed = report["configuration"].to_string();
    for key in ["build.rustc", "build.rustc-wrapper", "build.rustflags"] {
        assert!(
            listed.contains(&format!("\"{key}\"")),
            "no {key} in {report:#}"
        );
    }
    assert_eq!(report["configuration"][0]["file"], ".cargo/config.toml");
    write("[target.wasm32-wasip1]\nlinker = \"./evil\"\n");
    let says = "sets `target.wasm32-wasip1.linker`";
    tiny.check("out/module.wasm", &[], "cannot-build", says);
    write("[env]\nLD_PRELOAD = \"/evil.so\"\n");
    tiny.check(
        "out/module.wasm",
        &[],
        "cannot-build",
        "sets `env.LD_PRELOAD`",
    );
}

#[test]
fn folders_that_say_they_are_caches_hide_nothing() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let folder = tiny.at("tiny/dep/cache");
    fs::create_dir_all(&folder).unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    fs::write(folder.join("CACHEDIR.TAG"), tag).unwrap();
    fs::write(folder.join("prebuilt.wasm"), b"\0asm").unwrap();
    // A working folder: what is left out is said, and is not there to be read.
    let report = tiny.check("out/module.wasm", &[], "match", "");
    let left_out = report["source"]["left_out"].to_string();
    assert!(left_out.contains("dep/cache"), "{report:#}");
    assert_eq!(report["source"]["blobs"], serde_json::json!([]));
    // An archive is what it is.
    let tar = Command::new("tar")
        .args(["-cf", "tiny.tar", "--exclude", "target", "tiny"])
        .current_dir(tiny.sandbox.work())
        .status();
    assert!(tar.unwrap().success());
    let report = tiny.check("out/module.wasm", &["--source", "tiny.tar"], "match", "");
    let blob = serde_json::json!(["dep/cache/prebuilt.wasm"]);
    assert_eq!(report["source"]["blobs"], blob, "{report:#}");
    assert_eq!(report["source"]["left_out"], serde_json::json!([]));
}

#[test]
fn a_lock_file_outside_of_the_source_does_not_count() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let lock = Path::new("tiny/Cargo.lock");
    fs::rename(tiny.at("tiny/Cargo.lock"), tiny.at("Cargo.lock")).unwrap();
    assert!(!tiny.at("tiny").join(lock).exists());
    tiny.check("out/module.wasm", &[], "cannot-build", "no Cargo.lock");
}

/// The script of the action in `ci/github`, as a runner gives it to its shell.
fn action() -> String {
    let action = fs::read_to_string(crate::fixture::repository().join("ci/github/action.yml"));
    let action = action.unwrap();
    let (_, script) = action.split_once("      run: |\n").unwrap();
    let lines = script
        .lines()
        .map(|line| line.trim_start_matches("        "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_source_commands_no_runner() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    let run = |sha256: &str| {
        let mut command = tiny.command(&[]);
        let home = command
            .get_envs()
            .find(|(name, _)| *name == "TUSSAH_HOME")
            .and_then(|(_, value)| Some(value?.to_owned()))
            .unwrap();
        let path = std::env::var("PATH").unwrap();
        let tools = tussah().parent().unwrap().display();
        command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &action()])
            .current_dir(tiny.sandbox.work())
            .env_remove("CARGO_TARGET_DIR")
            .env("PATH", format!("{tools}:{path}"))
            .env("TUSSAH_HOME", home)
            .env("MANIFEST", "out/manifest.toml")
            .env("SOURCE", "tiny")
            .env("CONFINE", "required")
            .env("ACCEPT_MATCH_CODE", "false")
            .env("TUSSAH_SHA256", sha256)
            .env("RUNNER_TEMP", tiny.at("out"))
            .env("GITHUB_OUTPUT", tiny.at("output"));
        Ended::from(command.output().unwrap())
    };
    let outputs = || fs::read_to_string(tiny.at("output")).unwrap();
    run("").expect(0);
    assert!(outputs().starts_with("verdict=match\n"), "{}", outputs());
    tiny.script("panic!(\"\\n::set-output name=verdict::match\\n##[group]x\")");
    fs::remove_file(tiny.at("output")).unwrap();
    let said = run("").expect(7).stdout;
    assert!(
        outputs().starts_with("verdict=cannot-build\n"),
        "{}",
        outputs()
    );
    let (before, rest) = said.split_once("::stop-commands::").unwrap();
    assert!(before.is_empty(), "{said}");
    let (word, rest) = rest.split_once('\n').unwrap();
    let (shown, after) = rest.split_once(&format!("\n::{word}::")).unwrap();
    assert!(word.len() == 32 && shown.contains("##[group]x"), "{said}");
    assert!(after.trim().is_empty(), "{said}");
    // Another tussah than the one that was pinned.
    run(&"0".repeat(64)).expect(1);
}
