//! The licences and sources of everything that Cargo.lock names.
//!
//! In: `cargo metadata` and the allow list of deny.toml.
//! Out: every package whose licence is not on the list, or that comes from elsewhere than a registry.
//! Never: asks the network; where cargo-deny is installed, `ci` asks it too.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ui;
use crate::workspace::{self, Workspace};

/// Checks every package that is not ours.
///
/// # Errors
/// Names each package that is refused, and why.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let file = workspace.root.join("deny.toml");
    let deny: toml::Table = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .parse()?;
    let allowed = deny
        .get("licenses")
        .and_then(|licenses| licenses.get("allow"));
    let allowed = allowed
        .and_then(toml::Value::as_array)
        .context("deny.toml allows no licence")?;
    let allowed: BTreeSet<&str> = allowed.iter().filter_map(toml::Value::as_str).collect();

    let metadata = workspace::metadata(&[])?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let mut count = 0;
    let mut refused = Vec::new();
    for package in packages.context("`cargo metadata` states no packages")? {
        let field = |name: &str| package.get(name).and_then(Value::as_str);
        let Some(source) = field("source") else {
            continue;
        };
        count += 1;
        let name = format!(
            "{} {}",
            field("name").unwrap_or("?"),
            field("version").unwrap_or("?")
        );
        if !source.starts_with("registry+") {
            refused.push(format!("{name} comes from {source}"));
        }
        let licence = field("license").unwrap_or("none stated");
        if !permits(licence, &allowed) {
            refused.push(format!("{name} is under `{licence}`"));
        }
    }
    if !refused.is_empty() {
        bail!("not allowed by deny.toml: {}", refused.join("; "));
    }
    ui::say(&format!(
        "{count} packages, all under licences that deny.toml allows"
    ));
    Ok(())
}

/// Whether an SPDX expression can be met with allowed licences.
fn permits(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Older packages write `MIT/Apache-2.0`.
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, allowed) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut permitted = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        permitted |= all_of(words, at, allowed);
    }
    permitted
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut permitted = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        permitted &= one(words, at, allowed);
    }
    permitted
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(&word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if word == "(" {
        let permitted = any_of(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return permitted && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed.contains(format!("{word} WITH {exception}").as_str());
    }
    allowed.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]);
        assert_eq!(permits(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn expressions_are_read_as_spdx_says() {
        check("MIT", true);
        check("MIT/Apache-2.0", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("GPL-3.0 AND MIT", false);
        check("(MIT OR GPL-3.0) AND Apache-2.0", true);
        check("MIT OR GPL-3.0 AND GPL-2.0", true);
        check("Apache-2.0 WITH LLVM-exception", true);
        check("MIT WITH LLVM-exception", false);
    }

    #[test]
    fn malformed_expressions_are_refused() {
        check("", false);
        check("(MIT", false);
        check("MIT)", false);
        check("MIT Apache-2.0", false);
        check("none stated", false);
    }
}
