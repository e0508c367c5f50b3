//! A chain for tests of money: a localnet that answers over HTTP, or one in a folder; and the
//! commands that pay, with their chain and passphrase.
//!
//! In: a sandbox. Out: a chain that ends with the test. It never leaves loopback, and its money is
//! worth nothing.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command},
};

use serde_json::Value;

use crate::fixture::{Ended, Sandbox};

/// Nanograms of one gram.
pub(crate) const GRAM: u64 = 1_000_000_000;

/// A chain, and a home whose wallets open with one passphrase.
pub(crate) struct Bank<'a> {
    pub(crate) sandbox: &'a Sandbox,
    /// What `--chain` takes.
    pub(crate) chain: String,
    localnet: Option<Child>,
}

impl Drop for Bank<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.localnet.take() {
            // It may have ended by itself, which the test would have noticed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl<'a> Bank<'a> {
    /// Over HTTP, by `tussah chain localnet` in a process of its own.
    pub(crate) fn localnet(sandbox: &'a Sandbox) -> Self {
        let mut localnet = sandbox.command(&["chain", "localnet", "--port", "0", "--json"]);
        let mut child = localnet.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The document ends with the brace that it began with; then the process goes on.
        let mut document = String::new();
        loop {
            let line = lines.next().expect("the localnet goes on").unwrap();
            document.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let running: Value = serde_json::from_str(&document).unwrap();
        Self::new(sandbox, running["url"].as_str().unwrap(), Some(child))
    }

    /// In the process of each command, kept in a folder.
    pub(crate) fn embedded(sandbox: &'a Sandbox) -> Self {
        Self::new(sandbox, "embedded:net", None)
    }

    /// The same chain, for another home.
    pub(crate) fn for_home<'b>(&self, sandbox: &'b Sandbox) -> Bank<'b> {
        Bank::new(sandbox, &self.chain, None)
    }

    fn new(sandbox: &'a Sandbox, chain: &str, localnet: Option<Child>) -> Self {
        sandbox.file("passphrase", "correct horse\n");
        Self {
            sandbox,
            chain: chain.to_owned(),
            localnet,
        }
    }

    /// The command, to be changed before it runs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        command
            .env("TUSSAH_CHAIN", &self.chain)
            .env("TUSSAH_PASSPHRASE_FILE", "passphrase");
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// What it prints with `--json`, where all is well.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        self.run(&arguments).expect(0).json()
    }

    /// A new wallet without money; its address.
    #[track_caller]
    pub(crate) fn wallet(&self, name: &str) -> String {
        let made = self.json(&["wallet", "new", name, "--network", "localnet"]);
        made["address"].as_str().unwrap().to_owned()
    }

    /// A new wallet with so many grams; its address.
    #[track_caller]
    pub(crate) fn funded(&self, name: &str, grams: &str) -> String {
        let address = self.wallet(name);
        self.json(&["chain", "faucet", &address, grams]);
        address
    }

    /// What a wallet has.
    #[track_caller]
    pub(crate) fn balance(&self, name: &str) -> u64 {
        nanograms(&self.json(&["wallet", "balance", name])["nanograms"])
    }
}

/// An amount, which JSON has as text.
#[track_caller]
pub(crate) fn nanograms(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}
