//! Claims and records of builds: what a signature covers, what none of them can say.

use expect_test::expect;
use proptest::prelude::*;
use tussah_manifest::{
    BuildInfo, Claim, ClaimBody, Digest, Document as _, Label, Manifest, Verdict,
};

use crate::samples;

#[test]
fn every_flipped_bit_of_a_claim_is_noticed() {
    let bytes = samples::claim().to_bytes();
    Claim::from_verified_bytes(&bytes).expect("untouched");
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let noticed = Claim::from_verified_bytes(&bytes).is_err();
        assert!(noticed, "bit {} of byte {}", bit % 8, bit / 8);
    }
}

#[test]
fn a_claim_is_of_its_own_key() {
    let error = samples::claim_body()
        .sign(&samples::provider())
        .expect_err("it names the client");
    assert!(
        error.to_string().contains("the signature is not"),
        "{error}"
    );
}

#[test]
fn what_no_claim_can_say() {
    let other = Digest::of(b"another module");
    let sample = samples::claim_body;
    let mut long = sample();
    long.build.bldopt = vec![Label::new("x").expect("a label"); 17];
    let mut hash = sample();
    hash.build.source_sha256 = Some(Label::new("5A").expect("a label"));
    let impossible = [
        ClaimBody {
            rebuilt: other,
            ..sample()
        },
        ClaimBody {
            verdict: Verdict::Mismatch,
            ..sample()
        },
        ClaimBody {
            source_sha256: Label::new("unknown").expect("a label"),
            ..sample()
        },
        long,
        hash,
    ];
    let told: Vec<String> = impossible
        .into_iter()
        .map(|body| body.sign(&samples::client()).expect_err("impossible"))
        .map(|error| error.to_string() + "\n")
        .collect();
    expect![[r#"
        claim: the verdict match contradicts the digests
        claim: the verdict mismatch contradicts the digests
        claim: source_sha256 is not 64 lowercase hex digits
        claim: bldopt has more than 16 entries
        claim: source_sha256 is not 64 lowercase hex digits
    "#]]
    .assert_eq(&told.concat());
}

#[test]
fn a_record_of_a_build_is_read_field_by_field() {
    let good = samples::built_manifest().to_toml();
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        let error = Manifest::parse(&good.replace(from, to)).expect_err(to);
        error.to_string() + "\n"
    };
    let told = [
        changed("rustc = \"1.95.0\"", ""),
        changed("rustc = \"1.95.0\"", "rustc = \"\""),
        changed("[\"jobs/summarize\"]", "\"jobs/summarize\""),
        changed("[\"jobs/summarize\"]", "[1]"),
        changed("source_sha256 = \"5a", "source_sha256 = \"5A"),
        changed("code_digest = \"blake3:", "code_digest = \""),
        changed("sdk =", "skd ="),
    ];
    expect![[r#"
        line 12, column 2: `build.rustc` is missing; add `rustc = "1.95.0"`
        line 14, column 9: `build.rustc` is no good label: a label has 1 to 256 bytes, this has 0
        line 17, column 10: `build.bldarg` is a text, where a list belongs
        line 17, column 10: `build.bldarg` is a whole number, where a list of texts in quotes belongs
        line 12, column 2: `build`: source_sha256 is not 64 lowercase hex digits
        line 13, column 15: `build.code_digest` is no digest: a digest starts with `blake3:`, followed by 64 lowercase hex digits
        line 19, column 1: unknown field `build.skd`; known here: code_digest, rustc, rustc_commit, std_digest, bldarg, bldopt, sdk, bldimg, source_sha256, source_uri
    "#]].assert_eq(&told.concat());
}

proptest! {
    #[test]
    fn signed_claims_hold_and_changed_ones_do_not(
        claim in samples::any_claim(),
        place in any::<usize>(),
        mask in 1u8..,
    ) {
        let mut bytes = claim.to_bytes();
        prop_assert!(bytes.len() <= Claim::BYTES_MAX);
        serde_json::from_str::<serde_json::Value>(&claim.to_json()).expect("JSON");
        prop_assert_eq!(Claim::from_verified_bytes(&bytes), Ok(claim));
        let place = place % bytes.len();
        bytes[place] ^= mask;
        prop_assert!(Claim::from_verified_bytes(&bytes).is_err());
    }

    #[test]
    fn records_of_builds_read_back(info in samples::any_build_info()) {
        let bytes = info.to_bytes();
        prop_assert!(bytes.len() <= BuildInfo::BYTES_MAX);
        prop_assert_eq!(BuildInfo::from_bytes(&bytes), Ok(info));
    }
}
