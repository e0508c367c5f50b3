//! Documents for tests: a request of the client whose key is 32 times 1, and evidence.

use tussah_manifest::{
    Channel, Digest, Evidence, Label, Limits, Nanograms, Nonce, RequestBody, Salt, SigningKey,
    Transcript, Version,
};

/// The most that [`body`] pays.
pub(crate) const PRICE_MAX: u64 = 500;

pub(crate) fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

pub(crate) fn body(nonce: u8) -> RequestBody {
    let nonce = Nonce::from_bytes([nonce; 32]);
    RequestBody {
        version: Version::V1,
        manifest: Digest::of(b"manifest"),
        module: Digest::of(b"module"),
        input: RequestBody::input_digest(&nonce, b"input"),
        nonce,
        price_nanograms_max: Nanograms::new(PRICE_MAX).unwrap(),
        channel: Channel::Local,
        deadline_unix_ms: None,
        client_key: key(1).public_key(),
    }
}

pub(crate) fn evidence(wall_ns: u64) -> Evidence {
    let label = |text: &str| Label::new(text).unwrap();
    Evidence {
        host_build: label("test"),
        wasm_engine: label("none"),
        inference_engine: label("none"),
        kernels: None,
        adapter: None,
        driver: None,
        threads: 1,
        wall_ns,
        gpu_ns: None,
        transcript: Transcript::new(Salt::from_bytes([0; 32]), &Limits::DEFAULT).digest(),
    }
}
