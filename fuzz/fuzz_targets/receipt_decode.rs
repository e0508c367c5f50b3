//! Any bytes as a receipt, its parts, its opening and the request in it: no panic, and what is
//! taken is spelled the one way it can be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tussah_manifest::{
    Consensus, Document, Evidence, Opening, Profile, Receipt, Request, RequestBody,
};

fn decode<D: Document>(bytes: &[u8]) -> Option<D> {
    let document = D::from_bytes(bytes).ok()?;
    assert_eq!(document.to_bytes(), bytes);
    Some(document)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(receipt) = decode::<Receipt>(bytes) {
        let _ = receipt.verify();
        let _ = receipt.to_json();
    }
    if let Some(opening) = decode::<Opening>(bytes) {
        let _ = opening.request.verify();
        let _ = opening.to_json();
    }
    if let Some(request) = decode::<Request>(bytes) {
        let _ = request.verify();
    }
    let _ = decode::<RequestBody>(bytes);
    let _ = decode::<Profile>(bytes);
    let _ = decode::<Consensus>(bytes);
    let _ = decode::<Evidence>(bytes);
});
