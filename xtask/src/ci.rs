//! `cargo xtask ci`: everything that a change must pass.
//!
//! In: the checkout. Out: each step with its time, a table of all, one closing line with the counts.
//! Never: stops at the first failure: who waited for the tests wants to see all that is wrong.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::contracts::{self, ContractsArgs};
use crate::setup::{self, SetupArgs};
use crate::test::{self, Counts};
use crate::workspace::Workspace;
use crate::{command, licences, model, onnx, package, tidy, ui, verify_all};

/// How a step ended.
enum Verdict {
    Passed,
    Skipped(String),
    Failed(anyhow::Error),
}

struct Step {
    name: &'static str,
    verdict: Verdict,
    time: Duration,
}

/// Runs every step.
///
/// # Errors
/// A step failed; the table above the error says which.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::ask()?;
    let lock_file = workspace.root.join("Cargo.lock");
    let lock = fs::read(&lock_file)?;
    let mut counts = Counts::default();
    let mut steps = Steps::default();

    steps.run("format", || {
        cargo(&workspace, &["fmt", "--all", "--check"], &[])
    });
    steps.run("tidy", || tidy::check(&workspace));
    steps.run("licences", || licences::check(&workspace));
    steps.run_or_skip("cargo-deny", || deny(&workspace));
    steps.run_or_skip("contracts", contracts_compile);
    steps.run_or_skip("typos", || typos(&workspace));
    steps.run_or_skip("unit", || package::check_unit(&workspace));
    steps.run("clippy", || {
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        cargo(&workspace, &arguments, &[])
    });
    steps.run("rustdoc", || {
        let arguments = [
            "doc",
            "--workspace",
            "--no-deps",
            "--locked",
            "--document-private-items",
        ];
        cargo(&workspace, &arguments, &[("RUSTDOCFLAGS", "-D warnings")])
    });
    steps.run("setup", || {
        setup::run(&SetupArgs::from_environment()?, &model::ALL)
    });
    steps.run("tests", || {
        // What needs a kernel that isolates jobs is skipped elsewhere, and is not to be here.
        let required = [("REQUIRE_ISOLATION", "1")];
        test::tests(
            &workspace,
            workspace.release_binary()?,
            &required,
            &mut counts,
        )
    });
    // With the binary that the tests needed.
    steps.run_or_skip("manifests", || verify_all::manifests(&workspace));
    #[cfg(unix)]
    steps.run_or_skip("openai", || crate::openai::run(&workspace));
    #[cfg(unix)]
    steps.run_or_skip("page", || {
        crate::page::run(&workspace, crate::page::PageArgs::CHECK)
    });
    steps.run("doctests", || test::doctests(&workspace, &mut counts));
    steps.run_or_skip("onnx", || onnx::run(&workspace, &mut counts));
    steps.run("lock file", || {
        if fs::read(&lock_file)? != lock {
            bail!("Cargo.lock changed during the run; commit it");
        }
        Ok(())
    });
    steps.close(counts)
}

fn cargo(workspace: &Workspace, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut cargo = workspace.cargo();
    command::run(cargo.args(arguments).envs(environment.iter().copied()))
}

/// Cargo-deny knows bans, sources, licence files and, where its database can be had, advisories.
fn deny(workspace: &Workspace) -> Result<Option<String>> {
    if command::output(workspace.cargo().args(["deny", "--version"])).is_err() {
        return Ok(Some(
            "cargo-deny is not installed; advisories and duplicates unchecked".to_owned(),
        ));
    }
    cargo(
        workspace,
        &["deny", "check", "bans", "licenses", "sources"],
        &[],
    )?;
    if command::output(workspace.cargo().args(["deny", "fetch", "db"])).is_err() {
        return Ok(Some(
            "bans, licences and sources pass; no advisory database here".to_owned(),
        ));
    }
    cargo(workspace, &["deny", "check", "advisories"], &[])?;
    Ok(None)
}

/// Where node is, the contracts are compiled anew and run in the reference implementation too.
fn contracts_compile() -> Result<Option<String>> {
    if !contracts::can_compile() {
        return Ok(Some("node and npm are not installed".to_owned()));
    }
    contracts::run(&ContractsArgs::CHECK)?;
    Ok(None)
}

fn typos(workspace: &Workspace) -> Result<Option<String>> {
    if !command::exists("typos") {
        return Ok(Some("typos is not installed".to_owned()));
    }
    command::run(Command::new("typos").current_dir(&workspace.root))?;
    Ok(None)
}

/// The steps so far.
#[derive(Default)]
struct Steps {
    done: Vec<Step>,
}

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) {
        self.run_or_skip(name, || step().map(|()| None));
    }

    /// Runs a step that may say why it could not be done here.
    fn run_or_skip(&mut self, name: &'static str, step: impl FnOnce() -> Result<Option<String>>) {
        ui::say(&format!("== {name}"));
        let begun = Instant::now();
        let verdict = match step() {
            Ok(None) => Verdict::Passed,
            Ok(Some(why)) => Verdict::Skipped(why),
            Err(error) => {
                ui::say(&format!("error: {error:#}"));
                Verdict::Failed(error)
            }
        };
        let time = begun.elapsed();
        ui::say(&format!(
            "== {name}: {} in {}",
            word(&verdict),
            ui::seconds(time)
        ));
        self.done.push(Step {
            name,
            verdict,
            time,
        });
    }

    /// Prints the table and the closing line.
    fn close(self, counts: Counts) -> Result<()> {
        ui::say("");
        let mut failed = Vec::new();
        for Step {
            name,
            verdict,
            time,
        } in &self.done
        {
            let why = match verdict {
                Verdict::Passed => String::new(),
                Verdict::Skipped(why) => format!("  {why}"),
                Verdict::Failed(error) => {
                    failed.push(*name);
                    let text = format!("{error:#}");
                    format!("  {}", text.lines().next().unwrap_or_default())
                }
            };
            ui::say(&format!(
                "{name:<12} {:<8} {:>12}{why}",
                word(verdict),
                ui::seconds(*time)
            ));
        }
        let time = self.done.iter().map(|step| step.time).sum();
        ui::say(&format!(
            "{:<12} {:<8} {:>12}",
            "all",
            "",
            ui::seconds(time)
        ));
        ui::say("");
        ui::say(&counts.to_string());
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Skipped(_) => "skipped",
        Verdict::Failed(_) => "FAILED",
    }
}
