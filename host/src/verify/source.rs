//! A stranger's source: copied or unpacked into a fresh folder, listed, and looked at for what
//! could hide a module.
//!
//! In: a folder, or an archive that the system's `tar` reads. Out: files of at most so many bytes,
//! no links and no devices; the SHA-256 of their listing. What is in the files is never run here.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tussah_manifest::Label;

use crate::{
    build::CACHE_TAG,
    failure::{Failure, file_failure},
    tools::{Fresh, Step, Tools},
};

/// The most of a source: no project of one job is larger.
const FILES_MAX: usize = 100_000;
const BYTES_MAX: u64 = 2 << 30;
const DEPTH_MAX: usize = 64;
/// How long an archive may take to unpack.
const UNPACK_TIME_MAX: Duration = Duration::from_secs(300);
/// What a file begins with decides whether it is text.
const HEAD_BYTES: usize = 8 * 1024;
/// Files that hold code a compiler has made, whatever is in them.
const CODE_ENDINGS: [&str; 10] = [
    "wasm", "a", "o", "so", "dylib", "dll", "lib", "exe", "rlib", "rmeta",
];

/// A source in a folder of our own.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) root: PathBuf,
    /// Paths below the root with `/`, in the order of their bytes.
    pub(crate) files: Vec<String>,
    /// SHA-256 of what `sha256sum` prints of the files in that order.
    pub(crate) sha256: Label,
    /// Files that are no text.
    pub(crate) blobs: Vec<String>,
}

/// Why a source is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("the source holds `{path}`, which is {what}")]
    Kind { path: String, what: &'static str },
    #[error("the source has more than {max} {what}")]
    TooMuch { what: &'static str, max: u64 },
    #[error("the archive cannot be unpacked: {said}")]
    Archive { said: String },
    #[error("cannot read the source at {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Read { path, source } => file_failure("read", &path, source),
            error => Self::usage(error),
        }
    }
}

/// Copies a folder, with all that is in it.
///
/// # Errors
/// [`SourceError`] if it is too much, or holds what no source needs.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<Source, SourceError> {
    copy_walked(Walk::default(), from, to)?;
    list(to)
}

/// Copies a folder that somebody works in, without Git's own files and without caches such as
/// cargo's: what is left out, which no build can read then.
///
/// # Errors
/// As [`copy`].
pub(crate) fn copy_working(from: &Path, to: &Path) -> Result<Vec<String>, SourceError> {
    let walk = Walk {
        is_working: true,
        ..Walk::default()
    };
    copy_walked(walk, from, to)
}

fn copy_walked(mut walk: Walk, from: &Path, to: &Path) -> Result<Vec<String>, SourceError> {
    walk.folder(from, "", 0)?;
    for (path, _) in &walk.files {
        let target = to.join(path);
        let made = target.parent().map_or(Ok(()), fs::create_dir_all);
        let copied = made.and_then(|()| {
            let mut content = fs::File::open(from.join(path))?;
            io::copy(&mut content, &mut fs::File::create(&target)?)
        });
        copied.map_err(|source| SourceError::Read {
            path: from.join(path),
            source,
        })?;
    }
    walk.left_out.sort();
    Ok(walk.left_out)
}

/// Unpacks an archive; one folder around everything is not counted.
///
/// # Errors
/// As [`copy`].
pub(crate) fn unpack(archive: &Path, fresh: &Fresh) -> Result<Source, SourceError> {
    let to = &fresh.source();
    let failed = |said: String| SourceError::Archive { said };
    let read = |source| SourceError::Read {
        path: archive.to_owned(),
        source,
    };
    let mut command = fresh.command("tar", to, Step::Unpack);
    command.args(["--extract", "--no-same-owner"]);
    command.args(["--no-same-permissions", "--file"]);
    command.arg(archive).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(read)? {
            break status;
        }
        if started.elapsed() > UNPACK_TIME_MAX
            || Walk::default()
                .folder(to, "", 0)
                .is_err_and(|error| matches!(error, SourceError::TooMuch { .. }))
        {
            Tools::Fresh(fresh.clone()).kill(&mut child);
            let _ = child.wait();
            return Err(failed("it is too large".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What could be read is what can be shown.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    if !status.success() {
        return Err(failed(said.trim().to_owned()));
    }
    let entries: Vec<PathBuf> = fs::read_dir(to)
        .map_err(read)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    match &entries[..] {
        [only] if only.is_dir() && !only.is_symlink() => list(only),
        _ => list(to),
    }
}

/// Lists a folder that is ours.
///
/// # Errors
/// As [`copy`].
pub(crate) fn list(root: &Path) -> Result<Source, SourceError> {
    let mut walk = Walk::default();
    walk.folder(root, "", 0)?;
    walk.files.sort();
    let mut listing = Sha256::new();
    let (mut files, mut blobs) = (Vec::new(), Vec::new());
    for (path, _) in walk.files {
        let content = fs::read(root.join(&path)).map_err(|source| SourceError::Read {
            path: root.join(&path),
            source,
        })?;
        listing.update(format!("{}  {path}\n", hex(&Sha256::digest(&content))));
        if is_blob(&path, &content) {
            blobs.push(path.clone());
        }
        files.push(path);
    }
    Ok(Source {
        root: root.to_owned(),
        files,
        sha256: Label::lossy(&hex(&listing.finalize())),
        blobs,
    })
}

fn is_blob(path: &str, content: &[u8]) -> bool {
    let ending = Path::new(path)
        .extension()
        .and_then(|ending| ending.to_str());
    let head = &content[..content.len().min(HEAD_BYTES)];
    // A character may be cut at the end of the head.
    let is_text = !head.contains(&0)
        && match std::str::from_utf8(head) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none(),
        };
    !is_text || ending.is_some_and(|ending| CODE_ENDINGS.contains(&ending))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A walk over a folder, within bounds.
#[derive(Default)]
struct Walk {
    files: Vec<(String, u64)>,
    bytes: u64,
    /// Whether caches and Git's own files are left out; anything else is taken whole.
    is_working: bool,
    left_out: Vec<String>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, below: &str, depth: usize) -> Result<(), SourceError> {
        let read = |source| SourceError::Read {
            path: folder.to_owned(),
            source,
        };
        let refuse = |path: &str, what| SourceError::Kind {
            path: path.escape_debug().to_string(),
            what,
        };
        if depth > DEPTH_MAX {
            return Err(refuse(below, "too deep"));
        }
        if self.is_working && depth > 0 && folder.join(CACHE_TAG).is_file() {
            self.left_out.push(below.trim_end_matches('/').to_owned());
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Err(refuse(&name.to_string_lossy(), "no UTF-8 name"));
            };
            if self.is_working && depth == 0 && name == ".git" {
                self.left_out.push(name.to_owned());
                continue;
            }
            let path = format!("{below}{name}");
            // `sha256sum` would write such a name in another way.
            if name.contains(['\n', '\r', '\\']) {
                return Err(refuse(&path, "a name with a line break or a backslash"));
            }
            let meta = entry.metadata().map_err(read)?;
            if meta.is_dir() {
                self.folder(&entry.path(), &format!("{path}/"), depth + 1)?;
            } else if meta.is_file() {
                self.bytes = self.bytes.saturating_add(meta.len());
                self.files.push((path, meta.len()));
            } else {
                return Err(refuse(&path, "a link or a device, and not a file"));
            }
            if self.files.len() > FILES_MAX {
                let max = FILES_MAX as u64;
                return Err(SourceError::TooMuch { what: "files", max });
            }
            if self.bytes > BYTES_MAX {
                return Err(SourceError::TooMuch {
                    what: "bytes",
                    max: BYTES_MAX,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_is_what_sha256sum_prints() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("source");
        for (path, content) in [
            ("b.txt", "b\n"),
            ("a/x.rs", "fn x() {}\n"),
            ("target/CACHEDIR.TAG", ""),
            ("target/made", "not listed"),
            (".git/HEAD", "not listed"),
            ("blob", "\0"),
            ("empty.wasm", ""),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let copied = folder.path().join("copy");
        let left_out = copy_working(&root, &copied).unwrap();
        assert_eq!(left_out, [".git", "target"]);
        let source = list(&copied).unwrap();
        assert_eq!(source.files, ["a/x.rs", "b.txt", "blob", "empty.wasm"]);
        assert_eq!(source.blobs, ["blob", "empty.wasm"]);
        assert!(!folder.path().join("copy/target").exists());
        let output = std::process::Command::new("sha256sum")
            .args(&source.files)
            .current_dir(&root)
            .output()
            .unwrap();
        let expected = hex(&Sha256::digest(&output.stdout));
        assert_eq!(source.sha256.as_str(), expected);
        // What nobody works in is taken whole.
        let all = copy(&root, &folder.path().join("all")).unwrap();
        assert_eq!(all.files.len(), source.files.len() + 3);
        assert!(folder.path().join("all/target/made").exists());
    }

    #[test]
    #[cfg(unix)]
    fn links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("source");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("innocent")).unwrap();
        let error = copy(&root, &folder.path().join("copy")).unwrap_err();
        let expected = "the source holds `innocent`, which is a link or a device, and not a file";
        assert_eq!(error.to_string(), expected);
    }
}
