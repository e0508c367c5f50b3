//! A verifiable build in a container whose image is named by its digest.
//!
//! In: a clean export of a commit, and an image that holds `tussah`, a toolchain and its std for
//! wasm. Out: the module that these made, without a network. Never: an image by a tag, which may be
//! another one tomorrow, or a build without a container where one was asked for.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use tussah_manifest::{BuildInfo, Document as _, JobName, Label};

use super::{read_module, sections};
use crate::{
    failure::{Failure, file_failure},
    interrupt::Interrupt,
    ui::Ui,
};

/// The longest name of an image.
const NAME_BYTES_MAX: usize = 150;

/// An image: `NAME@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image(String);

/// What is no image that anybody can have again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("an image is named by its digest, NAME@sha256:…")]
    NoDigest,
    #[error("an image's tag may be another image tomorrow; name it NAME@sha256:… without one")]
    Tag,
    #[error("an image's digest is 64 lowercase hex digits")]
    Digest,
    #[error(
        "an image's name has lowercase letters, digits and `._-/`, and a port where it needs one"
    )]
    Name,
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let (name, digest) = text.split_once("@sha256:").ok_or(ImageError::NoDigest)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digest.len() != 64 || !digest.bytes().all(is_hex) {
            return Err(ImageError::Digest);
        }
        let (before, last) = name.rsplit_once('/').unwrap_or(("", name));
        if last.contains(':') {
            return Err(ImageError::Tag);
        }
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_plain = |byte: u8| is_letter(byte) || b"._-/".contains(&byte);
        let is_name = name.bytes().next().is_some_and(is_letter)
            && name.len() <= NAME_BYTES_MAX
            && last.bytes().next().is_some_and(is_letter)
            && last.bytes().all(is_plain)
            && before.bytes().all(|byte| is_plain(byte) || byte == b':');
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(ImageError::Name),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Podman,
    Docker,
}

impl Engine {
    const fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }

    /// The first of them that is installed.
    fn find() -> Option<(Self, PathBuf)> {
        let path = std::env::var_os("PATH")?;
        let of = |engine: Self| {
            let mut places = std::env::split_paths(&path).filter(|place| place.is_absolute());
            let program = places.find_map(|place| {
                let program = place.join(engine.name());
                program.is_file().then_some(program)
            })?;
            Some((engine, program))
        };
        [Self::Podman, Self::Docker].into_iter().find_map(of)
    }
}

/// What is run in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The packages of the lock file come into CARGO_HOME; the only step with a network.
    Fetch,
    Build,
}

/// The folders of one build, and its image.
struct Container<'a> {
    engine: Engine,
    image: &'a Image,
    /// Only read.
    source: &'a Path,
    cargo_home: &'a Path,
    target: &'a Path,
    /// The job's folder below the source, with `/`.
    job: &'a str,
    jobs: Option<u32>,
    /// Who owns the folders.
    owner: (u32, u32),
}

impl Container<'_> {
    fn arguments(&self, step: Step) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["run".into(), "--rm".into()];
        all.push(match step {
            Step::Fetch => "--pull=missing".into(),
            Step::Build => "--pull=never".into(),
        });
        if step == Step::Build {
            all.push("--network=none".into());
        }
        all.push(match self.engine {
            // Without root's rights outside, this is who runs it.
            Engine::Podman => "--user=0:0".into(),
            Engine::Docker => format!("--user={}:{}", self.owner.0, self.owner.1).into(),
        });
        all.push("--security-opt=no-new-privileges".into());
        all.push("--security-opt=label=disable".into());
        let mounts = [
            (self.source, "/source", ",readonly"),
            (self.cargo_home, "/cargo", ""),
            (self.target, "/target", ""),
        ];
        for (from, to, how) in mounts {
            let mut mount = OsString::from("--mount=type=bind,source=");
            mount.push(from);
            mount.push(format!(",target={to}{how}"));
            all.push(mount);
        }
        for set in ["HOME=/tmp", "CARGO_HOME=/cargo", "CARGO_TARGET_DIR=/target"] {
            all.push(format!("--env={set}").into());
        }
        if step == Step::Build {
            all.push("--env=CARGO_NET_OFFLINE=true".into());
        }
        all.push(format!("--workdir=/source/{}", self.job).into());
        let program = match step {
            Step::Fetch => "cargo",
            Step::Build => "tussah",
        };
        all.push(format!("--entrypoint={program}").into());
        all.push(self.image.to_string().into());
        match step {
            Step::Fetch => all.extend(["fetch".into(), "--locked".into()]),
            Step::Build => {
                all.push("build".into());
                if let Some(jobs) = self.jobs {
                    all.push(format!("--jobs={jobs}").into());
                }
            }
        }
        all
    }
}

/// Builds the job of a clean export; the module and what it says of its build, the image too.
///
/// # Errors
/// A usage failure if there is no engine, or the engine's own failure.
pub(super) fn build(
    image: &Image,
    source: &Path,
    (job, name): (&Path, &JobName),
    jobs: Option<u32>,
    ui: &Ui,
    interrupt: &Interrupt,
) -> Result<(Vec<u8>, BuildInfo), Failure> {
    let Some((engine, program)) = Engine::find() else {
        let message = "there is no podman and no docker here to build in a container";
        return Err(Failure::usage(message)
            .help("install one of them, or leave --image out to build with this toolchain"));
    };
    let work = tempfile::Builder::new()
        .prefix("tussah-container-")
        .tempdir()
        .map_err(Failure::host)?;
    let work = (fs::canonicalize(work.path()).map_err(Failure::host)?, work);
    let (cargo_home, target) = (work.0.join("cargo"), work.0.join("target"));
    for folder in [&cargo_home, &target] {
        fs::create_dir(folder).map_err(|error| file_failure("create", folder, error))?;
    }
    for path in [source, &work.0] {
        if path.to_string_lossy().contains([',', '"']) {
            let message = format!("{} cannot be given to a container", path.display());
            return Err(Failure::usage(message).help("set TMPDIR to a folder of a plainer name"));
        }
    }
    let job = job.to_string_lossy().replace('\\', "/");
    let container = Container {
        engine,
        image,
        source,
        cargo_home: &cargo_home,
        target: &target,
        job: &job,
        jobs,
        owner: owner_of(&target)?,
    };
    for (step, what) in [
        (Step::Fetch, "fetching in the container"),
        (Step::Build, "building in the container"),
    ] {
        let _spinner = ui.spinner(what);
        let mut command = Command::new(&program);
        let output = command.args(container.arguments(step)).output();
        let output = output.map_err(|error| {
            Failure::host(error).context(format!("cannot run `{}`", engine.name()))
        })?;
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let context = format!("{what} {image} failed, by {}", engine.name());
            return Err(Failure::host(said).context(context));
        }
    }
    let module = target
        .join("tussah")
        .join(name.as_str())
        .join("module.wasm");
    let bytes = read_module(&module)?;
    let found = sections::build_sections(&bytes).map_err(Failure::host)?;
    let [record] = found[..] else {
        return Err(Failure::host(
            "the image's tussah left no record of its build",
        ));
    };
    let mut info = BuildInfo::from_bytes(record).map_err(Failure::host)?;
    info.bldimg = Some(Label::new(&image.0).map_err(Failure::host)?);
    Ok((bytes, info))
}

#[cfg(unix)]
fn owner_of(folder: &Path) -> Result<(u32, u32), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata(folder).map_err(|error| file_failure("read", folder, error))?;
    Ok((meta.uid(), meta.gid()))
}

#[cfg(not(unix))]
fn owner_of(_: &Path) -> Result<(u32, u32), Failure> {
    Ok((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn an_image_is_named_by_its_digest_alone() {
        let image = |name: &str| format!("{name}@sha256:{DIGEST}").parse::<Image>();
        for name in ["rust", "example.org/a/b-c_d.e", "localhost:5000/rust"] {
            let expected = format!("{name}@sha256:{DIGEST}");
            assert_eq!(image(name).unwrap().to_string(), expected);
        }
        assert_eq!(image("rust:1.95"), Err(ImageError::Tag));
        assert_eq!(image("localhost:5000/rust:1.95"), Err(ImageError::Tag));
        for name in ["", "--privileged", "a/", "Rust", "a b", "a,b", "/a"] {
            assert_eq!(image(name), Err(ImageError::Name), "{name}");
        }
        let parse = |text: &str| text.parse::<Image>();
        assert_eq!(parse("rust"), Err(ImageError::NoDigest));
        assert_eq!(parse("rust:1.95"), Err(ImageError::NoDigest));
        assert_eq!(parse("rust@sha256:12"), Err(ImageError::Digest));
        let large = DIGEST.to_uppercase();
        assert_eq!(parse(&format!("a@sha256:{large}")), Err(ImageError::Digest));
    }

    #[test]
    fn only_fetching_has_a_network_and_the_source_is_only_read() {
        let image = Image(format!("rust@sha256:{DIGEST}"));
        let container = Container {
            engine: Engine::Docker,
            image: &image,
            source: Path::new("/tmp/a/source"),
            cargo_home: Path::new("/tmp/b/cargo"),
            target: Path::new("/tmp/b/target"),
            job: "jobs/chat",
            jobs: Some(2),
            owner: (1000, 100),
        };
        let of = |container: &Container<'_>, step| -> Vec<String> {
            let all = container.arguments(step).into_iter();
            all.map(|one| one.into_string().unwrap()).collect()
        };
        let name = format!("rust@sha256:{DIGEST}");
        let build = [
            "run",
            "--rm",
            "--pull=never",
            "--network=none",
            "--user=1000:100",
            "--security-opt=no-new-privileges",
            "--security-opt=label=disable",
            "--mount=type=bind,source=/tmp/a/source,target=/source,readonly",
            "--mount=type=bind,source=/tmp/b/cargo,target=/cargo",
            "--mount=type=bind,source=/tmp/b/target,target=/target",
            "--env=HOME=/tmp",
            "--env=CARGO_HOME=/cargo",
            "--env=CARGO_TARGET_DIR=/target",
            "--env=CARGO_NET_OFFLINE=true",
            "--workdir=/source/jobs/chat",
            "--entrypoint=tussah",
            &name,
            "build",
            "--jobs=2",
        ];
        assert_eq!(of(&container, Step::Build), build);
        let fetch = of(&container, Step::Fetch);
        assert!(!fetch.iter().any(|one| one.starts_with("--network")));
        assert!(fetch.contains(&"--pull=missing".to_owned()));
        assert!(fetch.contains(&build[7].to_owned()));
        let end = ["--entrypoint=cargo", &name, "fetch", "--locked"];
        assert!(fetch.ends_with(&end.map(str::to_owned)));
        let podman = Container {
            engine: Engine::Podman,
            ..container
        };
        assert!(of(&podman, Step::Build).contains(&"--user=0:0".to_owned()));
    }
}
