//! `tussah doctor`: what this machine has, and what is missing.

mod checks;

use clap::Args;
use serde::Serialize;

use crate::{exit_code::Exit, failure::Failure, onnx::OnnxArguments, ui::Ui};

const EXAMPLES: &str = "\
Examples:
  tussah doctor
  tussah doctor --json | jq '.checks[] | select(.state != \"ok\")'

Exit code 0 if nothing failed (warnings are fine), 5 otherwise.";

/// Check this machine: toolchain, folders, keys, models, CPU, GPU.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    onnx: OnnxArguments,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Some things will not work, or slowly.
    Warn,
    /// Jobs cannot be run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            help: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warn,
            found: found.into(),
            help: Some(help.into()),
        }
    }

    fn fail(name: &'static str, failure: &Failure) -> Self {
        let (found, help) = (failure.chain().join(": "), failure.help.clone());
        Self {
            name,
            state: State::Fail,
            found,
            help,
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    version: &'static str,
    ok: bool,
    checks: &'a [Check],
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let checks = checks::all(&self.onnx);
        let ok = checks.iter().all(|check| check.state != State::Fail);
        if ui.json() {
            ui.document(&View {
                version: env!("CARGO_PKG_VERSION"),
                ok,
                checks: &checks,
            })?;
        } else {
            for check in &checks {
                let mark = match check.state {
                    State::Ok => "ok  ",
                    State::Warn => "warn",
                    State::Fail => "FAIL",
                };
                ui.line(&format!("{mark}  {:<10}  {}", check.name, check.found))?;
                if let Some(help) = &check.help {
                    ui.line(&format!("                  -> {help}"))?;
                }
            }
        }
        Ok(if ok { Exit::DONE } else { Exit::HOST_FAILED })
    }
}
