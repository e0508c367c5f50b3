//! Openings: that they fit one receipt, and say what does not fit another.

use expect_test::expect;
use proptest::prelude::*;
use tussah_manifest::{
    Channel, ChannelAddress, Consensus, Digest, Domain, Evidence, Label, Limits, Nanograms,
    Opening, Profile, Receipt, RequestBody, Salt, Transcript,
};

use crate::samples;

fn receipt_with(consensus: Consensus) -> Receipt {
    Receipt::sign(consensus, samples::evidence(), &samples::provider()).expect("good parts")
}

#[test]
fn the_first_thing_that_does_not_fit_is_named() {
    let (opening, receipt) = (samples::opening(), samples::receipt());
    opening.matches(&receipt).expect("its own");
    let other = Digest::of(b"other");
    let channel = Channel::Ton {
        address: ChannelAddress {
            workchain: 0,
            account: [9; 32],
        },
        index: 1,
    };
    let price_nanograms = Nanograms::new(1).expect("an amount");
    let mut told = String::new();
    let mut check = |opening: &Opening, receipt: &Receipt| {
        let error = opening.matches(receipt).expect_err("a difference");
        told += &format!("{error}\n");
    };
    let consensus = samples::consensus;
    check(
        &opening,
        &receipt_with(Consensus {
            job: other,
            ..consensus()
        }),
    );
    check(
        &opening,
        &receipt_with(Consensus {
            module: other,
            ..consensus()
        }),
    );
    check(
        &opening,
        &receipt_with(Consensus {
            manifest: other,
            ..consensus()
        }),
    );
    check(
        &opening,
        &receipt_with(Consensus {
            profile: other,
            ..consensus()
        }),
    );
    check(
        &opening,
        &receipt_with(Consensus {
            channel,
            ..consensus()
        }),
    );
    check(
        &opening,
        &receipt_with(Consensus {
            price_nanograms,
            ..consensus()
        }),
    );
    let evidence = Evidence {
        transcript: other,
        ..samples::evidence()
    };
    let of_others = Receipt::sign(consensus(), evidence, &samples::provider());
    check(&opening, &of_others.expect("good parts"));
    check(
        &Opening {
            salt: Salt::from_bytes([0; 32]),
            ..opening.clone()
        },
        &receipt,
    );
    let mut unsigned = opening.clone();
    unsigned.request.signature = receipt.signature;
    check(&unsigned, &receipt);
    let mut fewer = opening.clone();
    fewer.host_calls.pop();
    check(&fewer, &receipt);
    expect![[r#"
        the job id in the opening is blake3:fdf66103ad723e8b05ad684eed3cb709051002102fd8ec25e3fc342fb6deb85a, in the receipt blake3:3f796163ebf94718de1cd7582655c012f995c06f1e6970ea2bdc15bcd88a324a; the two files are not of one run
        the module in the opening is blake3:48d3a2e8a9b0cde6293ba7f68824a97d069d096f44335a9e86aee55238dcdcb8, in the receipt blake3:3f796163ebf94718de1cd7582655c012f995c06f1e6970ea2bdc15bcd88a324a; the two files are not of one run
        the manifest in the opening is blake3:7ca226219abcda26dcc663e5407f9cb1bccc7f53a5635092cd06a3fc38a84dfb, in the receipt blake3:3f796163ebf94718de1cd7582655c012f995c06f1e6970ea2bdc15bcd88a324a; the two files are not of one run
        the profile in the opening is blake3:04b80bf073a87648cb39ffeefc308bb0c9854bd0015fac4fe146124834aa2f5a, in the receipt blake3:3f796163ebf94718de1cd7582655c012f995c06f1e6970ea2bdc15bcd88a324a; the two files are not of one run
        the client asked for channel local, the receipt is for 0:0909090909090909090909090909090909090909090909090909090909090909 index 1
        the receipt's price of 1 nanograms is above the 0 that the client allowed
        the transcript in the opening is blake3:4c7a2e82b74f292edc1cb234a2aa9386c6224f4065f8afa01fc35e16407946f3, in the receipt blake3:3f796163ebf94718de1cd7582655c012f995c06f1e6970ea2bdc15bcd88a324a; the two files are not of one run
        the opening's salt does not derive from its request's nonce; the opening was changed
        the request in the opening is not good
        the transcript in the opening is blake3:f13313815452d68d798b2004514dd501c60f331626eb5c0062e5c2dfc726766c, in the receipt blake3:4c7a2e82b74f292edc1cb234a2aa9386c6224f4065f8afa01fc35e16407946f3; the two files are not of one run
    "#]].assert_eq(&told);
}

#[test]
fn the_output_can_be_checked() {
    let (opening, receipt) = (samples::opening(), samples::receipt());
    assert_eq!(
        opening.output_digest(samples::OUTPUT),
        receipt.consensus.output
    );
    assert_ne!(opening.output_digest(b"Another."), receipt.consensus.output);
}

#[test]
fn two_runs_part_at_the_first_call_that_differs() {
    let opening = samples::opening();
    let mut calls = opening.host_calls.clone();
    assert_eq!(opening.first_difference(&calls), None);
    calls.push(Digest::of(b"one more"));
    assert_eq!(opening.first_difference(&calls), Some(2));
    calls[1] = Digest::of(b"another");
    assert_eq!(opening.first_difference(&calls), Some(1));
    assert_eq!(opening.first_difference(&[]), Some(0));
}

#[test]
fn profiles_say_where_they_differ() {
    let ours = samples::profile();
    assert_eq!(ours.differences(&ours), []);
    let mut theirs = Profile {
        wasm_engine: Label::new("wasmtime 49.0.0").expect("a label"),
        engine_config: Digest::derive(Domain::EngineConfig, b"other"),
        limits: Limits {
            fuel_max: 5,
            ..Limits::DEFAULT
        },
        ..ours.clone()
    };
    theirs
        .wasm_features
        .remove(&Label::new("simd").expect("a label"));
    theirs
        .wasm_features
        .insert(Label::new("threads").expect("a label"));
    let lines: String = ours
        .differences(&theirs)
        .iter()
        .map(|d| format!("{d}\n"))
        .collect();
    expect![[r#"
        wasm_engine: wasmtime 48.0.8 here, wasmtime 49.0.0 there
        wasm_features.simd: on here, off there
        wasm_features.threads: off here, on there
        engine_config: blake3:05da72ea2682f361271fcba97a8203a71406fbf6159df76c95cac307de2e9287 here, blake3:cc7ff0b147b84e739c8531364c5686b4a5153ac9496d9fc47030194fdb45aad7 there
        limits.fuel_max: 10000000000 here, 5 there
    "#]].assert_eq(&lines);
}

#[test]
fn a_transcript_has_as_many_calls_as_the_limits_allow() {
    let limits = Limits {
        host_calls_max: 2,
        ..Limits::DEFAULT
    };
    let mut transcript = Transcript::new(samples::nonce().derive_salt(), &limits);
    transcript.record("a", b"", b"").expect("the first");
    transcript.record("a", b"", b"").expect("the second");
    let error = transcript
        .record("a", b"", b"")
        .expect_err("the third")
        .to_string();
    assert_eq!(
        error,
        "the guest made 2 host calls, all that limits.host_calls_max allows"
    );
    assert_eq!(transcript.calls().len(), 2);
}

#[test]
fn calls_are_told_apart_wherever_their_parts_meet() {
    let digest = |call: &str, arguments: &[u8], results: &[u8]| {
        let mut transcript = Transcript::new(samples::nonce().derive_salt(), &Limits::DEFAULT);
        transcript.record(call, arguments, results).expect("room");
        transcript.digest()
    };
    let mut all = [
        digest("ab", b"", b""),
        digest("a", b"b", b""),
        digest("a", b"", b"b"),
        digest("", b"ab", b""),
        digest("", b"", b"ab"),
    ];
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
}

proptest! {
    #[test]
    fn openings_fit_their_receipt_and_no_other(
        (receipt, opening) in samples::any_run(),
        (other, _) in samples::any_run(),
    ) {
        prop_assert_eq!(opening.matches(&receipt), Ok(()));
        prop_assert!(opening.matches(&other).is_err());
        let body = RequestBody { nonce: samples::nonce(), ..opening.request.body.clone() };
        let mut swapped = opening;
        swapped.request.body = body;
        prop_assert!(swapped.matches(&receipt).is_err());
    }
}
