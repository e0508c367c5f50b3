//! Any bytes as a manifest, as text and as canonical bytes: no panic, and what is taken has one
//! spelling, which reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_manifest::{Document as _, JobDescription, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(job) = JobDescription::parse_bytes(bytes) {
        assert_eq!(JobDescription::parse(&job.to_toml()), Ok(job));
    }
    if let Ok(manifest) = Manifest::parse_bytes(bytes) {
        assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest.clone()));
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
    }
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
        assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest));
    }
});
