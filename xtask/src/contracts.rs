//! `cargo xtask contracts`: whether the committed contract code is what its Tolk source compiles to,
//! whether TON's reference implementation runs it as the embedded chain does, and whether the
//! official client can use it on a localnet.
//!
//! In: `contracts/*.tolk`; the pinned compiler, `@ton/tolk-js`, the reference implementation,
//! `@ton/sandbox`, and the client, `@ton/ton`, all of which npm puts under `target/`.
//! Out: nothing where they agree, what differs where they do not.
//! Never: changes the committed code, unless `--write` asks for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::Workspace;
use crate::{command, ui};

/// The compiler. Another version may compile the same source to other code, and then the code
/// hash, by which both sides of a channel know it, would be another.
const COMPILER: &str = "@ton/tolk-js";
const COMPILER_VERSION: &str = "1.3.0";

/// The reference implementation of transactions, compiled to WebAssembly, and what it is read with.
const SANDBOX: &[(&str, &str)] = &[("@ton/sandbox", "0.41.0"), ("@ton/core", "0.63.1")];

/// The official client, which a localnet is asked by.
const CLIENT: &[(&str, &str)] = &[
    ("@ton/ton", "16.3.0"),
    ("@ton/core", "0.63.1"),
    ("@ton/crypto", "3.3.0"),
];

/// The contracts; each is a file of that name and what it imports.
const CONTRACTS: &[&str] = &["Channel", "Provider"];

/// Compiles `argv[2]` in the folder `argv[1]`, writes its code to `argv[3]`, prints its hash.
const COMPILE: &str = r#"
const fs = require("fs"), path = require("path");
const [folder, entry, out] = process.argv.slice(1);
require("@ton/tolk-js").runTolkCompiler({
  entrypointFileName: entry,
  fsReadCallback: (name) => fs.readFileSync(path.join(folder, name), "utf-8"),
}).then((result) => {
  if (result.status === "error") throw result.message;
  fs.writeFileSync(out, Buffer.from(result.codeBoc64, "base64"));
  console.log(result.codeHashHex.toLowerCase());
}).catch((error) => { console.error(String(error)); process.exit(1); });
"#;

#[derive(Debug, Args)]
pub(crate) struct ContractsArgs {
    /// Replace the committed code with what the source compiles to now
    #[arg(long)]
    write: bool,
}

impl ContractsArgs {
    /// What CI runs.
    pub(crate) const CHECK: Self = Self { write: false };
}

/// True where the compiler can run at all.
pub(crate) fn can_compile() -> bool {
    command::exists("node") && command::exists("npm")
}

/// Compiles and compares, or writes; then asks the reference implementation.
///
/// # Errors
/// node or npm are missing, a package cannot be had, a source does not compile, the committed
/// code is not what it compiles to, the two machines differ, or the client does not get its way.
pub(crate) fn run(args: &ContractsArgs) -> Result<()> {
    if !can_compile() {
        bail!("the Tolk compiler is a package for node: install node and npm");
    }
    let workspace = Workspace::ask()?;
    let tools = workspace.target.join("tolk").join(COMPILER_VERSION);
    install(&tools, &[(COMPILER, COMPILER_VERSION)])?;
    let sources = workspace.root.join("contracts");
    let compiled = sources.join("compiled");
    let mut hashes = format!("compiler {COMPILER} {COMPILER_VERSION}\n");
    let mut different = Vec::new();
    for contract in CONTRACTS {
        let out = tools.join(format!("{contract}.boc"));
        let mut node = Command::new("node");
        node.current_dir(&tools).args(["-e", COMPILE]).arg(&sources);
        let entry = format!("{contract}.tolk");
        let hash = command::output(node.arg(entry).arg(&out))
            .with_context(|| format!("contracts/{contract}.tolk does not compile"))?;
        hashes.push_str(&format!("{contract} {}\n", hash.trim()));
        let fresh = fs::read(&out)?;
        if settle(
            &compiled.join(format!("{contract}.boc")),
            &fresh,
            args.write,
        )? {
            different.push(format!("{contract}.boc"));
        }
    }
    let list = compiled.join("hashes.txt");
    if settle(&list, hashes.as_bytes(), args.write)? {
        different.push("hashes.txt".to_owned());
    }
    if different.is_empty() {
        ui::say("contracts: the committed code is what the source compiles to");
        second_opinion(&workspace)?;
        official_client(&workspace)?;
    } else if args.write {
        ui::say(&format!("contracts: wrote {}", different.join(", ")));
    } else {
        bail!(
            "contracts/compiled is not what the source compiles to: {} differ; \
             `cargo xtask contracts --write` replaces them",
            different.join(", ")
        );
    }
    Ok(())
}

/// Runs every message in the embedded chain and in the reference implementation.
fn second_opinion(workspace: &Workspace) -> Result<()> {
    let version = SANDBOX.first().map_or("", |(_, version)| version);
    let tools = workspace.target.join("ton-sandbox").join(version);
    install(&tools, SANDBOX)?;
    let mut test = workspace.cargo();
    test.args(["test", "--locked", "--package", "tussah-settlement"])
        .args(["--test", "it", "second_opinion", "--", "--nocapture"])
        .env("REQUIRE_NODE", "1")
        .env("TUSSAH_NODE_MODULES", tools.join("node_modules"));
    command::run(&mut test)
}

/// Has the official client open, redeem and close channels on a localnet.
fn official_client(workspace: &Workspace) -> Result<()> {
    let version = CLIENT.first().map_or("", |(_, version)| version);
    let tools = workspace.target.join("ton-client").join(version);
    install(&tools, CLIENT)?;
    let mut test = workspace.cargo();
    test.args(["test", "--locked", "--package", "tussah-localnet"])
        .args(["--test", "it", "official_client", "--", "--nocapture"])
        .env("REQUIRE_NODE", "1")
        .env("TUSSAH_NODE_MODULES", tools.join("node_modules"));
    command::run(&mut test)
}

/// Has npm put `packages` into `tools`, once.
pub(crate) fn install(tools: &Path, packages: &[(&str, &str)]) -> Result<()> {
    let modules = tools.join("node_modules");
    let is_there = |name: &str| modules.join(name).join("package.json").exists();
    if packages.iter().all(|(name, _)| is_there(name)) {
        return Ok(());
    }
    let named: Vec<String> = packages
        .iter()
        .map(|(name, version)| format!("{name}@{version}"))
        .collect();
    ui::say(&format!(
        "fetching {} from npm's registry",
        named.join(", ")
    ));
    fs::create_dir_all(tools)?;
    // Without a manifest of its own, npm would look for one in the folders above.
    fs::write(tools.join("package.json"), "{\"private\": true}\n")?;
    let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.current_dir(tools)
        .args(["install", "--save-exact", "--ignore-scripts", "--no-audit"])
        .arg("--no-fund");
    command::output(npm.args(named)).map(drop)
}

/// Whether `file` holds something other than `fresh`, which it then holds where `write` is set.
fn settle(file: &Path, fresh: &[u8], write: bool) -> Result<bool> {
    if fs::read(file).is_ok_and(|committed| committed == fresh) {
        return Ok(false);
    }
    if write {
        fs::write(file, fresh).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(true)
}
