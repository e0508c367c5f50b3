//! The canonical form: one spelling for each document, whatever else would decode.

use expect_test::expect;
use proptest::prelude::*;
use tussah_manifest::{
    BuildInfo, Claim, Consensus, Document, Evidence, Manifest, Opening, Profile, Receipt, Request,
    RequestBody,
};

use crate::samples;

fn try_all(bytes: &[u8]) -> bool {
    // An array, not `||`: every decoder has to see the bytes.
    [
        Manifest::from_bytes(bytes).is_ok(),
        RequestBody::from_bytes(bytes).is_ok(),
        Request::from_bytes(bytes).is_ok(),
        Consensus::from_bytes(bytes).is_ok(),
        Evidence::from_bytes(bytes).is_ok(),
        Receipt::from_verified_bytes(bytes).is_ok(),
        Profile::from_bytes(bytes).is_ok(),
        Opening::from_bytes(bytes).is_ok(),
        BuildInfo::from_bytes(bytes).is_ok(),
        Claim::from_verified_bytes(bytes).is_ok(),
    ]
    .contains(&true)
}

/// Every document of the samples with its bytes.
fn documents() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (Manifest::NAME, samples::manifest().to_bytes()),
        (RequestBody::NAME, samples::request_body().to_bytes()),
        (RequestBody::NAME, samples::paid_request_body().to_bytes()),
        (Request::NAME, samples::request().to_bytes()),
        (Consensus::NAME, samples::consensus().to_bytes()),
        (Evidence::NAME, samples::evidence().to_bytes()),
        (Receipt::NAME, samples::receipt().to_bytes()),
        (Profile::NAME, samples::profile().to_bytes()),
        (Opening::NAME, samples::opening().to_bytes()),
        (BuildInfo::NAME, samples::build_info().to_bytes()),
        (Manifest::NAME, samples::built_manifest().to_bytes()),
        (Claim::NAME, samples::claim().to_bytes()),
    ]
}

#[test]
fn cut_off_or_continued_bytes_are_refused() {
    for (name, bytes) in documents() {
        assert!(try_all(&bytes), "{name}");
        for end in 0..bytes.len() {
            assert!(!try_all(&bytes[..end]), "{name} cut at {end}");
        }
        for more in [0x00, 0x80, 0xa0, 0xf6, 0xff] {
            assert!(
                !try_all(&[&bytes[..], &[more]].concat()),
                "{name} and {more:#x}"
            );
        }
    }
}

#[test]
fn other_spellings_of_a_body_are_refused() {
    let good = samples::paid_request_body().to_bytes();
    // A map of nine, key 0, version 1, key 1.
    assert_eq!(good[..4], [0xa9, 0x00, 0x01, 0x01]);
    let start = |start: &[u8], skip: usize| [start, &good[skip..]].concat();
    let spellings = [
        (
            "the version in two bytes",
            start(&[0xa9, 0x00, 0x18, 0x01], 3),
        ),
        ("its key in two bytes", start(&[0xa9, 0x18, 0x00], 2)),
        ("the map's length in two bytes", start(&[0xb8, 0x09], 1)),
        (
            "a map without a length",
            [&[0xbf], &good[1..], &[0xff]].concat(),
        ),
        (
            "an unknown field",
            [&[0xaa], &good[1..], &[0x09, 0xf6]].concat(),
        ),
        ("a field twice", [&[0xaa, 0x00, 0x01], &good[1..]].concat()),
        ("a field too few", start(&[0xa8], 3)),
        ("a version of the future", start(&[0xa9, 0x00, 0x02], 3)),
        ("no version", start(&[0xa9, 0x00, 0xf6], 3)),
        ("a tag", start(&[0xc0, 0xa9], 1)),
        ("an array for the map", start(&[0x89], 1)),
        ("nothing", Vec::new()),
        ("arrays in arrays", vec![0x9f; 1024]),
        ("too much", vec![0; 1025]),
        ("text", b"version = 1".to_vec()),
    ];
    let mut told = String::new();
    for (what, bytes) in spellings {
        let error = RequestBody::from_bytes(&bytes).expect_err(what);
        told += &format!("{what}\n    {error}\n");
    }
    expect![[r#"
        the version in two bytes
            request body: not in canonical form from byte 2 on; the bytes were changed or written by other software
        its key in two bytes
            request body: not in canonical form from byte 1 on; the bytes were changed or written by other software
        the map's length in two bytes
            request body: not in canonical form from byte 0 on; the bytes were changed or written by other software
        a map without a length
            request body: not in canonical form from byte 0 on; the bytes were changed or written by other software
        an unknown field
            request body: not in canonical form from byte 0 on; the bytes were changed or written by other software
        a field twice
            request body: not in canonical form from byte 0 on; the bytes were changed or written by other software
        a field too few
            request body: missing value at index 0 (RequestBody::version) in map or array starting at position 0 (damaged, cut off, or of another format or version)
        a version of the future
            request body: decode error at position 2: format version 2, and this build reads version 1 (damaged, cut off, or of another format or version)
        no version
            request body: unexpected type null at position 2: expected u64 (damaged, cut off, or of another format or version)
        a tag
            request body: unexpected type tag at position 0: expected map (damaged, cut off, or of another format or version)
        an array for the map
            request body: unexpected type array at position 0: expected map (damaged, cut off, or of another format or version)
        nothing
            request body: end of input bytes (damaged, cut off, or of another format or version)
        arrays in arrays
            request body: unexpected type indefinite array at position 0: expected map (damaged, cut off, or of another format or version)
        too much
            request body: 1025 bytes, of at most 1024; this is another kind of file
        text
            request body: unexpected type string at position 0: expected map (damaged, cut off, or of another format or version)
    "#]].assert_eq(&told);
}

#[test]
fn keys_out_of_order_are_refused() {
    // evidence.threads and evidence.wall_ns change places.
    let bytes = samples::evidence().to_bytes();
    let threads = [0x06, 0x02];
    let wall = [0x07, 0x1a, 0xfa, 0x56, 0xea, 0x00];
    let at = bytes
        .windows(8)
        .position(|w| w == [&threads[..], &wall].concat())
        .expect("in it");
    let mut swapped = bytes.clone();
    swapped[at..at + 8].copy_from_slice(&[&wall[..], &threads].concat());
    let error = Evidence::from_bytes(&swapped)
        .expect_err("another order")
        .to_string();
    assert!(
        error.starts_with("receipt evidence: not in canonical form from byte "),
        "{error}"
    );
    // An absent field, written out as null.
    let mut null = bytes.clone();
    null[0] += 1;
    null.splice(at..at, [0x03, 0xf6]);
    assert!(Evidence::from_bytes(&null).is_err());
}

#[test]
fn lists_of_names_are_sorted() {
    let consensus = Consensus {
        models: samples::two_models(),
        ..samples::consensus()
    };
    let bytes = consensus.to_bytes();
    let pair = |name: u8| [0x82, 0x61, name, 0x58, 0x20];
    let place = |name| {
        bytes
            .windows(5)
            .position(|w| w == pair(name))
            .expect("in it")
    };
    let (a, b) = (place(b'a'), place(b'b'));
    assert!(a < b);
    let mut swapped = bytes.clone();
    swapped[a..a + 37].copy_from_slice(&bytes[b..b + 37]);
    swapped[b..b + 37].copy_from_slice(&bytes[a..a + 37]);
    let error = Consensus::from_bytes(&swapped)
        .expect_err("out of order")
        .to_string();
    assert!(
        error.contains("names stand in ascending order, each once"),
        "{error}"
    );
    swapped[a..a + 37].copy_from_slice(&bytes[a..a + 37]);
    assert!(
        Consensus::from_bytes(&swapped).is_err(),
        "the same name twice"
    );
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // An array of 2^62 models; a text, a byte string of as many bytes.
    for head in [[0x9b, 0x40], [0x7b, 0x40], [0x5b, 0x40], [0xbb, 0x40]] {
        let lie = [&head[..], &[0; 7]].concat();
        for key in 0..13 {
            assert!(!try_all(&[&[0xad, key], &lie[..]].concat()));
        }
        assert!(!try_all(&lie));
    }
}

proptest! {
    #[test]
    fn documents_read_back((receipt, opening) in samples::any_run()) {
        prop_assert_eq!(Receipt::from_verified_bytes(&receipt.to_bytes()), Ok(receipt.clone()));
        prop_assert_eq!(Consensus::from_bytes(&receipt.consensus.to_bytes()), Ok(receipt.consensus));
        prop_assert_eq!(Evidence::from_bytes(&receipt.evidence.to_bytes()), Ok(receipt.evidence));
        prop_assert_eq!(Opening::from_bytes(&opening.to_bytes()), Ok(opening.clone()));
        prop_assert_eq!(Profile::from_bytes(&opening.profile.to_bytes()), Ok(opening.profile));
        prop_assert_eq!(Request::from_bytes(&opening.request.to_bytes()), Ok(opening.request.clone()));
        let body = opening.request.body;
        prop_assert_eq!(RequestBody::from_bytes(&body.to_bytes()), Ok(body));
    }

    #[test]
    fn strangers_bytes_do_no_harm(bytes in any::<Vec<u8>>()) {
        prop_assert!(!try_all(&bytes));
    }

    #[test]
    fn what_decodes_is_canonical(which in 0usize..9, place in any::<usize>(), byte in any::<u8>()) {
        let (_, mut bytes) = documents().swap_remove(which);
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(manifest) = Manifest::from_bytes(&bytes) {
            prop_assert_eq!(manifest.to_bytes(), &bytes[..]);
            prop_assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest));
        }
        if let Ok(opening) = Opening::from_bytes(&bytes) {
            prop_assert_eq!(opening.to_bytes(), bytes);
        }
    }
}
