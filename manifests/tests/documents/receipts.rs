//! Receipts: what their signature covers, and what none of them can say.

use proptest::prelude::*;
use tussah_manifest::{
    Consensus, Determinism, Digest, Document as _, Evidence, ExitStatus, ModelName, Nanograms,
    Receipt, Trap,
};

use crate::samples;

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = samples::receipt().to_bytes();
    Receipt::from_verified_bytes(&bytes).expect("untouched");
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let noticed = Receipt::from_verified_bytes(&bytes).is_err();
        assert!(noticed, "bit {} of byte {}", bit % 8, bit / 8);
    }
}

#[test]
fn the_signature_covers_both_parts_and_the_key() {
    let good = samples::receipt();
    let mut other = good.clone();
    other.consensus.fuel_used += 1;
    assert!(other.verify().is_err());
    let mut other = good.clone();
    other.evidence.wall_ns += 1;
    assert!(other.verify().is_err());
    let mut other = good.clone();
    other.provider_key = samples::client().public_key();
    assert!(other.verify().is_err());
    let again = Receipt::sign(
        good.consensus.clone(),
        good.evidence.clone(),
        &samples::client(),
    );
    assert_ne!(again.expect("another provider").signature, good.signature);
}

#[test]
fn equal_runs_have_equal_consensus_whatever_the_evidence() {
    let slower = Evidence {
        wall_ns: 9,
        threads: 1,
        ..samples::evidence()
    };
    let other = Receipt::sign(samples::consensus(), slower, &samples::client()).expect("good");
    assert_eq!(
        other.consensus.digest(),
        samples::receipt().consensus.digest()
    );
    assert_ne!(other.digest(), samples::receipt().digest());
}

#[test]
fn what_ended_by_the_clock_cannot_be_called_exact() {
    for exit in [
        ExitStatus::Cancelled,
        ExitStatus::DeadlineExceeded,
        ExitStatus::DeviceLost,
        ExitStatus::HostFailure,
    ] {
        for determinism in [Determinism::Exact, Determinism::Tolerant] {
            let consensus = Consensus {
                exit,
                determinism,
                ..samples::consensus()
            };
            let error = Receipt::sign(consensus, samples::evidence(), &samples::provider())
                .expect_err("a contradiction")
                .to_string();
            assert_eq!(
                error,
                format!("receipt: a run that ended as {exit} is not-rerunnable")
            );
        }
        let determinism = Determinism::NotRerunnable;
        let consensus = Consensus {
            exit,
            determinism,
            ..samples::consensus()
        };
        Receipt::sign(consensus, samples::evidence(), &samples::provider()).expect("said so");
    }
}

#[test]
fn a_price_past_all_there_is_does_not_decode() {
    let mut bytes = samples::consensus().to_bytes();
    // Key 11 with 0 becomes key 11 with 2^64 - 1.
    let at = bytes
        .windows(3)
        .rposition(|w| w == [0x0b, 0x00, 0x0c])
        .expect("the price");
    bytes.splice(at + 1..at + 2, [0x1b].into_iter().chain([0xff; 8]));
    let error = Consensus::from_bytes(&bytes)
        .expect_err("too much")
        .to_string();
    assert!(error.contains(&Nanograms::MAX.to_string()), "{error}");
}

#[test]
fn runs_say_where_they_differ() {
    let ours = samples::consensus();
    assert_eq!(ours.differences(&ours), []);
    let mut theirs = Consensus {
        output: Digest::of(b"another output"),
        exit: ExitStatus::Trapped {
            trap: Trap::Unreachable,
        },
        fuel_used: ours.fuel_used + 1,
        ..ours.clone()
    };
    let name = ModelName::new("another").expect("a name");
    theirs.models.insert(name, Digest::of(b"a model"));
    let differences = ours.differences(&theirs);
    let fields: Vec<&str> = differences.iter().map(|d| d.field.as_str()).collect();
    assert_eq!(fields, ["models.another", "output", "exit", "fuel_used"]);
    assert_eq!(differences[0].this, "none");
    assert_eq!(differences[2].other, "trapped (unreachable)");
}

proptest! {
    /// An auditor misses nothing: whichever field is another run's, it is named.
    #[test]
    fn runs_that_differ_in_no_field_are_equal(
        (ours, _) in samples::any_run(),
        (theirs, _) in samples::any_run(),
        field in 0..12,
    ) {
        let (ours, theirs) = (ours.consensus, theirs.consensus);
        let mut mixed = ours.clone();
        match field {
            0 => mixed.job = theirs.job,
            1 => mixed.module = theirs.module,
            2 => mixed.manifest = theirs.manifest,
            3 => mixed.models = theirs.models,
            4 => mixed.output = theirs.output,
            5 => mixed.exit = theirs.exit,
            6 => mixed.determinism = theirs.determinism,
            7 => mixed.profile = theirs.profile,
            8 => mixed.fuel_used = theirs.fuel_used,
            9 => mixed.inference_units_used = theirs.inference_units_used,
            10 => mixed.price_nanograms = theirs.price_nanograms,
            _ => mixed.channel = theirs.channel,
        }
        prop_assert_eq!(ours.differences(&mixed).is_empty(), ours == mixed);
    }

    #[test]
    fn signed_receipts_hold_and_changed_ones_do_not(
        receipt in samples::any_receipt(),
        place in any::<usize>(),
        mask in 1u8..,
    ) {
        let mut bytes = receipt.to_bytes();
        prop_assert_eq!(Receipt::from_verified_bytes(&bytes), Ok(receipt));
        let place = place % bytes.len();
        bytes[place] ^= mask;
        prop_assert!(Receipt::from_verified_bytes(&bytes).is_err());
    }

    #[test]
    fn no_view_panics((receipt, opening) in samples::any_run()) {
        for view in [receipt.to_json(), opening.to_json(), opening.request.to_json(), opening.profile.to_json()] {
            serde_json::from_str::<serde_json::Value>(&view).expect("JSON");
        }
    }
}
