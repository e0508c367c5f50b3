//! The house rules that no other tool checks.
//!
//! In: the files of the checkout and cargo's view of its crates.
//! Out: one line for each breach, with file and line.
//! Never: changes a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// Past this many lines a file holds a second concept.
const FILE_LINES_MAX: usize = 600;

/// Files that are to be split yet; they may not grow past what stands here, and none is added.
const LONG_FILES: &[(&str, usize)] = &[];

/// ARCHITECTURE.md is read in one sitting.
const ARCHITECTURE_LINES_MAX: usize = 200;

/// Folders with nothing of ours in them.
const SKIPPED_FOLDERS: &[&str] = &[".git", "target", "node_modules"];

/// Which of our crates each of our crates may link; a crate that is not listed may link any.
const ARROWS: &[(&str, &[&str])] = &[
    ("tussah-manifest", &[]),
    ("tussah-inference", &["tussah-manifest"]),
    ("tussah-runtime", &["tussah-inference", "tussah-manifest"]),
    ("tussah-settlement", &["tussah-manifest"]),
    ("tussah-commit", &["tussah-settlement", "tussah-manifest"]),
    ("tussah-localnet", &["tussah-manifest", "tussah-settlement"]),
    ("tussah-provider", &["tussah-manifest"]),
    ("tussah-sdk-macros", &[]),
    ("tussah-sdk", &["tussah-sdk-macros"]),
    ("xtask", &[]),
];

/// Checks every rule.
///
/// # Errors
/// Lists the breaches.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut breaches = Vec::new();
    let mut files = Vec::new();
    walk(&workspace.root, &mut files)?;
    files.sort();
    for file in files {
        // What is not text has no lines.
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let name = file.strip_prefix(&workspace.root).unwrap_or(&file);
        breaches.extend(in_file(&name.to_string_lossy().replace('\\', "/"), &text));
    }
    breaches.extend(arrows(workspace));
    breaches.extend(dependencies(workspace)?);
    if !breaches.is_empty() {
        bail!(
            "{} breaches of the house rules:\n  {}",
            breaches.len(),
            breaches.join("\n  ")
        );
    }
    Ok(())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir()
            && !SKIPPED_FOLDERS
                .iter()
                .any(|name| entry.file_name() == *name)
        {
            walk(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The breaches in one file; `name` is its path in the checkout, with slashes.
fn in_file(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if name.ends_with(".rs") {
        if !text.starts_with("//!") {
            breaches.push(format!("{name}:1: does not open with `//!`"));
        }
        let long = LONG_FILES.iter().find(|(file, _)| *file == name);
        if lines > long.map_or(FILE_LINES_MAX, |(_, lines_max)| *lines_max) {
            breaches.push(format!(
                "{name}: {lines} lines; past {FILE_LINES_MAX} look for the second concept"
            ));
        }
    }
    if name == "ARCHITECTURE.md" && lines > ARCHITECTURE_LINES_MAX {
        breaches.push(format!(
            "{name}: {lines} lines, more than {ARCHITECTURE_LINES_MAX}"
        ));
    }
    // This file names what it looks for.
    if name == "xtask/src/tidy.rs" {
        return breaches;
    }
    for (index, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", index + 1);
        if name.ends_with(".rs") {
            for word in ["#[ignore", "todo!(", "unimplemented!("] {
                if line.contains(word) {
                    breaches.push(format!("{place}: `{word}`: finish it or leave it out"));
                }
            }
        }
        if let Some(path) = machine_path(line) {
            breaches.push(format!("{place}: `{path}` exists on one machine only"));
        }
    }
    breaches
}

/// A path of somebody's own machine in `line`.
fn machine_path(line: &str) -> Option<&'static str> {
    ["/root/", "/work/", "/home/", "/Users/", "C:\\Users\\"]
        .into_iter()
        .find(|path| {
            line.match_indices(path).any(|(at, _)| {
                let (before, after) = (&line[..at], &line[at + path.len()..]);
                // `target/work/` and `https://host/home/` are not absolute paths.
                let inside = |before: char| before.is_alphanumeric() || "_-.}/$~*".contains(before);
                // A folder alone names nobody, and Ann is who lives in our examples.
                !before.ends_with(inside)
                    && after.starts_with(char::is_alphanumeric)
                    && !after.starts_with("ann")
            })
        })
}

/// The dependencies between our crates that go against the arrows of ARCHITECTURE.md.
fn arrows(workspace: &Workspace) -> Vec<String> {
    let name = |package: &Value| {
        package
            .get("name")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let ours: BTreeSet<String> = workspace.members.iter().filter_map(name).collect();
    let mut breaches = Vec::new();
    for member in &workspace.members {
        let member_name = name(member).unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == member_name) else {
            continue;
        };
        let dependencies = member.get("dependencies").and_then(Value::as_array);
        for dependency in dependencies.into_iter().flatten() {
            // What only tests link does not reach a user.
            if dependency.get("kind").and_then(Value::as_str) == Some("dev") {
                continue;
            }
            let to = name(dependency).unwrap_or_default();
            if ours.contains(&to) && !allowed.contains(&to.as_str()) {
                breaches.push(format!("{member_name} must not depend on {to}"));
            }
        }
    }
    breaches
}

/// Every dependency in the root manifest is used, and has a row that says why it is there.
fn dependencies(workspace: &Workspace) -> Result<Vec<String>> {
    const TABLE: &str = "docs/decisions/0002-dependencies.md";
    let manifest: toml::Table = fs::read_to_string(workspace.root.join("Cargo.toml"))?.parse()?;
    let listed = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"));
    let listed = listed.and_then(toml::Value::as_table).into_iter().flatten();
    let listed: BTreeSet<&str> = listed
        .filter(|(_, entry)| entry.get("path").is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    let used: BTreeSet<&str> = workspace
        .members
        .iter()
        .filter_map(|member| member.get("dependencies")?.as_array())
        .flatten()
        .filter_map(|dependency| dependency.get("name")?.as_str())
        .collect();
    let table = fs::read_to_string(workspace.root.join(TABLE)).unwrap_or_default();
    // A row begins with the name in backticks.
    let rows: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    let mut breaches = Vec::new();
    for name in listed.difference(&rows) {
        breaches.push(format!("{TABLE}: no row for `{name}`"));
    }
    for name in rows.difference(&listed) {
        breaches.push(format!("{TABLE}: `{name}` is no dependency in Cargo.toml"));
    }
    for name in listed.difference(&used) {
        breaches.push(format!("Cargo.toml: nothing uses `{name}`"));
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        assert_eq!(in_file(name, text), expected, "{name}");
    }

    #[test]
    fn each_rule_names_file_and_line() {
        check("a.rs", "//! Fine.\nfn a() {}\n", &[]);
        check("a.rs", "fn a() {}\n", &["a.rs:1: does not open with `//!`"]);
        check(
            "a.rs",
            "//! a\n#[ignore = \"slow\"]\n",
            &["a.rs:2: `#[ignore`: finish it or leave it out"],
        );
        check(
            "a.md",
            "see /root/x\n",
            &["a.md:1: `/root/` exists on one machine only"],
        );
    }

    #[test]
    fn length_is_checked_at_its_edge() {
        let file = |lines: usize| "//! a\n".repeat(lines);
        check("a.rs", &file(FILE_LINES_MAX), &[]);
        assert_eq!(in_file("a.rs", &file(FILE_LINES_MAX + 1)).len(), 1);
        assert_eq!(
            in_file("ARCHITECTURE.md", &file(ARCHITECTURE_LINES_MAX + 1)).len(),
            1
        );
    }

    #[test]
    fn paths_of_one_machine_are_told_from_relative_ones() {
        assert_eq!(machine_path("in /home/bob/x"), Some("/home/"));
        assert_eq!(machine_path("in /home/ann/x"), None);
        assert_eq!(machine_path("the folder `/root/`"), None);
        assert_eq!(machine_path("\"/work/x\""), Some("/work/"));
        assert_eq!(machine_path("target/work/x"), None);
        assert_eq!(machine_path("${HOME}/work/x"), None);
    }
}
