//! Vulkan drivers: whether this machine has any, and Mesa's software one for the tests.
//!
//! In: the folders in which Vulkan's loader looks for drivers, and apt where it is there.
//! Out: a machine with a driver, or a line that says what to install.
//! Never: asks for a password, replaces a driver, or fails a set-up for want of one: what needs a
//! GPU says so itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{command, ui};

/// Debian's package of Mesa's drivers, llvmpipe among them.
const PACKAGE: &str = "mesa-vulkan-drivers";
/// How the file begins by which the loader knows llvmpipe.
const LLVMPIPE: &str = "lvp_icd";
/// Names the adapter that tests run on; without it they take llvmpipe.
const TEST_GPU: &str = "TUSSAH_TEST_GPU";

/// Which driver is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Any: jobs run on the GPU there is, or on the software adapter by name.
    Any,
    /// The one that tests run on: llvmpipe, unless the environment names another adapter.
    Tests,
}

/// Installs Mesa's drivers where the one that is needed is missing and apt can be used; else says
/// what to install.
pub(crate) fn ensure(driver: Driver) {
    if !cfg!(target_os = "linux") || is_there(driver) {
        return;
    }
    let why = match driver {
        Driver::Any => "no Vulkan driver was found",
        Driver::Tests => "the tests' Vulkan driver, llvmpipe, was not found",
    };
    if !Path::new("/etc/debian_version").exists() || !command::exists("apt-get") {
        ui::say(&format!(
            "setup: {why}: install your system's package of Mesa's Vulkan drivers, llvmpipe (lavapipe) included"
        ));
        return;
    }
    ui::say(&format!("setup: {why}; installing {PACKAGE}"));
    if let Err(error) = install() {
        ui::say(&format!(
            "setup: {error:#}\nsetup: {PACKAGE} could not be installed; as root: apt-get install {PACKAGE}"
        ));
    }
}

/// What tests of the GPU are told on this system: with a driver at hand none may be skipped.
pub(crate) fn for_tests(tests: &mut Command) {
    if cfg!(target_os = "linux") || std::env::var_os(TEST_GPU).is_some() {
        tests.env("REQUIRE_GPU", "1");
    }
    // Mesa's layer that picks a device for windows complains of sessions without one.
    tests.env("NODEVICE_SELECT", "1");
}

fn is_there(driver: Driver) -> bool {
    let named = std::env::var_os(TEST_GPU).is_some();
    let any = driver == Driver::Any || named;
    manifest_folders()
        .iter()
        .any(|folder| holds(folder, if any { "" } else { LLVMPIPE }))
}

/// Whether a folder has a driver's manifest, a JSON file, whose name begins so.
fn holds(folder: &Path, begin: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(begin) && name.ends_with(".json")
    })
}

/// Where Vulkan's loader looks on Linux: "Driver Discovery on Linux" of its driver interface.
fn manifest_folders() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = ["/etc", "/usr/local/etc", "/usr/local/share", "/usr/share"]
        .iter()
        .map(PathBuf::from)
        .collect();
    for list in ["XDG_CONFIG_DIRS", "XDG_DATA_DIRS"] {
        if let Some(list) = std::env::var_os(list) {
            roots.extend(std::env::split_paths(&list));
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        roots.push(Path::new(&home).join(".local/share"));
    }
    let folder = |root: PathBuf| root.join("vulkan/icd.d");
    roots.into_iter().map(folder).collect()
}

/// By root, or by sudo where that asks for nothing.
fn install() -> Result<()> {
    let root = command::output(Command::new("id").arg("-u"))?.trim() == "0";
    let apt = || {
        let mut apt = if root {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            sudo
        };
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    command::run(apt().args(["update", "-q"]))?;
    command::run(apt().args(["install", "-q", "-y", "--no-install-recommends", PACKAGE]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_by_their_manifests() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(!holds(&folder.join("not-there"), ""));
        assert!(!holds(folder, ""));
        fs::write(folder.join("lvp_icd.txt"), "").unwrap();
        assert!(!holds(folder, ""), "no manifest");
        fs::write(folder.join("nvidia_icd.json"), "{}").unwrap();
        assert!(holds(folder, "") && !holds(folder, LLVMPIPE));
        fs::write(folder.join("lvp_icd.x86_64.json"), "{}").unwrap();
        assert!(holds(folder, LLVMPIPE));
    }
}
