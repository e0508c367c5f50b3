//! A provider for clients to try: a `tussah serve` with a home of its own.
//!
//! In: the debug binary, the models that set-up made. Out: its address, a key, its command line.
//! Never: takes more from the home that the models are in than its blobs, to which deployed modules
//! and uploads are added; outlives the value.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{command, home, ui};

/// A daemon with some jobs, on ports of its own.
pub(crate) struct Provider {
    process: Child,
    binary: PathBuf,
    root: PathBuf,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    pub(crate) key: String,
    /// Removed with it.
    home: tempfile::TempDir,
}

impl Provider {
    /// Starts it with these jobs, each a folder and its shape, which is its name too, and with
    /// these options besides.
    ///
    /// # Errors
    /// A job cannot be deployed, or the daemon does not start.
    pub(crate) fn start(
        workspace: &Workspace,
        jobs: &[(&str, &str)],
        options: &[&str],
    ) -> Result<Self> {
        let of_models = home::tussah_home()?;
        let home = tempfile::tempdir()?;
        for part in ["blobs", "models", "sysroots"] {
            let part_there = of_models.join(part);
            if part_there.exists() {
                symlink(&part_there, home.path().join(part))?;
            }
        }
        let binary = workspace.binary("debug");
        let root = workspace.root.clone();
        let tussah = |arguments: &[&str]| tussah(&binary, &root, home.path(), arguments);
        for (folder, name) in jobs {
            command::run(&mut tussah(&[
                "deploy", folder, "--as", name, "--shape", name,
            ]))?;
        }
        let shown = command::output(&mut tussah(&["serve", "key", "add", "tests"]))?;
        let key = shown
            .split_whitespace()
            .find(|word| word.starts_with("tsk_"));
        let key = key.context("no key was shown")?.to_owned();
        let listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let mut process = tussah(&["serve", "--device", "cpu"])
            .args(listen)
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = process.stderr.take().context("a pipe")?;
        let mut lines = BufReader::new(said).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("serving on http://")?;
            Some(rest.split(',').next()?.to_owned())
        });
        // What it says later goes where our own words go.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| ui::say(&line)));
        let Some(address) = address else {
            bail!("the provider ended with {}", process.wait()?);
        };
        Ok(Self {
            process,
            binary,
            root,
            url: format!("http://{address}"),
            key,
            home,
        })
    }

    /// Where OpenAI's clients find its API.
    pub(crate) fn api(&self) -> String {
        format!("{}/v1", self.url)
    }

    /// Its own command line, beside the daemon.
    pub(crate) fn tussah(&self, arguments: &[&str]) -> Command {
        tussah(&self.binary, &self.root, self.home.path(), arguments)
    }
}

fn tussah(binary: &Path, root: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(root);
    command.env("TUSSAH_HOME", home);
    command
}

impl Drop for Provider {
    fn drop(&mut self) {
        // Whatever it still does is of no use to anybody.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
