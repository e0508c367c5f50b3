//! `tussah verify`: whether a module comes from its source, by building it again.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::json;
use tussah_manifest::{
    Claim, ClaimBody, Document as _, Label, Manifest, ModuleRef, PublicKey, SigningKey, Verdict,
    Version,
};

use crate::{
    build::MANIFEST_FILE_BYTES_MAX,
    clock,
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    input,
    interrupt::Interrupt,
    keys::{self, KeyName},
    road::HOST_BUILD,
    tools::Confine,
    ui::Ui,
    verify::{self, Given, Question, Report},
};

const EXAMPLES: &str = "\
Examples:
  tussah verify manifest.toml --source job.tar.gz   Build it again and compare
  tussah verify module.wasm --source . --json       The same of a module alone
  tussah verify module.wasm                         From where it says that its source is
  tussah verify manifest.toml --source . --sign claim.cbor
                                                    And sign what came of it
  tussah verify manifest.toml --claim claim.cbor --key ed25519:…
                                                    Check what another one signed

The source is copied, its dependencies are fetched into a CARGO_HOME of their own, and the
build runs without network, secrets or files of this machine. Exit codes: 0 match,
3 mismatch, 6 the code matches and custom sections differ, 7 it cannot be built here.";

/// Build a job again from its source, and compare with a module or its manifest.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A manifest, with module.wasm beside it if it is there, or a module.
    #[arg(value_name = "MANIFEST|MODULE", required_unless_present = "claim")]
    given: Option<PathBuf>,
    /// The source: a folder, or an archive that `tar` reads. If not given, it is fetched from where
    /// the module says that it is, and is this folder where it says nothing.
    #[arg(long, value_name = "DIR|TARBALL", conflicts_with = "claim")]
    source: Option<PathBuf>,
    /// The job's folder below the source, where the module does not say.
    #[arg(long, value_name = "DIR", conflicts_with = "claim")]
    job: Option<String>,
    /// What has to keep the build from this machine.
    #[arg(long, value_enum, default_value = "required", conflicts_with = "claim")]
    confine: Confine,
    /// Build with this machine's toolchain even if it is not the recorded one.
    #[arg(long, conflicts_with = "claim")]
    any_toolchain: bool,
    /// Fetch nothing.
    #[arg(long, conflicts_with = "claim")]
    offline: bool,
    /// Compilers at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// The most seconds that fetching may take, and again building.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "3600",
        conflicts_with = "claim"
    )]
    timeout_s: u32,
    /// Write a signed claim of the verdict to this file; the key is this host's provider key.
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Check a signed claim instead of building; needs --key.
    #[arg(long, value_name = "FILE", conflicts_with = "sign")]
    claim: Option<PathBuf>,
    /// Whose claim it has to be; several are alternatives.
    #[arg(long, value_name = "KEY", requires = "claim")]
    key: Vec<PublicKey>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let given = self.given()?;
        if let Some(claim) = &self.claim {
            return self.check_claim(claim, &given, ui);
        }
        let interrupt = Interrupt::install()?;
        let home = Home::open()?;
        let question = Question {
            given,
            source: self.source,
            job: self.job,
            confine: self.confine,
            any_toolchain: self.any_toolchain,
            offline: self.offline,
            jobs: self.jobs,
            timeout: Duration::from_secs(self.timeout_s.into()),
        };
        let report = verify::verify(&home, &question, ui, &interrupt)?;
        if let Some(file) = &self.sign {
            match sign(&home, &report)? {
                Some(claim) => std::fs::write(file, claim.to_bytes())
                    .map_err(|error| file_failure("write", file, error))?,
                None => ui.warn(
                    "no claim is made: one is of a module that was built again, and of no manifest \
                     that differs from what its source gives",
                ),
            }
        }
        let shown = match ui.json() {
            true => ui.document(&report),
            false => show(&report, ui),
        };
        kept(shown, report.exit())
    }

    fn given(&self) -> Result<Given, Failure> {
        let Some(path) = &self.given else {
            return Ok(Given::default());
        };
        let bytes = input::bytes(path, ModuleRef::SIZE_BYTES_MAX)?;
        let is_wasm = path.extension().is_some_and(|ending| ending == "wasm");
        if is_wasm || bytes.starts_with(b"\0asm") {
            return Ok(Given {
                module: Some(bytes),
                manifest: None,
            });
        }
        let bytes = input::bytes(path, MANIFEST_FILE_BYTES_MAX)?;
        let manifest = Manifest::parse_bytes(&bytes).map_err(|error| {
            Failure::usage(error).context(format!("{} is no manifest", path.display()))
        })?;
        let beside = path.with_file_name("module.wasm");
        let mut module = None;
        if beside.is_file() {
            let bytes = input::bytes(&beside, ModuleRef::SIZE_BYTES_MAX)?;
            let found = ModuleRef::of(&bytes);
            if found != manifest.module {
                let message = format!(
                    "the module {} has the digest {}, the manifest names {}",
                    beside.display(),
                    found.digest,
                    manifest.module.digest
                );
                return Err(Failure::not_verified(message)
                    .help("verify the module by its own name, or take it away"));
            }
            module = Some(bytes);
        }
        Ok(Given {
            module,
            manifest: Some(manifest),
        })
    }

    fn show_claim(body: &ClaimBody, ui: &Ui) -> Result<(), Failure> {
        ui.line(&format!(
            "{}  {} of {}",
            body.verdict, body.module, body.job
        ))?;
        ui.line(&format!("source_sha256  {}", body.source_sha256))?;
        ui.line(&format!("signed by      {}", body.key))
    }

    fn check_claim(&self, file: &std::path::Path, given: &Given, ui: &Ui) -> Result<Exit, Failure> {
        if self.key.is_empty() {
            let message = "a claim proves nothing without a key that you trust to make it";
            return Err(Failure::usage(message).help(
                "name the key with --key KEY; its owner prints it with `tussah provider key`",
            ));
        }
        let max = u64::try_from(Claim::BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = input::bytes(file, max)?;
        let claim = Claim::from_verified_bytes(&bytes).map_err(|error| {
            Failure::not_verified(error).context(format!("{} is no good claim", file.display()))
        })?;
        let body = &claim.body;
        if !self.key.contains(&body.key) {
            let message = format!(
                "the claim is signed by {}, which is not asked for",
                body.key
            );
            return Err(Failure::not_verified(message));
        }
        let module = match given {
            Given {
                manifest: Some(manifest),
                ..
            } => Some(manifest.module.digest),
            Given {
                module: Some(module),
                ..
            } => Some(ModuleRef::of(module).digest),
            _ => None,
        };
        if let Some(module) = module
            && module != body.module
        {
            let message = format!(
                "the claim is of the module {}, not of {module}",
                body.module
            );
            return Err(Failure::not_verified(message));
        }
        let shown = if ui.json() {
            ui.document(&json!({ "claim": body, "signature": claim.signature }))
        } else {
            Self::show_claim(body, ui)
        };
        let exit = match body.verdict {
            Verdict::Match => Exit::DONE,
            Verdict::MatchCode => Exit::CODE_MATCHES,
            Verdict::Mismatch => Exit::NOT_VERIFIED,
        };
        kept(shown, exit)
    }
}

/// The exit code of a verdict, also where nobody reads it to its end.
fn kept(shown: Result<(), Failure>, exit: Exit) -> Result<Exit, Failure> {
    match shown {
        Err(failure) if failure.exit == Exit::DONE => Ok(exit),
        shown => shown.map(|()| exit),
    }
}

fn sign(home: &Home, report: &Report) -> Result<Option<Claim>, Failure> {
    let (Some(found), Some(rebuilt), Some(source)) =
        (&report.claimable, &report.rebuilt, &report.source)
    else {
        return Ok(None);
    };
    let key = SigningKey::from_bytes(&*keys::load_or_create(home, KeyName::Provider)?);
    let body = ClaimBody {
        version: Version::V1,
        job: found.job.name.clone(),
        verdict: found.verdict,
        module: report.module.digest,
        rebuilt: rebuilt.digest,
        rebuilt_code: found.rebuilt_code,
        source_sha256: source.sha256.clone(),
        build: found.build.clone(),
        confinement: Label::lossy(&report.confinement),
        verifier: Label::lossy(HOST_BUILD),
        made_unix_s: clock::milliseconds() / 1000,
        key: key.public_key(),
    };
    body.sign(&key).map(Some).map_err(Failure::host)
}

/// Text of the source, whose names and messages a terminal or a runner is not to take for anything
/// else: one line each, without characters that write elsewhere.
fn lines(text: &str) -> impl Iterator<Item = String> + '_ {
    let is_shown = |c: char| {
        let moves = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
            || matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            );
        !c.is_control() && !moves
    };
    text.split('\n').map(move |line| {
        let mut shown = String::with_capacity(line.len());
        for c in line.trim_end_matches('\r').chars() {
            match c {
                '\t' => shown.push(' '),
                c if is_shown(c) => shown.push(c),
                c => shown.extend(c.escape_unicode()),
            }
        }
        shown
    })
}

/// The container image that a module says it was built in.
fn recorded_image(report: &Report) -> Option<&Label> {
    report.recorded.as_ref()?.bldimg.as_ref()
}

fn show(report: &Report, ui: &Ui) -> Result<(), Failure> {
    // Nothing of the source begins a line: those are the report's own.
    let say = |head: &str, text: &str| -> Result<(), Failure> {
        for line in lines(text) {
            ui.line(&format!("{head}{line}"))?;
        }
        Ok(())
    };
    ui.line(&format!("{}  {}", report.verdict, report.module.digest))?;
    for cause in &report.causes {
        say("  ", cause)?;
    }
    if let Some(rebuilt) = &report.rebuilt {
        ui.line(&format!("rebuilt      {}", rebuilt.digest))?;
    }
    for field in &report.manifest_differs {
        let text = format!("{} is {}, not {}", field.field, field.rebuilt, field.given);
        say("  manifest   ", &text)?;
    }
    if let Some(used) = &report.toolchain {
        let commit = format!("rustc {} ({:.9})", used.rustc, used.rustc_commit);
        say("toolchain    ", &commit)?;
        ui.line(&format!("std          {}", used.std_digest))?;
    }
    if let (Some(_), Some(image)) = (&report.rebuilt, recorded_image(report)) {
        let text = format!("not that which is recorded, {image}, but the toolchain above");
        say("container    ", &text)?;
    }
    if let Some(source) = &report.source {
        ui.line(&format!(
            "source       {} in {} files",
            source.sha256, source.files
        ))?;
        for left_out in &source.left_out {
            say("  left out   ", left_out)?;
        }
        for blob in &source.blobs {
            say("  no text    ", blob)?;
        }
    }
    for one in &report.configuration {
        let text = format!("{}: {} = {}", one.file, one.key, one.value);
        say("  sets       ", &text)?;
    }
    for ran in &report.ran {
        say("  ran        ", &format!("{} of {}", ran.what, ran.package))?;
    }
    say("confinement  ", &report.confinement)
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn what_writes_elsewhere_is_spelled() {
        let shown = |text: &str| lines(text).collect::<Vec<_>>();
        assert_eq!(shown("a\tb\r\nmatch"), ["a b", "match"]);
        assert_eq!(shown("\u{1b}[2Jx\rok"), ["\\u{1b}[2Jx\\u{d}ok"]);
        assert_eq!(shown("\u{202e}\u{9b}é"), ["\\u{202e}\\u{9b}é"]);
    }
}
