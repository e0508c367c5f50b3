//! Clients against a provider: `openai` of PyPI and of npm, examples/telegram-bot, and schemathesis,
//! which asks whatever the provider's own description allows, and more.
//!
//! In: the debug binary, the tests' models, pip and npm. Out: whether all get what they expect of a
//! `tussah serve` that was started for them.
//! Never: a service of OpenAI's; a home folder but one of its own, which has the models alone.

use std::process::Command;

use anyhow::Result;

use crate::contracts::{can_compile as node_is_here, install};
use crate::provider::Provider;
use crate::workspace::Workspace;
use crate::{command, pip, ui};

/// The packages' newest releases when these tests were written.
const PYTHON: &[(&str, &str)] = &[("openai", "3.54.0")];
const NODE: &[(&str, &str)] = &[("openai", "7.57.0")];
/// What reads `/openapi.json`, and what it makes its requests with: other versions make others.
const SCHEMATHESIS: &[(&str, &str)] = &[
    ("schemathesis", "4.32.5"),
    ("hypothesis", "6.170.15"),
    ("jsonschema-rs", "0.60.3"),
];

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
    workspace.debug_binary()?;
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
    let python = pip::install(workspace, PYTHON)?;
    let provider = Provider::start(workspace, &DEPLOYED, &[])?;
    let client = |command: &mut Command| {
        command::run(
            command
                .env("TUSSAH_URL", provider.api())
                .env("TUSSAH_KEY", &provider.key),
        )
    };
    let scripts = workspace.root.join("tests/openai");
    let mut run = Command::new("python3");
    client(run.arg(scripts.join("client.py")).env("PYTHONPATH", python))?;
    telegram_bot(workspace, &provider)?;
    described(workspace, &provider)?;
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

/// Every operation of the provider's OpenAPI document, as that says, and not as it says.
fn described(workspace: &Workspace, provider: &Provider) -> Result<()> {
    let python = pip::install(workspace, SCHEMATHESIS)?;
    let config = workspace.root.join("tests/openapi/schemathesis.toml");
    let mut run = Command::new("python3");
    run.args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .arg("run")
        .arg(format!("{}/openapi.json", provider.url))
        .env("PYTHONPATH", python)
        .env("TUSSAH_KEY", &provider.key)
        // A proxy would be asked for this machine too.
        .env("NO_PROXY", "127.0.0.1");
    // It leaves files where it runs.
    let work = tempfile::tempdir()?;
    command::run(run.current_dir(work.path()))
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
        cargo.env("TUSSAH_URL", provider.api());
        cargo.env("TUSSAH_KEY", &provider.key);
        command::run(cargo.env("REQUIRE_PROVIDER", "1"))?;
    }
    Ok(())
}
