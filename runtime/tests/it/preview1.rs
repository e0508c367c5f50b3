//! Core modules of `abi = "preview1"`: the same ends, limits and receipts as components.

use std::sync::Arc;

use expect_test::{Expect, expect};
use tussah_manifest::{Abi, Limits};
use tussah_runtime::{NoEvents, Run, Runtime, RuntimeConfig, run_job};

use crate::fixture::{self, LIMITS, RandomModels};

/// A command whose `$main` is this.
fn command(main: &str) -> Vec<u8> {
    let main = format!("(func $main (result i32) {main})");
    let text = include_str!("command.wat").replace(";; GUEST", &main);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn check_module(module: Vec<u8>, limits: Limits, input: &[u8], expected: Expect) {
    let job = fixture::submit_as(Abi::Preview1, module, limits, input);
    expected.assert_eq(&fixture::ended(fixture::run(&fixture::runtime(), job)));
}

#[track_caller]
fn check(main: &str, input: &[u8], expected: Expect) {
    check_module(command(main), LIMITS, input, expected);
}

#[test]
fn input_comes_in_and_output_goes_out() {
    let echo = "(drop (call $read (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 40)))
         (call $print (i32.const 1024) (i32.load (i32.const 40)))
         (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 40))
         (i32.load (i32.const 40)) i32.add";
    check(echo, b"hello", expect![[r#"done [exact] "hello00""#]]);
    check(echo, b"", expect![[r#"done [exact] "00""#]]);
    let log = "(call $write (i32.const 2) (i32.const 0) (i32.const 2) (i32.const 40))
         (i32.load (i32.const 40)) i32.add";
    check(log, b"", expect![[r#"done [exact] "<8""#]]);
}

#[test]
fn exit_codes_are_the_jobs_own() {
    check(
        "(call $exit (i32.const 0)) unreachable",
        b"",
        expect![[r#"done [exact] """#]],
    );
    check(
        "(call $say (i32.const 7)) (call $exit (i32.const 3)) unreachable",
        b"",
        expect![[
            r#"job-error 3 [exact] "07": the job failed: it ended itself with exit code 3 (code 3)"#
        ]],
    );
    check(
        "(call $exit (i32.const -1)) unreachable",
        b"",
        expect![[
            r#"job-error 4294967295 [exact] "": the job failed: it ended itself with exit code 4294967295 (code 4294967295)"#
        ]],
    );
    check(
        "unreachable",
        b"",
        expect![[
            r#"trapped (unreachable) [exact] "": the job trapped: wasm trap: wasm `unreachable` instruction executed"#
        ]],
    );
}

#[test]
fn limits_end_these_jobs_too() {
    check(
        "(loop (br 0)) unreachable",
        b"",
        expect![[
            r#"limit-hit (fuel_max) [exact] "": the job reached its limit of 50000000 units of fuel (limits.fuel_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
    check(
        "(drop (memory.grow (i32.const 64))) (i32.const 0)",
        b"",
        expect![[
            r#"limit-hit (memory_bytes_max) [exact] "": the job reached its limit of 4194304 bytes (limits.memory_bytes_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
    // One call, far more bytes than it may put out: its length is the guest's word alone.
    check(
        "(call $print (i32.const 0) (i32.const -1)) (i32.const 0)",
        b"",
        expect![[
            r#"limit-hit (output_bytes_max) [exact] "": the job reached its limit of 65536 bytes (limits.output_bytes_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
    let calls = Limits {
        host_calls_max: 3,
        ..LIMITS
    };
    check_module(
        command("(loop (call $print (i32.const 96) (i32.const 1)) (br 0)) unreachable"),
        calls,
        b"",
        expect![[
            r#"limit-hit (host_calls_max) [exact] "hhh": the job reached its limit of 3 calls (limits.host_calls_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
}

#[test]
fn pointers_are_checked_wherever_they_go() {
    for main in [
        // The list of buffers, a buffer in it, and the place of the answer.
        "(call $read (i32.const 0) (i32.const 65533) (i32.const 1) (i32.const 40))",
        "(call $read (i32.const 0) (i32.const -8) (i32.const 1) (i32.const 40))",
        "(call $read (i32.const 0) (i32.const -8) (i32.const 2) (i32.const 40))",
        "(i32.store (i32.const 0) (i32.const 65500)) (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 40))",
        "(i32.store (i32.const 4) (i32.const -1)) (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 40))",
        "(call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 65533))",
        "(i32.store (i32.const 0) (i32.const 65500)) (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 40))",
        "(i32.store (i32.const 0) (i32.const -1)) (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 40))",
        "(call $fdstat (i32.const 0) (i32.const 65520))",
        "(call $time (i32.const 0) (i64.const 0) (i32.const 65529))",
        "(call $random (i32.const 65530) (i32.const 7))",
        "(call $environ (i32.const 0) (i32.const -1))",
        "(call $poll (i32.const 65500) (i32.const 2048) (i32.const 1) (i32.const 40))",
        "(call $poll (i32.const 1024) (i32.const 65530) (i32.const 1) (i32.const 40))",
        "(call $poll (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 65534))",
        "(call $nn-load (i32.const 65530) (i32.const 7) (i32.const 40))",
    ] {
        let job = fixture::submit_as(Abi::Preview1, command(main), LIMITS, b"input");
        let ended = fixture::ended(fixture::run(&fixture::runtime(), job));
        assert!(
            ended.starts_with("trapped (host-call-misused) [exact]"),
            "{main}: {ended}"
        );
        assert!(
            ended.ends_with("out of bounds of memory"),
            "{main}: {ended}"
        );
    }
}

#[test]
fn what_is_not_there_is_an_error_number() {
    for (main, expected) in [
        (
            "(call $read (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 40))",
            "08",
        ),
        (
            "(call $write (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 40))",
            "08",
        ),
        (
            "(call $write (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 40))",
            "08",
        ),
        (
            "(call $read (i32.const 0) (i32.const 0) (i32.const 1025) (i32.const 40))",
            "28",
        ),
        (
            "(call $write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 40))",
            "28",
        ),
        ("(call $prestat (i32.const 3) (i32.const 0))", "08"),
        (
            "(call $seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))",
            "70",
        ),
        (
            "(call $seek (i32.const 9) (i64.const 0) (i32.const 0) (i32.const 0))",
            "08",
        ),
        (
            "(call $open (i32.const 3) (i32.const 0) (i32.const -1) (i32.const -1) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const -1))",
            "08",
        ),
        (
            "(call $time (i32.const 2) (i64.const 0) (i32.const 40))",
            "28",
        ),
        ("(call $random (i32.const 0) (i32.const 1048577))", "28"),
        (
            "(call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 40))",
            "28",
        ),
        (
            "(call $poll (i32.const 0) (i32.const 0) (i32.const 1025) (i32.const 40))",
            "28",
        ),
        // No model has this name, no handle was given, and nothing is loaded from bytes.
        (
            "(call $nn-load (i32.const 96) (i32.const 5) (i32.const 40))",
            "08",
        ),
        (
            "(call $nn-load (i32.const 96) (i32.const 257) (i32.const 40))",
            "01",
        ),
        ("(call $nn-context (i32.const 0) (i32.const 40))", "01"),
        (
            "(call $nn-input (i32.const -1) (i32.const 0) (i32.const 128))",
            "01",
        ),
        ("(call $nn-compute (i32.const 7))", "01"),
        (
            "(call $nn-output (i32.const 0) (i32.const 0) (i32.const -1) (i32.const -1) (i32.const -1))",
            "01",
        ),
        (
            "(call $nn-load-bytes (i32.const -1) (i32.const -1) (i32.const 0) (i32.const 0) (i32.const -1))",
            "06",
        ),
    ] {
        let job = fixture::submit_as(Abi::Preview1, command(main), LIMITS, b"");
        let ended = fixture::ended(fixture::run(&fixture::runtime(), job));
        assert_eq!(ended, format!("done [exact] {expected:?}"), "{main}");
    }
}

#[test]
fn modules_that_are_no_commands_are_refused() {
    for (text, expected) in [
        ("(module)", "it has no export `_start`"),
        (
            r#"(module (func (export "_start")))"#,
            "it does not export its memory as `memory`",
        ),
        (
            r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#,
            "its export `_start` is no function without parameters and results",
        ),
        (
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (result i32)))
                 (memory (export "memory") 1) (func (export "_start")))"#,
            "incompatible import type for `wasi_snapshot_preview1::proc_exit`",
        ),
    ] {
        let module = wat::parse_str(text).expect("wasm");
        let job = fixture::submit_as(Abi::Preview1, module, LIMITS, b"");
        let ended = fixture::ended(fixture::run(&fixture::runtime(), job));
        assert!(
            ended.starts_with("Developer: the module is no job of abi preview1"),
            "{ended}"
        );
        assert!(ended.contains(expected), "{ended}");
    }
}

#[test]
fn a_module_is_run_by_the_abi_of_its_manifest_alone() {
    let runtime = fixture::runtime();
    let module = command("(i32.const 0)");
    let good = fixture::submit_as(Abi::Preview1, module.clone(), LIMITS, b"");
    assert_eq!(
        fixture::ended(fixture::run(&runtime, good)),
        r#"done [exact] "00""#
    );
    // Its code is at hand now, and the check of its bytes must not be skipped for that.
    let other = fixture::submit_as(Abi::Component, module, LIMITS, b"");
    let ended = fixture::ended(fixture::run(&runtime, other));
    assert!(
        ended.starts_with("Developer: this is a core WebAssembly module"),
        "{ended}"
    );
}

/// Two readings of each clock around a wait of 5 ms, then random bytes.
const CURIOUS: &str = r#"
    (drop (call $time (i32.const 1) (i64.const 0) (i32.const 1024)))
    (drop (call $time (i32.const 0) (i64.const 0) (i32.const 1032)))
    (i64.store (i32.const 2048) (i64.const 77))
    (i32.store (i32.const 2064) (i32.const 1))
    (i64.store (i32.const 2072) (i64.const 5000000))
    (drop (call $poll (i32.const 2048) (i32.const 1040) (i32.const 1) (i32.const 1072)))
    (drop (call $time (i32.const 1) (i64.const 0) (i32.const 1080)))
    (drop (call $random (i32.const 1088) (i32.const 16)))
    (call $print (i32.const 1024) (i32.const 80))
    (i32.const 0)"#;

#[test]
fn time_is_virtual_and_chance_is_the_requests() {
    let run = |input: &[u8]| {
        let job = fixture::submit_as(Abi::Preview1, command(CURIOUS), LIMITS, input);
        fixture::run(&fixture::runtime(), job).expect("it runs")
    };
    let (first, second, other) = (run(b"a"), run(b"a"), run(b"b"));
    let output = &first.outcome.output;
    let word = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!((word(0), word(16), word(56)), (1000, 77, 5_003_000));
    assert_eq!(
        u32::from_le_bytes(output[48..52].try_into().expect("4 bytes")),
        1
    );
    assert!((1_577_836_800..1_893_456_000).contains(&(word(8) / 1_000_000_000)));
    assert_eq!(output, &second.outcome.output);
    assert_eq!(
        first.receipt.consensus.digest(),
        second.receipt.consensus.digest()
    );
    assert_ne!(output[64..80], other.outcome.output[64..80]);
}

#[test]
fn code_of_modules_is_cached_too() {
    let folder = tempfile::tempdir().expect("a folder");
    for expected in ["compiled, cached: false", "compiled, cached: true"] {
        let runtime = Runtime::new(RuntimeConfig {
            cache_dir: Some(folder.path().to_owned()),
            ..fixture::config()
        });
        let runtime = runtime.expect("the engine starts");
        let heard = Arc::new(fixture::Heard::default());
        let job = fixture::submit_as(Abi::Preview1, command("(i32.const 0)"), LIMITS, b"");
        let run = fixture::run_with(Arc::clone(&heard) as _);
        let result = fixture::block_on(run_job(&runtime, job, run, &fixture::key(2)));
        assert_eq!(fixture::ended(result), r#"done [exact] "00""#);
        assert_eq!(heard.0.lock().expect("the run is over")[0], expected);
    }
}

/// Runs a command with the random model under the name `tiny`.
fn with_model(main: &str, limits: Limits) -> (String, String) {
    let models = Arc::new(RandomModels::new());
    let mut job = fixture::submit_as(Abi::Preview1, command(main), limits, b"");
    models.name_in(&mut job, "tiny");
    let run = Run {
        models,
        ..fixture::run_with(Arc::new(NoEvents))
    };
    let result = fixture::block_on(run_job(&fixture::runtime(), job, run, &fixture::key(2)));
    let log = result.as_ref().map_or_else(
        |_| String::new(),
        |run| String::from_utf8_lossy(&run.outcome.log).into_owned(),
    );
    (fixture::ended(result), log)
}

/// Loads the model and opens a context, both of handle 0.
const OPEN: &str = "(drop (call $nn-load (i32.const 102) (i32.const 4) (i32.const 40)))
     (drop (call $nn-context (i32.load (i32.const 40)) (i32.const 44)))";
/// Sets `text` to "hello" and `max_tokens` to 3.
const ASK: &str = "(drop (call $nn-input (i32.const 0) (i32.const 0) (i32.const 128)))
     (drop (call $nn-input (i32.const 0) (i32.const 3) (i32.const 160)))";

#[test]
fn a_model_is_run_by_index() {
    // The tokens, twice: inputs stay, and every compute starts from nothing.
    let read = "(drop (call $nn-compute (i32.const 0)))
         (drop (call $nn-output (i32.const 0) (i32.const 1) (i32.const 1024) (i32.const 12) (i32.const 40)))
         (call $print (i32.const 1024) (i32.load (i32.const 40)))";
    let main = format!("{OPEN} {ASK} {read} {read} (i32.const 0)");
    let models = Arc::new(RandomModels::new());
    let mut job = fixture::submit_as(Abi::Preview1, command(&main), LIMITS, b"");
    models.name_in(&mut job, "tiny");
    let run = Run {
        models,
        ..fixture::run_with(Arc::new(NoEvents))
    };
    let result = fixture::block_on(run_job(&fixture::runtime(), job, run, &fixture::key(2)));
    let output = result.expect("it runs").outcome.output;
    assert_eq!(output.len(), 26, "{output:?}");
    assert_eq!(output[..12], output[12..24]);
}

#[test]
fn tensors_are_checked_where_they_come_in() {
    let set = |change: &str, index: u32| {
        format!(
            "{OPEN} {change} (call $nn-input (i32.const 0) (i32.const {index}) (i32.const 128))"
        )
    };
    for (main, expected, said) in [
        (set("", 0), r#"done [exact] "00""#, ""),
        (
            set("", 12),
            r#"done [exact] "01""#,
            "this model has no input 12; it has 0 to 11",
        ),
        (
            set("(i32.store (i32.const 136) (i32.const 6))", 0),
            r#"done [exact] "01""#,
            "6 is no type of a tensor",
        ),
        (
            set("(i32.store (i32.const 132) (i32.const 17))", 0),
            r#"done [exact] "01""#,
            "a tensor has at most 16 dimensions",
        ),
        // A wrong length is found when it is used.
        (
            set("(i32.store (i32.const 112) (i32.const 6))", 0)
                + "drop (call $nn-compute (i32.const 0))",
            r#"done [exact] "01""#,
            "tensor `text` has 5 bytes of data, its dimensions [6] of U8 call for 6",
        ),
        (
            format!("{OPEN} (call $nn-compute (i32.const 0))"),
            r#"done [exact] "01""#,
            "exactly one of the inputs `text`, `tokens` and `chat` is needed",
        ),
        (
            format!(
                "{OPEN} {ASK} (call $nn-output (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 40))"
            ),
            r#"done [exact] "08""#,
            "output `text` is not there",
        ),
        (
            format!(
                "{OPEN} {ASK} (drop (call $nn-compute (i32.const 0))) (call $nn-output (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 3) (i32.const 40))"
            ),
            r#"done [exact] "07""#,
            "output `tokens` has ",
        ),
    ] {
        let (ended, log) = with_model(&main, LIMITS);
        assert_eq!(ended, expected, "{main}: {log}");
        assert!(log.contains(said), "{main}: {log}");
    }
    // Pointers of the tensor itself, of its dimensions and of its data.
    for change in [
        "(i32.store (i32.const 128) (i32.const 65534))",
        "(i32.store (i32.const 140) (i32.const 65533))",
        "(i32.store (i32.const 144) (i32.const -1))",
    ] {
        let (ended, _) = with_model(&set(change, 0), LIMITS);
        assert!(
            ended.contains("out of bounds of memory"),
            "{change}: {ended}"
        );
    }
}

#[test]
fn no_inference_is_run_that_the_limit_does_not_cover() {
    let main = format!("{OPEN} {ASK} (call $nn-compute (i32.const 0))");
    let used = |limits: Limits| {
        let models = Arc::new(RandomModels::new());
        let mut job = fixture::submit_as(Abi::Preview1, command(&main), limits, b"");
        models.name_in(&mut job, "tiny");
        let run = Run {
            models,
            ..fixture::run_with(Arc::new(NoEvents))
        };
        let run = fixture::block_on(run_job(&fixture::runtime(), job, run, &fixture::key(2)));
        let run = run.expect("it has a receipt");
        (
            run.receipt.consensus.exit.to_string(),
            run.outcome.used.inference_units,
        )
    };
    let (exit, needed) = used(LIMITS);
    assert_eq!(exit, "done");
    let with = |inference_units_max| Limits {
        inference_units_max,
        ..LIMITS
    };
    assert_eq!(used(with(needed)), ("done".to_owned(), needed));
    let (exit, less) = used(with(needed - 1));
    assert_eq!(exit, "limit-hit (inference_units_max)");
    assert!(less > 0 && less < needed, "{less} of {needed}");
    assert_eq!(
        used(with(1)),
        ("limit-hit (inference_units_max)".to_owned(), 0)
    );
    assert_eq!(
        used(with(0)),
        ("limit-hit (inference_units_max)".to_owned(), 0)
    );
}

#[test]
fn tensors_count_against_the_jobs_memory() {
    let limits = Limits {
        model_memory_bytes_max: 8,
        ..LIMITS
    };
    let main = format!("{OPEN} (call $nn-input (i32.const 0) (i32.const 0) (i32.const 128))");
    // Five bytes and one dimension are nine.
    let (ended, log) = with_model(&main, limits);
    assert_eq!(ended, r#"done [exact] "07""#);
    assert!(log.contains("a tensor takes 9 bytes, 8 are left"), "{log}");
    let main = format!("{OPEN} {ASK} (call $nn-compute (i32.const 0))");
    let limits = Limits {
        model_memory_bytes_max: 64,
        ..LIMITS
    };
    let (ended, log) = with_model(&main, limits);
    assert_eq!(ended, r#"done [exact] "07""#);
    assert!(log.contains("a context of"), "{log}");
}
