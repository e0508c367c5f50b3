//! Stands in rustc's place while std is built, so that the same source gives the same bytes.
//!
//! In: the command line that cargo would give to rustc. Out: the same, with two changes:
//! `-C metadata`, which cargo derives from absolute paths, is taken from the crate's name and
//! version; and the folder of each crate is replaced in every path that rustc writes down.
//! Never: touches a build script, which runs on this machine and ends up in no module.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

use crate::ui;

/// Set while xtask is cargo's rustc wrapper.
pub(crate) const WRAPPER_SWITCH: &str = "TUSSAH_XTASK_AS_RUSTC";

/// Runs rustc with the changed arguments and passes its exit code on.
pub(crate) fn run_as_rustc_wrapper() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(rustc) = arguments.next() else {
        ui::say("error: cargo named no rustc to its wrapper");
        return ExitCode::FAILURE;
    };
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let package = Package {
        name: variable("CARGO_PKG_NAME"),
        version: variable("CARGO_PKG_VERSION"),
        folder: env::var_os("CARGO_MANIFEST_DIR"),
    };
    match Command::new(&rustc)
        .args(changed(arguments.collect(), &package))
        .status()
    {
        Ok(status) => match status.code().map(u8::try_from) {
            Some(Ok(code)) => ExitCode::from(code),
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            ui::say(&format!("error: cannot start {}: {error}", rustc.display()));
            ExitCode::FAILURE
        }
    }
}

/// What cargo says of the crate that it is building.
struct Package {
    name: String,
    version: String,
    folder: Option<OsString>,
}

fn changed(arguments: Vec<OsString>, package: &Package) -> Vec<OsString> {
    // Only std itself is built with `--target`; build scripts are not.
    let for_target = arguments.iter().any(|argument| argument == "--target");
    if !for_target || package.name.is_empty() {
        return arguments;
    }
    let mut changed: Vec<OsString> = arguments
        .into_iter()
        .map(|argument| match argument.to_str() {
            Some(text) if text.starts_with("metadata=") => metadata(package).into(),
            _ => argument,
        })
        .collect();
    if let Some(folder) = &package.folder {
        // The last remapping that matches wins, so a crate's own folder comes after std's.
        let in_std = env::var_os(super::build::LIBRARY_VARIABLE)
            .is_some_and(|library| starts_with(folder, &library));
        if !in_std {
            let mut remap = OsString::from("--remap-path-prefix=");
            remap.push(folder);
            remap.push(format!("=/cargo/{}-{}", package.name, package.version));
            changed.push(remap);
        }
    }
    changed
}

fn starts_with(path: &OsStr, folder: &OsStr) -> bool {
    std::path::Path::new(path).starts_with(folder)
}

fn metadata(package: &Package) -> String {
    let id = blake3::hash(format!("{} {}", package.name, package.version).as_bytes());
    let hex = id.to_hex();
    format!("metadata={}", &hex[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], folder: &str) -> String {
        let package = Package {
            name: "memchr".to_owned(),
            version: "2.7.6".to_owned(),
            folder: Some(folder.into()),
        };
        let changed = changed(arguments.iter().map(OsString::from).collect(), &package);
        let changed: Vec<_> = changed.iter().map(|text| text.to_string_lossy()).collect();
        changed.join(" ")
    }

    #[test]
    fn equal_crates_in_two_folders_differ_by_their_remapping_only() {
        let one = check(&["--target", "wasm32-wasip2", "-C", "metadata=aa"], "/one");
        let two = check(&["--target", "wasm32-wasip2", "-C", "metadata=bb"], "/two");
        assert_eq!(one, two.replace("=/two=", "=/one="));
        assert!(
            one.ends_with("--remap-path-prefix=/one=/cargo/memchr-2.7.6"),
            "{one}"
        );
    }

    #[test]
    fn build_scripts_are_left_alone() {
        assert_eq!(check(&["-C", "metadata=aa"], "/one"), "-C metadata=aa");
    }
}
