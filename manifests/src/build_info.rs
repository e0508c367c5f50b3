//! `BuildInfo`: how a module was built, in the words of SEP-58 where that has one; the content of
//! the module's own section, and the table `[build]` of its manifest.
//!
//! In: what a builder knows. Out: canonical bytes. It is what the builder says: `tussah verify`
//! builds again and tells whether it is so. It names no machine, no person and no time.

use serde::Serialize;

use crate::digest::Digest;
use crate::encoding::{Document, Version};
use crate::names::Label;

/// The name of the custom section that holds the canonical bytes, once in a module.
pub const BUILD_SECTION: &str = "tussah-build";

/// The most entries of `bldarg` and of `bldopt`.
const LIST_MAX: usize = 16;

/// How a module was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct BuildInfo {
    /// The format's version.
    #[n(0)]
    pub version: Version,
    /// The compiler's release, such as `1.95.0`.
    #[n(1)]
    pub rustc: Label,
    /// The commit that the compiler was built of, or `unknown`.
    #[n(2)]
    pub rustc_commit: Label,
    /// Digest of the files of std for wasm that the module links.
    #[n(3)]
    pub std_digest: Digest,
    /// The version of the SDK that it links, if it does.
    #[n(4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<Label>,
    /// What `tussah build` was given: the job's folder below that of the source.
    #[n(5)]
    pub bldarg: Vec<Label>,
    /// The options of the build that decide its bytes.
    #[n(6)]
    pub bldopt: Vec<Label>,
    /// The container image that it was built in, by digest.
    #[n(7)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bldimg: Option<Label>,
    /// SHA-256 of the source's listing, 64 lowercase hex digits.
    #[n(8)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_sha256: Option<Label>,
    /// Where the source can be had.
    #[n(9)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_uri: Option<Label>,
}

impl Document for BuildInfo {
    const NAME: &'static str = "build info";
    const BYTES_MAX: usize = 10 * 1024;

    fn check(&self) -> Result<(), String> {
        for (name, list) in [("bldarg", &self.bldarg), ("bldopt", &self.bldopt)] {
            if list.len() > LIST_MAX {
                return Err(format!("{name} has more than {LIST_MAX} entries"));
            }
        }
        let sha256 = self.source_sha256.as_ref().map(Label::as_str);
        if sha256.is_some_and(|text| !is_sha256(text)) {
            return Err("source_sha256 is not 64 lowercase hex digits".to_owned());
        }
        Ok(())
    }
}

/// Whether a text is a SHA-256 as tools print it.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a manifest says of its module's build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct BuildRecord {
    /// Plain BLAKE3 of the module without its custom sections.
    #[n(0)]
    pub code_digest: Digest,
    /// What the module's section holds.
    #[n(1)]
    #[serde(flatten)]
    pub info: BuildInfo,
}
