//! Any bytes as a claim, its body and a module's build info: no panic, and what is taken is spelled
//! the one way it can be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_manifest::{BuildInfo, Claim, ClaimBody, Document};

fn decode<D: Document>(bytes: &[u8]) -> Option<D> {
    let document = D::from_bytes(bytes).ok()?;
    assert_eq!(document.to_bytes(), bytes);
    Some(document)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(claim) = decode::<Claim>(bytes) {
        let _ = claim.verify();
        let _ = claim.to_json();
    }
    let _ = decode::<ClaimBody>(bytes);
    let _ = decode::<BuildInfo>(bytes);
});
