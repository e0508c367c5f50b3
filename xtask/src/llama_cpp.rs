//! llama.cpp's own `llama-bench`, fetched and built for `cargo xtask bench inference --against llama.cpp`.
//!
//! In: Python's pip, g++ and make. Out: the program under `target/`, built for this machine's CPU; built
//! once.
//! Never: installs a package, or takes a source that is not the one we know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;
use crate::{command, pip, ui};

/// The word that asks for it in a program's place.
pub(crate) const NAME: &str = "llama.cpp";

/// The package of PyPI whose source carries llama.cpp's, commit 0c1e570: that of the tests' goldens.
const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";
const SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";

/// Its folder, while it is needed.
const SOURCE: &str = "source";

/// Where a machine has no cmake: the newest release when this was written.
const CMAKE: (&str, &str) = ("cmake", "4.4.4");

/// A build that a person would make to have it fast: optimised, for this CPU; without what we do not run.
const OPTIONS: [&str; 7] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
];

/// The program, built where it is not there yet.
///
/// # Errors
/// A tool is missing, the source cannot be had, or it does not build.
pub(crate) fn llama_bench(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join(NAME).join(VERSION);
    let program = folder.join("llama-bench");
    if program.is_file() {
        return Ok(program);
    }
    missing(&["g++", "make", "python3"], command::exists)?;
    ui::say(&format!(
        "bench: fetching and building llama.cpp of {PACKAGE} {VERSION} (76 MiB; several minutes, once)"
    ));
    fs::create_dir_all(&folder)?;
    let source = source(&folder)?;
    let cmake = cmake(workspace)?;
    let build = folder.join("build");
    let mut configure = Command::new(&cmake);
    configure.arg("-S").arg(&source).arg("-B").arg(&build);
    command::run(configure.args(["-G", "Unix Makefiles"]).args(OPTIONS))
        .context("llama.cpp cannot be configured")?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new(&cmake);
    make.arg("--build").arg(&build);
    make.args(["--target", "llama-bench", "--parallel", &cores.to_string()]);
    command::run(&mut make).context("llama.cpp does not build")?;
    // A file of this name is a whole one, and nothing else is needed from here on.
    fs::rename(build.join("bin/llama-bench"), &program)
        .context("the build of llama.cpp ended well, yet there is no program")?;
    fs::remove_dir_all(&build)?;
    fs::remove_dir_all(folder.join(SOURCE))?;
    Ok(program)
}

/// Says what to install where a tool is not there.
fn missing(tools: &[&str], exists: impl Fn(&str) -> bool) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !exists(tool)).copied().collect();
    ensure!(
        missing.is_empty(),
        "llama.cpp is built with {}, and this machine has no {}: install it (Debian, Ubuntu: as root, \
         apt-get install {}), or name a built `llama-bench` after --against",
        tools.join(", "),
        missing.join(" and no "),
        missing.join(" "),
    );
    Ok(())
}

/// llama.cpp's source in `folder`, fetched where an interrupted call has not left it.
fn source(folder: &Path) -> Result<PathBuf> {
    let whole = folder.join(SOURCE);
    let source = whole.join("vendor/llama.cpp");
    if source.is_dir() {
        return Ok(source);
    }
    let work = tempfile::tempdir_in(folder)?;
    let work = work.path();
    let wanted = work.join("requirements.txt");
    fs::write(
        &wanted,
        format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n"),
    )?;
    // The hash is pip's to check: a source with another is refused.
    let mut download = Command::new("python3");
    download.args(["-m", "pip", "download", "--quiet", "--no-deps"]);
    download.args(["--require-hashes", "--no-binary", PACKAGE]);
    download.arg("--requirement").arg(&wanted);
    command::run(download.arg("--dest").arg(work))
        .with_context(|| format!("the package {PACKAGE} could not be fetched"))?;
    let files = fs::read_dir(work)?.collect::<Result<Vec<_>, _>>()?;
    let mut files = files.into_iter().map(|entry| entry.path());
    let archive = files.find(|path| path.extension().is_some_and(|end| end == "gz"));
    let archive = archive.context("pip ended well, yet there is no archive")?;
    let mut unpack = Command::new("python3");
    let unpacked = work.join("unpacked");
    command::run(
        unpack
            .args(["-m", "tarfile", "-e"])
            .arg(archive)
            .arg(&unpacked),
    )?;
    let mut folders = fs::read_dir(unpacked)?;
    let Some(unpacked) = folders.next().transpose()? else {
        bail!("the archive of {PACKAGE} is empty");
    };
    // A folder of this name is a whole one.
    fs::rename(unpacked.path(), &whole)?;
    ensure!(source.is_dir(), "the archive has no {}", source.display());
    Ok(source)
}

/// The machine's own, or PyPI's.
fn cmake(workspace: &Workspace) -> Result<PathBuf> {
    if command::exists("cmake") {
        return Ok("cmake".into());
    }
    Ok(pip::install(workspace, &[CMAKE])?.join("cmake/data/bin/cmake"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_told_with_what_to_install() {
        missing(&["g++", "make"], |_| true).unwrap();
        let error = missing(&["g++", "make", "python3"], |tool| tool == "make").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("no g++ and no python3"), "{error}");
        assert!(error.contains("apt-get install g++ python3)"), "{error}");
    }
}
