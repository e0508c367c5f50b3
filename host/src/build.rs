//! A job's source to a module, the same bytes on every machine with the same toolchain.
//!
//! In: a folder with `Cargo.toml` and `tussah.toml`. Out: `module.wasm` and `manifest.toml`
//! below the target folder. Nothing of this machine goes in: no path, no profile of the
//! user's, no flag of the environment; what came out is searched for paths all the same. The
//! module says in a section of its own how it was built.

mod compiler;
mod container;
mod export;
mod record;
pub(crate) mod sections;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;
use tussah_manifest::{
    Abi, BuildInfo, BuildRecord, Digest, JobDescription, Label, Manifest, ModuleRef,
};

use crate::{
    failure::{Failure, file_failure},
    home::Home,
    input,
    interrupt::Interrupt,
    toolchain::{self, Toolchain, WASM_TARGET, WasmStd},
    tools::Tools,
    ui::Ui,
};

pub(crate) use container::Image;
pub(crate) use record::{Declared, Made, package};

use compiler::Compiler;
use export::Export;

/// The file beside `Cargo.toml` that says what the job may use.
pub(crate) const DESCRIPTION: &str = "tussah.toml";

/// Larger than any manifest may be, so that the manifest's own reader says what is wrong.
pub(crate) const MANIFEST_FILE_BYTES_MAX: u64 = 1 << 20;

/// As cargo marks its own folders; <https://bford.info/cachedir/>.
pub(crate) const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_TAG_TEXT: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n";

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
    /// Such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub(crate) rustc: String,
    /// The files that rustc read, wherever they are.
    pub(crate) sources: Vec<PathBuf>,
    pub(crate) took: Duration,
}

/// What is to be built, and with what.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) home: &'a Home,
    pub(crate) folder: &'a Path,
    pub(crate) toolchain: Toolchain,
    pub(crate) tools: Tools,
    pub(crate) declared: Declared,
    /// Compilers at a time; cargo's own choice if it does not say.
    pub(crate) jobs: Option<u32>,
    /// Keep the names of functions, for who wants to know which one differs.
    pub(crate) names: bool,
    /// Where to build and to write, in place of cargo's own choice.
    pub(crate) target: Option<PathBuf>,
    /// A job without a lock file gets one.
    pub(crate) may_lock: bool,
    /// Cargo and what it starts are ended when this is over.
    pub(crate) deadline: Option<Instant>,
}

/// Builds the job of a folder with the user's own tools.
///
/// # Errors
/// A usage failure if the source or its description is wrong, a host failure if the
/// toolchain is.
pub(crate) fn build(
    home: &Home,
    folder: &Path,
    jobs: Option<u32>,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let folder = job_folder(folder)?;
    let mut order = Order::own(home, &folder)?;
    order.jobs = jobs;
    build_order(&order, ui, interrupt)
}

/// Builds the commit that a job's folder is at, so that anyone can repeat it; the commit's hash
/// comes with it. In a container where an image is named.
///
/// # Errors
/// As [`build`], and a usage failure if a stranger could not build the same, or nothing runs
/// containers here.
pub(crate) fn build_verifiable(
    home: &Home,
    folder: &Path,
    source_uri: Option<Label>,
    image: Option<&Image>,
    jobs: Option<u32>,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<(Built, String), Failure> {
    let folder = job_folder(folder)?;
    let export = Export::of(&folder, source_uri)?;
    let job = job_folder(&export.job)?;
    export.check_packages()?;
    let out = Project::of(&folder, &Tools::Own, Tools::Own.target())?.target;
    if let Some(image) = image {
        return Ok((
            in_container(&export, &job, image, &out, jobs, ui, interrupt)?,
            export.commit,
        ));
    }
    let mut order = Order::own(home, &job)?;
    order.jobs = jobs;
    let target = toolchain::wasm_target(read_description(&job)?.abi);
    let std_digest = order
        .toolchain
        .wasm_std(home, target)?
        .digest(&order.toolchain, target)
        .map_err(Failure::host)?;
    let toolchain = &order.toolchain;
    export.check_toolchain((&toolchain.release, &toolchain.commit), &std_digest)?;
    order.declared = export.declared.clone();
    order.may_lock = false;
    order.target = Some(out);
    Ok((build_order(&order, ui, interrupt)?, export.commit.clone()))
}

fn in_container(
    export: &Export,
    job: &Path,
    image: &Image,
    out: &Path,
    jobs: Option<u32>,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let started = Instant::now();
    let description = read_description(job)?;
    let below = (export.place.as_path(), &description.name);
    let source = &export.source;
    let (bytes, mut info) = container::build(image, source, below, jobs, ui, interrupt)?;
    export.check_toolchain(
        (info.rustc.as_str(), info.rustc_commit.as_str()),
        &info.std_digest,
    )?;
    info.source_sha256
        .clone_from(&export.declared.source_sha256);
    info.source_uri.clone_from(&export.declared.source_uri);
    if abi_of(&bytes)? != description.abi {
        return Err(Failure::host(
            "the image's tussah made a module of another kind",
        ));
    }
    let rustc = format!("rustc {} ({:.9})", info.rustc, info.rustc_commit.as_str());
    put(&bytes, info, description, out, rustc, started)
}

impl<'a> Order<'a> {
    /// As a user builds.
    ///
    /// # Errors
    /// A host failure if there is no toolchain.
    pub(crate) fn own(home: &'a Home, folder: &'a Path) -> Result<Self, Failure> {
        Ok(Self {
            home,
            folder,
            toolchain: Toolchain::of(folder)?,
            tools: Tools::Own,
            declared: Declared::default(),
            jobs: None,
            names: false,
            target: None,
            may_lock: true,
            deadline: None,
        })
    }
}

/// Builds what was ordered; the order's folder is absolute.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_order(
    order: &Order<'_>,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let started = Instant::now();
    let folder = job_folder(order.folder)?;
    let description = read_description(&folder)?;
    let toolchain = &order.toolchain;
    let abi = description.abi;
    let target = toolchain::wasm_target(abi);
    let wasm_std = toolchain.wasm_std(order.home, target)?;
    let target_folder = order.target.clone().or_else(|| order.tools.target());
    let project = Project::of(&folder, &order.tools, target_folder)?;
    project.lock(order.may_lock, ui)?;
    let compiler = Compiler {
        order,
        project: &project,
        abi,
        wasm_std: &wasm_std,
    };
    let made = compiler.run(ui, interrupt)?;
    let compiled = made.module.clone().unwrap_or_default();
    let bytes = read_module(&compiled)?;
    if abi_of(&bytes)? != abi {
        // Cargo was asked for the ABI's target: only a tool that is not cargo gives another.
        return Err(Failure::host(
            "cargo made a module of another kind than it was asked for",
        ));
    }
    let std_digest = wasm_std
        .digest(toolchain, target)
        .map_err(|error| Failure::host(error).context(format!("cannot read std for {target}")))?;
    let place = record::place(&folder, &project.workspace);
    let info = record::build_info(toolchain, std_digest, &made, place, &order.declared);
    check_paths(&bytes, &project.private_paths(order, &wasm_std))?;
    let rustc = toolchain.version.clone();
    let mut built = put(&bytes, info, description, &project.target, rustc, started)?;
    // What a stranger's build leaves there is nobody's to read.
    if matches!(order.tools, Tools::Own) {
        built.sources = sources_of(&compiled);
    }
    Ok(built)
}

/// Writes the module with its record, and its manifest, below a target folder.
fn put(
    bytes: &[u8],
    info: BuildInfo,
    description: JobDescription,
    target: &Path,
    rustc: String,
    started: Instant,
) -> Result<Built, Failure> {
    let bytes = sections::with_build_info(bytes, &info).map_err(Failure::host)?;
    let code_digest = sections::code_digest(&bytes).map_err(Failure::host)?;
    let module = Digest::of(&bytes);
    let mut manifest = description.with_module(ModuleRef::of(&bytes));
    manifest.build = Some(BuildRecord { code_digest, info });
    let out = target.join("tussah").join(manifest.job.name.as_str());
    let (module_path, manifest_path) = (out.join("module.wasm"), out.join("manifest.toml"));
    for folder in [target.join("tussah"), out.clone()] {
        if folder.is_symlink() {
            return Err(Failure::host(format!(
                "{} is a link, and the build writes only where it stands",
                folder.display()
            )));
        }
    }
    // What is below can be made again, and is no source.
    write(&target.join("tussah").join(CACHE_TAG), CACHE_TAG_TEXT)?;
    write(&module_path, &bytes)?;
    write(&manifest_path, manifest.to_toml().as_bytes())?;
    Ok(Built {
        manifest,
        module_path,
        manifest_path,
        module,
        size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        rustc,
        sources: Vec::new(),
        took: started.elapsed(),
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

/// What the job of a folder may use.
///
/// # Errors
/// A usage failure if its file is missing or wrong.
pub(crate) fn read_description(folder: &Path) -> Result<JobDescription, Failure> {
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
    fn of(folder: &Path, tools: &Tools, target: Option<PathBuf>) -> Result<Self, Failure> {
        let mut command = tools.cargo(folder);
        if let Some(target) = target {
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
    fn lock(&self, may_write: bool, ui: &Ui) -> Result<(), Failure> {
        if self.workspace.join("Cargo.lock").is_file() {
            return Ok(());
        }
        if !may_write {
            let message = "the source has no Cargo.lock: which versions it was built of is lost";
            return Err(Failure::usage(message));
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
    fn remaps(&self, order: &Order<'_>, wasm_std: &WasmStd) -> Vec<(PathBuf, String)> {
        let mut remaps = vec![
            (order.toolchain.sysroot.clone(), "/rust"),
            (self.workspace.clone(), "/job"),
            (self.build_target(), "/target"),
        ];
        if !self.folder.starts_with(&self.workspace) {
            remaps.push((self.folder.clone(), "/job"));
        }
        if let WasmStd::Private(sysroot) = wasm_std {
            remaps.push((sysroot.clone(), "/rust"));
        }
        let mut remaps: Vec<(PathBuf, String)> = remaps
            .into_iter()
            .map(|(from, to)| (from, to.to_owned()))
            .collect();
        if let Some(home) = order.tools.cargo_home() {
            // A mirror unpacks the same packages below a name of its own.
            let mirrors = registries(&home);
            remaps.push((home, "/cargo".to_owned()));
            remaps.extend(
                mirrors
                    .into_iter()
                    .map(|mirror| (mirror, CRATES_IO.to_owned())),
            );
        }
        remaps
    }

    /// What must not be found in a module, each with a separator behind it: `/root/`, not
    /// the `/root` of some other word.
    fn private_paths(&self, order: &Order<'_>, wasm_std: &WasmStd) -> Vec<PathBuf> {
        let user = std::env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let mut paths = vec![
            self.folder.clone(),
            self.workspace.clone(),
            self.target.clone(),
            order.toolchain.sysroot.clone(),
            order.home.root().to_owned(),
        ];
        if let WasmStd::Private(sysroot) = wasm_std {
            paths.push(sysroot.clone());
        }
        paths.extend(order.tools.cargo_home());
        paths.extend(user.map(PathBuf::from));
        // A path as short as `/` says nothing.
        paths.retain(|path| path.components().count() > 1);
        paths
    }
}

/// Where packages of crates.io are below `/cargo`, as cargo itself names the folder.
const CRATES_IO: &str = "/cargo/registry/src/index.crates.io-1949cf8c6b5b557f";

/// The folders below which packages of registries are unpacked.
fn registries(cargo_home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cargo_home.join("registry/src"));
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
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

/// Reads what cargo says that it made: a file in its own place, of a module's size at most, whatever a build script
/// has put there.
fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let found = fs::symlink_metadata(path).map_err(|error| file_failure("read", path, error))?;
    if !found.is_file() || found.len() > ModuleRef::SIZE_BYTES_MAX {
        return Err(Failure::host(format!(
            "{} is no file of {} bytes at most, as a module is",
            path.display(),
            ModuleRef::SIZE_BYTES_MAX
        )));
    }
    input::bytes(path, ModuleRef::SIZE_BYTES_MAX)
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
}
