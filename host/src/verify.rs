//! Builds a job again from its source and compares: whether a module comes from where it says.
//!
//! In: a module or its manifest, and a source, none of them trusted. Out: a report with a verdict
//! and its causes. The stranger's build scripts and macros run in fresh surroundings
//! ([`crate::tools`]); the module that was given is never run.

pub(crate) mod compare;
mod dependencies;
pub(crate) mod source;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use tussah_manifest::{
    BUILD_SECTION, BuildInfo, Digest, Document as _, JobDescription, Label, Manifest, Verdict,
};

use crate::{
    build::{self, Declared, Order, sections},
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    interrupt::Interrupt,
    toolchain::{self, Toolchain},
    tools::{Confine, Fresh, Tools, confinement},
    ui::Ui,
};

use compare::Difference;
use source::Source;

/// What is to be verified, and how.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) given: Given,
    /// A folder or an archive.
    pub(crate) source: PathBuf,
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
        match self.claimable.as_ref().map(|found| found.verdict) {
            Some(Verdict::Match) => Exit::DONE,
            Some(Verdict::MatchCode) => Exit::CODE_MATCHES,
            Some(Verdict::Mismatch) => Exit::NOT_VERIFIED,
            None => Exit::CANNOT_BUILD,
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
    match confinement(question.confine) {
        Ok(found) => report.confinement = found,
        Err(missing) => {
            report.causes = vec![
                missing,
                "a stranger's build does not run unconfined; `--confine available` takes what \
                 this kernel has, on a machine that has nothing of worth"
                    .to_owned(),
            ];
            return Ok(report);
        }
    }
    match rebuild(home, question, &recorded, &mut report, ui, interrupt) {
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

/// What is known of the module before it is built again.
struct Recorded {
    digest: Digest,
    /// Of the module's own bytes alone: what a manifest says of them anybody may have written.
    code_digest: Option<Digest>,
    info: Option<BuildInfo>,
    job: Option<String>,
    /// What is wrong with the record, if there is anything.
    flaws: Vec<String>,
}

impl Recorded {
    fn of(given: &Given) -> Result<Self, Failure> {
        let manifest = given.manifest.as_ref();
        let build = manifest.and_then(|manifest| manifest.build.as_ref());
        let mut recorded = Self {
            digest: match (manifest, &given.module) {
                (Some(manifest), _) => manifest.module.digest,
                (None, Some(module)) => Digest::of(module),
                (None, None) => return Err(Failure::usage("there is no module to verify")),
            },
            code_digest: None,
            info: build.map(|build| build.info.clone()),
            job: manifest.map(|manifest| manifest.job.name.to_string()),
            flaws: Vec::new(),
        };
        let Some(module) = &given.module else {
            return Ok(recorded);
        };
        match sections::code_digest(module) {
            Ok(digest) => {
                if build.is_some_and(|build| build.code_digest != digest) {
                    let flaw = format!("the manifest's code_digest is not the module's, {digest}");
                    recorded.flaws.push(flaw);
                }
                recorded.code_digest = Some(digest);
            }
            Err(error) => recorded.flaws.push(error.to_string()),
        }
        let found = sections::build_sections(module).unwrap_or_default();
        match &found[..] {
            [] => recorded
                .flaws
                .push(format!("the module has no section `{BUILD_SECTION}`")),
            [only] => match BuildInfo::from_bytes(only) {
                Ok(info) => {
                    if recorded.info.as_ref().is_some_and(|stated| *stated != info) {
                        let flaw = "the manifest states another build than the module's section";
                        recorded.flaws.push(flaw.to_owned());
                    }
                    recorded.info = Some(info);
                }
                Err(error) => recorded.flaws.push(format!(
                    "the section `{BUILD_SECTION}` cannot be read: {error}"
                )),
            },
            several => recorded.flaws.push(format!(
                "the module has {} sections `{BUILD_SECTION}`, and a build writes one",
                several.len()
            )),
        }
        Ok(recorded)
    }

    fn report(&self) -> Report {
        Report {
            verdict: CANNOT_BUILD,
            causes: Vec::new(),
            job: self.job.clone(),
            module: Digests {
                digest: self.digest,
                code_digest: self.code_digest,
            },
            rebuilt: None,
            first_difference: None,
            recorded: self.info.clone(),
            toolchain: None,
            source: None,
            confinement: String::new(),
            ran: Vec::new(),
            claimable: None,
        }
    }

    /// Where this machine's toolchain is another.
    fn other_toolchain(&self, used: &Used) -> Vec<String> {
        let Some(info) = &self.info else {
            return Vec::new();
        };
        let mut found = Vec::from_iter(self.other_rustc(&used.rustc, &used.rustc_commit));
        if info.std_digest != used.std_digest {
            found.push(format!(
                "it links the std {}, and the std for wasm of this machine is {}",
                info.std_digest, used.std_digest
            ));
        }
        found
    }

    fn other_rustc(&self, rustc: &str, commit: &str) -> Option<String> {
        let info = self.info.as_ref()?;
        let differs = info.rustc.as_str() != rustc || info.rustc_commit.as_str() != commit;
        differs.then(|| {
            format!(
                "it was built with rustc {} ({}), and this is rustc {rustc} ({commit})",
                info.rustc, info.rustc_commit
            )
        })
    }
}

fn rebuild(
    home: &Home,
    question: &Question,
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
    let archive = question.source.is_file();
    let given = fs::canonicalize(&question.source)
        .map_err(|error| file_failure("open", &question.source, error))?;
    // The source is no place to write in: only the surroundings are.
    let surroundings = root.join("build");
    let copied = root.join("source");
    let mut read = vec![copied.clone()];
    if archive {
        read.push(given.clone());
    }
    fs::create_dir_all(&copied).map_err(|error| file_failure("create", &copied, error))?;
    let fresh = |at: &Path, read: Vec<PathBuf>, wasm_std: &toolchain::WasmStd| {
        Fresh::new(at, &toolchain, wasm_std, read, question.confine)
    };
    let unpacked = {
        let _spinner = ui.spinner("reading the source");
        match archive {
            // Tar writes there, and runs nothing of the source.
            true => {
                let tar = fresh(&surroundings, read.clone(), &toolchain::WasmStd::Installed)?;
                let unpacked = source::unpack(&given, &surroundings.join("source"), &tar)?;
                // What is built is what was listed, where no build can write.
                source::copy(&unpacked.root, &copied)?
            }
            false => source::copy(&given, &copied)?,
        }
    };
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
    let first = fresh(&surroundings, read.clone(), &wasm_std)?;
    let depends = dependencies::seed(&first, &folder)?;
    let mut order = Order {
        home,
        folder: &folder,
        toolchain: toolchain.clone(),
        tools: Tools::Fresh(first.clone()),
        declared: recorded.declared(&unpacked.sha256),
        jobs: question.jobs,
        names: false,
        target: None,
        may_lock: false,
        deadline: Some(Instant::now() + question.timeout),
    };
    let build = |order: &Order<'_>| {
        let _spinner = ui.spinner("building it again");
        build::build_order(order, ui, interrupt)
    };
    let (built, fresh) = match build(&order) {
        // What this user's cargo has may not be all that it is made of. Fetching has a network, so it begins
        // where nothing of the source has run.
        Err(failure) if depends && !question.offline && failure.exit != Exit::INTERRUPTED => {
            let second = fresh(&root.join("again"), read, &wasm_std)?;
            dependencies::seed(&second, &folder)?;
            dependencies::fetch(&second, &folder, target, ui, interrupt)?;
            order.tools = Tools::Fresh(second.clone());
            (build(&order)?, second)
        }
        built => (built?, first),
    };
    let bytes = fs::read(&built.module_path)
        .map_err(|error| file_failure("read", &built.module_path, error))?;
    report.ran = built
        .ran
        .iter()
        .map(|(package, what)| Ran {
            package: package.clone(),
            what,
        })
        .collect();
    if let Some(view) = &mut report.source {
        view.blobs.extend(dependencies::blobs(&fresh));
    }
    let Some(record) = built.manifest.build.clone() else {
        return Err(Failure::host("the build left no record"));
    };
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

impl Recorded {
    /// What only the builder knows is taken from the record; what the source is, is not.
    fn declared(&self, source_sha256: &Label) -> Declared {
        let info = self.info.as_ref();
        Declared {
            image: info.and_then(|info| info.bldimg.clone()),
            source_sha256: info
                .filter(|info| info.source_sha256.is_some())
                .map(|_| source_sha256.clone()),
            source_uri: info.and_then(|info| info.source_uri.clone()),
        }
    }

    /// Where the record of the rebuilt module is another, apart from the toolchain.
    fn unlike(&self, rebuilt: &BuildInfo) -> Vec<String> {
        let Some(info) = &self.info else {
            return vec![
                "nothing says how it was built; the toolchain may have been another".into(),
            ];
        };
        let mut found = Vec::new();
        if info.source_sha256 != rebuilt.source_sha256 {
            let none = || Label::lossy("none");
            found.push(format!(
                "this is another source than it was built of: source_sha256 is {}, recorded is {}",
                rebuilt.source_sha256.clone().unwrap_or_else(none),
                info.source_sha256.clone().unwrap_or_else(none),
            ));
        }
        let sdk = |info: &BuildInfo| match &info.sdk {
            Some(version) => version.to_string(),
            None => "none".to_owned(),
        };
        if info.sdk != rebuilt.sdk {
            let (theirs, ours) = (sdk(info), sdk(rebuilt));
            found.push(format!(
                "it was built with SDK {theirs}, the source has {ours}"
            ));
        }
        if info.bldopt != rebuilt.bldopt {
            found.push(format!(
                "another version of `tussah build`: it used {:?}, this one uses {:?}",
                info.bldopt, rebuilt.bldopt
            ));
        }
        if info.bldarg != rebuilt.bldarg {
            found.push(format!(
                "it was built from {:?} of its source, here from {:?}",
                info.bldarg, rebuilt.bldarg
            ));
        }
        found
    }
}

/// The likely cause of a difference, by whose code it is in.
fn cause(at: &Difference, job: &JobDescription, locked: &[(String, String)]) -> String {
    let Some(krate) = &at.krate else {
        return format!("the first difference is {}", at.at);
    };
    let same = |name: &str| name.replace('-', "_") == *krate;
    let whose = if let Some((name, version)) = locked.iter().find(|(name, _)| same(name)) {
        match name.as_str() == job.name.as_str() {
            true => "the job's own source differs".to_owned(),
            false => format!(
                "the source's Cargo.lock has {name} {version}: it was built of another version, \
                 or of changed code"
            ),
        }
    } else if ["core", "alloc", "std"].contains(&krate.as_str()) {
        "the code around it differs, or the std".to_owned()
    } else {
        "the job's source differs".to_owned()
    };
    format!("the first difference is {}: {whose}", at.at)
}

/// The job's folder below the source: as asked, as recorded, or the only one of that name.
fn job_place(question: &Question, recorded: &Recorded, source: &Source) -> Result<String, Failure> {
    let stated = recorded.info.as_ref().and_then(|info| info.bldarg.first());
    if let Some(place) = question.job.as_deref().or(stated.map(Label::as_str)) {
        let parts = Path::new(place).components();
        let inside = parts.clone().all(|part| {
            use std::path::Component::{CurDir, Normal};
            matches!(part, CurDir | Normal(_))
        });
        if !inside {
            let message = format!("`{place}` is no folder below the source");
            return Err(Failure::usage(message));
        }
        let found = source.root.join(place).join(build::DESCRIPTION);
        if !found.is_file() {
            let message = format!("the source has no {} in `{place}`", build::DESCRIPTION);
            return Err(Failure::usage(message).help("name the job's folder with --job"));
        }
        return Ok(place.to_owned());
    }
    let mut places = Vec::new();
    for file in &source.files {
        let below = file.strip_suffix(build::DESCRIPTION);
        let Some(place) = below.filter(|place| place.is_empty() || place.ends_with('/')) else {
            continue;
        };
        let job = build::read_description(&source.root.join(place));
        let fits = job.is_ok_and(|job| {
            (recorded.job.as_ref()).is_none_or(|wanted| *wanted == job.name.as_str())
        });
        if fits {
            places.push(place.trim_end_matches('/').to_owned());
        }
    }
    match &places[..] {
        [] => Err(Failure::usage("the source holds no such job")),
        [only] if only.is_empty() => Ok(".".to_owned()),
        [only] => Ok(only.clone()),
        several => Err(Failure::usage(format!(
            "the source holds several jobs: {}",
            several.join(", ")
        ))
        .help("name the job's folder with --job")),
    }
}
