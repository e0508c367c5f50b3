//! `rustup target add`, bounded.
//!
//! In: the installed toolchain. Out: the target in it, put there by rustup.
//! Never: waits for a server that does not answer, or asks rustup for another toolchain.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::toolchain::Toolchain;
use crate::{command, ui};

/// Without a word from rustup and without a byte downloaded for this long, its server is out of reach.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// How often the download's size is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Lets rustup add `target` to the toolchain that is in use.
///
/// # Errors
/// There is no rustup, the toolchain is not one of its own, or its server gives nothing.
pub(super) fn add_target(toolchain: &Toolchain, target: &str) -> Result<()> {
    if !command::exists("rustup") {
        bail!("there is no rustup");
    }
    let rustup_home = command::output(Command::new("rustup").args(["show", "home"]))?;
    let rustup_home = PathBuf::from(rustup_home.trim());
    if toolchain.sysroot.parent() != Some(rustup_home.join("toolchains").as_path()) {
        bail!("the rustc in use is not one of rustup's");
    }
    let name = toolchain
        .sysroot
        .file_name()
        .context("a toolchain has a name")?;
    ui::say(&format!(
        "setup: asking rustup to add {target} to {} (about 20 MiB, into the toolchain)",
        name.to_string_lossy()
    ));
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", "--toolchain"])
        .arg(name)
        .arg(target);
    rustup.env("RUSTUP_MAX_RETRIES", "0");
    watch(&mut rustup, &rustup_home.join("downloads"))?;
    if !toolchain.has_std(target) {
        bail!("rustup ended well, yet {target} is not in the toolchain");
    }
    ui::say(&format!("setup: rustup added {target}"));
    Ok(())
}

/// Runs rustup and ends it once it neither speaks nor downloads.
fn watch(rustup: &mut Command, downloads: &Path) -> Result<()> {
    let mut child = rustup
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start rustup")?;
    let stderr = child.stderr.take().context("rustup's stderr is piped")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut last = String::new();
    let mut heard = Instant::now();
    let mut bytes = downloaded_bytes(downloads);
    let status = loop {
        // Disconnected means that rustup closed its stderr: it has ended or is about to.
        match lines.recv_timeout(POLL) {
            Ok(line) => {
                heard = Instant::now();
                ui::say(&format!("setup:   {line}"));
                last = line;
                continue;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break child.wait()?,
        }
        let now = downloaded_bytes(downloads);
        if now != bytes {
            bytes = now;
            heard = Instant::now();
        }
        if heard.elapsed() > SILENCE_MAX {
            child.kill().context("cannot stop rustup")?;
            child.wait()?;
            bail!("its server gave nothing for {}", ui::seconds(SILENCE_MAX));
        }
    };
    if reader.join().is_err() {
        bail!("the reader of rustup's words failed");
    }
    if !status.success() {
        bail!("rustup ended with {status}: {last}");
    }
    Ok(())
}

fn downloaded_bytes(downloads: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(downloads) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
