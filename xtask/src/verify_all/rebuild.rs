//! CI's own step: `tussah verify` of every manifest in `manifests/`, as a stranger runs it.
//!
//! In: the checkout, a `tussah`. Out: whether each job's source gives the module that its manifest
//! states. Where compiler or std are others than those recorded nothing can be said, and is not.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{job, program};
use crate::workspace::Workspace;
use crate::{home, ui};

/// What came of one rebuild.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Match,
    /// Compiler or std are others than the manifest's.
    OtherToolchain(String),
    Wrong(String),
}

/// Builds each job again and compares; why that was not possible here, if it was not.
///
/// # Errors
/// A job's source gives another module than its manifest states, or cannot be built.
pub(crate) fn manifests(workspace: &Workspace) -> Result<Option<String>> {
    let tussah = program(workspace)?;
    let home = home::tussah_home()?;
    let (mut others, mut wrong) = (Vec::new(), Vec::new());
    for job in job::chosen(&workspace.root, &[])? {
        let begun = Instant::now();
        let manifest = format!("manifests/{}.toml", job.name);
        let mut verify = Command::new(&tussah);
        verify.args(["verify", &manifest, "--source", ".", "--json"]);
        verify
            .current_dir(&workspace.root)
            .env("TUSSAH_HOME", &home);
        let ended = verify.stdin(Stdio::null()).output();
        let ended = ended.with_context(|| format!("cannot start {}", tussah.display()))?;
        let said = String::from_utf8_lossy(&ended.stderr);
        let report = serde_json::from_slice(&ended.stdout)
            .with_context(|| format!("`tussah verify {manifest}` gave no report: {said}"))?;
        let judged = judge(&report);
        let shown = match &judged {
            Judged::Match => "match".to_owned(),
            Judged::OtherToolchain(why) => format!("cannot-build: {why}"),
            Judged::Wrong(why) => why.clone(),
        };
        ui::say(&format!(
            "{manifest:<30} {:>10}  {shown}",
            ui::seconds(begun.elapsed())
        ));
        match judged {
            Judged::Match => {}
            Judged::OtherToolchain(_) => others.push(format!("{manifest}: {shown}")),
            Judged::Wrong(_) => wrong.push(format!("{manifest}: {shown}")),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok((!others.is_empty()).then(|| others.join("; ")))
}

/// What the report of `tussah verify` comes to.
fn judge(report: &Value) -> Judged {
    let verdict = report["verdict"].as_str().unwrap_or("no verdict");
    if verdict == "match" {
        return Judged::Match;
    }
    for (name, what) in [
        ("rustc", "rustc"),
        ("rustc_commit", "the compiler's commit"),
        ("std_digest", "the std for wasm"),
    ] {
        let (recorded, here) = (&report["recorded"][name], &report["toolchain"][name]);
        if let (Some(recorded), Some(here)) = (recorded.as_str(), here.as_str())
            && recorded != here
            && verdict == "cannot-build"
        {
            let why = format!("{what} is {here} here, and {recorded} in the manifest");
            return Judged::OtherToolchain(why);
        }
    }
    let causes = report["causes"].as_array().map_or(&[][..], Vec::as_slice);
    let causes: Vec<&str> = causes.iter().filter_map(Value::as_str).collect();
    Judged::Wrong(format!("{verdict}: {}", causes.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(verdict: &str, std_digest: &str, expected: Judged) {
        let report = serde_json::json!({
            "verdict": verdict,
            "causes": ["first", "second"],
            "recorded": { "rustc": "1.95.0", "rustc_commit": "c", "std_digest": "s" },
            "toolchain": { "rustc": "1.95.0", "rustc_commit": "c", "std_digest": std_digest },
        });
        assert_eq!(judge(&report), expected);
    }

    #[test]
    fn another_std_is_said_and_fails_nothing() {
        check("match", "s", Judged::Match);
        let why = "the std for wasm is t here, and s in the manifest".to_owned();
        check("cannot-build", "t", Judged::OtherToolchain(why));
        let wrong = |text: &str| Judged::Wrong(text.to_owned());
        check("cannot-build", "s", wrong("cannot-build: first; second"));
        check("mismatch", "s", wrong("mismatch: first; second"));
        // Compared all the same: then it counts.
        check("mismatch", "t", wrong("mismatch: first; second"));
        check("match-code", "s", wrong("match-code: first; second"));
    }
}
