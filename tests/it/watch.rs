//! `tussah run --watch`: each change is run, errors are waited out, Ctrl-C ends it.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use crate::fixture::{Sandbox, shared_target};

/// A build with all its packages, on a machine with other work to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lines of both streams, as they come.
struct Watched {
    child: Child,
    lines: Receiver<String>,
    all: Vec<String>,
}

fn read(stream: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

impl Watched {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command(arguments);
        command.env("CARGO_TARGET_DIR", shared_target());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        read(child.stdout.take().unwrap(), sender.clone());
        read(child.stderr.take().unwrap(), sender);
        Self {
            child,
            lines,
            all: Vec::new(),
        }
    }

    /// Reads up to a line that holds this text.
    #[track_caller]
    fn until(&mut self, text: &str) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.all.push(line),
                Err(error) => panic!("{error}: no {text:?} in {:#?}", self.all),
            }
            if self.all.last().is_some_and(|line| line.contains(text)) {
                return;
            }
        }
    }
}

#[test]
fn each_change_is_run_until_ctrl_c() {
    let Some(sandbox) = Sandbox::with_wasm() else {
        return;
    };
    sandbox.plain_source();
    let input = sandbox.work().join("plain/input.txt");
    let source = sandbox.work().join("plain/src/lib.rs");
    fs::write(&input, "first words").unwrap();
    let arguments = ["run", "plain", "--input", "plain/input.txt", "--watch"];
    let mut watched = Watched::start(&sandbox, &arguments);
    watched.until("first");
    watched.until("waiting for a change");

    fs::write(&input, "secondly").unwrap();
    watched.until("changed: plain/input.txt");
    watched.until("secondly");
    watched.until("waiting for a change");

    let good = fs::read_to_string(&source).unwrap();
    fs::write(&source, "this is no Rust").unwrap();
    watched.until("changed: plain/src/lib.rs");
    watched.until("the job's source does not compile");
    watched.until("waiting for a change");
    // Errors of input and manifest are waited out too.
    fs::write(&source, good.replace("{word}\\n", "<{word}>\\n")).unwrap();
    watched.until("<secondly>");
    watched.until("waiting for a change");
    fs::remove_file(&input).unwrap();
    watched.until("error: cannot read plain/input.txt");
    watched.until("waiting for a change");
    fs::write(&input, "thirdly").unwrap();
    watched.until("<thirdly>");
    watched.until("waiting for a change");
    // Nothing but the changes was run: what a build writes itself is no change.
    let runs = watched
        .all
        .iter()
        .filter(|line| line.contains("waiting for"))
        .count();
    assert_eq!(runs, 6, "{:#?}", watched.all);

    let sent = Command::new("kill")
        .args(["-INT", &watched.child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(watched.child.wait().unwrap().code(), Some(130));
}

#[test]
fn what_cannot_be_watched_is_said() {
    let sandbox = Sandbox::new();
    let stdin = ["run", "x.toml", "--watch", "--input", "-"];
    sandbox
        .run(&stdin)
        .expect(2)
        .says("standard input can be read once");
    for other in ["--json", "--dry-run"] {
        sandbox.run(&["run", "x.toml", "--watch", other]).expect(2);
    }
}
