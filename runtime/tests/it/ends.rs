//! How jobs end: done, by their own error, by a trap, at a limit, by the clock, from outside.

use std::sync::Arc;

use expect_test::{Expect, expect};
use tussah_manifest::Limits;
use tussah_runtime::run_job;

use crate::fixture::{self, LIMITS};

#[track_caller]
fn check(module: &str, limits: Limits, input: &[u8], expected: Expect) {
    let job = fixture::submit(fixture::component(module), limits, input);
    expected.assert_eq(&fixture::ended(fixture::run(&fixture::runtime(), job)));
}

const ECHO: &str = r#"(func $run (param i32 i32) (result i32)
    (call $emit (local.get 0) (local.get 1) (i32.const 32)) (i32.const 0))"#;

#[test]
fn output_is_what_was_emitted() {
    check(ECHO, LIMITS, b"hello", expect![[r#"done [exact] "hello""#]]);
    check(ECHO, LIMITS, b"", expect![[r#"done [exact] """#]]);
}

#[test]
fn a_jobs_own_error_is_told_and_has_a_receipt() {
    check(
        "(func $run (param i32 i32) (result i32) (i32.const 64))",
        LIMITS,
        b"",
        expect![[r#"job-error 7 [exact] "": the job failed: no such kettle (code 7)"#]],
    );
}

#[test]
fn traps_are_named() {
    let body = |body: &str| format!("(func $run (param i32 i32) (result i32) {body})");
    check(
        &body("unreachable"),
        LIMITS,
        b"",
        expect![[
            r#"trapped (unreachable) [exact] "": the job trapped: wasm trap: wasm `unreachable` instruction executed"#
        ]],
    );
    check(
        &body("(i32.load (i32.const -4))"),
        LIMITS,
        b"",
        expect![[
            r#"trapped (memory-out-of-bounds) [exact] "": the job trapped: wasm trap: out of bounds memory access"#
        ]],
    );
    check(
        &body("(i32.div_s (i32.const 1) (i32.const 0))"),
        LIMITS,
        b"",
        expect![[
            r#"trapped (division-by-zero) [exact] "": the job trapped: wasm trap: integer divide by zero"#
        ]],
    );
    check(
        "(func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
         (func $run (param i32 i32) (result i32) (call $deep (i32.const 0)))",
        LIMITS,
        b"",
        expect![[
            r#"trapped (stack-overflow) [not-rerunnable] "": the job trapped: wasm trap: call stack exhausted"#
        ]],
    );
}

#[test]
fn what_was_emitted_before_a_trap_is_in_the_receipt() {
    check(
        "(func $run (param i32 i32) (result i32)
           (call $emit (i32.const 96) (i32.const 7) (i32.const 32)) unreachable)",
        LIMITS,
        b"",
        expect![[
            r#"trapped (unreachable) [exact] "no such": the job trapped: wasm trap: wasm `unreachable` instruction executed"#
        ]],
    );
}

#[test]
fn endless_loop_stops_at_the_fuel_limit() {
    let limits = Limits {
        fuel_max: 10_000,
        ..LIMITS
    };
    check(
        "(func $run (param i32 i32) (result i32) (loop (br 0)) unreachable)",
        limits,
        b"",
        expect![[
            r#"limit-hit (fuel_max) [exact] "": the job reached its limit of 10000 units of fuel (limits.fuel_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
}

#[test]
fn memory_stops_at_its_limit_to_the_page() {
    // One page is there from the start; the limit is four.
    let grow = |pages: u32| {
        format!(
            "(func $run (param i32 i32) (result i32) (drop (memory.grow (i32.const {pages}))) (i32.const 0))"
        )
    };
    let limits = Limits {
        memory_bytes_max: 4 * 65_536,
        ..LIMITS
    };
    check(&grow(3), limits, b"", expect![[r#"done [exact] """#]]);
    check(
        &grow(4),
        limits,
        b"",
        expect![[
            r#"limit-hit (memory_bytes_max) [exact] "": the job reached its limit of 262144 bytes (limits.memory_bytes_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
    check(
        &grow(65_536),
        limits,
        b"",
        expect![[
            r#"limit-hit (memory_bytes_max) [exact] "": the job reached its limit of 262144 bytes (limits.memory_bytes_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
}

#[test]
fn tables_stop_at_their_limit() {
    let grow = |elements: u32| {
        format!(
            "(table $t 10 funcref)
             (func $run (param i32 i32) (result i32)
               (drop (table.grow $t (ref.null func) (i32.const {elements}))) (i32.const 0))"
        )
    };
    let limits = Limits {
        table_elements_max: 100,
        ..LIMITS
    };
    check(&grow(90), limits, b"", expect![[r#"done [exact] """#]]);
    check(
        &grow(91),
        limits,
        b"",
        expect![[
            r#"limit-hit (table_elements_max) [exact] "": the job reached its limit of 100 elements (limits.table_elements_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
}

#[test]
fn output_stops_at_its_limit_to_the_byte() {
    let emit = |bytes: u32| {
        format!(
            "(func $run (param i32 i32) (result i32)
               (call $emit (i32.const 96) (i32.const {bytes}) (i32.const 32)) (i32.const 0))"
        )
    };
    let limits = Limits {
        output_bytes_max: 7,
        ..LIMITS
    };
    check(&emit(6), limits, b"", expect![[r#"done [exact] "no suc""#]]);
    check(
        &emit(7),
        limits,
        b"",
        expect![[r#"done [exact] "no such""#]],
    );
    check(
        &emit(8),
        limits,
        b"",
        expect![[
            r#"limit-hit (output_bytes_max) [exact] "": the job reached its limit of 7 bytes (limits.output_bytes_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
}

#[test]
fn host_calls_stop_at_their_limit() {
    let limits = Limits {
        host_calls_max: 3,
        ..LIMITS
    };
    check(
        "(func $run (param i32 i32) (result i32)
           (loop (call $emit (i32.const 96) (i32.const 1) (i32.const 32)) (br 0)) unreachable)",
        limits,
        b"",
        expect![[
            r#"limit-hit (host_calls_max) [exact] "nnn": the job reached its limit of 3 calls (limits.host_calls_max); raise it in the job's tussah.toml, or do less"#
        ]],
    );
}

#[test]
fn pointers_outside_memory_are_the_guests_fault() {
    check(
        "(func $run (param i32 i32) (result i32)
           (call $emit (i32.const -16) (i32.const 64) (i32.const 32)) (i32.const 0))",
        LIMITS,
        b"",
        expect![[
            r#"trapped (host-call-misused) [exact] "": the job misused a host call: list pointer/length out of bounds of memory"#
        ]],
    );
    check(
        "(func $run (param i32 i32) (result i32) (i32.const -8))",
        LIMITS,
        b"",
        expect![[
            r#"trapped (host-call-misused) [exact] "": the job misused a host call: pointer out of bounds of memory"#
        ]],
    );
}

#[test]
fn time_ends_a_job_that_no_other_limit_ends() {
    let limits = Limits {
        wall_ms_max: 30,
        fuel_max: Limits::FIELDS[0].max,
        ..LIMITS
    };
    check(
        "(func $run (param i32 i32) (result i32) (loop (br 0)) unreachable)",
        limits,
        b"",
        expect![[
            r#"deadline-exceeded [not-rerunnable] "": the job ran for 30 ms, all that limits.wall_ms_max allows"#
        ]],
    );
}

#[test]
fn a_cancelled_job_has_a_receipt_that_says_so() {
    let module =
        fixture::component("(func $run (param i32 i32) (result i32) (loop (br 0)) unreachable)");
    let limits = Limits {
        fuel_max: Limits::FIELDS[0].max,
        ..LIMITS
    };
    let job = fixture::submit(module, limits, b"");
    let runtime = fixture::runtime();
    let run = fixture::run_with(Arc::new(tussah_runtime::NoEvents));
    let cancel = run.cancel.clone();
    let key = fixture::key(2);
    let result = fixture::block_on(async {
        // The job is polled first; at its first yield the second future cancels it.
        let (result, ()) = tokio::join!(run_job(&runtime, job, run, &key), async {
            tokio::task::yield_now().await;
            cancel.cancel();
        });
        result
    });
    expect![[r#"cancelled [not-rerunnable] "": the job was cancelled"#]]
        .assert_eq(&fixture::ended(result));
}

#[test]
fn progress_is_told_and_not_kept() {
    let module = fixture::component(
        "(func $run (param i32 i32) (result i32)
           (call $progress (i64.const 1) (i64.const 0) (i32.const 96) (i32.const 2))
           (call $progress (i64.const 2) (i64.const 4) (i32.const 96) (i32.const 14))
           (i32.const 0))",
    );
    let heard = Arc::new(fixture::Heard::default());
    let job = fixture::submit(module, LIMITS, b"");
    let run = fixture::run_with(Arc::clone(&heard) as _);
    let result = fixture::block_on(run_job(&fixture::runtime(), job, run, &fixture::key(2)));
    expect![[r#"done [exact] """#]].assert_eq(&fixture::ended(result));
    let heard = heard.0.lock().expect("the run is over").clone();
    assert_eq!(
        heard[1..],
        [
            "progress 1 of None no",
            "progress 2 of Some(4) no such kettle"
        ]
    );
}
