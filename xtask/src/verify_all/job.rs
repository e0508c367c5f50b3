//! The jobs of `jobs/` and what `manifests/` states of each.
//!
//! In: two folders of the checkout. Out: jobs in the order of their names. Refused: a job without a
//! manifest, a manifest without a job.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::PROGRAM;

/// A job and its record.
#[derive(Debug)]
pub(super) struct Job {
    /// Of its folder below `jobs/` and of its manifest.
    pub(super) name: String,
    pub(super) record: Record,
}

/// What a manifest says of a module and its build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) module: String,
    pub(super) rustc: String,
    pub(super) std_digest: String,
}

/// What one build gave.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) record: Record,
}

impl Record {
    /// Reads a manifest.
    ///
    /// # Errors
    /// It cannot be read, or has no table `[build]`.
    pub(super) fn read(manifest: &Path) -> Result<Self> {
        let shown = manifest.display();
        let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {shown}"))?;
        let table: toml::Table = text
            .parse()
            .with_context(|| format!("{shown} is no TOML"))?;
        let field = |part: &str, name: &str| {
            let found = table.get(part).and_then(|part| part.get(name)?.as_str());
            let missing = || format!("{shown} has no `{name}` in [{part}]");
            found.map(str::to_owned).with_context(missing)
        };
        Ok(Self {
            module: field("module", "digest")?,
            rustc: format!(
                "{} ({})",
                field("build", "rustc")?,
                field("build", "rustc_commit")?
            ),
            std_digest: field("build", "std_digest")?,
        })
    }
}

/// The jobs that were named, all if none was.
///
/// # Errors
/// There is no such job, or jobs and manifests are not the same.
pub(super) fn chosen(root: &Path, only: &[String]) -> Result<Vec<Job>> {
    let jobs = names(&root.join("jobs"), |path| {
        let is_job = path.join("tussah.toml").is_file();
        is_job.then(|| path.file_name()?.to_str().map(str::to_owned))?
    })?;
    let manifests = names(&root.join("manifests"), |path| {
        let is_manifest = path.extension().is_some_and(|ending| ending == "toml")
            && path.file_name().is_some_and(|name| name != "Cargo.toml");
        is_manifest.then(|| path.file_stem()?.to_str().map(str::to_owned))?
    })?;
    if let Some(job) = jobs.iter().find(|job| !manifests.contains(job)) {
        bail!("jobs/{job} has no manifests/{job}.toml: write the one that `tussah build` makes");
    }
    if let Some(manifest) = manifests.iter().find(|name| !jobs.contains(name)) {
        bail!("manifests/{manifest}.toml is of no job in jobs/");
    }
    if let Some(name) = only
        .iter()
        .find(|name| *name != PROGRAM && !jobs.contains(name))
    {
        bail!(
            "there is no job `{name}`: choose from {}, {PROGRAM}",
            jobs.join(", ")
        );
    }
    let wanted = jobs
        .into_iter()
        .filter(|job| only.is_empty() || only.contains(job));
    let read = |name: String| {
        let record = Record::read(&root.join("manifests").join(format!("{name}.toml")))?;
        Ok(Job { name, record })
    };
    wanted.map(read).collect()
}

fn names(folder: &Path, name: impl Fn(&Path) -> Option<String>) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder);
    let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<String> = entries
        .filter_map(|entry| name(&entry.ok()?.path()))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_has_a_manifest_and_the_other_way_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("written");
        };
        let said = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            match chosen(root, &only) {
                Ok(jobs) => jobs
                    .into_iter()
                    .map(|job| job.name)
                    .collect::<Vec<_>>()
                    .join(" "),
                Err(error) => error.to_string(),
            }
        };
        let manifest = "[module]\ndigest = \"d\"\n[build]\nrustc = \"1\"\nrustc_commit = \"c\"\n\
                        std_digest = \"s\"\n";
        write("jobs/a/tussah.toml", "");
        write("jobs/b/tussah.toml", "");
        write("jobs/notes/README.md", "");
        write("manifests/Cargo.toml", "");
        write("manifests/a.toml", manifest);
        let expected = "jobs/b has no manifests/b.toml: write the one that `tussah build` makes";
        assert_eq!(said(&[]), expected);
        write("manifests/b.toml", manifest);
        assert_eq!(said(&[]), "a b");
        assert_eq!(said(&["b", "tussah"]), "b");
        assert_eq!(said(&["tussah"]), "");
        assert_eq!(
            said(&["c"]),
            "there is no job `c`: choose from a, b, tussah"
        );
        write("manifests/c.toml", manifest);
        assert_eq!(said(&[]), "manifests/c.toml is of no job in jobs/");
    }
}
