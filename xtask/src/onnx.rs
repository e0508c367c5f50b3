//! The feature `onnx`: a library to test it with, and its tests.
//!
//! In: Python's pip, and the checkout. Out: ONNX Runtime under `TUSSAH_HOME`, and the verdict of the
//! tests that need it, run with a `tussah` that has the feature.
//! Never: installs a package, runs anything of one, or takes a file that is not the one we know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::test::{self, Counts};
use crate::workspace::Workspace;
use crate::{command, home, ui, vulkan};

/// The library's release: the newest when these tests were written.
const VERSION: &str = "1.32.0";
/// PyPI's wheel of it for CPython 3.11 on Linux x86-64; only the library in it is used, not the Python.
const WHEEL_SHA256: &str = "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d";
const WHEEL_TAGS: [&str; 8] = [
    "--implementation",
    "cp",
    "--python-version",
    "311",
    "--abi",
    "cp311",
    "--platform",
    "manylinux_2_28_x86_64",
];

/// Lints and tests the feature; says why where that cannot be done.
///
/// # Errors
/// The library cannot be fetched, a lint fired, or a test failed.
pub(crate) fn run(workspace: &Workspace, counts: &mut Counts) -> Result<Option<String>> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(Some(
            "the library is known for Linux x86-64 alone".to_owned(),
        ));
    }
    let library = library(&home::tussah_home()?)?;
    // The whole workspace and its tests each time: with other packages, or without what only tests
    // need, the dependencies would have other features, and be built again.
    let cargo = |task: &str| {
        let mut cargo = workspace.cargo();
        cargo.args([
            task,
            "--workspace",
            "--locked",
            "--features",
            "tussah-host/onnx",
        ]);
        cargo
    };
    command::run(cargo("clippy").args(["--all-targets", "--", "-D", "warnings"]))?;
    command::run(cargo("build").args(["--bins", "--tests"]))?;
    let mut tests = cargo("test");
    tests
        .args(["--no-fail-fast", "--test", "it", "--", "onnx"])
        // A person's own setting: the tests name the library where they want one.
        .env_remove("TUSSAH_ONNXRUNTIME")
        .env("REQUIRE_ONNX", "1")
        .env("REQUIRE_WASM", "1")
        .env("TUSSAH_TEST_ONNXRUNTIME", library)
        .env("TUSSAH_HOME", home::tussah_home()?)
        .env("TUSSAH_BIN", workspace.binary("debug"));
    vulkan::for_tests(&mut tests);
    test::finish(command::relay(&mut tests)?, "onnx", counts)?;
    Ok(None)
}

/// The library's file, fetched where it is not there yet.
fn library(home: &Path) -> Result<PathBuf> {
    let folder = home.join("onnxruntime").join(VERSION);
    let library = folder.join(format!("onnxruntime/capi/libonnxruntime.so.{VERSION}"));
    if library.is_file() {
        return Ok(library);
    }
    ui::say(&format!(
        "onnx: fetching ONNX Runtime {VERSION} by pip (27 MiB)"
    ));
    home::create(&home.join("onnxruntime"))?;
    let work = tempfile::tempdir_in(home.join("onnxruntime"))?;
    let wanted = work.path().join("requirements.txt");
    fs::write(
        &wanted,
        format!("onnxruntime=={VERSION} --hash=sha256:{WHEEL_SHA256}\n"),
    )?;
    let python = || Command::new("python3");
    // The hash is pip's to check: a wheel with another is refused.
    let mut download = python();
    download.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
    ]);
    download.args(["--only-binary", ":all:"]).args(WHEEL_TAGS);
    download.arg("--requirement").arg(&wanted);
    command::run(download.arg("--dest").arg(work.path()))
        .context("the package onnxruntime could not be fetched")?;
    let files = fs::read_dir(work.path())?.collect::<Result<Vec<_>, _>>()?;
    let mut files = files.into_iter().map(|entry| entry.path());
    let wheel = files.find(|path| path.extension().is_some_and(|end| end == "whl"));
    let wheel = wheel.context("pip ended well, yet there is no wheel")?;
    let unpacked = work.path().join("unpacked");
    let mut unpack = python();
    command::run(
        unpack
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(&unpacked),
    )?;
    // A folder of this name is a whole one.
    if let Err(error) = fs::rename(&unpacked, &folder)
        && !library.is_file()
    {
        return Err(error).context(format!("cannot create {}", folder.display()));
    }
    if !library.is_file() {
        bail!("the wheel has no {}", library.display());
    }
    Ok(library)
}
