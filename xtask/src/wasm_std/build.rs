//! Builds std from its sources into a sysroot.
//!
//! In: sources, a target, an empty work folder.
//! Out: `lib/rustlib/<target>/lib` with the rlibs and, in `self-contained/`, libc and the start
//! files; and the digest of all of it, which does not depend on where it was built.
//! Never: writes outside the work folder, except for crates that cargo downloads into its own home.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::sources::Sources;
use super::wrapper::WRAPPER_SWITCH;
use crate::toolchain::Toolchain;
use crate::{command, ui};

/// Names the source folder to cargo, and to the wrapper that looks for it.
pub(super) const LIBRARY_VARIABLE: &str = "__CARGO_TESTS_ONLY_SRC_ROOT";

/// The crate that is built so that std is built for it; its own rlib is thrown away.
const EMPTY_CRATE: &str = "std-for-wasm";

/// What a linker needs of wasi-libc; the first is a library's, the second a program's start.
const LIBC_FILES: &[&str] = &["crt1-reactor.o", "crt1-command.o", "libc.a"];

/// Builds std and lays it out under `sysroot`.
///
/// # Errors
/// Cargo or rustc failed: no network for std's dependencies, or sources of another version.
pub(super) fn build(
    toolchain: &Toolchain,
    sources: &Sources,
    target: &str,
    work: &Path,
    sysroot: &Path,
) -> Result<String> {
    let krate = work.join("crate");
    fs::create_dir_all(krate.join("src"))?;
    fs::write(krate.join("src/lib.rs"), "")?;
    fs::write(
        krate.join("Cargo.toml"),
        format!("[package]\nname = \"{EMPTY_CRATE}\"\nedition = \"2024\"\n[workspace]\n"),
    )?;
    let output = work.join("target");
    let remap = format!(
        "--remap-path-prefix={}=/rustc/{}/library",
        sources.library.display(),
        toolchain.commit
    );
    let flags = [
        "-Zforce-unstable-if-unmarked",
        "-Cembed-bitcode=yes",
        &remap,
    ];
    ui::say("setup: compiling std");
    command::output(
        command::cargo_without_settings()
            .current_dir(&krate)
            .args([
                "build",
                "-Zbuild-std=std,panic_abort,test",
                "--release",
                "--target",
                target,
            ])
            .env("RUSTC_BOOTSTRAP", "1")
            .env(LIBRARY_VARIABLE, &sources.library)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", &output)
            .env("RUSTC_WRAPPER", std::env::current_exe()?)
            .env(WRAPPER_SWITCH, "1")
            // Incremental objects would depend on what was built before.
            .env("CARGO_INCREMENTAL", "0"),
    )
    .context("std does not build; are the sources of exactly this rustc?")?;

    let lib = sysroot.join("lib/rustlib").join(target).join("lib");
    fs::create_dir_all(lib.join("self-contained"))?;
    collect(&output.join(target).join("release/deps"), &lib)?;
    if let Some(libc) = &sources.libc {
        for name in LIBC_FILES {
            let from = libc.folder.join(name);
            fs::copy(&from, lib.join("self-contained").join(name))
                .with_context(|| format!("wasi-libc lacks {}", from.display()))?;
        }
    }
    digest(&lib)
}

/// Copies the rlibs, with the suffix that cargo derived from absolute paths replaced everywhere.
///
/// Cargo's `-C extra-filename` stands in the file's name, in each member's name and in the
/// metadata of the crates that link it. The stand-in has the same length, so no offset moves.
fn collect(deps: &Path, lib: &Path) -> Result<()> {
    let mut rlibs = Vec::new();
    let own = EMPTY_CRATE.replace('-', "_");
    for entry in fs::read_dir(deps)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(stem) = name
            .strip_prefix("lib")
            .and_then(|name| name.strip_suffix(".rlib"))
        else {
            continue;
        };
        let (krate, suffix) = stem
            .rsplit_once('-')
            .context("cargo names rlibs NAME-SUFFIX")?;
        if krate == own {
            continue;
        }
        let stand_in = blake3::hash(krate.as_bytes()).to_hex();
        let stand_in = stand_in
            .get(..suffix.len())
            .context("cargo's suffixes are short")?;
        rlibs.push(Rlib {
            path,
            krate: krate.to_owned(),
            suffix: suffix.to_owned(),
            stand_in: stand_in.to_owned(),
        });
    }
    rlibs.sort_by(|a, b| a.krate.cmp(&b.krate));
    for pair in rlibs.windows(2) {
        ensure!(
            pair[0].krate != pair[1].krate,
            "std holds two crates `{}`",
            pair[0].krate
        );
    }
    ensure!(
        rlibs.iter().any(|rlib| rlib.krate == "std"),
        "cargo built no std"
    );
    let pair = |rlib: &Rlib| (rlib.suffix.clone().into(), rlib.stand_in.clone().into());
    let stand_ins: BTreeMap<Vec<u8>, Vec<u8>> = rlibs.iter().map(pair).collect();
    for rlib in &rlibs {
        let mut bytes = fs::read(&rlib.path)?;
        replace(&mut bytes, &stand_ins);
        fs::write(
            lib.join(format!("lib{}-{}.rlib", rlib.krate, rlib.stand_in)),
            bytes,
        )?;
    }
    Ok(())
}

struct Rlib {
    path: PathBuf,
    krate: String,
    suffix: String,
    stand_in: String,
}

/// Replaces each suffix that follows a hyphen by its stand-in, which has the same length.
fn replace(bytes: &mut [u8], stand_ins: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let Some(length) = stand_ins.keys().next().map(Vec::len) else {
        return;
    };
    for at in 1..(bytes.len() + 1).saturating_sub(length) {
        if bytes[at - 1] != b'-' {
            continue;
        }
        let here = &mut bytes[at..at + length];
        if let Some(stand_in) = stand_ins.get(&*here) {
            here.copy_from_slice(stand_in);
        }
    }
}

/// The digest of every file's name, length and content, in the order of their names.
fn digest(lib: &Path) -> Result<String> {
    let mut files = Vec::new();
    for folder in [lib.to_path_buf(), lib.join("self-contained")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut hasher = blake3::Hasher::new_derive_key("tussah 2026 std of a wasm target");
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let content = fs::read(&file)?;
        hasher.update(format!("{name}\0{}\0", content.len()).as_bytes());
        hasher.update(&content);
    }
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// Builds a small program with the new std: what does not link here would not link for a job.
///
/// # Errors
/// The program does not build, or is not a component.
pub(super) fn try_out(sysroot: &Path, target: &str, work: &Path) -> Result<()> {
    let source = work.join("hello.rs");
    let module = work.join("hello.wasm");
    fs::write(&source, "fn main() { println!(\"hello\"); }\n")?;
    command::output(
        command::rustc()
            .args(["--edition=2024", "--target", target, "--sysroot"])
            .arg(sysroot)
            .arg("-o")
            .arg(&module)
            .arg(&source),
    )
    .context("the new std does not link; wasm32 targets need rust-lld and wasm-component-ld")?;
    let begins = fs::read(&module)?;
    ensure!(begins.starts_with(b"\0asm"), "the new std gives no wasm");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_keeps_the_length() {
        let stand_ins = BTreeMap::from([(b"XX".to_vec(), b"yz".to_vec())]);
        let mut bytes = *b"XX-XXaXX-XX";
        replace(&mut bytes, &stand_ins);
        assert_eq!(&bytes, b"XX-yzaXX-yz");
        let mut short = *b"-";
        replace(&mut short, &stand_ins);
        assert_eq!(&short, b"-");
    }
}
