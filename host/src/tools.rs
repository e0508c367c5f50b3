//! The surroundings in which cargo and rustc run: the user's own, or fresh ones for a stranger's
//! source, whose build scripts and macros are a stranger's programs.
//!
//! In: a toolchain and an empty folder. Out: commands. In fresh surroundings they have none of this
//! user's environment, a home and a CARGO_HOME of their own, and are confined: no file of this
//! user's is there to be opened or changed and, but for fetching, no socket can be made. Less is
//! never taken silently.

mod layers;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    failure::{Failure, file_failure},
    home::Home,
    toolchain::{self, Toolchain, WasmStd},
};

pub(crate) use layers::Layers;

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Confine {
    /// Refuse to build without namespaces, Landlock and seccomp.
    Required,
    /// Whatever of them this kernel enforces; the report says what that was.
    Available,
    /// Nothing: for machines that are thrown away after the build.
    None,
}

/// Where commands run and with what around them.
#[derive(Clone, Debug)]
pub(crate) enum Tools {
    /// The user's environment, less what would change bytes.
    Own,
    /// Nothing of it.
    Fresh(Fresh),
}

/// Surroundings of a stranger's build, all below one folder.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    work: PathBuf,
    programs: PathBuf,
    /// The machine's own, as the compiler calls it.
    host: String,
    read: Vec<PathBuf>,
    layers: Layers,
}

/// What a command is for, which decides what it may write and whether it has a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Lay out an archive in [`Fresh::source`].
    Unpack,
    /// Fetch a commit into [`Fresh::source`].
    Repository,
    /// Fetch packages into CARGO_HOME.
    Fetch,
    /// Unpack them there, and find out what would be built.
    Plan,
    /// Run what the source brings along. The packages stay as they were.
    Build,
}

/// Kept for who fetches alone: proxies and certificates.
const FETCHING: [&str; 9] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

impl Step {
    fn has_network(self) -> bool {
        matches!(self, Self::Repository | Self::Fetch)
    }
}

impl Fresh {
    /// Makes the folders; `read` is what the build reads besides the toolchain and the system.
    ///
    /// # Errors
    /// A host failure if the folder cannot be written.
    pub(crate) fn new(
        work: &Path,
        toolchain: &Toolchain,
        wasm_std: &WasmStd,
        mut read: Vec<PathBuf>,
        layers: Layers,
    ) -> Result<Self, Failure> {
        for folder in ["home", "cargo", "tmp", "target", "source", "root"] {
            let folder = work.join(folder);
            fs::create_dir_all(&folder).map_err(|error| file_failure("create", &folder, error))?;
        }
        read.push(toolchain.sysroot.clone());
        if let WasmStd::Private(sysroot) = wasm_std {
            read.push(sysroot.clone());
        }
        Ok(Self {
            work: work.to_owned(),
            programs: toolchain.sysroot.join("bin"),
            host: toolchain.host.clone(),
            read,
            layers,
        })
    }

    /// Where an archive is unpacked.
    pub(crate) fn source(&self) -> PathBuf {
        self.work.join("source")
    }

    pub(crate) fn cargo_home(&self) -> PathBuf {
        self.work.join("cargo")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.work.join("target")
    }

    /// A command with these surroundings; a program of the toolchain is its own, whatever a
    /// `rust-toolchain.toml` of the source asks for.
    pub(crate) fn command(&self, program: &str, folder: &Path, step: Step) -> Command {
        let own = self.programs.join(program);
        let program = match own.is_file() {
            true => own.into_os_string(),
            false => program.into(),
        };
        let mut command = self.confined(step, program);
        command.env_clear().current_dir(folder);
        let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
        let path = std::env::join_paths([self.programs.clone()].into_iter().chain(system));
        command
            .env("PATH", path.unwrap_or_default())
            .env("HOME", self.work.join("home"))
            .env("CARGO_HOME", self.cargo_home())
            .env("TMPDIR", self.work.join("tmp"))
            .env("CARGO_TERM_COLOR", "never")
            .env("LANG", "C.UTF-8")
            // What configuration files of the source say of these does not count. Empty is none.
            .env("RUSTC", self.programs.join("rustc"))
            .env("RUSTDOC", self.programs.join("rustdoc"))
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "");
        if cfg!(unix) {
            let host = self.host.to_uppercase().replace(['-', '.'], "_");
            command.env(format!("CARGO_TARGET_{host}_LINKER"), "cc");
        }
        if step.has_network() {
            for name in FETCHING {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command
    }

    /// What a step writes, and what it only reads of these folders.
    fn folders(&self, step: Step) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (write, read): (&[&str], &[&str]) = match step {
            Step::Unpack => (&["tmp", "source"], &[]),
            Step::Repository => (&["tmp", "home", "source"], &[]),
            Step::Fetch => (&["tmp", "home", "cargo"], &[]),
            Step::Plan => (&["tmp", "home", "cargo", "target"], &[]),
            Step::Build => (&["tmp", "home", "target"], &["cargo"]),
        };
        let below = |names: &[&str]| names.iter().map(|name| self.work.join(name)).collect();
        (below(write), below(read))
    }

    #[cfg(not(unix))]
    fn confined(&self, _: Step, program: OsString) -> Command {
        Command::new(program)
    }

    #[cfg(unix)]
    fn confined(&self, step: Step, program: OsString) -> Command {
        use std::os::unix::process::CommandExt as _;
        // This program confines itself, then starts the other. Its group can be ended as one.
        let mut command = Command::new(&program);
        if self.layers.confined {
            let this = std::env::current_exe().unwrap_or_else(|_| "tussah".into());
            command = Command::new(this);
            command.arg("build-confined");
            let (write, read) = self.folders(step);
            for path in self.read.iter().chain(&read) {
                command.arg("--read").arg(path);
            }
            for path in &write {
                command.arg("--write").arg(path);
            }
            for path in hidden() {
                command.arg("--hide").arg(path);
            }
            if step.has_network() {
                command.arg("--network");
            }
            if self.layers.namespaces {
                command.arg("--root").arg(self.work.join("root"));
            }
            command.arg("--").arg(program);
        }
        command.process_group(0);
        command
    }
}

impl Tools {
    /// Cargo in a folder, without a network where the surroundings are fresh.
    pub(crate) fn cargo(&self, folder: &Path) -> Command {
        match self {
            Self::Own => toolchain::command("cargo", folder),
            Self::Fresh(fresh) => {
                let mut command = fresh.command("cargo", folder, Step::Build);
                command.env("CARGO_NET_OFFLINE", "true");
                command
            }
        }
    }

    /// Where cargo keeps what it fetched.
    pub(crate) fn cargo_home(&self) -> Option<PathBuf> {
        match self {
            Self::Own => own_cargo_home(),
            Self::Fresh(fresh) => Some(fresh.cargo_home()),
        }
    }

    /// The user's CARGO_TARGET_DIR counts: it is a place, not an ingredient.
    pub(crate) fn target(&self) -> Option<PathBuf> {
        match self {
            Self::Own => std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from),
            Self::Fresh(fresh) => Some(fresh.target()),
        }
    }

    /// Kills what a command started, too.
    pub(crate) fn kill(&self, child: &mut std::process::Child) {
        #[cfg(unix)]
        if let Self::Fresh(_) = self {
            // It may have ended by itself.
            let _ = tussah_provider::isolation::kill_group(child.id());
        }
        let _ = child.kill();
    }
}

/// The user's CARGO_HOME.
pub(crate) fn own_cargo_home() -> Option<PathBuf> {
    let filled = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let home = match filled("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            Path::new(&filled(if cfg!(windows) { "USERPROFILE" } else { "HOME" })?).join(".cargo")
        }
    };
    std::path::absolute(home).ok()
}

/// This user's own folders, which are nobody's to read, wherever they are.
fn hidden() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let all = [
        own_cargo_home(),
        home,
        Home::open().ok().map(|home| home.root().to_owned()),
    ];
    // The root of all is nobody's own.
    let all = all
        .into_iter()
        .flatten()
        .filter_map(|path| path.canonicalize().ok());
    all.filter(|path| path.parent().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cargo hashes into the names of crates has to be the same for who builds and who
    /// verifies: a wrapper counts there, set and empty too.
    #[test]
    fn own_and_fresh_builds_set_the_same_wrappers() {
        let work = Path::new("/work");
        let fresh = Fresh {
            work: work.to_owned(),
            programs: work.join("bin"),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            read: Vec::new(),
            layers: Layers {
                namespaces: false,
                confined: false,
                said: String::new(),
            },
        };
        let wrappers = |tools: &Tools| {
            let command = tools.cargo(work);
            let set = command.get_envs().filter_map(|(name, value)| {
                let name = name.to_str()?.starts_with("RUSTC_").then_some(name)?;
                Some((name.to_owned(), value?.to_owned()))
            });
            set.collect::<std::collections::BTreeMap<_, _>>()
        };
        let own = wrappers(&Tools::Own);
        assert_eq!(own, wrappers(&Tools::Fresh(fresh)));
        for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            assert_eq!(own.get(std::ffi::OsStr::new(name)).unwrap(), "");
        }
    }
}
