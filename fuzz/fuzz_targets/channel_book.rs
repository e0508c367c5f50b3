//! Any bytes as an exported channel book, under a digest that fits: what comes out was checked, or
//! it is an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_commit::backup::Backup;
use tussah_manifest::Digest;

fuzz_target!(|bytes: &[u8]| {
    let mut file = b"tussah channel book 1\n".to_vec();
    file.extend(bytes);
    let digest = Digest::of(&file);
    file.extend(digest.as_bytes());
    if let Ok(backup) = Backup::from_file(&file) {
        assert!(backup.record().is_of_its_terms());
        assert_eq!(backup.record().id, *backup.id());
    }
});
