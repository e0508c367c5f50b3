//! The binary under test, homes of its own for each test, and what tests need to exist.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// The name of the test model, by which `cargo xtask setup` registers it.
pub(crate) const MODEL: &str = "smollm2";
/// What the example job summarizes.
pub(crate) const SAMPLE: &str = "jobs/summarize/sample.txt";

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// The debug binary, built if it is not fresh.
pub(crate) fn tussah() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TUSSAH_BIN") {
            return path.into();
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        // What cargo tells this test about itself would look like a change to build scripts.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&name);
            }
        }
        let output = cargo
            .current_dir(repository())
            .args([
                "build",
                "--package",
                "tussah-host",
                "--bin",
                "tussah",
                "--locked",
            ])
            .args(["--message-format", "json"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the binary")
    })
}

/// The home that `cargo xtask setup` filled: `TUSSAH_HOME`, or the usual place on Unix.
fn real_home() -> Option<PathBuf> {
    if let Some(home) = std::env::var_os("TUSSAH_HOME") {
        return Some(home.into());
    }
    if let Some(data) = std::env::var_os("XDG_DATA_HOME") {
        return Some(Path::new(&data).join("tussah"));
    }
    Some(Path::new(&std::env::var_os("HOME")?).join(".local/share/tussah"))
}

/// Says why a test does nothing, or fails where nothing may be missing.
#[expect(clippy::print_stdout, reason = "the test's own report")]
pub(crate) fn missing(what: &str, variable: &str) {
    let required = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    assert!(
        !required(variable) && !required("REQUIRE_MODEL"),
        "{what} is required and missing"
    );
    println!("skipped: {what} is missing; run `cargo xtask setup`");
}

/// A home folder and a folder to work in, gone after the test.
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The exit code, or everything that was said.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Standard error holds this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "no {text:?} in: {}",
            self.stderr
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            // A signal has no code; as shells say it.
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    /// With an empty home.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tussah-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder }
    }

    /// With std for wasm where it is not the toolchain's own; nothing if there is none.
    pub(crate) fn with_wasm() -> Option<Self> {
        let sandbox = Self::new();
        link(
            &real_home()?.join("sysroots"),
            &sandbox.home().join("sysroots"),
        );
        let doctor = sandbox.run(&["doctor", "--json"]);
        let checks = doctor.json()["checks"].as_array().unwrap().clone();
        let wasm = checks.iter().find(|check| check["name"] == "wasm");
        if wasm.is_none_or(|check| check["state"] != "ok") {
            missing("std for wasm32-wasip2", "REQUIRE_WASM");
            return None;
        }
        Some(sandbox)
    }

    /// The digest of the std for wasm that set-up built; nothing where the toolchain has its own.
    pub(crate) fn std_digest(&self) -> Option<String> {
        let doctor = self.run(&["doctor", "--json"]).json();
        let mut checks = doctor["checks"].as_array().unwrap().iter();
        let found = checks.find(|check| check["name"] == "wasm")?["found"].as_str()?;
        let (target, sysroot) = found.split_once(" in ")?;
        let record = fs::read_to_string(Path::new(sysroot).join("std.toml")).unwrap();
        let (_, record) = record.split_once(&format!("[{target}]")).unwrap();
        let (_, digest) = record.split_once("digest = \"").unwrap();
        Some(digest.split('"').next().unwrap().to_owned())
    }

    /// With the test model; nothing if it was not set up.
    pub(crate) fn with_model() -> Option<Self> {
        let sandbox = Self::new();
        if sandbox.link_model() {
            return Some(sandbox);
        }
        missing("the test model", "REQUIRE_MODEL");
        None
    }

    /// With both.
    pub(crate) fn with_all() -> Option<Self> {
        let sandbox = Self::with_wasm()?;
        if sandbox.link_model() {
            return Some(sandbox);
        }
        missing("the test model", "REQUIRE_MODEL");
        None
    }

    /// The name of the adapter that tests of the GPU run on; nothing if it is not here.
    #[expect(clippy::print_stdout, reason = "the test's own report")]
    pub(crate) fn gpu(&self) -> Option<String> {
        let wanted = std::env::var("TUSSAH_TEST_GPU").unwrap_or_else(|_| "llvmpipe".to_owned());
        if self.adapter(&wanted).is_some() {
            return Some(wanted);
        }
        let required = std::env::var_os("REQUIRE_GPU").is_some_and(|value| value == "1");
        assert!(
            !required,
            "REQUIRE_GPU=1, but there is no adapter `{wanted}`"
        );
        println!("skipped: there is no adapter `{wanted}`; run `cargo xtask setup`");
        None
    }

    /// What `doctor` says of the first adapter with that text in its name.
    pub(crate) fn adapter(&self, named: &str) -> Option<Value> {
        let doctor = self.run(&["doctor", "--json"]).json();
        let checks = doctor["checks"].as_array().unwrap().iter();
        let mut adapters = checks
            .flat_map(|check| check["adapters"].as_array())
            .flatten();
        let found = adapters.find(|adapter| {
            let name = adapter["name"].as_str().unwrap().to_lowercase();
            name.contains(&named.to_lowercase())
        });
        found.cloned()
    }

    /// The registry's entry is copied, its 98 MB blob linked.
    fn link_model(&self) -> bool {
        self.link_model_named(MODEL)
    }

    /// The same for any model of the home that set-up filled.
    pub(crate) fn link_model_named(&self, name: &str) -> bool {
        let Some(real) = real_home() else {
            return false;
        };
        let record = Path::new("models").join(format!("{name}.toml"));
        let Ok(text) = fs::read_to_string(real.join(&record)) else {
            return false;
        };
        let hex = text
            .split("blake3:")
            .nth(1)
            .unwrap()
            .get(..64)
            .unwrap()
            .to_owned();
        let blob = Path::new("blobs").join(&hex[..2]).join(&hex);
        for file in [&record, &blob] {
            fs::create_dir_all(self.home().join(file).parent().unwrap()).unwrap();
        }
        fs::write(self.home().join(&record), text).unwrap();
        link(&real.join(&blob), &self.home().join(&blob));
        self.home().join(&blob).exists()
    }

    /// `TUSSAH_HOME` of this test.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Where this test's commands run.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// A file in the working folder.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The command, to be changed before it runs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(tussah(), arguments)
    }

    /// The same with another build of the binary.
    pub(crate) fn command_of(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command
            .args(arguments)
            .current_dir(self.work())
            .env("TUSSAH_HOME", self.home());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs it with this on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// The example job, built where all tests share the work, and a manifest beside its module.
    pub(crate) fn summarize(&self) -> PathBuf {
        let job = repository().join("jobs/summarize");
        let built = self
            .run(&["build", job.to_str().unwrap(), "--json"])
            .expect(0)
            .json();
        let manifest = self.work().join("summarize.toml");
        let module = self.work().join("module.wasm");
        fs::copy(built["manifest"]["path"].as_str().unwrap(), &manifest).unwrap();
        fs::copy(built["module"]["path"].as_str().unwrap(), module).unwrap();
        manifest
    }

    /// A small job without a model, as `new` makes it, in the folder `plain`.
    pub(crate) fn plain_source(&self) {
        // A home without models, so that `new` makes a job without one.
        let mut new = self.command(&["new", "plain"]);
        let bare = self.folder.path().join("bare");
        Ended::from(new.env("TUSSAH_HOME", bare).output().unwrap()).expect(0);
    }

    /// Builds a job's folder, with the packages that all tests share built once.
    pub(crate) fn build(&self, folder: &Path) -> Ended {
        let mut build = self.command(&["build", folder.to_str().unwrap(), "--json"]);
        build
            .env("CARGO_TARGET_DIR", shared_target())
            .output()
            .unwrap()
            .into()
    }

    /// That job's manifest, with its module beside it.
    pub(crate) fn plain_job(&self) -> PathBuf {
        static BUILT: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
        let (module, manifest) = BUILT.get_or_init(|| {
            self.plain_source();
            let built = self.build(Path::new("plain")).expect(0).json();
            let read = |what: &str| fs::read(built[what]["path"].as_str().unwrap()).unwrap();
            (read("module"), read("manifest"))
        });
        fs::create_dir_all(self.work().join("built")).unwrap();
        self.file("built/module.wasm", module);
        self.file("built/manifest.toml", manifest)
    }

    /// Every file below the home that only an unfinished write leaves.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in [self.home(), self.work()] {
            collect(&root, &mut found);
        }
        found.retain(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(".incoming-")
                || name.starts_with(".tussah-")
                || name.starts_with(".tmp")
        });
        found
    }

    /// How many blobs there are.
    pub(crate) fn blobs(&self) -> usize {
        let mut found = Vec::new();
        collect(&self.home().join("blobs"), &mut found);
        found.len()
    }
}

/// Where jobs of these tests are built; cargo lets one test in at a time.
pub(crate) fn shared_target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("jobs")
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, found),
            _ => found.push(path),
        }
    }
}

fn link(from: &Path, to: &Path) {
    if !from.exists() {
        return;
    }
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(from, to).unwrap();
    #[cfg(windows)]
    if from.is_dir() {
        std::os::windows::fs::symlink_dir(from, to).unwrap();
    } else {
        std::os::windows::fs::symlink_file(from, to).unwrap();
    }
}
