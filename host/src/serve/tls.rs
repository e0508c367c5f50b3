//! The daemon's certificate: from two files, or made here and signed by nobody else.
//!
//! In: settings, the home folder. Out: a certificate for the gateway, read again at SIGHUP. A key
//! that is made here never leaves the home, and no other user of this machine can read it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tussah_provider::http::{Tls, TlsError, fingerprint};

use crate::{channels::write_whole, failure::Failure, home::Home, input, ui::Ui};

/// More than any chain of certificates has.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// In the daemon's folder.
const SELF_SIGNED: [&str; 2] = ["certificate.pem", "certificate-key.pem"];

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// From files that somebody else renews.
    Files {
        /// The chain, the provider's own certificate first.
        certificates: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made here at the first start, and kept.
    SelfSigned,
}

/// The certificate and where it is read from.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) tls: Tls,
    certificates: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Reads it; makes one for these names first, if it is to be made here and there is none.
    ///
    /// # Errors
    /// A failure that names the file.
    pub(super) fn load(&self, home: &Home, names: &[String], ui: &Ui) -> Result<Loaded, Failure> {
        let (certificates, key) = match self {
            Self::Files { certificates, key } => (certificates.clone(), key.clone()),
            Self::SelfSigned => self_signed(&home.folder(super::FOLDER)?, names)?,
        };
        let [shown, secret] = [read(&certificates)?, read(&key)?];
        let tls =
            Tls::new(&shown, &secret).map_err(|error| unusable(error, &certificates, &key))?;
        if *self == Self::SelfSigned {
            let fingerprint =
                fingerprint(&shown).map_err(|error| unusable(error, &certificates, &key))?;
            ui.note(&format!(
                "clients have to trust {}, SHA-256 {fingerprint}",
                certificates.display()
            ));
        }
        Ok(Loaded {
            tls,
            certificates,
            key,
        })
    }
}

impl Loaded {
    /// Reads the files again, for whoever comes from now on.
    ///
    /// # Errors
    /// A failure that names the file; the certificate from before stays.
    pub(super) fn renew(&self) -> Result<(), Failure> {
        let [shown, secret] = [read(&self.certificates)?, read(&self.key)?];
        let renewed = self.tls.renew(&shown, &secret);
        renewed.map_err(|error| unusable(error, &self.certificates, &self.key))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    input::bytes(path, PEM_BYTES_MAX)
}

fn unusable(error: TlsError, certificates: &Path, key: &Path) -> Failure {
    let (certificates, key) = (certificates.display(), key.display());
    Failure::usage(error).context(format!("cannot use {certificates} with {key}"))
}

fn self_signed(folder: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), Failure> {
    let [certificate, key] = SELF_SIGNED.map(|name| folder.join(name));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let names: Vec<String> = names
        .iter()
        .map(|name| name.trim_matches(['[', ']']).to_owned())
        .collect();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| {
        Failure::usage(error).context("no certificate can be made for the names of `--host`")
    })?;
    // The key first: a certificate without its key would be taken for a whole pair.
    let _ = fs::remove_file(&certificate);
    for (path, text) in [
        (&key, made.signing_key.serialize_pem()),
        (&certificate, made.cert.pem()),
    ] {
        write_whole(path, text.as_bytes())?;
    }
    Ok((certificate, key))
}
