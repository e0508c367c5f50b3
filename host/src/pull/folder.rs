//! The folder of an encoder (config, weights, vocabulary) → one file, the model folder archive.
//!
//! In: a folder of this machine, with the names that hubs give its files. Out: the archive, whose
//! digest is the model's; other files of the folder are left out.

use std::{io::BufWriter, path::Path};

use tussah_inference::archive::{self, ArchiveError, NAMES, NAMES_NEEDED};

use super::Context;
use crate::{
    exit_code::Exit,
    failure::Failure,
    partial::{self, Partial},
};

/// The names of the archive's files among these, if all that it needs are there.
pub(super) fn names_among(has: impl Fn(&str) -> bool) -> Option<Vec<&'static str>> {
    let whole = NAMES_NEEDED.iter().all(|name| has(name));
    whole.then(|| NAMES.into_iter().filter(|name| has(name)).collect())
}

/// Writes the archive.
///
/// # Errors
/// A file that is missing or cannot be read, or a full disk.
pub(super) fn archive(context: Context<'_>, folder: &Path) -> Result<Partial, Failure> {
    let sizes = NAMES
        .iter()
        .filter_map(|name| folder.join(name).metadata().ok());
    let bytes = sizes.map(|metadata| metadata.len()).sum();
    let partial = Partial::fresh(context.home, bytes)?;
    let _spinner = context.ui.spinner("putting the folder's files into one");
    let mut out = BufWriter::new(partial.file());
    archive::write_folder(folder, &mut out).map_err(|error| {
        let exit = match error {
            ArchiveError::Io { .. } => Exit::HOST_FAILED,
            _ => Exit::USAGE,
        };
        Failure::new(exit, error)
            .context(format!("{} is no model folder", folder.display()))
            .help(format!("it needs {}", NAMES_NEEDED.join(", ")))
    })?;
    let flushed = out.into_inner().map(|_| ());
    flushed.map_err(|error| partial::PartialError::Io {
        path: partial.path().to_owned(),
        source: error.into_error(),
    })?;
    Ok(partial)
}
