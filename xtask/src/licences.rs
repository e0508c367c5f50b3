//! The licences and sources of everything that is built, by default and with every feature.
//!
//! In: `cargo metadata` and the allow list of deny.toml, and one exception, for a feature.
//! Out: every package whose licence is not on the list, or that comes from elsewhere than a registry.
//! Never: asks the network; where cargo-deny is installed, `ci` asks it too.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ui;
use crate::workspace::{self, Workspace};

/// What no default build may link: below `tussah-settlement/tonlib`, which is off. Whoever turns it
/// on and passes the binary on has that licence to keep, see `docs/decisions/0006-ton-libraries.md`.
const FEATURES_ONLY: &[(&str, &str)] = &[("nacl", "LGPL-3.0+")];

/// Checks every package that is not ours: what is built by default, and what any feature adds.
///
/// # Errors
/// Names each package that is refused, and why.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let file = workspace.root.join("deny.toml");
    let deny: toml::Table = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .parse()?;
    let licences = deny.get("licenses").and_then(toml::Value::as_table);
    let licences = licences.context("deny.toml has no [licenses]")?;
    let allowed = strings(licences.get("allow")).context("deny.toml allows no licence")?;

    // What is built by default has no exceptions.
    let (count, mut refused) = refused(&workspace::metadata(&[])?, |_, licence| {
        permits(licence, &allowed)
    })?;
    let (all, more) = self::refused(
        &workspace::metadata(&["--all-features"])?,
        |name, licence| permits(licence, &allowed) || FEATURES_ONLY.contains(&(name, licence)),
    )?;
    refused.extend(more);
    if !refused.is_empty() {
        let refused: Vec<String> = refused.into_iter().collect();
        bail!("not allowed by deny.toml: {}", refused.join("; "));
    }
    ui::say(&format!(
        "{count} packages by default and {all} with every feature, all under licences that \
         deny.toml allows"
    ));
    Ok(())
}

fn strings(value: Option<&toml::Value>) -> Option<BTreeSet<&str>> {
    let values = value?.as_array()?;
    Some(values.iter().filter_map(toml::Value::as_str).collect())
}

/// How many packages are not ours, and those of them that are refused.
fn refused(
    metadata: &Value,
    permitted: impl Fn(&str, &str) -> bool,
) -> Result<(usize, BTreeSet<String>)> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let (mut count, mut refused) = (0, BTreeSet::new());
    for package in packages.context("`cargo metadata` states no packages")? {
        let field = |name: &str| package.get(name).and_then(Value::as_str);
        let Some(source) = field("source") else {
            continue;
        };
        count += 1;
        let name = field("name").unwrap_or("?");
        let version = field("version").unwrap_or("?");
        if !source.starts_with("registry+") {
            refused.insert(format!("{name} {version} comes from {source}"));
        }
        let licence = field("license").unwrap_or("none stated");
        if !permitted(name, licence) {
            refused.insert(format!("{name} {version} is under `{licence}`"));
        }
    }
    Ok((count, refused))
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
    use serde_json::json;

    use super::*;

    #[test]
    fn packages_are_refused_by_licence_and_by_source() {
        let package = |name, licence, source| json!({ "name": name, "version": "1.0.0", "license": licence, "source": source });
        let metadata = json!({ "packages": [
            package("ours", json!(null), json!(null)),
            package("good", json!("MIT"), json!("registry+https://example.org")),
            package("left", json!("LGPL-3.0+"), json!("registry+https://example.org")),
            package("forked", json!("MIT"), json!("git+https://example.org")),
        ] });
        let allowed = BTreeSet::from(["MIT"]);
        let (count, named) = refused(&metadata, |_, licence| permits(licence, &allowed)).unwrap();
        assert_eq!(count, 3);
        let expected = [
            "forked 1.0.0 comes from git+https://example.org",
            "left 1.0.0 is under `LGPL-3.0+`",
        ];
        assert_eq!(Vec::from_iter(named), expected);
    }

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
