//! The sources that std for wasm is built from.
//!
//! In: `TUSSAH_RUST_SRC` and `TUSSAH_WASI_LIBC`, or Debian's packages by apt.
//! Out: the `library` folder of exactly this rustc's source, and wasi-libc's folder of the target.
//! Never: changes the machine's package lists, or names a server: the mirror is the one that the
//! machine's own apt configuration names.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::libc_folder;
use crate::toolchain::Toolchain;
use crate::{command, ui};

/// Suites that are asked for the packages, in this order; the first keeps several versions of
/// each, and its list is small.
const SUITES: &[&str] = &["trixie-backports", "trixie", "sid"];

/// What to do when no source can be had.
const ADVICE: &str = "install the target by `rustup target add`, or set TUSSAH_RUST_SRC to the \
    `library` folder of this rustc's source and TUSSAH_WASI_LIBC to a folder with \
    <target>/libc.a and <target>/crt1-command.o";

/// Where the two sources lie and where they came from.
#[derive(Debug)]
pub(super) struct Sources {
    /// The folder with `std/`, `core/` and `Cargo.lock`.
    pub(super) library: PathBuf,
    /// What the library came from, for the record.
    pub(super) rust_origin: String,
    /// Of a wasm target.
    pub(super) libc: Option<Libc>,
}

/// Wasi-libc.
#[derive(Debug)]
pub(super) struct Libc {
    /// The folder with `libc.a` and the start files.
    pub(super) folder: PathBuf,
    /// What it came from, for the record.
    pub(super) origin: String,
}

/// Takes the sources that the environment names, else downloads them into `work`.
///
/// # Errors
/// A named folder is not what it should be, or there is no apt or no package of this version.
pub(super) fn find(toolchain: &Toolchain, target: &str, work: &Path) -> Result<Sources> {
    let rust = env::var_os("TUSSAH_RUST_SRC").filter(|path| !path.is_empty());
    let libc = env::var_os("TUSSAH_WASI_LIBC").filter(|path| !path.is_empty());
    let takes_libc = libc_folder(target)?.is_some();
    match (rust, libc) {
        (Some(rust), _) if !takes_libc => named_rust(Path::new(&rust), work),
        (None, _) if !takes_libc => packaged(toolchain, target, work).context(ADVICE),
        (Some(rust), Some(libc)) => named(Path::new(&rust), Path::new(&libc), target, work),
        (None, None) => packaged(toolchain, target, work).context(ADVICE),
        _ => bail!("set both TUSSAH_RUST_SRC and TUSSAH_WASI_LIBC, or neither"),
    }
}

fn named_rust(rust: &Path, work: &Path) -> Result<Sources> {
    let library = [rust.join("library"), rust.to_path_buf()]
        .into_iter()
        .find(|folder| folder.join("std/Cargo.toml").is_file())
        .with_context(|| format!("TUSSAH_RUST_SRC: no library/std in {}", rust.display()))?;
    Ok(Sources {
        // Paths that std is built from are replaced by prefix, so they must be the real ones.
        library: fs::canonicalize(with_present_members(library, work)?)?,
        rust_origin: "TUSSAH_RUST_SRC".to_owned(),
        libc: None,
    })
}

fn named(rust: &Path, libc: &Path, target: &str, work: &Path) -> Result<Sources> {
    let sources = named_rust(rust, work)?;
    let folders = [target, libc_folder(target)?.unwrap_or_default(), ""];
    let folder = folders
        .into_iter()
        .map(|name| libc.join(name))
        .find(|folder| folder.join("libc.a").is_file())
        .with_context(|| format!("TUSSAH_WASI_LIBC: no {target}/libc.a in {}", libc.display()))?;
    Ok(Sources {
        libc: Some(Libc {
            folder,
            origin: "TUSSAH_WASI_LIBC".to_owned(),
        }),
        ..sources
    })
}

/// Std's workspace without the members that its copy lacks: a source packed for building often
/// leaves std's own tests out, and cargo refuses a workspace with a member missing.
fn with_present_members(library: PathBuf, work: &Path) -> Result<PathBuf> {
    let manifest = library.join("Cargo.toml");
    let mut table: toml::Table = fs::read_to_string(&manifest)?
        .parse()
        .with_context(|| format!("{} is not a manifest", manifest.display()))?;
    let members = table
        .get_mut("workspace")
        .and_then(|workspace| workspace.get_mut("members"))
        .and_then(toml::Value::as_array_mut)
        .with_context(|| format!("{} is no workspace", manifest.display()))?;
    let all = members.len();
    members.retain(|member| {
        member
            .as_str()
            .is_some_and(|name| library.join(name).is_dir())
    });
    if members.len() == all {
        return Ok(library);
    }
    let copy = work.join("library");
    copy_folder(&library, &copy)?;
    fs::remove_file(copy.join("Cargo.toml"))?;
    fs::write(copy.join("Cargo.toml"), toml::to_string(&table)?)?;
    Ok(copy)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if entry.path().is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn packaged(toolchain: &Toolchain, target: &str, work: &Path) -> Result<Sources> {
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
        ensure!(command::exists(program), "this machine has no {program}");
    }
    let mirrors = mirrors()?;
    let mut refusals = Vec::new();
    for suite in SUITES {
        for mirror in &mirrors {
            let apt = match Apt::new(work, mirror, suite) {
                Ok(apt) => apt,
                Err(error) => {
                    refusals.push(format!("{suite}: {error:#}"));
                    continue;
                }
            };
            let rust = apt.version("rust-src", |version| {
                is_of_release(version, &toolchain.release)
            })?;
            let libc = match libc_folder(target)? {
                None => None,
                Some(folder) => apt.version("wasi-libc", |_| true)?.map(|it| (it, folder)),
            };
            let lacks_libc = libc.is_none() && libc_folder(target)?.is_some();
            let (Some(rust), false) = (rust, lacks_libc) else {
                refusals.push(format!("{suite}: no rust-src {}", toolchain.release));
                continue;
            };
            return apt.fetch(&rust, libc, target);
        }
    }
    bail!(
        "no packaged source of rustc {}: {}",
        toolchain.release,
        refusals.join("; ")
    )
}

/// True where a package's version is of `release`: `1.95.0+dfsg1-2` is, `1.95.01` is not.
fn is_of_release(version: &str, release: &str) -> bool {
    let rest = version.strip_prefix(release);
    rest.is_some_and(|rest| rest.starts_with(['+', '-', '~']))
}

/// The mirrors of the machine's own apt configuration, read whether or not its lists are there.
fn mirrors() -> Result<Vec<String>> {
    let mut ask = Command::new("apt-get");
    ask.args([
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI) $(RELEASE)",
    ]);
    let targets = command::output(ask.args(["Created-By: Packages", "Component: main"]))?;
    let mut mirrors = Vec::new();
    for line in targets.lines() {
        let Some((uri, suite)) = line.split_once(' ') else {
            continue;
        };
        if !suite.contains("security") && !mirrors.iter().any(|known| known == uri) {
            mirrors.push(uri.to_owned());
        }
    }
    ensure!(
        !mirrors.is_empty(),
        "the machine's apt configuration names no mirror"
    );
    Ok(mirrors)
}

/// An apt with lists and cache of its own.
struct Apt {
    folder: PathBuf,
    suite: &'static str,
}

impl Apt {
    /// Reads the lists of `suite`.
    fn new(work: &Path, mirror: &str, suite: &'static str) -> Result<Apt> {
        let folder = work.join("apt").join(suite);
        for sub in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        let keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let signed = if keys.is_file() {
            format!("Signed-By: {}\n", keys.display())
        } else {
            String::new()
        };
        fs::write(
            folder.join("sources/std.sources"),
            format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n{signed}"),
        )?;
        let apt = Apt { folder, suite };
        ui::say(&format!("setup: reading the package list of {suite}"));
        command::output(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        for setting in [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            option("Dir::Etc::sourceparts", &self.folder.join("sources")),
            option("Dir::State::lists", &self.folder.join("lists")),
            option("Dir::Cache", &self.folder.join("cache")),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::http::Timeout=20".to_owned(),
            "Acquire::https::Timeout=20".to_owned(),
            "Acquire::Retries=1".to_owned(),
            // A missing list is an error here, not a warning.
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            command.arg("-o").arg(setting);
        }
        if cfg!(target_os = "linux") {
            // The folders are ours alone, so apt's own unprivileged user could not write there.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.current_dir(&self.folder);
        command
    }

    /// The first offered version of `package` that `wanted` accepts.
    fn version(&self, package: &str, wanted: impl Fn(&str) -> bool) -> Result<Option<String>> {
        let table = command::output(self.command("apt-cache").args(["madison", package]))?;
        let mut versions = table
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(str::trim);
        Ok(versions.find(|version| wanted(version)).map(str::to_owned))
    }

    /// Downloads the packages and unpacks the parts that are needed; of libc, with its folder.
    fn fetch(&self, rust: &str, libc: Option<(String, &str)>, target: &str) -> Result<Sources> {
        let mut wanted = vec![format!("rust-src={rust}")];
        wanted.extend(libc.iter().map(|(libc, _)| format!("wasi-libc={libc}")));
        ui::say(&format!(
            "setup: downloading {} from {} (about 44 MiB)",
            wanted.join(" and ").replace('=', " "),
            self.suite
        ));
        command::output(self.command("apt-get").arg("download").args(&wanted))?;
        let unpacked = self.folder.join("unpacked");
        fs::create_dir_all(&unpacked)?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with("rust-src_") {
                unpack(&path, &unpacked, "./usr/src/*/library")?;
            } else if let (true, Some((_, folder))) = (name.starts_with("wasi-libc_"), &libc) {
                unpack(&path, &unpacked, &format!("./usr/lib/{folder}"))?;
            }
        }
        let mut library = None;
        for entry in fs::read_dir(unpacked.join("usr/src"))? {
            let folder = entry?.path().join("library");
            if folder.join("std/Cargo.toml").is_file() {
                library = Some(folder);
            }
        }
        let libc = match libc {
            None => None,
            Some((version, folder)) => {
                let folder = unpacked.join("usr/lib").join(folder);
                ensure!(
                    folder.join("libc.a").is_file(),
                    "wasi-libc {version} holds no {target}"
                );
                let origin = format!("Debian {} wasi-libc {version}", self.suite);
                Some(Libc { folder, origin })
            }
        };
        Ok(Sources {
            library: fs::canonicalize(library.context("rust-src holds no library/std")?)?,
            rust_origin: format!("Debian {} rust-src {rust}", self.suite),
            libc,
        })
    }
}

/// Unpacks what `pattern` names; the whole of rust-src would take six times the room.
fn unpack(package: &Path, into: &Path, pattern: &str) -> Result<()> {
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let archive = reader.stdout.take().context("dpkg-deb's stdout is piped")?;
    let status = Command::new("tar")
        .args(["--extract", "--wildcards", "--no-same-owner", "--directory"])
        .arg(into)
        .arg(pattern)
        .stdin(archive)
        .status()
        .context("cannot start tar")?;
    let read = reader.wait()?;
    ensure!(
        status.success() && read.success(),
        "cannot unpack {}",
        package.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_taken_for_its_own_release_only() {
        assert!(is_of_release("1.95.0+dfsg1-2~bpo13+1", "1.95.0"));
        assert!(is_of_release("1.95.0-1", "1.95.0"));
        assert!(!is_of_release("1.95.01-1", "1.95.0"));
        assert!(!is_of_release("1.96.1+dfsg1-2", "1.95.0"));
    }

    #[test]
    fn named_sources_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            named(folder.path(), folder.path(), "wasm32-wasip2", folder.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("TUSSAH_RUST_SRC: no library/std in"),
            "{error}"
        );
    }
}
