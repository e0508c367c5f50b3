//! The Rust toolchain that builds jobs: which one, and whether it has std for wasm.
//!
//! In: a job's folder, since rustup's overrides go by folder. Out: versions and paths, and
//! commands whose environment holds nothing that would change a module's bytes.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use tussah_manifest::{Abi, Digest, Domain, Hasher};

use crate::{exit_code::Exit, failure::Failure, home::Home};

/// What jobs are compiled to, unless their ABI is another.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// What jobs of an ABI are compiled to.
pub(crate) const fn wasm_target(abi: Abi) -> &'static str {
    match abi {
        Abi::Component => WASM_TARGET,
        Abi::Preview1 => "wasm32-wasip1",
    }
}

/// The compiler that a folder uses.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// Such as `1.95.0`.
    pub(crate) release: String,
    /// Such as `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub(crate) version: String,
    /// The compiler's commit, or `unknown`.
    pub(crate) commit: String,
    /// The machine that it runs on, such as `x86_64-unknown-linux-gnu`.
    pub(crate) host: String,
    /// Where the compiler's own std is.
    pub(crate) sysroot: PathBuf,
}

/// Where std for wasm comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WasmStd {
    /// The toolchain's own, as `rustup target add` installs it.
    Installed,
    /// Built from source into this folder by `cargo xtask setup`.
    Private(PathBuf),
}

/// Why jobs cannot be built here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolchainError {
    /// A program is not installed or could not be started.
    #[error("cannot run `{program}`")]
    Start {
        program: &'static str,
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{program}` failed: {stderr}")]
    Failed {
        program: &'static str,
        stderr: String,
    },
    /// Its answer is not what it always was.
    #[error("`rustc -vV` did not name its release and host")]
    Unknown,
    /// There is no std for the target.
    #[error("{version} has no standard library for {target}; looked in {} and {}",
        installed.display(), private.display())]
    NoWasmStd {
        target: &'static str,
        version: String,
        installed: PathBuf,
        private: PathBuf,
    },
}

impl From<ToolchainError> for Failure {
    fn from(error: ToolchainError) -> Self {
        let help = match &error {
            ToolchainError::Start { .. } => {
                "install Rust 1.95 or later, from https://rustup.rs or your distribution".to_owned()
            }
            ToolchainError::NoWasmStd { target, .. } => format!(
                "run `rustup target add {target}`, or, where rustup has none, \
                 `cargo xtask setup` in a checkout of Tussah"
            ),
            ToolchainError::Failed { .. } | ToolchainError::Unknown => {
                "run `rustc -vV` in the job's folder and see what it says".to_owned()
            }
        };
        Self::new(Exit::HOST_FAILED, error).help(help)
    }
}

impl Toolchain {
    /// Asks the compiler of this folder.
    ///
    /// # Errors
    /// [`ToolchainError`] if there is none, or it does not answer.
    pub(crate) fn of(folder: &Path) -> Result<Self, ToolchainError> {
        let verbose = ask("rustc", folder, &["-vV"])?;
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let commit = field("commit-hash:").unwrap_or("unknown");
        Ok(Self {
            release: field("release:").ok_or(ToolchainError::Unknown)?.to_owned(),
            version: verbose.lines().next().unwrap_or_default().to_owned(),
            commit: commit.to_owned(),
            host: field("host:").ok_or(ToolchainError::Unknown)?.to_owned(),
            sysroot: PathBuf::from(ask("rustc", folder, &["--print", "sysroot"])?.trim()),
        })
    }

    /// Finds std for a wasm target: the toolchain's own, else the private one of this home.
    ///
    /// # Errors
    /// [`ToolchainError::NoWasmStd`] if there is neither.
    pub(crate) fn wasm_std(
        &self,
        home: &Home,
        target: &'static str,
    ) -> Result<WasmStd, ToolchainError> {
        let below = Path::new("lib/rustlib").join(target).join("lib");
        let private = home
            .root()
            .join("sysroots")
            .join(format!("{}-{:.9}", self.release, self.commit));
        let installed = self.sysroot.join(&below);
        if holds_std(&installed) {
            return Ok(WasmStd::Installed);
        }
        if holds_std(&private.join(&below)) {
            // One path for one std, whatever link led to it: cargo builds anew for another.
            let private = private.canonicalize().unwrap_or(private);
            return Ok(WasmStd::Private(private));
        }
        let version = self.version.clone();
        Err(ToolchainError::NoWasmStd {
            target,
            version,
            installed,
            private: private.join(&below),
        })
    }
}

impl WasmStd {
    /// The digest of its files: of each name, length and content, in the order of their paths.
    ///
    /// # Errors
    /// The system's, if one cannot be read.
    pub(crate) fn digest(&self, toolchain: &Toolchain, target: &str) -> io::Result<Digest> {
        let sysroot = match self {
            Self::Installed => &toolchain.sysroot,
            Self::Private(sysroot) => sysroot,
        };
        let lib = sysroot.join("lib/rustlib").join(target).join("lib");
        let mut files = Vec::new();
        for folder in [lib.join("self-contained"), lib] {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_file() {
                    files.push(path);
                }
            }
        }
        files.sort();
        let mut hasher = Hasher::derive(Domain::WasmStd);
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let content = std::fs::read(&file)?;
            hasher.update(format!("{name}\0{}\0", content.len()).as_bytes());
            hasher.update(&content);
        }
        Ok(hasher.finish())
    }
}

/// A command in a folder, without the variables that would change what cargo builds.
/// Rustup's choice of toolchain stays, and so do proxies and certificates.
pub(crate) fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if changes_builds(&name) {
            command.env_remove(name);
        }
    }
    // Empty means none, even where a configuration file names one.
    command
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "");
    command
}

fn changes_builds(name: &OsStr) -> bool {
    const NAMES: [&str; 9] = [
        "RUSTC",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC_BOOTSTRAP",
        "RUSTC_LINKER",
        "CARGO",
        "CARGO_INCREMENTAL",
        "CARGO_MANIFEST_DIR",
        "SOURCE_DATE_EPOCH",
    ];
    const PREFIXES: [&str; 9] = [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_ENCODED_",
        "CARGO_UNSTABLE_",
        "CARGO_PKG_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "__CARGO_",
    ];
    let name = name.to_string_lossy();
    NAMES.contains(&name.as_ref()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn ask(program: &'static str, folder: &Path, arguments: &[&str]) -> Result<String, ToolchainError> {
    let output = command(program, folder)
        .args(arguments)
        .output()
        .map_err(|source| ToolchainError::Start { program, source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ToolchainError::Failed { program, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn holds_std(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_change_bytes_are_known() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_LTO",
        ] {
            assert!(changes_builds(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_TOOLCHAIN",
            "HTTPS_PROXY",
        ] {
            assert!(!changes_builds(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_private_sysroot_is_found_by_version() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home")).unwrap();
        let toolchain = Toolchain {
            release: "1.95.0".to_owned(),
            version: "rustc 1.95.0".to_owned(),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            commit: "59807616e1fa2540724bfbac14d7976d7e4a3860".to_owned(),
            sysroot: temporary.path().join("toolchain"),
        };
        let error = toolchain.wasm_std(&home, WASM_TARGET).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no standard library for wasm32-wasip2"),
            "{error}"
        );
        let private = home.root().join("sysroots/1.95.0-59807616e");
        let lib = private.join("lib/rustlib/wasm32-wasip2/lib");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join("libstd-0.rlib"), b"").unwrap();
        assert_eq!(
            toolchain.wasm_std(&home, WASM_TARGET).unwrap(),
            WasmStd::Private(private.canonicalize().unwrap())
        );
        let installed = toolchain.sysroot.join("lib/rustlib/wasm32-wasip2/lib");
        std::fs::create_dir_all(&installed).unwrap();
        std::fs::write(installed.join("libstd-0.rlib"), b"").unwrap();
        assert_eq!(
            toolchain.wasm_std(&home, WASM_TARGET).unwrap(),
            WasmStd::Installed
        );
    }
}
