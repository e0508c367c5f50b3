//! Secrets of this host: 32 random bytes each, made on first use.
//!
//! In: names of keys. Out: their bytes. A key file that others can read is refused; a key
//! never leaves this machine and is never printed.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    exit_code::Exit,
    failure::Failure,
    home::{Home, HomeError},
};

/// Which secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyName {
    /// Signs requests.
    Client,
    /// Signs receipts.
    Provider,
    /// Derives the nonces of local runs.
    LocalSecret,
    /// Authenticates compiled code, GPU kernels and packed weights in the cache.
    Cache,
    /// The same in the cache of `tussah serve`, whose worker has this key: what strangers' jobs
    /// could have written there is read by no other command.
    ServeCache,
}

impl KeyName {
    /// All of them, for `tussah doctor`.
    pub(crate) const ALL: [Self; 5] = [
        Self::Client,
        Self::Provider,
        Self::LocalSecret,
        Self::Cache,
        Self::ServeCache,
    ];

    /// The file's name below `keys/`.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Client => "client.key",
            Self::Provider => "provider.key",
            Self::LocalSecret => "local.secret",
            Self::Cache => "cache.key",
            Self::ServeCache => "serve-cache.key",
        }
    }
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// Others than its owner can read it, so it may be known to them.
    #[error("the key file {} can be read by others (mode {mode:03o})", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// It is not 64 hex digits and a newline.
    #[error("the key file {} is damaged: it must hold 64 lowercase hex digits", path.display())]
    Damaged { path: PathBuf },
    /// Reading or writing failed.
    #[error("cannot {doing} the key file {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The folder is not usable.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let help = match &error {
            KeyError::Exposed { path, .. } => Some(format!(
                "run `chmod 600 {0}` if nobody else has read it; else delete it, and a new key is made",
                path.display()
            )),
            KeyError::Damaged { path } => Some(format!(
                "restore {} from a copy, or delete it, and a new key is made",
                path.display()
            )),
            _ => None,
        };
        let failure = Self::new(Exit::HOST_FAILED, error);
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

/// Reads a key; makes it first if it is not there.
///
/// # Errors
/// [`KeyError`] if it is exposed, damaged, or cannot be read or made.
pub(crate) fn load_or_create(home: &Home, name: KeyName) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let folder = home.folder("keys")?;
    let path = folder.join(name.file_name());
    match read(&path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(&folder, &path)?;
            read(&path)
        }
        other => other,
    }
}

/// Reads a key that may not be there.
///
/// # Errors
/// As [`load_or_create`], but nothing is made.
pub(crate) fn load(home: &Home, name: KeyName) -> Result<Option<Zeroizing<[u8; 32]>>, KeyError> {
    match read(&home.root().join("keys").join(name.file_name())) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let failed = |source| KeyError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = fs::File::open(path).map_err(failed)?;
    // Of the open file, so that it cannot be exchanged between the check and the read.
    refuse_exposed(path, &file.metadata().map_err(failed)?)?;
    let damaged = || KeyError::Damaged {
        path: path.to_owned(),
    };
    let mut text = Zeroizing::new(Vec::with_capacity(128));
    io::Read::read_to_end(&mut io::Read::take(&mut file, 128), &mut text).map_err(failed)?;
    let digits = text.strip_suffix(b"\n").unwrap_or(&text);
    if digits.len() != 64
        || digits
            .iter()
            .any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(damaged());
    }
    let mut key = Zeroizing::new([0u8; 32]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| damaged())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| damaged())?;
    }
    Ok(key)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &fs::Metadata) -> Result<(), KeyError> {
    Ok(()) // The user's profile folder is private there.
}

fn create(folder: &Path, path: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    let mut key = Zeroizing::new([0u8; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(KeyError::Random)?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in key.iter() {
        use std::fmt::Write;
        write!(text, "{byte:02x}").map_err(|_| failed(io::Error::other("formatting")))?;
    }
    text.push('\n');
    // Temporary files are made with mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".key-")
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another process made it in the meantime: that one is used.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home")).unwrap();
        (temporary, home)
    }

    #[test]
    fn made_once_and_kept() {
        let (_temporary, home) = home();
        assert!(load(&home, KeyName::Client).unwrap().is_none());
        let first = load_or_create(&home, KeyName::Client).unwrap();
        let other = load_or_create(&home, KeyName::Provider).unwrap();
        assert_eq!(first, load_or_create(&home, KeyName::Client).unwrap());
        assert_ne!(first, other);
        let names: Vec<_> = fs::read_dir(home.root().join("keys")).unwrap().collect();
        assert_eq!(names.len(), 2, "no temporary file is left");
    }

    #[test]
    #[cfg(unix)]
    fn exposed_keys_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_temporary, home) = home();
        load_or_create(&home, KeyName::Cache).unwrap();
        let path = home.root().join("keys/cache.key");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for mode in [0o640, 0o604, 0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(&home, KeyName::Cache).unwrap_err();
            assert!(
                matches!(error, KeyError::Exposed { .. }),
                "{mode:o}: {error}"
            );
            assert!(Failure::from(error).help.unwrap().contains("chmod 600"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        load_or_create(&home, KeyName::Cache).unwrap();
    }

    #[test]
    fn damaged_keys_are_refused_and_not_replaced() {
        let (_temporary, home) = home();
        load_or_create(&home, KeyName::Client).unwrap();
        let path = home.root().join("keys/client.key");
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            "\n".to_owned(),
            good[..63].to_owned(),
            format!("{good}\n"),
            good.replace(&good[..1], "g"),
            "A".repeat(64),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = load_or_create(&home, KeyName::Client).unwrap_err();
            assert!(
                matches!(error, KeyError::Damaged { .. }),
                "{bad:?}: {error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
