//! The sections of a module's bytes: custom ones taken out, sorted, and ours put in.
//!
//! In: a component or a core module, of our own build or a stranger's. Out: bytes, or where the
//! framing ends to make sense. What is in a section is not looked at; a module is never run here.

use std::ops::Range;

use tussah_manifest::{BUILD_SECTION, BuildInfo, Digest, Document as _};

/// Magic number and version, of a core module and of a component alike.
const HEAD_BYTES: usize = 8;
/// Components within components that are looked into.
const DEPTH_MAX: u32 = 16;

const CUSTOM: u8 = 0;
/// In components alone: a core module, and a component.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// The bytes cannot be divided into sections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the module's sections do not make sense at byte {at}")]
pub(crate) struct Malformed {
    at: usize,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) id: u8,
    /// With its head.
    pub(crate) whole: Range<usize>,
    /// What is in it; of a custom section, what follows its name.
    pub(crate) content: Range<usize>,
    /// Of a custom section.
    pub(crate) name: Option<String>,
}

impl Section {
    /// The module or component that is in it, if one is.
    pub(crate) fn nested<'a>(&self, of: &'a [u8]) -> Option<&'a [u8]> {
        let component = is_component(of);
        let nests = component && matches!(self.id, CORE_MODULE | COMPONENT);
        nests.then(|| &of[self.content.clone()])
    }
}

/// Whether the bytes begin as a component's.
pub(crate) fn is_component(bytes: &[u8]) -> bool {
    bytes.get(4..HEAD_BYTES) == Some(b"\x0d\0\x01\0")
}

/// The sections of a module, in their order; those within them are not listed.
///
/// # Errors
/// [`Malformed`] if a section's head or length makes no sense.
pub(crate) fn split(bytes: &[u8]) -> Result<Vec<Section>, Malformed> {
    if !bytes.starts_with(b"\0asm") || bytes.len() < HEAD_BYTES {
        return Err(Malformed { at: 0 });
    }
    let mut sections = Vec::new();
    let mut at = HEAD_BYTES;
    while at < bytes.len() {
        let malformed = Malformed { at };
        let id = bytes[at];
        let (length, start) = leb(bytes, at + 1).ok_or(malformed.clone())?;
        let end = start
            .checked_add(length)
            .filter(|end| *end <= bytes.len())
            .ok_or(malformed.clone())?;
        let mut content = start..end;
        let mut name = None;
        if id == CUSTOM {
            let (length, from) = leb(&bytes[..end], start).ok_or(malformed.clone())?;
            let to = from.checked_add(length).filter(|to| *to <= end);
            let to = to.ok_or(malformed.clone())?;
            let text = std::str::from_utf8(&bytes[from..to]).map_err(|_| malformed)?;
            name = Some(text.to_owned());
            content = to..end;
        }
        sections.push(Section {
            id,
            whole: at..end,
            content,
            name,
        });
        at = end;
    }
    Ok(sections)
}

/// An unsigned number of at most 32 bits, and where the next byte is.
fn leb(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, at));
        }
    }
    None
}

fn put_leb(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        out.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

fn put_section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    put_leb(out, content.len());
    out.extend_from_slice(content);
}

/// The bytes without custom sections, also in the modules within; lengths of those are written in
/// their shortest form.
///
/// # Errors
/// [`Malformed`], also if components are nested more than 16 deep.
pub(crate) fn without_custom(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    strip(bytes, DEPTH_MAX)
}

fn strip(bytes: &[u8], depth: u32) -> Result<Vec<u8>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed { at: 0 })?;
    let sections = split(bytes)?;
    let mut out = bytes[..HEAD_BYTES].to_vec();
    for section in sections.iter().filter(|section| section.id != CUSTOM) {
        match section.nested(bytes) {
            Some(nested) => put_section(&mut out, section.id, &strip(nested, depth)?),
            None => out.extend_from_slice(&bytes[section.whole.clone()]),
        }
    }
    Ok(out)
}

/// Plain BLAKE3 of the bytes without custom sections: what a manifest calls its `code_digest`.
///
/// # Errors
/// [`Malformed`], as [`without_custom`].
pub(crate) fn code_digest(bytes: &[u8]) -> Result<Digest, Malformed> {
    Ok(Digest::of(&without_custom(bytes)?))
}

/// The module with its own custom sections at the end, by name and content, and the record of its
/// build among them, in place of any that it had.
///
/// # Errors
/// [`Malformed`], as [`split`].
pub(crate) fn with_build_info(bytes: &[u8], info: &BuildInfo) -> Result<Vec<u8>, Malformed> {
    let sections = split(bytes)?;
    let mut out = bytes[..HEAD_BYTES].to_vec();
    let mut custom: Vec<(String, Vec<u8>)> = Vec::new();
    for section in sections {
        match section.name {
            None => out.extend_from_slice(&bytes[section.whole]),
            Some(name) if name == BUILD_SECTION => {}
            Some(name) => custom.push((name, bytes[section.content].to_vec())),
        }
    }
    custom.push((BUILD_SECTION.to_owned(), info.to_bytes()));
    custom.sort();
    for (name, content) in custom {
        let mut section = Vec::new();
        put_leb(&mut section, name.len());
        section.extend_from_slice(name.as_bytes());
        section.extend_from_slice(&content);
        put_section(&mut out, CUSTOM, &section);
    }
    Ok(out)
}

/// The contents of the sections that say how a module was built; a build writes one.
///
/// # Errors
/// [`Malformed`], as [`split`].
pub(crate) fn build_sections(bytes: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let sections = split(bytes)?.into_iter();
    let ours = sections.filter(|section| section.name.as_deref() == Some(BUILD_SECTION));
    Ok(ours.map(|section| &bytes[section.content]).collect())
}

#[cfg(test)]
mod tests {
    use tussah_manifest::{Label, Version};

    use super::*;

    fn info() -> BuildInfo {
        let label = |text| Label::new(text).unwrap();
        BuildInfo {
            version: Version::V1,
            rustc: label("1.95.0"),
            rustc_commit: label("unknown"),
            std_digest: Digest::of(b"std"),
            sdk: None,
            bldarg: Vec::new(),
            bldopt: Vec::new(),
            bldimg: None,
            source_sha256: None,
            source_uri: None,
        }
    }

    fn component() -> Vec<u8> {
        wat::parse_str(
            r#"(component
                 (@custom "zebra" "1")
                 (core module $m (@custom "producers" "rustc") (func $named))
                 (component (core module (func nop)))
                 (@custom "ant" "2"))"#,
        )
        .unwrap()
    }

    #[test]
    fn custom_sections_stand_sorted_at_the_end_with_ours() {
        let built = with_build_info(&component(), &info()).unwrap();
        let names: Vec<_> = split(&built)
            .unwrap()
            .into_iter()
            .map(|section| section.name)
            .collect();
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(names[..2], [None, None]);
        assert_eq!(names[2..4], [name("ant"), name("component-name")]);
        assert_eq!(names[4..], [name("tussah-build"), name("zebra")]);
        assert_eq!(build_sections(&built).unwrap(), [info().to_bytes()]);
        // A second time nothing changes.
        assert_eq!(with_build_info(&built, &info()).unwrap(), built);
        wasmparser::Validator::new().validate_all(&built).unwrap();
    }

    #[test]
    fn code_has_one_digest_whatever_custom_sections_say() {
        let plain = component();
        let built = with_build_info(&plain, &info()).unwrap();
        assert_eq!(code_digest(&plain), code_digest(&built));
        let stripped = without_custom(&built).unwrap();
        wasmparser::Validator::new()
            .validate_all(&stripped)
            .unwrap();
        assert!(!stripped.windows(5).any(|bytes| bytes == b"named"));
        assert!(!stripped.windows(5).any(|bytes| bytes == b"rustc"));
        let other = wat::parse_str("(component (core module (func nop nop)))").unwrap();
        assert_ne!(code_digest(&plain), code_digest(&other));
    }

    #[test]
    fn no_damage_panics_and_lengths_are_checked() {
        let good = with_build_info(&component(), &info()).unwrap();
        for end in 0..good.len() {
            let _ = without_custom(&good[..end]);
        }
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = without_custom(&bytes);
            let _ = with_build_info(&bytes, &info());
            let _ = build_sections(&bytes);
        }
        for bytes in [
            &b""[..],
            b"\0asm",
            b"\x7fELF\0\0\0\0",
            b"\0asm\x01\0\0\0\x01",
            b"\0asm\x01\0\0\0\x01\x02\0",
            b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\xff\0",
            b"\0asm\x01\0\0\0\0\x01\x05",
        ] {
            split(bytes).unwrap_err();
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for _ in 0..DEPTH_MAX {
            let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
            put_section(&mut outer, COMPONENT, &bytes);
            bytes = outer;
        }
        without_custom(&bytes).unwrap_err();
    }
}
