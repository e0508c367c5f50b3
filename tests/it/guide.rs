//! The guide works as written: its commands are run one by one, in an empty folder.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::fixture::{Ended, Sandbox, repository, tussah};

/// The blocks of a language in a Markdown text.
fn blocks<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let begun = markdown.split(fence.as_str()).skip(1);
    begun
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_command_of_the_first_job_works() {
    let Some(sandbox) = Sandbox::with_all() else {
        return;
    };
    let guide = fs::read_to_string(repository().join("docs/first-job.md")).unwrap();
    let commands: Vec<&str> = blocks(&guide, "console")
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    assert!(commands.len() >= 10, "{commands:?}");
    let folder = tussah().parent().unwrap().to_owned();
    let mut outputs = Vec::new();
    for command in commands {
        let ended = shell(&sandbox, &folder, command);
        assert_eq!(
            ended.code, 0,
            "$ {command}\nstdout: {}\nstderr: {}",
            ended.stdout, ended.stderr
        );
        if command.starts_with("tussah new") {
            let source = fs::read_to_string(sandbox.work().join("hello/src/lib.rs")).unwrap();
            for code in blocks(&guide, "rust") {
                assert!(source.contains(code), "not in the new job:\n{code}");
            }
        }
        let dry = command.ends_with("--dry-run");
        if command.starts_with("tussah run hello --input hello/input.txt") && !dry {
            assert!(!ended.stdout.trim().is_empty(), "$ {command}");
            outputs.push(ended.stdout);
        }
    }
    // The changed line changed the answer, and a receipt's run is the run before it.
    assert_ne!(outputs[0], outputs[1]);
    assert_eq!(outputs[1], outputs[outputs.len() - 1]);
}

/// Runs a line as the reader's shell would, with the binary on the path.
fn shell(sandbox: &Sandbox, folder: &Path, line: &str) -> Ended {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let mut command = Command::new("sh");
    command
        .args(["-ec", line])
        .current_dir(sandbox.work())
        .env("PATH", std::env::join_paths(folders).unwrap())
        .env("TUSSAH_HOME", sandbox.home())
        .env("CARGO_TARGET_DIR", crate::fixture::shared_target())
        .stdin(Stdio::null());
    command.output().unwrap().into()
}
