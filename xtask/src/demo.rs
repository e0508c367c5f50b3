//! `cargo xtask demo`: the whole road on this machine, on a real article with a real model.
//!
//! In: the checkout. Out: a streamed summary, its receipt, the audit's verdict, and the same job
//! paid on a chain of this machine; the files are left in `demo/` of cargo's target folder.
//! Never: passes if one of the commands that it shows does not end as it should.

mod payment;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::setup::{self, SetupArgs};
use crate::workspace::Workspace;
use crate::{command, home, model, ui};

/// The example job and its sample article.
const JOB: &str = "jobs/summarize";

/// Runs the job, shows its receipt, checks it, breaks a copy, runs it all again to compare, and
/// pays for it.
///
/// # Errors
/// Set-up or the build failed, or a command did not end as it should.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::ask()?;
    setup::run(&SetupArgs::from_environment()?, &[model::SMOLLM2])?;
    let tussah = workspace.release_binary()?;
    let begun = Instant::now();
    let demo = Demo {
        root: &workspace.root,
        tussah: &tussah,
    };
    let folder = workspace.target.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let receipt = path(&folder.join("summary.cbor"))?;
    let receipt = receipt.as_str();
    let article = format!("{JOB}/sample.txt");

    step("Run the job on the sample article, in the sandbox, and keep a receipt");
    demo.tussah(&["run", JOB, "--input", &article, "--receipt", receipt], 0)?;

    step("Look at the receipt");
    demo.tussah(&["receipt", "show", receipt], 0)?;

    step("Check its signature");
    demo.tussah(&["receipt", "verify", receipt], 0)?;

    step("Change one bit of a copy: it must be refused");
    let broken = broken_copy(&folder, receipt)?;
    demo.tussah(&["receipt", "verify", &broken], 3)?;

    step("Run it again from the receipt and compare");
    demo.tussah(&["audit", receipt, "--input", &article], 0)?;

    let paid = payment::run(&demo, &folder, JOB, &article)?;

    ui::say(&format!(
        "\nDone in {} after the build. You saw a language model, called from a sandboxed \
         WebAssembly job, summarise {article}.\n\
         The receipt says which module, model, input and limits made which output, by digest, \
         and is signed with a key of this machine.\n\
         The audit ran the same job again and got the same output digest; the changed copy was \
         refused.\n\
         Then the job was paid: {paid}.\n\
         The files are in {}. Try it with a text of your own:\n\
         \n  {} run {JOB} --input FILE --receipt r.cbor",
        ui::seconds(begun.elapsed()),
        folder.display(),
        tussah.display(),
    ));
    Ok(())
}

/// The receipt with one bit changed.
fn broken_copy(folder: &Path, receipt: &str) -> Result<String> {
    let broken = folder.join("broken.cbor");
    let mut bytes = fs::read(receipt)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("the receipt is empty")? ^= 1;
    fs::write(&broken, bytes)?;
    path(&broken)
}

/// A path as an argument that is shown.
fn path(path: &Path) -> Result<String> {
    let text = path.to_str();
    let text = text.context("cargo's target folder has a name that is not UTF-8")?;
    Ok(text.to_owned())
}

fn step(title: &str) {
    ui::say(&format!("\n== {title}"));
}

/// How commands are run.
struct Demo<'a> {
    root: &'a Path,
    tussah: &'a Path,
}

impl Demo<'_> {
    /// Shows the command line, runs it on our terminal and compares its exit code.
    fn tussah(&self, arguments: &[&str], expected: i32) -> Result<()> {
        let line = shown(arguments);
        let status = self
            .command(arguments)?
            .status()
            .with_context(|| format!("cannot start {}", self.tussah.display()))?;
        ensure!(
            status.code() == Some(expected),
            "`{line}` ended with {status} instead of exit code {expected}"
        );
        Ok(())
    }

    /// Shows the command line with `--json`, and returns the document that it prints.
    fn asked(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["--json"]].concat();
        shown(&arguments);
        let document = command::output(&mut self.command(&arguments)?)?;
        serde_json::from_str(&document).context("it printed no JSON")
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.tussah);
        command
            .args(arguments)
            .current_dir(self.root)
            .env("TUSSAH_HOME", home::tussah_home()?)
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// Shows a command line; returns it.
fn shown(arguments: &[&str]) -> String {
    let line = format!("tussah {}", arguments.join(" "));
    ui::say(&format!("$ {line}"));
    line
}
