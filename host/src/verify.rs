//! Builds a job again from its source and compares: whether a module comes from where it says.
//!
//! In: a module or its manifest, and a source, none of them trusted. Out: a report with a verdict
//! and its causes. The stranger's build scripts and macros run in fresh surroundings
//! ([`crate::tools`]); the module that was given is never run.

pub(crate) mod compare;
mod configuration;
mod dependencies;
mod fetch;
mod fields;
mod plan;
mod recorded;
pub(crate) mod source;
mod step;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use tussah_manifest::{BuildInfo, Digest, JobDescription, Label, Manifest, Verdict};

use crate::{
    build::{self, Order},
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    interrupt::Interrupt,
    toolchain::{self, Toolchain},
    tools::{Confine, Fresh, Layers, Tools},
    ui::Ui,
};

use compare::Difference;
use configuration::Setting;
use fetch::Expected;
use fields::Field;
use plan::{NoPlan, Plan};
use recorded::{Recorded, cause, job_place};
use step::Bounds;

/// What is to be verified, and how.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) given: Given,
    /// A folder or an archive; where the module says, if not given, and else this folder.
    pub(crate) source: Option<PathBuf>,
    /// The job's folder below the source, if what was given does not say.
    pub(crate) job: Option<String>,
    pub(crate) confine: Confine,
    /// Build with another toolchain than the recorded one, too.
    pub(crate) any_toolchain: bool,
    /// Fetch nothing; what this user's cargo has already is taken.
    pub(crate) offline: bool,
    pub(crate) jobs: Option<u32>,
    pub(crate) timeout: Duration,
}

/// A module, its manifest, or both.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) module: Option<Vec<u8>>,
    pub(crate) manifest: Option<Manifest>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `match`, `match-code`, `mismatch` or `cannot-build`.
    pub(crate) verdict: &'static str,
    /// Why it is not `match`, the likeliest first.
    pub(crate) causes: Vec<String>,
    pub(crate) job: Option<String>,
    pub(crate) module: Digests,
    pub(crate) rebuilt: Option<Digests>,
    pub(crate) first_difference: Option<Difference>,
    /// What the module or its manifest says of its build.
    pub(crate) recorded: Option<BuildInfo>,
    /// With what it was built here.
    pub(crate) toolchain: Option<Used>,
    pub(crate) source: Option<SourceView>,
    /// What kept the build from this machine's files and network.
    pub(crate) confinement: String,
    /// Code of the source and its dependencies that ran while building: it could write any module.
    pub(crate) ran: Vec<Ran>,
    /// What configuration files of the source ask of cargo.
    pub(crate) configuration: Vec<Setting>,
    /// Where the manifest is not the one that the source gives.
    pub(crate) manifest_differs: Vec<Field>,
    #[serde(skip)]
    pub(crate) claimable: Option<Claimable>,
}

/// The two identities of a module.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Digests {
    pub(crate) digest: Digest,
    pub(crate) code_digest: Option<Digest>,
}

/// A toolchain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Used {
    pub(crate) rustc: String,
    pub(crate) rustc_commit: String,
    pub(crate) std_digest: Digest,
}

/// The source, as it was built.
#[derive(Debug, Serialize)]
pub(crate) struct SourceView {
    pub(crate) sha256: Label,
    pub(crate) files: usize,
    /// What of a working folder is neither listed nor built: Git's own files, and caches.
    pub(crate) left_out: Vec<String>,
    /// Files that are no text, here and in dependencies.
    pub(crate) blobs: Vec<String>,
}

/// A package whose code ran on this machine.
#[derive(Debug, Serialize)]
pub(crate) struct Ran {
    pub(crate) package: String,
    pub(crate) what: &'static str,
}

/// What a claim can be made of.
#[derive(Clone, Debug)]
pub(crate) struct Claimable {
    pub(crate) verdict: Verdict,
    pub(crate) job: JobDescription,
    pub(crate) rebuilt_code: Digest,
    pub(crate) build: BuildInfo,
}

/// The verdict that no claim is made of.
const CANNOT_BUILD: &str = "cannot-build";

impl Report {
    /// What the process ends with.
    pub(crate) fn exit(&self) -> Exit {
        let is = |verdict: Verdict| self.verdict == verdict.name();
        match () {
            () if is(Verdict::Match) => Exit::DONE,
            () if is(Verdict::MatchCode) => Exit::CODE_MATCHES,
            () if is(Verdict::Mismatch) => Exit::NOT_VERIFIED,
            () => Exit::CANNOT_BUILD,
        }
    }
}

/// Builds again and compares. That it cannot be built is a verdict, not an error.
///
/// # Errors
/// A failure if the question makes no sense, or this machine fails.
pub(crate) fn verify(
    home: &Home,
    question: &Question,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<Report, Failure> {
    let recorded = Recorded::of(&question.given)?;
    let mut report = recorded.report();
    let layers = match Layers::of(question.confine) {
        Ok(found) => found,
        Err(missing) => {
            report.confinement = format!("not all that is required: {missing}");
            report.causes = vec![
                missing,
                "a stranger's build does not run with less than namespaces, Landlock and seccomp; \
                 `--confine available` takes what this kernel has, on a machine that has nothing \
                 of worth"
                    .to_owned(),
            ];
            return Ok(report);
        }
    };
    report.confinement.clone_from(&layers.said);
    match rebuild(
        home,
        question,
        layers,
        &recorded,
        &mut report,
        ui,
        interrupt,
    ) {
        Ok(()) => Ok(report),
        Err(failure) if failure.exit == Exit::INTERRUPTED => Err(failure),
        Err(failure) => {
            report.verdict = CANNOT_BUILD;
            report.claimable = None;
            report.causes.extend(failure.chain());
            report.causes.extend(failure.help);
            Ok(report)
        }
    }
}

fn rebuild(
    home: &Home,
    question: &Question,
    layers: Layers,
    recorded: &Recorded,
    report: &mut Report,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let work = tempfile::Builder::new()
        .prefix("tussah-verify-")
        .tempdir()
        .map_err(Failure::host)?;
    let work = fs::canonicalize(work.path())
        .map(|path| (path, work))
        .map_err(Failure::host)?;
    let (root, _kept) = (&work.0, &work.1);
    // Asked where no file of the source can choose another.
    let toolchain = Toolchain::of(root)?;
    let fresh = |at: &Path, read: Vec<PathBuf>, wasm_std: &toolchain::WasmStd| {
        Fresh::new(at, &toolchain, wasm_std, read, layers.clone())
    };
    let expected = match &question.source {
        Some(_) => None,
        None => Expected::of(recorded.info.as_ref(), question.offline)?,
    };
    let source = match (&question.source, &expected) {
        (Some(source), _) => source.clone(),
        (None, Some(expected)) => {
            let fetching = root.join("fetching");
            let fetching = fresh(&fetching, Vec::new(), &toolchain::WasmStd::Installed)?;
            expected.fetch(&fetching, question.timeout, ui, interrupt)?
        }
        (None, None) => PathBuf::from("."),
    };
    let archive = source.is_file();
    let given = fs::canonicalize(&source).map_err(|error| file_failure("open", &source, error))?;
    // The source is no place to write in: only the surroundings are.
    let surroundings = root.join("build");
    let copied = root.join("source");
    let mut read = vec![copied.clone()];
    if archive {
        read.push(given.clone());
    }
    fs::create_dir_all(&copied).map_err(|error| file_failure("create", &copied, error))?;
    let mut left_out = Vec::new();
    let unpacked = {
        let _spinner = ui.spinner("reading the source");
        match archive {
            // Tar writes there, and runs nothing of the source.
            true => {
                let tar = fresh(&surroundings, read.clone(), &toolchain::WasmStd::Installed)?;
                let unpacked = source::unpack(&given, &tar)?;
                // What is built is what was listed, where no build can write.
                source::copy(&unpacked.root, &copied)?
            }
            // A commit's files, all of them.
            false if expected.is_some() => source::copy(&given, &copied)?,
            false => {
                left_out = source::copy_working(&given, &copied)?;
                source::list(&copied)?
            }
        }
    };
    if let Some(expected) = &expected {
        expected.check(&unpacked.sha256)?;
    }
    let place = job_place(question, recorded, &unpacked)?;
    let folder = unpacked.root.join(&place);
    let description = build::read_description(&folder)?;
    report.job = Some(description.name.to_string());
    if let Some(job) = &recorded.job
        && *job != description.name.as_str()
    {
        let message = format!(
            "the job in `{place}` is `{}`, not `{job}`",
            description.name
        );
        return Err(Failure::usage(message));
    }
    let target = toolchain::wasm_target(description.abi);
    let wasm_std = toolchain.wasm_std(home, target).inspect_err(|_| {
        // A compiler without std is no accident where the recorded one is another.
        let other = recorded.other_rustc(&toolchain.release, &toolchain.commit);
        report.causes.extend(other);
    })?;
    let used = Used {
        rustc: toolchain.release.clone(),
        rustc_commit: toolchain.commit.clone(),
        std_digest: wasm_std.digest(&toolchain, target).map_err(Failure::host)?,
    };
    report.toolchain = Some(used.clone());
    report.source = Some(SourceView {
        sha256: unpacked.sha256.clone(),
        files: unpacked.files.len(),
        left_out,
        blobs: unpacked.blobs.clone(),
    });
    let others = recorded.other_toolchain(&used);
    if !others.is_empty() && !question.any_toolchain {
        report.causes = others;
        return Err(
            Failure::usage("only the same toolchain gives the same bytes").help(
                "install the recorded one, name it with RUSTUP_TOOLCHAIN, and run it again; \
             `--any-toolchain` builds with this one and compares all the same",
            ),
        );
    }
    report.configuration = configuration::settings(&folder, &unpacked.root)?;
    let fresh = fresh(&surroundings, read, &wasm_std)?;
    let plan = planned(
        question,
        &fresh,
        (&folder, &unpacked.root),
        target,
        ui,
        interrupt,
    )?;
    report.ran = plan.ran();
    if let Some(view) = &mut report.source {
        view.blobs.extend(dependencies::blobs(&fresh));
    }
    let mut order = Order {
        home,
        folder: &folder,
        toolchain: toolchain.clone(),
        tools: Tools::Fresh(fresh),
        declared: recorded.declared(&unpacked.sha256),
        jobs: question.jobs,
        names: false,
        target: None,
        may_lock: false,
        deadline: Some(Instant::now() + question.timeout),
    };
    let built = {
        let _spinner = ui.spinner("building it again");
        build::build_order(&order, ui, interrupt)?
    };
    let bytes = fs::read(&built.module_path)
        .map_err(|error| file_failure("read", &built.module_path, error))?;
    let Some(record) = built.manifest.build.clone() else {
        return Err(Failure::host("the build left no record"));
    };
    if record.info.sdk.as_ref().map(Label::as_str) != plan.sdk.as_deref() {
        let message = "cargo's messages name another SDK than the source builds with: code that \
                       the build runs has written there";
        return Err(Failure::host(message));
    }
    report.rebuilt = Some(Digests {
        digest: built.module,
        code_digest: Some(record.code_digest),
    });
    let verdict = if built.module == recorded.digest {
        Verdict::Match
    } else if recorded.code_digest == Some(record.code_digest) {
        Verdict::MatchCode
    } else {
        Verdict::Mismatch
    };
    report.verdict = verdict.name();
    if let Some(given) = &question.given.manifest {
        report.manifest_differs = fields::unlike(given, &built.manifest, verdict);
    }
    if !report.manifest_differs.is_empty() {
        report.causes.push(fields::cause(&report.manifest_differs));
        if verdict == Verdict::Match {
            // Of the manifest: a claim would be of the module alone.
            report.verdict = Verdict::Mismatch.name();
            return Ok(());
        }
    }
    if verdict == Verdict::Mismatch && question.given.module.is_none() {
        let cause = "whether the code is the same cannot be said without the module: give it, or put it beside the manifest";
        report.causes.push(cause.to_owned());
    }
    if verdict != Verdict::Match {
        report.causes.extend(recorded.flaws.iter().cloned());
        report.causes.extend(others);
        report.causes.extend(recorded.unlike(&record.info));
    }
    if verdict == Verdict::Mismatch
        && let Some(given) = &question.given.module
    {
        order.names = true;
        // Names are a help; where they cannot be had, a number is shown.
        let named = build::build_order(&order, ui, interrupt).ok();
        let named = named.and_then(|named| {
            let same = named.manifest.build?.code_digest == record.code_digest;
            same.then(|| fs::read(named.module_path).ok())?
        });
        let difference = compare::code(given, &bytes, named.as_deref());
        report.causes.extend(difference.iter().map(|difference| {
            cause(
                difference,
                &description,
                &dependencies::locked(&folder, &unpacked.root),
            )
        }));
        report.first_difference = difference;
    }
    report.claimable = Some(Claimable {
        verdict,
        job: description,
        rebuilt_code: record.code_digest,
        build: record.info,
    });
    Ok(())
}

/// Has the packages, from what this user's cargo has or by fetching, and finds out what would be
/// built. Nothing of the source has run by then.
fn planned(
    question: &Question,
    fresh: &Fresh,
    (folder, root): (&Path, &Path),
    target: &'static str,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<Plan, Failure> {
    let kind = match target {
        toolchain::WASM_TARGET => "--lib",
        _ => "--bins",
    };
    let bounds = |what| Bounds {
        what,
        until: Instant::now() + question.timeout,
        room: None,
    };
    let ask = || {
        let _spinner = ui.spinner("asking cargo what it would build");
        let bounds = bounds("asking cargo what it would build");
        plan::plan(fresh, folder, (target, kind), &bounds, interrupt)
    };
    let depends = dependencies::seed(fresh, folder, root)?;
    let missing = match ask() {
        Ok(plan) => return Ok(plan),
        Err(NoPlan::Failed(failure)) => return Err(failure),
        Err(NoPlan::Cargo(failure)) => failure,
    };
    if !depends || question.offline {
        return Err(missing);
    }
    let fetching = bounds("fetching the dependencies");
    dependencies::fetch(fresh, folder, target, &fetching, ui, interrupt)?;
    ask().map_err(|error| match error {
        NoPlan::Cargo(failure) | NoPlan::Failed(failure) => failure,
    })
}

impl Plan {
    fn ran(&self) -> Vec<Ran> {
        let ran = self.ran.iter().map(|(package, what)| Ran {
            package: package.clone(),
            what,
        });
        ran.collect()
    }
}
