//! A file of a Hugging Face repository, or of another server with the same interface.
//!
//! In: `owner/repo[/file][@revision]`; `HF_ENDPOINT` and `HF_TOKEN` of the environment. Out: the
//! file at the commit that the revision means now, compared with the SHA-256 that the hub states.
//! Interface: GET `/api/models/{repo}/revision/{revision}?blobs=true` lists a repository's files,
//! GET `/{repo}/resolve/{commit}/{file}` is a file.

use std::{fmt, fs, str::FromStr};

use serde::Deserialize;

use super::{Content, Context, Fetched, Pins, folder, http, transfer};
use crate::{
    blobs::Blobs,
    failure::{Failure, file_failure},
    partial, ui,
};

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";
/// Names in an error, at most.
const LISTED_MAX: usize = 40;

/// A repository's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    owner: String,
    repository: String,
    /// A file's whole name, or a part that only one has, such as `Q4_K_M`.
    file: Option<String>,
    revision: String,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, revision) = text.rsplit_once('@').unwrap_or((text, "main"));
        let mut parts = path.splitn(3, '/');
        let mut word = || parts.next().unwrap_or_default().to_owned();
        let address = Self {
            owner: word(),
            repository: word(),
            file: parts.next().map(str::to_owned),
            revision: revision.to_owned(),
        };
        for (what, word) in [
            ("owner", &address.owner),
            ("repository", &address.repository),
        ] {
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if word.is_empty() || !word.bytes().all(letters) || word.starts_with('.') {
                return Err(format!(
                    "`{word}` is no name of {what}; wanted hf:OWNER/REPO[/FILE][@REVISION]"
                ));
            }
        }
        let empty = address.file.as_deref() == Some("") || address.revision.is_empty();
        let control = |text: &str| text.bytes().any(|byte| byte.is_ascii_control());
        if empty || control(text) {
            return Err("wanted hf:OWNER/REPO[/FILE][@REVISION]".to_owned());
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.repository)
    }
}

/// What the hub says of a repository.
#[derive(Debug, Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Entry {
    fn size_bytes(&self) -> Option<u64> {
        self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size)
    }

    fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref()?.sha256.as_deref()
    }

    fn is_gguf(&self) -> bool {
        self.name.to_ascii_lowercase().ends_with(".gguf")
    }
}

impl Repository {
    fn entry(&self, name: &str) -> Option<&Entry> {
        self.siblings.iter().find(|entry| entry.name == name)
    }
}

/// Where the hub is, and who asks.
struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    fn of_environment() -> Result<Self, Failure> {
        let set = |name| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        http::check_url(&endpoint)
            .map_err(|reason| Failure::usage(format!("HF_ENDPOINT is `{endpoint}`: {reason}")))?;
        Ok(Self {
            endpoint,
            token: set("HF_TOKEN").map(|token| token.trim().to_owned()),
        })
    }

    fn request(&self, path: &str, size_bytes: Option<u64>, pinned: bool) -> transfer::Request {
        transfer::Request {
            url: format!("{}/{path}", self.endpoint),
            token: self.token.clone(),
            size_bytes,
            pinned,
        }
    }
}

impl Address {
    /// # Errors
    /// A failure that lists the candidates where more than one file fits.
    pub(super) fn fetch(
        &self,
        context: Context<'_>,
        pins: &Pins,
        known: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Fetched>, Failure> {
        let hub = Hub::of_environment()?;
        let repository = self.look_up(context, &hub)?;
        if self.file.is_none()
            && !repository.siblings.iter().any(Entry::is_gguf)
            && let Some(names) = folder::names_among(|name| repository.entry(name).is_some())
        {
            return self
                .fetch_folder(context, &hub, &repository, &names)
                .map(Some);
        }
        let entry = self.choose(&repository)?;
        let commit = &repository.sha;
        if let (Some(pinned), Some(stated)) = (&pins.sha256, entry.sha256())
            && pinned != stated
        {
            let message = format!("the hub states the SHA-256 {stated} for {}", entry.name);
            return Err(Failure::not_verified(format!("{message}, not {pinned}"))
                .help("nothing was downloaded; name the revision that has the file you mean"));
        }
        if entry.sha256().is_some_and(known) {
            return Ok(None);
        }
        if let Some(size) = entry.size_bytes() {
            let (name, size) = (&entry.name, ui::size(size));
            context.ui.note(&format!(
                "{name} of {self} at {}: {size}",
                &commit[..12.min(commit.len())]
            ));
        }
        let path = format!("{self}/resolve/{commit}/{}", escape(&entry.name, true));
        let request = hub.request(&path, entry.size_bytes(), pins.any());
        let partial = transfer::download(context, &request)?;
        Ok(Some(Fetched {
            content: Content::Partial(partial),
            label: format!("hf:{self}/{}", entry.name),
            source: Some(format!("hf:{self}/{}@{commit}", entry.name)),
            file_name: entry.name.rsplit('/').next().unwrap_or_default().to_owned(),
            sha256: entry.sha256().map(str::to_owned),
        }))
    }

    /// The files of an encoder, one by one, as one archive.
    fn fetch_folder(
        &self,
        context: Context<'_>,
        hub: &Hub,
        repository: &Repository,
        names: &[&str],
    ) -> Result<Fetched, Failure> {
        let commit = &repository.sha;
        let downloads = partial::folder(context.home)?;
        let work = tempfile::Builder::new()
            .prefix(".incoming-")
            .tempdir_in(&downloads)
            .map_err(|error| file_failure("make a folder in", &downloads, error))?;
        for entry in names.iter().filter_map(|name| repository.entry(name)) {
            let path = format!("{self}/resolve/{commit}/{}", escape(&entry.name, true));
            let partial =
                transfer::download(context, &hub.request(&path, entry.size_bytes(), false))?;
            let place = work.path().join(&entry.name);
            let folder = place.parent().unwrap_or(work.path());
            fs::create_dir_all(folder).map_err(|error| file_failure("make", folder, error))?;
            partial.move_to(&place)?;
            let blobs = Blobs::open(context.home)?;
            let found = blobs.hash(&place, context.interrupt, &mut |_| ())?.sha256;
            if let Some(stated) = entry.sha256().filter(|stated| *stated != found) {
                let message = format!("{} has the SHA-256 {found}", entry.name);
                return Err(
                    Failure::not_verified(format!("{message}, the hub states {stated}"))
                        .help("try again: the file was not sent as it is on the hub"),
                );
            }
        }
        Ok(Fetched {
            content: Content::Partial(folder::archive(context, work.path())?),
            label: format!("hf:{self}"),
            source: Some(format!("hf:{self}@{commit}")),
            file_name: self.repository.clone(),
            sha256: None,
        })
    }

    fn look_up(&self, context: Context<'_>, hub: &Hub) -> Result<Repository, Failure> {
        let revision = escape(&self.revision, false);
        let path = format!("api/models/{self}/revision/{revision}?blobs=true");
        let text =
            transfer::text(context, &hub.request(&path, None, false)).map_err(|failure| {
                let revision = &self.revision;
                failure.context(format!("cannot look up hf:{self} at revision `{revision}`"))
            })?;
        let repository: Repository = serde_json::from_slice(&text).map_err(|error| {
            let message = format!("{} does not answer as a hub does", hub.endpoint);
            Failure::host(error)
                .context(message)
                .help("check HF_ENDPOINT")
        })?;
        let hex = |byte: u8| byte.is_ascii_hexdigit();
        if repository.sha.is_empty() || !repository.sha.bytes().all(hex) {
            let message = format!("{} names no commit for hf:{self}", hub.endpoint);
            return Err(Failure::host(message).help("check HF_ENDPOINT"));
        }
        Ok(repository)
    }

    /// The one file that is meant.
    fn choose<'a>(&self, repository: &'a Repository) -> Result<&'a Entry, Failure> {
        let entries = &repository.siblings;
        if let Some(file) = &self.file
            && let Some(exact) = repository.entry(file)
        {
            return Ok(exact);
        }
        let part = self.file.clone().unwrap_or_default().to_ascii_lowercase();
        let models: Vec<&Entry> = entries.iter().filter(|entry| entry.is_gguf()).collect();
        let fitting: Vec<&Entry> = models
            .iter()
            .copied()
            .filter(|entry| entry.name.to_ascii_lowercase().contains(&part))
            .collect();
        match fitting.as_slice() {
            [only] => Ok(only),
            [] if models.is_empty() => Err(Failure::usage(format!(
                "hf:{self} has no GGUF file: {}",
                list(&entries.iter().collect::<Vec<_>>())
            ))
            .help(
                "look for a repository with `GGUF` in its name; an encoder needs config.json, \
                 model.safetensors and vocab.txt",
            )),
            [] => Err(Failure::usage(format!(
                "no GGUF file of hf:{self} has `{part}` in its name: {}",
                list(&models)
            ))
            .help(format!("name one: hf:{self}/{}", models[0].name))),
            several => Err(Failure::usage(format!(
                "hf:{self} has {} GGUF files that fit: {}",
                several.len(),
                list(several)
            ))
            .help(format!(
                "name one, or a part that only one has: hf:{self}/{}",
                several[0].name
            ))),
        }
    }
}

fn list(entries: &[&Entry]) -> String {
    let mut lines: Vec<String> = entries
        .iter()
        .take(LISTED_MAX)
        .map(|entry| {
            let size = entry.size_bytes().map(ui::size);
            format!("\n  {}  {}", entry.name, size.unwrap_or_default())
        })
        .collect();
    if entries.len() > LISTED_MAX {
        lines.push(format!("\n  and {} more", entries.len() - LISTED_MAX));
    }
    lines.concat()
}

/// For a URL's path; with `slashes`, folders stay folders.
fn escape(text: &str, slashes: bool) -> String {
    text.bytes()
        .map(|byte| {
            let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
            if plain || (slashes && byte == b'/') {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            size: Some(1_000_000),
            lfs: None,
        }
    }

    #[test]
    fn a_file_is_chosen_by_name_or_by_the_only_one_that_fits() {
        let repository = Repository {
            sha: "ab".to_owned(),
            siblings: ["README.md", "m.Q4_K_M.gguf", "m.Q8_0.gguf", "x/Q8_0.gguf"]
                .map(entry)
                .to_vec(),
        };
        let choose = |text: &str| {
            let address: Address = text.parse().unwrap();
            match address.choose(&repository) {
                Ok(entry) => entry.name.clone(),
                Err(failure) => failure.error.to_string(),
            }
        };
        assert_eq!(choose("a/b/m.Q8_0.gguf"), "m.Q8_0.gguf");
        assert_eq!(choose("a/b/x/Q8_0.gguf@v1"), "x/Q8_0.gguf");
        assert_eq!(choose("a/b/q4_k_m"), "m.Q4_K_M.gguf");
        assert!(choose("a/b/q8_0").starts_with("hf:a/b has 2 GGUF files that fit"));
        assert!(choose("a/b").contains("m.Q8_0.gguf  1.0 MB"));
        assert!(choose("a/b/q2").starts_with("no GGUF file of hf:a/b has `q2`"));
        assert_eq!(escape("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(escape("a b/ü", true), "a%20b/%C3%BC");
    }
}
