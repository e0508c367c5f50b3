//! Whose claims a daemon asks for, and where those lie that came before a job.
//!
//! In: public keys and names of files that hold them. Out: keys, at least one. A claim is kept only
//! where its own key has signed it; whether that key counts is asked at each job.

use std::path::Path;

use tussah_manifest::{Claim, Digest, Document as _, PublicKey};
use tussah_provider::gateway::{Verifiers, claim_path};

use crate::{
    failure::{Failure, file_failure},
    home::Home,
    input,
};

/// The folder of claims, below the home folder.
const FOLDER: &str = "claims";
/// More than anybody trusts.
const KEYS_MAX: usize = 256;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What was set; nothing where nothing was.
///
/// # Errors
/// A usage failure if something is neither a key nor a file of keys, or there is no key at all.
pub(crate) fn verifiers(
    named: Option<&[String]>,
    home: &Home,
) -> Result<Option<Verifiers>, Failure> {
    let Some(named) = named else {
        return Ok(None);
    };
    let mut keys: Vec<PublicKey> = Vec::new();
    for text in named {
        match text.parse() {
            Ok(key) => keys.push(key),
            Err(_) if text.starts_with("ed25519:") => {
                let message = format!("`{text}` is no public key");
                return Err(Failure::usage(message).help("`tussah provider key` shows one"));
            }
            Err(_) => keys.extend(keys_of(Path::new(text))?),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let message = format!("verified modules are asked for, by {} keys", keys.len());
        return Err(Failure::usage(message).help(format!("name 1 to {KEYS_MAX} keys")));
    }
    let folder = home.folder(FOLDER)?;
    Ok(Some(Verifiers { keys, folder }))
}

/// One key a line; empty lines and those that begin with `#` are passed over.
fn keys_of(path: &Path) -> Result<Vec<PublicKey>, Failure> {
    let bytes = input::bytes(path, FILE_BYTES_MAX)?;
    let wrong = |failure: Failure| failure.context(format!("cannot use {}", path.display()));
    let text = String::from_utf8(bytes).map_err(|_| wrong(Failure::usage("it is not UTF-8")))?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let key = |(number, line): (usize, &str)| {
        line.parse().map_err(|error: tussah_manifest::KeyError| {
            wrong(Failure::usage(error).context(format!("line {}", number + 1)))
        })
    };
    lines.map(key).collect()
}

/// Reads a claim on a module.
///
/// # Errors
/// A failure if it is no good, or of another module.
pub(crate) fn read_claim(path: &Path, module: &Digest) -> Result<Claim, Failure> {
    let most = u64::try_from(Claim::BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = input::bytes(path, most)?;
    let wrong = |failure: Failure| failure.context(format!("cannot use {}", path.display()));
    let claim =
        Claim::from_verified_bytes(&bytes).map_err(|error| wrong(Failure::not_verified(error)))?;
    if claim.body.module != *module {
        let message = format!(
            "the claim is of the module {}, not of {module}",
            claim.body.module
        );
        return Err(wrong(Failure::not_verified(message)));
    }
    Ok(claim)
}

/// Keeps a claim for the jobs that come without one.
///
/// # Errors
/// A host failure if it cannot be written.
pub(crate) fn keep(home: &Home, claim: &Claim) -> Result<(), Failure> {
    let path = claim_path(&home.folder(FOLDER)?, &claim.body.module, &claim.body.key);
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, &claim.to_bytes())?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| file_failure("write", &path, error))
}
