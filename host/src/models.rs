//! Names for models: `models/<name>.toml`, each naming a blob.
//!
//! In: a name and a model file. Out: records that say which blob, its size and where it
//! came from. Two names may share a blob; it is deleted with the last of them.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tussah_manifest::{Digest, ModelFormat, ModelName};

use crate::{
    blobs::{BlobError, Blobs},
    exit_code::Exit,
    failure::Failure,
    home::{Home, HomeError},
};

/// No record needs more; a larger file is not one.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// What is known of a named model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRecord {
    /// The blob.
    pub(crate) digest: Digest,
    /// Of the file, in the words of manifests: `gguf`, `safetensors`.
    pub(crate) format: String,
    /// Whether it takes chat messages, where that was looked up when it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chat: Option<bool>,
    pub(crate) size_bytes: u64,
    /// Lowercase hex, to compare with what hubs and packages say.
    pub(crate) sha256: String,
    /// Where the file is from, in the words of who added it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// The name of the file it was copied from, without its folder.
    pub(crate) added_from: String,
}

impl ModelRecord {
    /// The format, if it is one that manifests know.
    pub(crate) fn model_format(&self) -> Option<ModelFormat> {
        let mut formats = ModelFormat::ALL.iter().copied();
        formats.find(|format| format.name() == self.format)
    }
}

/// The folder of records.
#[derive(Clone, Debug)]
pub(crate) struct Models {
    root: PathBuf,
}

/// Why a name could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelsError {
    /// No model has this name.
    #[error("there is no model `{name}`{}", others(known))]
    Unknown {
        name: ModelName,
        known: Vec<ModelName>,
    },
    /// The name has another model already.
    #[error("the name `{name}` belongs to another model, {digest}")]
    Taken { name: ModelName, digest: Digest },
    /// The record is not one.
    #[error("the model record {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The folder is not usable.
    #[error(transparent)]
    Home(#[from] HomeError),
}

fn others(known: &[ModelName]) -> String {
    if known.is_empty() {
        return "; none was added yet".to_owned();
    }
    let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("; there is {}", names.join(", "))
}

impl From<ModelsError> for Failure {
    fn from(error: ModelsError) -> Self {
        let (exit, help) = match error {
            ModelsError::Blob(error) => return error.into(),
            ModelsError::Home(error) => return error.into(),
            ModelsError::Unknown { ref name, .. } => (
                Exit::USAGE,
                Some(format!("run `tussah model add {name} FILE.gguf`")),
            ),
            ModelsError::Taken { ref name, .. } => (
                Exit::USAGE,
                Some(format!(
                    "choose another name, or run `tussah model remove {name}` first"
                )),
            ),
            ModelsError::Damaged { ref path, .. } => (
                Exit::HOST_FAILED,
                Some(format!("delete {} and add the model again", path.display())),
            ),
            ModelsError::Io { .. } => (Exit::HOST_FAILED, None),
        };
        let failure = Self::new(exit, error);
        match help {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl Models {
    /// Opens the names of this home.
    ///
    /// # Errors
    /// [`ModelsError::Home`] if the folder cannot be created.
    pub(crate) fn open(home: &Home) -> Result<Self, ModelsError> {
        Ok(Self {
            root: home.folder("models")?,
        })
    }

    /// The record of a name.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`], [`ModelsError::Damaged`] or [`ModelsError::Io`].
    pub(crate) fn get(&self, name: &ModelName) -> Result<ModelRecord, ModelsError> {
        match self.find(name)? {
            Some(record) => Ok(record),
            None => {
                let known = self.list()?.into_iter().map(|(name, _)| name).collect();
                Err(ModelsError::Unknown {
                    name: name.clone(),
                    known,
                })
            }
        }
    }

    /// All records, by name.
    ///
    /// # Errors
    /// [`ModelsError::Damaged`] or [`ModelsError::Io`].
    pub(crate) fn list(&self) -> Result<Vec<(ModelName, ModelRecord)>, ModelsError> {
        let failed = |source| ModelsError::Io {
            doing: "read",
            path: self.root.clone(),
            source,
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or("");
            let is_record = path
                .extension()
                .is_some_and(|extension| extension == "toml");
            // Other files in the folder are not ours.
            if let (true, Ok(name)) = (is_record, stem.parse::<ModelName>()) {
                records.extend(read(&path)?.map(|record| (name, record)));
            }
        }
        records.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Ok(records)
    }

    /// Gives a model a name. The same name for the same blob is fine.
    ///
    /// # Errors
    /// [`ModelsError::Taken`] if the name has another blob, or [`ModelsError::Io`].
    pub(crate) fn put(&self, name: &ModelName, record: &ModelRecord) -> Result<(), ModelsError> {
        self.check_free(name, &record.digest)?;
        let path = self.path(name);
        let failed = |source| ModelsError::Io {
            doing: "write",
            path: path.clone(),
            source,
        };
        let text = toml::to_string(record).map_err(|error| failed(io::Error::other(error)))?;
        let mut file = tempfile::Builder::new()
            .prefix(".incoming-")
            .tempfile_in(&self.root)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Whether the name is free for this blob; asked before a long copy.
    ///
    /// # Errors
    /// As [`Models::put`].
    pub(crate) fn check_free(&self, name: &ModelName, digest: &Digest) -> Result<(), ModelsError> {
        match self.find(name)? {
            Some(record) if record.digest != *digest => Err(ModelsError::Taken {
                name: name.clone(),
                digest: record.digest,
            }),
            _ => Ok(()),
        }
    }

    /// Takes the name away, and deletes the blob if no other name has it.
    /// Returns the record and whether the blob went.
    ///
    /// # Errors
    /// [`ModelsError::Unknown`], [`ModelsError::Io`] or the blob store's.
    pub(crate) fn remove(
        &self,
        blobs: &Blobs,
        name: &ModelName,
    ) -> Result<(ModelRecord, bool), ModelsError> {
        let record = self.get(name)?;
        let path = self.path(name);
        fs::remove_file(&path).map_err(|source| ModelsError::Io {
            doing: "delete",
            path,
            source,
        })?;
        let shared = self
            .list()?
            .iter()
            .any(|(_, other)| other.digest == record.digest);
        let deleted = !shared && blobs.remove(&record.digest)?;
        Ok((record, deleted))
    }

    fn path(&self, name: &ModelName) -> PathBuf {
        self.root.join(format!("{name}.toml"))
    }

    /// The record of a name that may not be there.
    ///
    /// # Errors
    /// [`ModelsError::Damaged`] or [`ModelsError::Io`].
    pub(crate) fn find(&self, name: &ModelName) -> Result<Option<ModelRecord>, ModelsError> {
        read(&self.path(name))
    }
}

fn read(path: &Path) -> Result<Option<ModelRecord>, ModelsError> {
    let failed = |source| ModelsError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let damaged = |source| ModelsError::Damaged {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, RECORD_BYTES_MAX), &mut text)
        .map_err(failed)?;
    toml::from_str(&text)
        .map(Some)
        .map_err(|error| damaged(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        models: Models,
        blobs: Blobs,
        _temporary: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home")).unwrap();
        Fixture {
            models: Models::open(&home).unwrap(),
            blobs: Blobs::open(&home).unwrap(),
            _temporary: temporary,
        }
    }

    fn name(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    fn record(digest: Digest) -> ModelRecord {
        ModelRecord {
            digest,
            format: "gguf".to_owned(),
            chat: None,
            size_bytes: 5,
            sha256: "0".repeat(64),
            source: Some("a test".to_owned()),
            added_from: "file.gguf".to_owned(),
        }
    }

    #[test]
    fn records_come_back_sorted() {
        let fixture = fixture();
        let (models, blobs) = (&fixture.models, &fixture.blobs);
        let record = record(blobs.put(b"model").unwrap());
        for text in ["b", "a-2", "a"] {
            models.put(&name(text), &record).unwrap();
        }
        let names: Vec<_> = models
            .list()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect();
        assert_eq!(names, ["a", "a-2", "b"]);
        assert_eq!(models.get(&name("a")).unwrap(), record);
    }

    #[test]
    fn a_shared_blob_goes_with_its_last_name() {
        let fixture = fixture();
        let (models, blobs) = (&fixture.models, &fixture.blobs);
        let digest = blobs.put(b"model").unwrap();
        models.put(&name("one"), &record(digest)).unwrap();
        models.put(&name("two"), &record(digest)).unwrap();
        assert!(!models.remove(blobs, &name("one")).unwrap().1);
        assert!(blobs.contains(&digest));
        assert!(models.remove(blobs, &name("two")).unwrap().1);
        assert!(!blobs.contains(&digest));
        let error = models.remove(blobs, &name("two")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no model `two`; none was added yet"
        );
    }

    #[test]
    fn a_name_is_never_given_to_another_model_in_silence() {
        let fixture = fixture();
        let (models, blobs) = (&fixture.models, &fixture.blobs);
        let (one, two) = (blobs.put(b"one").unwrap(), blobs.put(b"two").unwrap());
        models.put(&name("m"), &record(one)).unwrap();
        models.put(&name("m"), &record(one)).unwrap();
        let error = models.put(&name("m"), &record(two)).unwrap_err();
        assert!(
            matches!(error, ModelsError::Taken { digest, .. } if digest == one),
            "{error}"
        );
        assert_eq!(models.get(&name("m")).unwrap().digest, one);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let fixture = fixture();
        let models = &fixture.models;
        let path = models.path(&name("m"));
        fs::write(&path, "digest = 7\n").unwrap();
        let error = models.get(&name("m")).unwrap_err();
        assert!(error.to_string().contains("m.toml is damaged"), "{error}");
    }
}
