//! Clients against a provider: `openai` of PyPI and of npm, and examples/telegram-bot.
//!
//! In: the debug binary, the tests' models, pip and npm. Out: whether all get what they expect of a
//! `tussah serve` that was started for them.
//! Never: a service of OpenAI's; a home folder but one of its own, which has the models alone.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::contracts::{can_compile as node_is_here, install};
use crate::workspace::Workspace;
use crate::{command, home, ui};

/// The packages' newest releases when these tests were written.
const PYTHON: &str = "3.54.0";
const NODE: &[(&str, &str)] = &[("openai", "7.57.0")];
/// Jobs whose models set-up has, and the shape and name they are deployed with.
const DEPLOYED: [(&str, &str); 3] = [
    ("jobs/chat", "chat"),
    ("jobs/chat", "completions"),
    ("jobs/embeddings", "embeddings"),
];

/// Builds the binary as tests have it, and runs the clients.
///
/// # Errors
/// As [`run`], or the build failed.
pub(crate) fn task() -> Result<()> {
    let workspace = Workspace::ask()?;
    let mut build = workspace.cargo();
    build.args(["build", "--workspace", "--locked", "--bins", "--tests"]);
    command::run(&mut build)?;
    if let Some(why) = run(&workspace)? {
        ui::say(&format!("openai: skipped in part: {why}"));
    }
    Ok(())
}

/// Runs the clients; says why where one cannot be run.
///
/// # Errors
/// A package cannot be had, the provider does not start, or a client found something amiss.
pub(crate) fn run(workspace: &Workspace) -> Result<Option<String>> {
    let python = python(workspace)?;
    let provider = Provider::start(workspace)?;
    let client = |command: &mut Command| {
        command::run(
            command
                .env("TUSSAH_URL", &provider.url)
                .env("TUSSAH_KEY", &provider.key),
        )
    };
    let scripts = workspace.root.join("tests/openai");
    let mut run = Command::new("python3");
    client(run.arg(scripts.join("client.py")).env("PYTHONPATH", python))?;
    telegram_bot(workspace, &provider)?;
    if !node_is_here() {
        return Ok(Some("node and npm are not installed".to_owned()));
    }
    let page = workspace
        .root
        .join("examples/telegram-bot/miniapp/test.mjs");
    command::run(Command::new("node").arg(page))?;
    let (_, version) = NODE[0];
    let tools = workspace.target.join("openai-node").join(version);
    install(&tools, NODE)?;
    let modules = tools.join("node_modules");
    let mut run = Command::new("node");
    client(
        run.arg(scripts.join("client.mjs"))
            .env("TUSSAH_NODE_MODULES", modules),
    )?;
    Ok(None)
}

/// The example that is a client: a workspace of its own, so that nobody else builds its crates.
fn telegram_bot(workspace: &Workspace, provider: &Provider) -> Result<()> {
    let manifest = workspace.root.join("examples/telegram-bot/Cargo.toml");
    for (task, arguments) in [
        ("fmt", &["--check"][..]),
        (
            "clippy",
            &["--all-targets", "--locked", "--", "-D", "warnings"],
        ),
        ("test", &["--locked"]),
    ] {
        let mut cargo = workspace.cargo();
        cargo.arg(task).arg("--manifest-path").arg(&manifest);
        cargo.args(arguments);
        cargo.env("CARGO_TARGET_DIR", workspace.target.join("telegram-bot"));
        cargo.env("TUSSAH_URL", &provider.url);
        cargo.env("TUSSAH_KEY", &provider.key);
        command::run(cargo.env("REQUIRE_PROVIDER", "1"))?;
    }
    Ok(())
}

/// Where pip put the package, once.
fn python(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("openai-python").join(PYTHON);
    if folder.join("openai").is_dir() {
        return Ok(folder);
    }
    ui::say(&format!("fetching openai {PYTHON} by pip"));
    let parent = folder.parent().context("a folder under target/")?;
    fs::create_dir_all(parent)?;
    let work = tempfile::tempdir_in(parent)?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--no-warn-conflicts",
        "--root-user-action=ignore",
        "--only-binary",
        ":all:",
    ]);
    pip.arg("--target")
        .arg(work.path())
        .arg(format!("openai=={PYTHON}"));
    command::run(&mut pip).context("the package openai could not be fetched")?;
    // A folder of this name is a whole one.
    fs::rename(work.path(), &folder)?;
    Ok(folder)
}

/// A provider with both jobs deployed, on ports of its own.
struct Provider {
    process: Child,
    url: String,
    key: String,
    /// Removed with it.
    _home: tempfile::TempDir,
}

impl Provider {
    fn start(workspace: &Workspace) -> Result<Self> {
        let of_models = home::tussah_home()?;
        let home = tempfile::tempdir()?;
        for part in ["blobs", "models", "sysroots"] {
            let part_there = of_models.join(part);
            if part_there.exists() {
                symlink(&part_there, home.path().join(part))?;
            }
        }
        let tussah = |arguments: &[&str]| {
            let mut command = Command::new(workspace.binary("debug"));
            command.args(arguments).current_dir(&workspace.root);
            command.env("TUSSAH_HOME", home.path());
            command
        };
        for (folder, name) in DEPLOYED {
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
            url: format!("http://{address}/v1"),
            key,
            _home: home,
        })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // Whatever it still does is of no use to anybody.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
