//! `new` and `build`: jobs that stand alone, modules that are the same everywhere.

use std::{fs, path::Path};

use crate::fixture::{Ended, Sandbox, shared_target};

#[test]
fn a_new_job_builds_runs_and_is_audited() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_source();
    let text = b"tussah is a wild silk";
    // As a user does it: the job's folder, built where cargo puts it.
    sandbox.file("input.txt", text);
    let mut run = sandbox.command(&[
        "run",
        "plain",
        "--input",
        "input.txt",
        "--receipt",
        "r.cbor",
    ]);
    let run = Ended::from(
        run.env("CARGO_TARGET_DIR", shared_target())
            .output()
            .unwrap(),
    );
    assert_eq!(run.expect(0).stdout, "tussah\nwild\nsilk\n");
    assert!(sandbox.work().join("plain/Cargo.lock").exists());
    sandbox.run(&["receipt", "verify", "r.cbor"]).expect(0);
    let audit = sandbox.run_with_input(&["audit", "r.cbor", "--input", "-"], text);
    assert!(audit.expect(0).stdout.starts_with("reproduced"));
    // A folder with something in it is left alone.
    sandbox.run(&["new", "plain"]).expect(2).says("not empty");
}

/// The module's digest of a copy of the job at this place, built with this cargo home.
fn digest_at(sandbox: &Sandbox, job: &Path, cargo_home: Option<&Path>) -> String {
    let mut build = sandbox.command(&["build", job.to_str().unwrap(), "--json"]);
    match cargo_home {
        // Another target folder, too: the one below the job.
        Some(home) => build.env("CARGO_HOME", home).env_remove("CARGO_TARGET_DIR"),
        None => build.env("CARGO_TARGET_DIR", shared_target()),
    };
    // What a user's environment may hold must not matter.
    build
        .env("RUSTFLAGS", "-C debug-assertions=yes")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    let built = Ended::from(build.output().unwrap()).expect(0).json();
    built["module"]["digest"].as_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_name() == "target" {
            continue;
        } else if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Another cargo home with the same packages: they are unpacked again below its own path.
#[cfg(unix)]
fn second_cargo_home(at: &Path) -> Option<()> {
    let first = match std::env::var_os("CARGO_HOME") {
        Some(home) => home.into(),
        None => Path::new(&std::env::var_os("HOME")?).join(".cargo"),
    };
    fs::create_dir_all(at.join("registry")).ok()?;
    for shared in [
        "registry/index",
        "registry/cache",
        "config.toml",
        "credentials.toml",
    ] {
        if first.join(shared).exists() {
            std::os::unix::fs::symlink(first.join(shared), at.join(shared)).ok()?;
        }
    }
    Some(())
}

#[test]
#[cfg(unix)]
fn two_folders_and_two_cargo_homes_give_the_same_bytes() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_source();
    sandbox.build(Path::new("plain")).expect(0); // Writes Cargo.lock, which both copies share.
    let job = sandbox.work().join("plain");
    let other = sandbox.work().join("another folder/of/the same job");
    copy(&job, &other);
    let cargo_home = sandbox.work().join("second cargo home");
    second_cargo_home(&cargo_home).unwrap();
    let first = digest_at(&sandbox, &job, None);
    let second = digest_at(&sandbox, &other, Some(&cargo_home));
    assert_eq!(first, second);
}

#[test]
fn source_that_does_not_compile_is_2() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_source();
    sandbox.file("plain/src/lib.rs", "fn broken( {");
    let mut build = sandbox.command(&["build", "plain"]);
    let ended = Ended::from(
        build
            .env("CARGO_TARGET_DIR", shared_target())
            .output()
            .unwrap(),
    );
    ended
        .expect(2)
        .says("error: the job's source does not compile")
        .says("src/lib.rs");
    sandbox.file(
        "plain/tussah.toml",
        "version = 1\nname = \"plain\"\nnonsense = 1\n",
    );
    sandbox
        .run(&["build", "plain"])
        .expect(2)
        .says("line 3, column 1: unknown field `nonsense`");
    sandbox.run(&["build", "."]).expect(2).says("is not a job");
}

/// What a curious job finds: files, folders, variables, and whether it can wait.
const CURIOUS: &str = r#"
use std::{fs, time::{Duration, Instant}};

#[tussah_sdk::job]
fn run(path: String) -> String {
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1_000_000));
    format!(
        "read {}, list {}, write {}, variables {}, waited {}\n",
        fs::read(&path).is_ok(),
        fs::read_dir("/").is_ok(),
        fs::write("here", "x").is_ok(),
        std::env::vars().count(),
        start.elapsed() >= Duration::from_secs(1_000_000),
    )
}
"#;

#[test]
fn a_job_finds_no_files_and_its_clock_is_not_ours() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_source();
    sandbox.file("plain/src/lib.rs", CURIOUS);
    let file = sandbox.file("input.txt", "");
    sandbox.file("input.txt", file.to_str().unwrap());
    let mut run = sandbox.command(&["run", "plain", "--input", "input.txt"]);
    let run = Ended::from(
        run.env("CARGO_TARGET_DIR", shared_target())
            .output()
            .unwrap(),
    );
    assert_eq!(
        run.expect(0).stdout,
        "read false, list false, write false, variables 0, waited true\n"
    );
}
