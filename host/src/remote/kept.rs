//! What this host has asked of providers: the signed requests, kept so that each can be sent again.
//!
//! In: a request and where it goes, before it goes there. Out: the same, by the job's id. A request
//! that is sent twice is one job, so whoever is cut off sends it again and is told how the job
//! stands. A request holds the nonce, which gives the input's salt away: the files are the owner's.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use tussah_manifest::{Digest, Document as _, PublicKey, Request};

use crate::{
    failure::{Failure, file_failure},
    home::Home,
    input, road,
};

/// Below the home folder.
const FOLDER: &str = "submitted";
/// How long a request is kept: longer than anybody waits for a job.
const AGE_MAX: Duration = Duration::from_hours(30 * 24);
/// Bytes of one file, at most.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A request that was sent, or is about to be.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) request: Request,
    /// The provider's address.
    pub(crate) to: String,
    /// Whose signature the receipt has to have.
    pub(crate) provider_key: PublicKey,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    to: String,
    provider_key: String,
    request_base64: String,
}

impl Kept {
    /// Writes it down: durable when this returns. What is too old goes.
    ///
    /// # Errors
    /// A host failure if the disk is full or the folder cannot be written to.
    pub(crate) fn keep(&self, home: &Home) -> Result<(), Failure> {
        let folder = home.folder(FOLDER)?;
        forget_old(&folder);
        let file = File {
            to: self.to.clone(),
            provider_key: self.provider_key.to_string(),
            request_base64: BASE64.encode(self.request.to_bytes()),
        };
        let bytes = serde_json::to_vec_pretty(&file).map_err(Failure::host)?;
        let path = path_of(&folder, &self.request.body.job_id());
        let staged = road::stage(&path, &bytes, 0o600)?;
        staged
            .persist(&path)
            .map_err(|error| file_failure("write", &path, error.error))?;
        Ok(())
    }

    /// The request of this id, if it is kept here.
    ///
    /// # Errors
    /// A failure if the file is there and is not what was written.
    pub(crate) fn find(home: &Home, id: &Digest) -> Result<Option<Self>, Failure> {
        let path = path_of(&home.root().join(FOLDER), id);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = input::bytes(&path, FILE_BYTES_MAX)?;
        let damaged = |what: &str| {
            let message = format!("{} is damaged: {what}", path.display());
            Failure::host(message).help("delete it")
        };
        let file: File =
            serde_json::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
        let request = BASE64.decode(&file.request_base64);
        let request = request.map_err(|error| damaged(&error.to_string()))?;
        let request = Request::from_bytes(&request).map_err(|error| damaged(&error.to_string()))?;
        if request.verify().is_err() || request.body.job_id() != *id {
            return Err(damaged("it is another request"));
        }
        let provider_key = file.provider_key.parse();
        Ok(Some(Self {
            request,
            to: file.to,
            provider_key: provider_key.map_err(|_| damaged("it names no provider's key"))?,
        }))
    }
}

fn path_of(folder: &Path, id: &Digest) -> PathBuf {
    folder.join(format!("{}.json", id.to_hex()))
}

fn forget_old(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > AGE_MAX) {
            // If it cannot be deleted now, the next time will do.
            let _ = fs::remove_file(entry.path());
        }
    }
}
