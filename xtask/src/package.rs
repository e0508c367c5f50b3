//! `cargo xtask package`: the Debian package, and what can be known of the service without starting it.
//!
//! In: `packaging/`, the release build. Out: a `.deb` under the target folder; systemd's own verdict
//! on the unit. Never: installs anything outside the target folder, or starts a service.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{command, ui};

/// What makes the package.
const CARGO_DEB: &str = "3.8.0";
/// systemd's measure of what a service could do, from 0 to 10, times ten. The unit has 1.5: it needs
/// the network and GPUs, and its code is made while it runs.
const EXPOSURE_MAX: &str = "--threshold=20";
/// What the package has to have in it.
const CONTENTS: [&str; 4] = [
    "./usr/bin/tussah",
    "./usr/lib/systemd/system/tussah.service",
    "./usr/lib/sysusers.d/tussah.conf",
    "./usr/share/doc/tussah/install.md",
];

/// Builds the package, and looks at what is in it.
///
/// # Errors
/// A tool is missing or fails, or the package lacks a file.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::ask()?;
    let program = cargo_deb(&workspace)?;
    // By the one way that gives the same bytes to everybody, apart from other release builds.
    let target = workspace.target.join("packaged");
    fs::create_dir_all(&target)?;
    let mut build = Command::new("sh");
    build.arg("packaging/build").current_dir(&workspace.root);
    command::run(build.env("CARGO_TARGET_DIR", &target))?;
    let folder = workspace.target.join("debian");
    fs::create_dir_all(&folder)?;
    let mut make = Command::new(program);
    make.current_dir(&workspace.root)
        .args(["--package", "tussah-host", "--no-build", "--locked"])
        .arg("--output")
        .arg(&folder)
        .env("CARGO_TARGET_DIR", &target);
    let made = command::output(&mut make)?;
    let package = made.lines().last().context("cargo-deb named no file")?;
    look_into(package)?;
    if let Some(why) = check_unit(&workspace)? {
        ui::say(&format!("the unit is unchecked: {why}"));
    }
    ui::say(&format!("made {package}"));
    Ok(())
}

/// cargo-deb of our version, installed beside what we build where it is not there.
fn cargo_deb(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.target.join("tools");
    let program = root.join("bin/cargo-deb");
    let version = command::output(Command::new(&program).arg("--version"));
    if version.is_ok_and(|version| version.trim().ends_with(CARGO_DEB)) {
        return Ok(program);
    }
    ui::say(&format!("installing cargo-deb {CARGO_DEB}"));
    let mut install = command::cargo();
    install
        .args(["install", "cargo-deb", "--locked", "--force"])
        .args(["--no-default-features", "--version", CARGO_DEB])
        .arg("--root")
        .arg(&root);
    command::run(&mut install)?;
    Ok(program)
}

fn look_into(package: &str) -> Result<()> {
    if !command::exists("dpkg-deb") {
        ui::say("dpkg-deb is not installed; what is in the package is unchecked");
        return Ok(());
    }
    let listed = command::output(Command::new("dpkg-deb").args(["--contents", package]))?;
    for file in CONTENTS {
        let is_it = |line: &str| line.split_whitespace().any(|word| word == file);
        if !listed.lines().any(is_it) {
            bail!("{package} lacks {file}:\n{listed}");
        }
    }
    Ok(())
}

/// What systemd says of the unit; why it could not be asked, if it could not.
///
/// # Errors
/// It finds something wrong, or the service could do more than it needs.
pub(crate) fn check_unit(workspace: &Workspace) -> Result<Option<String>> {
    if !command::exists("systemd-analyze") {
        return Ok(Some("systemd is not installed".to_owned()));
    }
    // It looks for the program, which is not installed here.
    let unit = fs::read_to_string(workspace.root.join("packaging/tussah.service"))?;
    let folder = workspace.target.join("packaging");
    fs::create_dir_all(&folder)?;
    let path = folder.join("tussah.service");
    fs::write(&path, unit.replace("/usr/bin/tussah", "/bin/true"))?;
    let analyze = |arguments: &[&str]| {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(arguments).arg(&path);
        let ended = analyze.output().context("cannot run systemd-analyze")?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        Ok::<_, anyhow::Error>((ended.status.success(), said))
    };
    // What it does not know it passes over with a word, and the service would be less than it says.
    let (is_right, said) = analyze(&["verify"])?;
    if !is_right || said.contains("tussah.service") {
        bail!("systemd-analyze verify: {said}");
    }
    let offline = ["security", "--offline=true", EXPOSURE_MAX, "--no-pager"];
    let (is_closed, said) = analyze(&offline)?;
    if said.contains("unrecognized option") {
        return Ok(Some("this systemd cannot judge a unit offline".to_owned()));
    }
    if !is_closed {
        bail!("the service could do more than it may: see `systemd-analyze security`\n{said}");
    }
    Ok(None)
}
