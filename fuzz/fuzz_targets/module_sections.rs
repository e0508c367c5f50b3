//! Any bytes as a module that `tussah verify` is given: no panic, what divides into sections is put
//! together again, and a record of a build that is put in is found once.
//!
//! The host's two files are compiled as they are, without the program around them.
#![no_main]

#[path = "../../host/src/build"]
mod build {
    pub(crate) mod sections;
}
#[path = "../../host/src/verify/compare.rs"]
mod compare;

use build::sections::{build_sections, code_digest, split, with_build_info, without_custom};
use libfuzzer_sys::fuzz_target;
use tussah_manifest::{BuildInfo, Digest, Document as _, Label, Version};

fn info() -> BuildInfo {
    let label = Label::lossy;
    BuildInfo {
        version: Version::V1,
        rustc: label("1.95.0"),
        rustc_commit: label("unknown"),
        std_digest: Digest::of(b"std"),
        sdk: None,
        bldarg: vec![label("jobs/chat")],
        bldopt: vec![label("--locked")],
        bldimg: None,
        source_sha256: None,
        source_uri: None,
    }
}

fuzz_target!(|bytes: &[u8]| {
    for head in [&b""[..], b"\0asm\x0d\0\x01\0", b"\0asm\x01\0\0\0"] {
        let module = [head, bytes].concat();
        let Ok(sections) = split(&module) else {
            assert!(code_digest(&module).is_err());
            continue;
        };
        let mut end = 8;
        for section in &sections {
            assert_eq!(section.whole.start, end);
            assert!(section.content.end <= section.whole.end);
            end = section.whole.end;
        }
        assert_eq!(end, module.len());
        let recorded = with_build_info(&module, &info()).expect("it divides");
        assert_eq!(build_sections(&recorded), Ok(vec![&info().to_bytes()[..]]));
        // What was put in is no code.
        assert_eq!(code_digest(&recorded).ok(), code_digest(&module).ok());
        if let Ok(code) = without_custom(&module) {
            assert_eq!(without_custom(&code).as_deref(), Ok(&code[..]));
            let _ = compare::code(&module, &code, Some(&recorded));
            let _ = compare::code(&code, &module, Some(&module));
        }
    }
});
