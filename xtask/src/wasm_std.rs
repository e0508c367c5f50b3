//! Rust's standard library for a wasm target, or for another CPU's Linux on which tests run.
//!
//! In: the installed rustc, and one of: std that came with it, rustup, std's sources.
//! Out: std where `tussah build` looks: in the toolchain, or in
//! `TUSSAH_HOME/sysroots/<release>-<commit>/lib/rustlib/<target>/lib`.
//! Never: writes into the toolchain itself; only rustup does that, when it is asked to add a target.

mod build;
mod rustup;
mod sources;
mod wrapper;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

pub(crate) use wrapper::{WRAPPER_SWITCH, run_as_rustc_wrapper};

use crate::toolchain::Toolchain;
use crate::{home, ui};

/// Where std for wasm may come from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// What is there, else rustup, else source
    #[default]
    Auto,
    /// `rustup target add`, which adds to the installed toolchain
    Rustup,
    /// Built from std's packaged sources into a private sysroot
    Source,
}

/// Makes sure that std for `target` is there.
///
/// # Errors
/// No way worked; the error names each one and what it needs.
pub(crate) fn ensure(home: &Path, target: &str, way: Way) -> Result<()> {
    let toolchain = Toolchain::ask()?;
    let sysroot = home.join("sysroots").join(toolchain.name());
    if way != Way::Source && toolchain.has_std(target) {
        ui::say(&format!(
            "setup: std for {target} is in the toolchain; nothing to do"
        ));
        return Ok(());
    }
    if way != Way::Rustup && is_complete(&sysroot, target) {
        ui::say(&format!(
            "setup: std for {target} is in {}; nothing to do",
            sysroot.display()
        ));
        return Ok(());
    }
    let mut refusal = None;
    if way != Way::Source {
        match rustup::add_target(&toolchain, target) {
            Ok(()) => return Ok(()),
            Err(error) if way == Way::Rustup => return Err(error),
            Err(error) => {
                ui::say(&format!("setup: not by rustup: {error:#}"));
                refusal = Some(error);
            }
        }
    }
    from_source(home, &toolchain, &sysroot, target).with_context(|| {
        let rustup = match refusal {
            Some(error) => format!("rustup could not add it ({error:#}), and "),
            None => String::new(),
        };
        format!("no std for {target}: {rustup}the build from source failed")
    })
}

/// The private sysroot with std for `target`, which [`ensure`] has made, if the toolchain has none.
///
/// # Errors
/// There is no rustc.
pub(crate) fn sysroot(home: &Path, target: &str) -> Result<Option<PathBuf>> {
    let toolchain = Toolchain::ask()?;
    let sysroot = home.join("sysroots").join(toolchain.name());
    let is_private = is_complete(&sysroot, target) && !toolchain.has_std(target);
    Ok(is_private.then_some(sysroot))
}

/// Builds std beside its final place, tries it, then moves it there in one step.
fn from_source(home: &Path, toolchain: &Toolchain, sysroot: &Path, target: &str) -> Result<()> {
    let begun = Instant::now();
    ui::say(&format!(
        "setup: building std for {target} from source, once for rustc {}; \
         this takes one to two minutes and the installed toolchain is not touched",
        toolchain.release
    ));
    home::create(sysroot)?;
    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(home.join("sysroots"))
        .context("cannot create a work folder under TUSSAH_HOME")?;
    let sources = sources::find(toolchain, target, work.path())?;
    let staged = work.path().join("sysroot");
    let digest = build::build(toolchain, &sources, target, work.path(), &staged)?;
    if libc_folder(target)?.is_some() {
        build::try_out(&staged, target, work.path())?;
    }

    let place = target_folder(sysroot, target);
    fs::create_dir_all(place.parent().context("a target folder has a parent")?)?;
    if place.exists() {
        // Left by a run that stopped between the move and the record.
        fs::rename(&place, work.path().join("old")).context("cannot move the unfinished std")?;
    }
    fs::rename(target_folder(&staged, target), &place)
        .with_context(|| format!("cannot move std to {}", place.display()))?;
    record(sysroot, toolchain, &sources, target, &digest)?;
    ui::say(&format!(
        "setup: std for {target} is in {} ({}, {}, {digest})",
        sysroot.display(),
        ui::size(folder_bytes(&place)?),
        ui::seconds(begun.elapsed()),
    ));
    Ok(())
}

fn target_folder(sysroot: &Path, target: &str) -> PathBuf {
    sysroot.join("lib/rustlib").join(target)
}

/// The record is written last, so a target that stands in it is whole.
fn is_complete(sysroot: &Path, target: &str) -> bool {
    target_folder(sysroot, target).join("lib").is_dir()
        && read_record(sysroot).is_ok_and(|record| record.contains_key(target))
}

fn record_file(sysroot: &Path) -> PathBuf {
    sysroot.join("std.toml")
}

fn read_record(sysroot: &Path) -> Result<toml::Table> {
    let file = record_file(sysroot);
    if !file.exists() {
        return Ok(toml::Table::new());
    }
    let text = fs::read_to_string(&file)?;
    text.parse()
        .with_context(|| format!("{} is not TOML; remove it", file.display()))
}

/// Writes what std was made of: a module's digest depends on it.
fn record(
    sysroot: &Path,
    toolchain: &Toolchain,
    sources: &sources::Sources,
    target: &str,
    digest: &str,
) -> Result<()> {
    let mut record = read_record(sysroot)?;
    record.insert("rustc_release".to_owned(), toolchain.release.clone().into());
    record.insert("rustc_commit".to_owned(), toolchain.commit.clone().into());
    record.insert("rustc_host".to_owned(), toolchain.host.clone().into());
    let mut entry = toml::Table::new();
    entry.insert("digest".to_owned(), digest.into());
    entry.insert("rust_source".to_owned(), sources.rust_origin.clone().into());
    if let Some(libc) = &sources.libc {
        entry.insert("wasi_libc".to_owned(), libc.origin.clone().into());
    }
    record.insert(target.to_owned(), entry.into());

    let mut file = tempfile::NamedTempFile::new_in(sysroot)?;
    std::io::Write::write_all(&mut file, toml::to_string(&record)?.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(record_file(sysroot))
        .context("cannot write std.toml")?;
    Ok(())
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            meta.len()
        };
    }
    Ok(sum)
}

/// The name that Debian's wasi-libc gives to `target`'s folder; none where the linker brings a libc.
fn libc_folder(target: &str) -> Result<Option<&'static str>> {
    match target {
        "wasm32-wasip2" => Ok(Some("wasm32-wasip2")),
        "wasm32-wasip1" => Ok(Some("wasm32-wasi")),
        "aarch64-unknown-linux-gnu" => Ok(None),
        other => bail!("no recipe for std of {other}"),
    }
}
