//! Manifests as people write them: what is taken, and what each mistake is told.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use tussah_manifest::{
    Abi, DeterminismRequest, DeviceRequest, Document as _, JobDescription, Limits,
    MANIFEST_TEXT_BYTES_MAX, Manifest, ManifestError,
};

use crate::samples;

const DIGEST: &str = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

/// What each of `texts` is told; DIGEST in them stands for a good one.
#[track_caller]
fn check(error: fn(&str) -> ManifestError, texts: &[&str], expected: Expect) {
    let mut told = String::new();
    for text in texts {
        let error = error(&text.replace("DIGEST", &format!("'{DIGEST}'")));
        let start: String = text.chars().take(60).collect();
        told += &format!("{}\n    {error}\n", start.replace('\n', " ⏎ "));
    }
    expected.assert_eq(&told);
}

/// A good description, then one of `texts`.
#[track_caller]
fn check_job(texts: &[&str], expected: Expect) {
    check(
        |text| JobDescription::parse(&with_head(text)).expect_err("a mistake"),
        texts,
        expected,
    );
}

fn with_head(text: &str) -> String {
    format!("version = 1\nname = \"job\"\n{text}")
}

#[test]
fn a_name_and_a_version_are_enough() {
    let job = JobDescription::parse("version = 1\nname = \"job\"").expect("a job");
    assert_eq!(job.limits, Limits::DEFAULT);
    assert_eq!(job.device, DeviceRequest::Any);
    assert_eq!(job.determinism, DeterminismRequest::Exact);
    assert_eq!(job.abi, Abi::Component);
    assert_eq!(job.price_nanograms_max.get(), 0);
    assert!(job.models.is_empty());
}

#[test]
fn everything_can_be_said() {
    let text = format!(
        r#"
        # A comment.
        name = 'job' # another
        version = 1
        price_nanograms_max = 1_000
        device = "gpu"
        determinism = "tolerant"
        abi = "preview1"
        models.smollm2 = {{ format = "gguf", digest = "{DIGEST}" }}
        [models."q4.1_b"]
        digest = "{DIGEST}"
        format = "safetensors"
        [models.other]
        digest = "{DIGEST}"
        format = "onnx"
        [limits]
        fuel_max = 0x10
        memory_bytes_max = "64 MiB"
        model_memory_bytes_max = "2GiB"
        input_bytes_max = "1000 B"
        output_bytes_max = 1_000
        "#
    );
    let job = JobDescription::parse(&text).expect("a job");
    assert_eq!(job.price_nanograms_max.get(), 1000);
    assert_eq!(
        (job.device, job.determinism, job.abi),
        (
            DeviceRequest::Gpu,
            DeterminismRequest::Tolerant,
            Abi::Preview1
        )
    );
    assert_eq!(
        job.models
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["other", "q4.1_b", "smollm2"]
    );
    assert_eq!(
        job.limits,
        Limits {
            fuel_max: 16,
            memory_bytes_max: 64 << 20,
            model_memory_bytes_max: 2 << 30,
            input_bytes_max: 1000,
            output_bytes_max: 1000,
            ..Limits::DEFAULT
        }
    );
}

#[test]
fn wording_does_not_change_the_digest() {
    let a = format!(
        "version=1\nname=\"a\"\n[module]\ndigest=\"{DIGEST}\"\nsize_bytes=8\n[limits]\nmemory_bytes_max=\"128 MiB\""
    );
    let b = format!("# hi\nname='a'\nmodule={{size_bytes=8,digest=\"{DIGEST}\"}}\r\nversion = 1");
    let (a, b) = (
        Manifest::parse(&a).expect("good"),
        Manifest::parse(&b).expect("good"),
    );
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.to_toml(), b.to_toml());
}

#[test]
fn the_written_form_is_for_people() {
    expect![[r#"
        version = 1
        name = "summarize"
        price_nanograms_max = 0
        device = "any"
        determinism = "exact"
        abi = "component"

        [module]
        digest = "blake3:48d3a2e8a9b0cde6293ba7f68824a97d069d096f44335a9e86aee55238dcdcb8"
        size_bytes = 8

        [models.smollm2]
        digest = "blake3:3b36880f1d70700dce011e51ebde97bcc78348d29f539d0cf265a10087260624"
        format = "gguf"

        [limits]
        fuel_max = 10_000_000_000
        memory_bytes_max = "128 MiB"
        table_elements_max = 20_000
        model_memory_bytes_max = "1 GiB"
        input_bytes_max = "1 MiB"
        output_bytes_max = "1 MiB"
        log_bytes_max = "64 KiB"
        inference_units_max = 20_000_000_000_000
        host_calls_max = 100_000
        wall_ms_max = 600_000
    "#]]
    .assert_eq(&samples::manifest().to_toml());
}

#[test]
fn unknown_fields_are_named_with_what_was_meant() {
    check_job(
        &[
            "prize_nanograms_max = 1",
            "[limits]\nfuel = 1",
            "[limits]\nmemory_mb_max = 64",
            "[limits]\n\n  wall-ms-max = 64",
            "[limits]\nwall_seconds_max = 64",
            "zebra = 1\nxylophone = 2",
            "limits.é = 1",
            "[models.m]\ndigest = DIGEST\nformat = 'gguf'\nsha256 = ''",
            "[limits.extra]\nx = 1",
        ],
        expect![[r#"
            prize_nanograms_max = 1
                line 3, column 1: unknown field `prize_nanograms_max` (did you mean `price_nanograms_max`?); known here: version, name, price_nanograms_max, device, determinism, abi, module, build, models, limits
            [limits] ⏎ fuel = 1
                line 4, column 1: unknown field `limits.fuel` (did you mean `fuel_max`?); known here: fuel_max, memory_bytes_max, table_elements_max, model_memory_bytes_max, input_bytes_max, output_bytes_max, log_bytes_max, inference_units_max, host_calls_max, wall_ms_max
            [limits] ⏎ memory_mb_max = 64
                line 4, column 1: unknown field `limits.memory_mb_max` (did you mean `memory_bytes_max`?); known here: fuel_max, memory_bytes_max, table_elements_max, model_memory_bytes_max, input_bytes_max, output_bytes_max, log_bytes_max, inference_units_max, host_calls_max, wall_ms_max
            [limits] ⏎  ⏎   wall-ms-max = 64
                line 5, column 3: unknown field `limits.wall-ms-max` (did you mean `wall_ms_max`?); known here: fuel_max, memory_bytes_max, table_elements_max, model_memory_bytes_max, input_bytes_max, output_bytes_max, log_bytes_max, inference_units_max, host_calls_max, wall_ms_max
            [limits] ⏎ wall_seconds_max = 64
                line 4, column 1: unknown field `limits.wall_seconds_max` (did you mean `wall_ms_max`?); known here: fuel_max, memory_bytes_max, table_elements_max, model_memory_bytes_max, input_bytes_max, output_bytes_max, log_bytes_max, inference_units_max, host_calls_max, wall_ms_max
            zebra = 1 ⏎ xylophone = 2
                line 3, column 1: unknown field `zebra`; known here: version, name, price_nanograms_max, device, determinism, abi, module, build, models, limits
            limits.é = 1
                line 3, column 8: invalid unquoted key, expected letters, numbers, `-`, `_`
            [models.m] ⏎ digest = DIGEST ⏎ format = 'gguf' ⏎ sha256 = ''
                line 6, column 1: unknown field `models.m.sha256`; known here: digest, format
            [limits.extra] ⏎ x = 1
                line 3, column 9: unknown field `limits.extra`; known here: fuel_max, memory_bytes_max, table_elements_max, model_memory_bytes_max, input_bytes_max, output_bytes_max, log_bytes_max, inference_units_max, host_calls_max, wall_ms_max
        "#]],
    );
}

#[test]
fn sizes_say_their_units() {
    check_job(
        &[
            "[limits]\nmemory_bytes_max = '64 MB'",
            "[limits]\nmemory_bytes_max = '64'",
            "[limits]\nmemory_bytes_max = '64 mib'",
            "[limits]\nmemory_bytes_max = '64  MiB'",
            "[limits]\nmemory_bytes_max = '1.5 GiB'",
            "[limits]\nmemory_bytes_max = '-1 MiB'",
            "[limits]\nmemory_bytes_max = 'MiB'",
            "[limits]\nmemory_bytes_max = '99999999999999999999 MiB'",
            "[limits]\nmemory_bytes_max = 64.0",
            "[limits]\nwall_ms_max = '10 s'",
            "[limits]\nfuel_max = '1 KiB'",
        ],
        expect![[r#"
            [limits] ⏎ memory_bytes_max = '64 MB'
                line 4, column 20: `limits.memory_bytes_max` = "64 MB" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"; decimal units are not taken, since half of their readers take them for binary ones
            [limits] ⏎ memory_bytes_max = '64'
                line 4, column 20: `limits.memory_bytes_max` = "64" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = '64 mib'
                line 4, column 20: `limits.memory_bytes_max` = "64 mib" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = '64  MiB'
                line 4, column 20: `limits.memory_bytes_max` = "64  MiB" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = '1.5 GiB'
                line 4, column 20: `limits.memory_bytes_max` = "1.5 GiB" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = '-1 MiB'
                line 4, column 20: `limits.memory_bytes_max` = "-1 MiB" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = 'MiB'
                line 4, column 20: `limits.memory_bytes_max` = "MiB" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = '99999999999999999999 MiB'
                line 4, column 20: `limits.memory_bytes_max` = "99999999999999999999 MiB" is no size; write a number of bytes, or a whole number and one of B, KiB, MiB, GiB, TiB, such as "64 MiB"
            [limits] ⏎ memory_bytes_max = 64.0
                line 4, column 20: `limits.memory_bytes_max` is a number with a fraction, where a number of bytes or a size such as "64 MiB" belongs
            [limits] ⏎ wall_ms_max = '10 s'
                line 4, column 15: `limits.wall_ms_max` is a text, where a whole number of milliseconds belongs
            [limits] ⏎ fuel_max = '1 KiB'
                line 4, column 12: `limits.fuel_max` is a text, where a whole number belongs
        "#]],
    );
}

#[test]
fn numbers_stay_within_bounds() {
    check_job(
        &[
            "[limits]\nfuel_max = 0",
            "[limits]\nfuel_max = -1",
            "[limits]\nmemory_bytes_max = 0",
            "[limits]\nmemory_bytes_max = '5 GiB'",
            "[limits]\nmemory_bytes_max = '18446744073709551615 TiB'",
            "[limits]\ninference_units_max = 0xffff_ffff_ffff_ffff_ffff",
            "[limits]\nwall_ms_max = 604_800_001",
            "price_nanograms_max = 5_000_000_000_000_000_001",
        ],
        expect![[r#"
            [limits] ⏎ fuel_max = 0
                line 4, column 12: `limits.fuel_max` is 0; it can be 1 to 1_000_000_000_000_000 units of fuel
            [limits] ⏎ fuel_max = -1
                line 4, column 12: `limits.fuel_max` is -1; it can be 1 to 1_000_000_000_000_000 units of fuel
            [limits] ⏎ memory_bytes_max = 0
                line 4, column 20: `limits.memory_bytes_max` is 0; it can be 64 KiB to 4 GiB
            [limits] ⏎ memory_bytes_max = '5 GiB'
                line 4, column 20: `limits.memory_bytes_max` is 5 GiB; it can be 64 KiB to 4 GiB
            [limits] ⏎ memory_bytes_max = '18446744073709551615 TiB'
                line 4, column 20: `limits.memory_bytes_max` is 18446744073709551615 TiB; it can be 64 KiB to 4 GiB
            [limits] ⏎ inference_units_max = 0xffff_ffff_ffff_ffff_ffff
                line 4, column 23: `limits.inference_units_max` is 0xffffffffffffffffffff; it can be 0 to 1_000_000_000_000_000_000 inference units
            [limits] ⏎ wall_ms_max = 604_800_001
                line 4, column 15: `limits.wall_ms_max` is 604800001; it can be 1 to 604_800_000 milliseconds
            price_nanograms_max = 5_000_000_000_000_000_001
                line 3, column 23: `price_nanograms_max` is 5000000000000000001; it can be 0 to 5_000_000_000_000_000_000 nanograms
        "#]],
    );
}

#[test]
fn every_limit_takes_its_bounds_and_nothing_beside_them() {
    for field in &Limits::FIELDS {
        let parse = |value: u64| {
            let name = field.name;
            let text = format!("version = 1\nname = 'j'\n[limits]\n{name} = {value}");
            JobDescription::parse(&text).map(|job| (field.get)(&job.limits))
        };
        let outside = |value| matches!(parse(value), Err(ManifestError::OutOfRange { .. }));
        assert_eq!(parse(field.min), Ok(field.min), "{}", field.name);
        assert_eq!(parse(field.max), Ok(field.max), "{}", field.name);
        assert!(outside(field.max + 1), "{}", field.name);
        assert!(field.min == 0 || outside(field.min - 1), "{}", field.name);
        let default = (field.get)(&Limits::DEFAULT);
        assert_eq!(parse(default), Ok(default), "{}", field.name);
    }
}

#[test]
fn models_have_a_name_a_digest_and_a_format() {
    let many: String = (0..17)
        .map(|i| format!("[models.m{i}]\ndigest = DIGEST\nformat = 'gguf'\n"))
        .collect();
    check_job(
        &[
            "[models.m]\nformat = 'gguf'",
            "[models.m]\ndigest = 'abc'\nformat = 'gguf'",
            "[models.m]\ndigest = 'blake3:ABC'\nformat = 'gguf'",
            "[models.m]\ndigest = DIGEST",
            "[models.m]\ndigest = DIGEST\nformat = 'GGUF'",
            "[models.m]\ndigest = DIGEST\nformat = 'onnx'",
            "[models.M]\ndigest = DIGEST\nformat = 'gguf'",
            "models.m = DIGEST",
            "models = []",
            &many,
        ],
        expect![[r#"
            [models.m] ⏎ format = 'gguf'
                line 3, column 9: `models.m.digest` is missing; add `digest = "blake3:<64 hex digits>"`
            [models.m] ⏎ digest = 'abc' ⏎ format = 'gguf'
                line 4, column 10: `models.m.digest` is no digest: a digest starts with `blake3:`, followed by 64 lowercase hex digits
            [models.m] ⏎ digest = 'blake3:ABC' ⏎ format = 'gguf'
                line 4, column 10: `models.m.digest` is no digest: `A` is no lowercase hex digit (after 0 of them)
            [models.m] ⏎ digest = DIGEST
                line 3, column 9: `models.m.format` is missing; add `format = "gguf"`
            [models.m] ⏎ digest = DIGEST ⏎ format = 'GGUF'
                line 5, column 10: `models.m.format` = "GGUF" is unknown (did you mean `gguf`?); it can be "gguf" or "safetensors" or "onnx"
            [models.m] ⏎ digest = DIGEST ⏎ format = 'onnx'
                line 3, column 9: `models.m.format` is of the format onnx, whose results differ between machines, and the job asks for exact receipts; write `determinism = "tolerant"`
            [models.M] ⏎ digest = DIGEST ⏎ format = 'gguf'
                line 3, column 9: `models.M` is no good name: 'M' cannot stand in this name; it is made of a-z, 0-9, -, . and _
            models.m = DIGEST
                line 3, column 8: `models.m` is a text, where a table with digest and format belongs
            models = []
                line 3, column 10: `models` is a list, where a table [models.<name>] for each belongs
            [models.m0] ⏎ digest = DIGEST ⏎ format = 'gguf' ⏎ [models.m1] ⏎ dige
                line 3, column 2: 17 models, of at most 16
        "#]],
    );
}

#[test]
fn the_head_has_to_be_right() {
    check(
        |text| JobDescription::parse(text).expect_err("a mistake"),
        &[
            "",
            "version = 1",
            "version = 2\nname = 'j'",
            "version = '1'\nname = 'j'",
            "version = 1\nname = 'My Job'",
            "version = 1\nname = ''",
            "version = 1\nname = 5",
        ],
        expect![[r#"

                line 1, column 1: `version` is missing; add `version = 1`
            version = 1
                line 1, column 1: `name` is missing; add `name = "my-job"`
            version = 2 ⏎ name = 'j'
                line 1, column 11: manifest version 2 is not known to this build, which reads version 1
            version = '1' ⏎ name = 'j'
                line 1, column 11: `version` is a text, where the number 1 belongs
            version = 1 ⏎ name = 'My Job'
                line 2, column 8: `name` is no good name: 'M' cannot stand in this name; it is made of a-z, 0-9 and -
            version = 1 ⏎ name = ''
                line 2, column 8: `name` is no good name: a name has at least one character
            version = 1 ⏎ name = 5
                line 2, column 8: `name` is a whole number, where a text in quotes belongs
        "#]],
    );
    check_job(
        &[
            "device = 'GPU'",
            "device = 'cuda'",
            "determinism = 'exakt'",
            "limits = 5",
            "[module]\ndigest = DIGEST\nsize_bytes = 8",
        ],
        expect![[r#"
            device = 'GPU'
                line 3, column 10: `device` = "GPU" is unknown (did you mean `gpu`?); it can be "cpu" or "gpu" or "any"
            device = 'cuda'
                line 3, column 10: `device` = "cuda" is unknown; it can be "cpu" or "gpu" or "any"
            determinism = 'exakt'
                line 3, column 15: `determinism` = "exakt" is unknown (did you mean `exact`?); it can be "exact" or "tolerant" or "any"
            limits = 5
                line 3, column 10: `limits` is a whole number, where a table belongs
            [module] ⏎ digest = DIGEST ⏎ size_bytes = 8
                line 3, column 2: `module` does not belong into tussah.toml; `tussah build` writes it into the manifest it makes
        "#]],
    );
}

#[test]
fn what_is_no_toml_says_where() {
    check_job(
        &[
            "device = gpu",
            "device = 'gpu",
            "[limits\nfuel_max = 1",
            "name = 'again'",
            "[limits]\n[limits]",
            &format!("deep = {}", "[".repeat(10_000)),
            "{'version': 1}",
        ],
        expect![[r#"
            device = gpu
                line 3, column 10: string values must be quoted, expected literal string
            device = 'gpu
                line 3, column 14: invalid literal string, expected `'`
            [limits ⏎ fuel_max = 1
                line 3, column 8: unclosed table, expected `]`
            name = 'again'
                line 3, column 1: duplicate key
            [limits] ⏎ [limits]
                line 4, column 2: duplicate key
            deep = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
                line 3, column 88: cannot recurse further; max recursion depth met
            {'version': 1}
                line 3, column 1: invalid key-value pair, expected key
        "#]],
    );
}

#[test]
fn a_manifest_has_a_module() {
    check(
        |text| Manifest::parse(&with_head(text)).expect_err("a mistake"),
        &[
            "",
            "module = 1",
            "[module]\nsize_bytes = 8",
            "[module]\ndigest = DIGEST",
            "[module]\ndigest = DIGEST\nsize_bytes = 0",
            "[module]\ndigest = DIGEST\nsize_bytes = '257 MiB'",
            "[module]\ndigest = DIGEST\nsize = 8",
            "limits = { fuel_max = 1, fuel_min = 1 }",
        ],
        expect![[r#"

                `module` is missing: this is the description of a job that is not built yet; run `tussah build`, which writes its manifest
            module = 1
                line 3, column 10: `module` is a whole number, where a table belongs
            [module] ⏎ size_bytes = 8
                line 3, column 2: `module.digest` is missing; add `digest = "blake3:<64 hex digits>"`
            [module] ⏎ digest = DIGEST
                line 3, column 2: `module.size_bytes` is missing; add `size_bytes = <the module's length>`
            [module] ⏎ digest = DIGEST ⏎ size_bytes = 0
                line 5, column 14: `module.size_bytes` is 0; it can be 8 bytes to 256 MiB
            [module] ⏎ digest = DIGEST ⏎ size_bytes = '257 MiB'
                line 5, column 14: `module.size_bytes` is 257 MiB; it can be 8 bytes to 256 MiB
            [module] ⏎ digest = DIGEST ⏎ size = 8
                line 5, column 1: unknown field `module.size` (did you mean `size_bytes`?); known here: digest, size_bytes
            limits = { fuel_max = 1, fuel_min = 1 }
                line 3, column 26: unknown field `limits.fuel_min` (did you mean `fuel_max`?); known here: fuel_max, memory_bytes_max, table_elements_max, model_memory_bytes_max, input_bytes_max, output_bytes_max, log_bytes_max, inference_units_max, host_calls_max, wall_ms_max
        "#]],
    );
}

#[test]
fn bytes_that_are_no_text_are_told_so() {
    let error = Manifest::parse_bytes(b"version = 1\nname = \"\xff\"").expect_err("not UTF-8");
    assert_eq!(
        error.to_string(),
        "line 2: byte 0xff is not UTF-8; save the file as UTF-8 text"
    );
    let long = vec![b'#'; MANIFEST_TEXT_BYTES_MAX + 1];
    assert_eq!(
        JobDescription::parse_bytes(&long)
            .expect_err("too long")
            .to_string(),
        "the manifest has 65537 bytes, of at most 65536; this is another kind of file"
    );
    // The whole allowance, mostly one comment.
    let mut text = "version = 1\nname = \"j\"\n".to_owned();
    text += &"#".repeat(MANIFEST_TEXT_BYTES_MAX - text.len());
    JobDescription::parse_bytes(text.as_bytes()).expect("just fits");
}

proptest! {
    #[test]
    fn written_manifests_read_back(manifest in samples::any_manifest()) {
        let text = manifest.to_toml();
        prop_assert_eq!(Manifest::parse(&text), Ok(manifest.clone()), "{}", text);
        prop_assert_eq!(JobDescription::parse(&manifest.job.to_toml()), Ok(manifest.job.clone()));
        prop_assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
    }

    #[test]
    fn no_text_panics(text in "[a-z=\"\\[\\]{}.0-9 \n#é'_-]{0,80}") {
        let _ = Manifest::parse(&text);
        let _ = JobDescription::parse(&format!("version = 1\nname = \"j\"\n{text}"));
    }

    #[test]
    fn no_damage_to_a_manifest_panics(place in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = samples::manifest().to_toml().into_bytes();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(manifest) = Manifest::parse_bytes(&bytes) {
            prop_assert_eq!(Manifest::parse(&manifest.to_toml()), Ok(manifest));
        }
    }
}
