//! A job's source to a module, the same bytes on every machine with the same toolchain.
//!
//! In: a folder with `Cargo.toml` and `tussah.toml`. Out: `module.wasm` and `manifest.toml`
//! below the target folder. Nothing of this machine goes in: no path, no profile of the
//! user's, no flag of the environment; what came out is searched for paths all the same.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tussah_manifest::{Abi, Digest, JobDescription, Manifest, ModuleRef};

use crate::{
    failure::{Failure, file_failure},
    home::Home,
    input,
    interrupt::Interrupt,
    toolchain::{self, Toolchain, WASM_TARGET, WasmStd},
    ui::Ui,
};

/// The file beside `Cargo.toml` that says what the job may use.
pub(crate) const DESCRIPTION: &str = "tussah.toml";

/// Larger than any manifest may be, so that the manifest's own reader says what is wrong.
pub(crate) const MANIFEST_FILE_BYTES_MAX: u64 = 1 << 20;

/// The profile, in full, so that no profile of the user's or the workspace's shows through.
/// A change of it changes every digest; `docs/commands.md` has sizes and fuel of two levels.
const PROFILE: [&str; 12] = [
    "inherits=\"release\"",
    "opt-level=3",
    "lto=\"fat\"",
    "codegen-units=1",
    "panic=\"abort\"",
    "strip=true",
    "debug=false",
    "debug-assertions=false",
    "overflow-checks=false",
    "incremental=false",
    "rpath=false",
    "build-override.opt-level=0",
];

/// How a component's bytes begin: the magic number, then version and layer.
const COMPONENT_START: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// How a core module's bytes begin.
const CORE_MODULE_START: [u8; 8] = *b"\0asm\x01\0\0\0";

/// A job that was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) manifest: Manifest,
    pub(crate) module_path: PathBuf,
    pub(crate) manifest_path: PathBuf,
    pub(crate) module: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) toolchain: Toolchain,
    /// The files that rustc read, wherever they are.
    pub(crate) sources: Vec<PathBuf>,
    pub(crate) took: Duration,
}

/// Builds the job of a folder.
///
/// # Errors
/// A usage failure if the source or its description is wrong, a host failure if the
/// toolchain is.
pub(crate) fn build(
    home: &Home,
    folder: &Path,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let started = Instant::now();
    let folder = job_folder(folder)?;
    let description = read_description(&folder)?;
    let toolchain = Toolchain::of(&folder)?;
    let abi = description.abi;
    let wasm_std = toolchain.wasm_std(home, toolchain::wasm_target(abi))?;
    let project = Project::of(&folder)?;
    project.lock(ui)?;
    let compiled = compile(&project, &toolchain, (abi, &wasm_std), ui, interrupt)?;
    let bytes = fs::read(&compiled).map_err(|error| file_failure("read", &compiled, error))?;
    if abi_of(&bytes)? != abi {
        // Cargo was asked for the ABI's target: only a tool that is not cargo gives another.
        return Err(Failure::host(
            "cargo made a module of another kind than it was asked for",
        ));
    }
    check_paths(&bytes, &project.private_paths(home, &toolchain, &wasm_std))?;

    let module = Digest::of(&bytes);
    let manifest = description.with_module(ModuleRef::of(&bytes));
    let out = project
        .target
        .join("tussah")
        .join(manifest.job.name.as_str());
    let (module_path, manifest_path) = (out.join("module.wasm"), out.join("manifest.toml"));
    write(&module_path, &bytes)?;
    write(&manifest_path, manifest.to_toml().as_bytes())?;
    let size_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let took = started.elapsed();
    Ok(Built {
        manifest,
        module_path,
        manifest_path,
        module,
        size_bytes,
        toolchain,
        sources: sources_of(&compiled),
        took,
    })
}

/// The folder, made absolute, if it holds a job.
pub(crate) fn job_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let absolute = fs::canonicalize(folder).map_err(|error| file_failure("open", folder, error))?;
    for file in ["Cargo.toml", DESCRIPTION] {
        if !absolute.join(file).is_file() {
            let message = format!("{} is not a job: it has no {file}", folder.display());
            return Err(Failure::usage(message).help(
                "name a folder that `tussah new` made, or start one with `tussah new NAME`",
            ));
        }
    }
    Ok(absolute)
}

fn read_description(folder: &Path) -> Result<JobDescription, Failure> {
    let path = folder.join(DESCRIPTION);
    let bytes = input::bytes(&path, MANIFEST_FILE_BYTES_MAX)?;
    JobDescription::parse_bytes(&bytes).map_err(|error| {
        Failure::usage(error).context(format!("{} cannot be used", path.display()))
    })
}

/// What cargo knows of the job.
struct Project {
    folder: PathBuf,
    package: String,
    workspace: PathBuf,
    target: PathBuf,
}

impl Project {
    fn of(folder: &Path) -> Result<Self, Failure> {
        // Here alone the user's CARGO_TARGET_DIR counts: it is a place, not an ingredient.
        let mut command = toolchain::command("cargo", folder);
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            command.env("CARGO_TARGET_DIR", target);
        }
        let output = command
            .args(["metadata", "--format-version=1", "--no-deps"])
            .output()
            .map_err(|source| toolchain::ToolchainError::Start {
                program: "cargo",
                source,
            })?;
        if !output.status.success() {
            return Err(cargo_failure(
                "cargo cannot read the job's Cargo.toml",
                &output.stderr,
            ));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(Failure::host)?;
        let path = |key: &str| {
            metadata[key]
                .as_str()
                .map(PathBuf::from)
                .unwrap_or_default()
        };
        let manifest_path = folder.join("Cargo.toml");
        let packages = metadata["packages"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let package = packages
            .iter()
            .find(|package| {
                package["manifest_path"].as_str().map(Path::new) == Some(&manifest_path)
            })
            .and_then(|package| package["name"].as_str())
            .ok_or_else(|| {
                Failure::usage(format!("{} names no package", manifest_path.display()))
                    .help("name the folder of the job itself, not of its workspace")
            })?
            .to_owned();
        let (workspace, target) = (path("workspace_root"), path("target_directory"));
        Ok(Self {
            folder: folder.to_owned(),
            package,
            workspace,
            target,
        })
    }

    /// A build is only repeatable with the versions written down.
    fn lock(&self, ui: &Ui) -> Result<(), Failure> {
        if self.workspace.join("Cargo.lock").is_file() {
            return Ok(());
        }
        let _spinner = ui.spinner("choosing versions of dependencies");
        let output = toolchain::command("cargo", &self.folder)
            .arg("generate-lockfile")
            .output()
            .map_err(|source| toolchain::ToolchainError::Start {
                program: "cargo",
                source,
            })?;
        if !output.status.success() {
            return Err(cargo_failure(
                "cargo cannot write the job's Cargo.lock",
                &output.stderr,
            ));
        }
        Ok(())
    }

    /// Apart from what the user builds, so that neither rebuilds for the other.
    fn build_target(&self) -> PathBuf {
        self.target.join("tussah/build")
    }

    /// Folders of this machine, and what is written for them. Of two that fit, rustc takes
    /// the last.
    fn remaps(&self, toolchain: &Toolchain, wasm_std: &WasmStd) -> Vec<(PathBuf, &'static str)> {
        let mut remaps = vec![
            (toolchain.sysroot.clone(), "/rust"),
            (self.workspace.clone(), "/job"),
            (self.build_target(), "/target"),
        ];
        if !self.folder.starts_with(&self.workspace) {
            remaps.push((self.folder.clone(), "/job"));
        }
        if let WasmStd::Private(sysroot) = wasm_std {
            remaps.push((sysroot.clone(), "/rust"));
        }
        remaps.extend(cargo_home().map(|home| (home, "/cargo")));
        remaps
    }

    /// What must not be found in a module, each with a separator behind it: `/root/`, not
    /// the `/root` of some other word.
    fn private_paths(
        &self,
        home: &Home,
        toolchain: &Toolchain,
        wasm_std: &WasmStd,
    ) -> Vec<PathBuf> {
        let user = std::env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let mut paths = vec![
            self.folder.clone(),
            self.workspace.clone(),
            self.target.clone(),
            toolchain.sysroot.clone(),
            home.root().to_owned(),
        ];
        if let WasmStd::Private(sysroot) = wasm_std {
            paths.push(sysroot.clone());
        }
        paths.extend(cargo_home());
        paths.extend(user.map(PathBuf::from));
        // A path as short as `/` says nothing.
        paths.retain(|path| path.components().count() > 1);
        paths
    }
}

fn cargo_home() -> Option<PathBuf> {
    let filled = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let home = match filled("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            Path::new(&filled(if cfg!(windows) { "USERPROFILE" } else { "HOME" })?).join(".cargo")
        }
    };
    std::path::absolute(home).ok()
}

/// Runs cargo; returns the path of the module that it made.
fn compile(
    project: &Project,
    toolchain: &Toolchain,
    (abi, wasm_std): (Abi, &WasmStd),
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<PathBuf, Failure> {
    let mut flags: Vec<OsString> = Vec::new();
    for (from, to) in project.remaps(toolchain, wasm_std) {
        flags.push("--remap-path-prefix".into());
        let mut mapping = from.into_os_string();
        mapping.push(format!("={to}"));
        flags.push(mapping);
    }
    if let WasmStd::Private(sysroot) = wasm_std {
        flags.extend(["--sysroot".into(), sysroot.clone().into_os_string()]);
    }
    let mut command = toolchain::command("cargo", &project.folder);
    // A component is a library with one export, a command is a program.
    let (kind, needs) = match abi {
        Abi::Component => (
            "--lib",
            "its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\", \"rlib\"]`",
        ),
        Abi::Preview1 => ("--bins", "a job of abi preview1 needs `src/main.rs`"),
    };
    command.args(["build", kind, "--locked", "--profile=tussah"]);
    command.args(["--target", toolchain::wasm_target(abi)]);
    command.args([
        "--message-format=json-render-diagnostics",
        "--package",
        &project.package,
    ]);
    command.arg("--target-dir").arg(project.build_target());
    for setting in PROFILE {
        command.args(["--config", &format!("profile.tussah.{setting}")]);
    }
    // Flags of this variable stand instead of all that configuration files say.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
    let shows_itself = ui.shows_bars();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(if shows_itself {
        Stdio::inherit()
    } else {
        Stdio::piped()
    });

    let mut child = command
        .spawn()
        .map_err(|source| toolchain::ToolchainError::Start {
            program: "cargo",
            source,
        })?;
    // Both pipes are read at once, or a full one would stop cargo.
    let stderr = child.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read is what can be shown.
            let _ = pipe.read_to_end(&mut text);
            text
        })
    });
    let module = child
        .stdout
        .take()
        .and_then(|pipe| find_module(BufReader::new(pipe)));
    let status = child.wait().map_err(Failure::host)?;
    let stderr = stderr
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default();
    if interrupt.requested() {
        return Err(Failure::interrupted());
    }
    if !status.success() {
        return Err(cargo_failure("the job's source does not compile", &stderr));
    }
    module.ok_or_else(|| {
        Failure::usage(format!("package `{}` makes no module", project.package)).help(needs)
    })
}

/// The last module that cargo names; the job's own package is built last.
fn find_module(messages: impl BufRead) -> Option<PathBuf> {
    let mut module = None;
    for line in messages.lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let files = message["filenames"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let wasm = files
            .iter()
            .filter_map(Value::as_str)
            .find(|file| file.ends_with(".wasm"));
        module = wasm.map(PathBuf::from).or(module);
    }
    module
}

/// What cargo's dep-info file beside an artifact lists: `artifact: file file …`, a space in a
/// name escaped. Nothing where there is none.
fn sources_of(artifact: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(artifact.with_extension("d")).unwrap_or_default();
    let Some((_, files)) = text.lines().next().and_then(|line| line.split_once(": ")) else {
        return Vec::new();
    };
    let files = files.replace("\\ ", "\0");
    let names = files.split_ascii_whitespace();
    names.map(|name| name.replace('\0', " ").into()).collect()
}

fn cargo_failure(message: &str, stderr: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(stderr);
    match text.trim() {
        "" => Failure::usage(message.to_owned()), // It went to the terminal.
        said => Failure::usage(said.to_owned()).context(message),
    }
}

/// The ABI that module bytes can be of, by their head; anything else is refused before it is
/// looked at.
pub(crate) fn abi_of(bytes: &[u8]) -> Result<Abi, Failure> {
    if bytes.starts_with(&COMPONENT_START) {
        return Ok(Abi::Component);
    }
    if bytes.starts_with(&CORE_MODULE_START) {
        return Ok(Abi::Preview1);
    }
    let help = format!("build it with `tussah build`, or for the target {WASM_TARGET}");
    Err(Failure::usage("this is not WebAssembly").help(help))
}

/// Bytes that name this machine would differ on the next one, and tell about its owner.
fn check_paths(bytes: &[u8], paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        let mut needle = path.as_os_str().as_encoded_bytes().to_vec();
        needle.push(if cfg!(windows) { b'\\' } else { b'/' });
        if bytes.windows(needle.len()).any(|window| window == needle) {
            let message = format!(
                "the module contains the path {} of this machine",
                path.display()
            );
            return Err(Failure::usage(message).help(
                "look for `env!`, `include_str!` or a build script that writes absolute paths \
                 into the code; the same source would give other bytes elsewhere",
            ));
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| file_failure("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::Exit;

    #[test]
    fn paths_of_this_machine_are_found_in_bytes() {
        let paths = [
            PathBuf::from("/home/ann"),
            PathBuf::from("/home/ann/.cargo"),
        ];
        check_paths(b"..../home/anna/x....", &paths).unwrap();
        check_paths(b"", &paths).unwrap();
        let failure = check_paths(b"\0\0/home/ann/job/src/lib.rs\0", &paths).unwrap_err();
        assert!(
            failure.error.to_string().contains("/home/ann "),
            "{}",
            failure.error
        );
        assert_eq!(failure.exit, Exit::USAGE);
    }

    #[test]
    fn the_abi_shows_in_the_head() {
        let component = abi_of(b"\0asm\x0d\0\x01\0rest").unwrap();
        let module = abi_of(b"\0asm\x01\0\0\0").unwrap();
        assert_eq!((component, module), (Abi::Component, Abi::Preview1));
        for bytes in [&b"\x7fELF"[..], b"\0asm\x0d\0", b""] {
            let failure = abi_of(bytes).unwrap_err();
            assert_eq!(failure.error.to_string(), "this is not WebAssembly");
        }
    }

    #[test]
    fn the_job_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","filenames":["/t/libdep.rlib"]}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","filenames":["/t/job.wasm","/t/libjob.rlib"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(
            find_module(messages.as_bytes()),
            Some(PathBuf::from("/t/job.wasm"))
        );
        assert_eq!(find_module(&b""[..]), None);
    }
}
