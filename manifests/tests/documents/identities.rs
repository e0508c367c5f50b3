//! Digests, keys, names and labels: how they are written, and what they refuse.

use std::str::FromStr as _;

use expect_test::expect;
use proptest::prelude::*;
use tussah_manifest::{
    ChannelAddress, Digest, Domain, ExitStatus, Hasher, JobName, Label, LimitHit, Limits,
    ModelName, Nanograms, PublicKey, Salt, SigningKey, Trap,
};

use crate::samples;

#[test]
fn a_digest_is_blake3_and_prints_as_such() {
    // The empty input's hash in BLAKE3's own test vectors.
    assert_eq!(
        Digest::of(b"").to_string(),
        "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    );
}

#[test]
fn digests_have_one_spelling() {
    let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let wrong = |text: &str| {
        Digest::from_str(text)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(wrong(&format!("blake3:{hex}")), Ok(()));
    let cases = [
        String::new(),
        hex.to_owned(),
        format!("sha256:{hex}"),
        format!("BLAKE3:{hex}"),
        format!("blake3:{}", hex.to_uppercase()),
        format!("blake3:{}", &hex[1..]),
        format!("blake3:{hex}0"),
        format!("blake3:{hex} "),
        format!(" blake3:{hex}"),
        format!("blake3:{}é", &hex[2..]),
    ];
    let messages: Vec<String> = cases
        .iter()
        .map(|text| wrong(text).expect_err("not a digest") + "\n")
        .collect();
    expect![[r#"
        a digest starts with `blake3:`, followed by 64 lowercase hex digits
        a digest starts with `blake3:`, followed by 64 lowercase hex digits
        a digest starts with `blake3:`, followed by 64 lowercase hex digits
        a digest starts with `blake3:`, followed by 64 lowercase hex digits
        `A` is no lowercase hex digit (after 0 of them)
        a digest has 64 hex digits, this has 63
        a digest has 64 hex digits, this has 65
        ` ` is no lowercase hex digit (after 64 of them)
        a digest starts with `blake3:`, followed by 64 lowercase hex digits
        `é` is no lowercase hex digit (after 62 of them)
    "#]]
    .assert_eq(&messages.concat());
}

#[test]
fn digests_stand_in_json_as_text() {
    let digest = Digest::of(b"x");
    let json = serde_json::to_string(&digest).expect("a text");
    assert_eq!(json, format!("\"{digest}\""));
    assert_eq!(
        serde_json::from_str::<Digest>(&json).expect("the same"),
        digest
    );
    assert!(serde_json::from_str::<Digest>("\"blake3:00\"").is_err());
}

#[test]
fn contexts_are_distinct_and_dated() {
    let mut contexts: Vec<&str> = Domain::ALL.iter().map(|domain| domain.context()).collect();
    // Older than the rule, and held by the records that set-up wrote.
    let older = Domain::WasmStd.context();
    assert!(
        contexts
            .iter()
            .filter(|text| **text != older)
            .all(|text| text.starts_with("tussah 2026-11 ") && text.ends_with(" v1"))
    );
    contexts.sort_unstable();
    contexts.dedup();
    assert_eq!(contexts.len(), Domain::ALL.len());
}

#[test]
fn secrets_do_not_print() {
    let key = SigningKey::from_bytes(&[0xab; 32]);
    let salt = Salt::from_bytes([0xab; 32]);
    let all = format!(
        "{key:?} {salt:?} {:?} {:?}",
        samples::nonce(),
        Hasher::salted(&salt, Domain::Input)
    );
    assert!(!all.contains("abab") && !all.contains("171"), "{all}");
}

#[test]
fn keys_of_small_order_and_second_spellings_are_refused() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    // y = p + 1 is a second spelling of the neutral element, y = p of a point of order 4;
    // y = 2 is no point at all.
    let second = |low: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (low, 0x7f);
        bytes
    };
    let mut no_point = [0; 32];
    no_point[0] = 2;
    for bytes in [
        neutral,
        [0; 32],
        second(0xed),
        second(0xee),
        second(0xff),
        no_point,
    ] {
        assert!(PublicKey::from_bytes(bytes).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn signatures_are_those_of_rfc_8032() {
    // RFC 8032 §7.1, test 1: the public half of the first secret key.
    let secret = *b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
    assert_eq!(
        SigningKey::from_bytes(&secret).public_key().to_string(),
        "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
}

#[test]
fn names_have_their_alphabet() {
    let long = "a".repeat(63);
    for good in ["a", "0", "summarize", "a-b-", &long] {
        JobName::new(good).expect(good);
        ModelName::new(good).expect(good);
    }
    for good in ["smollm2-135m_q4.1", "1.5b"] {
        ModelName::new(good).expect(good);
    }
    let too_long = "a".repeat(64);
    let cases = [
        "", "-a", ".a", "_", "A", "a b", "a/b", "..", "é", "a\n", "a.b", "a_b", &too_long,
    ];
    let mut messages = String::new();
    for bad in cases {
        let job = JobName::new(bad).expect_err(bad);
        messages += &format!("{job}\n");
    }
    expect![[r#"
        a name has at least one character
        a name starts with a letter or a digit, not with '-'
        '.' cannot stand in this name; it is made of a-z, 0-9 and -
        '_' cannot stand in this name; it is made of a-z, 0-9 and -
        'A' cannot stand in this name; it is made of a-z, 0-9 and -
        ' ' cannot stand in this name; it is made of a-z, 0-9 and -
        '/' cannot stand in this name; it is made of a-z, 0-9 and -
        '.' cannot stand in this name; it is made of a-z, 0-9 and -
        'é' cannot stand in this name; it is made of a-z, 0-9 and -
        '\n' cannot stand in this name; it is made of a-z, 0-9 and -
        '.' cannot stand in this name; it is made of a-z, 0-9 and -
        '_' cannot stand in this name; it is made of a-z, 0-9 and -
        a name has at most 63 characters, this has 64
    "#]]
    .assert_eq(&messages);
}

#[test]
fn labels_are_one_printable_line() {
    for bad in [
        "",
        " a",
        "a ",
        "a\nb",
        "a\u{7f}",
        "\u{1b}[31m",
        &"é".repeat(129),
    ] {
        assert!(Label::new(bad).is_err(), "{bad:?}");
    }
    let lossy = |text: &str| Label::lossy(text).to_string();
    assert_eq!(lossy("NVIDIA\0 H100 \n"), "NVIDIA  H100");
    assert_eq!(lossy("\n"), "unknown");
    assert_eq!(lossy(&"é".repeat(200)), "é".repeat(128));
    assert_eq!(lossy(&format!("{}é", "a".repeat(255))), "a".repeat(255));
}

#[test]
fn addresses_have_one_spelling() {
    let hex = "05".repeat(32);
    for good in [format!("0:{hex}"), format!("-1:{hex}")] {
        assert_eq!(
            ChannelAddress::from_str(&good).expect(&good).to_string(),
            good
        );
    }
    for bad in [
        hex.clone(),
        format!("+0:{hex}"),
        format!("00:{hex}"),
        format!("-0:{hex}"),
        format!("0:{hex}0"),
        format!("0:{}", hex.to_uppercase().replace('5', "A")),
        format!("9999999999:{hex}"),
    ] {
        assert!(ChannelAddress::from_str(&bad).is_err(), "{bad}");
    }
}

#[test]
fn amounts_past_all_there_is_are_refused() {
    assert_eq!(Nanograms::new(Nanograms::MAX.get()), Some(Nanograms::MAX));
    assert_eq!(Nanograms::new(Nanograms::MAX.get() + 1), None);
}

#[test]
fn codes_and_names_stay() {
    let mut lines = String::new();
    for trap in Trap::ALL {
        lines += &format!("trap {} {trap}\n", trap.code());
    }
    for limit in LimitHit::ALL {
        lines += &format!("limit {} {limit}\n", limit.code());
        // A limit's code is its key, its name the field's.
        assert_eq!(Limits::FIELDS[usize::from(limit.code())].name, limit.name());
    }
    let message = Digest::of(b"");
    for exit in [
        ExitStatus::Done,
        ExitStatus::JobError { code: 3, message },
        ExitStatus::Trapped {
            trap: Trap::StackOverflow,
        },
        ExitStatus::LimitHit {
            limit: LimitHit::Fuel,
        },
        ExitStatus::Cancelled,
        ExitStatus::DeadlineExceeded,
        ExitStatus::DeviceLost,
        ExitStatus::HostFailure,
    ] {
        lines += &format!("exit {} {exit}\n", exit.code());
    }
    expect![[r#"
        trap 0 unreachable
        trap 1 memory-out-of-bounds
        trap 2 table-out-of-bounds
        trap 3 indirect-call-to-null
        trap 4 bad-signature
        trap 5 integer-overflow
        trap 6 division-by-zero
        trap 7 bad-conversion-to-integer
        trap 8 stack-overflow
        trap 9 exited
        trap 10 host-call-misused
        trap 255 other
        limit 0 fuel_max
        limit 1 memory_bytes_max
        limit 2 table_elements_max
        limit 3 model_memory_bytes_max
        limit 4 input_bytes_max
        limit 5 output_bytes_max
        limit 6 log_bytes_max
        limit 7 inference_units_max
        limit 8 host_calls_max
        exit 0 done
        exit 1 job-error 3
        exit 2 trapped (stack-overflow)
        exit 3 limit-hit (fuel_max)
        exit 4 cancelled
        exit 5 deadline-exceeded
        exit 6 device-lost
        exit 7 host-failure
    "#]]
    .assert_eq(&lines);
}

proptest! {
    #[test]
    fn what_is_printed_parses(digest in samples::any_digest(), key in samples::any_key()) {
        prop_assert_eq!(Digest::from_str(&digest.to_string()).unwrap(), digest);
        let public = key.public_key();
        prop_assert_eq!(PublicKey::from_str(&public.to_string()).unwrap(), public);
        prop_assert_eq!(SigningKey::from_bytes(&key.to_bytes()).public_key(), public);
    }

    #[test]
    fn pieces_leave_no_trace(bytes in any::<Vec<u8>>(), cut in any::<usize>(), salt in any::<[u8; 32]>()) {
        let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
        let salt = Salt::from_bytes(salt);
        let whole = |mut hasher: Hasher| hasher.update(first).update(second).finish();
        prop_assert_eq!(whole(Hasher::new()), Digest::of(&bytes));
        prop_assert_eq!(whole(Hasher::derive(Domain::Input)), Digest::derive(Domain::Input, &bytes));
        let salted = Digest::salted(&salt, Domain::Input, &bytes);
        prop_assert_eq!(whole(Hasher::salted(&salt, Domain::Input)), salted);
        prop_assert_ne!(salted, Digest::salted(&salt, Domain::Output, &bytes));
        prop_assert_ne!(salted, Digest::derive(Domain::Input, &bytes));
    }

    #[test]
    fn any_text_makes_a_label(text in any::<String>()) {
        let label = Label::lossy(&text);
        prop_assert_eq!(Label::new(label.as_str()), Ok(label.clone()));
    }
}
