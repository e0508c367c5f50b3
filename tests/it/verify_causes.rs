//! `verify` names the cause: with a second compiler of this machine, and for a bit of the code.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{fixture::Ended, verify::Tiny};

/// A toolchain of rustup's with another rustc than the usual one: its name and that rustc's commit.
fn another_toolchain() -> Option<(String, String)> {
    let commit = |rustc: &Path| {
        let output = Command::new(rustc).arg("-vV").output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "));
        line.map(str::to_owned)
    };
    let usual = commit(Path::new("rustc"))?;
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".rustup")))?;
    let entries = std::fs::read_dir(home.join("toolchains")).ok()?;
    let mut found: Vec<(String, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let found = commit(&entry.path().join("bin/rustc"))?;
            Some((entry.file_name().into_string().ok()?, found))
        })
        .filter(|(_, commit)| *commit != usual)
        .collect();
    found.sort();
    found.pop()
}

#[test]
fn another_rustc_is_named_with_both_commits() {
    let Some((name, commit)) = another_toolchain() else {
        println!("skipped: rustup has no second toolchain here, and no other rustc is known of");
        return;
    };
    let Some(tiny) = Tiny::new() else {
        return;
    };
    for given in ["out/manifest.toml", "out/module.wasm"] {
        let arguments = ["verify", given, "--source", "tiny", "--offline", "--json"];
        let mut command = tiny.command(&arguments);
        command.env("RUSTUP_TOOLCHAIN", &name);
        let report = Ended::from(command.output().unwrap()).expect(7).json();
        assert_eq!(report["verdict"], "cannot-build", "{report:#}");
        let causes = report["causes"].to_string();
        let recorded = report["recorded"]["rustc_commit"].as_str().unwrap();
        for words in ["it was built with rustc", &commit, recorded] {
            assert!(causes.contains(words), "no {words:?} in {report:#}");
        }
    }
}

#[test]
fn a_flipped_bit_of_code_is_in_a_function() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    // Far from both ends of a module there is nothing but code.
    let flipped = tiny.module("flipped.wasm", |bytes| {
        let at = bytes.len() / 3;
        bytes[at] ^= 0x10;
    });
    let report = tiny.check(
        &flipped,
        &[],
        "mismatch",
        "the first difference is function",
    );
    assert!(
        report["first_difference"]["function"].is_string(),
        "{report:#}"
    );
}
