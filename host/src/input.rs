//! What users hand over: files, standard input, text on the command line.
//!
//! In: paths. Out: bytes or text, with a limit on their size, and an error that names the
//! file and the byte.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::{
    exit_code::Exit,
    failure::{Failure, file_failure},
};

/// The most text of a prompt: more than any model's context.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// A failure if it cannot be read or has more than `bytes_max` bytes.
pub(crate) fn bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let bytes = bytes_up_to(path, bytes_max.saturating_add(1))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        let message = format!("{} has more than {bytes_max} bytes", name(path));
        return Err(Failure::new(Exit::LIMIT, message));
    }
    Ok(bytes)
}

/// Reads a file, or standard input for `-`, and leaves what is beyond `limit` bytes.
///
/// # Errors
/// A failure if it cannot be read.
pub(crate) fn bytes_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error| file_failure("read", path, error);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    } else {
        File::open(path)
            .map_err(failed)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    }
    Ok(bytes)
}

/// Text from the command line, or from a file. An option that was given twice was refused
/// before; `option` names the one that was missing.
///
/// # Errors
/// A failure if it cannot be read or is not UTF-8.
pub(crate) fn text(
    given: Option<String>,
    file: Option<&Path>,
    option: &str,
) -> Result<String, Failure> {
    match (given, file) {
        (Some(text), _) => Ok(text),
        (None, Some(path)) => String::from_utf8(bytes(path, TEXT_BYTES_MAX)?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let message = format!(
                "{} is not UTF-8 text: byte {at} begins no character",
                name(path)
            );
            Failure::usage(message).help("convert the file to UTF-8, for example with `iconv`")
        }),
        (None, None) => Err(Failure::usage(format!("{option} is missing"))),
    }
}

/// What to call it in messages.
fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_encoding_are_checked() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("input");
        std::fs::write(&path, b"four").unwrap();
        assert_eq!(bytes(&path, 4).unwrap(), b"four");
        assert!(
            bytes(&path, 3)
                .unwrap_err()
                .error
                .to_string()
                .contains("more than 3 bytes")
        );
        assert_eq!(text(None, Some(&path), "--text").unwrap(), "four");
        std::fs::write(&path, b"caf\xe9").unwrap();
        let failure = text(None, Some(&path), "--text").unwrap_err();
        assert!(
            failure.error.to_string().contains("byte 3"),
            "{}",
            failure.error
        );
        let missing = bytes(&temporary.path().join("none"), 4).unwrap_err();
        assert_eq!(missing.exit, Exit::USAGE);
    }
}
