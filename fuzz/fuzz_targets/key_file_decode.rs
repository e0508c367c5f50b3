//! Any bytes as a key file: no panic, no work beyond the bounds, and what is read is written back
//! as what it was read as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_settlement::wallet::KeyFile;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = KeyFile::from_json(bytes) {
        let again = KeyFile::from_json(file.to_json().as_bytes());
        assert_eq!(again.as_ref(), Ok(&file));
    }
});
