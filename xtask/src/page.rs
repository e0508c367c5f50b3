//! `cargo xtask page`: what a person sees of a provider in a browser.
//!
//! In: the debug binary, the tests' models, Chromium, and `puppeteer-core` of npm, which steers it.
//! Out: whether the owner's page and the page of examples/telegram-bot show what a `tussah serve`
//! that was started for them did.
//! Never: fetches a browser, opens a connection that leaves this machine, or changes the picture of
//! the documentation, unless `--write` asks for it.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::contracts::{can_compile as node_is_here, install};
use crate::provider::Provider;
use crate::ui;
use crate::workspace::Workspace;

/// The last release whose packages run in Debian's Node: 25 needs Node 22.
const NODE: &[(&str, &str)] = &[("puppeteer-core", "24.43.1")];
/// What Debian and others call it.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Under this variable a machine without a browser fails instead of being skipped.
const REQUIRED: &str = "REQUIRE_CHROMIUM";
/// The site of the example's page. A name below localhost never leaves this machine, and the
/// browser gets its files from the script: nobody listens there.
const SITE: &str = "http://miniapp.localhost";
/// Where the picture of the owner's page lies.
const PICTURE: &str = "docs/pictures/page.png";
/// Prices at which one job earns something to be seen.
const PRICES: [&str; 4] = ["--price-base", "1000000", "--price-inference", "2000000"];

/// What to do with the picture.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PageArgs {
    /// Keep a picture of the owner's page in the documentation
    #[arg(long)]
    write: bool,
}

impl PageArgs {
    /// What CI runs.
    pub(crate) const CHECK: Self = Self { write: false };
}

/// Builds the binary as tests have it, and looks.
///
/// # Errors
/// As [`run`], or the build failed.
pub(crate) fn task(args: PageArgs) -> Result<()> {
    let workspace = Workspace::ask()?;
    workspace.debug_binary()?;
    if let Some(why) = run(&workspace, args)? {
        ui::say(&format!("page: skipped: {why}"));
    }
    Ok(())
}

/// Looks at the pages; says why where there is nothing to look with.
///
/// # Errors
/// The package cannot be had, the provider does not start, or a page shows something amiss.
pub(crate) fn run(workspace: &Workspace, args: PageArgs) -> Result<Option<String>> {
    let browser = BROWSERS.into_iter().find(|name| command::exists(name));
    let (Some(browser), true) = (browser, node_is_here()) else {
        let why = "chromium, node or npm is not installed";
        if env::var_os(REQUIRED).is_some_and(|value| value == "1") {
            bail!("{why}, and {REQUIRED} is set");
        }
        return Ok(Some(why.to_owned()));
    };
    let (_, version) = NODE[0];
    let tools = workspace.target.join("page-node").join(version);
    install(&tools, NODE)?;
    let provider = Provider::start(
        workspace,
        &[("jobs/chat", "chat")],
        &[&PRICES[..], &["--cors-origin", SITE]].concat(),
    )?;
    let shown = command::output(&mut provider.tussah(&["serve", "page"]))?;
    let work = tempfile::tempdir()?;
    let mut node = Command::new("node");
    node.arg(workspace.root.join("tests/page/page.mjs"))
        .env("TUSSAH_NODE_MODULES", tools.join("node_modules"))
        .env("TUSSAH_BROWSER", browser)
        .env("TUSSAH_URL", &provider.url)
        .env("TUSSAH_KEY", &provider.key)
        .env("TUSSAH_PASSWORD", shown.trim())
        .env("TUSSAH_BIN", workspace.binary("debug"))
        .env("TUSSAH_SITE", SITE)
        .env("TUSSAH_WORK", work.path());
    if args.write {
        let picture = workspace.root.join(PICTURE);
        let folder = picture.parent().context("a folder of the documentation")?;
        std::fs::create_dir_all(folder)?;
        node.env("TUSSAH_PICTURE", &picture);
    }
    command::run(&mut node)?;
    Ok(None)
}
