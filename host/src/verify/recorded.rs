//! What is known of a module before it is built again, and what is said of a difference after.
//!
//! In: a module, its manifest, a source, none of them trusted. Out: what they state, where they
//! contradict each other, and likely causes.

use std::path::Path;

use tussah_manifest::{BUILD_SECTION, BuildInfo, Digest, Document as _, JobDescription, Label};

use super::{
    CANNOT_BUILD, Digests, Given, Question, Report, Used, compare::Difference, source::Source,
};
use crate::{
    build::{self, Declared, sections},
    failure::Failure,
};

/// What is known of the module before it is built again.
pub(super) struct Recorded {
    pub(super) digest: Digest,
    /// Of the module's own bytes alone: what a manifest says of them anybody may have written.
    pub(super) code_digest: Option<Digest>,
    pub(super) info: Option<BuildInfo>,
    pub(super) job: Option<String>,
    /// What is wrong with the record, if there is anything.
    pub(super) flaws: Vec<String>,
}

impl Recorded {
    /// Reads it.
    ///
    /// # Errors
    /// A usage failure if there is no module.
    pub(super) fn of(given: &Given) -> Result<Self, Failure> {
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

    /// A report of what is known so far.
    pub(super) fn report(&self) -> Report {
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
            configuration: Vec::new(),
            manifest_differs: Vec::new(),
            claimable: None,
        }
    }

    /// Where this machine's toolchain is another.
    pub(super) fn other_toolchain(&self, used: &Used) -> Vec<String> {
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

    /// The same of the compiler alone.
    pub(super) fn other_rustc(&self, rustc: &str, commit: &str) -> Option<String> {
        let info = self.info.as_ref()?;
        let differs = info.rustc.as_str() != rustc || info.rustc_commit.as_str() != commit;
        differs.then(|| {
            format!(
                "it was built with rustc {} ({}), and this is rustc {rustc} ({commit})",
                info.rustc, info.rustc_commit
            )
        })
    }

    /// What only the builder knows is taken from the record; what the source is, is not.
    pub(super) fn declared(&self, source_sha256: &Label) -> Declared {
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
    pub(super) fn unlike(&self, rebuilt: &BuildInfo) -> Vec<String> {
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
pub(super) fn cause(at: &Difference, job: &JobDescription, locked: &[(String, String)]) -> String {
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
pub(super) fn job_place(
    question: &Question,
    recorded: &Recorded,
    source: &Source,
) -> Result<String, Failure> {
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
