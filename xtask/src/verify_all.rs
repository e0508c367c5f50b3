//! `cargo xtask verify-all`: every job of `jobs/` in one surroundings after another, and `tussah` itself
//! from two paths: the same bytes each time, and those that `manifests/` states.
//!
//! In: the checkout as it is, changes and new files with it; a `tussah` that builds jobs. Out: a line
//! for each build with its time, a table, with `--json` a document on stdout. Never: fetches a
//! dependency twice, or takes another compiler's bytes for a mismatch: those are `cannot-build`.

mod binary;
mod job;
mod rebuild;
mod surroundings;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::ui;
use crate::workspace::Workspace;

pub(crate) use rebuild::manifests;

use job::{Built, Job, Record};
use surroundings::{Change, Place};

/// What `--only` calls the program itself.
const PROGRAM: &str = "tussah";
/// Where the builds lie, below the target folder.
const FOLDER: &str = "verify-all";

/// A name, and what is different.
type Surroundings = (&'static str, &'static [Change]);
/// A copy of the checkout, and nothing else.
const PLAIN: Surroundings = ("plain", &[]);

/// Flags of `verify-all`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct VerifyAllArgs {
    /// Only this: a job's name, or `tussah` for the program from two paths; may be repeated
    #[arg(long, value_name = "JOB")]
    only: Vec<String>,
    /// All that can differ at once, in place of one after the other
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One build of one job.
struct Line {
    job: String,
    surroundings: &'static str,
    built: Result<Built>,
    time: Duration,
}

/// How a job compares with its manifest.
enum Manifested {
    Match,
    /// What makes other bytes of the same source here.
    CannotBuild(String),
    Mismatch(String),
}

/// Builds everything and compares.
///
/// # Errors
/// A build failed or gave other bytes; the error names the job and the surroundings.
pub(crate) fn run(args: &VerifyAllArgs) -> Result<()> {
    let workspace = Workspace::ask()?;
    let begun = Instant::now();
    let jobs = job::chosen(&workspace.root, &args.only)?;
    let mut wrong = Vec::new();
    let mut document = json!({});
    if !jobs.is_empty() {
        let lines = build_all(&workspace, &jobs, &all_surroundings(args.quick))?;
        let manifested = compared(&jobs, &lines);
        wrong.extend(problems(&lines, &manifested));
        show(&lines, &manifested);
        document["jobs"] = lines.iter().map(Line::json).collect();
        document["manifests"] = manifested
            .iter()
            .map(|(job, found)| {
                let (verdict, why) = found.shown();
                json!({ "job": job, "verdict": verdict, "why": why })
            })
            .collect();
    }
    if args.only.is_empty() || args.only.iter().any(|name| name == PROGRAM) {
        let found = binary::from_two_paths(&workspace, &workspace.target.join(FOLDER))?;
        ui::say(&format!("tussah: {}", found.line()));
        wrong.extend(found.problem());
        document["tussah"] = found.json();
    }
    ui::say(&format!("verify-all took {}", ui::seconds(begun.elapsed())));
    document["wrong"] = json!(wrong);
    if args.json {
        print(&document)?;
    }
    match &wrong[..] {
        [] => Ok(()),
        _ => bail!("{}", wrong.join("; ")),
    }
}

/// Which builds of each job, the plain one first.
fn all_surroundings(quick: bool) -> Vec<Surroundings> {
    let mut found = vec![PLAIN];
    match quick {
        true => found.push(("all at once", &Change::ALL)),
        false => {
            let each = Change::ALL.iter();
            found.extend(each.map(|change| (change.name(), std::slice::from_ref(change))));
        }
    }
    found
}

fn build_all(
    workspace: &Workspace,
    jobs: &[Job],
    surroundings: &[Surroundings],
) -> Result<Vec<Line>> {
    let folder = workspace.target.join(FOLDER).join("jobs");
    let tussah = program(workspace)?;
    let total = surroundings.len() * jobs.len();
    let begun = Instant::now();
    let mut lines = Vec::new();
    for &(name, changes) in surroundings {
        let place = Place::make(&workspace.root, &folder, &tussah, name, changes)?;
        for job in jobs {
            let started = Instant::now();
            let built = place.build(job);
            let line = Line {
                job: job.name.clone(),
                surroundings: name,
                built,
                time: started.elapsed(),
            };
            lines.push(line);
            let line = &lines[lines.len() - 1];
            ui::say(&format!(
                "{:>3}/{total}  {:<14} {:<14} {:>10}  {:.1} a minute  {}",
                lines.len(),
                line.surroundings,
                line.job,
                ui::seconds(line.time),
                lines.len() as f64 * 60.0 / begun.elapsed().as_secs_f64().max(0.001),
                line.said(),
            ));
        }
    }
    Ok(lines)
}

/// The program that builds: `TUSSAH_BIN`, else a release build of this checkout.
fn program(workspace: &Workspace) -> Result<PathBuf> {
    match std::env::var_os("TUSSAH_BIN") {
        Some(path) => std::path::absolute(path).context("TUSSAH_BIN cannot be made absolute"),
        None => workspace.release_binary(),
    }
}

/// The plain build of each job beside its manifest.
fn compared(jobs: &[Job], lines: &[Line]) -> Vec<(String, Manifested)> {
    let plain = |job: &Job| {
        let mut lines = lines.iter();
        lines.find(|line| line.job == job.name && line.surroundings == PLAIN.0)
    };
    let pairs = jobs.iter().filter_map(|job| {
        let built = plain(job)?.built.as_ref().ok()?;
        Some((job.name.clone(), against(&job.record, built)))
    });
    pairs.collect()
}

/// What a rebuild says of a record.
fn against(record: &Record, built: &Built) -> Manifested {
    let found = &built.record;
    for (what, recorded, here) in [
        ("rustc", &record.rustc, &found.rustc),
        ("std", &record.std_digest, &found.std_digest),
    ] {
        if recorded != here {
            let why =
                format!("the manifest records {what} {recorded}, and this machine has {here}");
            return Manifested::CannotBuild(why);
        }
    }
    if record.module == found.module {
        return Manifested::Match;
    }
    let why = format!(
        "the manifest states {}, the source gives {}",
        record.module, found.module
    );
    Manifested::Mismatch(why)
}

impl Manifested {
    fn shown(&self) -> (&'static str, &str) {
        match self {
            Self::Match => ("match", ""),
            Self::CannotBuild(why) => ("cannot-build", why),
            Self::Mismatch(why) => ("mismatch", why),
        }
    }
}

/// What is wrong, each with its job and surroundings.
fn problems(lines: &[Line], manifested: &[(String, Manifested)]) -> Vec<String> {
    let mut found = Vec::new();
    for line in lines {
        let place = format!("{} in the surroundings `{}`", line.job, line.surroundings);
        let built = match &line.built {
            Ok(built) => built,
            Err(error) => {
                found.push(format!("{place} does not build: {error:#}"));
                continue;
            }
        };
        let plain = lines.iter().find(|other| other.job == line.job);
        let plain = plain.and_then(|plain| plain.built.as_ref().ok());
        if let Some(plain) = plain.filter(|plain| plain.record.module != built.record.module) {
            found.push(format!(
                "{place} gives {}, and {} as it is",
                built.record.module, plain.record.module
            ));
        }
    }
    for (job, verdict) in manifested {
        if let (name @ ("mismatch" | "cannot-build"), why) = verdict.shown() {
            found.push(format!("{job}: {name}: {why}"));
        }
    }
    found
}

fn show(lines: &[Line], manifested: &[(String, Manifested)]) {
    ui::say("");
    ui::say(&format!(
        "{:<14} {:>7} {:>9}  {:<12} module",
        "job", "builds", "modules", "manifest"
    ));
    for (job, verdict) in manifested {
        let of = || lines.iter().filter(|line| line.job == *job);
        let mut modules: Vec<&str> = of()
            .filter_map(|line| Some(line.built.as_ref().ok()?.record.module.as_str()))
            .collect();
        let first = modules.first().copied().unwrap_or_default().to_owned();
        modules.sort_unstable();
        modules.dedup();
        ui::say(&format!(
            "{job:<14} {:>7} {:>9}  {:<12} {first}",
            of().count(),
            modules.len(),
            verdict.shown().0
        ));
    }
    ui::say("");
}

impl Line {
    fn said(&self) -> String {
        match &self.built {
            Ok(built) => built.record.module.clone(),
            Err(error) => format!("FAILED: {error:#}"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "job": self.job,
            "surroundings": self.surroundings,
            "module": self.built.as_ref().ok().map(|built| &built.record.module),
            "error": self.built.as_ref().err().map(|error| format!("{error:#}")),
            "seconds": self.time.as_secs_f64(),
        })
    }
}

#[expect(clippy::print_stdout, reason = "the document that --json asks for")]
fn print(document: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(document)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(module: &str, std_digest: &str) -> Record {
        Record {
            module: module.to_owned(),
            rustc: "1.95.0".to_owned(),
            std_digest: std_digest.to_owned(),
        }
    }

    fn line(surroundings: &'static str, built: Result<&str>) -> Line {
        Line {
            job: "chat".to_owned(),
            surroundings,
            built: built.map(|module| Built {
                record: record(module, "s"),
            }),
            time: Duration::ZERO,
        }
    }

    #[test]
    fn another_std_is_no_mismatch() {
        let built = |module, std| Built {
            record: record(module, std),
        };
        let said = |record: &Record, built: &Built| {
            let found = against(record, built);
            let (verdict, why) = found.shown();
            (verdict, why.to_owned())
        };
        let none = String::new();
        assert_eq!(said(&record("a", "s"), &built("a", "s")), ("match", none));
        let why = "the manifest states a, the source gives b".to_owned();
        assert_eq!(said(&record("a", "s"), &built("b", "s")), ("mismatch", why));
        let why = "the manifest records std s, and this machine has t".to_owned();
        assert_eq!(
            said(&record("a", "s"), &built("b", "t")),
            ("cannot-build", why)
        );
    }

    #[test]
    fn what_is_wrong_names_job_and_surroundings() {
        let lines = [
            line("plain", Ok("a")),
            line("umask", Ok("a")),
            line("clock", Ok("b")),
            line("jobs", Err(anyhow::anyhow!("no linker"))),
        ];
        let expected = [
            "chat in the surroundings `clock` gives b, and a as it is",
            "chat in the surroundings `jobs` does not build: no linker",
        ];
        assert_eq!(problems(&lines, &[]), expected);
        let manifest = ("chat".to_owned(), Manifested::Mismatch("why".to_owned()));
        assert_eq!(problems(&lines[..2], &[manifest]), ["chat: mismatch: why"]);
    }
}
