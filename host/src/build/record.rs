//! What a module's own section says of its build.
//!
//! In: what cargo said and which toolchain it ran. Out: a [`BuildInfo`], the same on every machine
//! with the same source and toolchain.

use std::path::{Component, Path};

use serde_json::Value;
use tussah_manifest::{BuildInfo, Digest, Label, Version};

use crate::toolchain::Toolchain;

/// The name of the settings in `PROFILE`; changed with them.
const PROFILE_NAME: &str = "--profile=tussah-1";
/// The package of the SDK.
const SDK: &str = "tussah-sdk";

/// What a builder states that no build can find out by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    pub(crate) image: Option<Label>,
    pub(crate) source_sha256: Option<Label>,
    pub(crate) source_uri: Option<Label>,
}

/// The record of a build.
pub(super) fn build_info(
    toolchain: &Toolchain,
    std_digest: Digest,
    made: &Made,
    place: Option<String>,
    declared: &Declared,
) -> BuildInfo {
    BuildInfo {
        version: Version::V1,
        rustc: Label::lossy(&toolchain.release),
        rustc_commit: Label::lossy(&toolchain.commit),
        std_digest,
        sdk: made.sdk.as_deref().map(Label::lossy),
        bldarg: place.as_deref().map(Label::lossy).into_iter().collect(),
        bldopt: ["--locked", PROFILE_NAME].map(Label::lossy).into(),
        bldimg: declared.image.clone(),
        source_sha256: declared.source_sha256.clone(),
        source_uri: declared.source_uri.clone(),
    }
}

/// A job's folder below that of its workspace, with `/` on every system; nothing where it is not
/// below it.
pub(super) fn place(folder: &Path, workspace: &Path) -> Option<String> {
    let below = folder.strip_prefix(workspace).ok()?;
    let parts: Option<Vec<&str>> = below
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match parts?.join("/") {
        here if here.is_empty() => Some(".".to_owned()),
        below => Some(below),
    }
}

/// What cargo says that it made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(super) module: Option<std::path::PathBuf>,
    sdk: Option<String>,
}

impl Made {
    /// Takes one of cargo's messages; anything else is passed over.
    pub(super) fn take(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if message["reason"] != "compiler-artifact" {
            return;
        }
        let texts = |value: &Value| -> Vec<String> {
            let values = value.as_array().map_or(&[][..], Vec::as_slice);
            let texts = values.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        let files = texts(&message["filenames"]);
        // The job's own package is built last.
        if let Some(file) = files.into_iter().find(|file| file.ends_with(".wasm")) {
            self.module = Some(file.into());
        }
        let Some((name, version)) = message["package_id"].as_str().and_then(package) else {
            return;
        };
        if name == SDK {
            self.sdk = Some(version);
        }
    }
}

/// Name and version in cargo's id of a package: `SOURCE#NAME@VERSION`, or `PATH/NAME#VERSION`.
pub(crate) fn package(id: &str) -> Option<(String, String)> {
    let (source, fragment) = id.rsplit_once('#')?;
    let (name, version) = match fragment.rsplit_once('@') {
        Some(both) => both,
        None => (source.rsplit('/').next()?, fragment),
    };
    Some((name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_place_is_below_its_workspace() {
        let place = |folder: &str| place(Path::new(folder), Path::new("/w"));
        assert_eq!(place("/w/jobs/chat").as_deref(), Some("jobs/chat"));
        assert_eq!(place("/w").as_deref(), Some("."));
        assert_eq!(place("/other"), None);
    }

    #[test]
    fn cargos_messages_say_what_was_made() {
        let mut made = Made::default();
        for line in [
            r#"{"reason":"compiler-artifact","package_id":"registry+https://x#serde@1.0.9","target":{"kind":["custom-build"]},"filenames":["/t/b"]}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/guest-sdk#tussah-sdk@0.1.0","target":{"kind":["lib"]},"filenames":["/t/libdep.rlib"]}"#,
            "not json",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/macros#0.2.0","target":{"kind":["proc-macro"]},"filenames":["/t/m.so"]}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/job#0.1.0","target":{"kind":["cdylib","rlib"]},"filenames":["/t/job.wasm","/t/libjob.rlib"]}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            made.take(line);
        }
        assert_eq!(made.module.as_deref(), Some(Path::new("/t/job.wasm")));
        assert_eq!(made.sdk.as_deref(), Some("0.1.0"));
    }
}
