//! What configuration files of the source ask of cargo: listed, and refused where it would choose
//! programs or flags that no report could name.
//!
//! In: the files that cargo reads from the job's folder up to the source's root. Out: their
//! settings. What names the compiler, its wrappers or the linker of this machine's programs is
//! listed and not heeded: the fresh surroundings say that themselves.

use std::{fs, path::Path};

use serde::Serialize;
use toml::Value;

use crate::{build::MANIFEST_FILE_BYTES_MAX, failure::Failure, input};

/// Where cargo looks in each folder.
const FILES: [&str; 2] = [".cargo/config", ".cargo/config.toml"];
/// Tables that choose no program of this machine: what they change is the source's to say.
const LISTED: [&str; 18] = [
    "alias",
    "build",
    "cache",
    "cargo-new",
    "doc",
    "env",
    "future-incompat-report",
    "http",
    "install",
    "net",
    "patch",
    "paths",
    "profile",
    "registries",
    "registry",
    "resolver",
    "source",
    "target",
];
/// Variables of `[env]` that choose programs, or what is loaded into them.
const PROGRAMS: [&str; 8] = [
    "PATH",
    "LD_",
    "DYLD_",
    "RUST",
    "CARGO",
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "COLLECT_",
];
/// The most of a value that is shown.
const VALUE_CHARACTERS_MAX: usize = 200;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    /// Below the source.
    pub(crate) file: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What the files say that cargo would read.
///
/// # Errors
/// A usage failure if one cannot be read, or sets what is refused.
pub(super) fn settings(folder: &Path, root: &Path) -> Result<Vec<Setting>, Failure> {
    let mut found = Vec::new();
    for above in folder
        .ancestors()
        .take_while(|above| above.starts_with(root))
    {
        for name in FILES {
            let path = above.join(name);
            if fs::symlink_metadata(&path).is_err() {
                continue;
            }
            let below = path.strip_prefix(root).unwrap_or(&path);
            let file = below.display().to_string();
            let failed = |failure: Failure| failure.context(format!("`{file}` of the source"));
            let bytes = input::bytes(&path, MANIFEST_FILE_BYTES_MAX).map_err(failed)?;
            let text = String::from_utf8_lossy(&bytes);
            let table: toml::Table = text
                .parse()
                .map_err(|error: toml::de::Error| failed(Failure::usage(error)))?;
            let mut settings = Vec::new();
            flatten("", &Value::Table(table), &mut settings);
            for (key, value) in settings {
                if let Some(why) = refused(&key) {
                    let message = format!("it sets `{key}`, {why}");
                    return Err(failed(Failure::usage(message).help(
                        "a build with it proves nothing that a report could say; take the \
                         setting out of the source and build the module again",
                    )));
                }
                let value = value.chars().take(VALUE_CHARACTERS_MAX).collect();
                let file = file.clone();
                found.push(Setting { file, key, value });
            }
        }
    }
    Ok(found)
}

/// Every value that is no table, under its whole name.
fn flatten(above: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let bare = name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                let name = match bare {
                    true => name.clone(),
                    false => format!("{name:?}"),
                };
                let dot = if above.is_empty() { "" } else { "." };
                flatten(&format!("{above}{dot}{name}"), value, into);
            }
        }
        value => into.push((above.to_owned(), value.to_string())),
    }
}

/// Why a setting is refused, if it is.
fn refused(key: &str) -> Option<&'static str> {
    let (table, rest) = key.split_once('.').unwrap_or((key, ""));
    if !LISTED.contains(&table) {
        return Some("of which nothing is known here that would be harmless");
    }
    if table == "env" {
        let name = rest
            .split('.')
            .next()
            .unwrap_or(rest)
            .trim_matches('"')
            .to_uppercase();
        let chooses = PROGRAMS.iter().any(|program| name.starts_with(program));
        return chooses.then_some("which chooses the programs that run");
    }
    // The linker of this machine's own programs is pinned; the module's is not to be chosen.
    let of_module = rest.contains("wasm") || rest.contains('(');
    let links = rest.ends_with(".linker") || rest.contains(".linker.");
    (table == "target" && of_module && links)
        .then_some("a program of its choice that would write the module")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(config: &str) -> Result<Vec<String>, String> {
        let source = tempfile::tempdir().unwrap();
        let folder = source.path().join("jobs/one");
        fs::create_dir_all(folder.join(".cargo")).unwrap();
        fs::create_dir_all(source.path().join(".cargo")).unwrap();
        fs::write(folder.join(".cargo/config.toml"), "[build]\njobs = 1").unwrap();
        fs::write(source.path().join(".cargo/config"), config).unwrap();
        match settings(&folder, source.path()) {
            Ok(found) => Ok(found
                .into_iter()
                .map(|one| format!("{}: {} = {}", one.file, one.key, one.value))
                .collect()),
            Err(failure) => Err(failure.chain().join(": ")),
        }
    }

    #[test]
    fn what_cargo_would_read_is_listed() {
        let config = "[build]\nrustc-wrapper = \"./evil\"\n[target.x86_64-unknown-linux-gnu]\n\
                      linker = \"clang\"\n[env]\nA = { value = \"1\" }\n\
                      [target.'cfg(unix)']\nrunner = \"x\"\n";
        let first = "jobs/one/.cargo/config.toml: build.jobs = 1";
        assert_eq!(
            said(config).unwrap(),
            [
                first,
                ".cargo/config: build.rustc-wrapper = \"./evil\"",
                ".cargo/config: env.A.value = \"1\"",
                ".cargo/config: target.\"cfg(unix)\".runner = \"x\"",
                ".cargo/config: target.x86_64-unknown-linux-gnu.linker = \"clang\"",
            ]
        );
    }

    #[test]
    fn what_chooses_programs_unseen_is_refused() {
        for (config, says) in [
            ("[unstable]\nbuild-std = [\"std\"]", "`unstable.build-std`"),
            ("include = \"other.toml\"", "`include`"),
            ("[host]\nlinker = \"x\"", "`host.linker`"),
            ("[env]\nLD_PRELOAD = \"x.so\"", "chooses the programs"),
            ("[env]\n\"Path\" = \"x\"", "chooses the programs"),
            (
                "[target.wasm32-wasip2]\nlinker = \"x\"",
                "would write the module",
            ),
            (
                "[target.'cfg(all())']\nlinker = \"x\"",
                "would write the module",
            ),
            (
                "[target.'cfg(all())'.linker]\npath = \"x\"",
                "would write the module",
            ),
            ("= no toml", "`.cargo/config` of the source"),
        ] {
            let error = said(config).unwrap_err();
            assert!(error.contains(says), "no {says:?} in {error}");
        }
    }
}
