//! Cargo's part of a build: which options it runs with, and what it makes.
//!
//! In: an order and its project. Out: what cargo made, or what it said. Its options alone decide:
//! no profile of the user's, no flag of the environment.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tussah_manifest::Abi;

use super::{CRATES_IO, Made, Order, Project, cargo_failure, registries};
use crate::{
    failure::Failure,
    interrupt::Interrupt,
    toolchain::{self, WasmStd},
    tools::Tools,
    ui::Ui,
};

/// The profile, in full, so that no profile of the user's or the workspace's shows through.
/// A change of it changes every digest; `docs/commands.md` has sizes and fuel of two levels.
const PROFILE: [&str; 12] = [
    "inherits=\"release\"",
    "opt-level=3",
    "lto=\"fat\"",
    "codegen-units=1",
    "panic=\"abort\"",
    "strip=true",
    "debug=false",
    "debug-assertions=false",
    "overflow-checks=false",
    "incremental=false",
    "rpath=false",
    "build-override.opt-level=0",
];

/// One run of cargo.
pub(super) struct Compiler<'a> {
    pub(super) order: &'a Order<'a>,
    pub(super) project: &'a Project,
    pub(super) abi: Abi,
    pub(super) wasm_std: &'a WasmStd,
}

impl Compiler<'_> {
    /// Runs cargo; a second time if the first unpacked packages below a folder that was not there
    /// before, whose path would be in the module.
    pub(super) fn run(&self, ui: &Ui, interrupt: &Interrupt) -> Result<Made, Failure> {
        if let Some(home) = self.order.tools.cargo_home() {
            expect_registries(&home);
        }
        let seen =
            || (self.order.tools.cargo_home()).map_or_else(Vec::new, |home| registries(&home));
        let before = seen();
        let made = self.compile(ui, interrupt)?;
        match seen() == before {
            true => Ok(made),
            false => self.compile(ui, interrupt),
        }
    }

    fn command(&self, shows_itself: bool) -> Command {
        let Self { order, project, .. } = self;
        let mut flags: Vec<OsString> = Vec::new();
        for (from, to) in project.remaps(order, self.wasm_std) {
            flags.push("--remap-path-prefix".into());
            let mut mapping = from.into_os_string();
            mapping.push(format!("={to}"));
            flags.push(mapping);
        }
        if let WasmStd::Private(sysroot) = self.wasm_std {
            flags.extend(["--sysroot".into(), sysroot.clone().into_os_string()]);
        }
        let mut command = order.tools.cargo(&project.folder);
        // A component is a library with one export, a command is a program.
        let kind = match self.abi {
            Abi::Component => "--lib",
            Abi::Preview1 => "--bins",
        };
        command.args(["build", kind, "--locked", "--profile=tussah"]);
        command.args(["--target", toolchain::wasm_target(self.abi)]);
        command.args([
            "--message-format=json-render-diagnostics",
            "--package",
            &project.package,
        ]);
        command.arg("--target-dir").arg(project.build_target());
        if let Some(jobs) = order.jobs {
            command.args(["--jobs", &jobs.to_string()]);
        }
        for setting in PROFILE {
            command.args(["--config", &format!("profile.tussah.{setting}")]);
        }
        if order.names {
            command.args(["--config", "profile.tussah.strip=false"]);
        }
        // Flags of this variable stand instead of all that configuration files say.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(match shows_itself {
            true => Stdio::inherit(),
            false => Stdio::piped(),
        });
        command
    }

    fn compile(&self, ui: &Ui, interrupt: &Interrupt) -> Result<Made, Failure> {
        let tools = &self.order.tools;
        let shows_itself = ui.shows_bars() && matches!(tools, Tools::Own);
        let mut child = self.command(shows_itself).spawn().map_err(|source| {
            toolchain::ToolchainError::Start {
                program: "cargo",
                source,
            }
        })?;
        // Both pipes are read while cargo runs, or a full one would stop it.
        let stderr = child.stderr.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What could be read is what can be shown.
                let _ = pipe.read_to_end(&mut text);
                text
            })
        });
        let stdout = child.stdout.take().map(|pipe| {
            std::thread::spawn(move || {
                let mut made = Made::default();
                let lines = BufReader::new(pipe).lines().map_while(Result::ok);
                lines.for_each(|line| made.take(&line));
                made
            })
        });
        let status = loop {
            if let Some(status) = child.try_wait().map_err(Failure::host)? {
                break status;
            }
            let late = self.order.deadline.is_some_and(|at| Instant::now() >= at);
            if late || interrupt.requested() && matches!(tools, Tools::Fresh(_)) {
                tools.kill(&mut child);
                let _ = child.wait();
                return Err(match late {
                    true => Failure::host("the build took longer than it may"),
                    false => Failure::interrupted(),
                });
            }
            std::thread::sleep(POLL);
        };
        let made = stdout
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        let stderr = stderr
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        if !status.success() {
            return Err(cargo_failure("the job's source does not compile", &stderr));
        }
        let needs = match self.abi {
            Abi::Component => {
                "its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\", \"rlib\"]`"
            }
            Abi::Preview1 => "a job of abi preview1 needs `src/main.rs`",
        };
        let Some(module) = &made.module else {
            let message = format!("package `{}` makes no module", self.project.package);
            return Err(Failure::usage(message).help(needs));
        };
        self.check_place(module)?;
        Ok(made)
    }

    /// Code that a build runs could write among cargo's messages: what they name counts only where
    /// cargo puts it.
    fn check_place(&self, module: &Path) -> Result<(), Failure> {
        let real = |path: &Path| path.canonicalize().ok();
        let target = real(&self.project.target);
        let place = (self.project.build_target())
            .join(toolchain::wasm_target(self.abi))
            .join("tussah");
        let place = real(&place).filter(|place| {
            let target = target.as_ref();
            target.is_some_and(|target| place.starts_with(target))
        });
        match real(module).as_deref().map(Path::parent) == Some(place.as_deref()) {
            true => Ok(()),
            false => Err(Failure::host(format!(
                "cargo names a module outside of its own folder, {}",
                module.display()
            ))),
        }
    }
}

/// Makes the folders into which cargo will unpack packages, where their names are known already.
fn expect_registries(cargo_home: &Path) {
    let cache = cargo_home.join("registry/cache");
    let cached = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let names = cached.map(|entry| entry.file_name());
    let usual = CRATES_IO.rsplit('/').next().map(OsString::from);
    for name in names.chain(usual) {
        // Where it cannot be made, cargo says so itself.
        let _ = std::fs::create_dir_all(cargo_home.join("registry/src").join(name));
    }
}

/// How often a build is looked at.
const POLL: Duration = Duration::from_millis(20);
