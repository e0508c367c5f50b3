//! What a source depends on, fetched into a CARGO_HOME of its own.
//!
//! In: a lock file, and what this user's cargo has already, taken only where its SHA-256 is the
//! lock's. Out: packages. Cargo runs in an empty folder meanwhile, so that no configuration of the
//! source has a say, and it runs nothing of what it fetches.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    source::hex,
    step::{self, Bounds},
};
use crate::{
    failure::{Failure, file_failure},
    input,
    interrupt::Interrupt,
    tools::{Fresh, Step, own_cargo_home},
    ui::Ui,
};

/// The most of a lock file that is read.
const LOCK_BYTES_MAX: u64 = 16 << 20;
/// The most of a package that is taken, packed.
const PACKAGE_BYTES_MAX: u64 = 256 << 20;
/// The most that is fetched, unpacked packages among it.
const FETCHED_BYTES_MAX: u64 = 8 << 30;
/// Of a package's name or version.
const NAME_BYTES_MAX: usize = 128;
/// Folders of packages that are looked through for compiled code.
const LOOK_MAX: usize = 100_000;
/// What compiled code is called; `verify/source.rs` looks at contents too.
const CODE_ENDINGS: [&str; 9] = ["wasm", "a", "o", "so", "dylib", "dll", "lib", "exe", "rlib"];

struct Locked {
    name: String,
    version: String,
    /// Of what a registry has; a package of the source itself has none.
    sha256: Option<String>,
    /// Whether it is fetched from somewhere.
    remote: bool,
}

impl Locked {
    /// Whether name and version are such as a registry gives: anything else is a path.
    fn is_named(&self) -> bool {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let is_version = |b: u8| b.is_ascii_alphanumeric() || b"-.+".contains(&b);
        let good = |text: &str, is_good: fn(u8) -> bool| {
            (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_good)
        };
        good(&self.name, is_name) && good(&self.version, is_version)
    }
}

/// The lock file that cargo uses for a folder: the nearest one above it.
fn lock_of(folder: &Path, root: &Path) -> Option<PathBuf> {
    let above = folder
        .ancestors()
        .take_while(|above| above.starts_with(root));
    let mut locks = above.map(|above| above.join("Cargo.lock"));
    locks.find(|lock| lock.is_file())
}

fn read_lock(lock: &Path) -> Vec<Locked> {
    let fits = fs::metadata(lock).is_ok_and(|meta| meta.len() <= LOCK_BYTES_MAX);
    let text = fits.then(|| fs::read_to_string(lock).ok()).flatten();
    let table = text.and_then(|text| text.parse::<toml::Table>().ok());
    let packages = table.and_then(|mut table| table.remove("package"));
    let packages = packages.and_then(|packages| packages.as_array().cloned());
    let text = |package: &toml::Value, key: &str| {
        let text = package.get(key).and_then(toml::Value::as_str);
        text.map(str::to_owned)
    };
    let locked = packages
        .unwrap_or_default()
        .into_iter()
        .filter_map(|package| {
            Some(Locked {
                name: text(&package, "name")?,
                version: text(&package, "version")?,
                sha256: text(&package, "checksum"),
                remote: package.get("source").is_some(),
            })
        });
    locked.collect()
}

/// Names and versions of the packages that a job can be made of.
pub(super) fn locked(folder: &Path, root: &Path) -> Vec<(String, String)> {
    let locked = lock_of(folder, root).map_or_else(Vec::new, |lock| read_lock(&lock));
    let pairs = locked
        .into_iter()
        .map(|locked| (locked.name, locked.version));
    pairs.collect()
}

/// Takes what this user's cargo has already; whether the lock file names anything that has to be
/// fetched at all.
///
/// # Errors
/// A failure if there is no lock file, or files cannot be copied.
pub(super) fn seed(fresh: &Fresh, folder: &Path, root: &Path) -> Result<bool, Failure> {
    let Some(lock) = lock_of(folder, root) else {
        let message = "the source has no Cargo.lock: which versions it was built of is lost";
        return Err(Failure::usage(message));
    };
    let locked = read_lock(&lock);
    if !locked.iter().any(|locked| locked.remote) {
        return Ok(false);
    }
    if let Some(own) = own_cargo_home() {
        copy_known(&own, &fresh.cargo_home(), &locked)
            .map_err(|error| file_failure("copy packages from", &own, error))?;
    }
    Ok(true)
}

/// Fetches what the lock file names.
///
/// # Errors
/// A failure if it cannot be had.
pub(super) fn fetch(
    fresh: &Fresh,
    folder: &Path,
    target: &str,
    bounds: &Bounds<'_>,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let _spinner = ui.spinner("fetching dependencies");
    let home = fresh.cargo_home();
    let bounds = Bounds {
        room: Some((&home, FETCHED_BYTES_MAX)),
        ..*bounds
    };
    let empty = home.with_file_name("tmp");
    let mut command = fresh.command("cargo", &empty, Step::Fetch);
    command.args(["fetch", "--locked", "--target", target, "--manifest-path"]);
    command.arg(folder.join("Cargo.toml"));
    let ended = step::run(fresh, command, &bounds, interrupt)?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Failure::usage(ended.said).context("the dependencies of the source cannot be fetched"))
}

/// Copies the index and those packages that are what the lock file says.
fn copy_known(own: &Path, fresh: &Path, locked: &[Locked]) -> std::io::Result<()> {
    let cache = own.join("registry/cache");
    for registry in folders(&cache) {
        let into = fresh
            .join("registry/cache")
            .join(registry.file_name().unwrap_or_default());
        fs::create_dir_all(&into)?;
        // Where cargo unpacks them: a build knows its folders before it begins.
        let unpacked = fresh.join("registry/src");
        fs::create_dir_all(unpacked.join(registry.file_name().unwrap_or_default()))?;
        for package in locked {
            let Some(sha256) = package.sha256.as_ref().filter(|_| package.is_named()) else {
                continue;
            };
            let file = format!("{}-{}.crate", package.name, package.version);
            let Ok(bytes) = input::bytes(&registry.join(&file), PACKAGE_BYTES_MAX) else {
                continue;
            };
            if hex(&Sha256::digest(&bytes)) == *sha256 {
                fs::write(into.join(&file), bytes)?;
            }
        }
        let index = own
            .join("registry/index")
            .join(registry.file_name().unwrap_or_default());
        let known: Vec<String> = locked
            .iter()
            .filter(|package| package.is_named())
            .map(|package| package.name.to_lowercase())
            .collect();
        copy_index(
            &index,
            &fresh
                .join("registry/index")
                .join(registry.file_name().unwrap_or_default()),
            &known,
        )?;
    }
    Ok(())
}

/// The index's settings, and the entries of these packages.
fn copy_index(from: &Path, to: &Path, names: &[String]) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    if from.join("config.json").is_file() {
        fs::copy(from.join("config.json"), to.join("config.json"))?;
    }
    for name in names {
        // As cargo divides names: 1/a, 2/ab, 3/a/abc, ab/cd/abcd….
        let Some(below) = index_folder(name) else {
            continue;
        };
        let entry = from.join(".cache").join(&below).join(name);
        if entry.is_file() {
            let into = to.join(".cache").join(&below);
            fs::create_dir_all(&into)?;
            fs::copy(entry, into.join(name))?;
        }
    }
    Ok(())
}

fn index_folder(name: &str) -> Option<String> {
    // A name of anything else is a path.
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    {
        return None;
    }
    Some(match name.len() {
        0 => return None,
        1 | 2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    })
}

fn folders(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// Compiled code in the packages that were fetched, as `PACKAGE/PATH`.
pub(super) fn blobs(fresh: &Fresh) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<(PathBuf, PathBuf)> = folders(&fresh.cargo_home().join("registry/src"))
        .into_iter()
        .map(|registry| (registry.clone(), registry))
        .collect();
    let mut looked = 0;
    while let Some((root, folder)) = folders.pop() {
        looked += 1;
        if looked > LOOK_MAX {
            break;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                folders.push((root.clone(), path));
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str());
            if ending.is_some_and(|ending| CODE_ENDINGS.contains(&ending)) {
                let below = path.strip_prefix(&root).unwrap_or(&path);
                found.push(below.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_entries_are_where_cargo_puts_them() {
        let folder = |name| index_folder(name);
        assert_eq!(folder("a").as_deref(), Some("1"));
        assert_eq!(folder("syn").as_deref(), Some("3/s"));
        assert_eq!(folder("serde").as_deref(), Some("se/rd"));
        assert_eq!(folder("../../x"), None);
        assert_eq!(folder(""), None);
    }

    #[test]
    fn only_packages_with_the_locks_sha256_are_taken() {
        let temporary = tempfile::tempdir().unwrap();
        let (own, fresh) = (temporary.path().join("own"), temporary.path().join("fresh"));
        let cache = own.join("registry/cache/example");
        fs::create_dir_all(&cache).unwrap();
        fs::write(cache.join("good-1.0.0.crate"), "good").unwrap();
        fs::write(cache.join("evil-1.0.0.crate"), "evil").unwrap();
        let locked = ["good", "evil"].map(|name| Locked {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            sha256: Some(hex(&Sha256::digest(b"good"))),
            remote: true,
        });
        // A name that leads elsewhere is none.
        fs::write(own.join("registry/good-1.0.0.crate"), "good").unwrap();
        let away = |name: &str, version: &str| Locked {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: Some(hex(&Sha256::digest(b"good"))),
            remote: true,
        };
        let mut locked = Vec::from(locked);
        locked.extend([
            away("../good", "1.0.0"),
            away("x", "/../../good-1.0.0"),
            away("", ""),
        ]);
        copy_known(&own, &fresh, &locked).unwrap();
        assert!(!fresh.join("registry/cache/good-1.0.0.crate").exists());
        let into = fresh.join("registry/cache/example");
        assert!(into.join("good-1.0.0.crate").exists());
        assert!(!into.join("evil-1.0.0.crate").exists());
    }
}
