//! The source where the module itself says that it is: an archive over https, or a commit of git.
//!
//! In: `source_uri` and `source_sha256` of a record, both a stranger's. Out: an archive or a folder
//! below one of our own, of bounded size, within a deadline. Nothing of it runs here, and what was
//! built is another matter: [`Expected::check`] comes before anything of it does.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tussah_manifest::{BuildInfo, Label};

use super::step::{self, Bounds};
use crate::{
    failure::{Failure, file_failure},
    interrupt::Interrupt,
    pull::http::{Exchange, Get, HttpError, check_url, trusted},
    tools::{Fresh, Step},
    ui::Ui,
};

/// The most of an archive, and of a repository with its files.
const BYTES_MAX: u64 = 512 << 20;
/// What git says that is shown.
const SAID_CHARACTERS_MAX: usize = 2000;

/// Where a source is, and what it has to be.
#[derive(Debug)]
pub(super) struct Expected {
    place: Place,
    sha256: Label,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// An archive that `tar` reads.
    Archive(String),
    /// A repository and the commit.
    Git { url: String, commit: String },
}

/// Why a source is not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("it was not to be fetched, and the module says that its source is at {0}")]
    Offline(Label),
    #[error("the module says where its source is, {0}, and not which one: it has no source_sha256")]
    Which(Label),
    #[error("its source is at {0}, which is no archive over https and no commit of git")]
    Kind(Label),
    #[error("{url} has more than {BYTES_MAX} bytes")]
    TooLarge { url: String },
    #[error("{url} took longer than it may")]
    Late { url: String },
    #[error("git cannot fetch {commit} of {url}: {said}")]
    Git {
        url: String,
        commit: String,
        said: String,
    },
    #[error(
        "{url} is another source than the module was built of: source_sha256 is {found}, recorded is {recorded}"
    )]
    Another {
        url: String,
        found: Label,
        recorded: Label,
    },
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match &error {
            FetchError::Http(HttpError::Interrupted) => Self::interrupted(),
            FetchError::Another { .. } => Self::usage(error)
                .help("nothing of it was run; ask the author, or give what you have with --source"),
            _ => Self::usage(error).help("give it with --source DIR|TARBALL"),
        }
    }
}

impl Expected {
    /// What a record names; nothing where it names no place.
    ///
    /// # Errors
    /// [`FetchError`] if that is no source that can be fetched and known again.
    pub(super) fn of(info: Option<&BuildInfo>, offline: bool) -> Result<Option<Self>, FetchError> {
        let Some(uri) = info.and_then(|info| info.source_uri.clone()) else {
            return Ok(None);
        };
        if offline {
            return Err(FetchError::Offline(uri));
        }
        let place = Place::of(uri.as_str()).ok_or_else(|| FetchError::Kind(uri.clone()))?;
        let sha256 = info.and_then(|info| info.source_sha256.clone());
        let sha256 = sha256.ok_or(FetchError::Which(uri))?;
        Ok(Some(Self { place, sha256 }))
    }

    /// Fetches it to [`Fresh::source`]; an archive or a folder.
    ///
    /// # Errors
    /// [`FetchError`]; a host failure if the disk fails, or it takes more time or room than it may.
    pub(super) fn fetch(
        &self,
        fresh: &Fresh,
        time_max: Duration,
        ui: &Ui,
        interrupt: &Interrupt,
    ) -> Result<PathBuf, Failure> {
        let _spinner = ui.spinner("fetching the source");
        let until = Instant::now() + time_max;
        match &self.place {
            Place::Archive(url) => download(url, &fresh.source().join("archive"), until, interrupt),
            Place::Git { url, commit } => clone(fresh, (url, commit), until, interrupt),
        }
    }

    /// Whether what was fetched is what the module was built of.
    ///
    /// # Errors
    /// [`FetchError::Another`].
    pub(super) fn check(&self, found: &Label) -> Result<(), FetchError> {
        if *found == self.sha256 {
            return Ok(());
        }
        let url = match &self.place {
            Place::Archive(url) | Place::Git { url, .. } => url.clone(),
        };
        Err(FetchError::Another {
            url,
            found: found.clone(),
            recorded: self.sha256.clone(),
        })
    }
}

impl Place {
    /// `https://…` or `git+https://…@COMMIT`; without TLS on this machine alone.
    fn of(uri: &str) -> Option<Self> {
        let opens = |url: &str| check_url(url).is_ok() && trusted(url);
        // A name and a password have no place in what everybody reads.
        let plain = |url: &str| {
            let host = url.split("://").nth(1)?.split('/').next()?;
            (!host.contains('@') && !url.contains(char::is_whitespace)).then_some(())
        };
        let Some(rest) = uri.strip_prefix("git+") else {
            plain(uri)?;
            return opens(uri).then(|| Self::Archive(uri.to_owned()));
        };
        let (url, commit) = rest.rsplit_once('@')?;
        plain(url)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_commit = matches!(commit.len(), 40 | 64) && commit.bytes().all(is_hex);
        (is_commit && opens(url)).then(|| Self::Git {
            url: url.to_owned(),
            commit: commit.to_owned(),
        })
    }
}

fn download(
    url: &str,
    to: &Path,
    deadline: Instant,
    interrupt: &Interrupt,
) -> Result<PathBuf, Failure> {
    let get = Get {
        url: url.to_owned(),
        ..Get::default()
    };
    let mut exchange = Exchange::start(get, interrupt).map_err(FetchError::Http)?;
    if !exchange.status.is_success() {
        return Err(FetchError::Http(exchange.refused()).into());
    }
    let mut file = fs::File::create(to).map_err(|error| file_failure("create", to, error))?;
    let mut bytes = 0u64;
    while let Some(chunk) = exchange.chunk(interrupt).map_err(FetchError::Http)? {
        bytes = bytes.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        let url = || url.to_owned();
        if bytes > BYTES_MAX {
            return Err(FetchError::TooLarge { url: url() }.into());
        }
        if Instant::now() >= deadline {
            return Err(FetchError::Late { url: url() }.into());
        }
        file.write_all(&chunk)
            .map_err(|error| file_failure("write", to, error))?;
    }
    Ok(to.to_owned())
}

/// One commit's files, written as `git checkout-index` writes them: as a verifiable build does. Git is
/// confined as the build is, but for the network.
fn clone(
    fresh: &Fresh,
    (url, commit): (&str, &str),
    until: Instant,
    interrupt: &Interrupt,
) -> Result<PathBuf, Failure> {
    let folder = fresh.source();
    let run = |arguments: &[&str]| -> Result<Result<(), String>, Failure> {
        let bounds = Bounds {
            what: "fetching the source",
            until,
            room: Some((&folder, BYTES_MAX)),
        };
        let ended = step::run(fresh, git(fresh, url, arguments), &bounds, interrupt)?;
        Ok(match ended.status.success() {
            true => Ok(()),
            false => Err(ended.said.chars().take(SAID_CHARACTERS_MAX).collect()),
        })
    };
    let failed = |said| FetchError::Git {
        url: url.to_owned(),
        commit: commit.to_owned(),
        said,
    };
    let needed =
        |arguments: &[&str]| -> Result<(), Failure> { Ok(run(arguments)?.map_err(failed)?) };
    let format = match commit.len() {
        64 => "--object-format=sha256",
        _ => "--object-format=sha1",
    };
    needed(&["init", "--quiet", "--template=", format, "."])?;
    let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
    // A server of plain files knows of no depth.
    if run(&[&fetch[..], &["--depth=1", url, commit]].concat())?.is_err() {
        needed(&[&fetch[..], &[url, commit]].concat())?;
    }
    needed(&["read-tree", commit])?;
    let files = folder.join("files");
    let prefix = format!("--prefix={}/", files.display());
    needed(&["checkout-index", "--all", &prefix])?;
    Ok(files)
}

/// Git with nothing of this user's settings, over TLS alone but on this machine; no hook, no filter,
/// no password asked for.
fn git(fresh: &Fresh, url: &str, arguments: &[&str]) -> Command {
    let mut command = fresh.command("git", &fresh.source(), Step::Repository);
    let protocol = match url.starts_with("https://") {
        true => "protocol.https.allow=always",
        false => "protocol.http.allow=always",
    };
    for setting in [
        "protocol.allow=never",
        protocol,
        "core.hooksPath=/dev/null",
        "core.autocrlf=false",
        "core.symlinks=true",
        "credential.helper=",
        "fetch.fsckObjects=true",
        "gc.auto=0",
        "http.followRedirects=initial",
    ] {
        command.args(["-c", setting]);
    }
    command.args(arguments);
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_archive_over_https_or_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let git = |url: &str| Place::Git {
            url: url.to_owned(),
            commit: commit.to_owned(),
        };
        let archive = |url: &str| Place::Archive(url.to_owned());
        for (uri, expected) in [
            ("https://example.org/a.tar.gz", true),
            ("http://127.0.0.1:8000/a.tar.gz", true),
            ("http://example.org/a.tar.gz", false),
            ("https://ann:secret@example.org/a.tar.gz", false),
            ("https://", false),
            ("file:///etc/passwd", false),
            ("ext::sh -c true", false),
            ("/etc/passwd", false),
            ("", false),
        ] {
            let found = Place::of(uri);
            assert_eq!(found, expected.then(|| archive(uri)), "{uri}");
        }
        for (uri, expected) in [
            ("https://example.org/a", true),
            ("http://[::1]:8000/a.git", true),
            ("http://example.org/a", false),
            ("ssh://example.org/a", false),
            ("--upload-pack=x", false),
        ] {
            let found = Place::of(&format!("git+{uri}@{commit}"));
            assert_eq!(found, expected.then(|| git(uri)), "{uri}");
        }
        for uri in [
            "git+https://example.org/a".to_owned(),
            "git+https://example.org/a@main".to_owned(),
            format!("git+https://example.org/a@{}", &commit[1..]),
            format!("git+https://example.org/a@{}", commit.to_uppercase()),
        ] {
            assert_eq!(Place::of(&uri), None, "{uri}");
        }
    }
}
