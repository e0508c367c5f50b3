//! The surroundings in which cargo and rustc run: the user's own, or fresh ones for a stranger's
//! source, whose build scripts and macros are a stranger's programs.
//!
//! In: a toolchain and an empty folder. Out: commands. In fresh surroundings they have none of this
//! user's environment, a home and a CARGO_HOME of their own, and are confined: no file of this
//! user's can be opened and, but for fetching, no socket be made. Less is never taken silently.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    failure::{Failure, file_failure},
    toolchain::{self, Toolchain, WasmStd},
};

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Confine {
    /// Refuse to build where files and sockets cannot be kept away.
    Required,
    /// Whatever this kernel enforces; the report says what that was.
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
    read: Vec<PathBuf>,
    confine: Confine,
}

/// What a command may do besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Open,
    Closed,
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
        confine: Confine,
    ) -> Result<Self, Failure> {
        for folder in ["home", "cargo", "tmp", "target"] {
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
            read,
            confine,
        })
    }

    pub(crate) fn cargo_home(&self) -> PathBuf {
        self.work.join("cargo")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.work.join("target")
    }

    /// A command with these surroundings; a program of the toolchain is its own, whatever a
    /// `rust-toolchain.toml` of the source asks for.
    pub(crate) fn command(&self, program: &str, folder: &Path, network: Network) -> Command {
        let own = self.programs.join(program);
        let program = match own.is_file() {
            true => own.into_os_string(),
            false => program.into(),
        };
        let mut command = self.confined(network, program);
        command.env_clear().current_dir(folder);
        let system = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
        let path = std::env::join_paths([self.programs.clone()].into_iter().chain(system));
        command
            .env("PATH", path.unwrap_or_default())
            .env("HOME", self.work.join("home"))
            .env("CARGO_HOME", self.cargo_home())
            .env("TMPDIR", self.work.join("tmp"))
            .env("CARGO_TERM_COLOR", "never")
            .env("LANG", "C.UTF-8");
        if network == Network::Open {
            for name in FETCHING {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command
    }

    #[cfg(not(unix))]
    fn confined(&self, _: Network, program: OsString) -> Command {
        Command::new(program)
    }

    #[cfg(unix)]
    fn confined(&self, network: Network, program: OsString) -> Command {
        use std::os::unix::process::CommandExt as _;
        // This program confines itself, then becomes the other. Its group can be ended as one.
        let mut command = match self.confine {
            Confine::None => Command::new(program),
            Confine::Required | Confine::Available => {
                let this = std::env::current_exe().unwrap_or_else(|_| "tussah".into());
                let mut command = Command::new(this);
                command.arg("build-confined");
                for path in &self.read {
                    command.arg("--read").arg(path);
                }
                command.arg("--write").arg(&self.work);
                if network == Network::Open {
                    command.arg("--network");
                }
                if self.confine == Confine::Required {
                    command.arg("--required");
                }
                command.arg("--").arg(program);
                command
            }
        };
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
                let mut command = fresh.command("cargo", folder, Network::Closed);
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

/// What [`Confine::Required`] would come to here: what is enforced, or why too little is.
///
/// # Errors
/// What is missing, as one line.
pub(crate) fn confinement(confine: Confine) -> Result<String, String> {
    let found = match confine {
        Confine::None => return Ok("none was asked for".to_owned()),
        Confine::Required | Confine::Available => probe(),
    };
    match (found, confine) {
        (Ok(enforced), _) => Ok(enforced),
        (Err(missing), Confine::Required) => Err(missing),
        (Err(missing), _) => Ok(missing),
    }
}

#[cfg(unix)]
fn probe() -> Result<String, String> {
    use tussah_provider::{isolation, wire::Isolation};
    match isolation::probe() {
        Ok(found @ Isolation::None { .. }) => Err(found.to_string()),
        Ok(found) => Ok(format!("{found}, no sockets")),
        Err(error) => Err(Failure::host(error).chain().join(": ")),
    }
}

#[cfg(not(unix))]
fn probe() -> Result<String, String> {
    Err("not isolated: this operating system has no Landlock".to_owned())
}
