//! `rustup target add`, bounded.
//!
//! In: the installed toolchain. Out: the target in it, put there by rustup.
//! Never: waits for a server that does not answer, or asks rustup for another toolchain.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::toolchain::Toolchain;
use crate::{command, ui};

/// Without a word or a byte from rustup for this long, its server is out of reach.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// How often the sizes are looked at.
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
    let written = [
        rustup_home.join("downloads"),
        rustup_home.join("tmp"),
        toolchain.sysroot.join("lib/rustlib").join(target),
    ];
    watch(&mut rustup, &written)?;
    if !toolchain.has_std(target) {
        bail!("rustup ended well, yet {target} is not in the toolchain");
    }
    ui::say(&format!("setup: rustup added {target}"));
    Ok(())
}

/// Runs rustup and ends it once it neither speaks nor writes: an install is never cut short.
fn watch(rustup: &mut Command, written: &[PathBuf]) -> Result<()> {
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
    let mut bytes = written_bytes(written);
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
        let now = written_bytes(written);
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

fn written_bytes(folders: &[PathBuf]) -> u64 {
    // A folder that is not there yet, or changes while it is read, is looked at again soon.
    folders
        .iter()
        .map(|folder| super::folder_bytes(folder).unwrap_or(0))
        .sum()
}
