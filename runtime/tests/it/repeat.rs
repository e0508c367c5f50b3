//! Equal requests give equal receipts: across runs, runtimes and ways of allocating.

use tussah_manifest::{Digest, Receipt};
use tussah_runtime::{Allocation, Runtime, RuntimeConfig, run_unsigned};

use crate::fixture::{self, LIMITS};

/// Emits what a guest could tell two runs apart by: two clock readings, random bytes and
/// the bits of a NaN.
const CURIOUS: &str = r#"(func $run (param i32 i32) (result i32)
    (i64.store (i32.const 1024) (call $now))
    (i64.store (i32.const 1032) (call $now))
    (i64.store (i32.const 1040) (call $random))
    (f64.store (i32.const 1048) (f64.div (f64.const 0) (f64.const 0)))
    (f64.store (i32.const 1056) (f64.sqrt (f64.const -1)))
    (call $emit (i32.const 1024) (i32.const 40) (i32.const 32)) (i32.const 0))"#;

fn consensus_and_output(config: RuntimeConfig, input: &[u8]) -> (Digest, Vec<u8>) {
    let runtime = Runtime::new(config).expect("the engine starts");
    let job = fixture::submit(fixture::component(CURIOUS), LIMITS, input);
    let run = fixture::run(&runtime, job).expect("it runs");
    (run.receipt.consensus.digest(), run.outcome.output)
}

#[test]
fn the_same_request_gives_the_same_consensus() {
    let first = consensus_and_output(fixture::config(), b"a");
    assert_eq!(first, consensus_and_output(fixture::config(), b"a"));
    let on_demand = RuntimeConfig {
        allocation: Allocation::OnDemand,
        ..fixture::config()
    };
    assert_eq!(first, consensus_and_output(on_demand, b"a"));
    let (_, other) = consensus_and_output(fixture::config(), b"b");
    assert_ne!(
        first.1[16..24],
        other[16..24],
        "another request has other random bytes"
    );
}

#[test]
fn clocks_step_and_nans_are_canonical() {
    let (_, output) = consensus_and_output(fixture::config(), b"");
    let word = |at: usize| u64::from_le_bytes(output[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!((word(0), word(8)), (1000, 2000));
    assert_eq!(
        (word(24), word(32)),
        (0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0000)
    );
}

#[test]
fn the_receipt_says_what_the_job_used() {
    let job = fixture::submit(fixture::component(CURIOUS), LIMITS, b"");
    let run = fixture::run(&fixture::runtime(), job).expect("it runs");
    let used = run.outcome.used;
    assert_eq!(
        (used.memory_bytes, used.output_bytes, used.host_calls),
        (65_536, 40, 1)
    );
    assert!(used.fuel > 0 && used.fuel < 1000, "{used:?}");
    assert_eq!(run.receipt.consensus.fuel_used, used.fuel);
    assert_eq!(run.opening.host_calls.len(), 1);
}

#[test]
fn an_account_signed_elsewhere_is_the_same_receipt_and_a_blank_one_has_its_profile() {
    let runtime = fixture::runtime();
    let job = || fixture::submit(fixture::component(CURIOUS), LIMITS, b"");
    let signed = fixture::run(&runtime, job()).expect("it runs");
    let run = fixture::run_with(std::sync::Arc::new(tussah_runtime::NoEvents));
    let account = fixture::block_on(run_unsigned(&runtime, job(), run)).expect("it runs");
    assert_eq!(account.consensus, signed.receipt.consensus);
    let (mut profile, evidence) = runtime.blank_account().expect("it fits");
    profile.limits = LIMITS;
    assert_eq!(profile, account.opening.profile);
    assert_eq!(evidence.host_build, account.evidence.host_build);
    let receipt = Receipt::sign(account.consensus, account.evidence, &fixture::key(2));
    let receipt = receipt.expect("it can be signed");
    account.opening.matches(&receipt).expect("its opening fits");
}
