//! `cargo xtask test`: every test of the workspace, on a machine made ready for them.
//!
//! In: the checkout. Out: the tests' verdict and one closing line with the counts.
//! Never: skips a test for want of a model, a GPU driver or a release build; they are made first.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::setup::{self, SetupArgs};
use crate::workspace::Workspace;
use crate::{command, home, model, ui, vulkan};

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Sets up what is missing, runs all tests and says how it went.
///
/// # Errors
/// Set-up or a build failed, or a test did.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::ask()?;
    setup::run(&SetupArgs::from_environment()?, &model::ALL)?;
    let release = workspace.release_binary()?;
    let mut counts = Counts::default();
    let verdict = tests(&workspace, release, &[], &mut counts)
        .and_then(|()| doctests(&workspace, &mut counts));
    ui::say(&counts.to_string());
    verdict
}

/// Unit and end-to-end tests, by cargo-nextest where it is installed. Under the variables in
/// `required` what they name is not skipped.
///
/// # Errors
/// A test failed or does not compile.
pub(crate) fn tests(
    workspace: &Workspace,
    release: PathBuf,
    required: &[(&str, &str)],
    counts: &mut Counts,
) -> Result<()> {
    vulkan::ensure(vulkan::Driver::Tests);
    // In one call with the tests, so that both are built with the same features, once.
    let debug = workspace.debug_binary()?;

    let mut run = workspace.cargo();
    let nextest = command::output(workspace.cargo().args(["nextest", "--version"])).is_ok();
    if nextest {
        run.args([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ]);
        run.args([
            "--status-level",
            "fail",
            "--final-status-level",
            "slow",
            "--no-tests",
            "pass",
        ]);
    } else {
        run.args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ]);
    }
    run.env("REQUIRE_MODEL", "1");
    run.envs(required.iter().copied());
    vulkan::for_tests(&mut run);
    let home = home::tussah_home()?;
    for model in &model::ALL {
        let stored = model.stored(&home);
        let missing = || format!("set-up left no model {}", model.name);
        run.env(model.variable, stored.with_context(missing)?);
    }
    run.env("TUSSAH_HOME", home);
    run.env("TUSSAH_BIN", debug);
    run.env("TUSSAH_RELEASE_BIN", release);
    finish(command::relay(&mut run)?, "tests", counts)
}

/// The examples in the SDK's documentation: what a job's author copies must compile.
///
/// # Errors
/// An example failed or does not compile.
pub(crate) fn doctests(workspace: &Workspace, counts: &mut Counts) -> Result<()> {
    let mut run = workspace.cargo();
    run.args(["test", "--doc", "--locked", "--package", "tussah-sdk"]);
    finish(command::relay(&mut run)?, "doctests", counts)
}

/// Adds what a test command counted.
///
/// # Errors
/// A test failed.
pub(crate) fn finish(
    (passed, lines): (bool, Vec<String>),
    what: &str,
    counts: &mut Counts,
) -> Result<()> {
    let before = *counts;
    for line in &lines {
        count(line, counts);
    }
    if !passed {
        bail!(
            "{what}: {} failed; see above",
            counts.failed - before.failed
        );
    }
    Ok(())
}

/// Adds the counts of a closing line of nextest or of libtest; other lines add nothing.
fn count(line: &str, counts: &mut Counts) {
    let tail = line
        .split_once("tests run: ")
        .or_else(|| line.split_once("test run: "));
    let tail = tail.or_else(|| line.trim_start().split_once("test result: "));
    let Some((_, tail)) = tail else { return };
    // `test result: ok. 6 passed; 0 failed; …` and `… tests run: 6 passed (1 slow), 1 failed, …`
    for part in tail.split([',', ';', '.', '(']) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(word)) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        match word {
            "passed" => counts.passed += number,
            "failed" => counts.failed += number,
            "timed" => counts.failed += number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, passed: u64, failed: u64) {
        let mut counts = Counts::default();
        count(line, &mut counts);
        assert_eq!(counts, Counts { passed, failed }, "{line}");
    }

    #[test]
    fn closing_lines_are_counted() {
        check(
            "     Summary [   1.2s] 57 tests run: 57 passed, 2 skipped",
            57,
            0,
        );
        check(
            "     Summary [   1.2s] 1 test run: 1 passed, 0 skipped",
            1,
            0,
        );
        check(
            "  Summary [ 9.1s] 9 tests run: 5 passed (1 slow, 1 leaky), 3 failed, 1 timed out",
            5,
            4,
        );
        check(
            "test result: ok. 6 passed; 0 failed; 0 ignored; finished in 0.00s",
            6,
            0,
        );
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; finished in 0.00s",
            1,
            2,
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        check("test inference::says_12_passed ... ok", 0, 0);
        check("12 passed", 0, 0);
        check("", 0, 0);
    }
}
