//! Requests: who signs them, and what follows from the nonce.

use proptest::prelude::*;
use tussah_manifest::{
    Channel, Digest, Document as _, LocalSecret, Nonce, Request, RequestBody, RequestError,
    SigningKey,
};

use crate::samples;

#[test]
fn the_job_id_is_the_bodys_alone() {
    let body = samples::request_body();
    let id = body.job_id();
    assert_eq!(
        body.sign(&samples::client())
            .expect("the client")
            .body
            .job_id(),
        id
    );
    assert_ne!(samples::paid_request_body().job_id(), id);
}

#[test]
fn only_the_client_signs() {
    let error = samples::request_body()
        .sign(&samples::provider())
        .expect_err("another key");
    assert!(matches!(error, RequestError::OtherKey { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&samples::client().public_key().to_string()),
        "{text}"
    );
}

#[test]
fn a_local_request_has_no_deadline() {
    let body = RequestBody {
        deadline_unix_ms: Some(1),
        ..samples::request_body()
    };
    assert!(RequestBody::from_bytes(&body.to_bytes()).is_err());
    let error = body
        .sign(&samples::client())
        .expect_err("a deadline")
        .to_string();
    assert!(error.contains("deadline_unix_ms"), "{error}");
    let body = RequestBody {
        channel: Channel::Local,
        ..samples::paid_request_body()
    };
    assert!(body.sign(&samples::client()).is_err());
}

#[test]
fn every_flipped_bit_is_noticed() {
    for body in [samples::request_body(), samples::paid_request_body()] {
        let request = body.sign(&samples::client()).expect("the client");
        request.verify().expect("untouched");
        let bytes = request.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = Request::from_bytes(&bytes).map_or(true, |r| r.verify().is_err());
            assert!(noticed, "bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn the_input_is_the_one_asked_about() {
    let body = samples::request_body();
    assert!(body.is_for_input(samples::INPUT));
    assert!(!body.is_for_input(b"What is silk? "));
    assert_ne!(body.input, Digest::of(samples::INPUT));
}

#[test]
fn equal_runs_have_equal_nonces_and_others_have_not() {
    let (module, manifest) = (Digest::of(b"module"), Digest::of(b"manifest"));
    let secret = LocalSecret::from_bytes([7; 32]);
    let nonce = Nonce::local(&secret, &module, &manifest, b"input");
    assert_eq!(nonce, Nonce::local(&secret, &module, &manifest, b"input"));
    for other in [
        Nonce::local(
            &LocalSecret::from_bytes([8; 32]),
            &module,
            &manifest,
            b"input",
        ),
        Nonce::local(&secret, &manifest, &module, b"input"),
        Nonce::local(&secret, &module, &module, b"input"),
        Nonce::local(&secret, &module, &manifest, b"inpu"),
        Nonce::local(&secret, &module, &manifest, b""),
    ] {
        assert_ne!(nonce, other);
    }
}

proptest! {
    #[test]
    fn signed_requests_hold(request in samples::any_request(), other in samples::any_key()) {
        prop_assert_eq!(request.verify(), Ok(()));
        let stolen = Request {
            body: RequestBody { client_key: other.public_key(), ..request.body.clone() },
            signature: request.signature,
        };
        prop_assert!(stolen.verify().is_err());
    }

    #[test]
    fn salt_seed_and_clock_are_unrelated(bytes in any::<[u8; 32]>()) {
        let nonce = Nonce::from_bytes(bytes);
        let (salt, seed) = (nonce.derive_salt(), nonce.derive_seed());
        prop_assert_ne!(salt.as_bytes(), seed.as_bytes());
        prop_assert_ne!(salt.as_bytes(), &bytes);
        prop_assert!((1_577_836_800..1_893_456_000).contains(&nonce.derive_clock()));
    }

    #[test]
    fn a_request_is_no_receipt_signature(secret in any::<[u8; 32]>()) {
        // One key in both roles: the signed digests have domains of their own.
        let key = SigningKey::from_bytes(&secret);
        let body = RequestBody { client_key: key.public_key(), ..samples::request_body() };
        let request = body.sign(&key).unwrap();
        let mut receipt = samples::receipt();
        receipt.provider_key = key.public_key();
        receipt.signature = request.signature;
        prop_assert!(receipt.verify().is_err());
    }
}
